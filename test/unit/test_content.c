#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "content.h"

/* attributes: JSON, with ' for ". */
static void assert_content(const char *attributes, const char *wanted)
{
	struct buf doc, out;
	json_t *span;

	buf_init(&doc, 4096);
	buf_init(&out, 4096);
	buf_append_str(&doc, "{\"attributes\":{");
	for (const char *p = attributes; *p; p++)
		buf_append_byte(&doc, *p == '\'' ? '"' : (uint8_t)*p);
	buf_append_str(&doc, "}}");
	span = json_loadb((const char *)doc.data, doc.len, 0, NULL);
	assert_non_null(span);
	content_text(&out, span);
	buf_append_byte(&out, '\0');
	assert_string_equal((const char *)out.data, wanted);
	json_decref(span);
	buf_deinit(&out);
	buf_deinit(&doc);
}

static void messages_come_one_a_line(void **state)
{
	assert_content(
		"'gen_ai.input.messages':'[{\\'role\\':\\'user\\',\\'parts\\':[{\\'type\\':"
		"\\'text\\',\\'content\\':\\'Oslo?\\'}]}]',"
		"'gen_ai.output.messages':'[{\\'role\\':\\'assistant\\',\\'parts\\':[{\\'type\\'"
		":\\'tool_call\\',\\'name\\':\\'weather\\',\\'arguments\\':{\\'city\\':"
		"\\'Oslo\\'}}]}]'",
		"user: Oslo?\nassistant: weather({\"city\":\"Oslo\"})\n");
	assert_content("'gen_ai.system_instructions':'[{\\'type\\':\\'text\\',\\'content\\':\\'Be "
	               "brief.\\'}]'",
	               "system: Be brief.\n");
	assert_content("'gen_ai.input.messages':'[{\\'role\\':\\'tool\\',\\'parts\\':[{\\'type\\':"
	               "\\'tool_call_response\\',\\'response\\':\\'sunny\\'}]}]'",
	               "tool: sunny\n");
}

static void what_is_no_message_comes_as_it_is(void **state)
{
	assert_content("'gen_ai.tool.call.arguments':'{\\'city\\': \\'Oslo\\'}',"
	               "'gen_ai.tool.call.result':3",
	               "arguments: {\"city\": \"Oslo\"}\nresult: 3\n");
	assert_content("'sidelight.input':'[1, 2','sidelight.output':'[]'",
	               "input: [1, 2\noutput: []\n");
	assert_content("'gen_ai.input.messages':'[{\\'role\\':\\'user\\',\\'content\\':\\'hi\\'}]'",
	               "user: hi\n");
	assert_content("'other':'x'", "");
}

static void two_conventions_say_it_once(void **state)
{
	assert_content("'gen_ai.tool.call.arguments':'a','tool.input':'a','tool.output':'b'",
	               "arguments: a\nresult: b\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_one_a_line),
		cmocka_unit_test(what_is_no_message_comes_as_it_is),
		cmocka_unit_test(two_conventions_say_it_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
