#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "text.h"
#include "waterfall.h"

static const struct term drawn = {.width = 72, .utf8 = true};
static const struct term ascii = {.width = 72};
static const struct term coloured = {.width = 72, .utf8 = true, .colour = true};

static struct waterfall_span span(const char *id, const char *parent, const char *kind,
                                  const char *name, unsigned from_ms, unsigned to_ms)
{
	return (struct waterfall_span){
		.id = str_of(id),
		.parent = str_of(parent),
		.kind = str_of(kind),
		.name = str_of(name),
		.status = STATUS_OK,
		.start_ns = 1000 * NS_PER_S + from_ms * NS_PER_MS,
		.end_ns = 1000 * NS_PER_S + to_ms * NS_PER_MS,
		.tokens_in = -1,
		.tokens_out = -1,
	};
}

static char *render(const struct term *t, const struct waterfall_span *spans, size_t n)
{
	struct buf b;

	buf_init(&b, 1 << 24);
	assert_int_equal(waterfall(&b, t, spans, n), 0);
	buf_append_byte(&b, '\0');
	assert_int_equal(buf_error(&b), 0);
	return (char *)b.data;
}

static void assert_lines(const struct term *t, const struct waterfall_span *spans, size_t n,
                         const char *wanted)
{
	char *text = render(t, spans, n);

	assert_string_equal(text, wanted);
	free(text);
}

static size_t request(struct waterfall_span spans[5])
{
	spans[0] = span("a", NULL, "agent", "invoke_agent weather-agent", 0, 2000);
	spans[1] = span("b", "a", "llm", "chat gpt-4o-mini", 0, 400);
	spans[1].tokens_in = 212;
	spans[1].tokens_out = 41;
	spans[2] = span("c", "a", "chain", "tools", 400, 1600);
	spans[3] = span("d", "c", "tool", "execute_tool weather", 400, 1600);
	spans[4] = span("e", "c", "tool", "execute_tool days_until", 400, 401);
	spans[4].status = STATUS_ERROR;
	spans[4].error_type = STR("ValueError");
	spans[4].error_message = STR("no such date");
	return 5;
}

static void a_request_is_a_tree_with_bars_to_scale(void **state)
{
	struct waterfall_span spans[5];
	size_t n = request(spans);

	assert_lines(&drawn, spans, n,
	             "agent weather-agent     2.00 s  █████████████████████████████\n"
	             "├─ llm gpt-4o-mini      400 ms  █████▊                         212→41\n"
	             "└─ chain tools          1.20 s       ▐█████████████████▎\n"
	             "   ├─ tool weather      1.20 s       ▐█████████████████▎       ◀ slowest\n"
	             "   └─ tool days_until   1.0 ms       ▕                         error\n"
	             "         ValueError: no such date\n");
}

static void without_utf8_it_is_plain_ascii(void **state)
{
	struct waterfall_span spans[5];

	assert_lines(&ascii, spans, request(spans),
	             "agent weather-agent     2.00 s  #############################\n"
	             "|- llm gpt-4o-mini      400 ms  ######                         212->41\n"
	             "`- chain tools          1.20 s        #################\n"
	             "   |- tool weather      1.20 s        #################        < slowest\n"
	             "   `- tool days_until   1.0 ms       x                         error\n"
	             "         ValueError: no such date\n");
}

static void colour_marks_errors_and_the_slowest(void **state)
{
	struct waterfall_span spans[5];

	assert_lines(&coloured, spans, request(spans),
	             "\x1b[2magent\x1b[0m weather-agent     2.00 s  "
	             "\x1b[2m█████████████████████████████\x1b[0m\n"
	             "\x1b[2m├─ \x1b[0m\x1b[36mllm\x1b[0m gpt-4o-mini      400 ms  "
	             "\x1b[36m█████▊\x1b[0m                         \x1b[2m212→41\x1b[0m\n"
	             "\x1b[2m└─ \x1b[0m\x1b[2mchain\x1b[0m tools          1.20 s       "
	             "\x1b[2m▐█████████████████▎\x1b[0m\n"
	             "\x1b[2m   ├─ \x1b[0m\x1b[34mtool\x1b[0m \x1b[1;33mweather   \x1b[0m   1.20 s "
	             "      \x1b[1;33m▐█████████████████▎\x1b[0m       \x1b[1;33m◀ slowest\x1b[0m\n"
	             "\x1b[2m   └─ \x1b[0m\x1b[34mtool\x1b[0m \x1b[31mdays_until\x1b[0m   1.0 ms   "
	             "    \x1b[31m▕\x1b[0m                         \x1b[31merror\x1b[0m\n"
	             "\x1b[2m         \x1b[0m\x1b[31mValueError: no such date\x1b[0m\n");
}

static void what_runs_or_was_cancelled_is_said(void **state)
{
	struct waterfall_span spans[] = {
		span("a", NULL, "agent", "a", 0, 12000),
		span("b", "a", "llm", "chat m", 6000, 12000),
		span("c", "a", "tool", "execute_tool t", 0, 3000),
	};

	spans[0].status = spans[1].status = STATUS_RUNNING;
	spans[1].model = STR("gpt-4o");
	spans[2].status = STATUS_CANCELLED;
	assert_lines(&drawn, spans, 3,
	             "agent a                  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  running 12.0 s\n"
	             "├─ llm gpt-4o                           ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  running 6.00 s\n"
	             "└─ tool t        3.00 s  ░░░░░░░░                         cancelled\n");
}

static void any_list_of_spans_makes_a_tree(void **state)
{
	struct waterfall_span spans[] = {
		span("x", "gone", "tool", "orphan", 0, 10),
		span("a", "b", "other", "ring a", 0, 10),
		span("b", "a", "other", "ring b", 0, 10),
		span("s", "s", "other", "its own", 5, 5),
		span("x", NULL, "other", "twin", 20, 10),
	};

	assert_lines(&drawn, spans, 5,
	             "tool orphan       10 ms  ██████████████████                    ◀ slowest\n"
	             "ring b            10 ms  ██████████████████\n"
	             "└─ ring a         10 ms  ██████████████████\n"
	             "its own            0 µs           ▏\n"
	             "twin               0 µs                                     ▕\n");
}

static void notes_are_wrapped_beneath_their_span(void **state)
{
	struct waterfall_span spans[] = {
		span("a", NULL, "agent", "a", 0, 10),
		span("b", "a", "llm", "chat m", 0, 10),
		span("c", "a", "llm", "chat m", 0, 10),
	};

	spans[0].notes = STR("input: hello\n");
	spans[1].notes =
		STR("user: a question that is long enough to need a second line of its own "
	            "here\nassistant: \x1b[31myes\n");
	assert_lines(&drawn, spans, 3,
	             "agent a           10 ms  ████████████████████████████████████\n"
	             "│  input: hello\n"
	             "├─ llm m          10 ms  ████████████████████████████████████  ◀ slowest\n"
	             "│     user: a question that is long enough to need a second line of its\n"
	             "│     own here\n"
	             "│     assistant: \xef\xbf\xbd[31myes\n"
	             "└─ llm m          10 ms  ████████████████████████████████████\n");
}

static void deep_trees_are_clipped_and_fit_the_width(void **state)
{
	enum { DEPTH = 20000 };
	struct waterfall_span *spans = calloc(DEPTH, sizeof(*spans));
	char(*ids)[8] = calloc(DEPTH, sizeof(*ids));

	assert_non_null(spans);
	assert_non_null(ids);
	for (int i = 0; i < DEPTH; i++) {
		snprintf(ids[i], sizeof(ids[i]), "%d", i);
		spans[i] =
			span(ids[i], i ? ids[i - 1] : NULL, "chain", "a name of some length", 0, 9);
		spans[i].error_message =
			STR("words words words words words words words words words");
	}
	char *text = render(&drawn, spans, DEPTH);
	size_t lines = 0;
	for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1, lines++)
		assert_true(text_columns(&drawn, (struct str){at, (size_t)(end - at)}) <= 72);
	assert_int_equal(lines, 2 * DEPTH);
	free(text);
	free(ids);
	free(spans);
}

static void lines_fit_every_width(void **state)
{
	struct waterfall_span spans[5];
	size_t n = request(spans);

	spans[3].name = STR("execute_tool 天気予報天気予報天気予報天気予報天気予報天気予報");
	spans[1].status = STATUS_ERROR;
	for (unsigned width = TERM_WIDTH_MIN; width < 200; width++) {
		struct term t = {.width = width, .utf8 = width % 2};
		char *text = render(&t, spans, n);
		for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1)
			assert_true(text_columns(&t, (struct str){at, (size_t)(end - at)}) <=
			            width);
		free(text);
	}
}

static void no_spans_are_no_lines(void **state)
{
	struct buf b;

	buf_init(&b, 100);
	assert_int_equal(waterfall(&b, &drawn, NULL, 0), 0);
	assert_int_equal(b.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_a_tree_with_bars_to_scale),
		cmocka_unit_test(without_utf8_it_is_plain_ascii),
		cmocka_unit_test(colour_marks_errors_and_the_slowest),
		cmocka_unit_test(what_runs_or_was_cancelled_is_said),
		cmocka_unit_test(any_list_of_spans_makes_a_tree),
		cmocka_unit_test(notes_are_wrapped_beneath_their_span),
		cmocka_unit_test(deep_trees_are_clipped_and_fit_the_width),
		cmocka_unit_test(lines_fit_every_width),
		cmocka_unit_test(no_spans_are_no_lines),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
