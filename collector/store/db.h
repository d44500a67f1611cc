/* db.h - the environment behind store.h; for the files of this room only.
 *
 * Databases: for each log `spans` and `spans_dir`, `observations` and `observations_dir`;
 * `open`, `cursors`, `meta`. Both of a log's databases have the same keys, in step: the first
 * sequence number of a block. Every block's key plus its count is the next block's key.
 */
#pragma once

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/caps.h"
#include "store/batch.h"
#include "store/commit.h"
#include "store/cursor.h"
#include "store/store.h"

enum {
	STORE_FORMAT = 1,
	STORE_DATABASES = 7,
	IDLE_READERS = 8,
	WALK_CHUNK = 256 * KIB, // copied out at a time when walking
	WALK_CAP = STORE_BLOCK_MAX + WALK_CHUNK,
};

struct log {
	MDB_dbi blocks, dir;
	uint32_t mark_bytes;              // of a record in the directory
	atomic_uint_fast64_t first, next; // sequence numbers; equal when it is empty
};

/* A block's entry in the directory; `count` marks follow, one a record, in order. */
struct dir_entry {
	uint32_t count;
	uint32_t length;           // the block's, bytes
	uint64_t start_ns, end_ns; // unix, as in the block
	uint64_t stored_ns;        // unix, when it was committed: what retention goes by
};
_Static_assert(sizeof(struct dir_entry) == 32, "32 bytes on disk");

/* What an exporter noted and is not durable yet. */
struct note {
	char name[80];
	enum which_log which;
	struct cursor cursor;
	bool pending; // not durable yet
	bool active;  // an exporter goes by it
};

struct store {
	MDB_env *env;
	MDB_dbi meta, open, cursors;
	struct log logs[STORE_LOGS];
	uint64_t page_bytes, limit_pages, retention_ns;
	uint64_t opened_unix_ns, opened_mono_ns;
	struct stats *stats, unwatched; // the second one when nobody gave the first
	int lock_fd;                    // -1: read_only
	bool preallocated, keep_undelivered;
	atomic_uint_fast64_t held_before; // store_is_held(); 0: it is not
	uint64_t set_aside;               // files, when it was opened
	uint64_t lost_before[CAP_LOSSES]; // by the daemons before this one

	pthread_mutex_t readers_lock;
	MDB_txn *readers[IDLE_READERS]; // reset, to be renewed
	unsigned reader_count;

	// commit.c
	pthread_t thread;
	pthread_mutex_t lock; // of all below
	pthread_cond_t wake;
	commit_done_fn *done;
	void *ctx;
	struct batch *batch; // NULL: none handed over
	bool stopping;
	struct note notes[CAP_CURSORS];
	unsigned note_count;
	uint64_t noted_ns; // monotonic, of the oldest note that no commit took; 0: none
	// the worker's own
	struct note writing[CAP_CURSORS];
	unsigned writing_count;
	uint64_t keep_from[STORE_LOGS]; // what must stay for an exporter; UINT64_MAX: nothing must
	uint64_t expiry_ns; // monotonic, when to look for blocks that are too old; 0: never
	bool broken;        // a sync failed: what is on the disk can't be known any more
	uint64_t lost_written[CAP_LOSSES];
};

/** LMDB's codes in our words; the one place that knows them. Ours pass through, so that a function
 * inside a transaction may return either kind. */
int from_mdb(int code);

static inline MDB_val val_of(const void *p, size_t len)
{
	return (MDB_val){.mv_data = (void *)(uintptr_t)p, .mv_size = len};
}

/** Opens all databases; create: 0 or MDB_CREATE. LMDB's code. */
MUST_CHECK int open_databases(struct store *s, MDB_txn *txn, unsigned create);

/** A read transaction, renewed or new; give it to reader_end(). */
MUST_CHECK int reader_begin(struct store *s, MDB_txn **ret);
void reader_end(struct store *s, MDB_txn *txn);

/* --- log_read.c --- */

/** The entry's head; ERR_CORRUPT when the value is not one. */
MUST_CHECK int dir_entry_read(struct dir_entry *ret, const struct log *log, const MDB_val *value);

/* A place in a log's directory. */
struct dir_cursor {
	const struct log *log;
	MDB_cursor *cursor;
	uint64_t seq;
	struct dir_entry entry;
	const uint8_t *marks;
};

/** Opens it, nowhere yet; close its cursor. LMDB's words are translated. */
MUST_CHECK int dir_open(struct dir_cursor *d, const struct log *log, MDB_txn *txn);

/** To the block that holds seq, else to the first one after it. -ENOENT: neither. */
MUST_CHECK int dir_seek(struct dir_cursor *d, uint64_t seq);
MUST_CHECK int dir_next(struct dir_cursor *d);

/** To the last block that begins before seq. -ENOENT: there is none. */
MUST_CHECK int dir_seek_before(struct dir_cursor *d, uint64_t seq);
MUST_CHECK int dir_previous(struct dir_cursor *d);

/* Which blocks, and how much of them. */
struct range {
	uint64_t from_seq, since_ns;
	size_t max_bytes;
};

/** Copies whole blocks into out; what store_read() does, for either log. */
MUST_CHECK int copy_blocks(struct store *s, const struct log *log, const struct range *range,
                           struct buf *out, struct store_chunk *ret);

/** Copies the last block that begins before seq; nothing of a corrupt one. -ENOENT: there is none.
 */
MUST_CHECK int copy_before(struct store *s, const struct log *log, uint64_t seq, struct buf *out,
                           uint64_t *ret_seq);

/** Calls fn for each record of copied blocks from first_seq on. 1 when fn said to stop. */
MUST_CHECK int each_record(const struct buf *chunk, uint64_t first_seq, store_span_fn *fn,
                           void *ctx);

/** Every record of the log from from_seq on, chunk by chunk. */
MUST_CHECK int walk_records(struct store *s, const struct log *log, uint64_t from_seq,
                            uint64_t since_ns, store_span_fn *fn, void *ctx);

/* --- store_read.c --- */

struct observation_call {
	store_observation_fn *fn;
	void *ctx;
};

/** A store_span_fn over an observations block; ctx is a struct observation_call. */
bool call_observation(void *ctx, const struct span_record *rec);

/* --- verify.c --- */

/* How much of a file is looked at. A reader follows the trees, and trusts no block before its
 * checksum held: for it the trees are enough. A writer also goes by what the heads of the blocks'
 * pages say, of which there are very many. */
enum scrutiny { FOR_READING, FOR_WRITING };

/** Looks at the files in dir, in a child process, since a damaged one can crash LMDB. marked: the
 * directory is known to be ours. 0, -ENOENT (none there), ERR_CORRUPT, ERR_FOREIGN, ERR_VERSION. */
MUST_CHECK int verify(const char *dir, uint64_t map_bytes, bool marked, enum scrutiny scrutiny);

/** Whether all pages of a data file are whole and used once (pages.c); what it has not come to by
 * until_ns (monotonic) is taken on trust. */
MUST_CHECK bool pages_are_sound(int fd, uint64_t bytes, enum scrutiny scrutiny, uint64_t until_ns);

/** Moves the files aside, beside where they were. *ret_path is malloc'd. */
MUST_CHECK int quarantine(const char *dir, char **ret_path);

/* --- commit.c --- */

/** Writes what was noted since commit_stop(): exporters deliver to the last. */
void write_notes(struct store *s);

/* --- cursor.c; with the store's lock, but for notes_put() --- */

/** Copies what is to be written, and where exporters are. */
void notes_take(struct store *s);
/** LMDB's code. */
MUST_CHECK int notes_put(struct store *s, MDB_txn *txn);
/** What was taken is durable. */
void notes_written(struct store *s);
/** Whether a value of this many bytes can be a cursor. */
bool cursor_is_sound(size_t len);

/* --- losses.c --- */

void losses_load(struct store *s, MDB_txn *txn);
/** Writes them if there are new ones; ret_written are those of lost_written once it is durable.
 * LMDB's code. */
MUST_CHECK int losses_put(struct store *s, MDB_txn *txn, uint64_t ret_written[CAP_LOSSES]);

/* --- evict.c --- */

/* What a transaction removed. */
struct evicted {
	uint64_t blocks, spans;
	uint64_t first[STORE_LOGS]; // the oldest sequence number left; 0: nothing was removed
	uint64_t held_before;       // a block of spans that ends here had to stay; 0: none
	bool held;                  // a block of either log had to
};

/** Pages in use, as the transaction sees them: a few numbers added up, no walk. */
uint64_t used_pages(const struct store *s, MDB_txn *txn);

/** Removes the oldest blocks of both logs while more than target pages are used, but for those from
 * keep_from on, and those stored before expired_ns (unix). Adds to *ret. LMDB's code or ours. */
MUST_CHECK int evict(struct store *s, MDB_txn *txn, uint64_t target, uint64_t expired_ns,
                     struct evicted *ret);

/** When the oldest block was stored (unix ns); UINT64_MAX when there is none. */
uint64_t oldest_stored_ns(const struct store *s, MDB_txn *txn);
