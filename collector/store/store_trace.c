/* Finding traces by their fingerprints in the directory: four bytes for each span. */
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/pb.h"
#include "store/db.h"

enum { FOUND_BLOCKS = 128, FILTER_BITS = 16 };

/* A set of fingerprints: a bit for some of each one's bits, then the sorted whole. */
struct filter {
	uint64_t bits[(1u << FILTER_BITS) / 64];
	const uint32_t *sorted;
	size_t count;
};

static int compare_fingerprints(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static void filter_init(struct filter *f, uint32_t *fingerprints, size_t count)
{
	memset(f->bits, 0, sizeof(f->bits));
	qsort(fingerprints, count, sizeof(*fingerprints), compare_fingerprints);
	f->sorted = fingerprints;
	f->count = count;
	for (size_t i = 0; i < count; i++) {
		uint32_t bit = fingerprints[i] >> (32 - FILTER_BITS);
		f->bits[bit / 64] |= 1ull << (bit % 64);
	}
}

static bool filter_has(const struct filter *f, uint32_t fingerprint)
{
	uint32_t bit = fingerprint >> (32 - FILTER_BITS);

	return (f->bits[bit / 64] >> (bit % 64) & 1) &&
	       bsearch(&fingerprint, f->sorted, f->count, sizeof(fingerprint),
	               compare_fingerprints);
}

/* The hot loop of `sidelight trace`: four bytes for each span in the store. */
static bool has_any(const struct filter *f, const uint8_t *fingerprints, uint32_t count)
{
	uint32_t print;

	for (uint32_t i = 0; i < count; i++) {
		memcpy(&print, fingerprints + i * sizeof(print), sizeof(print));
		if (filter_has(f, print))
			return true;
	}
	return false;
}

/* The blocks from *from_seq on that may hold one of the traces, FOUND_BLOCKS at most; *from_seq is
 * then where to go on. */
static int find_blocks(struct store *s, const struct log *log, const struct filter *f,
                       uint64_t *from_seq, uint64_t found[FOUND_BLOCKS], unsigned *ret_count)
{
	struct dir_cursor d;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	*ret_count = 0;
	if (rc != 0)
		return rc;
	rc = from_mdb(mdb_cursor_open(txn, log->dir, &d.cursor));
	if (rc != 0)
		goto end;
	rc = dir_seek(&d, *from_seq);
	for (; rc == 0 && *ret_count < FOUND_BLOCKS; rc = dir_next(&d)) {
		*from_seq = d.seq + d.entry.count;
		if (has_any(f, d.fingerprints, d.entry.count))
			found[(*ret_count)++] = d.seq;
	}
	mdb_cursor_close(d.cursor);
end:
	reader_end(s, txn);
	return rc == -ENOENT ? 0 : rc;
}

/* Every record of the blocks that may hold one of the traces. */
static int walk_traces(struct store *s, const struct log *log, const struct filter *f,
                       store_span_fn *fn, void *ctx)
{
	uint64_t found[FOUND_BLOCKS], from_seq = 1, seq;
	struct buf block;
	unsigned count;
	int rc;

	buf_init(&block, WALK_CAP);
	do {
		rc = find_blocks(s, log, f, &from_seq, found, &count);
		for (unsigned i = 0; i < count && rc == 0; i++) {
			rc = copy_before(s, log, found[i] + 1, &block, &seq);
			if (rc == 0 && seq == found[i])
				rc = each_record(&block, 0, fn, ctx);
			if (rc == -ENOENT)
				rc = 0; // evicted meanwhile
		}
	} while (rc == 0 && count == FOUND_BLOCKS);
	buf_deinit(&block);
	return rc == 1 ? 0 : rc;
}

/* A span's trace id: the first field, as our encoder writes it, or wherever it is. */
static bool trace_id_of(const struct span_record *rec, uint8_t ret[16])
{
	enum { SPAN_TRACE_ID = 1 };
	struct pb_cursor c = pb_cursor_of(rec->base);
	struct pb_field field;

	while (pb_next(&c, &field) == 1) {
		if (field.number == SPAN_TRACE_ID && field.wire == PB_BYTES &&
		    field.bytes.len == 16) {
			memcpy(ret, field.bytes.p, 16);
			return true;
		}
	}
	return false;
}

struct trace_call {
	store_wants_fn *wants;
	void *wants_ctx;
	store_span_fn *fn;
	void *ctx;
};

static bool call_wanted(void *ctx, const struct span_record *rec)
{
	struct trace_call *call = ctx;
	uint8_t trace_id[16];

	return !trace_id_of(rec, trace_id) || !call->wants(call->wants_ctx, trace_id) ||
	       call->fn(call->ctx, rec);
}

static bool is_this_trace(void *ctx, const uint8_t trace_id[16])
{
	return memcmp(ctx, trace_id, 16) == 0;
}

int store_trace(struct store *s, const uint8_t trace_id[16], store_span_fn *fn, void *ctx)
{
	uint8_t id[16];
	uint32_t fingerprint = trace_fingerprint(trace_id);
	struct trace_call call = {is_this_trace, id, fn, ctx};
	struct filter f;

	memcpy(id, trace_id, sizeof(id));
	filter_init(&f, &fingerprint, 1);
	return walk_traces(s, &s->logs[SPANS], &f, call_wanted, &call);
}

int store_traces(struct store *s, const uint32_t *fingerprints, size_t count, store_wants_fn *wants,
                 store_span_fn *fn, void *ctx)
{
	struct trace_call call = {wants, ctx, fn, ctx};
	struct filter f;

	if (count == 0)
		return 0;
	uint32_t *sorted = calloc(count, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, fingerprints, count * sizeof(*sorted));
	filter_init(&f, sorted, count);
	int rc = walk_traces(s, &s->logs[SPANS], &f, call_wanted, &call);
	free(sorted);
	return rc;
}

/* A trace has one observation for each of its roots; that of the topmost one began first. */
struct topmost {
	const uint8_t *trace_id;
	uint64_t start_ns, seq;
};

static bool find_topmost(void *ctx, const struct span_record *rec)
{
	struct topmost *t = ctx;
	struct observation_record o;

	if (parse_observation(&o, rec) && memcmp(o.trace_id, t->trace_id, 16) == 0 &&
	    (t->seq == 0 || o.start_ns < t->start_ns)) {
		t->start_ns = o.start_ns;
		t->seq = o.seq;
	}
	return true;
}

struct one_call {
	uint64_t seq;
	struct observation_call call;
	bool found;
};

static bool call_one(void *ctx, const struct span_record *rec)
{
	struct one_call *one = ctx;

	if (rec->seq != one->seq)
		return true;
	one->found = true;
	call_observation(&one->call, rec);
	return false;
}

int store_observation(struct store *s, const uint8_t trace_id[16], store_observation_fn *fn,
                      void *ctx)
{
	uint32_t fingerprint = trace_fingerprint(trace_id);
	struct topmost t = {.trace_id = trace_id};
	struct filter f;

	filter_init(&f, &fingerprint, 1);
	int rc = walk_traces(s, &s->logs[OBSERVATIONS], &f, find_topmost, &t);
	if (rc != 0)
		return rc;
	if (t.seq == 0)
		return -ENOENT;
	struct one_call one = {t.seq, {fn, ctx}, false};
	rc = walk_records(s, &s->logs[OBSERVATIONS], t.seq, 0, call_one, &one);
	return rc != 0 ? rc : one.found ? 0 : -ENOENT;
}
