/* batch.h - what gathers between two commits.
 *
 * The loop thread fills a batch while the commit worker writes the other one; they change hands
 * whole. Its buffers keep their room, so that in steady state nothing is allocated. Bounded by
 * CAP_BATCH: past it the loop stops reading from clients. A part's buffer takes four times that,
 * for the largest single record, and gives the surplus back when it is cleared.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "core/event.h"
#include "core/span.h"
#include "store/block.h"

/* One kind of log that is being appended to: whole blocks one after another. */
struct block_writer {
	struct buf bytes;
	struct buf marks;                       // mark_bytes() a record, in order
	size_t block;                           // offset of the block being filled
	bool open;                              // there is one
	struct block_header header;             // its header so far
	unsigned resources;                     // written into it
	uint64_t resource_ids[BLOCK_RESOURCES]; // whose they are
	uint64_t count;                         // records in all blocks
	uint32_t blocks;
	enum block_type type;
};

struct batch {
	struct block_writer spans, observations;
	uint64_t events;  // of the records in observations
	struct buf opens; // struct open_change, value; in the order in which they apply
};

/* Puts or deletes an open run. */
struct open_change {
	struct run_id run;
	uint32_t len; // of the value that follows; OPEN_DELETE: none, the run has ended
};
_Static_assert(sizeof(struct open_change) == 20, "packed into struct batch's opens");

#define OPEN_DELETE UINT32_MAX

/* What an open run's value is made of; borrowed from it. */
struct open_parts {
	struct open_head head;
	struct str base, content, resource, state;
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
MUST_CHECK int batch_add_record(struct block_writer *w, struct record_parts *parts,
                                uint64_t resource_id, struct str resource);

/** Puts, or replaces, an open run. Lengths in head are filled in here. */
MUST_CHECK int batch_put_open(struct batch *b, const struct run_id *run,
                              const struct open_head *head, struct str base, struct str content,
                              struct str resource, struct str state);

MUST_CHECK int batch_delete_open(struct batch *b, const struct run_id *run);

/** Takes an open run's value apart. 0 or ERR_CORRUPT. */
MUST_CHECK int open_parse(struct open_parts *ret, struct str value);
