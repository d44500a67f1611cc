#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>

#include "base/clock.h"
#include "text.h"

static const struct term drawn = {.width = 80, .utf8 = true};
static const struct term ascii = {.width = 80};

static void assert_put(const struct term *t, const char *text, size_t max, const char *wanted)
{
	struct buf b;

	buf_init(&b, 4096);
	size_t columns = text_put(&b, t, str_of(text), max);
	buf_append_byte(&b, '\0');
	assert_string_equal((const char *)b.data, wanted);
	assert_true(columns <= max);
	assert_int_equal(columns, text_columns(t, str_of(wanted)));
	buf_deinit(&b);
}

static void text_from_data_can_not_steer_the_terminal(void **state)
{
	assert_put(&drawn, "a\x1b[31mb\x07\x7f", 40, "a\xef\xbf\xbd[31mb\xef\xbf\xbd\xef\xbf\xbd");
	assert_put(&drawn, "c1 \xc2\x9b rtl \xe2\x80\xae", 40, "c1 \xef\xbf\xbd rtl \xef\xbf\xbd");
	assert_put(&drawn, "two\nlines\tand\r", 40, "two lines and ");
	assert_put(&drawn, "broken \xff\xc3", 40, "broken \xef\xbf\xbd\xef\xbf\xbd");
	assert_put(&ascii, "a\x1b[0m \xc3\xa9", 40, "a?[0m ?");
}

static void text_is_cut_at_a_column_with_a_mark(void **state)
{
	assert_put(&drawn, "weather", 7, "weather");
	assert_put(&drawn, "weather", 6, "weath…");
	assert_put(&ascii, "weather", 6, "weat..");
	assert_put(&drawn, "天気予報", 8, "天気予報");
	assert_put(&drawn, "天気予報", 7, "天気予…");
	assert_put(&drawn, "天気予報", 6, "天気…");
	assert_put(&drawn, "weather", 0, "");
	assert_put(&ascii, "weather", 1, "");
}

static void lines_break_behind_spaces_and_at_line_feeds(void **state)
{
	assert_int_equal(text_line(&drawn, STR("one two three"), 8), 8);
	assert_int_equal(text_line(&drawn, STR("one two three"), 7), 4);
	assert_int_equal(text_line(&drawn, STR("one\ntwo"), 40), 4);
	assert_int_equal(text_line(&drawn, STR("onetwothree"), 4), 4);
	assert_int_equal(text_line(&drawn, STR("天気"), 1), 3); // one character at least
	assert_int_equal(text_line(&drawn, STR("short"), 40), 5);
}

static void assert_duration(uint64_t ns, const char *wanted)
{
	char text[DURATION_SIZE];

	text_duration(text, &ascii, ns);
	assert_string_equal(text, wanted);
}

static void durations_keep_three_digits_and_round_into_the_next_unit(void **state)
{
	assert_duration(0, "0 us");
	assert_duration(1, "0 us");
	assert_duration(999499, "999 us");
	assert_duration(999500, "1.0 ms");
	assert_duration(9949999, "9.9 ms");
	assert_duration(9950000, "10 ms");
	assert_duration(999499999, "999 ms");
	assert_duration(999500000, "1.00 s");
	assert_duration(9994999999, "9.99 s");
	assert_duration(9995000000, "10.0 s");
	assert_duration(59949999999, "59.9 s");
	assert_duration(59950000000, "1m 00s");
	assert_duration(3599 * NS_PER_S, "59m 59s");
	assert_duration(7500 * NS_PER_S, "2h 05m");
	assert_duration(277200 * NS_PER_S, "3d 05h");
	assert_duration(UINT64_MAX, "213503d 23h");
}

static void assert_tokens(int64_t in, int64_t out, const char *wanted)
{
	char text[TOKENS_SIZE];

	text_tokens(text, &drawn, in, out);
	assert_string_equal(text, wanted);
}

static void tokens_are_shortened_from_ten_thousand_on(void **state)
{
	assert_tokens(-1, -1, "");
	assert_tokens(9999, 0, "9999→0");
	assert_tokens(10000, -1, "10.0k→?");
	assert_tokens(999949, 999950, "999.9k→1.0M");
	assert_tokens(INT64_MAX, INT64_MAX, "9223372036.9G→9223372036.9G");
}

static void assert_cost(double amount, struct str currency, bool has_more, const char *wanted)
{
	char text[COST_SIZE];

	text_cost(text, amount, currency, has_more);
	assert_string_equal(text, wanted);
}

static void costs_have_four_decimals_below_one(void **state)
{
	assert_cost(-1, STR("USD"), true, "");
	assert_cost(0, STR("USD"), false, "$0.0000");
	assert_cost(0.0123, STR("USD"), false, "$0.0123");
	assert_cost(0.00001, STR("USD"), true, "<$0.0001+");
	assert_cost(12.345, STR("USD"), true, "$12.35+");
	assert_cost(0.5, STR("EUR"), true, "0.5000+ EUR");
	assert_cost(1e9, (struct str){0}, false, "1000000000.00");
	assert_cost(2, STR("a currency that is none of those there are"), false, "2.00");
}

static void times_are_read_to_the_nanosecond(void **state)
{
	uint64_t ns = 0;

	assert_true(text_time(STR("2026-11-24T01:02:03.123456789Z"), &ns));
	assert_true(ns == 1795482123123456789ull);
	assert_true(text_time(STR("1970-01-01T00:00:01.5Z"), &ns));
	assert_true(ns == 1500000000);
	assert_true(text_time(STR("1970-01-01T00:00:01Z"), &ns));
	assert_true(ns == NS_PER_S);
	assert_false(text_time(STR("1970-01-01T00:00:01"), &ns));
	assert_false(text_time(STR("1970-01-01"), &ns));
	assert_false(text_time((struct str){NULL, 0}, &ns));
}

static void names_lose_the_verb_of_their_own_kind_only(void **state)
{
	assert_true(str_is(text_bare_name(STR("tool"), STR("execute_tool weather")), "weather"));
	assert_true(str_is(text_bare_name(STR("tool"), STR("tool.weather")), "weather"));
	assert_true(str_is(text_bare_name(STR("agent"), STR("invoke_agent a")), "a"));
	assert_true(str_is(text_bare_name(STR("chain"), STR("chat room")), "chat room"));
	assert_true(str_is(text_bare_name(STR("tool"), STR("execute_tool ")), "execute_tool "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_from_data_can_not_steer_the_terminal),
		cmocka_unit_test(text_is_cut_at_a_column_with_a_mark),
		cmocka_unit_test(lines_break_behind_spaces_and_at_line_feeds),
		cmocka_unit_test(durations_keep_three_digits_and_round_into_the_next_unit),
		cmocka_unit_test(tokens_are_shortened_from_ten_thousand_on),
		cmocka_unit_test(costs_have_four_decimals_below_one),
		cmocka_unit_test(times_are_read_to_the_nanosecond),
		cmocka_unit_test(names_lose_the_verb_of_their_own_kind_only),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
