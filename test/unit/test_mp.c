#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/mp.h"

#define CURSOR(bytes) mp_of((struct str){bytes, sizeof(bytes) - 1})

static struct mp_value read_one(const char *bytes, size_t len)
{
	struct mp c = mp_of((struct str){bytes, len});
	struct mp_value v;

	assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
	assert_ptr_equal(c.p, c.end);
	return v;
}

#define READ(bytes) read_one(bytes, sizeof(bytes) - 1)

static void integers_of_every_width_keep_their_sign(void **state)
{
	const struct {
		struct mp_value got;
		int64_t want;
	} cases[] = {
		{READ("\x7f"), 127},
		{READ("\xe0"), -32},
		{READ("\xcc\xff"), 255},
		{READ("\xcd\xff\xfe"), 65534},
		{READ("\xce\xff\xff\xff\xff"), 4294967295},
		{READ("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), INT64_MAX},
		{READ("\xd0\x80"), -128},
		{READ("\xd1\xff\xfe"), -2},
		{READ("\xd2\x80\x00\x00\x00"), INT32_MIN},
		{READ("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), INT64_MIN},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(cases[i].got.type, MP_INT);
		assert_true(cases[i].got.i == cases[i].want);
	}
	struct mp_value v = READ("\xcf\x80\x00\x00\x00\x00\x00\x00\x00");
	assert_int_equal(v.type, MP_UINT);
	assert_true(v.u == 1ull << 63);
}

static void both_floats_read_as_doubles(void **state)
{
	assert_true(READ("\xca\x3f\x00\x00\x00").d == 0.5);
	assert_true(READ("\xcb\xbf\xe0\x00\x00\x00\x00\x00\x00").d == -0.5);
}

static void strings_bins_and_exts_are_borrowed(void **state)
{
	const char *bytes = "\xa3"
			    "abc";
	struct mp_value v = read_one(bytes, 4);

	assert_int_equal(v.type, MP_STR);
	assert_ptr_equal(v.s.p, bytes + 1);
	assert_int_equal(v.s.len, 3);
	v = READ("\xc4\x02\x00\xff");
	assert_int_equal(v.type, MP_BIN);
	assert_int_equal(v.s.len, 2);
	v = READ("\xd5\x07xy");
	assert_int_equal(v.type, MP_EXT);
	assert_true(str_is(v.s, "xy"));
	v = READ("\xc8\x00\x01\x07x");
	assert_int_equal(v.type, MP_EXT);
	assert_true(str_is(v.s, "x"));
}

static void nil_and_bools(void **state)
{
	assert_int_equal(READ("\xc0").type, MP_NIL);
	assert_int_equal(READ("\xc2").type, MP_BOOL);
	assert_false(READ("\xc2").b);
	assert_true(READ("\xc3").b);
}

static void a_container_is_read_as_its_head(void **state)
{
	struct mp c = CURSOR("\x82\x01\x02\x03\x04");
	struct mp_value v;

	assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
	assert_int_equal(v.type, MP_MAP);
	assert_int_equal(v.count, 2);
	assert_int_equal(c.end - c.p, 4);
}

static void claims_beyond_the_bytes_left_are_malformed(void **state)
{
	static const char *const heads[] = {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff",
	                                    "\xdf\x80\x00\x00\x01", "\xdb\xff\xff\xff\xff",
	                                    "\xc6\xff\xff\xff\xff", "\xc9\xff\xff\xff\xff"};
	struct mp_value v;

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		struct mp c = mp_of((struct str){heads[i], 5});
		assert_int_equal(mp_read(&c, &v), REFUSED_MALFORMED);
	}
	struct mp empty = CURSOR("");
	assert_int_equal(mp_read(&empty, &v), REFUSED_MALFORMED);
	struct mp reserved = CURSOR("\xc1\x01");
	assert_int_equal(mp_read(&reserved, &v), REFUSED_MALFORMED);
}

/* Every first byte with fewer bytes than its number needs, on the heap for the sanitizer. */
static void every_head_cut_short_is_malformed(void **state)
{
	static const uint8_t needs[32] = {1, 0, 1, 1, 2, 3, 5, 3,  4,  6, 5, 9, 2, 3, 5, 9,
	                                  2, 3, 5, 9, 3, 4, 6, 10, 18, 2, 3, 5, 3, 5, 3, 5};

	for (unsigned first = 0xc0; first < 0xe0; first++)
		for (size_t len = 1; len < needs[first - 0xc0]; len++) {
			uint8_t *bytes = calloc(1, len);
			struct mp_value v;
			assert_non_null(bytes);
			bytes[0] = (uint8_t)first;
			struct mp c = {bytes, bytes + len};
			assert_int_equal(mp_read(&c, &v), REFUSED_MALFORMED);
			free(bytes);
		}
}

static void skip_stops_after_one_value(void **state)
{
	struct mp c = CURSOR("\x92\x81\xa1k\xc4\x01x\xcb\0\0\0\0\0\0\0\0\x05");

	assert_int_equal(mp_skip(&c, 2), REFUSAL_NONE);
	assert_int_equal(c.end - c.p, 1);
}

static void skip_counts_depth(void **state)
{
	struct mp c = CURSOR("\x05");
	assert_int_equal(mp_skip(&c, 0), REFUSAL_NONE);
	c = CURSOR("\x90");
	assert_int_equal(mp_skip(&c, 0), REFUSED_TOO_DEEP);
	c = CURSOR("\x91\x91\x80");
	assert_int_equal(mp_skip(&c, 2), REFUSED_TOO_DEEP);
	c = CURSOR("\x91\x91\x80");
	assert_int_equal(mp_skip(&c, 3), REFUSAL_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_of_every_width_keep_their_sign),
		cmocka_unit_test(both_floats_read_as_doubles),
		cmocka_unit_test(strings_bins_and_exts_are_borrowed),
		cmocka_unit_test(nil_and_bools),
		cmocka_unit_test(a_container_is_read_as_its_head),
		cmocka_unit_test(claims_beyond_the_bytes_left_are_malformed),
		cmocka_unit_test(every_head_cut_short_is_malformed),
		cmocka_unit_test(skip_stops_after_one_value),
		cmocka_unit_test(skip_counts_depth),
	};

	return cmocka_run_group_tests_name("mp", tests, NULL, NULL);
}
