#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/caps.h"
#include "core/account.h"
#include "core/otlp_fields.h"
#include "core/pb.h"

/* A part of a span, and what is read from it. */
struct fixture {
	struct buf span;
	struct account a;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	buf_init(&f->span, MIB);
	usage_init(&f->a.usage);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	buf_deinit(&f->span);
	free(f);
	return 0;
}

static struct str part(const struct fixture *f)
{
	return (struct str){(const char *)f->span.data, f->span.len};
}

static void text(struct fixture *f, const char *key, const char *value)
{
	pb_attr_str(&f->span, SPAN_ATTRIBUTES, str_of(key), str_of(value));
}

static void count(struct fixture *f, const char *key, int64_t value)
{
	pb_attr_int(&f->span, SPAN_ATTRIBUTES, str_of(key), value);
}

static void test_both_conventions_say_the_same(void **state)
{
	struct fixture *f = *state;
	struct account seams = {0};

	text(f, "gen_ai.provider.name", "openai");
	text(f, "gen_ai.request.model", "gpt-4o");
	count(f, "gen_ai.usage.input_tokens", 7);
	count(f, "gen_ai.usage.output_tokens", 5);
	account_scan(&f->a, part(f));
	buf_clear(&f->span);
	text(f, "llm.provider", "openai");
	text(f, "llm.model", "gpt-4o");
	count(f, "llm.prompt_tokens", 7);
	count(f, "llm.completion_tokens", 5);
	usage_init(&seams.usage);
	account_scan(&seams, part(f));
	assert_true(str_is(seams.provider, "openai"));
	assert_true(str_is(seams.model, "gpt-4o"));
	assert_int_equal(seams.usage.input, f->a.usage.input);
	assert_int_equal(seams.usage.output, f->a.usage.output);
	assert_int_equal(seams.usage.total, -1); // nobody said it
	account_total(&seams);
	assert_int_equal(seams.usage.total, 12);
}

static void test_a_total_that_was_told_stays(void **state)
{
	struct fixture *f = *state;

	count(f, "gen_ai.usage.input_tokens", 7);
	count(f, "sidelight.usage.total_tokens", 20);
	account_scan(&f->a, part(f));
	account_total(&f->a);
	assert_int_equal(f->a.usage.total, 20);
	assert_int_equal(f->a.usage.output, -1);
}

static void test_nothing_told_stays_unknown(void **state)
{
	struct fixture *f = *state;

	text(f, "gen_ai.request.model", "gpt-4o");
	account_scan(&f->a, part(f));
	account_total(&f->a);
	assert_int_equal(f->a.usage.input, -1);
	assert_int_equal(f->a.usage.total, -1);
}

static void test_a_tool_has_its_name_input_output_and_error(void **state)
{
	struct fixture *f = *state;

	pb_str(&f->span, SPAN_NAME, STR("execute_tool weather"));
	text(f, "gen_ai.tool.name", "weather");
	text(f, "gen_ai.tool.call.arguments", "{}");
	text(f, "error.type", "ValueError");
	size_t status = pb_begin(&f->span, SPAN_STATUS);
	pb_str(&f->span, SPAN_STATUS_MESSAGE, STR("no such city"));
	pb_end(&f->span, status);
	account_scan(&f->a, part(f));
	assert_true(str_is(f->a.name, "execute_tool weather"));
	assert_true(str_is(f->a.what, "weather"));
	assert_true(str_is(f->a.input, "{}"));
	assert_null(f->a.output.p);
	assert_true(str_is(f->a.error_type, "ValueError"));
	assert_true(str_is(f->a.error_message, "no such city"));
}

static void test_the_first_chunks_time_is_a_sane_one(void **state)
{
	struct fixture *f = *state;
	static const double bad[] = {-1.0, 1e9};

	for (size_t i = 0; i < 2; i++) {
		buf_clear(&f->span);
		pb_attr_double(&f->span, SPAN_ATTRIBUTES,
		               STR("gen_ai.response.time_to_first_chunk"), bad[i]);
		account_scan(&f->a, part(f));
		assert_false(f->a.has_first_chunk);
	}
	pb_attr_double(&f->span, SPAN_ATTRIBUTES, STR("gen_ai.response.time_to_first_chunk"), 0.25);
	account_scan(&f->a, part(f));
	assert_true(f->a.has_first_chunk);
	assert_int_equal(f->a.first_chunk_ns, 250000000);
}

static void test_an_attribute_of_another_type_says_nothing(void **state)
{
	struct fixture *f = *state;

	text(f, "gen_ai.usage.input_tokens", "7");
	count(f, "gen_ai.request.model", 4);
	count(f, "sidelight.usage.estimated", 1);
	account_scan(&f->a, part(f));
	assert_int_equal(f->a.usage.input, -1);
	assert_null(f->a.model.p);
	assert_false(f->a.usage.estimated);
}

static void test_bytes_that_end_early_are_read_so_far(void **state)
{
	struct fixture *f = *state;

	text(f, "gen_ai.request.model", "gpt-4o");
	text(f, "gen_ai.provider.name", "openai");
	for (size_t len = 0; len <= f->span.len; len++) {
		struct account a = {0};
		account_scan(&a, (struct str){(const char *)f->span.data, len});
		assert_int_equal(a.provider.len, len == f->span.len ? 6 : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_both_conventions_say_the_same, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_a_total_that_was_told_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_told_stays_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_tool_has_its_name_input_output_and_error,
	                                        setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_first_chunks_time_is_a_sane_one, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_an_attribute_of_another_type_says_nothing,
	                                        setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes_that_end_early_are_read_so_far, setup,
	                                        teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
