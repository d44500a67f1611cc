/* What answers over HTTP come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "export/answer.h"
#include "export/answer_json.h"

static struct answer answer_of(int status, const char *type, struct str body)
{
	struct answer a = {.status = status, .whole = true, .body = body};

	if (type)
		a.headers[HEADER_CONTENT_TYPE] = str_of(type);
	return a;
}

static struct verdict judge(int status, const char *type, const char *body)
{
	struct answer a = answer_of(status, type, str_of(body));

	return answer_judge(&a, SIGNAL_TRACES, true, 0);
}

static void only_the_specified_statuses_are_retried(void **state)
{
	for (int status = 200; status < 600; status++) {
		enum verdict_kind expected = VERDICT_REFUSED;
		if (status / 100 == 2)
			expected = VERDICT_ACCEPTED;
		else if (status == 429 || (status >= 502 && status <= 504))
			expected = VERDICT_RETRYABLE;
		else if (status == 413)
			expected = VERDICT_TOO_LARGE;
		assert_int_equal(judge(status, NULL, "").kind, expected);
	}
	assert_int_equal(judge(0, NULL, "").kind, VERDICT_NONE);
	assert_int_equal(judge(100, NULL, "").kind, VERDICT_NONE);
}

static void every_refusal_has_a_reason_with_its_own_label(void **state)
{
	static const struct {
		int status;
		const char *label;
	} cases[] = {
		{400, "http_400"}, {401, "http_401"},   {403, "http_403"},   {404, "http_404"},
		{405, "http_405"}, {413, "http_413"},   {415, "http_415"},   {422, "http_422"},
		{500, "http_500"}, {302, "http_other"}, {418, "http_other"}, {501, "http_other"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct verdict v = judge(cases[i].status, NULL, "");
		assert_string_equal(rejection_label(v.reason), cases[i].label);
	}
}

static void a_hint_is_never_null(void **state)
{
	for (int status = 0; status < 600; status++)
		for (unsigned s = 0; s < SIGNAL_COUNT; s++)
			assert_non_null(http_hint(status, (enum otlp_signal)s));
	assert_non_null(strstr(http_hint(401, SIGNAL_TRACES), "headers"));
	assert_non_null(strstr(http_hint(404, SIGNAL_TRACES), "base URL"));
	assert_non_null(strstr(http_hint(404, SIGNAL_LOGS), "leave logs out"));
	assert_non_null(strstr(http_hint(301, SIGNAL_TRACES), "redirects"));
}

static void a_partial_success_is_read_in_either_encoding(void **state)
{
	struct verdict v = judge(200, "application/x-protobuf", "\x0a\x06\x08\x03\x12\x02no");

	assert_int_equal(v.kind, VERDICT_ACCEPTED);
	assert_int_equal(v.rejected, 3);
	assert_string_equal(v.words, "no");
	v = judge(200, "application/json; charset=utf-8",
	          "{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"no\"}}");
	assert_int_equal(v.kind, VERDICT_ACCEPTED);
	assert_int_equal(v.rejected, 3);
	assert_string_equal(v.words, "no");
	v = judge(200, "application/json", "{\"partialSuccess\":{\"rejectedDataPoints\":-7}}");
	assert_int_equal(v.rejected, 0);
}

static void a_page_is_no_receiver_and_other_odd_answers_are(void **state)
{
	struct verdict v = judge(200, "text/html; charset=utf-8", "<html>");

	assert_int_equal(v.kind, VERDICT_REFUSED);
	assert_string_equal(rejection_label(v.reason), "not_otlp");
	assert_int_equal(judge(200, "text/plain", "OK").kind, VERDICT_ACCEPTED);
	assert_int_equal(judge(204, NULL, "").kind, VERDICT_ACCEPTED);
	assert_int_equal(judge(200, "application/json", "[1").kind, VERDICT_ACCEPTED);
}

static void a_success_that_breaks_off_is_one_if_all_was_sent(void **state)
{
	struct answer a = answer_of(200, NULL, STR("\x0a"));

	a.whole = false;
	assert_int_equal(answer_judge(&a, SIGNAL_TRACES, true, 0).kind, VERDICT_ACCEPTED);
	assert_int_equal(answer_judge(&a, SIGNAL_TRACES, false, 0).kind, VERDICT_NONE);
}

static void a_backend_is_quoted_without_its_control_characters(void **state)
{
	char longest[1000];

	assert_string_equal(judge(400, "text/plain", "a\x1b[31m\nb").words, "a [31m b");
	assert_string_equal(judge(400, "text/plain", "\xff\xfe").words, "");
	assert_string_equal(judge(400, "text/html", "<p>").words, "");
	assert_string_equal(judge(400, "application/json", "{\"message\":\"why\"}").words, "why");
	assert_string_equal(judge(400, "application/x-protobuf", "\x12\x03why").words, "why");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(strlen(judge(400, "text/plain", longest).words), ANSWER_WORDS);
}

static void a_delay_is_taken_from_the_answer(void **state)
{
	struct answer a = answer_of(503, NULL, STR(""));

	a.headers[HEADER_RETRY_AFTER] = STR("7");
	assert_int_equal(answer_judge(&a, SIGNAL_TRACES, true, 0).retry_after_ns, 7 * NS_PER_S);
}

static void what_is_no_json_object_or_too_long_is_not_read(void **state)
{
	static char longest[JSON_ANSWER_MAX + 2];
	struct json_answer said;

	memset(longest, ' ', sizeof(longest) - 1);
	longest[0] = '{';
	longest[sizeof(longest) - 2] = '}';
	assert_int_equal(json_answer_read(&said, str_of(longest)), ERR_FORMAT);
	assert_int_equal(json_answer_read(&said, STR("[]")), ERR_FORMAT);
	assert_int_equal(json_answer_read(&said, STR("")), ERR_FORMAT);
	assert_int_equal(json_answer_read(&said, STR("{}")), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_specified_statuses_are_retried),
		cmocka_unit_test(every_refusal_has_a_reason_with_its_own_label),
		cmocka_unit_test(a_hint_is_never_null),
		cmocka_unit_test(a_partial_success_is_read_in_either_encoding),
		cmocka_unit_test(a_page_is_no_receiver_and_other_odd_answers_are),
		cmocka_unit_test(a_success_that_breaks_off_is_one_if_all_was_sent),
		cmocka_unit_test(a_backend_is_quoted_without_its_control_characters),
		cmocka_unit_test(a_delay_is_taken_from_the_answer),
		cmocka_unit_test(what_is_no_json_object_or_too_long_is_not_read),
	};

	return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
