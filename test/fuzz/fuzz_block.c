/* fuzz_block.c - any bytes as a stored block, and as an open run's value.
 *
 * What the reader hands out lies within the block, numbered one by one, no more of it than the
 * header says; and it comes to an end. The checksum is made to fit, so that the fuzzer gets past
 * it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/batch.h"
#include "store/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct str s, struct str whole)
{
	assert(s.len == 0 || (s.p >= whole.p && s.p + s.len <= whole.p + whole.len));
}

static void walk(struct block_reader *r, struct str block)
{
	struct span_record rec;
	uint64_t count = 0;
	int rc;

	while ((rc = block_next(r, &rec)) == 1) {
		assert(rec.seq == r->header.first_seq + count);
		check_inside(rec.base, block);
		check_inside(rec.content, block);
		check_inside(rec.resource, block);
		count++;
	}
	assert(rc == 0 || rc == ERR_CORRUPT);
	assert(count <= r->header.count && (rc != 0 || count == r->header.count));
}

static void walk_sealed(uint8_t *copy, size_t size)
{
	struct block_reader r;
	struct str block = {(char *)copy, size};
	uint32_t length = (uint32_t)size;

	memcpy(copy + offsetof(struct block_header, length), &length, sizeof(length));
	block_seal(copy, 7);
	int rc = block_open(&r, block);
	assert(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION);
	if (rc == 0)
		walk(&r, block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct block_reader r;
	struct open_parts parts;
	struct str bytes = {(const char *)data, size};

	if (block_open_checked(&r, bytes) == 0)
		walk(&r, (struct str){bytes.p, r.header.length});
	if (open_parse(&parts, bytes) == 0) {
		check_inside(parts.base, bytes);
		check_inside(parts.state, bytes);
	}
	if (size >= sizeof(struct block_header)) {
		uint8_t *copy = malloc(size);
		assert(copy);
		memcpy(copy, data, size);
		walk_sealed(copy, size);
		free(copy);
	}
	return 0;
}
