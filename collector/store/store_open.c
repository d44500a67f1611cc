/* The open runs that outlived a commit. */
#include <errno.h>
#include <string.h>

#include "core/otlp_fields.h"
#include "core/runs.h"
#include "store/db.h"
#include "store/store.h"

/* Copies runs after *after, with their ids, until the chunk is full or they end. */
static int copy_open(struct store *s, const struct run_id *after, const uint8_t *trace_id,
                     struct buf *out)
{
	struct open_head h;
	struct run_id from = *after;
	MDB_cursor *c;
	MDB_txn *txn;
	MDB_val k = val_of(&from, sizeof(from)), v;
	int rc = reader_begin(s, &txn);

	buf_clear(out);
	if (rc != 0)
		return rc;
	rc = mdb_cursor_open(txn, s->open, &c);
	if (rc != 0)
		goto end;
	rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
	if (rc == 0 && memcmp(k.mv_data, after, sizeof(*after)) == 0)
		rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
	for (; rc == 0 && out->len < WALK_CHUNK; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
		if (trace_id && v.mv_size >= sizeof(h)) {
			memcpy(&h, v.mv_data, sizeof(h));
			if (memcmp(h.trace_id, trace_id, sizeof(h.trace_id)) != 0)
				continue;
		}
		struct open_change head = {.len = (uint32_t)v.mv_size};
		memcpy(&head.run, k.mv_data, sizeof(head.run));
		buf_append(out, &head, sizeof(head));
		buf_append(out, v.mv_data, v.mv_size);
	}
	mdb_cursor_close(c);
end:
	reader_end(s, txn);
	rc = rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
	return rc != 0 ? rc : buf_error(out);
}

static int walk_open(struct store *s, const uint8_t *trace_id, store_open_fn *fn, void *ctx)
{
	struct open_change head = {.len = 0}; // no run's id is all zero
	struct buf chunk;
	int rc;

	buf_init(&chunk, WALK_CAP);
	do {
		rc = copy_open(s, &head.run, trace_id, &chunk);
		for (size_t at = 0; at < chunk.len && rc == 0; at += head.len) {
			memcpy(&head, chunk.data + at, sizeof(head));
			at += sizeof(head);
			struct str value = {(char *)chunk.data + at, head.len};
			if (!fn(ctx, &head.run, value))
				rc = 1;
		}
	} while (rc == 0 && chunk.len >= WALK_CHUNK);
	buf_deinit(&chunk);
	return rc == 1 ? 0 : rc;
}

int store_open_load(struct store *s, store_open_fn *fn, void *ctx)
{
	return walk_open(s, NULL, fn, ctx);
}

struct span_call {
	store_span_fn *fn;
	void *ctx;
	struct store *said_in;  // NULL: what answers have said is not asked for
	struct buf value, said; // scratch
};

/* Joins the pages of what a run has said so far, as they are at one moment: a later one follows a
 * page that was not full before. */
static void read_said(struct span_call *call, const struct run_id *run)
{
	struct open_parts page;
	MDB_txn *txn;

	buf_clear(&call->said);
	if (reader_begin(call->said_in, &txn) != 0)
		return;
	for (unsigned i = 0;; i++) {
		struct run_id key = runs_said_key(run, i);
		MDB_val k = val_of(&key, sizeof(key)), v;
		if (mdb_get(txn, call->said_in->open, &k, &v) != 0)
			break;
		if (open_parse(&page, (struct str){v.mv_data, v.mv_size}) != 0 || page.base.len > 0)
			break;
		buf_append(&call->said, page.content.p, page.content.len);
	}
	reader_end(call->said_in, txn);
}

/* Adds it to a span's content, which is made in call->value. */
static struct str with_said(struct span_call *call, const struct run_id *run, struct str content)
{
	struct buf *out = &call->value;

	read_said(call, run);
	if (call->said.len == 0)
		return content;
	struct str said = {(char *)call->said.data, call->said.len};
	said.len = utf8_prefix(said.p, said.len);
	buf_clear(out);
	buf_append(out, content.p, content.len);
	pb_attr_str(out, SPAN_ATTRIBUTES, STR("sidelight.output"), said);
	pb_attr_bool(out, SPAN_ATTRIBUTES, STR("sidelight.partial_output"), true);
	return buf_error(out) ? content : (struct str){(char *)out->data, out->len};
}

static bool call_open(void *ctx, const struct run_id *run, struct str value)
{
	struct span_call *call = ctx;
	struct open_parts parts;

	/* Without a base it is no span, but something else that the run table keeps. */
	if (open_parse(&parts, value) != 0 || parts.base.len == 0)
		return true;
	struct span_record rec = {
		.head = parts.head.record,
		.base = parts.base,
		.content = parts.content,
		.resource = parts.resource,
	};
	rec.head.status = STATUS_RUNNING;
	if (call->said_in)
		rec.content = with_said(call, run, rec.content);
	return call->fn(call->ctx, &rec);
}

int store_open_runs(struct store *s, const uint8_t trace_id[16], store_span_fn *fn, void *ctx)
{
	struct span_call call = {.fn = fn, .ctx = ctx, .said_in = trace_id ? s : NULL};

	buf_init(&call.value, WALK_CAP);
	buf_init(&call.said, WALK_CAP);
	int rc = walk_open(s, trace_id, call_open, &call);
	buf_deinit(&call.value);
	buf_deinit(&call.said);
	return rc;
}

int store_open_get(struct store *s, const struct run_id *run, struct buf *out)
{
	MDB_val k = val_of(run, sizeof(*run)), v;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	buf_clear(out);
	if (rc != 0)
		return rc;
	rc = from_mdb(mdb_get(txn, s->open, &k, &v));
	if (rc == 0) {
		buf_append(out, v.mv_data, v.mv_size);
		rc = buf_error(out);
	}
	reader_end(s, txn);
	return rc;
}
