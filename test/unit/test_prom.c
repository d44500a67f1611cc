#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/metrics.h"
#include "core/prom.h"

enum { TRACES = 1 << SIGNAL_TRACES, LOGS = 1 << SIGNAL_LOGS };

struct fixture {
	struct stats stats;
	struct buf text;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	buf_init(&f->text, MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	buf_deinit(&f->text);
	free(f);
	return 0;
}

static const char *render(struct fixture *f)
{
	buf_clear(&f->text);
	stats_write(&f->stats, &f->text);
	buf_append_byte(&f->text, 0);
	assert_int_equal(buf_error(&f->text), 0);
	return (const char *)f->text.data;
}

static void add_exporter(struct fixture *f, const char *name, unsigned signals)
{
	unsigned n = atomic_fetch_add(&f->stats.exporter_count, 1);

	snprintf(f->stats.exporters[n].name, sizeof(f->stats.exporters[n].name), "%s", name);
	f->stats.exporters[n].signals = signals;
	f->stats.exporters[n].active = true;
}

static void assert_has(struct fixture *f, const char *what)
{
	if (!strstr(render(f), what))
		fail_msg("not there: %s", what);
}

static void every_number_is_written_with_help_and_type(void **state)
{
	struct fixture *f = *state;

	stat_add(&f->stats.frames_received, 3);
	stat_set(&f->stats.runs_open, 2);
	assert_has(f, "# HELP sidelight_frames_received_total Frames received, the refused ones "
	              "among them\n# TYPE sidelight_frames_received_total counter\n"
	              "sidelight_frames_received_total 3\n");
	assert_has(f, "# TYPE sidelight_open_runs gauge\nsidelight_open_runs 2\n");
	assert_has(f, "sidelight_build_info{version=\"" SIDELIGHT_VERSION "\"} 1\n");
}

static void times_are_in_seconds(void **state)
{
	struct fixture *f = *state;

	stat_add(&f->stats.commit_ns, 12 * 1000000000ull + 345);
	assert_has(f, "# TYPE sidelight_commit_seconds_total counter\n"
	              "sidelight_commit_seconds_total 12.000000345\n");
}

static void refusals_are_counted_by_reason_from_zero_on(void **state)
{
	struct fixture *f = *state;

	stat_add(&f->stats.refused[REFUSED_TOO_LONG], 7);
	assert_has(f, "sidelight_frames_refused_total{reason=\"too_long\"} 7\n");
	assert_has(f, "sidelight_frames_refused_total{reason=\"bad_utf8\"} 0\n");
	assert_null(strstr(render(f), "reason=\"none\""));
}

static void every_exporter_has_its_ledger(void **state)
{
	struct fixture *f = *state;

	struct lane_stats *console = f->stats.exporters[0].lanes;
	struct lane_stats *tempo = f->stats.exporters[1].lanes;

	add_exporter(f, "console", TRACES);
	add_exporter(f, "my \"tempo\"", TRACES | LOGS);
	stat_add(&console[SIGNAL_TRACES].delivered, 5);
	stat_add(&tempo[SIGNAL_TRACES].rejected_by[REJECTED_HTTP_400], 1);
	stat_set(&tempo[SIGNAL_TRACES].pending, 9);
	stat_set(&tempo[SIGNAL_LOGS].pending, 8);
	stat_set(&tempo[SIGNAL_LOGS].failures, 7);
	assert_has(f, "sidelight_spans_delivered_total{exporter=\"console\"} 5\n"
	              "sidelight_spans_delivered_total{exporter=\"my \\\"tempo\\\"\"} 0\n");
	assert_has(f, "sidelight_spans_rejected_total{exporter=\"my \\\"tempo\\\"\","
	              "reason=\"http_400\"} 1\n");
	assert_has(f, "sidelight_export_pending_spans{exporter=\"my \\\"tempo\\\"\"} 9\n");
	assert_has(f, "sidelight_export_pending_log_records{exporter=\"my \\\"tempo\\\"\"} 8\n");
	assert_has(f, "sidelight_export_failures_total{exporter=\"my \\\"tempo\\\"\","
	              "signal=\"logs\"} 7\n");
}

static void a_ledger_is_shown_while_it_is_configured(void **state)
{
	struct fixture *f = *state;

	add_exporter(f, "a", LOGS);
	assert_null(strstr(render(f), "sidelight_spans_delivered_total{"));
	assert_has(f, "sidelight_log_records_delivered_total{exporter=\"a\"} 0\n");
	f->stats.exporters[0].active = false;
	assert_null(strstr(render(f), "exporter=\"a\""));
}

static void a_flag_says_true_and_a_name_has_no_dots(void **state)
{
	static const struct metric metric = {"gen_ai.thing", "s", METRIC_COUNTER, true, "Things"};
	const struct metric_label labels[] = {{"otel.metric.overflow", {0}}};
	struct fixture *f = *state;
	struct prom_writer w;

	prom_writer_init(&w, &f->text);
	w.writer.begin(&w.writer, &metric);
	w.writer.number(&w.writer, labels, 1, 1500000000);
	w.writer.end(&w.writer);
	buf_append_byte(&f->text, 0);
	assert_string_equal((const char *)f->text.data,
	                    "# HELP gen_ai_thing_seconds_total Things\n"
	                    "# TYPE gen_ai_thing_seconds_total counter\n"
	                    "gen_ai_thing_seconds_total{otel_metric_overflow=\"true\"} "
	                    "1.500000000\n");
}

static void no_metric_is_declared_twice(void **state)
{
	struct fixture *f = *state;
	const char *text = render(f);

	for (const char *at = text; (at = strstr(at, "# TYPE ")); at++) {
		const char *end = strchr(at, '\n');
		char line[200];
		snprintf(line, sizeof(line), "%.*s", (int)(end - at + 1), at);
		assert_null(strstr(end, line));
	}
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		fail_msg("no %s", path);
	char *text = calloc(1, 256 * KIB);
	assert_non_null(text);
	assert_true(fread(text, 1, 256 * KIB - 1, file) > 0);
	fclose(file);
	return text;
}

/* The documentation's rows come from the tables: on failure, the row to put there is shown. */
static unsigned assert_row(const char *doc, const char *name, const char *type, const char *labels,
                           const char *help)
{
	char row[512];

	snprintf(row, sizeof(row), "| `%s` | %s | %s | %s |\n", name, type, labels, help);
	if (!strstr(doc, row))
		fail_msg("docs/metrics.md lacks: %s", row);
	return 1;
}

static unsigned assert_genai_row(const char *doc, const char *name, const char *unit,
                                 const char *labels, const char *help)
{
	struct metric metric = {name, unit, METRIC_HISTOGRAM, false, help};
	char shown[PROM_NAME_MAX], dotless[256];

	prom_name(shown, &metric);
	snprintf(dotless, sizeof(dotless), "%s", labels);
	for (char *p = dotless; *p; p++)
		if (*p == '.')
			*p = '_';
	return assert_row(doc, shown, "histogram", dotless, help);
}

static void the_documentation_has_every_metric_and_no_other(void **state)
{
	char *doc = read_file(SOURCE_ROOT "/docs/metrics.md");
	unsigned known = 0, shown = 0;
	static const char counter[] = "counter", gauge[] = "gauge", histogram[] = "histogram";
	const char *const counter_ns = counter; // shown in seconds
	const char *const counter_nano = counter;

#define X(id, name, type, labels, help) known += assert_row(doc, name, type, labels, help);
	METRICS_TABLE(X)
#undef X
#define X(id, name, unit, labels, help) known += assert_genai_row(doc, name, unit, labels, help);
	GENAI_TABLE(X)
#undef X
#define X(field, name, type, help) known += assert_row(doc, name, type, "", help);
	STATS_TABLE(X)
#undef X
#define X(field, signal, name, type, help) known += assert_row(doc, name, type, "exporter", help);
	LEDGER_TABLE(X)
#undef X
#define X(signal, name, help) known += assert_row(doc, name, counter, "exporter, reason", help);
	REJECTED_TABLE(X)
#undef X
#define X(field, name, type, help) known += assert_row(doc, name, type, "exporter, signal", help);
	LANE_TABLE(X)
#undef X
	known += assert_row(doc, "sidelight_frames_refused_total", counter, "reason",
	                    "Frames refused");
	known += assert_row(doc, "sidelight_build_info", gauge, "version",
	                    "1; the version is in the label");
	for (const char *at = doc; (at = strstr(at, "\n| `")); at++)
		shown++;
	free(doc);
	assert_int_equal(shown, known);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_number_is_written_with_help_and_type),
		TEST(times_are_in_seconds),
		TEST(refusals_are_counted_by_reason_from_zero_on),
		TEST(every_exporter_has_its_ledger),
		TEST(a_ledger_is_shown_while_it_is_configured),
		TEST(a_flag_says_true_and_a_name_has_no_dots),
		TEST(no_metric_is_declared_twice),
		TEST(the_documentation_has_every_metric_and_no_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
