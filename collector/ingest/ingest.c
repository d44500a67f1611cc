#include "ingest/ingest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ingest/conn.h"

enum { SPARE_FILES = 64, STOP_GRACE_MS = 4000 };

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

/* --- runs that a daemon before us left open --- */

static void on_orphans(uv_timer_t *timer);

struct orphan_check {
	struct ingest *in;
	unsigned left;
};

static void check_orphan(void *ctx, struct source *s)
{
	struct orphan_check *w = ctx;
	char evidence[96];
	struct closing why = {
		.status = STATUS_ERROR,
		.error_type = STR("process_lost"),
		.error_message = STR("the process was lost while this ran: killed, or crashed"),
	};
	uint64_t age_ms = (clock_mono_ns() - w->in->started_ns) / NS_PER_MS;

	bool gone = s->pid ? !peer_is_alive(s->pid, s->pid_start) : age_ms >= ORPHAN_UNSEEN_MS;
	if (!gone) {
		w->left++;
		return;
	}
	snprintf(evidence, sizeof(evidence), "pid %" PRId64 " is gone", s->pid);
	why.evidence = str_of(evidence);
	pipeline_lock(w->in->pipeline);
	runs_close_source(w->in->runs, s, &why, (struct moment){clock_unix_ns(), clock_mono_ns()});
	pipeline_unlock(w->in->pipeline);
	runs_drop_source(w->in->runs, s);
}

void ingest_watch_orphans(struct ingest *in)
{
	if (!in->stopping && !uv_is_active((uv_handle_t *)&in->orphans))
		uv_timer_start(&in->orphans, on_orphans, ORPHAN_CHECK_MS, ORPHAN_CHECK_MS);
}

static void on_orphans(uv_timer_t *timer)
{
	struct orphan_check w = {timer->data, 0};

	runs_each_orphaned(w.in->runs, check_orphan, &w);
	pipeline_fed(w.in->pipeline);
	if (w.left == 0)
		uv_timer_stop(timer);
}

/* --- start and stop --- */

static void on_connection(uv_stream_t *listener, int status)
{
	if (status < 0)
		log_warn("a connection could not be accepted: %s", uv_strerror(status));
	else
		conn_accept(listener->data);
}

static void raise_file_limit(unsigned connections)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_cur >= connections + SPARE_FILES)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < connections + SPARE_FILES)
		log_warn("only %llu files may be open: fewer than ingest.max_connections and %d "
		         "more",
		         (unsigned long long)limit.rlim_cur, SPARE_FILES);
}

static void init(struct ingest *in, const struct ingest_options *options)
{
	in->o = *options;
	in->rest_ms = REST_MAX_MS;
	in->started_ns = clock_mono_ns();
	list_init(&in->all);
	list_init(&in->resting);
	list_init(&in->ended);
	uv_pipe_init(options->loop, &in->listener, 0);
	uv_timer_init(options->loop, &in->rest);
	uv_timer_init(options->loop, &in->orphans);
	in->listener.data = in->rest.data = in->orphans.data = in;
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

static void free_ingest(struct ingest *in)
{
	uv_handle_t *handles[] = {(uv_handle_t *)&in->listener, (uv_handle_t *)&in->rest,
	                          (uv_handle_t *)&in->orphans};

	for (int i = 0; i < 3; i++)
		uv_close(handles[i], on_closed);
	for (int i = 0; i < 3; i++)
		while (handles[i]->data)
			uv_run(in->o.loop, UV_RUN_ONCE);
	free(in);
}

int ingest_start(struct ingest **ret, const struct ingest_options *options)
{
	const struct config *config = options->config;
	struct ingest *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	init(in, options);
	raise_file_limit(config->max_connections);
	int rc = door_bind(&in->door, config->socket, config->mode, config->group,
	                   config->socket_dir_is_ours);
	if (rc == 0)
		rc = start_pipeline(in);
	if (rc < 0) {
		door_remove(&in->door);
		if (in->door.fd >= 0)
			close(in->door.fd);
		free_ingest(in);
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

/* False: the store takes nothing, and is waited for no more. */
static bool wait_for_room(struct ingest *in)
{
	uint64_t until_ns = clock_mono_ns() + STOP_GRACE_MS * NS_PER_MS;

	if (in->given_up)
		return false;
	uv_timer_start(&in->rest, on_wake, 100, 100);
	while (pipeline_is_full(in->pipeline) && clock_mono_ns() < until_ns)
		uv_run(in->o.loop, UV_RUN_ONCE);
	uv_timer_stop(&in->rest);
	in->given_up = pipeline_is_full(in->pipeline);
	return !in->given_up;
}

static void let_go(struct ingest *in)
{
	while (!list_is_empty(&in->all)) {
		struct conn *c = list_first(&in->all, struct conn, in_all);
		while (!conn_drain(c) && wait_for_room(in))
			;
		conn_abandon(c);
	}
}

void ingest_stop(struct ingest *in)
{
	if (!in)
		return;
	in->stopping = true;
	door_remove(&in->door);
	uv_timer_stop(&in->orphans);
	uv_timer_stop(&in->rest);
	ingest_pause(in);
	accept_waiting(in);
	let_go(in);
	while (!list_is_empty(&in->ended)) // a tenth of a second at most
		uv_run(in->o.loop, UV_RUN_ONCE);
	pipeline_stop(in->pipeline, STOP_GRACE_MS);
	free_ingest(in);
}
