/* ingest.h - the agents' door: a Unix stream socket, its connections, their frames.
 *
 * A bad frame is skipped, counted, answered once per kind, and the connection goes on. Nothing
 * here blocks; when the store lags, reading pauses and the clients' own bounds take over.
 *
 * After a read that found little, a connection rests some milliseconds while nobody waits for a
 * flush: a send to a resting reader costs the agent a fifth of one that must wake it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/stats.h"
#include "config.h"

struct ingest;
struct pipeline;
struct store;

struct ingest_options {
	const struct config *config; // borrowed
	struct stats *stats;
	struct store *store;
	uv_loop_t *loop;
	void *ctx;
	void (*committed)(void *ctx); // new spans are durable
	/* A run was refused: the store is held by exporters whose cursor is before that. */
	void (*turned_away)(void *ctx, uint64_t before_seq);
	void (*failed)(void *ctx); // the disk failed: time to end, and to look again at a start
};

/** Binds the socket under another name and starts the pipeline; nothing is served yet. ERR_BUSY: a
 * live daemon answers there. -ENOTSOCK: a file of somebody else's stands there. */
MUST_CHECK int ingest_start(struct ingest **ret, const struct ingest_options *options);

/** Makes the socket appear under its name: from now on a connect works. */
MUST_CHECK int ingest_open_door(struct ingest *in);

struct pipeline *ingest_pipeline(struct ingest *in);

/** Takes the socket away, reads what clients have sent, commits it, answers their flushes. Runs
 * that are open stay open in the store. NULL is fine. */
void ingest_stop(struct ingest *in);

/** After it has stopped: until then what it has counted can be read. NULL is fine. */
void ingest_free(struct ingest *in);
