#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "store/batch.h"
#include "store/block.h"

static void add(struct block_writer *w, const char *base, const char *content, uint64_t resource_id,
                const char *resource)
{
	struct str b = str_of(base), c = str_of(content);
	struct record_parts parts = {
		.base = &b,
		.base_count = 1,
		.content = &c,
		.content_count = 1,
		.start_ns = 10,
		.end_ns = 20,
	};

	assert_int_equal(batch_add_record(w, &parts, resource_id, str_of(resource)), 0);
}

static struct str sealed(struct block_writer *w, uint64_t seq)
{
	block_seal(w->bytes.data, seq);
	return (struct str){(char *)w->bytes.data, w->header.length};
}

static void crc32c_is_that_of_rfc_3720(void **state)
{
	uint8_t bytes[32] = {0};

	assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void crc32c_is_the_same_by_table(void **state)
{
	static uint8_t bytes[10000]; // several times what is done in lanes

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 37 + (i >> 3));
	for (size_t len = 0; len < 9900; len += len < 260 ? 1 : 61)
		assert_int_equal(crc32c(7, bytes + len % 9, len),
		                 crc32c_by_table(7, bytes + len % 9, len));
}

static void records_come_back_with_their_numbers_and_resources(void **state)
{
	struct batch b;
	struct block_reader r;
	struct span_record rec;

	batch_init(&b);
	add(&b.spans, "one", "secret", 7, "res-a");
	add(&b.spans, "two", "", 9, "res-b");
	add(&b.spans, "", "only content", 7, "res-a");
	add(&b.spans, "four", "", 0, "");
	assert_int_equal(block_open(&r, sealed(&b.spans, 100)), 0);
	assert_int_equal(r.header.count, 4);
	assert_int_equal(r.header.start_ns, 10);
	assert_int_equal(r.header.end_ns, 20);

	static const char *const base[] = {"one", "two", "", "four"};
	static const char *const content[] = {"secret", "", "only content", ""};
	static const char *const resource[] = {"res-a", "res-b", "res-a", ""};
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(block_next(&r, &rec), 1);
		assert_int_equal(rec.seq, 100 + i);
		assert_true(str_eq(rec.base, str_of(base[i])));
		assert_true(str_eq(rec.content, str_of(content[i])));
		assert_true(str_eq(rec.resource, str_of(resource[i])));
	}
	assert_int_equal(block_next(&r, &rec), 0);
	assert_int_equal(block_next(&r, &rec), 0);
	batch_deinit(&b);
}

static void any_flipped_byte_is_noticed(void **state)
{
	struct batch b;
	struct block_reader r;

	batch_init(&b);
	add(&b.spans, "some bytes", "and more", 1, "resource");
	struct str block = sealed(&b.spans, 1);
	for (size_t i = 0; i < block.len; i++) {
		b.spans.bytes.data[i] ^= 0x10;
		assert_int_not_equal(block_open(&r, block), 0);
		b.spans.bytes.data[i] ^= 0x10;
	}
	assert_int_equal(block_open(&r, block), 0);
	batch_deinit(&b);
}

static void a_block_cut_short_is_refused_at_every_length(void **state)
{
	struct batch b;
	struct block_reader r;

	batch_init(&b);
	add(&b.spans, "some bytes", "and more", 1, "resource");
	struct str block = sealed(&b.spans, 1);
	for (size_t len = 0; len < block.len; len++) {
		char *copy = malloc(len + 1); // exactly as long: a read past it shows
		assert_non_null(copy);
		memcpy(copy, block.p, len);
		assert_int_equal(block_open(&r, (struct str){copy, len}), ERR_CORRUPT);
		free(copy);
	}
	batch_deinit(&b);
}

static void a_newer_block_is_called_newer(void **state)
{
	struct batch b;
	struct block_reader r;

	batch_init(&b);
	add(&b.spans, "x", "", 0, "");
	struct str block = sealed(&b.spans, 1);
	b.spans.bytes.data[offsetof(struct block_header, version)] = BLOCK_VERSION + 1;
	assert_int_equal(block_open(&r, block), ERR_VERSION);
	batch_deinit(&b);
}

/* Whatever the lengths and counts say, the reader stays inside and ends: the checksum is made to
 * fit, so that only block_next() is left to notice. */
static void a_lie_under_a_good_checksum_is_noticed(void **state)
{
	struct batch b;
	struct block_reader r;
	struct span_record rec;

	batch_init(&b);
	add(&b.spans, "abcdefgh", "ijkl", 1, "resource");
	add(&b.spans, "mnop", "", 1, "resource");
	struct str block = sealed(&b.spans, 1);
	uint8_t *data = b.spans.bytes.data;
	for (size_t i = sizeof(struct block_header); i < block.len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			data[i] ^= (uint8_t)(1u << bit);
			block_seal(data, 1);
			assert_int_equal(block_open(&r, block), 0);
			int rc, steps = 0;
			while ((rc = block_next(&r, &rec)) == 1)
				assert_true(++steps <= 2);
			assert_true(rc == 0 || rc == ERR_CORRUPT);
			data[i] ^= (uint8_t)(1u << bit);
		}
	}
	uint32_t wrong = 3;
	memcpy(data + offsetof(struct block_header, count), &wrong, 4);
	block_seal(data, 1);
	assert_int_equal(block_open(&r, block), 0);
	assert_int_equal(block_next(&r, &rec), 1);
	assert_int_equal(block_next(&r, &rec), 1);
	assert_int_equal(block_next(&r, &rec), ERR_CORRUPT);
	batch_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_is_that_of_rfc_3720),
		cmocka_unit_test(crc32c_is_the_same_by_table),
		cmocka_unit_test(records_come_back_with_their_numbers_and_resources),
		cmocka_unit_test(any_flipped_byte_is_noticed),
		cmocka_unit_test(a_block_cut_short_is_refused_at_every_length),
		cmocka_unit_test(a_newer_block_is_called_newer),
		cmocka_unit_test(a_lie_under_a_good_checksum_is_noticed),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
