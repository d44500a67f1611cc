#include "runs_fixture.h"

#include "core/value.h"

static void check_json(const char *hex, size_t max, const char *want, bool want_cut)
{
	uint8_t bytes[256];
	size_t len = strlen(hex) / 2, full;
	struct buf scratch;

	assert_true(hex_read(bytes, len, hex));
	struct bytes exact = copy_of((struct str){(char *)bytes, len});
	buf_init(&scratch, MIB);
	struct str text = value_text(str_of_bytes(exact), max, &scratch, &full);
	if (!text.p || !str_eq(text, str_of(want)) || (full > text.len) != want_cut)
		fail_msg("%s gave %.*s, full %zu", hex, (int)text.len, text.p ? text.p : "", full);
	buf_deinit(&scratch);
	free(exact.p);
}

static void test_any_value_becomes_text(void **state)
{
	(void)state;
	check_json("a3616263", 100, "abc", false);
	check_json("a0", 100, "", false);
	check_json("c0", 100, "null", false);
	check_json("c3", 100, "true", false);
	check_json("ff", 100, "-1", false);
	check_json("cfffffffffffffffff", 100, "18446744073709551615", false);
	check_json("d38000000000000000", 100, "-9223372036854775808", false);
	check_json("cb3ff8000000000000", 100, "1.5", false);
	check_json("cb7ff8000000000000", 100, "null", false); // NaN
	check_json("c403666f6f", 100, "\"Zm9v\"", false);     // bin as base64
	check_json("c402666f", 100, "\"Zm8=\"", false);
	check_json("c40166", 100, "\"Zg==\"", false);
	check_json("d40100", 100, "null", false); // ext
	check_json("9301a162c2", 100, "[1,\"b\",false]", false);
	check_json("82a161010290", 100, "{\"a\":1,\"2\":[]}", false); // a key that is no text
	check_json("81a1619181a16201", 100, "{\"a\":[{\"b\":1}]}", false);
	check_json("a461c3a962", 100,
	           "a\xc3\xa9"
	           "b",
	           false);
}

static void test_texts_share_the_limit(void **state)
{
	(void)state;
	check_json("a3616263", 3, "abc", false);
	check_json("a3616263", 2, "ab", true);
	check_json("a461c3a962", 2, "a", true); // not inside a character
	check_json("92a3616263a3646566", 6, "[\"abc\",\"def\"]", false);
	check_json("92a3616263a3646566", 5, "[\"abc\",\"de\"]", true);
	check_json("92a3616263a3646566", 3, "[\"abc\",\"\"]", true);
	check_json("92a2c3a9a162", 1, "[\"\",\"\"]", true);
	check_json("92c0c0", 0, "[null,null]", false);
}

static void test_a_value_cut_short_is_no_text(void **state)
{
	struct buf scratch;
	size_t full;

	(void)state;
	buf_init(&scratch, MIB);
	assert_null(value_text(STR("\xa3"
	                           "ab"),
	                       10, &scratch, &full)
	                    .p);
	buf_deinit(&scratch);
}

static void test_lookups_find_a_key_of_a_map(void **state)
{
	struct bytes map = packed("{'a':1,'b':'text','c':{'b':'inner'}}");
	struct str s = str_of_bytes(map);

	(void)state;
	assert_true(str_eq(value_lookup_text(s, "b"), STR("text")));
	assert_null(value_lookup_text(s, "a").p);
	assert_null(value_lookup(s, "missing").p);
	assert_true(str_eq(value_lookup_text(value_lookup(s, "c"), "b"), STR("inner")));
	assert_null(value_lookup((struct str){0}, "a").p);
	assert_null(value_lookup(STR("\xa1x"), "a").p);
	free(map.p);
}

static void check_attributes(const char *map, size_t max, const char *want, unsigned want_cut)
{
	struct bytes in = packed(map);
	struct buf out, text;
	struct json j;

	buf_init(&out, MIB);
	buf_init(&text, MIB);
	assert_int_equal(value_attributes(&out, 9, str_of_bytes(in), max), want_cut);
	jsonw_init(&j, &text);
	attributes_json_members(&j, (struct str){(char *)out.data, out.len}, 9);
	if (!str_eq((struct str){(char *)text.data, text.len}, str_of(want)))
		fail_msg("%s gave %.*s", map, (int)text.len, (char *)text.data);
	buf_deinit(&out);
	buf_deinit(&text);
	free(in.p);
}

static void test_maps_become_attributes(void **state)
{
	(void)state;
	check_attributes("{}", 9, "", 0);
	check_attributes("{'i':-5,'d':0.5,'b':true,'s':'x','n':null}", 9,
	                 "\"i\":-5,\"d\":0.5,\"b\":true,\"s\":\"x\",\"n\":null", 0);
	check_attributes("{'m':{'l':[1,[],{}],'k':'v'}}", 9, "\"m\":{\"l\":[1,[],{}],\"k\":\"v\"}",
	                 0);
	check_attributes("{'a':'12345','b':['12345','1']}", 4,
	                 "\"a\":\"1234\",\"b\":[\"1234\",\"1\"]", 2);
}

static void test_long_attributes_have_long_lengths(void **state)
{
	// The length of a nested message is filled in later, and may need more room than a byte.
	static const size_t lengths[] = {100, 119,   120,   121,   127,  128,
	                                 129, 16250, 16383, 16384, 40000};
	(void)state;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		char *text = malloc(lengths[i] + 1), *map = NULL, *want = NULL;
		assert_non_null(text);
		memset(text, 'x', lengths[i]);
		text[lengths[i]] = '\0';
		assert_true(asprintf(&map, "{'a':{'b':[{'c':'%s'}]}}", text) > 0);
		assert_true(asprintf(&want, "\"a\":{\"b\":[{\"c\":\"%s\"}]}", text) > 0);
		check_attributes(map, 100000, want, 0);
		free(text);
		free(map);
		free(want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_value_becomes_text),
		cmocka_unit_test(test_texts_share_the_limit),
		cmocka_unit_test(test_a_value_cut_short_is_no_text),
		cmocka_unit_test(test_lookups_find_a_key_of_a_map),
		cmocka_unit_test(test_maps_become_attributes),
		cmocka_unit_test(test_long_attributes_have_long_lengths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
