#include "store/store.h"

#include <errno.h>
#include <string.h>

#include "store/db.h"

/* --- spans --- */

int store_spans(struct store *s, uint64_t from_seq, uint64_t since_ns, store_span_fn *fn, void *ctx)
{
	return walk_records(s, &s->logs[STORE_SPANS], from_seq, since_ns, fn, ctx);
}

int store_read(struct store *s, enum which_log which, uint64_t from_seq, size_t max_bytes,
               struct buf *out, struct store_chunk *ret)
{
	struct range range = {from_seq, 0, max_bytes};

	return copy_blocks(s, &s->logs[which], &range, out, ret);
}

void store_bounds(struct store *s, enum which_log which, uint64_t *ret_first, uint64_t *ret_next)
{
	*ret_first = atomic_load(&s->logs[which].first);
	*ret_next = atomic_load(&s->logs[which].next);
}

void store_size(struct store *s, uint64_t *ret_used, uint64_t *ret_limit)
{
	*ret_used = stat_get(&s->stats->store_bytes);
	*ret_limit = stat_get(&s->stats->store_limit_bytes);
}

bool store_is_held(struct store *s, uint64_t *ret_before)
{
	*ret_before = atomic_load(&s->held_before);
	return *ret_before != 0;
}

int chunk_each(const struct buf *chunk, const struct store_chunk *range, store_span_fn *fn,
               void *ctx)
{
	int rc = each_record(chunk, range->first_seq, fn, ctx);

	return rc == 1 ? 0 : rc;
}

/* --- observations --- */

bool call_observation(void *ctx, const struct span_record *rec)
{
	struct observation_call *call = ctx;
	struct observation_record o;

	return observation_is_event(rec) || observation_parse(&o, rec) < 0 ||
	       call->fn(call->ctx, &o);
}

int store_observations_forward(struct store *s, uint64_t from_seq, uint64_t since_ns,
                               store_observation_fn *fn, void *ctx)
{
	struct observation_call call = {fn, ctx};

	return walk_records(s, &s->logs[STORE_OBSERVATIONS], from_seq, since_ns, call_observation,
	                    &call);
}

static bool keep_record(void *ctx, const struct span_record *rec)
{
	buf_append(ctx, rec, sizeof(*rec));
	return true;
}

/* The records of one copied block, the last one first. 1 when fn said to stop. */
static int each_backward(const struct buf *chunk, uint64_t before_seq, struct buf *records,
                         struct observation_call *call)
{
	struct span_record rec;

	buf_clear(records);
	int rc = each_record(chunk, 0, keep_record, records);
	if (rc == 0)
		rc = buf_error(records);
	for (size_t at = records->len; at > 0 && rc == 0;) {
		at -= sizeof(rec);
		memcpy(&rec, records->data + at, sizeof(rec));
		if (rec.seq < before_seq && !call_observation(call, &rec))
			rc = 1;
	}
	return rc;
}

int store_observations(struct store *s, uint64_t before_seq, store_observation_fn *fn, void *ctx)
{
	const struct log *log = &s->logs[STORE_OBSERVATIONS];
	struct observation_call call = {fn, ctx};
	struct buf chunk, records;
	int rc;

	buf_init(&chunk, WALK_CAP);
	buf_init(&records, WALK_CAP * 4ull);
	do {
		uint64_t seq = 0;
		rc = copy_before(s, log, before_seq, &chunk, &seq);
		if (rc == 0)
			rc = each_backward(&chunk, before_seq, &records, &call);
		before_seq = seq;
	} while (rc == 0);
	buf_deinit(&records);
	buf_deinit(&chunk);
	return rc == 1 || rc == -ENOENT ? 0 : rc;
}
