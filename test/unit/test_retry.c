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

static void only_the_specified_statuses_are_retried(void **state)
{
	for (long status = 100; status < 600; status++) {
		enum http_verdict expected = HTTP_REFUSED;
		if (status / 100 == 2)
			expected = HTTP_ACCEPTED;
		else if (status == 429 || (status >= 502 && status <= 504))
			expected = HTTP_RETRYABLE;
		else if (status == 413)
			expected = HTTP_TOO_LARGE;
		assert_int_equal(http_verdict(status), expected);
	}
}

static void every_refusal_has_a_reason_with_its_own_label(void **state)
{
	static const struct {
		long status;
		const char *label;
	} cases[] = {
		{400, "http_400"}, {401, "http_401"},   {403, "http_403"},   {404, "http_404"},
		{405, "http_405"}, {413, "http_413"},   {415, "http_415"},   {422, "http_422"},
		{500, "http_500"}, {302, "http_other"}, {418, "http_other"}, {501, "http_other"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(rejection_label(http_rejection(cases[i].status)),
		                    cases[i].label);
}

static void a_hint_is_never_null(void **state)
{
	for (long status = 0; status < 600; status++)
		assert_non_null(http_hint(status));
	assert_non_null(strstr(http_hint(401), "headers"));
	assert_non_null(strstr(http_hint(404), "base URL"));
	assert_non_null(strstr(http_hint(301), "redirects"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(delays_grow_to_a_bound_that_stays),
		cmocka_unit_test(jitter_spreads_from_the_least_delay_to_the_bound),
		cmocka_unit_test(a_success_starts_over),
		cmocka_unit_test(the_servers_word_is_obeyed_within_limits),
		cmocka_unit_test(only_the_specified_statuses_are_retried),
		cmocka_unit_test(every_refusal_has_a_reason_with_its_own_label),
		cmocka_unit_test(a_hint_is_never_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
