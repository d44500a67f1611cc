/* block.h - the log's unit: one group commit's records, framed and checksummed.
 *
 *   header   magic "SLB1", CRC32C of all that follows it, version, type, record count, length,
 *            first sequence number, earliest start and latest end (unix ns)
 *   records  struct record_head, base bytes, content bytes, one after another
 *
 * A record with RECORD_RESOURCE carries an encoded Resource instead of a span: the nth of them
 * in a block, counted from 1, is what `resource` n of the following heads means; 0 is none. It
 * has no sequence number. All integers are little-endian. Appending never moves what is there;
 * the sequence number and checksum are filled in when the block is sealed.
 *
 * The reader trusts nothing: whatever the bytes, it stays inside them and comes to an end.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "core/span.h"

enum { BLOCK_VERSION = 1, BLOCK_RESOURCES = 64, RECORD_RESOURCE = 0x80 };
enum block_type { BLOCK_SPANS = 1, BLOCK_OBSERVATIONS = 2 };

struct block_header {
	uint8_t magic[4]; // "SLB1"
	uint32_t crc;     // CRC32C of everything after this field
	uint16_t version;
	uint16_t type;   // enum block_type
	uint32_t count;  // records with a sequence number
	uint32_t length; // of the whole block, this header included
	uint32_t reserved;
	uint64_t first_seq;
	uint64_t start_ns, end_ns; // unix, over all records
};
_Static_assert(sizeof(struct block_header) == 48, "the header is 48 bytes on disk");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "what is on disk is little-endian");

/** CRC-32C (Castagnoli), as in RFC 3720; by the processor's instruction where it has one. crc is
 * what came before, 0 at the start. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

/** The same without the instruction. */
uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t len);

/** What stands for a span's trace id in the directory of blocks: equal ids, equal fingerprints. */
uint32_t trace_fingerprint(const uint8_t trace_id[16]);

/** Bytes of a record's mark, by which the directory of blocks tells whose it is: a span's is the
 * fingerprint of its trace id, an observation's the id itself, so that it is found by a prefix. */
uint32_t mark_bytes(enum block_type type);

/** Fills in the sequence number and the checksum of a finished block. */
void block_seal(uint8_t *block, uint64_t first_seq);

struct block_reader {
	struct block_header header;
	struct str left;
	struct str resources[BLOCK_RESOURCES];
	unsigned resource_count;
	uint32_t seen; // records that block_next() gave
};

/** Checks magic, version, length and checksum. 0, ERR_CORRUPT or ERR_VERSION. */
MUST_CHECK int block_open(struct block_reader *r, struct str bytes);

/** The same without the checksum, for bytes that block_open() has passed before. bytes may go on
 * after the block. */
MUST_CHECK int block_open_checked(struct block_reader *r, struct str bytes);

/** The next record that has a sequence number. 1, 0 at the end, or ERR_CORRUPT. */
MUST_CHECK int block_next(struct block_reader *r, struct span_record *ret);
