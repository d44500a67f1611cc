#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "table.h"
#include "text.h"

/* 2026-11-24T12:00:00Z, in the zone that main() sets. */
#define NOON_NS (1795521600 * NS_PER_S)

static struct trace_row row(const char *id, const char *name, enum run_status status,
                            uint64_t age_s)
{
	return (struct trace_row){
		.id = str_of(id),
		.name = str_of(name),
		.model = STR("gpt-4o-mini"),
		.status = status,
		.start_ns = NOON_NS - age_s * NS_PER_S,
		.duration_ns = 2410 * NS_PER_MS,
		.tokens_in = 510,
		.tokens_out = 118,
		.slowest = STR("weather"),
		.slowest_ns = 1480 * NS_PER_MS,
	};
}

static char *render(unsigned width, const struct trace_row *rows, size_t n)
{
	const struct term t = {.width = width, .utf8 = true};
	struct buf b;

	buf_init(&b, 1 << 20);
	assert_int_equal(table(&b, &t, rows, n, NOON_NS), 0);
	buf_append_byte(&b, '\0');
	return (char *)b.data;
}

static void assert_table(unsigned width, const struct trace_row *rows, size_t n, const char *wanted)
{
	char *text = render(width, rows, n);

	assert_string_equal(text, wanted);
	free(text);
}

static void rows_stand_in_columns(void **state)
{
	struct trace_row rows[] = {
		row("4bf92f3577b34da6a3ce929d0e0e4736", "weather-agent", STATUS_RUNNING, 5),
		row("00f067aa0ba902b7a3ce929d0e0e4736", "weather-agent", STATUS_ERROR, 86400),
	};

	rows[0].tokens_in = rows[0].tokens_out = -1;
	rows[0].slowest = (struct str){NULL, 0};
	assert_table(120, rows, 2,
	             "               TIME  TRACE     NAME           MODEL        STATUS     TOOK   "
	             "TOKENS  SLOWEST\n"
	             "           11:59:55  4bf92f35  weather-agent  gpt-4o-mini  running  2.41 s\n"
	             "2026-11-23 12:00:00  00f067aa  weather-agent  gpt-4o-mini  error    2.41 s  "
	             "510→118  weather  1.48 s\n");
}

static void a_narrow_terminal_loses_names_then_columns(void **state)
{
	struct trace_row rows[] = {
		row("4bf92f3577b34da6a3ce929d0e0e4736", "an agent with quite a long name",
	            STATUS_OK, 5),
	};

	assert_table(
		84, rows, 1,
		"    TIME  TRACE     NAME        MODEL       STATUS    TOOK   TOKENS  SLOWEST\n"
		"11:59:55  4bf92f35  an agent …  gpt-4o-mi…  ok      2.41 s  510→118  weather  "
		"1.48 s\n");
	assert_table(
		76, rows, 1,
		"    TIME  TRACE     NAME            STATUS    TOOK   TOKENS  SLOWEST\n"
		"11:59:55  4bf92f35  an agent with…  ok      2.41 s  510→118  weather  1.48 s\n");
	assert_table(60, rows, 1,
	             "    TIME  TRACE     NAME                      STATUS    TOOK\n"
	             "11:59:55  4bf92f35  an agent with quite a l…  ok      2.41 s\n");
}

static void ids_get_as_many_digits_as_tell_them_apart(void **state)
{
	struct trace_row rows[] = {
		row("019a1b2c3d4e70008000000000000001", "a", STATUS_OK, 5),
		row("019a1b2c3d5f70008000000000000001", "a", STATUS_OK, 5),
		row("4bf92f3577b34da6a3ce929d0e0e4736", "a", STATUS_OK, 5),
	};

	assert_table(120, rows, 3,
	             "    TIME  TRACE        NAME  MODEL        STATUS    TOOK   TOKENS  SLOWEST\n"
	             "11:59:55  019a1b2c3d4  a     gpt-4o-mini  ok      2.41 s  510→118  weather  "
	             "1.48 s\n"
	             "11:59:55  019a1b2c3d5  a     gpt-4o-mini  ok      2.41 s  510→118  weather  "
	             "1.48 s\n"
	             "11:59:55  4bf92f3577b  a     gpt-4o-mini  ok      2.41 s  510→118  weather  "
	             "1.48 s\n");
}

static void lines_fit_every_width(void **state)
{
	struct trace_row rows[] = {
		row("4bf92f3577b34da6a3ce929d0e0e4736", "天気予報天気予報天気予報天気予報",
	            STATUS_OK, 5),
		row("4bf92f3577b35da6a3ce929d0e0e4736", "weather-agent", STATUS_CANCELLED, 0),
	};

	for (unsigned width = TERM_WIDTH_MIN; width < 160; width++) {
		const struct term t = {.width = width, .utf8 = true};
		char *text = render(width, rows, 2);
		for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1)
			assert_true(text_columns(&t, (struct str){at, (size_t)(end - at)}) <=
			            width);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_stand_in_columns),
		cmocka_unit_test(a_narrow_terminal_loses_names_then_columns),
		cmocka_unit_test(ids_get_as_many_digits_as_tell_them_apart),
		cmocka_unit_test(lines_fit_every_width),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	setenv("TZ", "UTC0", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
