#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "export/retry.h"

static void delays_grow_to_a_bound_that_stays(void **state)
{
	struct retry r = {0};
	uint64_t bound = RETRY_FIRST_NS;

	for (int i = 0; i < 100; i++) {
		uint64_t longest = retry_failed(&r, 0, UINT32_MAX);
		assert_in_range(longest, bound - NS_PER_MS, bound);
		bound = bound * 2 > RETRY_MAX_NS ? RETRY_MAX_NS : bound * 2;
	}
	assert_int_equal(bound, RETRY_MAX_NS);
	assert_int_equal(r.failures, 100);
}

static void jitter_spreads_from_the_least_delay_to_the_bound(void **state)
{
	struct retry r = {.failures = 3};

	assert_int_equal(retry_failed(&r, 0, 0), RETRY_LEAST_NS);
	r.failures = 3;
	uint64_t half = retry_failed(&r, 0, UINT32_MAX / 2 + 1);
	assert_int_equal(half, RETRY_LEAST_NS + (8 * RETRY_FIRST_NS - RETRY_LEAST_NS) / 2);
}

static void a_success_starts_over(void **state)
{
	struct retry r = {.failures = 50};

	retry_succeeded(&r);
	assert_in_range(retry_failed(&r, 0, UINT32_MAX), RETRY_LEAST_NS, RETRY_FIRST_NS);
}

static void the_servers_word_is_obeyed_within_limits(void **state)
{
	struct retry r = {0};

	assert_int_equal(retry_failed(&r, 7 * NS_PER_S, 0), 7 * NS_PER_S);
	assert_in_range(retry_failed(&r, 10 * NS_PER_S, UINT32_MAX), 10 * NS_PER_S, 11 * NS_PER_S);
	// A year.
	assert_int_equal(retry_failed(&r, 31536000 * NS_PER_S, 0), RETRY_AFTER_MAX_NS);
}

static void a_retry_after_is_seconds_or_a_date_within_limits(void **state)
{
	enum { NOW = 784111777 - 60 }; // a minute before the dates
	static const struct {
		const char *text;
		uint64_t seconds;
	} cases[] = {
		{"0", 0},
		{"7", 7},
		{"300", 300},
		{"301", 300},
		{"1000000000", 300},
		{"99999999999999999999999999", 300},
		{"-1", 0},
		{"1e30", 0},
		{"soon", 0},
		{"", 0},
		{"Sun, 06 Nov 1994 08:49:37 GMT", 60},
		{"Sunday, 06-Nov-94 08:49:37 GMT", 60},
		{"Sun Nov  6 08:49:37 1994", 60},
		{"Sun, 06 Nov 1994 08:40:00 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 300},
		{"Sun, 06 Nov 1894 08:49:37 GMT", 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(retry_after_ns(str_of(cases[i].text), NOW * NS_PER_S),
		                 cases[i].seconds * NS_PER_S);
	assert_int_equal(retry_after_ns((struct str){0}, NOW), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(delays_grow_to_a_bound_that_stays),
		cmocka_unit_test(jitter_spreads_from_the_least_delay_to_the_bound),
		cmocka_unit_test(a_success_starts_over),
		cmocka_unit_test(the_servers_word_is_obeyed_within_limits),
		cmocka_unit_test(a_retry_after_is_seconds_or_a_date_within_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
