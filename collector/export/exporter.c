#include "export/exporter.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/commit.h"

#define LINGER_NS (20 * NS_PER_MS)   // after the first span of a batch, for its company
#define LOG_EVERY_NS (10 * NS_PER_S) // one exporter's failures, when they come and go

enum {
	KEPT_BYTES = 64 * 1024,            // buffers at rest
	MANY_BYTES = CAP_EXPORT_CHUNK / 2, // a chunk like this: more is waiting
	CHUNK_SPANS = CAP_EXPORT_BODY / sizeof(struct record_head), // no more fit into a chunk
};
_Static_assert(REJECTION_COUNT <= 32, "a bit each in rejections_logged");

/* --- waiting --- */

void exporter_wake(struct exporter *e)
{
	uint64_t one = 1;
	ssize_t n = write(e->wake_fd, &one, sizeof(one));

	(void)n; // can only fail because it is raised already
}

void exporter_notify(struct exporter *e)
{
	if (atomic_exchange(&e->asleep, false))
		exporter_wake(e);
}

static void lower_fd(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

static bool is_stopping(const struct exporter *e)
{
	return atomic_load(e->stopping);
}

static bool is_aborted(const struct exporter *e)
{
	struct pollfd p = {.fd = e->host.abort_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* Until the wake descriptor is raised or the time has come. */
static void wait_for_wake(struct exporter *e, int timeout_ms)
{
	struct pollfd p = {.fd = e->wake_fd, .events = POLLIN};

	if (poll(&p, 1, timeout_ms) > 0)
		lower_fd(e->wake_fd);
}

/* What lies before it, from the cursor on, is in memory: retention can't take it any more. */
static uint64_t held_to(const struct exporter *e)
{
	return e->range.next_seq > e->cursor ? e->range.next_seq : e->cursor;
}

static void count_evicted(struct exporter *e, uint64_t spans)
{
	if (spans == 0)
		return;
	stat_add(&e->stats->evicted, spans);
	if (!e->eviction_is_logged)
		log_warn("exporter %s: spans leave the store before they could be delivered; "
		         "a larger store.size holds out longer",
		         e->config->name);
	e->eviction_is_logged = true;
}

/* Counts what retention takes meanwhile: an outage that costs spans must show. */
static void watch_evictions(struct exporter *e, uint64_t oldest)
{
	uint64_t from = held_to(e) > e->evicted_to ? held_to(e) : e->evicted_to;

	if (oldest <= from)
		return;
	count_evicted(e, oldest - from);
	e->evicted_to = oldest;
}

static void update_pending(struct exporter *e)
{
	uint64_t first, next;

	store_bounds(e->store, &first, &next);
	watch_evictions(e, first);
	uint64_t held = held_to(e);
	uint64_t from = held > e->evicted_to ? held : e->evicted_to;
	uint64_t pending = held - e->cursor + (next > from ? next - from : 0);
	stat_set(&e->stats->pending, pending);
	if (pending == 0)
		e->eviction_is_logged = false;
}

static void tick(void *ctx)
{
	update_pending(ctx);
}

/* Sleeps until the time has come or stopping begins. */
static void pause_until(struct exporter *e, uint64_t until_ns)
{
	for (;;) {
		uint64_t now = clock_mono_ns();
		if (now >= until_ns || is_stopping(e))
			return;
		uint64_t ms = (until_ns - now + NS_PER_MS - 1) / NS_PER_MS;
		wait_for_wake(e, ms < SINK_TICK_MS ? (int)ms : SINK_TICK_MS);
		if (ms >= SINK_TICK_MS)
			update_pending(e);
	}
}

/* Sleeps, without a wakeup, until there is something to send. */
static void wait_for_spans(struct exporter *e)
{
	e->sink->ops->rest(e->sink);
	if (e->chunk.room > KEPT_BYTES)
		buf_deinit(&e->chunk);
	if (e->spans.room > KEPT_BYTES)
		buf_deinit(&e->spans);
	for (;;) {
		// Said before looking: what is stored after the look will wake us.
		atomic_store(&e->asleep, true);
		update_pending(e);
		if (stat_get(&e->stats->pending) > 0 || is_stopping(e))
			break;
		wait_for_wake(e, -1);
	}
	atomic_store(&e->asleep, false);
}

/* Lets a batch gather: quick after a rest, and at the sink's pace in a steady stream. */
static void linger(struct exporter *e)
{
	uint64_t company = clock_mono_ns() + LINGER_NS;
	uint64_t pace = e->last_send_ns + e->sink->ops->pace_ns;

	pause_until(e, company > pace ? company : pace);
}

/* --- reading --- */

static bool keep_span(void *ctx, const struct span_record *rec)
{
	struct exporter *e = ctx;

	if (rec->seq >= e->cursor)
		buf_append(&e->spans, rec, sizeof(*rec));
	return buf_error(&e->spans) == 0;
}

static void settle(struct exporter *e, uint64_t cursor)
{
	e->cursor = cursor;
	commit_cursor(e->store, e->config->name, cursor);
}

static int read_chunk(struct exporter *e)
{
	struct store_chunk range;

	buf_clear(&e->spans);
	int err = store_read(e->store, e->cursor, CAP_EXPORT_CHUNK, &e->chunk, &range);
	if (err)
		return err;
	uint64_t counted = e->evicted_to > e->cursor ? e->evicted_to - e->cursor : 0;
	if (range.lost > counted)
		count_evicted(e, range.lost - counted);
	if (range.lost)
		settle(e, range.count ? range.first_seq : range.next_seq);
	e->range = range;
	if (range.count == 0)
		return 0;
	err = chunk_each(&e->chunk, &range, keep_span, e);
	return err ? err : buf_error(&e->spans);
}

/* Reads what comes next into e->spans, which may be nothing. */
static int fetch(struct exporter *e)
{
	int err = read_chunk(e);

	if (err && !e->read_error_is_logged)
		log_error("exporter %s: can't read the store: %s; trying on", e->config->name,
		          err_str(err));
	e->read_error_is_logged = err != 0;
	return err;
}

/* --- sending --- */

static void note_success(struct exporter *e)
{
	if (e->failure_is_logged)
		log_info("exporter %s: delivering again after %.1f s", e->config->name,
		         (double)(clock_mono_ns() - e->failing_since_ns) / 1e9);
	e->failure_is_logged = false;
	e->failing_since_ns = 0;
	retry_succeeded(&e->retry);
}

static const char *separator(const char *hint)
{
	return *hint ? "; " : "";
}

static void log_failure(struct exporter *e, const struct outcome_report *r)
{
	uint64_t now = clock_mono_ns();

	if (!e->failing_since_ns)
		e->failing_since_ns = now;
	if (e->failure_is_logged || (e->logged_ns && now - e->logged_ns < LOG_EVERY_NS))
		return;
	log_warn("exporter %s: %s%s%s; spans wait in the store, trying on", e->config->name,
	         r->message, separator(r->hint), r->hint);
	e->failure_is_logged = true;
	e->logged_ns = now;
}

/* Once for each reason: the counters say how often. */
static void log_rejection(struct exporter *e, const struct outcome_report *r, uint64_t spans)
{
	uint32_t bit = 1u << r->reason;

	if (e->rejections_logged & bit)
		return;
	e->rejections_logged |= bit;
	log_warn("exporter %s: %" PRIu64 " spans rejected for good (%s): %s%s%s; more of this kind "
	         "is only counted",
	         e->config->name, spans, rejection_label(r->reason), r->message, separator(r->hint),
	         r->hint);
}

/* What a backend says about spans that it took. */
static void log_notice(struct exporter *e, const struct outcome_report *r)
{
	if (e->notice_is_logged || !r->message[0])
		return;
	e->notice_is_logged = true;
	log_info("exporter %s: %s", e->config->name, r->message);
}

static void count_rejected(struct exporter *e, const struct outcome_report *r, uint64_t spans)
{
	if (spans == 0) {
		log_notice(e, r);
		return;
	}
	stat_add(&e->stats->rejected, spans);
	stat_add(&e->stats->rejected_by[r->reason], spans);
	log_rejection(e, r, spans);
}

/* Waits before the next try; false: there is none, since we are stopping. */
static bool wait_for_retry(struct exporter *e, const struct outcome_report *r)
{
	uint32_t random = 0;

	stat_add(&e->stats->failures, 1);
	log_failure(e, r);
	if (is_stopping(e))
		return false;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)clock_mono_ns();
	update_pending(e);
	pause_until(e, clock_mono_ns() + retry_failed(&e->retry, r->retry_after_ns, random));
	// When the end begins meanwhile, one last try: unless the server asked us to stay away.
	return !(is_stopping(e) && r->retry_after_ns);
}

static void settle_batch(struct exporter *e, const struct span_record *spans,
                         const struct outcome_report *r)
{
	uint64_t rejected = r->outcome == OUTCOME_REFUSED ? r->taken : r->refused;

	note_success(e);
	count_rejected(e, r, rejected);
	stat_add(&e->stats->delivered, r->taken - rejected);
	settle(e, spans[r->taken - 1].seq + 1);
	e->last_send_ns = clock_mono_ns();
}

/* Brings all spans of the chunk to an end; false: they must wait for another time. */
static bool deliver(struct exporter *e, const struct span_record *spans, size_t count)
{
	struct outcome_report r;

	while (count > 0) {
		r = (struct outcome_report){.hint = ""};
		e->sink->ops->send(e->sink, spans, count, &r);
		if (r.outcome == OUTCOME_ABORTED)
			return false;
		stat_add(&e->stats->requests, 1);
		if (r.outcome == OUTCOME_SMALLER)
			continue;
		if (r.outcome == OUTCOME_RETRY) {
			if (!wait_for_retry(e, &r))
				return false;
			continue;
		}
		settle_batch(e, spans, &r);
		spans += r.taken;
		count -= r.taken;
	}
	// What the chunk holds beyond its last span (a damaged block, say) is settled too.
	if (e->range.next_seq > e->cursor)
		settle(e, e->range.next_seq);
	return true;
}

/* False: what is left must wait for another time. */
static bool deliver_chunk(struct exporter *e, bool *ret_more)
{
	uint64_t before = e->cursor;

	*ret_more = false;
	if (fetch(e) == 0) {
		size_t count = e->spans.len / sizeof(struct span_record);
		if (!deliver(e, (const struct span_record *)e->spans.data, count))
			return false;
	}
	update_pending(e);
	*ret_more = e->cursor != before && (e->chunk.len >= MANY_BYTES || is_stopping(e));
	if (e->cursor == before && stat_get(&e->stats->pending) > 0)
		pause_until(e, clock_mono_ns() + NS_PER_S); // can't be read: no busy loop
	return true;
}

/* Whether all that could be read was brought to an end. */
static bool deliver_stored(struct exporter *e)
{
	bool more = true;

	while (more)
		if (!deliver_chunk(e, &more))
			return false;
	return true;
}

void exporter_run(struct exporter *e)
{
	char name[16]; // the kernel keeps no more

	snprintf(name, sizeof(name), "export-%s", e->config->name);
	prctl(PR_SET_NAME, name);
	for (;;) {
		wait_for_spans(e);
		linger(e);
		bool stopping = is_stopping(e);
		if (is_aborted(e) || !deliver_stored(e) || stopping)
			break;
	}
	update_pending(e);
}

/* --- opening --- */

static int open_sink(struct exporter *e)
{
	e->host.tick = tick;
	e->host.ctx = e;
	return e->config->type == EXPORTER_CONSOLE
	               ? console_open(&e->sink, e->config, &e->host)
	               : otlp_sink_open(&e->sink, e->config, SIGNAL_TRACES, &e->host);
}

int exporter_open(struct exporter *e)
{
	e->wake_fd = -1;
	buf_init(&e->chunk, CAP_EXPORT_BODY);
	buf_init(&e->spans, CHUNK_SPANS * sizeof(struct span_record));
	e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->wake_fd < 0)
		return -errno;
	int err = open_sink(e);
	if (err)
		return err;
	err = store_cursor(e->store, e->config->name, false, &e->cursor);
	if (err)
		return err;
	// Durable before the first delivery: a restart must not begin at the end again.
	settle(e, e->cursor);
	update_pending(e);
	return 0;
}

void exporter_close(struct exporter *e)
{
	if (e->sink)
		e->sink->ops->close(e->sink);
	if (e->wake_fd >= 0)
		close(e->wake_fd);
	buf_deinit(&e->chunk);
	buf_deinit(&e->spans);
}
