#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"

static void buf_refuses_past_its_cap_and_keeps_the_error(void **state)
{
	struct buf b;

	buf_init(&b, 300);
	assert_non_null(buf_extend(&b, 300));
	buf_append_byte(&b, 'x');
	assert_int_equal(buf_error(&b), -ENOSPC);
	assert_int_equal(b.len, 300);
	buf_clear(&b);
	buf_append_str(&b, "again");
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(b.len, 5);
	buf_deinit(&b);
}

static void json_escapes_and_repairs_text(void **state)
{
	struct buf b;
	struct json j;

	buf_init(&b, 4096);
	jsonw_init(&j, &b);
	jsonw_object(&j);
	jsonw_key_str(&j, STR("a\"b"));
	jsonw_str(&j, (struct str){"x\n\x01\xff\xc3\xa9", 6});
	jsonw_key(&j, "t");
	jsonw_time(&j, 1700000000123456789ull);
	jsonw_key(&j, "l");
	jsonw_array(&j);
	jsonw_double(&j, 0.1);
	jsonw_ms(&j, 400123456);
	jsonw_null(&j);
	jsonw_array_end(&j);
	jsonw_object_end(&j);
	buf_append_byte(&b, 0);
	assert_string_equal((char *)b.data,
	                    "{\"a\\\"b\":\"x\\n\\u0001\xef\xbf\xbd\xc3\xa9\","
	                    "\"t\":\"2023-11-14T22:13:20.123456789Z\",\"l\":[0.1,400.123,null]}");
	buf_deinit(&b);
}

static void times_are_those_of_the_c_library(void **state)
{
	char ours[TIME_TEXT_SIZE], theirs[TIME_TEXT_SIZE];

	for (uint64_t s = 0; s < 253402300800ull; s += 86399ull * 7 + s / 1000) {
		time_t seconds = (time_t)s;
		struct tm tm;
		assert_non_null(gmtime_r(&seconds, &tm));
		strftime(theirs, sizeof(theirs), "%Y-%m-%dT%H:%M:%S.000000007Z", &tm);
		if (s > UINT64_MAX / 1000000000ull - 1)
			break;
		time_text(ours, s * 1000000000ull + 7);
		assert_string_equal(ours, theirs);
	}
}

static void numbers_are_written_whole(void **state)
{
	struct buf b;
	struct json j;

	buf_init(&b, 4096);
	jsonw_init(&j, &b);
	jsonw_array(&j);
	jsonw_int(&j, INT64_MIN);
	jsonw_int(&j, 0);
	jsonw_uint(&j, UINT64_MAX);
	jsonw_ms(&j, 0);
	jsonw_ms(&j, 1999999);
	jsonw_array_end(&j);
	buf_append_byte(&b, 0);
	assert_string_equal((char *)b.data,
	                    "[-9223372036854775808,0,18446744073709551615,0.000,2.000]");
	buf_deinit(&b);
}

/* The examples of RFC 4648, section 10. */
static void base64_is_that_of_its_rfc(void **state)
{
	static const char *const examples[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
	                                       "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
	struct buf b;

	buf_init(&b, 64);
	for (size_t len = 0; len <= 6; len++) {
		buf_clear(&b);
		buf_append_base64(&b, "foobar", len);
		buf_append_byte(&b, 0);
		assert_string_equal((char *)b.data, examples[len]);
	}
	buf_deinit(&b);
}

static void utf8_knows_the_bad_forms(void **state)
{
	assert_true(utf8_is_valid("plain text and \xf0\x9f\x98\x80", 19));
	assert_false(utf8_is_valid("\xc0\x80", 2));
	assert_false(utf8_is_valid("\xed\xa0\x80", 3));
	assert_false(utf8_is_valid("\xf4\x90\x80\x80", 4));
	assert_false(utf8_is_valid("12345678\x80", 9));
	assert_int_equal(utf8_cut("ab\xc3\xa9", 4, 3), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_refuses_past_its_cap_and_keeps_the_error),
		cmocka_unit_test(json_escapes_and_repairs_text),
		cmocka_unit_test(times_are_those_of_the_c_library),
		cmocka_unit_test(numbers_are_written_whole),
		cmocka_unit_test(base64_is_that_of_its_rfc),
		cmocka_unit_test(utf8_knows_the_bad_forms),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
