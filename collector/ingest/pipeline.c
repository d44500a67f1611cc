#include "ingest/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/caps.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/id.h"
#include "core/otlp_metrics.h"
#include "ingest/fill.h"
#include "ingest/own_resource.h"
#include "ingest/restore.h"
#include "store/batch.h"
#include "store/commit.h"
#include "store/store.h"

enum { WAITERS_FULL = 4096, BATCHES = 2 };

struct waiter {
	void *who; // NULL: gone
	uint64_t token;
};

/* Those who wait for a batch; its room is kept. */
struct waiters {
	struct waiter *list;
	unsigned count, room;
};

struct pipeline {
	struct pipeline_options o;
	struct runs *runs;
	struct metrics metrics;
	struct buf resource;  // that describes ourselves
	uint64_t start_ns;    // when counting began
	pthread_mutex_t lock; // metrics, reason
	char reason[128];     // why the store takes nothing; empty: it does
	struct batch batches[BATCHES];
	struct waiters waiters[BATCHES];
	unsigned filling; // the other one is being committed, or is empty
	size_t batch_cap; // bytes; at most an eighth of the store, so that a batch always fits
	uint64_t drops_told;
	bool committing;
	bool broken; // a sync failed: what was written before may be gone, so no more is promised
	atomic_int result; // of the commit that came back, set by the worker before it wakes us
	uint64_t paid_until_ns; // mono: each commit moves it on; not further ahead than the burst
	uv_async_t done;
	uv_timer_t soon;  // the next commit, or the next try
	uv_timer_t due;   // runs_tick()
	uint64_t due_ns;  // when that timer is set to fire; UINT64_MAX: it is not
	unsigned closing; // handles that are not closed yet
};

static struct moment now(void)
{
	return (struct moment){clock_unix_ns(), clock_mono_ns()};
}

/* --- the sink: what the run table gives out goes into the batch that is being filled --- */

static struct batch *batch_of(void *ctx)
{
	struct pipeline *p = ctx;

	return &p->batches[p->filling];
}

static int take_span(void *ctx, const struct finished_span *span)
{
	return fill_span(batch_of(ctx), span);
}

static int take_observation(void *ctx, const struct observation *o)
{
	return fill_observation(batch_of(ctx), o);
}

static int take_event(void *ctx, const struct orphan_event *e)
{
	return fill_event(batch_of(ctx), e);
}

static int put_open(void *ctx, const struct run_id *run, const struct open_head *head,
                    struct str base, struct str content, struct str resource, struct str state)
{
	return batch_put_open(batch_of(ctx), run, head, base, content, resource, state);
}

static int delete_open(void *ctx, const struct run_id *run)
{
	return batch_delete_open(batch_of(ctx), run);
}

static bool has_room(void *ctx)
{
	return !pipeline_is_full(ctx);
}

static int get_open(void *ctx, const struct run_id *run, struct buf *out)
{
	struct pipeline *p = ctx;

	return store_open_get(p->o.store, run, out);
}

/* --- committing --- */

static void answer(struct pipeline *p, struct waiters *w)
{
	for (unsigned i = 0; i < w->count; i++)
		if (w->list[i].who)
			p->o.flushed(p->o.ctx, w->list[i].who, w->list[i].token);
	w->count = 0;
}

static void on_soon(uv_timer_t *timer);

/* Flushes don't wait for credit, and must not use up that of the future. */
static void pay(struct pipeline *p)
{
	uint64_t at = clock_mono_ns();
	uint64_t most = at + COMMIT_BURST * COMMIT_EVERY_MS * NS_PER_MS;

	if (p->paid_until_ns < at)
		p->paid_until_ns = at;
	p->paid_until_ns += COMMIT_EVERY_MS * NS_PER_MS;
	if (p->paid_until_ns > most)
		p->paid_until_ns = most;
}

/* Something that was fed did not fit: those who wait for it wait for the next commit. */
static void put_off_waiters(struct pipeline *p)
{
	struct waiters *now = &p->waiters[p->filling];
	struct waiters *next = &p->waiters[(p->filling + 1) % BATCHES];
	struct waiters empty = *next; // the other batch's have been answered

	*next = *now;
	empty.count = 0;
	*now = empty;
}

static void commit(struct pipeline *p)
{
	struct batch *b = &p->batches[p->filling];

	bool all = runs_seal(p->runs) == 0;
	if (batch_is_empty(b)) {
		runs_committed(p->runs);
		if (all)
			answer(p, &p->waiters[p->filling]);
		return;
	}
	if (!all)
		put_off_waiters(p);
	uv_timer_stop(&p->soon);
	p->committing = true;
	pay(p);
	p->filling = (p->filling + 1) % BATCHES;
	commit_submit(p->o.store, b);
}

static uint64_t wait_for_credit(const struct pipeline *p)
{
	uint64_t credit_at = clock_mono_ns() + (COMMIT_BURST - 1) * COMMIT_EVERY_MS * NS_PER_MS;

	return p->paid_until_ns <= credit_at ? 0 : (p->paid_until_ns - credit_at) / NS_PER_MS + 1;
}

static void consider_commit(struct pipeline *p)
{
	const struct batch *b = &p->batches[p->filling];
	bool awaited = p->waiters[p->filling].count > 0;

	if (p->committing || p->broken ||
	    (batch_is_empty(b) && runs_bytes(p->runs) == 0 && !awaited))
		return;
	uint64_t wait_ms = wait_for_credit(p);
	if (awaited || wait_ms == 0 || batch_bytes(b) + runs_bytes(p->runs) >= COMMIT_SOON_BYTES)
		commit(p);
	else if (!uv_is_active((uv_handle_t *)&p->soon))
		uv_timer_start(&p->soon, on_soon, wait_ms, 0);
}

static void on_retry(uv_timer_t *timer)
{
	struct pipeline *p = timer->data;

	commit_submit(p->o.store, &p->batches[(p->filling + 1) % BATCHES]);
}

static void on_soon(uv_timer_t *timer)
{
	consider_commit(timer->data);
}

static void set_reason(struct pipeline *p, int error)
{
	bool was_ready = p->reason[0] == '\0';

	pthread_mutex_lock(&p->lock);
	p->reason[0] = '\0';
	if (error)
		snprintf(p->reason, sizeof(p->reason), "the store can't be written: %s",
		         err_str(error));
	pthread_mutex_unlock(&p->lock);
	if (error && was_ready)
		log_error("%s; events are held back until it can", p->reason);
	else if (!error && !was_ready)
		log_info("the store can be written again");
}

/* The worker's thread. */
static void on_worker_done(void *ctx, int error)
{
	struct pipeline *p = ctx;

	p->result = error; // read after the wake-up, and by nobody before it
	uv_async_send(&p->done);
}

static void do_due(struct pipeline *p)
{
	pipeline_lock(p);
	runs_tick(p->runs, now());
	pipeline_unlock(p);
}

static void warn_of_drops(struct pipeline *p)
{
	uint64_t drops = stat_get(&p->o.stats->spans_dropped);

	if (drops > p->drops_told)
		log_warn("%llu spans could not be stored since the start",
		         (unsigned long long)drops);
	p->drops_told = drops;
}

/* A batch that will never fit. Nobody is told that it is durable. */
static void drop_batch(struct pipeline *p, unsigned which)
{
	struct batch *b = &p->batches[which];

	stat_add(&p->o.stats->spans_dropped, b->spans.count);
	stat_add(&p->o.stats->observations_dropped, b->observations.count - b->events);
	stat_add(&p->o.stats->events_dropped, b->events);
	log_error("%llu spans were dropped: they are more than store.size can hold at once",
	          (unsigned long long)b->spans.count);
	batch_clear(b);
	runs_dropped(p->runs);
	p->waiters[0].count = p->waiters[1].count = 0;
	p->o.dropped(p->o.ctx); // and no later flush may be taken to cover it
}

/* After a failed sync a second one may succeed without the data, so only a new start, which looks
 * at the file itself, can go on. */
static void give_up_disk(struct pipeline *p)
{
	p->broken = true;
	p->committing = false;
	p->waiters[0].count = p->waiters[1].count = 0;
	p->o.failed(p->o.ctx);
}

static void on_committed(uv_async_t *async)
{
	struct pipeline *p = async->data;
	unsigned committed = (p->filling + 1) % BATCHES;

	if (!p->committing)
		return;
	set_reason(p, p->result == -E2BIG ? 0 : p->result);
	if (p->result == -E2BIG) {
		drop_batch(p, committed);
	} else if (p->result == -EIO) {
		give_up_disk(p);
		return;
	} else if (p->result) {
		uv_timer_start(&p->soon, on_retry, COMMIT_RETRY_MS, 0);
		return;
	}
	bool spans = p->batches[committed].spans.count > 0;
	p->committing = false;
	runs_committed(p->runs);
	batch_clear(&p->batches[committed]);
	answer(p, &p->waiters[committed]);
	if (spans)
		p->o.committed(p->o.ctx);
	warn_of_drops(p);
	do_due(p); // what there was no room for
	p->o.roomy(p->o.ctx);
	consider_commit(p);
}

/* --- deadlines --- */

static void arm_due(struct pipeline *p);

static void on_due(uv_timer_t *timer)
{
	struct pipeline *p = timer->data;

	p->due_ns = UINT64_MAX;
	do_due(p);
	pipeline_fed(p);
}

static void arm_due(struct pipeline *p)
{
	uint64_t due = runs_deadline(p->runs);

	if (due >= p->due_ns ||
	    pipeline_is_full(p)) // it fires early enough, or a commit comes first
		return;
	uint64_t at = clock_mono_ns();
	p->due_ns = due;
	uv_timer_start(&p->due, on_due, due > at ? (due - at) / NS_PER_MS + 1 : 0, 0);
}

void pipeline_fed(struct pipeline *p)
{
	arm_due(p);
	consider_commit(p);
}

/* --- the rest of the interface --- */

static void init_handles(struct pipeline *p)
{
	uv_async_init(p->o.loop, &p->done, on_committed);
	uv_timer_init(p->o.loop, &p->soon);
	uv_timer_init(p->o.loop, &p->due);
	p->done.data = p->soon.data = p->due.data = p;
	p->due_ns = UINT64_MAX;
}

static int start_runs(struct pipeline *p)
{
	const struct config *c = p->o.config;
	struct runs_options options = {
		.convention = c->convention,
		.content = c->content,
		.max_value = c->max_value,
		.max_frame = c->max_frame,
		.max_open = CAP_OPEN_RUNS,
		.max_open_bytes = c->store_bytes / 4, // the log needs room as well
		// Whoever streams must leave room for the runs that begin.
		.max_said_bytes = c->store_bytes / 8 < CAP_SAID ? c->store_bytes / 8 : CAP_SAID,
		.stats = p->o.stats,
		.metrics = &p->metrics,
		.prices = &c->prices,
		.sink = {.ctx = p,
	                 .span = take_span,
	                 .observation = take_observation,
	                 .event = take_event,
	                 .put_open = put_open,
	                 .delete_open = delete_open,
	                 .get_open = get_open,
	                 .has_room = has_room},
	};

	int rc = runs_new(&p->runs, &options);
	return rc < 0 ? rc : restore_runs(p->runs, p->o.store, now());
}

static void on_closed(uv_handle_t *handle)
{
	struct pipeline *p = handle->data;

	p->closing--;
}

static void close_handles(struct pipeline *p)
{
	uv_handle_t *handles[] = {(uv_handle_t *)&p->done, (uv_handle_t *)&p->soon,
	                          (uv_handle_t *)&p->due};

	p->closing = 3;
	for (int i = 0; i < 3; i++)
		uv_close(handles[i], on_closed);
	while (p->closing)
		uv_run(p->o.loop, UV_RUN_ONCE);
}

void pipeline_free(struct pipeline *p)
{
	close_handles(p);
	runs_free(p->runs);
	metrics_deinit(&p->metrics);
	buf_deinit(&p->resource);
	for (int i = 0; i < BATCHES; i++) {
		batch_deinit(&p->batches[i]);
		free(p->waiters[i].list);
	}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int pipeline_start(struct pipeline **ret, const struct pipeline_options *options)
{
	struct pipeline *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->o = *options;
	p->batch_cap = options->config->store_bytes / 8 < CAP_BATCH
	                       ? (size_t)(options->config->store_bytes / 8)
	                       : CAP_BATCH;
	pthread_mutex_init(&p->lock, NULL);
	metrics_init(&p->metrics);
	for (int i = 0; i < BATCHES; i++)
		batch_init(&p->batches[i]);
	init_handles(p);
	p->start_ns = clock_unix_ns();
	buf_init(&p->resource, MIB);
	int rc = own_resource(&p->resource, p->o.config);
	if (rc == 0)
		rc = start_runs(p);
	if (rc == 0)
		rc = commit_start(p->o.store, on_worker_done, p);
	if (rc < 0) {
		pipeline_free(p);
		return rc;
	}
	pipeline_fed(p);
	*ret = p;
	return 0;
}

static bool is_drained(const struct pipeline *p)
{
	return p->broken || (!p->committing && batch_is_empty(&p->batches[p->filling]) &&
	                     runs_bytes(p->runs) == 0 && !pipeline_is_awaited(p));
}

static void on_grace_over(uv_timer_t *timer)
{
	bool *over = timer->data;

	*over = true;
}

void pipeline_drain(struct pipeline *p, unsigned grace_ms)
{
	uv_timer_t *grace = &p->due;
	bool over = false;

	grace->data = &over;
	uv_timer_start(grace, on_grace_over, grace_ms, 0);
	while (!is_drained(p) && !over) {
		if (!p->committing)
			commit(p);
		if (!is_drained(p))
			uv_run(p->o.loop, UV_RUN_ONCE);
	}
	uv_timer_stop(grace);
	grace->data = p;
	p->due_ns = UINT64_MAX;
}

void pipeline_stop(struct pipeline *p, unsigned grace_ms)
{
	pipeline_drain(p, grace_ms);
	if (!is_drained(p))
		log_error("what could not be written is lost: %s",
		          p->reason[0] ? p->reason : "no time left");
	commit_stop(p->o.store);
}

struct runs *pipeline_runs(struct pipeline *p)
{
	return p->runs;
}

bool pipeline_is_full(const struct pipeline *p)
{
	return batch_bytes(&p->batches[p->filling]) + runs_bytes(p->runs) >= p->batch_cap ||
	       p->waiters[p->filling].count >= WAITERS_FULL;
}

int pipeline_flush(struct pipeline *p, void *who, uint64_t token)
{
	struct waiters *w = &p->waiters[p->filling];

	if (w->count == w->room) {
		unsigned room = w->room ? 2 * w->room : 16;
		struct waiter *list = realloc(w->list, room * sizeof(*list));
		if (!list)
			return -ENOMEM;
		w->list = list;
		w->room = room;
	}
	w->list[w->count++] = (struct waiter){who, token};
	return 0;
}

void pipeline_forget(struct pipeline *p, const void *who)
{
	for (int b = 0; b < BATCHES; b++)
		for (unsigned i = 0; i < p->waiters[b].count; i++)
			if (p->waiters[b].list[i].who == who)
				p->waiters[b].list[i].who = NULL;
}

bool pipeline_is_awaited(const struct pipeline *p)
{
	return p->waiters[0].count + p->waiters[1].count > 0;
}

void pipeline_lock(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
}

void pipeline_unlock(struct pipeline *p)
{
	pthread_mutex_unlock(&p->lock);
}

/* Writing takes long where there are many series, and the loop must not wait for it. */
static struct metrics *copy_metrics(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	struct metrics *copy = metrics_copy(&p->metrics);
	pthread_mutex_unlock(&p->lock);
	return copy;
}

void pipeline_write_metrics(struct pipeline *p, struct buf *out)
{
	struct metrics *copy = copy_metrics(p);

	if (copy)
		metrics_write(copy, out);
	else
		out->error = -ENOMEM;
	free(copy);
}

size_t pipeline_write_otlp_metrics(struct pipeline *p, struct buf *out)
{
	struct metrics *copy = copy_metrics(p);
	struct otlp_report report = {
		.resource = {(char *)p->resource.data, p->resource.len},
		.start_ns = p->start_ns,
		.time_ns = clock_unix_ns(),
		.metrics = copy,
		.stats = p->o.stats,
	};
	size_t points = 0;

	if (copy)
		points = otlp_metrics_request(out, &report);
	else
		out->error = -ENOMEM;
	free(copy);
	return points;
}

bool pipeline_is_ready(struct pipeline *p, char *reason, unsigned size)
{
	pthread_mutex_lock(&p->lock);
	snprintf(reason, size, "%s", p->reason);
	pthread_mutex_unlock(&p->lock);
	uint64_t before;
	if (reason[0] == '\0' && store_is_held(p->o.store, &before))
		snprintf(reason, size,
		         "the store is full of what exporters have not got; new runs are "
		         "refused (store.when_full)");
	return reason[0] == '\0';
}
