#include "store/block.h"

#include <pthread.h>
#include <string.h>

/* --- CRC-32C --- */

static uint32_t crc_table[8][256];

static void fill_crc_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (unsigned bit = 0; bit < 8; bit++)
			c = c & 1 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
		crc_table[0][i] = c;
	}
	for (unsigned t = 1; t < 8; t++) {
		for (unsigned i = 0; i < 256; i++) {
			uint32_t c = crc_table[t - 1][i];
			crc_table[t][i] = (c >> 8) ^ crc_table[0][c & 0xff];
		}
	}
}

uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const uint8_t *p = bytes;

	pthread_once(&once, fill_crc_table);
	crc = ~crc;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;
		memcpy(&v, p, 8);
		v ^= crc;
		crc = 0;
		for (unsigned i = 0; i < 8; i++)
			crc ^= crc_table[7 - i][(v >> (8 * i)) & 0xff];
	}
	for (; len > 0; p++, len--)
		crc = (crc >> 8) ^ crc_table[0][(crc ^ *p) & 0xff];
	return ~crc;
}

#ifdef __x86_64__
/* A word takes three cycles, but one can be begun in each: three lanes at a time keep the CPU busy.
 * Their CRCs are put together by what LANE bytes of zeros make of a CRC, which is linear: a table
 * for each of its bytes. */
enum { LANE = 1024, LANES = 3 };

#define WITH_CRC __attribute__((target("sse4.2")))

static uint32_t past_lane[4][256];

WITH_CRC static void fill_past_lane(void)
{
	for (unsigned byte = 0; byte < 4; byte++) {
		for (uint32_t i = 0; i < 256; i++) {
			uint64_t c = i << (8 * byte);
			for (unsigned at = 0; at < LANE; at += 8)
				c = __builtin_ia32_crc32di(c, 0);
			past_lane[byte][i] = (uint32_t)c;
		}
	}
}

static uint64_t shift_lane(uint64_t c)
{
	return past_lane[0][c & 0xff] ^ past_lane[1][c >> 8 & 0xff] ^ past_lane[2][c >> 16 & 0xff] ^
	       past_lane[3][c >> 24];
}

static uint64_t word_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

WITH_CRC static uint64_t crc32c_lanes(uint64_t a, const uint8_t *p)
{
	uint64_t b = 0, c = 0;

	for (const uint8_t *end = p + LANE; p < end; p += 8) {
		a = __builtin_ia32_crc32di(a, word_at(p));
		b = __builtin_ia32_crc32di(b, word_at(p + LANE));
		c = __builtin_ia32_crc32di(c, word_at(p + 2 * (size_t)LANE));
	}
	return shift_lane(shift_lane(a) ^ b) ^ c;
}

WITH_CRC static uint32_t crc32c_by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint64_t c = ~crc;

	if (len >= LANES * LANE)
		pthread_once(&once, fill_past_lane);
	for (; len >= LANES * LANE; p += LANES * LANE, len -= LANES * LANE)
		c = crc32c_lanes(c, p);
	for (; len >= 8; p += 8, len -= 8)
		c = __builtin_ia32_crc32di(c, word_at(p));
	uint32_t c32 = (uint32_t)c;
	for (; len > 0; p++, len--)
		c32 = __builtin_ia32_crc32qi(c32, *p);
	return ~c32;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_by_instruction(crc, bytes, len);
#endif
	return crc32c_by_table(crc, bytes, len);
}

/* A CRC of 16 random bytes is as even as any hash, and costs two instructions. */
uint32_t trace_fingerprint(const uint8_t trace_id[16])
{
	return crc32c(0, trace_id, 16);
}

uint32_t mark_bytes(enum block_type type)
{
	return type == BLOCK_OBSERVATIONS ? sizeof(uint8_t[16]) : sizeof(uint32_t);
}

/* --- blocks --- */

static const uint8_t magic[4] = {'S', 'L', 'B', '1'};

enum { CRC_FROM = offsetof(struct block_header, crc) + sizeof(uint32_t) };

void block_seal(uint8_t *block, uint64_t first_seq)
{
	uint32_t length;

	memcpy(block + offsetof(struct block_header, first_seq), &first_seq, sizeof(first_seq));
	memcpy(&length, block + offsetof(struct block_header, length), sizeof(length));
	uint32_t crc = crc32c(0, block + CRC_FROM, length - CRC_FROM);
	memcpy(block + offsetof(struct block_header, crc), &crc, sizeof(crc));
}

int block_open_checked(struct block_reader *r, struct str bytes)
{
	struct block_header h;

	if (bytes.len < sizeof(h))
		return ERR_CORRUPT;
	memcpy(&h, bytes.p, sizeof(h));
	if (memcmp(h.magic, magic, sizeof(magic)) != 0)
		return ERR_CORRUPT;
	if (h.version > BLOCK_VERSION)
		return ERR_VERSION;
	if (h.version == 0 || h.length < sizeof(h) || h.length > bytes.len)
		return ERR_CORRUPT;
	r->header = h;
	r->left = (struct str){bytes.p + sizeof(h), h.length - sizeof(h)};
	r->resource_count = 0;
	r->seen = 0;
	return 0;
}

int block_open(struct block_reader *r, struct str bytes)
{
	int rc = block_open_checked(r, bytes);

	if (rc != 0)
		return rc;
	if (r->header.length != bytes.len ||
	    r->header.crc != crc32c(0, bytes.p + CRC_FROM, bytes.len - CRC_FROM))
		return ERR_CORRUPT;
	return 0;
}

static struct str take(struct str *left, size_t n)
{
	struct str got = {left->p, n};

	left->p += n;
	left->len -= n;
	return got;
}

int block_next(struct block_reader *r, struct span_record *ret)
{
	struct record_head h;

	while (r->left.len > 0) {
		if (r->left.len < sizeof(h))
			return ERR_CORRUPT;
		memcpy(&h, take(&r->left, sizeof(h)).p, sizeof(h));
		if ((uint64_t)h.base_len + h.content_len > r->left.len)
			return ERR_CORRUPT;
		struct str base = take(&r->left, h.base_len);
		struct str content = take(&r->left, h.content_len);
		if (h.flags & RECORD_RESOURCE) {
			if (r->resource_count == BLOCK_RESOURCES)
				return ERR_CORRUPT;
			r->resources[r->resource_count++] = base;
			continue;
		}
		if (h.resource > r->resource_count || r->seen == r->header.count)
			return ERR_CORRUPT;
		*ret = (struct span_record){
			.seq = r->header.first_seq + r->seen++,
			.head = h,
			.base = base,
			.content = content,
			.resource = h.resource ? r->resources[h.resource - 1] : (struct str){0},
		};
		return 1;
	}
	return r->seen == r->header.count ? 0 : ERR_CORRUPT;
}
