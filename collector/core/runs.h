/* runs.h - turn start and end events into spans and observations.
 *
 * A run opens with a start and closes with the end of the same run id. They may come in either
 * order, from any connection, and either may be lost, so the table keeps the half it has until
 * the other half or a deadline comes. Runs below one root make a request; when the last of them
 * has ended, the request's observation is written and its metrics move.
 *
 * What a start says is encoded at once and kept until the run has ended: in memory until the next
 * commit, then in the store. So memory is bounded by the number of open runs, not by their
 * prompts, and past max_open or max_open_bytes the oldest run is given up first. What an answer
 * has said so far stays in memory as well, within max_said_bytes and max_open_bytes; past them,
 * what comes is left out.
 *
 * No I/O and no clock in here: the caller brings the time, and a sink takes what comes out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/stats.h"
#include "core/encode.h"
#include "core/event.h"
#include "core/metrics.h"
#include "core/price.h"
#include "core/span.h"

#define ROOT_GRACE_NS (5ull * 1000000000ull)   // for descendants to end after their root
#define PARENT_WAIT_NS (10ull * 1000000000ull) // for a parent to start after its child
#define START_WAIT_NS (10ull * 1000000000ull)  // for a start to come after its end

struct runs;

/* The two clocks of the moment in which something came. */
struct moment {
	uint64_t unix_ns, mono_ns;
};

/* Where runs come from: one connection, as its last hello described it. */
struct source {
	uint64_t id;         // unique while the table lives
	struct buf resource; // encoded
	int64_t pid;         // 0: not visible from here
	uint64_t pid_start;  // with pid: one process, not a later one of that number
	bool connected;
	bool owned;       // pid is a process that outlives the connection: its runs do, too
	bool left;        // not connected: its process has said bye since
	uint64_t seen_ns; // not connected: when its process was last known to be there, mono
	unsigned runs;    // that hold it
	struct list_node members; // run.in_source
	struct list_node in_table;
	bool closing; // its open runs are being closed, as there is room
	enum run_status closing_status;
	struct str closing_type; // a literal
	char closing_message[128], closing_evidence[256];
	struct moment closing_at;
	struct list_node in_closing;
	struct source
		*older; // its connection's, as an earlier hello described it; the connection's
};

struct finished_span {
	struct record_head head;
	struct str base, content;
	uint8_t trace_id[16];
	uint64_t start_ns, end_ns; // unix
	const struct source *source;
};

struct observation {
	uint8_t trace_id[16], span_id[8];
	uint64_t start_ns, created_ns; // unix
	enum run_kind kind;
	enum run_status status;
	struct str root; // its span without content
	struct str meta, content;
	struct str resource; // its root's, encoded
};

/* A point that found no span to live in: its run has ended, or was never there. */
struct orphan_event {
	uint8_t trace_id[16], span_id[8]; // its run's, as far as known
	uint64_t time_ns, received_ns;    // unix
	struct str span;                  // a Span with nothing but the event
	const struct source *source;
};

/* Takes what comes out; all of it is borrowed. Each returns 0, -ENOMEM or -ENOSPC. */
struct runs_sink {
	void *ctx;
	int (*span)(void *ctx, const struct finished_span *span);
	int (*observation)(void *ctx, const struct observation *o);
	int (*event)(void *ctx, const struct orphan_event *e);
	int (*put_open)(void *ctx, const struct run_id *run, const struct open_head *head,
	                struct str base, struct str content, struct str resource, struct str state);
	int (*delete_open)(void *ctx, const struct run_id *run);
	/* Copies what was put. -ENOENT when it is not there. */
	int (*get_open)(void *ctx, const struct run_id *run, struct buf *out);
	/* Whether much more can be taken before the next commit. NULL: always. */
	bool (*has_room)(void *ctx);
};

struct runs_options {
	enum convention convention;
	bool content;
	size_t max_value; // bytes
	size_t max_frame; // bytes
	unsigned max_open;
	uint64_t max_open_bytes; // of what they keep, in memory and in the store; 0: no bound
	uint64_t max_said_bytes; // of them, what answers have said so far; 0: no bound
	struct stats *stats;     // borrowed
	struct metrics *metrics; // borrowed
	const struct price_list *prices; // borrowed; NULL: none
	struct runs_sink sink;
};

MUST_CHECK int runs_new(struct runs **ret, const struct runs_options *options);
void runs_free(struct runs *r);

/** A connection began, or said hello again. NULL when out of memory. */
struct source *runs_add_source(struct runs *r, int64_t pid, uint64_t pid_start,
                               struct str resource);

/** Takes back a source that has no runs, or leaves it until its last run has ended. */
void runs_drop_source(struct runs *r, struct source *s);

/* Each takes a decoded event of its type. On a refusal the table is as it was. */
enum refusal runs_start(struct runs *r, struct source *s, const struct event *ev,
                        struct moment now);
/** body: the event's own frame, to be kept where it comes before its start. */
enum refusal runs_end(struct runs *r, struct source *s, const struct event *ev, struct str body,
                      struct moment now);
/** A point of a run that is not open goes to the sink by itself; one past CAP_EVENTS_PER_RUN is
 * dropped and counted. A partial output is no point of the span: it is kept in case that no end
 * comes. */
void runs_point(struct runs *r, struct source *s, const struct event *ev, struct moment now);

/* Why open runs are closed without an end. The type is a literal. */
struct closing {
	enum run_status status;
	struct str error_type, error_message, evidence;
};

/** Closes every open run of a source; ends without a start become spans. What the sink has no room
 * for now is closed by runs_tick(), after a commit. */
void runs_close_source(struct runs *r, struct source *s, const struct closing *why,
                       struct moment now);

/** Does what is due. */
void runs_tick(struct runs *r, struct moment now);

/** When runs_tick() is due next, mono; UINT64_MAX: not at all. */
uint64_t runs_deadline(const struct runs *r);

/* --- durability --- */

/** Puts the starts that are still open into the sink: what goes to the commit that follows. A
 * commit must have come back (runs_committed()) before the next is sealed. */
int runs_seal(struct runs *r);

/** What was sealed is durable: its copies in memory are dropped. */
void runs_committed(struct runs *r);

/** What was sealed could not be written and never will be: those runs' starts are lost. */
void runs_dropped(struct runs *r);

/** Bytes that the next seal puts into the sink, at most. */
size_t runs_bytes(const struct runs *r);

/** Puts back one open run that a daemon before us stored. */
int runs_restore(struct runs *r, const struct run_id *run, struct str value, struct moment now);

/** After the last runs_restore(), with the same values in the order of their keys: puts back what
 * the runs have said so far. */
int runs_restore_said(struct runs *r, const struct run_id *key, struct str value);

/** Under which key the store has a page of what a run has said, counted from 0: its text is the
 * value's content. */
struct run_id runs_said_key(const struct run_id *run, unsigned page);

/** After the last runs_restore(): whether a stored span belongs to a request that is open. */
bool runs_wants(const struct runs *r, const uint8_t trace_id[16]);

/** Adds a stored span to the open request that it belongs to. */
void runs_refold(struct runs *r, const struct span_record *rec);

/** Remembers a stored span's run as closed. */
void runs_remember(struct runs *r, const struct span_record *rec, struct moment now);

/** Calls fn for each source that has open runs but no connection: left by a daemon before us. fn
 * may close it. */
typedef void source_fn(void *ctx, struct source *s);
void runs_each_orphaned(struct runs *r, source_fn *fn, void *ctx);

/** Moves the runs of orphaned sources of the same process and resource to s. */
void runs_adopt(struct runs *r, struct source *s);

/** Trace ids of the open requests, as fingerprints are made of them; at most max. */
size_t runs_trace_ids(const struct runs *r, uint8_t (*ret)[16], size_t max);

unsigned runs_open_count(const struct runs *r);

/** Whether the table holds something of a run. */
bool runs_has(const struct runs *r, const struct run_id *run);
