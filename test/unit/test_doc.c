#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "doc.h"

static json_t *load(const char *text)
{
	json_t *doc = json_loads(text, JSON_ALLOW_NUL, NULL);

	assert_non_null(doc);
	return doc;
}

static void a_span_is_read(void **state)
{
	json_t *doc = load(
		"{\"span_id\":\"0102030405060708\",\"parent_span_id\":null,\"name\":\"chat m\","
		"\"kind\":\"llm\",\"start_time\":\"1970-01-01T00:00:01.000000000Z\",\"end_time\":"
		"\"1970-01-01T00:00:01.400000001Z\",\"latency_ms\":400.000,\"status\":{\"code\":"
		"\"error\",\"message\":\"too many "
		"requests\"},\"attributes\":{\"error.type\":\"429\","
		"\"gen_ai.request.model\":\"gpt-4o\",\"gen_ai.usage.input_tokens\":12}}");
	struct waterfall_span s = doc_span(doc);

	assert_true(str_is(s.id, "0102030405060708"));
	assert_null(s.parent.p);
	assert_true(str_is(s.model, "gpt-4o"));
	assert_int_equal(s.status, STATUS_ERROR);
	assert_true(s.start_ns == NS_PER_S && s.end_ns == 1400000001);
	assert_true(str_is(s.error_type, "429"));
	assert_true(str_is(s.error_message, "too many requests"));
	assert_int_equal(s.tokens_in, 12);
	assert_int_equal(s.tokens_out, -1);
	json_decref(doc);
}

static void a_running_span_reaches_to_now(void **state)
{
	json_t *doc =
		load("{\"kind\":\"agent\",\"start_time\":\"1970-01-01T00:00:01Z\",\"end_time\":"
	             "null,\"latency_ms\":1500.25,\"status\":{\"code\":\"running\"},"
	             "\"attributes\":{\"gen_ai.usage.input_tokens\":12}}");
	struct waterfall_span s = doc_span(doc);

	assert_int_equal(s.status, STATUS_RUNNING);
	assert_true(s.end_ns == 2500250000);
	assert_int_equal(s.tokens_in, -1); // a sum, not its own
	json_decref(doc);
}

static void a_trace_is_read(void **state)
{
	json_t *doc =
		load("{\"trace_id\":\"4bf92f35\",\"name\":\"invoke_agent a\",\"kind\":\"agent\","
	             "\"status\":{\"code\":\"cancelled\"},\"latency_ms\":2,\"model\":\"m\","
	             "\"prompt_tokens\":5,\"completion_tokens\":null,\"slowest\":{\"name\":"
	             "\"execute_tool t\",\"kind\":\"tool\",\"latency_ms\":1.5}}");
	struct trace_row r = doc_trace_row(doc);

	assert_true(str_is(r.name, "a"));
	assert_int_equal(r.status, STATUS_CANCELLED);
	assert_true(r.duration_ns == 2 * NS_PER_MS);
	assert_int_equal(r.tokens_in, 5);
	assert_int_equal(r.tokens_out, -1);
	assert_true(str_is(r.slowest, "t"));
	assert_true(r.slowest_ns == 1500000);
	json_decref(doc);
}

static void what_is_missing_or_wrong_counts_as_not_there(void **state)
{
	json_t *doc =
		load("{\"name\":7,\"start_time\":\"yesterday\",\"latency_ms\":\"long\","
	             "\"status\":\"ok\",\"attributes\":[],\"prompt_tokens\":-3,\"slowest\":1}");
	struct waterfall_span s = doc_span(doc);
	struct trace_row r = doc_trace_row(doc);

	assert_null(s.name.p);
	assert_true(s.start_ns == 0 && s.end_ns == 0);
	assert_int_equal(r.tokens_in, -1);
	assert_null(r.slowest.p);
	json_decref(doc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_span_is_read),
		cmocka_unit_test(a_running_span_reaches_to_now),
		cmocka_unit_test(a_trace_is_read),
		cmocka_unit_test(what_is_missing_or_wrong_counts_as_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
