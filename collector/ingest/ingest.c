#include "ingest/ingest.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ingest/conn.h"

enum { SPARE_FILES = 64, STOP_GRACE_MS = 5000, ACCEPT_AGAIN_MS = 100 };

/* --- rest --- */

static void on_rested(uv_timer_t *timer)
{
	struct ingest *in = timer->data;
	struct list_node rested;

	// A rest that let much gather was too long, one that let little gather too short.
	if (in->most_read >= BUSY_READ / 2)
		in->rest_ms = in->rest_ms / 2 > REST_MIN_MS ? in->rest_ms / 2 : REST_MIN_MS;
	else if (in->most_read < BUSY_READ / 8)
		in->rest_ms = in->rest_ms * 2 < REST_MAX_MS ? in->rest_ms * 2 : REST_MAX_MS;
	in->most_read = 0;
	list_init(&rested);
	list_move_all(&rested, &in->resting);
	while (!list_is_empty(&rested)) {
		struct conn *c = list_first(&rested, struct conn, in_resting);
		list_remove(&c->in_resting);
		conn_read(c);
	}
}

void ingest_rest(struct ingest *in)
{
	if (!uv_is_active((uv_handle_t *)&in->rest))
		uv_timer_start(&in->rest, on_rested, in->rest_ms, 0);
}

void ingest_pause(struct ingest *in)
{
	if (in->full)
		return;
	in->full = true;
	for (struct list_node *n = in->all.next; n != &in->all; n = n->next)
		conn_pause(container_of(n, struct conn, in_all));
}

static void on_roomy(void *ctx)
{
	struct ingest *in = ctx;

	if (!in->full || in->stopping || pipeline_is_full(in->pipeline))
		return;
	in->full = false;
	for (struct list_node *n = in->all.next, *next; n != &in->all; n = next) {
		next = n->next; // it may end by what it had said
		conn_read(container_of(n, struct conn, in_all));
	}
}

static void on_flushed(void *ctx, void *waiter, uint64_t token)
{
	conn_flushed(waiter, token);
}

static void on_committed(void *ctx)
{
	struct ingest *in = ctx;

	in->o.committed(in->o.ctx);
}

/* Whoever is connected may have lost something that a later flush would seem to cover. */
static void on_dropped(void *ctx)
{
	struct ingest *in = ctx;

	while (!list_is_empty(&in->all))
		conn_hang_up(list_first(&in->all, struct conn, in_all));
}

static void on_failed(void *ctx)
{
	struct ingest *in = ctx;

	in->o.failed(in->o.ctx);
}

/* --- start and stop --- */

static void on_again(uv_timer_t *timer);

/* libuv tells of nobody else before this one is accepted. */
static void let_in(struct ingest *in)
{
	if (!conn_accept(in))
		uv_timer_start(&in->again, on_again, ACCEPT_AGAIN_MS, 0);
}

static void on_again(uv_timer_t *timer)
{
	let_in(timer->data);
}

static void on_connection(uv_stream_t *listener, int status)
{
	if (status < 0)
		log_warn("a connection could not be accepted: %s", uv_strerror(status));
	else
		let_in(listener->data);
}

/* How many connections leave the exporters, the API and the store the files they need. */
static unsigned make_room_for(unsigned connections)
{
	const rlim_t wanted = connections + SPARE_FILES + CGROUPS_MAX;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return connections;
	rlim_t now = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		now = limit.rlim_cur;
	if (now >= connections + SPARE_FILES) // there are hardly ever so many cgroups
		return connections;
	unsigned room = now > SPARE_FILES ? (unsigned)(now - SPARE_FILES) : 1;
	log_warn("only %llu files may be open: room for %u connections, fewer than "
	         "ingest.max_connections",
	         (unsigned long long)now, room);
	return room;
}

static void init(struct ingest *in, const struct ingest_options *options)
{
	in->o = *options;
	in->rest_ms = REST_MAX_MS;
	in->started_ns = clock_mono_ns();
	list_init(&in->all);
	list_init(&in->resting);
	list_init(&in->watchers);
	list_init(&in->ended);
	uv_pipe_init(options->loop, &in->listener, 0);
	uv_timer_init(options->loop, &in->rest);
	uv_timer_init(options->loop, &in->orphans);
	uv_timer_init(options->loop, &in->heirs);
	uv_timer_init(options->loop, &in->again);
	in->listener.data = in->rest.data = in->again.data = in;
	in->orphans.data = in->heirs.data = in;
}

static int start_pipeline(struct ingest *in)
{
	struct pipeline_options options = {
		.config = in->o.config,
		.stats = in->o.stats,
		.store = in->o.store,
		.loop = in->o.loop,
		.ctx = in,
		.flushed = on_flushed,
		.roomy = on_roomy,
		.committed = on_committed,
		.dropped = on_dropped,
		.failed = on_failed,
	};

	int rc = pipeline_start(&in->pipeline, &options);
	if (rc == 0)
		in->runs = pipeline_runs(in->pipeline);
	return rc;
}

static void on_closed(uv_handle_t *handle)
{
	handle->data = NULL;
}

void ingest_free(struct ingest *in)
{
	if (!in)
		return;
	if (in->pipeline)
		pipeline_free(in->pipeline);
	uv_handle_t *handles[] = {(uv_handle_t *)&in->listener, (uv_handle_t *)&in->rest,
	                          (uv_handle_t *)&in->orphans, (uv_handle_t *)&in->heirs,
	                          (uv_handle_t *)&in->again};
	enum { COUNT = sizeof(handles) / sizeof(handles[0]) };

	for (int i = 0; i < COUNT; i++)
		uv_close(handles[i], on_closed);
	for (int i = 0; i < COUNT; i++)
		while (handles[i]->data)
			uv_run(in->o.loop, UV_RUN_ONCE);
	cgroups_free(in->cgroups);
	free(in);
}

int ingest_start(struct ingest **ret, const struct ingest_options *options)
{
	const struct config *config = options->config;
	struct ingest *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	init(in, options);
	in->max_open = make_room_for(config->max_connections);
	int rc = cgroups_new(&in->cgroups, "/proc");
	if (rc < 0) {
		ingest_free(in);
		return rc;
	}
	rc = door_bind(&in->door, config->socket, config->mode, config->group,
	               config->socket_dir_is_ours);
	if (rc == 0)
		rc = start_pipeline(in);
	if (rc < 0) {
		door_remove(&in->door);
		if (in->door.fd >= 0)
			close(in->door.fd);
		ingest_free(in);
		return rc;
	}
	*ret = in;
	return 0;
}

int ingest_open_door(struct ingest *in)
{
	int rc = uv_pipe_open(&in->listener, in->door.fd);

	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&in->listener, 512, on_connection);
	if (rc == 0)
		rc = door_show(&in->door);
	if (rc == 0)
		uv_timer_start(&in->orphans, on_orphans, 0, ORPHAN_CHECK_MS);
	return rc;
}

struct pipeline *ingest_pipeline(struct ingest *in)
{
	return in->pipeline;
}

/* Who connected while the door was there has been let in, whether we had looked or not. */
static void accept_waiting(struct ingest *in)
{
	unsigned before;

	do {
		before = in->open;
		uv_run(in->o.loop, UV_RUN_NOWAIT);
	} while (in->open != before);
}

static void on_wake(uv_timer_t *timer)
{
	// Only to come back from uv_run().
}

static unsigned ms_left(const struct ingest *in)
{
	uint64_t at = clock_mono_ns();

	return at < in->stop_by_ns ? (unsigned)((in->stop_by_ns - at) / NS_PER_MS) : 0;
}

/* False: the store takes nothing, and is waited for no more. */
static bool wait_for_room(struct ingest *in)
{
	uv_timer_start(&in->rest, on_wake, 100, 100);
	while (pipeline_is_full(in->pipeline) && ms_left(in) > 0)
		uv_run(in->o.loop, UV_RUN_ONCE);
	uv_timer_stop(&in->rest);
	return !pipeline_is_full(in->pipeline);
}

static struct conn *first_undrained(struct ingest *in)
{
	for (struct list_node *n = in->all.next; n != &in->all; n = n->next) {
		struct conn *c = container_of(n, struct conn, in_all);
		if (!c->drained)
			return c;
	}
	return NULL;
}

/* From one moment on nothing more is taken; all that clients had sent by then is read. */
static void drain(struct ingest *in)
{
	struct conn *c;

	for (struct list_node *n = in->all.next; n != &in->all; n = n->next)
		conn_shut(container_of(n, struct conn, in_all));
	while ((c = first_undrained(in)) != NULL)
		if (!conn_drain(c) && !wait_for_room(in))
			break;
}

void ingest_stop(struct ingest *in)
{
	if (!in)
		return;
	in->stopping = true;
	in->stop_by_ns = clock_mono_ns() + STOP_GRACE_MS * NS_PER_MS;
	door_remove(&in->door);
	orphans_stop(in);
	uv_timer_stop(&in->rest);
	uv_timer_stop(&in->again);
	ingest_pause(in);
	accept_waiting(in);
	drain(in);
	pipeline_drain(in->pipeline, ms_left(in)); // and answers the flushes
	while (!list_is_empty(&in->all))
		conn_abandon(list_first(&in->all, struct conn, in_all));
	while (!list_is_empty(&in->ended)) // a tenth of a second at most
		uv_run(in->o.loop, UV_RUN_ONCE);
	pipeline_stop(in->pipeline, ms_left(in));
}
