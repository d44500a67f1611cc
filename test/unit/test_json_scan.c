#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_scan.h"

static struct str of(const char *text)
{
	return str_of(text);
}

static void assert_member(const char *members, const char *key, const char *expected)
{
	struct str v = json_member(of(members), key);

	if (!expected) {
		assert_null(v.p);
		return;
	}
	assert_int_equal(v.len, strlen(expected));
	assert_memory_equal(v.p, expected, v.len);
}

static void a_member_is_found_by_its_key(void **state)
{
	static const char members[] =
		"\"a\":1,\"b\":\"x,\\\"c\\\":2\", \"o\":{\"a\":3,\"z\":[1,{}]},"
		"\"l\":[1,\"]\"],\"n\":null";

	assert_member(members, "a", "1");
	assert_member(members, "b", "\"x,\\\"c\\\":2\"");
	assert_member(members, "o", "{\"a\":3,\"z\":[1,{}]}");
	assert_member(members, "l", "[1,\"]\"]");
	assert_member(members, "n", "null");
	assert_member(members, "c", NULL);
	assert_member(members, "z", NULL);
	assert_member("", "a", NULL);
}

static void text_comes_back_as_it_was_written(void **state)
{
	char all[256 + 16] = "";
	struct buf out, back;
	struct json j;

	for (int i = 1; i < 128; i++)
		all[i - 1] = (char)i;
	memcpy(all + 127, "\xc3\xa4\xf0\x9f\x99\x82", 7);
	buf_init(&out, 4096);
	buf_init(&back, 4096);
	jsonw_init(&j, &out);
	jsonw_str(&j, of(all));
	assert_true(json_text(&back, (struct str){(char *)out.data, out.len}));
	assert_int_equal(back.len, strlen(all));
	assert_memory_equal(back.data, all, back.len);
	assert_false(json_text(&back, of("null")));
	assert_false(json_text(&back, of("\"")));
	assert_false(json_text(&back, (struct str){0}));
	buf_deinit(&out);
	buf_deinit(&back);
}

static void only_whole_numbers_are_counts(void **state)
{
	int64_t n = 7;

	assert_true(json_count(of("0"), &n));
	assert_int_equal(n, 0);
	assert_true(json_count(of("999999999999999999"), &n));
	assert_int_equal(n, 999999999999999999);
	assert_false(json_count(of("null"), &n));
	assert_false(json_count(of("-1"), &n));
	assert_false(json_count(of("1.5"), &n));
	assert_false(json_count(of("1000000000000000000"), &n));
	assert_false(json_count((struct str){0}, &n));
}

static void a_number_may_have_decimals(void **state)
{
	double n = 7;

	assert_true(json_number(of("0.0123"), &n));
	assert_true(n > 0.01229 && n < 0.01231);
	assert_true(json_number(of("-1e-09"), &n));
	assert_true(n < 0 && n > -1.1e-9);
	assert_false(json_number(of("null"), &n));
	assert_false(json_number(of("inf"), &n));
	assert_false(json_number(of("1,2"), &n));
	assert_false(json_number(of("\"1\""), &n));
	assert_false(json_number(of("00000000000000000000000000000001"), &n));
	assert_false(json_number((struct str){0}, &n));
	assert_true(n < 0);
}

/* Whatever is cut off, nothing behind it is read: the sanitizer watches. */
static void any_beginning_is_survived(void **state)
{
	static const char members[] = "\"a\\\"\":{\"x\":[\"\\u001f\"]},\"b\":\"\\\\\\n\"";
	struct buf out;

	buf_init(&out, 4096);
	for (size_t len = 0; len < sizeof(members); len++) {
		char *copy = malloc(len ? len : 1);
		assert_non_null(copy);
		memcpy(copy, members, len);
		struct str cut = {copy, len};
		struct str v = json_member(cut, "b");
		buf_clear(&out);
		json_text(&out, v);
		json_text(&out, cut);
		free(copy);
	}
	buf_deinit(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_member_is_found_by_its_key),
		cmocka_unit_test(text_comes_back_as_it_was_written),
		cmocka_unit_test(only_whole_numbers_are_counts),
		cmocka_unit_test(a_number_may_have_decimals),
		cmocka_unit_test(any_beginning_is_survived),
	};

	return cmocka_run_group_tests_name("json_scan", tests, NULL, NULL);
}
