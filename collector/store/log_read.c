/* Reading: blocks are copied out under a short transaction, and handed on without one. */
#include "store/db.h"

#include <errno.h>
#include <string.h>

/* --- transactions --- */

int reader_begin(struct store *s, MDB_txn **ret)
{
	MDB_txn *txn = NULL;

	pthread_mutex_lock(&s->readers_lock);
	if (s->reader_count > 0)
		txn = s->readers[--s->reader_count];
	pthread_mutex_unlock(&s->readers_lock);
	if (!txn)
		return from_mdb(mdb_txn_begin(s->env, NULL, MDB_RDONLY, ret));
	int rc = mdb_txn_renew(txn);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return from_mdb(rc);
	}
	*ret = txn;
	return 0;
}

void reader_end(struct store *s, MDB_txn *txn)
{
	mdb_txn_reset(txn);
	pthread_mutex_lock(&s->readers_lock);
	if (s->reader_count < IDLE_READERS) {
		s->readers[s->reader_count++] = txn;
		txn = NULL;
	}
	pthread_mutex_unlock(&s->readers_lock);
	if (txn)
		mdb_txn_abort(txn);
}

/* --- the directory --- */

int dir_entry_read(struct dir_entry *ret, const struct log *log, const MDB_val *value)
{
	if (value->mv_size < sizeof(*ret))
		return ERR_CORRUPT;
	memcpy(ret, value->mv_data, sizeof(*ret));
	if (value->mv_size != sizeof(*ret) + (uint64_t)ret->count * log->mark_bytes)
		return ERR_CORRUPT;
	return 0;
}

static int dir_move(struct dir_cursor *d, MDB_cursor_op op, uint64_t seq)
{
	MDB_val k = val_of(&seq, sizeof(seq)), v;
	int rc = mdb_cursor_get(d->cursor, &k, &v, op);

	if (rc != 0)
		return from_mdb(rc);
	memcpy(&d->seq, k.mv_data, sizeof(d->seq));
	d->marks = (const uint8_t *)v.mv_data + sizeof(d->entry);
	return dir_entry_read(&d->entry, d->log, &v);
}

int dir_open(struct dir_cursor *d, const struct log *log, MDB_txn *txn)
{
	d->log = log;
	return from_mdb(mdb_cursor_open(txn, log->dir, &d->cursor));
}

int dir_seek(struct dir_cursor *d, uint64_t seq)
{
	int rc = dir_move(d, MDB_SET_RANGE, seq);

	if (rc == 0 && d->seq == seq)
		return 0;
	if (rc != 0 && rc != -ENOENT)
		return rc;
	rc = dir_move(d, rc == 0 ? MDB_PREV : MDB_LAST, 0);
	if (rc == -ENOENT)
		return dir_move(d, MDB_FIRST, 0);
	if (rc == 0 && d->seq + d->entry.count <= seq)
		rc = dir_move(d, MDB_NEXT, 0);
	return rc;
}

int dir_next(struct dir_cursor *d)
{
	return dir_move(d, MDB_NEXT, 0);
}

int dir_seek_before(struct dir_cursor *d, uint64_t seq)
{
	int rc = dir_move(d, MDB_SET_RANGE, seq);

	if (rc != 0 && rc != -ENOENT)
		return rc;
	return dir_move(d, rc == 0 ? MDB_PREV : MDB_LAST, 0);
}

int dir_previous(struct dir_cursor *d)
{
	return dir_move(d, MDB_PREV, 0);
}

/* --- copying blocks out --- */

/* Appends the block at d to out. ERR_CORRUPT: it is not what the directory says; out is unchanged.
 */
static int copy_block(struct store *s, MDB_txn *txn, const struct log *log,
                      const struct dir_cursor *d, struct buf *out)
{
	struct block_reader r;
	size_t at = out->len;
	MDB_val k = val_of(&d->seq, sizeof(d->seq)), v;
	int rc = mdb_get(txn, log->blocks, &k, &v);

	if (rc == 0 && v.mv_size == d->entry.length) {
		buf_append(out, v.mv_data, v.mv_size);
		if (buf_error(out) != 0)
			return buf_error(out);
		rc = block_open(&r, (struct str){(char *)out->data + at, v.mv_size});
		if (rc == 0 && r.header.first_seq == d->seq && r.header.count == d->entry.count)
			return 0;
		out->len = at;
	} else if (rc != 0 && rc != MDB_NOTFOUND) {
		return from_mdb(rc);
	}
	stat_add(&s->stats->blocks_corrupt, 1);
	return ERR_CORRUPT;
}

/* Goes over the block at d, copying it unless it is too old; what can't be read is lost. 1, 0 when
 * out is full, or an error. */
static int copy_next(struct store *s, MDB_txn *txn, const struct log *log,
                     const struct range *range, const struct dir_cursor *d, struct buf *out,
                     struct store_chunk *c)
{
	uint64_t end = d->seq + d->entry.count;
	uint64_t begin = d->seq > c->next_seq ? d->seq : c->next_seq;

	c->lost += begin - c->next_seq;
	c->next_seq = begin;
	if (d->entry.end_ns < range->since_ns) {
		c->next_seq = end;
		return 1;
	}
	if (out->len > 0 && out->len + d->entry.length > range->max_bytes)
		return 0;
	int rc = copy_block(s, txn, log, d, out);
	if (rc == ERR_CORRUPT) {
		c->lost += end - begin;
	} else if (rc != 0) {
		return rc;
	} else {
		if (c->count == 0)
			c->first_seq = begin;
		c->count += end - begin;
	}
	c->next_seq = end;
	return 1;
}

/* There is no block at or after next_seq, but there may have been. */
static void skip_evicted(const struct log *log, struct store_chunk *c)
{
	uint64_t first = atomic_load(&log->first);

	if (c->next_seq < first) {
		c->lost += first - c->next_seq;
		c->next_seq = first;
		c->first_seq = first;
	}
}

int copy_blocks(struct store *s, const struct log *log, const struct range *range, struct buf *out,
                struct store_chunk *ret)
{
	struct dir_cursor d;
	MDB_txn *txn;
	uint64_t next = atomic_load(&log->next);
	struct store_chunk c = {.next_seq = range->from_seq < next ? range->from_seq : next};

	if (c.next_seq == 0)
		c.next_seq = 1;
	c.first_seq = c.next_seq;
	buf_clear(out);
	int rc = reader_begin(s, &txn);
	if (rc != 0)
		return rc;
	rc = dir_open(&d, log, txn);
	if (rc != 0)
		goto end;
	rc = dir_seek(&d, c.next_seq);
	if (rc == -ENOENT)
		skip_evicted(log, &c);
	while (rc == 0) {
		rc = copy_next(s, txn, log, range, &d, out, &c);
		if (rc <= 0)
			break;
		rc = dir_next(&d);
	}
	mdb_cursor_close(d.cursor);
	if (rc == -ENOENT)
		rc = 0;
end:
	reader_end(s, txn);
	if (rc == 0)
		*ret = c;
	return rc;
}

int each_record(const struct buf *chunk, uint64_t first_seq, store_span_fn *fn, void *ctx)
{
	struct block_reader r;
	struct span_record rec;

	for (size_t at = 0; at < chunk->len; at += r.header.length) {
		struct str bytes = {(const char *)chunk->data + at, chunk->len - at};
		int rc = block_open_checked(&r, bytes);
		if (rc != 0)
			return rc;
		while ((rc = block_next(&r, &rec)) == 1) {
			if (rec.seq >= first_seq && !fn(ctx, &rec))
				return 1;
		}
		if (rc != 0)
			return rc;
	}
	return 0;
}

int copy_before(struct store *s, const struct log *log, uint64_t seq, struct buf *out,
                uint64_t *ret_seq)
{
	struct dir_cursor d;
	MDB_txn *txn;
	int rc = reader_begin(s, &txn);

	if (rc != 0)
		return rc;
	buf_clear(out);
	rc = dir_open(&d, log, txn);
	if (rc != 0)
		goto end;
	rc = dir_seek_before(&d, seq);
	if (rc == 0) {
		*ret_seq = d.seq;
		rc = copy_block(s, txn, log, &d, out);
	}
	mdb_cursor_close(d.cursor);
end:
	reader_end(s, txn);
	return rc == ERR_CORRUPT ? 0 : rc;
}

int walk_records(struct store *s, const struct log *log, uint64_t from_seq, uint64_t since_ns,
                 store_span_fn *fn, void *ctx)
{
	struct range range = {from_seq, since_ns, WALK_CHUNK};
	struct store_chunk c;
	struct buf chunk;
	int rc;

	buf_init(&chunk, WALK_CAP);
	do {
		rc = copy_blocks(s, log, &range, &chunk, &c);
		if (rc == 0)
			rc = each_record(&chunk, c.first_seq, fn, ctx);
		if (rc != 0 || c.next_seq <= range.from_seq)
			break;
		range.from_seq = c.next_seq;
	} while (c.count > 0);
	buf_deinit(&chunk);
	return rc == 1 ? 0 : rc;
}
