#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "store/batch.h"

static int add(struct block_writer *w, size_t len, uint64_t resource_id)
{
	char *bytes = calloc(1, len + 1);
	assert_non_null(bytes);
	struct str base[2] = {{bytes, len / 2}, {bytes + len / 2, len - len / 2}};
	struct record_parts parts = {
		.base = base,
		.base_count = 2,
		.start_ns = w->count + 1,
		.end_ns = 1000 - w->count,
		.trace_id = {(uint8_t)w->count},
	};
	int rc = batch_add_record(w, &parts, resource_id, STR("service"));
	free(bytes);
	return rc;
}

/* Opens every block of w, and returns the records in them. */
static unsigned walk(struct block_writer *w, unsigned *ret_blocks)
{
	struct block_reader r;
	struct span_record rec;
	unsigned records = 0;

	*ret_blocks = 0;
	for (size_t at = 0; at < w->bytes.len; at += r.header.length) {
		block_seal(w->bytes.data + at, 1 + records);
		struct str bytes = {(char *)w->bytes.data + at, w->bytes.len - at};
		assert_int_equal(block_open_checked(&r, bytes), 0);
		bytes.len = r.header.length;
		assert_int_equal(block_open(&r, bytes), 0);
		while (block_next(&r, &rec) == 1) {
			assert_int_equal(rec.seq, 1 + records);
			records++;
		}
		++*ret_blocks;
	}
	return records;
}

static void blocks_are_closed_at_their_limit(void **state)
{
	struct batch b;
	unsigned blocks;

	batch_init(&b);
	assert_true(batch_is_empty(&b));
	for (unsigned i = 0; i < 400; i++)
		assert_int_equal(add(&b.spans, 1000, 1), 0);
	assert_int_equal(walk(&b.spans, &blocks), 400);
	assert_int_equal(blocks, b.spans.blocks);
	assert_int_equal(blocks, 400 / ((CAP_BLOCK - 48 - 23 - 16) / 1016) + 1);
	assert_int_equal(b.spans.count, 400);
	assert_int_equal(b.spans.marks.len, 400 * 4);
	assert_int_equal(batch_bytes(&b), b.spans.bytes.len);
	batch_deinit(&b);
}

static void a_record_larger_than_a_block_stands_alone(void **state)
{
	struct batch b;
	unsigned blocks;

	batch_init(&b);
	assert_int_equal(add(&b.spans, 10, 1), 0);
	assert_int_equal(add(&b.spans, 4 * MIB, 1), 0);
	assert_int_equal(add(&b.spans, 10, 1), 0);
	assert_int_equal(walk(&b.spans, &blocks), 3);
	assert_int_equal(blocks, 3);
	batch_deinit(&b);
}

static void a_block_holds_no_more_resources_than_a_reader_has_room_for(void **state)
{
	struct batch b;
	unsigned blocks;

	batch_init(&b);
	for (unsigned i = 1; i <= 3 * BLOCK_RESOURCES; i++)
		assert_int_equal(add(&b.spans, 10, i), 0);
	assert_int_equal(walk(&b.spans, &blocks), 3 * BLOCK_RESOURCES);
	assert_int_equal(blocks, 3);
	batch_deinit(&b);
}

static void what_does_not_fit_leaves_the_batch_as_it_was(void **state)
{
	struct batch b;
	unsigned blocks;

	batch_init(&b);
	while (add(&b.spans, MIB, 1) == 0) {
	}
	size_t len = b.spans.bytes.len;
	unsigned count = (unsigned)b.spans.count;
	assert_int_equal(add(&b.spans, MIB, 2), -ENOSPC);
	assert_int_equal(b.spans.bytes.len, len);
	assert_int_equal(b.spans.marks.len, 4 * count);
	assert_int_equal(add(&b.spans, 100, 3), 0);
	assert_int_equal(walk(&b.spans, &blocks), count + 1);
	assert_int_equal(add(&b.observations, 100 * MIB, 1), -ENOSPC);
	batch_deinit(&b);
}

static void clearing_keeps_the_room_but_not_the_surplus(void **state)
{
	struct batch b;

	batch_init(&b);
	assert_int_equal(add(&b.spans, MIB, 1), 0);
	uint8_t *data = b.spans.bytes.data;
	batch_clear(&b);
	assert_true(batch_is_empty(&b));
	assert_ptr_equal(b.spans.bytes.data, data);
	assert_int_equal(add(&b.spans, MIB, 1), 0);
	assert_ptr_equal(b.spans.bytes.data, data);
	assert_int_equal(add(&b.spans, 9 * MIB, 1), 0);
	batch_clear(&b);
	assert_null(b.spans.bytes.data);
	batch_deinit(&b);
}

static void open_runs_keep_their_order_and_parts(void **state)
{
	struct batch b;
	struct open_change change;
	struct open_parts parts;
	struct run_id run = {{1, 2, 3}};
	struct open_head head = {.record = {.kind = KIND_TOOL}, .trace_id = {9}};

	batch_init(&b);
	assert_int_equal(batch_put_open(&b, &run, &head, STR("base"), STR("content"),
	                                STR("resource"), STR("state")),
	                 0);
	assert_int_equal(batch_delete_open(&b, &run), 0);

	memcpy(&change, b.opens.data, sizeof(change));
	assert_memory_equal(&change.run, &run, sizeof(run));
	struct str value = {(char *)b.opens.data + sizeof(change), change.len};
	assert_int_equal(open_parse(&parts, value), 0);
	assert_int_equal(parts.head.trace_id[0], 9);
	assert_true(str_is(parts.base, "base"));
	assert_true(str_is(parts.content, "content"));
	assert_true(str_is(parts.resource, "resource"));
	assert_true(str_is(parts.state, "state"));
	for (size_t len = 0; len < value.len; len++)
		assert_int_equal(open_parse(&parts, (struct str){value.p, len}), ERR_CORRUPT);

	memcpy(&change, value.p + value.len, sizeof(change));
	assert_int_equal(change.len, OPEN_DELETE);
	assert_int_equal(b.opens.len, 2 * sizeof(change) + value.len);
	batch_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_closed_at_their_limit),
		cmocka_unit_test(a_record_larger_than_a_block_stands_alone),
		cmocka_unit_test(a_block_holds_no_more_resources_than_a_reader_has_room_for),
		cmocka_unit_test(what_does_not_fit_leaves_the_batch_as_it_was),
		cmocka_unit_test(clearing_keeps_the_room_but_not_the_surplus),
		cmocka_unit_test(open_runs_keep_their_order_and_parts),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
