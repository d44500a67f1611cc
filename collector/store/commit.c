#include "store/commit.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/clock.h"
#include "store/db.h"

/* Shares of the quota, in percent. Above HIGH the oldest blocks go until LOW; appends never use
 * what lies above FULL, since in a full LMDB even a delete finds no page to be written to. */
enum { HIGH = 80, LOW = 78, FULL = 95 };

enum {
	ROOM_TRIES = 3,
	CURSOR_DELAY_MS = 1000, // a cursor alone is written at the latest then
	EXPIRY_PAUSE_S = 60,    // between two looks for blocks that are too old
};

static uint64_t share(const struct store *s, unsigned percent)
{
	return s->limit_pages * percent / 100;
}

/* --- one transaction --- */

/* What a transaction does to the logs; published once it is durable. */
struct write {
	struct store *s;
	MDB_txn *txn;
	uint64_t now_ns; // unix
	uint64_t next[STORE_LOGS];
	struct evicted evicted;
	uint64_t used; // pages, at its end
	uint64_t oldest_ns;
	uint64_t lost[CAP_LOSSES];
};

/* An upper bound of the pages that the batch's blocks take: their bytes, and for each what is left
 * over in its last page and in the trees. */
static uint64_t pages_of_blocks(const struct store *s, const struct batch *b)
{
	uint64_t bytes = b->spans.bytes.len + b->spans.marks.len + b->observations.bytes.len +
	                 b->observations.marks.len;

	if (bytes == 0)
		return 0;
	return bytes / s->page_bytes + 2ull * (b->spans.blocks + b->observations.blocks) + 32;
}

static uint64_t pages_of_batch(const struct store *s, const struct batch *b)
{
	return pages_of_blocks(s, b) + b->opens.len / s->page_bytes;
}

static int change_open_runs(struct write *w, const struct buf *opens)
{
	struct open_change change;
	int rc = 0;

	for (size_t at = 0; at < opens->len && rc == 0;) {
		memcpy(&change, opens->data + at, sizeof(change));
		at += sizeof(change);
		MDB_val k = val_of(&change.run, sizeof(change.run));
		if (change.len == OPEN_DELETE) {
			rc = mdb_del(w->txn, w->s->open, &k, NULL);
			if (rc == MDB_NOTFOUND)
				rc = 0;
			continue;
		}
		MDB_val v = val_of(opens->data + at, change.len);
		rc = mdb_put(w->txn, w->s->open, &k, &v, 0);
		at += change.len;
	}
	return rc;
}

static int append_block(struct write *w, enum which_log which, uint8_t *block, const uint8_t *marks,
                        struct block_header *ret)
{
	const struct log *log = &w->s->logs[which];

	block_seal(block, w->next[which]);
	memcpy(ret, block, sizeof(*ret));
	MDB_val k = val_of(&w->next[which], sizeof(w->next[which]));
	MDB_val v = val_of(block, ret->length);
	int rc = mdb_put(w->txn, log->blocks, &k, &v, MDB_APPEND);
	if (rc != 0)
		return rc;

	struct dir_entry entry = {
		.count = ret->count,
		.length = ret->length,
		.start_ns = ret->start_ns,
		.end_ns = ret->end_ns,
		.stored_ns = w->now_ns,
	};
	size_t marks_len = (size_t)ret->count * log->mark_bytes;
	v = val_of(NULL, sizeof(entry) + marks_len);
	rc = mdb_put(w->txn, log->dir, &k, &v, MDB_APPEND | MDB_RESERVE);
	if (rc != 0)
		return rc;
	memcpy(v.mv_data, &entry, sizeof(entry));
	memcpy((uint8_t *)v.mv_data + sizeof(entry), marks, marks_len);
	w->next[which] += ret->count;
	return 0;
}

static int append_blocks(struct write *w, enum which_log which, struct block_writer *from)
{
	const uint8_t *marks = from->marks.data;
	struct block_header h;

	for (size_t at = 0; at < from->bytes.len; at += h.length) {
		int rc = append_block(w, which, from->bytes.data + at, marks, &h);
		if (rc != 0)
			return rc;
		marks += (size_t)h.count * w->s->logs[which].mark_bytes;
	}
	return 0;
}

/* An empty log has no last block to go on counting from. */
static int put_next(struct write *w)
{
	MDB_val k = val_of("next", 4), v = val_of(w->next, sizeof(w->next));

	return mdb_put(w->txn, w->s->meta, &k, &v, 0);
}

static bool is_emptied(const struct write *w)
{
	for (unsigned i = 0; i < STORE_LOGS; i++) {
		if (w->evicted.first[i] != 0 && w->evicted.first[i] == w->next[i])
			return true;
	}
	return false;
}

static uint64_t expired_before(const struct write *w)
{
	uint64_t retention = w->s->retention_ns;

	return retention != 0 && w->now_ns > retention ? w->now_ns - retention : 0;
}

/* What the wall clock said when the store was opened, and what has passed since: a wall clock that
 * is set ages nothing that is stored, and keeps nothing longer. */
static uint64_t steady_unix_ns(const struct store *s)
{
	return s->opened_unix_ns + (clock_mono_ns() - s->opened_mono_ns);
}

static int write_begin(struct write *w, struct store *s)
{
	*w = (struct write){.s = s, .now_ns = steady_unix_ns(s)};
	for (unsigned i = 0; i < STORE_LOGS; i++)
		w->next[i] = atomic_load(&s->logs[i].next);
	return mdb_txn_begin(s->env, NULL, 0, &w->txn);
}

/* Where the observations alone are held, every cursor of the spans is past them. */
static uint64_t held_before(const struct write *w)
{
	return w->evicted.held && w->evicted.held_before == 0 ? 1 : w->evicted.held_before;
}

/* Commits and, once it is durable, publishes. */
static int write_commit(struct write *w)
{
	struct store *s = w->s;

	w->used = used_pages(s, w->txn);
	w->oldest_ns = s->retention_ns ? oldest_stored_ns(s, w->txn) : UINT64_MAX;
	int rc = is_emptied(w) ? put_next(w) : 0;
	if (rc == 0)
		rc = losses_put(s, w->txn, w->lost);
	if (rc != 0) {
		mdb_txn_abort(w->txn);
		return rc;
	}
	rc = mdb_txn_commit(w->txn);
	if (rc != 0)
		return rc;
	for (unsigned i = 0; i < STORE_LOGS; i++) {
		if (w->evicted.first[i] != 0)
			atomic_store(&s->logs[i].first, w->evicted.first[i]);
		atomic_store(&s->logs[i].next, w->next[i]);
	}
	memcpy(s->lost_written, w->lost, sizeof(s->lost_written));
	atomic_store(&s->held_before, held_before(w));
	stat_add(&s->stats->blocks_evicted, w->evicted.blocks);
	stat_add(&s->stats->spans_evicted, w->evicted.spans);
	stat_set(&s->stats->store_bytes, w->used * s->page_bytes);
	return 0;
}

/* Fills the transaction. Up to judge(), codes are LMDB's or ours. */
static int write_batch(struct write *w, struct batch *b)
{
	struct store *s = w->s;
	uint64_t need = pages_of_blocks(s, b), before = used_pages(s, w->txn);
	int rc = change_open_runs(w, &b->opens);

	if (rc != 0)
		return rc;
	uint64_t target = UINT64_MAX;
	if (used_pages(s, w->txn) + need > share(s, HIGH))
		target = share(s, LOW) > need ? share(s, LOW) - need : 0;
	rc = evict(s, w->txn, target, expired_before(w), &w->evicted);
	if (rc != 0)
		return rc;
	uint64_t after = used_pages(s, w->txn) + need;
	if (after > share(s, FULL) && after > before)
		return MDB_MAP_FULL;
	rc = append_blocks(w, STORE_SPANS, &b->spans);
	return rc != 0 ? rc : append_blocks(w, STORE_OBSERVATIONS, &b->observations);
}

static int write_once(struct store *s, struct batch *b)
{
	struct write w;
	int rc = write_begin(&w, s);

	if (rc != 0)
		return rc;
	rc = write_batch(&w, b);
	if (rc == 0)
		rc = notes_put(s, w.txn);
	if (rc != 0) {
		mdb_txn_abort(w.txn);
		return rc;
	}
	rc = write_commit(&w);
	if (rc != 0)
		return rc;
	s->expiry_ns = 0;
	if (w.oldest_ns != UINT64_MAX) {
		uint64_t due = w.oldest_ns + s->retention_ns, pause = EXPIRY_PAUSE_S * NS_PER_S;
		uint64_t left = due > w.now_ns ? due - w.now_ns : 0;
		s->expiry_ns = clock_mono_ns() + (left > pause ? left : pause);
	}
	return 0;
}

/* --- making room --- */

/* One transaction that frees pages, of which none may be left to free. */
static int write_room(struct store *s, uint64_t pages, bool *ret_evicted)
{
	struct write w;
	int rc = write_begin(&w, s);

	if (rc != 0)
		return rc;
	uint64_t used = used_pages(s, w.txn);
	if (pages > 0)
		rc = evict(s, w.txn, used > pages ? used - pages : 0, 0, &w.evicted);
	if (rc == 0)
		rc = put_next(&w); // one that changes nothing would not count
	if (rc != 0) {
		mdb_txn_abort(w.txn);
		return rc;
	}
	*ret_evicted = w.evicted.blocks > 0;
	return write_commit(&w);
}

/* LMDB lends a freed page again only to the second transaction after. */
static int make_room(struct store *s, uint64_t pages, bool *ret_evicted)
{
	bool none;
	int rc = write_room(s, pages, ret_evicted);

	return rc != 0 ? rc : write_room(s, 0, &none);
}

/* A map that is full, or so split up that a large block finds no place, is not an error yet. */
static int write_with_room(struct store *s, struct batch *b)
{
	uint64_t pages = pages_of_batch(s, b) + s->limit_pages / 50;
	bool evicted = true;
	int rc = write_once(s, b);

	for (unsigned i = 0; i < ROOM_TRIES && evicted && rc == MDB_MAP_FULL; i++) {
		rc = make_room(s, pages << (2 * i), &evicted);
		if (rc == 0)
			rc = write_once(s, b);
	}
	return rc;
}

/* LMDB calls a short write EIO; on a full disk that is what it means. */
static bool is_disk_full(const struct store *s)
{
	struct statvfs st;
	mdb_filehandle_t fd;

	return mdb_env_get_fd(s->env, &fd) == 0 && fstatvfs(fd, &st) == 0 &&
	       st.f_bavail * st.f_frsize < MIB;
}

/* After a failed sync the kernel may have thrown the pages away, and the next sync succeeds without
 * them: from then on nothing is acknowledged any more. */
static int judge(struct store *s, int rc)
{
	if (rc == 0)
		return 0;
	stat_add(&s->stats->store_errors, 1);
	if (rc == EIO && is_disk_full(s))
		return -ENOSPC;
	rc = from_mdb(rc);
	if (rc == -EIO)
		s->broken = true;
	return rc;
}

/* A file without a name is gone with us: what is written to it must not be acknowledged. */
static bool is_removed(const struct store *s)
{
	struct stat st;
	int fd;

	return mdb_env_get_fd(s->env, &fd) == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0;
}

static int commit(struct store *s, struct batch *b)
{
	uint64_t begun = clock_mono_ns();

	if (s->broken)
		return -EIO;
	if (is_removed(s))
		return ERR_REMOVED;
	if (pages_of_batch(s, b) > share(s, FULL))
		return -E2BIG;
	int rc = judge(s, write_with_room(s, b));
	if (rc != 0)
		return rc;
	if (batch_is_empty(b))
		return 0;
	stat_add(&s->stats->commits, 1);
	stat_add(&s->stats->commit_ns, clock_mono_ns() - begun);
	stat_add(&s->stats->spans_stored, b->spans.count);
	stat_add(&s->stats->observations_stored, b->observations.count - b->events);
	stat_add(&s->stats->events_stored, b->events);
	return 0;
}

/* --- the worker --- */

/* Waits until there is a batch, or a cursor or a block has waited long enough. */
static void await_work(struct store *s)
{
	while (!s->batch && !s->stopping) {
		uint64_t due = s->expiry_ns;
		if (s->noted_ns) {
			uint64_t at = s->noted_ns + CURSOR_DELAY_MS * NS_PER_MS;
			due = due && due < at ? due : at;
		}
		if (due == 0) {
			pthread_cond_wait(&s->wake, &s->lock);
			continue;
		}
		struct timespec ts = {(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)};
		if (pthread_cond_timedwait(&s->wake, &s->lock, &ts) == ETIMEDOUT)
			return;
	}
}

/* One commit, of the batch if there is one; called with the lock, which it gives up meanwhile. */
static void work(struct store *s, struct batch *none)
{
	struct batch *b = s->batch;
	bool asked = s->noted_ns != 0;

	notes_take(s);
	pthread_mutex_unlock(&s->lock);
	int rc = commit(s, b ? b : none);
	pthread_mutex_lock(&s->lock);
	if (rc == 0)
		notes_written(s);
	else if (asked || s->noted_ns)
		s->noted_ns = clock_mono_ns(); // try again later
	if (rc != 0 && s->expiry_ns)
		s->expiry_ns = clock_mono_ns() + EXPIRY_PAUSE_S * NS_PER_S;
	if (!b)
		return;
	s->batch = NULL;
	pthread_mutex_unlock(&s->lock);
	s->done(s->ctx, rc);
	pthread_mutex_lock(&s->lock);
}

static void *run(void *arg)
{
	struct store *s = arg;
	struct batch none;

	batch_init(&none);
	pthread_mutex_lock(&s->lock);
	while (!s->stopping || s->batch) {
		await_work(s);
		if (!s->stopping || s->batch)
			work(s, &none);
	}
	if (s->noted_ns)
		work(s, &none);
	pthread_mutex_unlock(&s->lock);
	batch_deinit(&none);
	return NULL;
}

int commit_start(struct store *s, commit_done_fn *done, void *ctx)
{
	assert(s->lock_fd >= 0);
	s->done = done;
	s->ctx = ctx;
	s->stopping = false;
	s->expiry_ns = s->retention_ns ? clock_mono_ns() : 0;
	return -pthread_create(&s->thread, NULL, run, s);
}

void commit_submit(struct store *s, struct batch *b)
{
	pthread_mutex_lock(&s->lock);
	assert(!s->batch && !s->stopping);
	s->batch = b;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

void commit_stop(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
}

void write_notes(struct store *s)
{
	struct batch none;

	batch_init(&none);
	pthread_mutex_lock(&s->lock);
	if (s->noted_ns)
		work(s, &none);
	pthread_mutex_unlock(&s->lock);
	batch_deinit(&none);
}
