/* conn.h - the insides that ingest's files share: one client's connection.
 *   conn.c           its beginning, reading, its end
 *   conn_message.c   what is said, and answered
 *   conn_child.c     what one process says of another
 *   conn_evidence.c  what is known of a process that left without a bye
 *   orphans.c        runs whose process has no connection
 */
#pragma once

#include "base/list.h"
#include "ingest/cgroup.h"
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
	WORD_MS = 2000,    // for its parent to tell how it ended, where one said it would
	WATCHES_MAX = 256, // of one connection
	ORPHAN_CHECK_MS = 1000,
	HEIR_CHECK_MS = 5000,
	ORPHAN_UNSEEN_MS = 60000,    // for a process that can't be seen to come back
	OWNER_UNSEEN_MS = 3600000,   // or for one that need not come back
	KEPT_MAX = 64 * 1024 * 1024, // half frames of all connections
	REPLIES_MAX = 64 * 1024,     // unread answers of one connection
};

/* What a process's parent told of its end. */
struct word {
	enum { WORD_NONE, WORD_EXIT, WORD_SIGNAL } kind;
	int value;
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
	struct list_node in_all, in_resting, in_watchers;
	int64_t said_pid; // its process as it sees itself
	struct word word;
	struct cgroup *cgroup; // NULL: not visible
	uint64_t kills_before, kills_after;
	int64_t *watched; // the processes that it will tell the end of
	unsigned watched_count;
	bool oom;     // the count explains its end
	bool left;    // before a stop
	bool drained; // for a stop
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
	struct cgroups *cgroups; // NULL: no memory for them
	uv_pipe_t listener;
	uv_timer_t rest, orphans, heirs, again;
	struct list_node all, resting, watchers;
	struct list_node ended; // connections whose runs are to be judged
	unsigned open;          // connections
	unsigned max_open;
	unsigned rest_ms;
	size_t most_read; // of one connection since the last rest
	size_t kept;      // bytes of half frames
	bool full;        // nothing is read until the store has caught up
	bool stopping;
	uint64_t stop_by_ns; // mono: the store is waited for no longer
	uint64_t started_ns; // mono
	uint8_t buffer[READ_SIZE];
};

/** Wakes those who rest, in a while. */
void ingest_rest(struct ingest *in);

/** Stops all reading until the store has caught up. */
void ingest_pause(struct ingest *in);

/** Takes over the connection that waits. False: there is no memory for it, and it waits on. */
MUST_CHECK bool conn_accept(struct ingest *in);

/** Reads on, unless it rests or the store lags. */
void conn_read(struct conn *c);
void conn_pause(struct conn *c);

/** Whether there is nothing to read now. */
bool conn_is_silent(const struct conn *c);

/** Lets nothing more be sent: what a client's send took until now is all there is. */
void conn_shut(struct conn *c);

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

/** Closes all of its runs that are open, but for those that outlive it. */
void conn_close_runs(struct conn *c, const struct closing *why, struct moment at);

/** Lets go of its sources. */
void conn_drop_sources(struct conn *c);

extern const struct closing conn_closed_by_bye;

/* --- conn_child.c --- */

/** Takes what it says of a child. */
enum refusal conn_on_child(struct conn *c, const struct event *ev, struct moment at);

/** Whether somebody who is connected will tell how its process ended. */
bool conn_is_watched(const struct conn *c);

/** The same of a process that is not connected, by its pid as we see it. */
bool conn_awaits_word(const struct ingest *in, int64_t pid);

void conn_forget_children(struct conn *c);

/* --- conn_evidence.c --- */

enum { EVIDENCE_SIZE = 256, REASON_SIZE = 128 };

/** Looks at what can only be seen now: the process has just let go of its connection. */
void conn_take_evidence(struct conn *c);

/** Judges its runs soon, or when its process's parent has told. */
void conn_await_evidence(struct conn *c);

/** There is no need to wait any longer. */
void conn_judge_now(struct conn *c);

/** Why runs are closed whose process was lost; the texts are written where given. */
struct closing evidence_of_word(struct word word, char reason[REASON_SIZE]);

extern const struct closing evidence_of_loss;

/** Ends its part in the ingest, after conn.c's. */
void conn_let_go(struct conn *c);

/* --- orphans.c --- */

/** Looks now and then whether the processes of runs without a connection are there. */
void orphans_watch(struct ingest *in);
void orphans_stop(struct ingest *in);
void on_orphans(uv_timer_t *timer);

/** Looks now and then whether the processes of connections with open runs are there. */
void heirs_watch(struct conn *c);

/** A connection's process is here, or (bye) has left on purpose. */
void orphans_note(struct conn *c, bool bye);

/** A process's parent told how it ended: closes what is left of it. */
void orphans_tell(struct ingest *in, int64_t pid, struct word word, struct moment at);
