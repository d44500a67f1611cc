/* conn.h - the insides that ingest.c and conn.c share: one client's connection. */
#pragma once

#include "base/list.h"
#include "ingest/door.h"
#include "ingest/frames.h"
#include "ingest/ingest.h"
#include "ingest/peer.h"
#include "ingest/pipeline.h"

enum {
	READ_SIZE = 256 * 1024,
	REST_MIN_MS = 1,
	REST_MAX_MS = 32,
	BUSY_READ = 48 * 1024, // a read of this much: the sender is ahead, so no rest
	BUSY_FRAMES = 64, // or of so many: a socket holds 278, however small; who polls first, 70
	HALF_FRAME_MS = 10000,
	EVIDENCE_MS = 100, // for a killed process to be gone
	ORPHAN_CHECK_MS = 1000,
	ORPHAN_UNSEEN_MS = 60000,    // for a process that can't be seen to come back
	KEPT_MAX = 64 * 1024 * 1024, // half frames of all connections
	REPLIES_MAX = 64 * 1024,     // unread answers of one connection
	DRAIN_MAX = 16 * 1024 *
	            1024, // more than a socket holds: a client that goes on isn't waited for
};

struct conn {
	uv_pipe_t pipe;
	uv_timer_t timer; // half frame; later, evidence
	struct ingest *in;
	struct source *source;
	struct peer peer;
	struct frames frames;
	uint64_t told;         // kinds of faults it was told of, as bits
	struct buf held;       // what was read but not fed yet: the pipeline was full
	uint64_t since_frames; // frames when the half frame began
	struct moment ended;
	struct list_node in_all, in_resting;
	size_t drained; // bytes read since we stop
	bool half, bye, ended_once;
	bool failed;      // its stream means nothing to us any more
	bool timed_out;   // we ended it
	unsigned handles; // that are not closed yet
};

struct ingest {
	struct ingest_options o;
	struct pipeline *pipeline;
	struct runs *runs;
	struct door door;
	uv_pipe_t listener;
	uv_timer_t rest, orphans;
	struct list_node all, resting;
	struct list_node ended; // connections whose runs are to be judged
	unsigned open;          // connections
	unsigned rest_ms;
	size_t most_read; // of one connection since the last rest
	size_t kept;      // bytes of half frames
	bool full;        // nothing is read until the store has caught up
	bool stopping;
	bool given_up;       // to stop with, the store was waited for in vain
	uint64_t started_ns; // mono
	uint8_t buffer[READ_SIZE];
};

/** Wakes those who rest, in a while. */
void ingest_rest(struct ingest *in);

/** Looks now and then whether the processes of runs without a connection are there. */
void ingest_watch_orphans(struct ingest *in);

/** Stops all reading until the store has caught up. */
void ingest_pause(struct ingest *in);

/** Takes over an accepted connection. */
void conn_accept(struct ingest *in);

/** Reads on, unless it rests or the store lags. */
void conn_read(struct conn *c);
void conn_pause(struct conn *c);

/** Reads what is there without waiting, before a stop. False: there is more, but no room now. */
MUST_CHECK bool conn_drain(struct conn *c);

/** Ends it, as if the client had gone. */
void conn_hang_up(struct conn *c);

/** Lets go without judging its runs: they stay open in the store. */
void conn_abandon(struct conn *c);

/** Answers a flush. */
void conn_flushed(struct conn *c, uint64_t token);

/* --- conn_message.c: what is said, and answered --- */

/* What is being fed, and when it came. */
struct feeding {
	struct conn *conn;
	struct moment at;
};

/** Takes one frame: frame_fn of frames.h, ctx a struct feeding. */
bool conn_on_frame(void *ctx, struct str body, enum refusal why);

/** Counts a refused frame and tells the client, once per kind. */
void conn_refuse(struct conn *c, enum refusal why);

/** Tells the client alone. */
void conn_tell(struct conn *c, enum refusal why);
void conn_send_error(struct conn *c, const char *code, const char *message);

/** Where the connection's runs come from, as a hello says; NULL when out of memory. */
struct source *conn_make_source(struct conn *c, const struct event *hello);

/** Closes all of its runs that are open. */
void conn_close_runs(struct conn *c, const struct closing *why, struct moment at);

/** Lets go of its sources. */
void conn_drop_sources(struct conn *c);

extern const struct closing conn_closed_by_bye;
