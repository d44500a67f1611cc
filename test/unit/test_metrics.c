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

struct fixture {
	struct metrics metrics;
	struct buf text;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	metrics_init(&f->metrics);
	buf_init(&f->text, 8 * MIB);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
