/* runs_private.h - the run table's insides, shared by its six files:
 *   runs.c         starts, points, which request a run belongs to
 *   runs_source.c  where runs come from, and who takes them over
 *   runs_finish.c  ends, closings, deadlines: what becomes a span
 *   runs_keep.c    where a run's bytes are; seal, commit, restore
 *   runs_said.c    what answers that are not complete have said
 *   run_table.c    memory and lookup
 */
#pragma once

#include "core/closed.h"
#include "core/request.h"
#include "core/runs.h"

enum run_state {
	RUN_OPEN,
	RUN_EARLY_END, // only the end came so far: its frame is kept
	RUN_HELD,      // has ended, but its trace is not known yet
	RUN_ROOT_DONE, // stored only: what a request knows of its root that has ended
	RUN_SAID,      // stored only: a page of what an open run has said
};

enum run_flags {
	RUN_HAS_PARENT = 1,
	RUN_IS_ROOT = 2,   // of its request
	RUN_LLM_BELOW = 4, // its usage is reported by a run below, or was by itself
	RUN_REMOTE_PARENT = 8,
	RUN_TOTALS = 16, // it shows the tokens of the runs below as its own
	RUN_FIRST_TOKEN = 32,
	RUN_OUR_CLOCK = 64, // its monotonic clock is ours
	RUN_WRAPS = 128,    // an LLM run with another right below: two views of one call
};

/* Where a run's bytes are: base, content, message, response, one after another. */
enum run_place { PLACE_NONE, PLACE_ARENA, PLACE_STORE };

struct run {
	struct run_id id, parent;
	uint64_t start_ns, start_mono; // the client's clocks
	uint64_t duration_ns;          // RUN_HELD
	struct run *next;              // in its bucket, or in the free list
	struct table_request *request; // NULL: RUN_EARLY_END
	struct source *source;
	struct said *said; // NULL: nothing
	struct list_node in_request, in_source, in_dirty, in_age;
	uint64_t due_ns; // RUN_EARLY_END, mono
	uint32_t at;     // PLACE_ARENA
	uint32_t base_len, content_len, message_len, response_len;
	uint32_t takes; // bytes of the store, its resource among them
	uint16_t points;
	uint8_t kind, state, flags, status;
	uint8_t place, arena;
	bool stored;  // the store has, or will have, a copy that must be deleted
	bool gathers; // other roots of its trace into its request
};

/* A request while it is open. */
struct table_request {
	struct request sums;
	uint8_t trace_id[16];
	struct run_id root;
	uint8_t tag[3];        // record_head.request
	bool waits_for_parent; // its trace is that of `awaited`, if that comes
	bool root_done, stored;
	struct run_id awaited;
	unsigned open;                                       // members
	struct list_node members;                            // run.in_request
	struct list_node in_due;                             // runs.ended_roots or runs.orphans
	uint64_t due_ns;                                     // mono
	uint64_t root_end_ns;                                // unix
	struct table_request *next_by_trace, *next_awaiting; // buckets
	struct table_request *next_free;
};

/* Where a span's trace id stands: behind a tag and a length of one byte each. */
enum { TRACE_ID_AT = 2 };

enum { TRACE_BUCKETS = 4096, AWAIT_BUCKETS = 1024, ARENAS = 2 };

struct runs {
	struct runs_options o;
	struct encoder encoder;
	struct closed *closed;
	// run_table.c
	struct run **buckets;
	size_t bucket_count;
	unsigned count; // entries of the table: open, held, and early ends
	struct run *free_runs;
	struct table_request *free_requests;
	struct run_slab *slabs;
	struct request_slab *request_slabs;
	struct table_request *by_trace[TRACE_BUCKETS];
	struct table_request *awaiting[AWAIT_BUCKETS];
	unsigned awaiting_count;
	// due lists, the earliest first: each has one fixed delay
	struct list_node early, ended_roots, orphans;
	struct list_node age; // every run of the table, oldest first
	struct list_node sources;
	struct list_node closing; // sources whose runs are still to be closed
	uint64_t last_source_id;
	// runs_keep.c
	struct buf arena[ARENAS];
	unsigned filling; // the arena that is being appended to
	struct list_node dirty,
		sealed;      // runs whose newest bytes are in the filling, the other arena
	uint64_t open_bytes; // of all runs, wherever they are
	size_t put_bytes;    // at most what the next seal puts into the sink
	// runs_said.c
	struct list_node said, said_dirty; // struct said: all sealed, and with news
	uint64_t said_bytes;               // of open_bytes
	struct buf told;                   // of said_complete()
	// scratch of one call
	struct buf base, content, kept, state, meta, text;
	uint64_t cut_reported;
};

/* --- run_table.c --- */
int table_init(struct runs *r);
void table_deinit(struct runs *r);
struct run *table_find(const struct runs *r, const struct run_id *id);
struct run *table_insert(struct runs *r, const struct run_id *id);
void table_remove(struct runs *r, struct run *run);
struct table_request *request_new(struct runs *r, const uint8_t trace_id[16],
                                  const struct run_id *root);
void request_release(struct runs *r, struct table_request *q);
/** Any request of a trace; request_find() tells those of one trace apart. */
struct table_request *request_by_trace(const struct runs *r, const uint8_t trace_id[16]);
struct table_request *request_find(const struct runs *r, const uint8_t trace_id[16],
                                   const uint8_t tag[3]);
void request_await(struct runs *r, struct table_request *q, const struct run_id *parent);
void request_stop_awaiting(struct runs *r, struct table_request *q);
struct table_request *request_awaiting(const struct runs *r, const struct run_id *parent);

/* --- runs_source.c --- */
void source_attach(struct source *s, struct run *run);
void source_detach(struct runs *r, struct run *run);
/** Takes back one hold on a source; it is freed when nobody has it any more. */
void source_release(struct source *s);
void source_free(struct source *s);

/* --- runs.c --- */
void request_attach(struct table_request *q, struct run *run);
void mark_ancestors(struct runs *r, const struct run *run);
void runs_report_cuts(struct runs *r);

/* --- runs_keep.c --- */
struct run_bytes {
	struct str base, content, message, response;
};
/** A run's bytes, borrowed until the next call here or in keep_*. Fails when they can't be read. */
int keep_get(struct runs *r, const struct run *run, struct run_bytes *ret);
/** Makes these a run's bytes, in the arena that is being filled. b may borrow from keep_get(). */
int keep_put(struct runs *r, struct run *run, const struct run_bytes *b);
/** Forgets a run's bytes, in memory and in the store. */
void keep_drop(struct runs *r, struct run *run);
/** What is known of a run has changed: a copy of it in the store is to be written again. */
void keep_renew(struct runs *r, struct run *run);
/* What a value in the store takes besides a run's bytes and its resource, at most. */
enum { KEEP_OVERHEAD = 512 };
/** Stores a page of what a run has said. */
struct said_page {
	struct run_id run;
	unsigned number;
	uint64_t tokens, full; // when it was written
	struct str text;
};
int keep_put_page(struct runs *r, const struct run_id *key, const struct said_page *page);
/** Stores what an open request knows of its root that has ended. */
int keep_root(struct runs *r, struct table_request *q);

/* --- runs_said.c --- */
/** Adds what a partial output says. -ENOMEM, -ENOSPC: some of it is not kept. */
int said_add(struct runs *r, struct run *run, const struct event *partial);
/** Forgets what a run has said, in memory and in the store. */
void said_drop(struct runs *r, struct run *run);
/** Where the end (NULL: none came) has neither output nor usage: one made in *ret that has what the
 * run has said, borrowed until the next call; is_partial when that is an output. Else the end. */
const struct event *said_complete(struct runs *r, const struct run *run, const struct event *end,
                                  struct event *ret);
/** The full length of an output that was cut; 0: it was not. */
uint64_t said_cut(const struct run *run);
/** Puts what is new into the sink. */
int said_seal(struct runs *r);
/** Bytes that the next one puts, at most. */
size_t said_due(const struct runs *r);
/** Puts back a page; in order, and after its run. */
int said_restore(struct runs *r, const struct run_id *key, const struct said_page *page);
void said_deinit(struct runs *r);

/* --- runs_finish.c --- */
/** Closes an open run without an end of its own. */
void finish_closed(struct runs *r, struct run *run, const struct closing *why, uint64_t duration_ns,
                   struct moment now);
/** Ends an open run by its end event. */
void finish_ended(struct runs *r, struct run *run, const struct event *end, struct moment now);
/** An end whose start never came becomes a span of no length. */
void finish_unmatched(struct runs *r, struct run *early, struct moment now);
/** Writes what was held back while the trace of its request was not known. */
void finish_held(struct runs *r, struct table_request *q, struct moment now);
/** Writes the observation if nothing of the request is open any more. */
void finish_request(struct runs *r, struct table_request *q, struct moment now);
/** How long a run lasted by the client's clocks, until the given moment of them. */
uint64_t run_duration(const struct run *run, uint64_t unix_ns, uint64_t mono_ns);
/** How long a run has lasted by our own clocks. */
uint64_t run_age(const struct run *run, struct moment now);
