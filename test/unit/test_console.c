#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "core/pb.h"
#include "export/console_text.h"

#define START_NS 1774210621137264999ull // 2026-03-22T20:17:01.137264999Z

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

static void write_span(struct fixture *f, struct str name, uint64_t duration_ns)
{
	static const uint8_t trace_id[16] = {0x03, 0x2a, 0x03, 0xa1, 0xa7, 0x5c, 0x24, 0xfb,
	                                     0xd4, 0xcb, 0xf4, 0xdf, 0x59, 0x2b, 0x1f, 0x5a};
	static const uint8_t span_id[8] = {0x33, 0xd8, 0xe9, 0x95, 0xfa, 0x82, 0xd4, 0x23};

	pb_bytes(&f->base, 1, trace_id, sizeof(trace_id));
	pb_bytes(&f->base, 2, span_id, sizeof(span_id));
	pb_str(&f->base, 5, name);
	pb_uint(&f->base, 6, 1);
	pb_fixed64(&f->base, 7, START_NS);
	pb_fixed64(&f->base, 8, START_NS + duration_ns);
}

static void write_parent(struct fixture *f)
{
	static const uint8_t parent_id[8] = {0xb5, 0x6b, 0xd8, 0xf4, 0xc7, 0x39, 0x1b, 0x3c};

	pb_bytes(&f->base, 4, parent_id, sizeof(parent_id));
}

static void write_error(struct fixture *f, struct str type, struct str message)
{
	pb_attr_str(&f->base, 9, STR("error.type"), type);
	size_t status = pb_begin(&f->base, 15);
	pb_str(&f->base, 2, message);
	pb_uint(&f->base, 3, 2);
	pb_end(&f->base, status);
	f->rec.head.status = STATUS_ERROR;
}

typedef void text_fn(struct buf *out, const struct span_record *rec, bool content);

static const char *text(struct fixture *f, text_fn *fn, bool content)
{
	f->rec.base = str_in(&f->base);
	f->rec.content = str_in(&f->content);
	f->rec.resource = str_in(&f->resource);
	fn(&f->text, &f->rec, content);
	buf_append_byte(&f->text, 0);
	assert_int_equal(buf_error(&f->text), 0);
	return (const char *)f->text.data;
}

static void json_has_the_shape_of_pythons_console_exporter(void **state)
{
	static const char expected[] =
		"{\n"
		"    \"name\": \"tool.weather\",\n"
		"    \"context\": {\n"
		"        \"trace_id\": \"0x032a03a1a75c24fbd4cbf4df592b1f5a\",\n"
		"        \"span_id\": \"0x33d8e995fa82d423\",\n"
		"        \"trace_state\": \"[]\"\n"
		"    },\n"
		"    \"kind\": \"SpanKind.INTERNAL\",\n"
		"    \"parent_id\": \"0xb56bd8f4c7391b3c\",\n"
		"    \"start_time\": \"2026-03-22T20:17:01.137264Z\",\n"
		"    \"end_time\": \"2026-03-22T20:17:01.578214Z\",\n"
		"    \"status\": {\n"
		"        \"status_code\": \"UNSET\"\n"
		"    },\n"
		"    \"attributes\": {\n"
		"        \"tool.name\": \"weather\",\n"
		"        \"tool.input\": \"{'q': \\\"a\\\\\\\\b[]{}\\\"}\",\n"
		"        \"latency_ms\": 440.95\n"
		"    },\n"
		"    \"events\": [],\n"
		"    \"links\": [],\n"
		"    \"resource\": {\n"
		"        \"attributes\": {\n"
		"            \"service.name\": \"unknown_service\"\n"
		"        },\n"
		"        \"schema_url\": \"\"\n"
		"    }\n"
		"}\n";
	struct fixture *f = *state;

	write_span(f, STR("tool.weather"), 440950000);
	write_parent(f);
	pb_attr_str(&f->base, 9, STR("tool.name"), STR("weather"));
	pb_attr_str(&f->base, 9, STR("tool.input"), STR("{'q': \"a\\\\b[]{}\"}"));
	pb_attr_double(&f->base, 9, STR("latency_ms"), 440.95);
	pb_attr_str(&f->resource, 1, STR("service.name"), STR("unknown_service"));
	assert_string_equal(text(f, console_json, true), expected);
}

static void json_of_a_failed_root_says_why(void **state)
{
	struct fixture *f = *state;

	write_span(f, STR("agent.run"), 1);
	write_error(f, STR("ValueError"), STR("no\nsuch city"));
	const char *got = text(f, console_json, true);
	assert_non_null(strstr(got, "    \"parent_id\": null,\n"));
	assert_non_null(strstr(got, "    \"status\": {\n"
	                            "        \"status_code\": \"ERROR\",\n"
	                            "        \"description\": \"no\\nsuch city\"\n"
	                            "    },\n"));
}

static void json_shows_events(void **state)
{
	struct fixture *f = *state;

	write_span(f, STR("chat"), 1);
	size_t event = pb_begin(&f->base, 11);
	pb_fixed64(&f->base, 1, START_NS);
	pb_str(&f->base, 2, STR("first_token"));
	pb_attr_int(&f->base, 3, STR("n"), 1);
	pb_end(&f->base, event);
	assert_non_null(strstr(text(f, console_json, true),
	                       "    \"events\": [\n"
	                       "        {\n"
	                       "            \"name\": \"first_token\",\n"
	                       "            \"timestamp\": \"2026-03-22T20:17:01.137264Z\",\n"
	                       "            \"attributes\": {\n"
	                       "                \"n\": 1\n"
	                       "            }\n"
	                       "        }\n"
	                       "    ],\n"));
}

static void content_is_shown_only_when_asked_for(void **state)
{
	static text_fn *const formats[] = {console_json, console_pretty};
	struct fixture *f = *state;

	write_span(f, STR("chat"), 1);
	pb_attr_str(&f->content, 9, STR("gen_ai.input.messages"), STR("my secret"));
	for (size_t i = 0; i < 2; i++) {
		assert_null(strstr(text(f, formats[i], false), "my secret"));
		buf_clear(&f->text);
		assert_non_null(strstr(text(f, formats[i], true), "my secret"));
		buf_clear(&f->text);
	}
}

static void pretty_is_one_line_with_what_matters(void **state)
{
	struct fixture *f = *state;

	write_span(f, STR("chat gpt-4o"), 1234567890);
	pb_attr_int(&f->base, 9, STR("gen_ai.usage.input_tokens"), 812);
	pb_attr_int(&f->base, 9, STR("gen_ai.usage.output_tokens"), 64);
	f->rec.head.kind = KIND_LLM;
	f->rec.head.status = STATUS_OK;
	assert_string_equal(text(f, console_pretty, true),
	                    "20:17:01.137  032a03a1  llm        chat gpt-4o                 "
	                    "    1.23 s   ok  812 → 64 tokens\n");
}

static void pretty_says_what_failed(void **state)
{
	struct fixture *f = *state;

	write_span(f, STR("execute_tool weather"), 2500000);
	write_error(f, STR("ValueError"), STR("no such city"));
	f->rec.head.kind = KIND_TOOL;
	assert_string_equal(text(f, console_pretty, true),
	                    "20:17:01.137  032a03a1  tool       execute_tool weather        "
	                    "     2.5 ms  error  ValueError: no such city\n");
}

static void pretty_keeps_control_characters_from_the_terminal(void **state)
{
	struct fixture *f = *state;

	write_span(f,
	           STR("evil\x1b[2J\x07\nname\xc2\x9b"
	               "31m\x7f\xff"),
	           1);
	write_error(f, STR("E\x1b]0;title\x07"), STR("a\rb"));
	const char *got = text(f, console_pretty, true);
	for (const char *p = got; p[1]; p++)
		assert_true((uint8_t)*p >= 0x20 && *p != 0x7f);
	assert_null(strstr(got, "\xc2\x9b"));
	assert_non_null(strstr(got, "\xef\xbf\xbd")); // for the byte that is no UTF-8
}

static void pretty_cuts_long_text_at_a_character(void **state)
{
	static char long_name[1000];
	struct fixture *f = *state;

	for (size_t i = 0; i + 1 < sizeof(long_name); i += 2)
		memcpy(long_name + i, "ä", 2);
	write_span(f, (struct str){long_name, sizeof(long_name)}, 1);
	const char *got = text(f, console_pretty, true);
	assert_true(utf8_is_valid(got, strlen(got)));
	assert_non_null(strstr(got, "ä…"));
	assert_true(strlen(got) < 200);
}

static void a_span_that_is_no_span_does_no_harm(void **state)
{
	struct fixture *f = *state;

	buf_append_str(&f->base, "\x0a\x7f nonsense");
	text(f, console_pretty, true);
	text(f, console_json, true);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		test(json_has_the_shape_of_pythons_console_exporter),
		test(json_of_a_failed_root_says_why),
		test(json_shows_events),
		test(content_is_shown_only_when_asked_for),
		test(pretty_is_one_line_with_what_matters),
		test(pretty_says_what_failed),
		test(pretty_keeps_control_characters_from_the_terminal),
		test(pretty_cuts_long_text_at_a_character),
		test(a_span_that_is_no_span_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
