#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <msgpack.h>
#include <string.h>

#include "ingest/reply.h"

/* The body of a frame, whose prefix must say its length, decoded by the reference library. */
static msgpack_object decoded(msgpack_unpacked *u, const uint8_t *frame, size_t len)
{
	size_t at = 0;

	assert_in_range(len, 5, REPLY_MAX);
	assert_int_equal((uint32_t)frame[0] << 24 | (uint32_t)frame[1] << 16 |
	                         (uint32_t)frame[2] << 8 | frame[3],
	                 len - 4);
	msgpack_unpacked_init(u);
	assert_int_equal(msgpack_unpack_next(u, (const char *)frame + 4, len - 4, &at),
	                 MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(at, len - 4);
	assert_int_equal(u->data.type, MSGPACK_OBJECT_ARRAY);
	return u->data;
}

static void test_flushed_carries_any_token(void **state)
{
	static const uint64_t tokens[] = {0,     1,     127,        128,        255,      256,
	                                  65535, 65536, UINT32_MAX, 1ull << 32, INT64_MAX};
	uint8_t out[REPLY_MAX];
	msgpack_unpacked u;

	(void)state;
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
		size_t len = reply_flushed(out, tokens[i]);
		msgpack_object o = decoded(&u, out, len);
		assert_int_equal(o.via.array.size, 2);
		assert_int_equal(o.via.array.ptr[0].via.u64, 5);
		assert_true(o.via.array.ptr[1].via.u64 == tokens[i]);
		msgpack_unpacked_destroy(&u);
	}
}

static void test_an_error_says_what_and_where(void **state)
{
	uint8_t out[REPLY_MAX];
	msgpack_unpacked u;

	(void)state;
	size_t len = reply_error(out, "malformed", "cut short", 70000);
	msgpack_object o = decoded(&u, out, len);
	assert_int_equal(o.via.array.ptr[0].via.u64, 8);
	const msgpack_object_map *map = &o.via.array.ptr[1].via.map;
	assert_int_equal(map->size, 3);
	assert_memory_equal(map->ptr[0].val.via.str.ptr, "malformed", 9);
	assert_memory_equal(map->ptr[1].val.via.str.ptr, "cut short", 9);
	assert_int_equal(map->ptr[2].val.via.u64, 70000);
	msgpack_unpacked_destroy(&u);
}

static void test_texts_of_any_length_fit(void **state)
{
	uint8_t out[REPLY_MAX];
	msgpack_unpacked u;
	char text[400];

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		memset(text, 'x', n);
		text[n] = '\0';
		size_t len = reply_error(out, text, text, UINT64_MAX);
		decoded(&u, out, len);
		msgpack_unpacked_destroy(&u);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flushed_carries_any_token),
		cmocka_unit_test(test_an_error_says_what_and_where),
		cmocka_unit_test(test_texts_of_any_length_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
