/* What gRPC's answers come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "export/grpc.h"

static struct answer answer_of(const char *status, struct str body)
{
	struct answer a = {.status = 200, .whole = true, .body = body};

	a.headers[HEADER_CONTENT_TYPE] = STR("application/grpc");
	if (status)
		a.headers[HEADER_GRPC_STATUS] = str_of(status);
	return a;
}

static struct verdict judge(const char *status, struct str body)
{
	struct answer a = answer_of(status, body);

	return grpc_judge(&a, SIGNAL_TRACES);
}

static void a_head_says_length_and_compression(void **state)
{
	uint8_t head[GRPC_HEAD_SIZE];

	grpc_head(head, 0x01020304, true);
	assert_memory_equal(head, "\x01\x01\x02\x03\x04", 5);
}

static void statuses_are_retried_as_otlp_says(void **state)
{
	static const bool retryable[17] = {
		[1] = true, [4] = true, [10] = true, [11] = true, [14] = true, [15] = true};
	char text[4];

	for (int i = 1; i <= 16; i++) {
		snprintf(text, sizeof(text), "%d", i);
		assert_int_equal(judge(text, STR("")).kind,
		                 retryable[i] ? VERDICT_RETRYABLE : VERDICT_REFUSED);
	}
	assert_int_equal(judge("17", STR("")).kind, VERDICT_REFUSED);
	assert_int_equal(judge("x", STR("")).kind, VERDICT_REFUSED);
}

static void success_needs_a_whole_message(void **state)
{
	assert_int_equal(judge("0", STR("\0\0\0\0\0")).kind, VERDICT_ACCEPTED);
	struct verdict v = judge("0", STR("\0\0\0\0\x04\x0a\x02\x08\x05"));
	assert_int_equal(v.kind, VERDICT_ACCEPTED);
	assert_int_equal(v.rejected, 5);
	assert_int_equal(judge("0", STR("")).kind, VERDICT_REFUSED);
	assert_int_equal(judge("0", STR("\0\0\0\0\1")).kind, VERDICT_REFUSED);
	assert_int_equal(judge("0", STR("\1\0\0\0\0")).kind, VERDICT_REFUSED);
	assert_int_equal(judge("0", STR("\0\0\0\0\1\xff")).kind, VERDICT_REFUSED);
}

static void a_missing_status_is_unsure(void **state)
{
	struct answer a = answer_of(NULL, STR(""));

	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_UNSURE);
	a.headers[HEADER_CONTENT_TYPE] = STR("text/html");
	struct verdict v = grpc_judge(&a, SIGNAL_TRACES);
	assert_int_equal(v.kind, VERDICT_REFUSED);
	assert_string_equal(rejection_label(v.reason), "not_otlp");
	a.status = 503;
	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_RETRYABLE);
	a.status = 404;
	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_REFUSED);
	a.status = 413;
	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_TOO_LARGE);
	a.status = 0;
	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_NONE);
}

static void exhaustion_is_retried_only_with_a_delay(void **state)
{
	// Status{details: [Any{type_url: "x.com/google.rpc.RetryInfo", value: RetryInfo{seconds:
	// 7}}]}
	static const char details[] = "GiIKGnguY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgQKAggH";
	struct answer a = answer_of("8", STR(""));

	struct verdict v = grpc_judge(&a, SIGNAL_TRACES);
	assert_int_equal(v.kind, VERDICT_REFUSED);
	assert_string_equal(rejection_label(v.reason), "grpc_resource_exhausted");
	a.headers[HEADER_GRPC_DETAILS] = str_of(details);
	v = grpc_judge(&a, SIGNAL_TRACES);
	assert_int_equal(v.kind, VERDICT_RETRYABLE);
	assert_int_equal(v.retry_after_ns, 7 * NS_PER_S);
}

static void a_message_that_is_too_large_is_told_by_its_words(void **state)
{
	struct answer a = answer_of("8", STR(""));

	a.headers[HEADER_GRPC_MESSAGE] =
		STR("Received message larger than max (5000000 vs. 4194304)");
	assert_int_equal(grpc_judge(&a, SIGNAL_TRACES).kind, VERDICT_TOO_LARGE);
}

static void messages_are_percent_decoded_and_clean(void **state)
{
	struct answer a = answer_of("3", STR(""));

	a.headers[HEADER_GRPC_MESSAGE] = STR("50%25 of %C3%A4%0A%zz");
	assert_string_equal(grpc_judge(&a, SIGNAL_TRACES).words, "50% of \xc3\xa4 %zz");
}

static void resets_follow_grpcs_table(void **state)
{
	assert_int_equal(grpc_judge_reset(7).kind, VERDICT_RETRYABLE);
	assert_int_equal(grpc_judge_reset(8).kind, VERDICT_RETRYABLE);
	assert_int_equal(grpc_judge_reset(12).kind, VERDICT_REFUSED);
	assert_int_equal(grpc_judge_reset(2).kind, VERDICT_UNSURE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_says_length_and_compression),
		cmocka_unit_test(statuses_are_retried_as_otlp_says),
		cmocka_unit_test(success_needs_a_whole_message),
		cmocka_unit_test(a_missing_status_is_unsure),
		cmocka_unit_test(exhaustion_is_retried_only_with_a_delay),
		cmocka_unit_test(a_message_that_is_too_large_is_told_by_its_words),
		cmocka_unit_test(messages_are_percent_decoded_and_clean),
		cmocka_unit_test(resets_follow_grpcs_table),
	};

	return cmocka_run_group_tests_name("grpc", tests, NULL, NULL);
}
