/* batch.h - what gathers between two commits.
 *
 * The loop thread fills a batch while the commit worker writes the other one; they change hands
 * whole. Its buffers keep their room, so that in steady state nothing is allocated. Bounded by
 * CAP_BATCH: past it the loop stops reading from clients.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "core/event.h"
#include "core/span.h"
#include "store/block.h"

/* One kind of log that is being appended to: whole blocks one after another. */
struct block_writer {
	struct buf bytes;
	size_t block;     // offset of the block being filled
	bool open;        // there is one
	uint16_t type;
	unsigned resources;       // written into the block being filled
	uint64_t resource_ids[64]; // whose they are
	uint64_t count;   // records in all blocks
	struct buf traces; // BLOCK_SPANS: 16 bytes a record, its trace id, in order
};

struct batch {
	struct block_writer spans, observations;
	struct buf open_puts;    // framed: struct open_put, value
	struct buf open_deletes; // run ids, 16 bytes each
};

struct open_put {
	struct run_id run;
	uint32_t len; // of the value that follows
};

/* The value of an open run: this head, base, content, resource, state. base is a whole Span without
 * an end; state is the run table's own. */
struct open_head {
	struct record_head record; // status RUNNING
	uint8_t trace_id[16];
	uint32_t resource_len, state_len;
};

void batch_init(struct batch *b);
void batch_deinit(struct batch *b);
void batch_clear(struct batch *b);
bool batch_is_empty(const struct batch *b);

/** Bytes gathered in all parts. */
size_t batch_bytes(const struct batch *b);

/* A record as slices, to be copied once. */
struct record_parts {
	struct record_head head; // lengths and resource are filled in here
	const struct str *base;
	unsigned base_count;
	const struct str *content;
	unsigned content_count;
	uint64_t start_ns, end_ns; // unix
	uint8_t trace_id[16];
};

/** Appends a record. resource_id names the resource for the time of the batch (equal id, equal
 * bytes; 0: none). -ENOMEM or -ENOSPC: the batch is as it was. */
int batch_add_record(struct block_writer *w, struct record_parts *parts, uint64_t resource_id,
                     struct str resource);

/** Puts, or replaces, an open run. */
int batch_put_open(struct batch *b, const struct run_id *run, const struct open_head *head,
                   struct str base, struct str content, struct str resource, struct str state);

int batch_delete_open(struct batch *b, const struct run_id *run);
