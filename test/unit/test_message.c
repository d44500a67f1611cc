#include "runs_fixture.h"

#include "core/message.h"

/* The messages of a value as JSON, which must be what is wanted (with single quotes). */
static void check(const char *value, size_t max, const char *want, bool want_cut)
{
	struct bytes in = packed(value);
	struct buf text;
	struct json j;
	json_error_t error;

	assert_true(messages_are(str_of_bytes(in)));
	buf_init(&text, MIB);
	jsonw_init(&j, &text);
	bool cut = messages_json(&j, str_of_bytes(in), "user", max);
	json_t *got = json_loadb((char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);
	char *quoted = strdup(want);
	assert_non_null(quoted);
	for (char *p = quoted; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json_t *wanted = json_loads(quoted, 0, NULL);
	assert_non_null(wanted);
	if (!got || !json_equal(got, wanted) || cut != want_cut)
		fail_msg("%s\n  gave %.*s\n  not  %s\n  cut: %d", value, (int)text.len,
		         (char *)text.data, want, cut);
	json_decref(got);
	json_decref(wanted);
	free(quoted);
	free(in.p);
	buf_deinit(&text);
}

static void check_whole(const char *value, const char *want)
{
	check(value, 10000, want, false);
}

static void test_openai_messages(void **state)
{
	(void)state;
	check_whole("[{'role':'developer','content':'Be brief.'},"
	            "{'role':'user','content':[{'type':'text','text':'Hi'},"
	            "{'type':'image_url','image_url':{'url':'x'}}],'name':'ann'},"
	            "{'role':'assistant','content':null,'tool_calls':[{'id':'c1','type':'function',"
	            "'function':{'name':'search','arguments':'{}'}}]},"
	            "{'role':'tool','tool_call_id':'c1','content':'found'}]",
	            "[{'role':'system','parts':[{'type':'text','content':'Be brief.'}]},"
	            "{'role':'user','parts':[{'type':'text','content':'Hi'},{'type':'image_url',"
	            "'content':{'type':'image_url','image_url':{'url':'x'}}}],'name':'ann'},"
	            "{'role':'assistant','parts':[{'type':'tool_call','id':'c1','name':'search',"
	            "'arguments':'{}'}]},"
	            "{'role':'tool','parts':[{'type':'tool_call_response','id':'c1',"
	            "'response':'found'}]}]");
}

static void test_an_answer_that_is_only_tool_calls(void **state)
{
	(void)state;
	check_whole("{'role':'assistant','tool_calls':[{'id':'c','function':{'name':'f'}}]}",
	            "[{'role':'assistant','parts':[{'type':'tool_call','id':'c','name':'f'}]}]");
}

static void test_items_of_openais_responses(void **state)
{
	(void)state;
	check_whole("[{'role':'user','content':'Hi'},"
	            "{'type':'function_call','call_id':'c','id':'fc','name':'f','arguments':'{}'},"
	            "{'type':'function_call_output','call_id':'c','output':'7'},"
	            "{'type':'message','role':'assistant','content':[{'type':'output_text',"
	            "'text':'Seven'}]}]",
	            "[{'role':'user','parts':[{'type':'text','content':'Hi'}]},"
	            "{'role':'assistant','parts':[{'type':'tool_call','id':'c','name':'f',"
	            "'arguments':'{}'}]},"
	            "{'role':'tool','parts':[{'type':'tool_call_response','id':'c',"
	            "'response':'7'}]},"
	            "{'role':'assistant','parts':[{'type':'text','content':'Seven'}]}]");
}

static void test_anthropics_blocks(void **state)
{
	(void)state;
	check_whole("[{'role':'assistant','content':[{'type':'thinking','thinking':'Hm.'},"
	            "{'type':'text','text':'I look.'},"
	            "{'type':'tool_use','id':'t1','name':'search','input':{'q':'x'}}]},"
	            "{'role':'user','content':[{'type':'tool_result','tool_use_id':'t1',"
	            "'content':'found'}]}]",
	            "[{'role':'assistant','parts':[{'type':'reasoning','content':'Hm.'},"
	            "{'type':'text','content':'I look.'},"
	            "{'type':'tool_call','id':'t1','name':'search','arguments':{'q':'x'}}]},"
	            "{'role':'user','parts':[{'type':'tool_call_response','id':'t1',"
	            "'response':'found'}]}]");
}

static void test_langchains_types(void **state)
{
	(void)state;
	check_whole("{'messages':[{'type':'system','content':'S'},{'type':'human','content':'H'},"
	            "{'type':'ai','content':[{'type':'tool_use','id':'t','name':'f','input':{}}],"
	            "'tool_calls':[{'id':'t','name':'f','args':{'a':1}}]},"
	            "{'type':'tool','content':'r','tool_call_id':'t','name':'f'},"
	            "{'type':'AIMessageChunk','content':''}]}",
	            "[{'role':'system','parts':[{'type':'text','content':'S'}]},"
	            "{'role':'user','parts':[{'type':'text','content':'H'}]},"
	            "{'role':'assistant','parts':[{'type':'tool_call','id':'t','name':'f',"
	            "'arguments':{'a':1}}]},"
	            "{'role':'tool','parts':[{'type':'tool_call_response','id':'t',"
	            "'response':'r'}],'name':'f'},"
	            "{'role':'assistant','parts':[]}]");
}

static void test_the_oldest_messages_go_first(void **state)
{
	(void)state;
	check("[{'role':'user','content':'aaaaaaaaaaaaaaaaaaaa'},"
	      "{'role':'user','content':'bbbbb'}]",
	      40, "[{'role':'user','parts':[{'type':'text','content':'bbbbb'}]}]", true);
	check("[{'role':'user','content':'\\u00e9\\u00e9\\u00e9\\u00e9'}]", 9,
	      "[{'role':'user','parts':[{'type':'text','content':'\\u00e9\\u00e9'}]}]", true);
}

static void test_what_is_no_conversation(void **state)
{
	static const char *const values[] = {
		"'text'",
		"7",
		"[]",
		"{}",
		"['a','b']",
		"{'messages':[]}",
		"{'messages':'x'}",
		"{'role':'user'}",
		"{'content':'x'}",
		"{'role':7,'content':'x'}",
		"{'type':'issue','content':'broken'}",
		"[{'type':'text','content':'a block'}]",
		"[[{'role':'user','content':'nested'}]]",
	};
	(void)state;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct bytes v = packed(values[i]);
		if (messages_are(str_of_bytes(v)))
			fail_msg("%s", values[i]);
		free(v.p);
	}
	assert_false(messages_are((struct str){0}));
}

static void check_last(const char *value, const char *role, const char *want)
{
	struct bytes v = packed(value);
	struct str got = messages_last_text(str_of_bytes(v), role);

	if (want ? !got.p || !str_eq(got, str_of(want)) : got.p != NULL)
		fail_msg("%s: %.*s", value, (int)got.len, got.p ? got.p : "");
	free(v.p);
}

static void test_the_last_text_of_a_role(void **state)
{
	(void)state;
	check_last("'plain'", "user", "plain");
	check_last("[{'role':'user','content':'a'},{'role':'user','content':'b'},"
	           "{'role':'assistant','content':'c'}]",
	           "user", "b");
	check_last("{'messages':[{'type':'human','content':'q'},{'type':'ai','content':"
	           "[{'type':'thinking','thinking':'hm'},{'type':'text','text':'a'}]}]}",
	           "assistant", "a");
	check_last("{'role':'assistant','content':'c'}", "assistant", "c");
	check_last("[{'role':'assistant','content':'c'}]", "user", NULL);
	check_last("{'question':'x'}", "user", NULL);
	check_last("7", "user", NULL);
}

static void test_a_conversation_cut_anywhere_is_read_within_its_bounds(void **state)
{
	struct bytes whole = packed("[{'role':'user','content':[{'type':'text','text':'Hi'}]},"
	                            "{'role':'assistant','tool_calls':[{'id':'c','function':"
	                            "{'name':'f','arguments':'{}'}}],'content':'x'}]");
	(void)state;

	for (size_t len = 1; len < whole.len; len++) {
		struct bytes cut = copy_of((struct str){whole.p, len});
		struct buf text;
		struct json j;
		buf_init(&text, MIB);
		jsonw_init(&j, &text);
		if (messages_are(str_of_bytes(cut)))
			messages_json(&j, str_of_bytes(cut), "user", 100);
		messages_last_text(str_of_bytes(cut), "user");
		buf_deinit(&text);
		free(cut.p);
	}
	free(whole.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openai_messages),
		cmocka_unit_test(test_an_answer_that_is_only_tool_calls),
		cmocka_unit_test(test_items_of_openais_responses),
		cmocka_unit_test(test_anthropics_blocks),
		cmocka_unit_test(test_langchains_types),
		cmocka_unit_test(test_the_oldest_messages_go_first),
		cmocka_unit_test(test_what_is_no_conversation),
		cmocka_unit_test(test_the_last_text_of_a_role),
		cmocka_unit_test(test_a_conversation_cut_anywhere_is_read_within_its_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
