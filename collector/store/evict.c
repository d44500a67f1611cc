/* Retention: the oldest blocks go first, of whichever log they are. Age is counted from when a
 * block was stored, by this machine's clock, so that an agent's wrong clock can't keep a block. */
#include "store/db.h"

#include <errno.h>
#include <string.h>

/* The transaction's pages are those of its databases' trees, LMDB's own two among them, and the two
 * meta pages; all others are free or were never used. */
uint64_t used_pages(const struct store *s, MDB_txn *txn)
{
	enum { FREE_DBI = 0, MAIN_DBI = 1 };
	const MDB_dbi dbis[] = {
		FREE_DBI,
		MAIN_DBI,
		s->meta,
		s->open,
		s->cursors,
		s->logs[STORE_SPANS].blocks,
		s->logs[STORE_SPANS].dir,
		s->logs[STORE_OBSERVATIONS].blocks,
		s->logs[STORE_OBSERVATIONS].dir,
	};
	uint64_t pages = 2;
	MDB_stat st;

	for (unsigned i = 0; i < sizeof(dbis) / sizeof(dbis[0]); i++) {
		if (mdb_stat(txn, dbis[i], &st) == 0)
			pages += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
	}
	return pages;
}

struct head {
	const struct log *log;
	MDB_cursor *cursor; // on the log's directory
	uint64_t seq;
	struct dir_entry entry;
	bool there;
};

static int read_head(struct head *h)
{
	MDB_val k, v;
	int rc = mdb_cursor_get(h->cursor, &k, &v, MDB_FIRST);

	h->there = rc == 0;
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc != 0)
		return rc;
	memcpy(&h->seq, k.mv_data, sizeof(h->seq));
	return dir_entry_read(&h->entry, h->log, &v);
}

static int remove_head(const struct store *s, MDB_txn *txn, enum which_log which, struct head *h,
                       struct evicted *ret)
{
	MDB_val k = val_of(&h->seq, sizeof(h->seq));
	int rc = mdb_del(txn, s->logs[which].blocks, &k, NULL);

	if (rc == 0 || rc == MDB_NOTFOUND)
		rc = mdb_cursor_del(h->cursor, 0);
	if (rc != 0)
		return rc;
	ret->blocks++;
	if (which == STORE_SPANS)
		ret->spans += h->entry.count;
	ret->first[which] = h->seq + h->entry.count;
	return read_head(h);
}

static int open_heads(const struct store *s, MDB_txn *txn, struct head heads[STORE_LOGS])
{
	memset(heads, 0, STORE_LOGS * sizeof(heads[0]));
	for (unsigned i = 0; i < STORE_LOGS; i++) {
		heads[i].log = &s->logs[i];
		int rc = mdb_cursor_open(txn, s->logs[i].dir, &heads[i].cursor);
		if (rc != 0)
			return rc;
		rc = read_head(&heads[i]);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static void close_heads(struct head heads[STORE_LOGS])
{
	for (unsigned i = 0; i < STORE_LOGS; i++) {
		if (heads[i].cursor)
			mdb_cursor_close(heads[i].cursor);
	}
}

/* The log whose head is the oldest; STORE_LOGS when both are empty. */
static enum which_log oldest(const struct head heads[STORE_LOGS])
{
	enum which_log found = STORE_LOGS;

	for (unsigned i = 0; i < STORE_LOGS; i++) {
		if (heads[i].there && (found == STORE_LOGS ||
		                       heads[i].entry.stored_ns < heads[found].entry.stored_ns))
			found = (enum which_log)i;
	}
	return found;
}

/* An exporter has not got all of the head, and the store keeps that for it. All blocks behind it
 * are kept, too. */
static bool stays(const struct store *s, enum which_log which, struct head *h, struct evicted *ret)
{
	uint64_t end = h->seq + h->entry.count;

	if (end <= s->keep_from[which])
		return false;
	ret->held = true;
	if (which == STORE_SPANS)
		ret->held_before = end;
	h->there = false;
	return true;
}

int evict(struct store *s, MDB_txn *txn, uint64_t target, uint64_t expired_ns, struct evicted *ret)
{
	struct head heads[STORE_LOGS];
	int rc = open_heads(s, txn, heads);

	while (rc == 0) {
		enum which_log which = oldest(heads);
		if (which == STORE_LOGS)
			break;
		bool expired = heads[which].entry.stored_ns < expired_ns;
		if (!expired && used_pages(s, txn) <= target)
			break;
		if (expired || !stays(s, which, &heads[which], ret))
			rc = remove_head(s, txn, which, &heads[which], ret);
	}
	close_heads(heads);
	return rc;
}

uint64_t oldest_stored_ns(const struct store *s, MDB_txn *txn)
{
	struct head heads[STORE_LOGS];
	uint64_t ns = UINT64_MAX;

	if (open_heads(s, txn, heads) == 0) {
		enum which_log which = oldest(heads);
		if (which != STORE_LOGS)
			ns = heads[which].entry.stored_ns;
	}
	close_heads(heads);
	return ns;
}
