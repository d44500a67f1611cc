#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "core/otlp_fields.h"
#include "core/otlp_json.h"
#include "core/pb.h"

struct fixture {
	struct buf request, json;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	buf_init(&f->request, MIB);
	buf_init(&f->json, MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	buf_deinit(&f->request);
	buf_deinit(&f->json);
	free(f);
	return 0;
}

static struct str str_in(const struct buf *b)
{
	return (struct str){(const char *)b->data, b->len};
}

static const char *render(struct fixture *f, enum otlp_signal signal)
{
	assert_int_equal(buf_error(&f->request), 0);
	assert_int_equal(otlp_json(&f->json, signal, str_in(&f->request)), 0);
	buf_append_byte(&f->json, 0);
	return (const char *)f->json.data;
}

/* The submessages around spans, log records or metrics; closed by end_request(). */
struct opened {
	size_t resource, scope, item;
};

static struct opened begin_request(struct buf *b)
{
	struct opened o;

	buf_clear(b);
	o.resource = pb_begin(b, 1);
	o.scope = pb_begin(b, 2);
	o.item = pb_begin(b, 2);
	return o;
}

static void end_request(struct buf *b, const struct opened *o)
{
	pb_end(b, o->item);
	pb_end(b, o->scope);
	pb_end(b, o->resource);
}

static void a_span_says_all_that_it_knows(void **state)
{
	struct fixture *f = *state;
	struct buf *b = &f->request;
	struct opened o = begin_request(b);

	pb_bytes(b, SPAN_TRACE_ID,
	         "\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36", 16);
	pb_bytes(b, SPAN_SPAN_ID, "\x00\xf0\x67\xaa\x0b\xa9\x02\xb7", 8);
	pb_bytes(b, SPAN_PARENT_SPAN_ID, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
	pb_fixed64(b, SPAN_START, 1700000000000000001ull);
	pb_fixed32(b, SPAN_FLAGS, 0x101);
	pb_str(b, SPAN_NAME, STR("chat \"gpt\"\n"));
	pb_uint(b, SPAN_KIND, 3);
	pb_attr_str(b, SPAN_ATTRIBUTES, STR("a"), STR("caf\xc3\xa9"));
	size_t event = pb_begin(b, SPAN_EVENTS);
	pb_fixed64(b, EVENT_TIME, UINT64_MAX);
	pb_str(b, EVENT_NAME, STR("e"));
	pb_attr_bool(b, EVENT_ATTRIBUTES, STR("b"), false);
	pb_end(b, event);
	pb_fixed64(b, SPAN_END, 1700000000000000002ull);
	size_t status = pb_begin(b, SPAN_STATUS);
	pb_str(b, SPAN_STATUS_MESSAGE, STR("no"));
	pb_uint(b, SPAN_STATUS_CODE, 2);
	pb_end(b, status);
	pb_attr_int(b, SPAN_ATTRIBUTES, STR("late"), -5); // after the others, as content is
	end_request(b, &o);
	assert_string_equal(
		render(f, SIGNAL_TRACES),
		"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{"
		"\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\","
		"\"spanId\":\"00f067aa0ba902b7\",\"parentSpanId\":\"ffffffffffffffff\","
		"\"startTimeUnixNano\":\"1700000000000000001\",\"flags\":257,"
		"\"name\":\"chat \\\"gpt\\\"\\n\",\"kind\":3,"
		"\"attributes\":[{\"key\":\"a\",\"value\":{\"stringValue\":\"caf\xc3\xa9\"}},"
		"{\"key\":\"late\",\"value\":{\"intValue\":\"-5\"}}],"
		"\"events\":[{\"timeUnixNano\":\"18446744073709551615\",\"name\":\"e\","
		"\"attributes\":[{\"key\":\"b\",\"value\":{\"boolValue\":false}}]}],"
		"\"endTimeUnixNano\":\"1700000000000000002\","
		"\"status\":{\"message\":\"no\",\"code\":2}}]}]}]}");
}

static void what_has_its_default_value_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct buf *b = &f->request;
	struct opened o = begin_request(b);

	pb_str(b, SPAN_NAME, STR(""));
	pb_uint(b, SPAN_KIND, 0);
	pb_fixed64(b, SPAN_START, 0);
	pb_bytes(b, SPAN_PARENT_SPAN_ID, NULL, 0);
	pb_uint(b, 77, 1); // no such field
	pb_end(b, pb_begin(b, SPAN_STATUS));
	end_request(b, &o);
	assert_string_equal(render(f, SIGNAL_TRACES), "{\"resourceSpans\":[{\"scopeSpans\":[{"
	                                              "\"spans\":[{\"status\":{}}]}]}]}");
}

/* The value of a log record's body, as it is written. */
static const char *body_of(struct fixture *f, const struct buf *any)
{
	static const char before[] =
		"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"body\":";
	struct opened o = begin_request(&f->request);

	pb_str(&f->request, 5, str_in(any));
	end_request(&f->request, &o);
	const char *text = render(f, SIGNAL_LOGS);
	assert_memory_equal(text, before, sizeof(before) - 1);
	f->json.data[strlen(text) - strlen("}]}]}]}")] = 0;
	return text + sizeof(before) - 1;
}

static void values_of_every_type_are_written(void **state)
{
	struct fixture *f = *state;
	struct buf any;

	buf_init(&any, KIB);
	assert_string_equal(body_of(f, &any), "{}");
	pb_str(&any, ANY_STRING, STR(""));
	assert_string_equal(body_of(f, &any), "{\"stringValue\":\"\"}");
	buf_clear(&any);
	pb_str(&any, ANY_STRING, STR("bad \xff byte"));
	assert_string_equal(body_of(f, &any), "{\"stringValue\":\"bad \xef\xbf\xbd byte\"}");
	buf_clear(&any);
	pb_uint(&any, ANY_INT, (uint64_t)INT64_MIN);
	assert_string_equal(body_of(f, &any), "{\"intValue\":\"-9223372036854775808\"}");
	buf_clear(&any);
	pb_bytes(&any, ANY_BYTES, "\x00\xff\x10z", 4);
	assert_string_equal(body_of(f, &any), "{\"bytesValue\":\"AP8Qeg==\"}");
	buf_clear(&any);
	pb_end(&any, pb_begin(&any, ANY_ARRAY));
	assert_string_equal(body_of(f, &any), "{\"arrayValue\":{}}");
	buf_clear(&any);
	size_t list = pb_begin(&any, ANY_KVLIST);
	pb_attr_int(&any, LIST_VALUES, STR("k"), 0);
	pb_attr_str(&any, LIST_VALUES, STR("k2"), STR("v"));
	pb_end(&any, list);
	assert_string_equal(body_of(f, &any),
	                    "{\"kvlistValue\":{\"values\":[{\"key\":\"k\",\"value\":{\"intValue\":"
	                    "\"0\"}},{\"key\":\"k2\",\"value\":{\"stringValue\":\"v\"}}]}}");
	buf_deinit(&any);
}

static const char *double_text(struct fixture *f, double v)
{
	struct buf any;

	buf_init(&any, KIB);
	pb_double(&any, ANY_DOUBLE, v);
	const char *text = body_of(f, &any);
	buf_deinit(&any);
	static const char before[] = "{\"doubleValue\":";
	assert_memory_equal(text, before, sizeof(before) - 1);
	f->json.data[f->json.len - 1] = 0;
	char *end = strchr(text, '}');
	assert_non_null(end);
	*end = 0;
	return text + sizeof(before) - 1;
}

static void doubles_read_back_the_same(void **state)
{
	static const double numbers[] = {
		0.1,
		-0.25,
		1.0 / 3,
		1e300,
		DBL_MIN,
		DBL_MAX,
		5e-324,
		123.456,
		1e9,
		1e-9,
		1e-10,
		9007199254740991.0,
		0.30000000000000004,
		-7,
		1234567.8,
		99999.999999999,
		1e22,
	};
	struct fixture *f = *state;

	assert_string_equal(double_text(f, 0), "0");
	assert_string_equal(double_text(f, -0.0), "-0");
	assert_string_equal(double_text(f, 0.1), "0.1");
	assert_string_equal(double_text(f, 1500.05), "1500.05");
	assert_string_equal(double_text(f, -12), "-12");
	assert_string_equal(double_text(f, 0.000000001), "0.000000001");
	assert_string_equal(double_text(f, (double)NAN), "\"NaN\"");
	assert_string_equal(double_text(f, (double)INFINITY), "\"Infinity\"");
	assert_string_equal(double_text(f, -(double)INFINITY), "\"-Infinity\"");
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		assert_true(strtod(double_text(f, numbers[i]), NULL) == numbers[i]);
	for (unsigned i = 1; i < 20000; i++) {
		double v = (double)(i * 7919u) / (double)(1 + i % 997) * ((i & 1) ? 1e-3 : 1e3);
		assert_true(strtod(double_text(f, v), NULL) == v);
	}
}

static void a_histogram_may_be_packed_or_not(void **state)
{
	static const char want[] =
		"{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"m\","
		"\"histogram\":{\"dataPoints\":[{\"count\":\"3\",\"sum\":0,"
		"\"bucketCounts\":[\"0\",\"3\"],\"explicitBounds\":[0.5]}],"
		"\"aggregationTemporality\":2}}]}]}]}";
	const uint64_t counts[] = {0, 3};
	const double bound = 0.5;
	struct fixture *f = *state;
	struct buf *b = &f->request;

	for (int packed = 0; packed < 2; packed++) {
		struct opened o = begin_request(b);
		pb_str(b, 1, STR("m"));
		size_t histogram = pb_begin(b, 9);
		size_t point = pb_begin(b, 1);
		pb_fixed64(b, 4, 3);
		pb_double(b, 5, 0);
		if (packed) {
			pb_bytes(b, 6, counts, sizeof(counts));
			pb_bytes(b, 7, &bound, sizeof(bound));
		} else {
			pb_fixed64(b, 6, 0);
			pb_fixed64(b, 6, 3);
			pb_double(b, 7, bound);
		}
		pb_end(b, point);
		pb_uint(b, 2, 2);
		pb_end(b, histogram);
		end_request(b, &o);
		assert_string_equal(render(f, SIGNAL_METRICS), want);
	}
}

static void what_is_malformed_is_refused(void **state)
{
	struct fixture *f = *state;
	struct opened o = begin_request(&f->request);

	pb_uint(&f->request, SPAN_NAME, 3); // a number where text belongs
	end_request(&f->request, &o);
	assert_int_equal(otlp_json(&f->json, SIGNAL_TRACES, str_in(&f->request)), ERR_FORMAT);
	assert_int_equal(otlp_json(&f->json, SIGNAL_TRACES, STR("\x0a\x05")), ERR_FORMAT);
	assert_int_equal(otlp_json(&f->json, SIGNAL_LOGS, STR("")), 0);
	assert_memory_equal(f->json.data, "{}", 2);
}

static void nesting_is_bounded(void **state)
{
	enum { LEVELS = 5000 };
	struct fixture *f = *state;
	struct opened o = begin_request(&f->request);
	size_t begun[2 * LEVELS], depth = 0;
	size_t body = pb_begin(&f->request, 5);

	for (int i = 0; i < LEVELS; i++) {
		begun[depth++] = pb_begin(&f->request, ANY_ARRAY);
		begun[depth++] = pb_begin(&f->request, LIST_VALUES);
	}
	while (depth > 0)
		pb_end(&f->request, begun[--depth]);
	pb_end(&f->request, body);
	end_request(&f->request, &o);
	assert_int_equal(buf_error(&f->request), 0);
	assert_int_equal(otlp_json(&f->json, SIGNAL_LOGS, str_in(&f->request)), ERR_FORMAT);
}

static void a_small_buffer_says_so(void **state)
{
	struct fixture *f = *state;
	struct opened o = begin_request(&f->request);
	struct buf small;

	pb_str(&f->request, SPAN_NAME, STR("a name of more than a few bytes"));
	end_request(&f->request, &o);
	buf_init(&small, 64);
	assert_int_equal(otlp_json(&small, SIGNAL_TRACES, str_in(&f->request)), -ENOSPC);
	buf_deinit(&small);
}

/* Whatever the bytes, it comes to an end, and what it takes is JSON. */
static void damaged_requests_make_json_or_an_error(void **state)
{
	struct fixture *f = *state;
	struct buf *b = &f->request;
	uint32_t seed = 1;
	unsigned good = 0;

	a_span_says_all_that_it_knows(state);
	struct buf copy;
	buf_init(&copy, MIB);
	for (unsigned i = 0; i < 20000; i++) {
		buf_clear(&copy);
		buf_append(&copy, b->data, b->len);
		for (unsigned n = 1 + i % 3; n > 0; n--) {
			seed = seed * 1664525u + 1013904223u;
			copy.data[(seed >> 8) % copy.len] = (uint8_t)(seed >> 24);
		}
		if (otlp_json(&f->json, (enum otlp_signal)(i % SIGNAL_COUNT), str_in(&copy)) != 0)
			continue;
		json_error_t error;
		json_t *json = json_loadb((char *)f->json.data, f->json.len,
		                          JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
		if (!json)
			fail_msg("%s: %.*s", error.text, (int)f->json.len, (char *)f->json.data);
		json_decref(json);
		good++;
	}
	buf_deinit(&copy);
	assert_true(good > 1000);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_span_says_all_that_it_knows),
		TEST(what_has_its_default_value_is_left_out),
		TEST(values_of_every_type_are_written),
		TEST(doubles_read_back_the_same),
		TEST(a_histogram_may_be_packed_or_not),
		TEST(what_is_malformed_is_refused),
		TEST(nesting_is_bounded),
		TEST(a_small_buffer_says_so),
		TEST(damaged_requests_make_json_or_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
