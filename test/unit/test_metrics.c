#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "core/metrics.h"
#include "core/request.h"

struct fixture {
	struct metrics metrics;
	struct buf text;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	metrics_init(&f->metrics);
	buf_init(&f->text, 64 * MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	metrics_deinit(&f->metrics);
	buf_deinit(&f->text);
	free(f);
	return 0;
}

/* The text as it is now, terminated. */
static const char *render(struct fixture *f)
{
	buf_clear(&f->text);
	metrics_write(&f->metrics, &f->text);
	buf_append_byte(&f->text, 0);
	assert_int_equal(buf_error(&f->text), 0);
	return (const char *)f->text.data;
}

static void assert_line(struct fixture *f, const char *line)
{
	const char *text = render(f);
	size_t len = strlen(line);

	for (const char *at = text; (at = strstr(at, line)); at += len)
		if ((at == text || at[-1] == '\n') && at[len] == '\n')
			return;
	fail_msg("no line: %s\nin:\n%.4000s", line, text);
}

static unsigned count_of(struct fixture *f, const char *what)
{
	unsigned count = 0;

	for (const char *at = render(f); (at = strstr(at, what)); at += strlen(what))
		count++;
	return count;
}

static void a_request_is_counted_with_its_duration(void **state)
{
	struct fixture *f = *state;

	metrics_request(&f->metrics, STR("openai"), STR("gpt-4o"), 1500 * NS_PER_MS);
	metrics_request(&f->metrics, STR("openai"), STR("gpt-4o"), 61 * NS_PER_S);
	assert_line(f, "# TYPE chat_requests_total counter");
	assert_line(f, "# TYPE chat_request_duration_seconds histogram");
	assert_line(f, "chat_requests_total{provider=\"openai\",model=\"gpt-4o\"} 2");
#define BUCKET(le, n)                                                                              \
	assert_line(f, "chat_request_duration_seconds_bucket{provider=\"openai\","                 \
	               "model=\"gpt-4o\",le=\"" le "\"} " n)
	BUCKET("0.5", "0");
	BUCKET("1", "0");
	BUCKET("2", "1");
	BUCKET("60", "1");
	BUCKET("+Inf", "2");
#undef BUCKET
	assert_line(f, "chat_request_duration_seconds_sum{provider=\"openai\",model=\"gpt-4o\"} "
	               "62.500000000");
	assert_line(f,
	            "chat_request_duration_seconds_count{provider=\"openai\",model=\"gpt-4o\"} 2");
}

static void a_bucket_includes_its_upper_bound(void **state)
{
	struct fixture *f = *state;

	metrics_request(&f->metrics, STR("p"), STR("m"), 500 * NS_PER_MS);
	metrics_request(&f->metrics, STR("p"), STR("m"), 500 * NS_PER_MS + 1);
	assert_line(f, "chat_request_duration_seconds_bucket{provider=\"p\",model=\"m\","
	               "le=\"0.5\"} 1");
	assert_line(f, "chat_request_duration_seconds_bucket{provider=\"p\",model=\"m\","
	               "le=\"1\"} 2");
}

static void two_models_are_two_series(void **state)
{
	struct fixture *f = *state;

	metrics_tokens(&f->metrics, STR("openai"), STR("a"), 10, 5, 15);
	metrics_tokens(&f->metrics, STR("openai"), STR("b"), 1, 2, 3);
	metrics_tokens(&f->metrics, STR("openai"), STR("a"), 10, 5, 15);
	assert_line(f, "llm_tokens_total{token_type=\"prompt_tokens\",provider=\"openai\","
	               "model=\"a\"} 20");
	assert_line(f, "llm_tokens_total{token_type=\"completion_tokens\",provider=\"openai\","
	               "model=\"b\"} 2");
	assert_line(f, "llm_tokens_total{token_type=\"total_tokens\",provider=\"openai\","
	               "model=\"a\"} 30");
	assert_int_equal(count_of(f, "llm_tokens_total{"), 6);
}

static void provider_and_model_are_told_apart_at_their_border(void **state)
{
	struct fixture *f = *state;

	metrics_request(&f->metrics, STR("ab"), STR("c"), 1);
	metrics_request(&f->metrics, STR("a"), STR("bc"), 1);
	assert_int_equal(count_of(f, "chat_requests_total{"), 2);
}

static void what_is_not_known_says_so(void **state)
{
	struct fixture *f = *state;

	metrics_request(&f->metrics, (struct str){0}, STR(""), 1);
	metrics_tool_call(&f->metrics, (struct str){0});
	assert_line(f, "chat_requests_total{provider=\"unknown\",model=\"unknown\"} 1");
	assert_line(f, "tool_calls_total{tool_name=\"unknown\"} 1");
}

static void label_values_are_escaped_and_repaired(void **state)
{
	struct fixture *f = *state;

	metrics_tool_call(&f->metrics, STR("a\"b\\c\nd"));
	metrics_tool_call(&f->metrics, STR("caf\xc3\xa9"));
	metrics_tool_call(&f->metrics, STR("bad\xff\xfe"));
	metrics_tool_call(&f->metrics, (struct str){"n\0l", 3});
	assert_line(f, "tool_calls_total{tool_name=\"a\\\"b\\\\c\\nd\"} 1");
	assert_line(f, "tool_calls_total{tool_name=\"caf\xc3\xa9\"} 1");
	assert_line(f, "tool_calls_total{tool_name=\"bad?\?\"} 1");
	assert_line(f, "tool_calls_total{tool_name=\"n?l\"} 1");
}

static void long_names_are_cut_at_a_character(void **state)
{
	struct fixture *f = *state;
	char name[CAP_LABEL + 100];

	memset(name, 'x', sizeof(name));
	memcpy(name + CAP_LABEL - 1, "\xc3\xa9", 2);
	metrics_tool_call(&f->metrics, (struct str){name, sizeof(name)});
	name[CAP_LABEL - 1] = 0;
	char line[CAP_LABEL + 200];
	snprintf(line, sizeof(line), "tool_calls_total{tool_name=\"%s\"} 1", name);
	assert_line(f, line);
}

static void series_past_the_cap_are_counted_together(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (unsigned i = 0; i < CAP_SERIES + 500; i++) {
		snprintf(name, sizeof(name), "tool-%u", i);
		metrics_tool_call(&f->metrics, str_of(name));
	}
	metrics_tool_call(&f->metrics, STR("tool-0")); // one that is known still counts
	assert_line(f, "tool_calls_total{tool_name=\"tool-0\"} 2");
	assert_line(f, "tool_calls_total{tool_name=\"tool-1999\"} 1");
	assert_line(f, "tool_calls_total{tool_name=\"__other__\"} 500");
	assert_int_equal(count_of(f, "tool_calls_total{"), CAP_SERIES + 1);
}

static void no_metric_has_more_label_sets_than_the_cap(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (unsigned i = 0; i < CAP_SERIES; i++) {
		snprintf(name, sizeof(name), "model-%u", i);
		metrics_tokens(&f->metrics, STR("p"), str_of(name), 1, 1, 2);
	}
	assert_true(count_of(f, "llm_tokens_total{") <= CAP_SERIES + 3);
	assert_line(f, "llm_tokens_total{token_type=\"prompt_tokens\",provider=\"__other__\","
	               "model=\"__other__\"} 1334");
}

static void a_name_like_the_overflow_makes_no_second_series(void **state)
{
	struct fixture *f = *state;
	char name[32];

	metrics_tool_call(&f->metrics, STR("__other__"));
	for (unsigned i = 0; i < CAP_SERIES + 1; i++) {
		snprintf(name, sizeof(name), "tool-%u", i);
		metrics_tool_call(&f->metrics, str_of(name));
	}
	assert_line(f, "tool_calls_total{tool_name=\"__other__\"} 2");
	assert_int_equal(count_of(f, "\"__other__\""), 1);
}

/* --- the GenAI conventions' --- */

static struct account chat(struct str model, uint64_t duration_ns)
{
	struct account a = {
		.kind = KIND_LLM,
		.provider = STR("openai"),
		.model = model,
		.response_model = STR("gpt-4o-2024"),
		.duration_ns = duration_ns,
	};

	usage_init(&a.usage);
	return a;
}

#define CHAT                                                                                       \
	"{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\","                         \
	"gen_ai_request_model=\"gpt-4o\",gen_ai_response_model=\"gpt-4o-2024\""

static void a_call_is_timed(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), 20 * NS_PER_MS);

	metrics_span(&f->metrics, &a);
	a.duration_ns++;
	metrics_span(&f->metrics, &a);
	assert_line(f, "# TYPE gen_ai_client_operation_duration_seconds histogram");
#define LINE(rest) assert_line(f, "gen_ai_client_operation_duration_seconds" rest)
	LINE("_bucket" CHAT ",le=\"0.01\"} 0");
	LINE("_bucket" CHAT ",le=\"0.02\"} 1");
	LINE("_bucket" CHAT ",le=\"0.04\"} 2");
	LINE("_bucket" CHAT ",le=\"81.92\"} 2");
	LINE("_bucket" CHAT ",le=\"+Inf\"} 2");
	LINE("_sum" CHAT "} 0.040000001");
	LINE("_count" CHAT "} 2");
#undef LINE
}

static void tokens_that_are_not_known_are_no_zero(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), 1);

	metrics_span(&f->metrics, &a);
	assert_int_equal(count_of(f, "gen_ai_client_token_usage_count{"), 0);
	a.usage.input = 0;
	metrics_span(&f->metrics, &a);
	a.usage.input = 1025;
	metrics_span(&f->metrics, &a);
	assert_line(f, "gen_ai_client_token_usage_bucket" CHAT
	               ",gen_ai_token_type=\"input\",le=\"1024\"} 1");
	assert_line(f, "gen_ai_client_token_usage_sum" CHAT ",gen_ai_token_type=\"input\"} 1025");
	assert_line(f, "gen_ai_client_token_usage_count" CHAT ",gen_ai_token_type=\"input\"} 2");
	assert_int_equal(count_of(f, "gen_ai_client_token_usage_count{"), 1);
}

static void an_estimate_is_not_the_providers_word(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), 1);

	a.usage.input = 5;
	a.usage.output = 7;
	a.usage.estimated = true;
	metrics_span(&f->metrics, &a);
	assert_int_equal(count_of(f, "gen_ai_client_token_usage_count{"), 0);
	assert_line(f, "gen_ai_client_operation_duration_seconds_count" CHAT "} 1");
}

static void a_call_that_wraps_another_is_none(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), 1);

	a.wraps = true;
	metrics_span(&f->metrics, &a);
	assert_int_equal(count_of(f, "gen_ai_client_operation_duration_seconds_count{"), 0);
}

static void calls_without_usage_are_counted_by_model(void **state)
{
	struct fixture *f = *state;

	metrics_calls_without_usage(&f->metrics, STR("p"), STR("m"), 2);
	metrics_calls_without_usage(&f->metrics, STR("p"), STR("m"), 1);
	metrics_calls_without_usage(&f->metrics, STR(""), STR(""), 1);
	assert_line(f, "sidelight_llm_calls_without_usage_total{provider=\"p\",model=\"m\"} 3");
	assert_line(f, "sidelight_llm_calls_without_usage_total{provider=\"unknown\","
	               "model=\"unknown\"} 1");
}

static void cost_is_shown_in_the_currency(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(count_of(f, "llm_cost_total{"), 0);
	metrics_cost(&f->metrics, STR("p"), STR("m"), 1500000001);
	metrics_cost(&f->metrics, STR("p"), STR("m"), 1);
	metrics_cost(&f->metrics, STR("p"), STR("free"), 0);
	assert_line(f, "llm_cost_total{provider=\"p\",model=\"m\"} 1.500000002");
	assert_line(f, "llm_cost_total{provider=\"p\",model=\"free\"} 0.000000000");
}

static void a_failed_call_says_how_and_keeps_its_tokens(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), NS_PER_S);

	a.error_type = STR("RateLimitError");
	a.usage.output = 7;
	metrics_span(&f->metrics, &a);
	assert_line(f, "gen_ai_client_operation_duration_seconds_count" CHAT
	               ",error_type=\"RateLimitError\"} 1");
	assert_int_equal(count_of(f, "gen_ai_client_operation_duration_seconds_count{"), 1);
	assert_line(f, "gen_ai_client_token_usage_sum" CHAT ",gen_ai_token_type=\"output\"} 7");
}

static void the_first_chunk_is_timed_where_it_is_known(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), NS_PER_S);

	metrics_span(&f->metrics, &a);
	a.has_first_chunk = true;
	a.first_chunk_ns = 250 * NS_PER_MS;
	metrics_span(&f->metrics, &a);
	assert_line(f,
	            "gen_ai_client_operation_time_to_first_chunk_seconds_sum" CHAT "} 0.250000000");
	assert_line(f, "gen_ai_client_operation_time_to_first_chunk_seconds_count" CHAT "} 1");
}

static void an_attribute_that_is_not_known_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct account a = {.kind = KIND_RETRIEVER, .duration_ns = 1};

	usage_init(&a.usage);
	metrics_span(&f->metrics, &a);
	assert_line(f, "gen_ai_client_operation_duration_seconds_count"
	               "{gen_ai_operation_name=\"retrieval\"} 1");
}

static void agents_and_tools_are_timed_by_name(void **state)
{
	struct fixture *f = *state;
	struct account agent = {.kind = KIND_AGENT, .what = STR("bot"), .duration_ns = NS_PER_S};
	struct account tool = {
		.kind = KIND_TOOL, .name = STR("search"), .error_type = STR("Timeout")};
	struct account chain = {.kind = KIND_CHAIN, .what = STR("x"), .duration_ns = 1};

	metrics_span(&f->metrics, &agent);
	metrics_span(&f->metrics, &tool);
	metrics_span(&f->metrics, &chain);
	assert_line(f, "gen_ai_invoke_agent_duration_seconds_bucket{gen_ai_agent_name=\"bot\","
	               "le=\"1.6\"} 1");
	assert_line(f, "gen_ai_execute_tool_duration_seconds_count{gen_ai_tool_name=\"search\","
	               "error_type=\"Timeout\"} 1");
	assert_int_equal(count_of(f, "_duration_seconds_count{"), 2);
}

static void calls_past_the_cap_make_one_series_a_metric(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (unsigned i = 0; i < CAP_SERIES; i++) {
		snprintf(name, sizeof(name), "model-%u", i);
		struct account a = chat(str_of(name), NS_PER_S);
		a.usage.input = 1;
		a.usage.output = 2;
		metrics_span(&f->metrics, &a);
		a.error_type = STR("Error");
		metrics_span(&f->metrics, &a);
	}
	assert_int_equal(count_of(f, "gen_ai_client_operation_duration_seconds_count{"),
	                 CAP_SERIES + 1);
	assert_int_equal(count_of(f, "gen_ai_client_token_usage_count{"), CAP_SERIES + 1);
	assert_line(f, "gen_ai_client_operation_duration_seconds_count"
	               "{otel_metric_overflow=\"true\"} 2000");
	assert_line(f, "gen_ai_client_token_usage_sum{otel_metric_overflow=\"true\"} 6000");
}

static void a_copy_holds_still(void **state)
{
	struct fixture *f = *state;
	struct account a = chat(STR("gpt-4o"), NS_PER_S);

	metrics_span(&f->metrics, &a);
	metrics_tool_call(&f->metrics, STR("t"));
	const char *now = render(f);
	char *before = strdup(now);
	assert_non_null(before);
	struct metrics *copy = metrics_copy(&f->metrics);
	assert_non_null(copy);
	metrics_span(&f->metrics, &a);
	metrics_tool_call(&f->metrics, STR("u"));
	buf_clear(&f->text);
	metrics_write(copy, &f->text);
	buf_append_byte(&f->text, 0);
	assert_string_equal((const char *)f->text.data, before);
	free(copy);
	free(before);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_request_is_counted_with_its_duration),
		TEST(a_bucket_includes_its_upper_bound),
		TEST(two_models_are_two_series),
		TEST(provider_and_model_are_told_apart_at_their_border),
		TEST(what_is_not_known_says_so),
		TEST(label_values_are_escaped_and_repaired),
		TEST(long_names_are_cut_at_a_character),
		TEST(series_past_the_cap_are_counted_together),
		TEST(no_metric_has_more_label_sets_than_the_cap),
		TEST(a_name_like_the_overflow_makes_no_second_series),
		TEST(cost_is_shown_in_the_currency),
		TEST(a_call_is_timed),
		TEST(tokens_that_are_not_known_are_no_zero),
		TEST(an_estimate_is_not_the_providers_word),
		TEST(a_call_that_wraps_another_is_none),
		TEST(calls_without_usage_are_counted_by_model),
		TEST(a_failed_call_says_how_and_keeps_its_tokens),
		TEST(the_first_chunk_is_timed_where_it_is_known),
		TEST(an_attribute_that_is_not_known_is_left_out),
		TEST(agents_and_tools_are_timed_by_name),
		TEST(calls_past_the_cap_make_one_series_a_metric),
		TEST(a_copy_holds_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
