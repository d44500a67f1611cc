#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/err.h"
#include "core/span.h"

#define START_NS 1700000000000000000ull

static const uint8_t trace_id[16] = {0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t span_id[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t parent_id[8] = {8, 7, 6, 5, 4, 3, 2, 1};

struct fixture {
	struct buf base, content, resource, text;
	struct span_record rec;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	buf_init(&f->base, MIB);
	buf_init(&f->content, MIB);
	buf_init(&f->resource, MIB);
	buf_init(&f->text, MIB);
	f->rec.head.kind = KIND_LLM;
	f->rec.head.status = STATUS_OK;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	buf_deinit(&f->base);
	buf_deinit(&f->content);
	buf_deinit(&f->resource);
	buf_deinit(&f->text);
	free(f);
	return 0;
}

static struct str str_in(const struct buf *b)
{
	return (struct str){(const char *)b->data, b->len};
}

/* The record over what has been written. */
static const struct span_record *record(struct fixture *f)
{
	f->rec.base = str_in(&f->base);
	f->rec.content = str_in(&f->content);
	f->rec.resource = str_in(&f->resource);
	return &f->rec;
}

/* The fields that every span has; end_ns 0: it runs. */
static void write_span(struct fixture *f, uint64_t end_ns)
{
	pb_bytes(&f->base, 1, trace_id, sizeof(trace_id));
	pb_bytes(&f->base, 2, span_id, sizeof(span_id));
	pb_str(&f->base, 5, STR("chat gpt-4o"));
	pb_uint(&f->base, 6, 3);
	pb_fixed64(&f->base, 7, START_NS);
	if (end_ns)
		pb_fixed64(&f->base, 8, end_ns);
}

static void write_status(struct fixture *f, struct str message, uint64_t code)
{
	size_t at = pb_begin(&f->base, 15);

	pb_str(&f->base, 2, message);
	pb_uint(&f->base, 3, code);
	pb_end(&f->base, at);
}

static const char *json_of(struct fixture *f, bool content, uint64_t now_ns)
{
	struct json j;

	buf_clear(&f->text);
	jsonw_init(&j, &f->text);
	span_json(&j, record(f), content, now_ns);
	buf_append_byte(&f->text, 0);
	assert_int_equal(buf_error(&f->text), 0);
	return (const char *)f->text.data;
}

static void assert_json_has(struct fixture *f, const char *what)
{
	if (!strstr(json_of(f, true, 0), what))
		fail_msg("no %s in %s", what, json_of(f, true, 0));
}

static const char *value_json(struct fixture *f, const struct buf *any)
{
	struct json j;

	buf_clear(&f->text);
	jsonw_init(&j, &f->text);
	any_value_json(&j, str_in(any));
	buf_append_byte(&f->text, 0);
	return (const char *)f->text.data;
}

static void a_span_is_read_back(void **state)
{
	struct fixture *f = *state;
	struct span_view v;

	write_span(f, START_NS + 5);
	pb_bytes(&f->base, 4, parent_id, sizeof(parent_id));
	write_status(f, STR("it broke"), 2);
	assert_int_equal(span_view(&v, record(f)), 0);
	assert_memory_equal(v.trace_id, trace_id, sizeof(trace_id));
	assert_memory_equal(v.span_id, span_id, sizeof(span_id));
	assert_true(v.has_parent);
	assert_memory_equal(v.parent_id, parent_id, sizeof(parent_id));
	assert_true(str_is(v.name, "chat gpt-4o"));
	assert_int_equal(v.otlp_kind, 3);
	assert_int_equal(v.start_ns, START_NS);
	assert_int_equal(v.end_ns, START_NS + 5);
	assert_int_equal(v.status_code, 2);
	assert_true(str_is(v.status_message, "it broke"));
}

static void a_parent_of_zeros_is_none(void **state)
{
	struct fixture *f = *state;
	struct span_view v;

	write_span(f, START_NS);
	pb_bytes(&f->base, 4, (uint8_t[8]){0}, 8);
	assert_int_equal(span_view(&v, record(f)), 0);
	assert_false(v.has_parent);
}

static void ids_of_the_wrong_length_are_refused(void **state)
{
	struct fixture *f = *state;
	struct span_view v = {.otlp_kind = 77};

	pb_bytes(&f->base, 1, trace_id, 15);
	pb_bytes(&f->base, 2, span_id, 8);
	assert_int_equal(span_view(&v, record(f)), ERR_FORMAT);
	assert_int_equal(v.otlp_kind, 77); // untouched
	buf_clear(&f->base);
	pb_bytes(&f->base, 1, trace_id, 16);
	assert_int_equal(span_view(&v, record(f)), ERR_FORMAT); // no span id
}

static void a_span_cut_anywhere_is_no_fault_of_ours(void **state)
{
	struct fixture *f = *state;
	struct span_view v;

	write_span(f, START_NS + 5);
	pb_attr_str(&f->base, 9, STR("key"), STR("value"));
	write_status(f, STR("message"), 2);
	size_t whole = f->base.len;
	for (size_t len = 0; len < whole; len++) {
		// A copy of just that length, so that a sanitizer sees the first byte past it.
		char *copy = malloc(len + 1);
		assert_non_null(copy);
		memcpy(copy, f->base.data, len);
		struct span_record rec = {.base = {copy, len}, .resource = {copy, len}};
		(void)span_view(&v, &rec);
		(void)span_attribute_str(&rec, "key");
		(void)resource_service_name(rec.resource);
		buf_clear(&f->text);
		struct json j;
		jsonw_init(&j, &f->text);
		span_json(&j, &rec, true, 0);
		assert_int_equal(f->text.data[0], '{');
		assert_int_equal(f->text.data[f->text.len - 1], '}');
		free(copy);
	}
}

static void a_whole_span_as_json(void **state)
{
	struct fixture *f = *state;

	write_span(f, START_NS + 400123456);
	pb_bytes(&f->base, 4, parent_id, sizeof(parent_id));
	pb_attr_str(&f->base, 9, STR("gen_ai.request.model"), STR("gpt-4o"));
	pb_attr_int(&f->base, 9, STR("tokens"), -3);
	pb_attr_double(&f->base, 9, STR("t"), 0.5);
	pb_attr_bool(&f->base, 9, STR("stream"), true);
	size_t event = pb_begin(&f->base, 11);
	pb_fixed64(&f->base, 1, START_NS + 1000000000);
	pb_str(&f->base, 2, STR("first_token"));
	pb_attr_int(&f->base, 3, STR("n"), 1);
	pb_end(&f->base, event);
	pb_attr_str(&f->content, 9, STR("gen_ai.input.messages"), STR("[]"));
	pb_attr_str(&f->resource, 1, STR("service.name"), STR("chat-api"));
	assert_string_equal(
		json_of(f, true, 0),
		"{\"trace_id\":\"ab0102030405060708090a0b0c0d0e0f\",\"span_id\":"
		"\"0102030405060708\",\"parent_span_id\":\"0807060504030201\","
		"\"name\":\"chat gpt-4o\",\"kind\":\"llm\","
		"\"start_time\":\"2023-11-14T22:13:20.000000000Z\","
		"\"end_time\":\"2023-11-14T22:13:20.400123456Z\",\"latency_ms\":400.123,"
		"\"status\":{\"code\":\"ok\",\"message\":\"\"},\"attributes\":{"
		"\"gen_ai.request.model\":\"gpt-4o\",\"tokens\":-3,\"t\":0.5,\"stream\":true,"
		"\"gen_ai.input.messages\":\"[]\"},\"events\":[{\"name\":\"first_token\","
		"\"time\":\"2023-11-14T22:13:21.000000000Z\",\"attributes\":{\"n\":1}}],"
		"\"service\":\"chat-api\"}");
}

static void content_is_left_out_unless_asked_for(void **state)
{
	struct fixture *f = *state;

	write_span(f, START_NS + 1);
	pb_attr_str(&f->content, 9, STR("secret"), STR("x"));
	assert_null(strstr(json_of(f, false, 0), "secret"));
	assert_non_null(strstr(json_of(f, true, 0), "\"attributes\":{\"secret\":\"x\"}"));
}

static void a_running_span_has_its_latency_so_far(void **state)
{
	struct fixture *f = *state;

	write_span(f, 0);
	f->rec.head.status = STATUS_RUNNING;
	const char *text = json_of(f, false, START_NS + 2500000);
	assert_non_null(strstr(text, "\"end_time\":null,\"latency_ms\":2.500,"));
	assert_non_null(strstr(text, "\"status\":{\"code\":\"running\",\"message\":\"\"}"));
	// A clock that went back makes no negative latency.
	assert_non_null(strstr(json_of(f, false, START_NS - 1), "\"latency_ms\":0.000,"));
}

static void of_two_equal_keys_the_first_stays(void **state)
{
	struct fixture *f = *state;

	write_span(f, START_NS + 1);
	pb_attr_str(&f->base, 9, STR("k"), STR("base"));
	pb_attr_str(&f->base, 9, STR("k"), STR("again"));
	pb_attr_str(&f->content, 9, STR("k"), STR("content"));
	pb_attr_str(&f->content, 9, STR("other"), STR(""));
	assert_json_has(f, "\"attributes\":{\"k\":\"base\",\"other\":\"\"}");
}

static void more_keys_than_are_remembered_are_all_shown(void **state)
{
	struct fixture *f = *state;
	char key[16];

	write_span(f, START_NS + 1);
	for (int i = 0; i < 2000; i++) {
		snprintf(key, sizeof(key), "key-%d", i);
		pb_attr_int(&f->base, 9, str_of(key), i);
	}
	pb_attr_int(&f->base, 9, STR("key-0"), 7777);
	assert_json_has(f, "\"key-0\":0,");
	assert_json_has(f, "\"key-1999\":1999}");
	assert_null(strstr(json_of(f, true, 0), ":7777"));
}

static void attributes_stop_when_told(void **state)
{
	struct fixture *f = *state;

	pb_attr_str(&f->base, 9, STR("a"), STR("1"));
	pb_attr_int(&f->base, 9, STR("n"), 2);
	pb_attr_str(&f->content, 9, STR("c"), STR(""));
	assert_true(str_is(span_attribute_str(record(f), "a"), "1"));
	assert_null(span_attribute_str(record(f), "n").p); // no string
	assert_null(span_attribute_str(record(f), "b").p);
	struct str empty = span_attribute_str(record(f), "c");
	assert_non_null(empty.p);
	assert_int_equal(empty.len, 0);
}

static void a_service_is_found_among_other_attributes(void **state)
{
	struct fixture *f = *state;

	pb_attr_str(&f->resource, 1, STR("service.version"), STR("1"));
	assert_null(resource_service_name(str_in(&f->resource)).p);
	pb_attr_str(&f->resource, 1, STR("service.name"), STR("chat"));
	pb_attr_str(&f->resource, 1, STR("host.name"), STR("h"));
	assert_true(str_is(resource_service_name(str_in(&f->resource)), "chat"));
}

static void nested_values_are_json(void **state)
{
	struct fixture *f = *state;
	struct buf *b = &f->base;

	assert_string_equal(value_json(f, b), "null"); // an empty AnyValue
	size_t list = pb_begin(b, 6);                  // kvlist
	pb_attr_int(b, 1, STR("n"), 1);
	size_t pair = pb_begin(b, 1);
	pb_str(b, 1, STR("list"));
	size_t value = pb_begin(b, 2);
	size_t array = pb_begin(b, 5);
	pb_bytes(b, 1, "\x10\x01", 2);         // true
	pb_bytes(b, 1, "\x3a\x02\xff\x00", 4); // bytes
	pb_bytes(b, 1, "", 0);
	pb_end(b, array);
	pb_end(b, value);
	pb_end(b, pair);
	pb_end(b, list);
	assert_string_equal(value_json(f, b), "{\"n\":1,\"list\":[true,\"/wA=\",null]}");
}

static void nesting_has_an_end(void **state)
{
	struct fixture *f = *state;
	size_t begun[200];

	for (int i = 0; i < 200; i += 2) {
		begun[i] = pb_begin(&f->base, 5);
		begun[i + 1] = pb_begin(&f->base, 1);
	}
	for (int i = 199; i >= 0; i--)
		pb_end(&f->base, begun[i]);
	const char *text = value_json(f, &f->base);
	assert_int_equal(strspn(text, "["), 32);
	assert_int_equal(strncmp(text + 32, "null]]", 6), 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_span_is_read_back),
		TEST(a_parent_of_zeros_is_none),
		TEST(ids_of_the_wrong_length_are_refused),
		TEST(a_span_cut_anywhere_is_no_fault_of_ours),
		TEST(a_whole_span_as_json),
		TEST(content_is_left_out_unless_asked_for),
		TEST(a_running_span_has_its_latency_so_far),
		TEST(of_two_equal_keys_the_first_stays),
		TEST(more_keys_than_are_remembered_are_all_shown),
		TEST(attributes_stop_when_told),
		TEST(a_service_is_found_among_other_attributes),
		TEST(nested_values_are_json),
		TEST(nesting_has_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
