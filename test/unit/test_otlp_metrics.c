/* Metrics requests, read back as OTLP/JSON: what the names, units and types come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "core/encode.h"
#include "core/otlp_json.h"
#include "core/otlp_metrics.h"
#include "core/request.h"
#include "core/stats_report.h"

struct fixture {
	struct metrics metrics;
	struct stats stats;
	struct buf resource, request, text;
	json_t *json;
	size_t points;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	metrics_init(&f->metrics);
	buf_init(&f->resource, MIB);
	buf_init(&f->request, 16 * MIB);
	buf_init(&f->text, 64 * MIB);
	encode_resource(&f->resource, STR("chat-api"), (struct str){0}, STR("0"), NULL, 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	json_decref(f->json);
	metrics_deinit(&f->metrics);
	buf_deinit(&f->resource);
	buf_deinit(&f->request);
	buf_deinit(&f->text);
	free(f);
	return 0;
}

static struct str str_in(const struct buf *b)
{
	return (struct str){(const char *)b->data, b->len};
}

/* What the path names: keys and indexes. NULL: it is not there. */
static json_t *at(json_t *from, const char *path)
{
	char copy[128], *rest = copy;

	assert_true(snprintf(copy, sizeof(copy), "%s", path) < (int)sizeof(copy));
	for (char *key; from && (key = strsep(&rest, "/"));)
		from = json_is_array(from) ? json_array_get(from, (size_t)strtoul(key, NULL, 10))
		                           : json_object_get(from, key);
	return from;
}

static void assert_says(json_t *from, const char *path, const char *want)
{
	json_t *v = at(from, path);

	if (!v)
		fail_msg("no %s", path);
	assert_string_equal(json_string_value(v), want);
}

static void write_request(struct fixture *f)
{
	struct otlp_report report = {str_in(&f->resource), 1000, 2000, &f->metrics, &f->stats};
	json_error_t error;

	f->points = otlp_metrics_request(&f->request, &report);
	assert_int_equal(buf_error(&f->request), 0);
	assert_int_equal(otlp_json(&f->text, SIGNAL_METRICS, str_in(&f->request)), 0);
	json_decref(f->json);
	f->json = json_loadb((char *)f->text.data, f->text.len, JSON_REJECT_DUPLICATES, &error);
	if (!f->json)
		fail_msg("%s", error.text);
}

static json_t *all_metrics(struct fixture *f)
{
	return at(f->json, "resourceMetrics/0/scopeMetrics/0/metrics");
}

/* NULL: there is none. */
static json_t *metric_of(struct fixture *f, const char *name)
{
	json_t *m;
	size_t i;

	json_array_foreach(all_metrics(f), i, m)
	{
		if (strcmp(json_string_value(json_object_get(m, "name")), name) == 0)
			return m;
	}
	return NULL;
}

static void the_request_says_who_counts(void **state)
{
	struct fixture *f = *state;

	write_request(f);
	json_t *r = at(f->json, "resourceMetrics/0");
	assert_says(r, "resource/attributes/0/key", "service.name");
	assert_says(r, "resource/attributes/0/value/stringValue", "chat-api");
	assert_says(r, "scopeMetrics/0/scope/name", "sidelight");
	assert_says(r, "scopeMetrics/0/scope/version", SIDELIGHT_VERSION);
}

static void a_counter_is_a_cumulative_sum_without_its_suffix(void **state)
{
	struct fixture *f = *state;

	metrics_tool_call(&f->metrics, STR("search"));
	metrics_tool_call(&f->metrics, STR("search"));
	write_request(f);
	json_t *m = metric_of(f, "tool_calls");
	assert_says(m, "unit", "{call}");
	assert_says(m, "description", "Tool calls, failed ones too");
	assert_int_equal(json_integer_value(at(m, "sum/aggregationTemporality")), 2);
	assert_true(json_is_true(at(m, "sum/isMonotonic")));
	assert_says(m, "sum/dataPoints/0/asInt", "2");
	assert_says(m, "sum/dataPoints/0/startTimeUnixNano", "1000");
	assert_says(m, "sum/dataPoints/0/timeUnixNano", "2000");
	assert_says(m, "sum/dataPoints/0/attributes/0/key", "tool_name");
	assert_says(m, "sum/dataPoints/0/attributes/0/value/stringValue", "search");
}

static void a_gauge_has_no_beginning(void **state)
{
	struct fixture *f = *state;

	stat_set(&f->stats.store_bytes, 7);
	stat_add(&f->stats.commit_ns, 1500000000);
	write_request(f);
	json_t *m = metric_of(f, "sidelight_store");
	assert_says(m, "unit", "By");
	assert_says(m, "gauge/dataPoints/0/asInt", "7");
	assert_null(at(m, "gauge/dataPoints/0/startTimeUnixNano"));
	assert_null(at(m, "gauge/aggregationTemporality"));
	m = metric_of(f, "sidelight_commit");
	assert_says(m, "unit", "s");
	assert_true(json_number_value(at(m, "sum/dataPoints/0/asDouble")) == 1.5);
	assert_says(metric_of(f, "sidelight_open_runs"), "unit", "{run}");
	assert_null(at(metric_of(f, "sidelight_build_info"), "unit"));
}

static void a_histogram_keeps_its_buckets_apart(void **state)
{
	struct fixture *f = *state;

	metrics_request(&f->metrics, STR("openai"), STR("m"), 500 * NS_PER_MS);
	metrics_request(&f->metrics, STR("openai"), STR("m"), 61 * NS_PER_S);
	write_request(f);
	json_t *m = metric_of(f, "chat_request_duration");
	assert_says(m, "unit", "s");
	assert_int_equal(json_integer_value(at(m, "histogram/aggregationTemporality")), 2);
	json_t *point = at(m, "histogram/dataPoints/0");
	assert_says(point, "count", "2");
	assert_true(json_number_value(at(point, "sum")) == 61.5);
	assert_int_equal(json_array_size(at(point, "bucketCounts")), 8);
	assert_int_equal(json_array_size(at(point, "explicitBounds")), 7);
	assert_says(point, "bucketCounts/0", "1");
	assert_says(point, "bucketCounts/1", "0");
	assert_says(point, "bucketCounts/7", "1");
	assert_true(json_number_value(at(point, "explicitBounds/0")) == 0.5);
}

static void the_conventions_metrics_keep_their_names(void **state)
{
	struct fixture *f = *state;
	struct account a = {.kind = KIND_LLM, .model = STR("m"), .duration_ns = 20 * NS_PER_MS};

	usage_init(&a.usage);
	a.usage.input = 5;
	metrics_span(&f->metrics, &a);
	write_request(f);
	json_t *m = metric_of(f, "gen_ai.client.operation.duration");
	assert_says(m, "unit", "s");
	json_t *point = at(m, "histogram/dataPoints/0");
	assert_true(json_number_value(at(point, "explicitBounds/1")) == 0.02);
	assert_says(point, "bucketCounts/1", "1");
	assert_says(point, "attributes/0/key", "gen_ai.operation.name");
	assert_says(point, "attributes/0/value/stringValue", "chat");
	m = metric_of(f, "gen_ai.client.token.usage");
	assert_says(m, "unit", "{token}");
	assert_int_equal(json_array_size(at(m, "histogram/dataPoints")), 1);
	assert_says(m, "histogram/dataPoints/0/attributes/2/value/stringValue", "input");
	assert_true(json_number_value(at(m, "histogram/dataPoints/0/sum")) == 5);
}

static void what_has_no_series_is_not_there(void **state)
{
	struct fixture *f = *state;

	write_request(f);
	assert_null(metric_of(f, "gen_ai.client.token.usage"));
	assert_null(metric_of(f, "chat_requests"));
	assert_null(metric_of(f, "sidelight_spans_delivered"));
	assert_non_null(metric_of(f, "sidelight_frames_refused"));
	strncpy(f->stats.exporters[0].name, "tempo", sizeof(f->stats.exporters[0].name) - 1);
	f->stats.exporters[0].active = true;
	f->stats.exporters[0].signals = 1u << SIGNAL_TRACES;
	f->stats.exporter_count = 1;
	write_request(f);
	assert_says(metric_of(f, "sidelight_spans_delivered"),
	            "sum/dataPoints/0/attributes/0/value/stringValue", "tempo");
}

static void what_has_no_series_of_its_own_is_flagged(void **state)
{
	struct fixture *f = *state;
	char name[32];

	for (unsigned i = 0; i < CAP_SERIES + 1; i++) {
		snprintf(name, sizeof(name), "tool-%u", i);
		struct account a = {.kind = KIND_TOOL, .what = str_of(name)};
		metrics_span(&f->metrics, &a);
	}
	write_request(f);
	json_t *m = metric_of(f, "gen_ai.execute_tool.duration");
	assert_int_equal(json_array_size(at(m, "histogram/dataPoints")), CAP_SERIES + 1);
	json_t *last = json_array_get(at(m, "histogram/dataPoints"), CAP_SERIES);
	assert_int_equal(json_array_size(at(last, "attributes")), 1);
	assert_says(last, "attributes/0/key", "otel.metric.overflow");
	assert_true(json_is_true(at(last, "attributes/0/value/boolValue")));
}

static void every_point_is_counted(void **state)
{
	static const char *const kinds[] = {"sum", "gauge", "histogram"};
	struct fixture *f = *state;
	size_t i, points = 0;
	json_t *m;

	metrics_tokens(&f->metrics, STR("p"), STR("m"), 1, 2, 3);
	write_request(f);
	json_array_foreach(all_metrics(f), i, m)
	{
		for (int k = 0; k < 3; k++)
			points += json_array_size(
				json_object_get(json_object_get(m, kinds[k]), "dataPoints"));
	}
	assert_int_equal(points, f->points);
}

static void a_small_buffer_says_so(void **state)
{
	struct fixture *f = *state;
	struct otlp_report report = {str_in(&f->resource), 1, 2, &f->metrics, &f->stats};

	for (size_t cap = 0; cap < 4000; cap += 37) {
		struct buf small;
		buf_init(&small, cap);
		otlp_metrics_request(&small, &report);
		assert_int_not_equal(buf_error(&small), 0);
		buf_deinit(&small);
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_request_says_who_counts),
		TEST(a_counter_is_a_cumulative_sum_without_its_suffix),
		TEST(a_gauge_has_no_beginning),
		TEST(a_histogram_keeps_its_buckets_apart),
		TEST(the_conventions_metrics_keep_their_names),
		TEST(what_has_no_series_is_not_there),
		TEST(what_has_no_series_of_its_own_is_flagged),
		TEST(every_point_is_counted),
		TEST(a_small_buffer_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
