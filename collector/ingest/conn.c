#include "ingest/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "core/event.h"

static struct moment now(void)
{
	return (struct moment){clock_unix_ns(), clock_mono_ns()};
}

/* --- the end of a connection --- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;

	if (--c->handles > 0)
		return;
	frames_deinit(&c->frames);
	buf_deinit(&c->held);
	free(c);
}

static void close_timer(struct conn *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->timer))
		uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

static void leave(struct conn *c)
{
	struct ingest *in = c->in;

	c->ended_once = true;
	list_remove(&c->in_all);
	list_remove(&c->in_resting);
	conn_forget_children(c);
	pipeline_forget(in->pipeline, c);
	in->kept -= c->frames.kept.len;
	in->open--;
	stat_set(&in->o.stats->connections_open, in->open);
	uv_timer_stop(&c->timer);
	uv_close((uv_handle_t *)&c->pipe, on_handle_closed);
}

void conn_abandon(struct conn *c)
{
	leave(c);
	conn_let_go(c);
}

/* What outlives the connection ends with its owner, who is looked for now and then. */
static void leave_to_owner(struct conn *c)
{
	for (struct source *s = c->source; s; s = s->older) {
		if (!s->owned || s->runs == 0)
			continue;
		s->seen_ns = clock_mono_ns();
		orphans_watch(c->in);
	}
}

void conn_let_go(struct conn *c)
{
	leave_to_owner(c);
	conn_drop_sources(c);
	list_remove(&c->in_all);
	cgroup_leave(c->cgroup);
	c->cgroup = NULL;
	close_timer(c);
}

static void end(struct conn *c)
{
	struct ingest *in = c->in;

	if (c->ended_once)
		return;
	if (frames_is_partial(&c->frames)) {
		if (c->frames.kept.len > 0) { // a skipped frame was counted when it began
			stat_add(&in->o.stats->frames_received, 1);
			stat_add(&in->o.stats->refused[REFUSED_TRUNCATED], 1);
		}
	}
	leave(c);
	c->ended = now();
	orphans_note(c, c->bye);
	if (c->bye) { // and of what it said after it
		pipeline_lock(in->pipeline);
		conn_close_runs(c, &conn_closed_by_bye, c->ended);
		pipeline_unlock(in->pipeline);
		pipeline_fed(in->pipeline);
		conn_let_go(c);
		return;
	}
	stat_add(&in->o.stats->connections_lost, 1);
	conn_take_evidence(c);
	conn_await_evidence(c);
}

void conn_hang_up(struct conn *c)
{
	end(c);
}

/* --- reading --- */

static void on_half_frame(uv_timer_t *timer)
{
	struct conn *c = timer->data;
	struct ingest *in = c->in;

	if (!frames_is_partial(&c->frames))
		return;
	if (in->full) { // it is us who don't read
		uv_timer_start(timer, on_half_frame, HALF_FRAME_MS, 0);
		return;
	}
	if (c->frames.kept.len > 0) { // a skipped frame was counted when it began
		stat_add(&in->o.stats->frames_received, 1);
		stat_add(&in->o.stats->refused[REFUSED_TIMEOUT], 1);
	}
	conn_tell(c, REFUSED_TIMEOUT);
	in->kept -= c->frames.kept.len;
	frames_deinit(&c->frames);
	c->timed_out = true;
	end(c);
}

/* The deadline is of one frame: it starts again when another has begun. */
static void watch_half_frame(struct conn *c)
{
	bool partial = frames_is_partial(&c->frames);

	if (!partial) {
		if (c->half)
			uv_timer_stop(&c->timer);
		c->half = false;
		return;
	}
	if (c->half && c->since_frames == c->frames.count)
		return;
	c->half = true;
	c->since_frames = c->frames.count;
	uv_timer_start(&c->timer, on_half_frame, HALF_FRAME_MS, 0);
}

static void rest(struct conn *c, size_t read)
{
	struct ingest *in = c->in;

	if (read > in->most_read)
		in->most_read = read;
	if (read >= BUSY_READ || pipeline_is_awaited(in->pipeline))
		return;
	uv_read_stop((uv_stream_t *)&c->pipe);
	list_append(&in->resting, &c->in_resting);
	ingest_rest(in);
}

static void check_kept(struct conn *c, size_t before)
{
	struct ingest *in = c->in;

	in->kept += c->frames.kept.len - before;
	if (in->kept <= KEPT_MAX)
		return;
	size_t kept = c->frames.kept.len;
	if (frames_abandon(&c->frames)) {
		in->kept -= kept;
		stat_add(&in->o.stats->frames_received, 1);
		conn_refuse(c, REFUSED_NO_MEMORY);
	}
}

/* Returns false when the connection has to end. */
static bool feed(struct conn *c, const uint8_t *bytes, size_t len)
{
	struct str left = {(const char *)bytes, len};
	struct feeding f = {c, now()};
	size_t before = c->frames.kept.len;

	pipeline_lock(c->in->pipeline);
	int rc = frames_feed(&c->frames, &left, conn_on_frame, &f);
	pipeline_unlock(c->in->pipeline);
	check_kept(c, before);
	if (rc == -ECANCELED && !c->failed) { // no room for more now
		buf_append(&c->held, left.p, left.len);
		rc = buf_error(&c->held);
	}
	pipeline_fed(c->in->pipeline);
	return rc == 0;
}

/* Feeds what was held back, as far as there is room. Returns false when the connection has to
 * end. */
static bool catch_up(struct conn *c)
{
	bool ok = true;

	while (ok && c->held.len > 0 && !pipeline_is_full(c->in->pipeline)) {
		struct buf held = c->held;
		buf_init(&c->held, READ_SIZE);
		ok = feed(c, held.data, held.len);
		buf_deinit(&held);
	}
	return ok;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
	struct conn *c = stream->data;
	uint64_t frames = c->frames.count;

	if (n == 0)
		return;
	stat_add(&c->in->o.stats->bytes_received, n > 0 ? (uint64_t)n : 0);
	if (n < 0 || !feed(c, (const uint8_t *)b->base, (size_t)n) || !catch_up(c)) {
		end(c);
		return;
	}
	watch_half_frame(c);
	heirs_watch(c);
	if (pipeline_is_full(c->in->pipeline))
		ingest_pause(c->in);
	else
		rest(c, c->frames.count - frames < BUSY_FRAMES ? (size_t)n : BUSY_READ);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct conn *c = handle->data;

	*ret = uv_buf_init((char *)c->in->buffer, sizeof(c->in->buffer));
}

void conn_read(struct conn *c)
{
	if (c->ended_once || c->in->full || list_is_linked(&c->in_resting))
		return;
	if (!catch_up(c)) {
		end(c);
		return;
	}
	watch_half_frame(c);
	heirs_watch(c);
	if (pipeline_is_full(c->in->pipeline))
		ingest_pause(c->in);
	else
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

void conn_pause(struct conn *c)
{
	if (!c->ended_once)
		uv_read_stop((uv_stream_t *)&c->pipe);
}

bool conn_is_silent(const struct conn *c)
{
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)&c->pipe, &fd) != 0)
		return false;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 0) == 0;
}

/* Both directions are closed only when the other end is. */
static bool has_left(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/* Who leaves later does so because of this, and will come back to the daemon after us. */
void conn_shut(struct conn *c)
{
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) != 0)
		return;
	c->left = has_left(fd);
	(void)shutdown(fd, SHUT_RD); // what it holds can still be read
}

bool conn_drain(struct conn *c)
{
	uv_os_fd_t fd;
	ssize_t n = 0;

	if (c->drained || uv_fileno((uv_handle_t *)&c->pipe, &fd) < 0)
		return true;
	while (catch_up(c)) {
		if (pipeline_is_full(c->in->pipeline))
			return false;
		n = read(fd, c->in->buffer, sizeof(c->in->buffer));
		if (n <= 0)
			break;
		stat_add(&c->in->o.stats->bytes_received, (uint64_t)n);
		if (!feed(c, c->in->buffer, (size_t)n))
			break;
	}
	c->drained = true;
	if (c->left)
		end(c);
	return true;
}

/* --- its beginning --- */

static void turn_away(struct conn *c)
{
	stat_add(&c->in->o.stats->connections_refused, 1);
	conn_send_error(c, "too_many_connections", "ingest.max_connections are open");
	close_timer(c);
	uv_close((uv_handle_t *)&c->pipe, on_handle_closed);
}

bool conn_accept(struct ingest *in)
{
	struct event nothing = {.type = EVENT_HELLO};
	struct conn *c = calloc(1, sizeof(*c));
	uv_os_fd_t fd;

	if (!c)
		return false;
	c->in = in;
	c->handles = 2;
	frames_init(&c->frames, in->o.config->max_frame);
	buf_init(&c->held, READ_SIZE);
	uv_pipe_init(in->o.loop, &c->pipe, 0);
	uv_timer_init(in->o.loop, &c->timer);
	c->pipe.data = c->timer.data = c;
	int rc = uv_accept((uv_stream_t *)&in->listener, (uv_stream_t *)&c->pipe);
	if (rc == 0 && in->open >= in->max_open) {
		turn_away(c);
		return true;
	}
	if (rc == 0 && uv_fileno((uv_handle_t *)&c->pipe, &fd) == 0) {
		c->peer = peer_of(fd);
		c->source = conn_make_source(c, &nothing);
	}
	if (!c->source) {
		close_timer(c);
		uv_close((uv_handle_t *)&c->pipe, on_handle_closed);
		return true;
	}
	in->open++;
	stat_add(&in->o.stats->connections_accepted, 1);
	stat_set(&in->o.stats->connections_open, in->open);
	list_append(&in->all, &c->in_all);
	c->cgroup = cgroups_join(in->cgroups, c->peer.pid, &c->kills_before);
	orphans_note(c, false);
	conn_read(c);
	return true;
}
