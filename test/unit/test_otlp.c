#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/caps.h"
#include "core/otlp.h"
#include "core/pb.h"

enum { MAX_SPANS = 64 };

static const struct otlp_limits no_limits = {CAP_EXPORT_SPANS, CAP_EXPORT_REQUEST, false};

static struct span_record span(struct str base, struct str content, struct str resource)
{
	return (struct span_record){.base = base, .content = content, .resource = resource};
}

static struct str str_in(const struct buf *b)
{
	return (struct str){(const char *)b->data, b->len};
}

/* The next field, which must be this one. */
static struct str expect(struct pb_cursor *c, uint32_t number)
{
	struct pb_field f;

	assert_int_equal(pb_next(c, &f), 1);
	assert_int_equal(f.number, number);
	assert_int_equal(f.wire, PB_BYTES);
	return f.bytes;
}

static void expect_end(struct pb_cursor *c)
{
	struct pb_field f;

	assert_int_equal(pb_next(c, &f), 0);
}

/* Opens the next ResourceSpans; what is left in the cursor it returns are the spans. */
static struct pb_cursor expect_group(struct pb_cursor *request, const char *resource)
{
	struct pb_cursor group = pb_cursor_of(expect(request, 1));

	if (*resource)
		assert_true(str_eq(expect(&group, 1), str_of(resource)));
	struct pb_cursor scope_spans = pb_cursor_of(expect(&group, 2));
	expect_end(&group);
	struct pb_cursor scope = pb_cursor_of(expect(&scope_spans, 1));
	assert_true(str_eq(expect(&scope, 1), STR("sidelight")));
	assert_true(str_eq(expect(&scope, 2), STR(SIDELIGHT_VERSION)));
	expect_end(&scope);
	return scope_spans;
}

static void expect_span(struct pb_cursor *spans, const char *bytes)
{
	struct str got = expect(spans, 2);

	assert_int_equal(got.len, strlen(bytes));
	assert_memory_equal(got.p, bytes, got.len);
}

static void spans_of_one_resource_share_its_message(void **state)
{
	const struct span_record spans[] = {
		span(STR("one"), STR("!"), STR("res")),
		span(STR("two"), STR("!"), STR("res")),
	};
	struct buf out;

	buf_init(&out, MIB);
	assert_int_equal(otlp_request(&out, spans, 2, &no_limits), 2);
	assert_int_equal(buf_error(&out), 0);
	struct pb_cursor request = pb_cursor_of(str_in(&out));
	struct pb_cursor group = expect_group(&request, "res");
	expect_span(&group, "one");
	expect_span(&group, "two");
	expect_end(&group);
	expect_end(&request);
	buf_deinit(&out);
}

static void a_change_of_resource_begins_a_new_message(void **state)
{
	const struct span_record spans[] = {
		span(STR("a"), STR(""), STR("res1")), span(STR("b"), STR(""), STR("res2")),
		span(STR("c"), STR(""), STR("res2")), span(STR("d"), STR(""), STR("res1")),
		span(STR("e"), STR(""), STR("")),
	};
	struct buf out;

	buf_init(&out, MIB);
	assert_int_equal(otlp_request(&out, spans, 5, &no_limits), 5);
	struct pb_cursor request = pb_cursor_of(str_in(&out));
	struct pb_cursor group = expect_group(&request, "res1");
	expect_span(&group, "a");
	expect_end(&group);
	group = expect_group(&request, "res2");
	expect_span(&group, "b");
	expect_span(&group, "c");
	expect_end(&group);
	group = expect_group(&request, "res1");
	expect_span(&group, "d");
	group = expect_group(&request, "");
	expect_span(&group, "e");
	expect_end(&request);
	buf_deinit(&out);
}

static void content_is_left_out_unless_asked_for(void **state)
{
	const struct span_record spans[] = {span(STR("base"), STR("+prompt"), STR("res"))};
	struct otlp_limits limits = no_limits;
	struct buf out;

	buf_init(&out, MIB);
	otlp_request(&out, spans, 1, &limits);
	struct pb_cursor request = pb_cursor_of(str_in(&out));
	struct pb_cursor group = expect_group(&request, "res");
	expect_span(&group, "base");
	limits.content = true;
	otlp_request(&out, spans, 1, &limits);
	request = pb_cursor_of(str_in(&out));
	group = expect_group(&request, "res");
	expect_span(&group, "base+prompt");
	buf_deinit(&out);
}

/* Spans of varied sizes, resources changing now and then. */
static void make_spans(struct span_record *spans, const char *filler)
{
	for (size_t i = 0; i < MAX_SPANS; i++)
		spans[i] = span((struct str){filler, 1 + i * 37 % 300}, STR(""),
		                i / 5 % 2 ? STR("odd") : STR("even"));
}

static void a_request_never_passes_its_limits(void **state)
{
	static char filler[300];
	struct span_record spans[MAX_SPANS];
	struct buf out;

	make_spans(spans, filler);
	buf_init(&out, MIB);
	for (size_t bytes = 400; bytes < 12000; bytes += 7) {
		struct otlp_limits limits = {10, bytes, false};
		size_t n = otlp_request(&out, spans, MAX_SPANS, &limits);
		assert_in_range(n, 1, 10);
		assert_in_range(out.len, 1, bytes);
		if (n == 10)
			continue;
		// One more would not have fitted.
		struct otlp_limits wide = {n + 1, SIZE_MAX, false};
		assert_int_equal(otlp_request(&out, spans, MAX_SPANS, &wide), n + 1);
		assert_true(out.len > bytes);
	}
	buf_deinit(&out);
}

static void one_span_goes_whatever_its_size(void **state)
{
	static char filler[300];
	const struct span_record spans[] = {
		span((struct str){filler, 300}, STR(""), STR("res")),
		span((struct str){filler, 300}, STR(""), STR("res")),
	};
	struct otlp_limits limits = {100, 1, false};
	struct buf out;

	buf_init(&out, MIB);
	assert_int_equal(otlp_request(&out, spans, 2, &limits), 1);
	assert_true(out.len > 300);
	buf_deinit(&out);
}

static void a_span_over_the_buffers_cap_is_an_error(void **state)
{
	static char filler[300];
	const struct span_record spans[] = {span((struct str){filler, 300}, STR(""), STR("res"))};
	struct buf out;

	buf_init(&out, 256);
	otlp_request(&out, spans, 1, &no_limits);
	assert_int_equal(buf_error(&out), -ENOSPC);
	buf_deinit(&out);
}

static void partial_success_says_how_many(void **state)
{
	struct otlp_answer answer;

	assert_int_equal(otlp_answer(&answer, STR("")), 0);
	assert_int_equal(answer.rejected, 0);
	assert_null(answer.message.p);
	assert_int_equal(otlp_answer(&answer, STR("\x0a\x07\x08\x05\x12\x03"
	                                          "bad")),
	                 0);
	assert_int_equal(answer.rejected, 5);
	assert_true(str_is(answer.message, "bad"));
	// Fields of a later version are skipped.
	assert_int_equal(otlp_answer(&answer, STR("\x10\x01\x0a\x04\x08\x02\x18\x01")), 0);
	assert_int_equal(answer.rejected, 2);
}

static void a_negative_count_rejects_nothing(void **state)
{
	struct otlp_answer answer;

	assert_int_equal(
		otlp_answer(&answer, STR("\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
		0);
	assert_int_equal(answer.rejected, 0);
}

static void what_is_no_answer_changes_nothing(void **state)
{
	static const struct str bad[] = {
		{"{\"partialSuccess\":{}}", 21}, {"<html>", 6}, {"\x0a", 1}, {"\x0a\x7f", 2},
		{"\x0a\x02\x08\xff", 4},         {"OK", 2},
	};
	struct otlp_answer answer = {.rejected = 77};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(otlp_answer(&answer, bad[i]), ERR_FORMAT);
		assert_int_equal(answer.rejected, 77);
	}
}

static void an_errors_message_is_found(void **state)
{
	assert_true(str_is(otlp_status_message(STR("\x08\x03\x12\x04none")), "none"));
	assert_null(otlp_status_message(STR("")).p);
	assert_null(otlp_status_message(STR("\x12\x7fno")).p);
	assert_null(otlp_status_message(STR("\x12\x01\xff")).p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_of_one_resource_share_its_message),
		cmocka_unit_test(a_change_of_resource_begins_a_new_message),
		cmocka_unit_test(content_is_left_out_unless_asked_for),
		cmocka_unit_test(a_request_never_passes_its_limits),
		cmocka_unit_test(one_span_goes_whatever_its_size),
		cmocka_unit_test(a_span_over_the_buffers_cap_is_an_error),
		cmocka_unit_test(partial_success_says_how_many),
		cmocka_unit_test(a_negative_count_rejects_nothing),
		cmocka_unit_test(what_is_no_answer_changes_nothing),
		cmocka_unit_test(an_errors_message_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
