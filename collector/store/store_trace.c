/* Finding traces by their marks in the directory: four bytes for each span, sixteen for each
 * observation. */
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/pb.h"
#include "store/db.h"

enum { FOUND_BLOCKS = 128, FOUND_IDS = 64, FILTER_BITS = 16 };

/* Whether a block with these marks may hold what is looked for. */
typedef bool marks_fn(const void *what, const uint8_t *marks, uint32_t count);

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

static bool has_any(const void *what, const uint8_t *marks, uint32_t count)
{
	const struct filter *f = what;
	uint32_t print;

	for (uint32_t i = 0; i < count; i++) {
		memcpy(&print, marks + i * sizeof(print), sizeof(print));
		if (filter_has(f, print))
			return true;
	}
	return false;
}

/* The hot loop of `sidelight trace`: four bytes for each span in the store. It goes on after a
 * match, since without a way out the compiler does several at a time. */
static bool has_fingerprint(const void *what, const uint8_t *marks, uint32_t count)
{
	uint32_t wanted, print, hits = 0;

	memcpy(&wanted, what, sizeof(wanted));
	for (uint32_t i = 0; i < count; i++) {
		memcpy(&print, marks + i * sizeof(print), sizeof(print));
		hits |= print == wanted;
	}
	return hits;
}

static bool has_id(const void *what, const uint8_t *marks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (memcmp(marks + i * 16, what, 16) == 0)
			return true;
	}
	return false;
}

/* What is looked for, and where. */
struct search {
	const struct log *log;
	marks_fn *has;
	const void *what;
};

/* The blocks from *from_seq on that may hold one of the traces, FOUND_BLOCKS at most; *from_seq is
 * then where to go on. */
static int find_blocks(struct store *s, const struct search *q, uint64_t *from_seq,
                       uint64_t found[FOUND_BLOCKS], unsigned *ret_count)
{
	struct dir_cursor d;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	*ret_count = 0;
	if (rc != 0)
		return rc;
	rc = dir_open(&d, q->log, txn);
	if (rc != 0)
		goto end;
	rc = dir_seek(&d, *from_seq);
	for (; rc == 0 && *ret_count < FOUND_BLOCKS; rc = dir_next(&d)) {
		*from_seq = d.seq + d.entry.count;
		if (q->has(q->what, d.marks, d.entry.count))
			found[(*ret_count)++] = d.seq;
	}
	mdb_cursor_close(d.cursor);
end:
	reader_end(s, txn);
	return rc == -ENOENT ? 0 : rc;
}

/* Every record of the blocks that may hold what is looked for. */
static int walk_found(struct store *s, const struct search *q, store_span_fn *fn, void *ctx)
{
	uint64_t found[FOUND_BLOCKS], from_seq = 1, seq;
	struct buf block;
	unsigned count;
	int rc;

	buf_init(&block, WALK_CAP);
	do {
		rc = find_blocks(s, q, &from_seq, found, &count);
		for (unsigned i = 0; i < count && rc == 0; i++) {
			rc = copy_before(s, q->log, found[i] + 1, &block, &seq);
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
	struct search q = {&s->logs[STORE_SPANS], has_fingerprint, &fingerprint};

	memcpy(id, trace_id, sizeof(id));
	return walk_found(s, &q, call_wanted, &call);
}

int store_traces(struct store *s, const uint32_t *fingerprints, size_t count, store_wants_fn *wants,
                 store_span_fn *fn, void *ctx)
{
	struct trace_call call = {wants, ctx, fn, ctx};
	struct filter f;
	struct search q = {&s->logs[STORE_SPANS], has_any, &f};

	if (count == 0)
		return 0;
	uint32_t *sorted = calloc(count, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, fingerprints, count * sizeof(*sorted));
	filter_init(&f, sorted, count);
	int rc = walk_found(s, &q, call_wanted, &call);
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

	if (!observation_is_event(rec) && observation_parse(&o, rec) == 0 &&
	    memcmp(o.trace_id, t->trace_id, 16) == 0 && (t->seq == 0 || o.start_ns < t->start_ns)) {
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
	struct topmost t = {.trace_id = trace_id};
	struct search q = {&s->logs[STORE_OBSERVATIONS], has_id, trace_id};
	int rc = walk_found(s, &q, find_topmost, &t);

	if (rc != 0)
		return rc;
	if (t.seq == 0)
		return -ENOENT;
	struct one_call one = {t.seq, {fn, ctx}, false};
	rc = walk_records(s, &s->logs[STORE_OBSERVATIONS], t.seq, 0, call_one, &one);
	return rc != 0 ? rc : one.found ? 0 : -ENOENT;
}

/* --- by a part of their id --- */

struct prefix {
	uint64_t id[2], mask[2]; // the mask has the digits' bits
};

static void prefix_init(struct prefix *p, const uint8_t id[16], unsigned digits)
{
	uint8_t mask[16] = {0};

	assert(digits <= 2 * sizeof(mask));
	memset(mask, 0xff, digits / 2);
	if (digits % 2)
		mask[digits / 2] = 0xf0;
	memcpy(p->id, id, sizeof(p->id));
	memcpy(p->mask, mask, sizeof(p->mask));
}

static bool begins_with(const uint8_t id[16], const struct prefix *p)
{
	uint64_t v[2];

	memcpy(v, id, sizeof(v));
	return (((v[0] ^ p->id[0]) & p->mask[0]) | ((v[1] ^ p->id[1]) & p->mask[1])) == 0;
}

/* The mark of an event, which is nobody's observation. */
static bool is_nobody(const uint8_t id[16])
{
	static const uint8_t nobody[16];

	return memcmp(id, nobody, sizeof(nobody)) == 0;
}

struct found_ids {
	uint8_t ids[FOUND_IDS][16];
	unsigned count;
};

/* Those of one block before *before_seq, the last one first, until ret is full; *before_seq is then
 * where to go on. */
static void find_in_block(const struct dir_cursor *d, const struct prefix *p, uint64_t *before_seq,
                          struct found_ids *ret)
{
	uint64_t left = *before_seq - d->seq;

	if (left > d->entry.count)
		left = d->entry.count;
	while (left > 0 && ret->count < FOUND_IDS) {
		const uint8_t *id = d->marks + --left * sizeof(ret->ids[0]);
		if (begins_with(id, p) && !is_nobody(id))
			memcpy(ret->ids[ret->count++], id, sizeof(ret->ids[0]));
	}
	*before_seq = d->seq + left;
}

static int find_ids(struct store *s, const struct prefix *p, uint64_t *before_seq,
                    struct found_ids *ret)
{
	struct dir_cursor d;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	ret->count = 0;
	if (rc != 0)
		return rc;
	rc = dir_open(&d, &s->logs[STORE_OBSERVATIONS], txn);
	if (rc != 0)
		goto end;
	rc = dir_seek_before(&d, *before_seq);
	for (; rc == 0 && ret->count < FOUND_IDS; rc = dir_previous(&d))
		find_in_block(&d, p, before_seq, ret);
	mdb_cursor_close(d.cursor);
end:
	reader_end(s, txn);
	return rc == -ENOENT ? 0 : rc;
}

int store_find_prefix(struct store *s, const uint8_t prefix[16], unsigned digits,
                      store_trace_id_fn *fn, void *ctx)
{
	uint64_t before_seq = UINT64_MAX;
	struct found_ids found;
	struct prefix p;

	prefix_init(&p, prefix, digits);
	do {
		int rc = find_ids(s, &p, &before_seq, &found);
		if (rc != 0)
			return rc;
		for (unsigned i = 0; i < found.count; i++) {
			if (!fn(ctx, found.ids[i]))
				return 0;
		}
	} while (found.count == FOUND_IDS);
	return 0;
}
