/* store.h - the log: blocks of spans and of observations, the open runs and the exporters'
 * positions, in one LMDB environment.
 *
 * One process opens it, guarded by a lock file. One thread writes (commit.h); any thread reads.
 * No transaction outlives one function here: what a callback gets is valid only while it runs,
 * and it must not block. The file never grows past its quota; when 80 % is used the oldest
 * blocks go first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/caps.h"
#include "base/err.h"
#include "base/stats.h"
#include "core/event.h"
#include "core/observation.h"
#include "core/span.h"

struct store;

enum which_log { STORE_SPANS, STORE_OBSERVATIONS, STORE_LOGS };

/* No block is larger: a record of several megabytes has one of its own. */
#define STORE_BLOCK_MAX (4u * CAP_BATCH)

struct store_options {
	const char *dir;       // created 0700 when missing
	uint64_t bytes;        // quota, and the map's size; at least 16 MiB
	uint64_t retention_ns; // 0: by bytes alone
	bool keep_undelivered; // when full: keep what an exporter has not got, and take no more
	bool read_only;        // the command-line tool: no lock file is taken over a live daemon
	struct stats *stats;   // borrowed; may be NULL when read_only
};

/** Opens, or creates. -EACCES, -ENOSPC, -EROFS, ERR_BUSY (a live daemon has it), ERR_FOREIGN,
 * ERR_VERSION (a newer format: untouched), ERR_NETWORK_FS, -ENOENT (read_only and nothing
 * there). ERR_CORRUPT never comes out: a corrupt file is moved to quarantine beside it and a
 * new one started; *ret_quarantine then says where (malloc'd), else NULL. read_only returns it. */
MUST_CHECK int store_open(struct store **ret, const struct store_options *options,
                          char **ret_quarantine);
void store_close(struct store *s);

/** Who has the store in dir, for the message after ERR_BUSY: a process id, 0 when it can't be told.
 */
long store_holder(const char *dir);

/** Whether the whole quota is the file's own already, so that a disk that others fill doesn't
 * matter. */
bool store_is_preallocated(const struct store *s);

/* --- reading; thread-safe --- */

/** Returns false to stop. */
typedef bool store_span_fn(void *ctx, const struct span_record *rec);

/** Every span from sequence number from_seq on, oldest first. since_ns (unix) skips whole blocks
 * that ended before it; records inside may still be older. Returns 0 or an error. */
int store_spans(struct store *s, uint64_t from_seq, uint64_t since_ns, store_span_fn *fn,
                void *ctx);

/** The finished spans of one trace, in log order: by end time, children mostly first. */
int store_trace(struct store *s, const uint8_t trace_id[16], store_span_fn *fn, void *ctx);

/** Every run that is open, in no order; status RUNNING. A run is here some milliseconds after its
 * start arrived. trace_id NULL: of all traces, and without what their answers have said so far. */
int store_open_runs(struct store *s, const uint8_t trace_id[16], store_span_fn *fn, void *ctx);

typedef bool store_observation_fn(void *ctx, const struct observation_record *rec);

/** Observations, newest first, from the one before sequence number before_seq (UINT64_MAX: all). */
int store_observations(struct store *s, uint64_t before_seq, store_observation_fn *fn, void *ctx);

/** The same, oldest first, from sequence number from_seq on (0: all); blocks whose newest is
 * older than since_ns are skipped. */
int store_observations_forward(struct store *s, uint64_t from_seq, uint64_t since_ns,
                               store_observation_fn *fn, void *ctx);

/** The observation of a trace: that of its topmost root. -ENOENT when it has none. */
int store_observation(struct store *s, const uint8_t trace_id[16], store_observation_fn *fn,
                      void *ctx);

/** Trace ids that begin with the first `digits` hex digits (32 at most) of prefix, newest first;
 * of traces that have an observation, and once for each that they have. */
typedef bool store_trace_id_fn(void *ctx, const uint8_t trace_id[16]);
int store_find_prefix(struct store *s, const uint8_t prefix[16], unsigned digits,
                      store_trace_id_fn *fn, void *ctx);

/** Every open run's stored value, for the run table at start. */
typedef bool store_open_fn(void *ctx, const struct run_id *run, struct str value);
int store_open_load(struct store *s, store_open_fn *fn, void *ctx);

/** Copies one open run's stored value into out (cleared first). -ENOENT when it is not there. */
int store_open_get(struct store *s, const struct run_id *run, struct buf *out);

/** The spans of many traces in one pass, oldest first; fingerprints are trace_fingerprint()'s,
 * wants says which they are (called with their candidates, so it must compare whole ids). */
typedef bool store_wants_fn(void *ctx, const uint8_t trace_id[16]);
int store_traces(struct store *s, const uint32_t *fingerprints, size_t count, store_wants_fn *wants,
                 store_span_fn *fn, void *ctx);

/* --- exporters: their cursors are in cursor.h --- */

/* What store_read() copied out. */
struct store_chunk {
	uint64_t first_seq; // of the first record after the skipped ones
	uint64_t next_seq;  // where to read on
	uint64_t lost;      // records that retention removed, or whose block is corrupt
	uint64_t count;     // records in the chunk, the skipped ones not among them
};

/** Copies the blocks of a log from from_seq on into out (cleared first), whole blocks, at least one
 * and at most max_bytes otherwise; out must be able to hold STORE_BLOCK_MAX. Walk them with
 * chunk_each(). count is 0 when there is nothing new; count + lost is next_seq - from_seq. */
int store_read(struct store *s, enum which_log which, uint64_t from_seq, size_t max_bytes,
               struct buf *out, struct store_chunk *ret);

/** Calls fn for each record of what store_read() copied, in order. */
int chunk_each(const struct buf *chunk, const struct store_chunk *range, store_span_fn *fn,
               void *ctx);

/** The number of the oldest record in the log, and the one that the next will get: equal when there
 * is none. */
void store_bounds(struct store *s, enum which_log which, uint64_t *ret_first, uint64_t *ret_next);

/** Bytes that are used, and the quota. */
void store_size(struct store *s, uint64_t *ret_used, uint64_t *ret_limit);

/** keep_undelivered: whether the store is full of what exporters have not got, so that nothing new
 * should begin. *ret_before: those of the spans whose cursor is before it are to blame. */
bool store_is_held(struct store *s, uint64_t *ret_before);

/* --- what was lost before it was stored --- */

/** Calls fn for each reason that ever lost something, since the store was made: a counter of
 * struct stats, "frames_refused/REASON" or "stores_set_aside". */
typedef void store_loss_fn(void *ctx, const char *reason, uint64_t count);
void store_losses(struct store *s, store_loss_fn *fn, void *ctx);
