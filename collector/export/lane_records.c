/* A cursor over a log: read a chunk, send it, and only then move on. */
#include "export/lane.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/stats_report.h"
#include "export/answer.h"

#define LINGER_NS (20 * NS_PER_MS) // after the first record of a batch, for its company

enum {
	KEPT_BYTES = 64 * 1024,            // buffers at rest
	MANY_BYTES = CAP_EXPORT_CHUNK / 2, // a chunk like this: more is waiting
	CHUNK_RECORDS = CAP_EXPORT_BODY / sizeof(struct record_head), // no more fit into a chunk
};

static enum which_log log_of(const struct lane *l)
{
	return l->signal == SIGNAL_LOGS ? STORE_OBSERVATIONS : STORE_SPANS;
}

/* --- what waits, and what does not any more --- */

/* What lies before it, from the cursor on, is in memory: retention can't take it any more. */
static uint64_t held_to(const struct lane *l)
{
	return l->range.next_seq > l->place.seq ? l->range.next_seq : l->place.seq;
}

static void count_evicted(struct lane *l, uint64_t records)
{
	if (records == 0)
		return;
	stat_add(&l->stats->evicted, records);
	if (!l->eviction_is_logged)
		log_warn("exporter %s: %s leave the store before they could be delivered; a larger "
		         "store.size holds out longer",
		         l->label, signal_items(l->signal));
	l->eviction_is_logged = true;
}

/* Counts what retention takes meanwhile: an outage that costs something must show. */
static void watch_evictions(struct lane *l, uint64_t oldest)
{
	uint64_t from = held_to(l) > l->evicted_to ? held_to(l) : l->evicted_to;

	if (oldest <= from)
		return;
	count_evicted(l, oldest - from);
	l->evicted_to = oldest;
}

/* Saves the place, and what the ledger says there. */
static void note_place(struct lane *l)
{
	struct cursor *c = &l->place;

	c->refused = l->refused_before + stat_get(&l->stats->refused);
	cursor_note(l->source->store, l->cursor_name, c);
}

void records_watch(struct lane *l)
{
	uint64_t first, next;

	store_bounds(l->source->store, log_of(l), &first, &next);
	watch_evictions(l, first);
	uint64_t held = held_to(l);
	uint64_t from = held > l->evicted_to ? held : l->evicted_to;
	uint64_t pending = held - l->place.seq + (next > from ? next - from : 0);
	stat_set(&l->stats->pending, pending);
	if (pending == 0)
		l->eviction_is_logged = false;
	// Nothing may move while runs are refused.
	if (l->place.refused != l->refused_before + stat_get(&l->stats->refused))
		note_place(l);
}

/* Sleeps, without a wakeup, until there is something to send. */
static void wait_for_records(struct lane *l)
{
	l->sink->ops->rest(l->sink);
	if (l->chunk.room > KEPT_BYTES)
		buf_deinit(&l->chunk);
	if (l->records.room > KEPT_BYTES)
		buf_deinit(&l->records);
	for (;;) {
		// Said before looking: what is stored after the look will wake us.
		atomic_store(&l->asleep, true);
		records_watch(l);
		if (stat_get(&l->stats->pending) > 0 || lane_is_stopping(l))
			break;
		lane_wait(l, -1);
	}
	atomic_store(&l->asleep, false);
}

/* Lets a batch gather: quick after a rest, and at the sink's pace in a steady stream. */
static void linger(struct lane *l)
{
	uint64_t company = clock_mono_ns() + LINGER_NS;
	uint64_t pace = l->last_send_ns + l->sink->ops->pace_ns;

	lane_pause_until(l, company > pace ? company : pace);
}

/* --- settling --- */

/* Moves the cursor on. What was neither delivered nor rejected on the way was evicted. */
static void move_to(struct lane *l, uint64_t seq, uint64_t settled)
{
	struct cursor *c = &l->place;

	c->evicted += seq - c->seq - settled;
	c->seq = seq;
	atomic_store_explicit(&l->at, seq, memory_order_relaxed);
	note_place(l);
}

static void settle_batch(struct lane *l, const struct span_record *records,
                         const struct outcome_report *r)
{
	struct cursor *c = &l->place;
	uint64_t rejected = rejected_of(r);

	lane_settled(l, r);
	c->delivered += r->taken - rejected;
	c->rejected += rejected;
	c->rejected_by[r->reason] += rejected;
	move_to(l, records[r->taken - 1].seq + 1, r->taken);
	l->last_send_ns = clock_mono_ns();
}

/* --- reading --- */

static bool keep_record(void *ctx, const struct span_record *rec)
{
	struct lane *l = ctx;

	if (rec->seq >= l->place.seq)
		buf_append(&l->records, rec, sizeof(*rec));
	return buf_error(&l->records) == 0;
}

static int read_chunk(struct lane *l)
{
	struct store_chunk range;
	uint64_t from = l->place.seq;

	buf_clear(&l->records);
	int err =
		store_read(l->source->store, log_of(l), from, CAP_EXPORT_CHUNK, &l->chunk, &range);
	if (err)
		return err;
	uint64_t counted = l->evicted_to > from ? l->evicted_to - from : 0;
	if (range.lost > counted)
		count_evicted(l, range.lost - counted);
	if (range.lost)
		move_to(l, range.count ? range.first_seq : range.next_seq, 0);
	l->range = range;
	if (range.count == 0)
		return 0;
	err = chunk_each(&l->chunk, &range, keep_record, l);
	return err ? err : buf_error(&l->records);
}

/* Reads what comes next into l->records, which may be nothing. */
static int fetch(struct lane *l)
{
	int err = read_chunk(l);

	if (err && !l->read_error_is_logged)
		log_error("exporter %s: can't read the store: %s; trying on", l->label,
		          err_str(err));
	l->read_error_is_logged = err != 0;
	return err;
}

/* --- sending --- */

/* Brings all records of the chunk to an end; false: they must wait for another time. */
static bool deliver(struct lane *l, const struct span_record *records, size_t count)
{
	struct outcome_report r;

	while (count > 0) {
		r = (struct outcome_report){.hint = ""};
		l->sink->ops->send(l->sink, records, count, &r);
		if (r.outcome == OUTCOME_ABORTED)
			return false;
		stat_add(&l->stats->requests, 1);
		if (r.outcome == OUTCOME_SMALLER)
			continue;
		if (r.outcome == OUTCOME_RETRY) {
			if (!lane_wait_for_retry(l, &r))
				return false;
			continue;
		}
		settle_batch(l, records, &r);
		records += r.taken;
		count -= r.taken;
	}
	// What the chunk holds beyond its last record (a damaged block, say) is settled too.
	if (l->range.next_seq > l->place.seq)
		move_to(l, l->range.next_seq, 0);
	return true;
}

/* False: what is left must wait for another time. */
static bool deliver_chunk(struct lane *l, bool *ret_more)
{
	uint64_t before = l->place.seq;

	*ret_more = false;
	if (fetch(l) == 0) {
		size_t count = l->records.len / sizeof(struct span_record);
		if (!deliver(l, (const struct span_record *)l->records.data, count))
			return false;
	}
	records_watch(l);
	bool moved = l->place.seq != before;
	*ret_more = moved && (l->chunk.len >= MANY_BYTES || lane_is_stopping(l));
	if (!moved && stat_get(&l->stats->pending) > 0)
		lane_pause_until(l, clock_mono_ns() + NS_PER_S); // can't be read: no busy loop
	return true;
}

/* Whether all that could be read was brought to an end. */
static bool deliver_stored(struct lane *l)
{
	bool more = true;

	while (more)
		if (!deliver_chunk(l, &more))
			return false;
	return true;
}

/* At the end: what retention took is passed, so that who goes on from here doesn't count it again.
 * The chunk in memory is given up, and what was taken of that counts as well. */
static void pass_evicted(struct lane *l)
{
	uint64_t first, next, held = held_to(l);
	uint64_t counted = l->evicted_to > held ? l->evicted_to - held : 0;

	store_bounds(l->source->store, log_of(l), &first, &next);
	if (first <= l->place.seq)
		return;
	count_evicted(l, first - l->place.seq - counted);
	move_to(l, first, 0);
}

void records_run(struct lane *l)
{
	for (;;) {
		wait_for_records(l);
		linger(l);
		bool stopping = lane_is_stopping(l);
		if (lane_is_aborted(l) || !deliver_stored(l) || stopping)
			break;
	}
	pass_evicted(l);
	records_watch(l);
}

/* --- opening --- */

int records_open(struct lane *l)
{
	const struct exporter_config *config = l->config;

	buf_init(&l->chunk, CAP_EXPORT_BODY);
	buf_init(&l->records, CHUNK_RECORDS * sizeof(struct span_record));
	int err = config->type == EXPORTER_CONSOLE
	                  ? console_open(&l->sink, config, &l->host)
	                  : otlp_sink_open(&l->sink, config, l->signal, &l->host);
	if (err)
		return err;
	// A '/' is in no exporter's name.
	snprintf(l->cursor_name, sizeof(l->cursor_name),
	         l->signal == SIGNAL_TRACES ? "%s" : "%s/%s", config->name, signal_word(l->signal));
	err = cursor_open(l->source->store, l->cursor_name, log_of(l), config->from_beginning,
	                  &l->place);
	if (err)
		return err;
	atomic_store(&l->at, l->place.seq);
	l->refused_before = l->place.refused - stat_get(&l->stats->refused);
	records_watch(l);
	return 0;
}

void records_close(struct lane *l)
{
	if (l->sink)
		l->sink->ops->close(l->sink);
	if (l->cursor_name[0])
		cursor_close(l->source->store, l->cursor_name);
	buf_deinit(&l->chunk);
	buf_deinit(&l->records);
}
