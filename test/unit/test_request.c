#include "runs_fixture.h"

static void test_other_models_share_the_last_entry_past_the_bound(void **state)
{
	struct world *w = *state;
	char id[16], fields[64];

	start(w, "root", "'kind':'agent'");
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof(id), "l%d", i);
		snprintf(fields, sizeof(fields), "'kind':'llm','model':'m%d','parent':'root'", i);
		start(w, id, fields);
		end(w, id, "'usage':{'input_tokens':1}");
	}
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "prompt_tokens"), 100);
	assert_int_equal(count_at(o, "llm_calls"), 100);
	json_decref(o);
}

static void test_the_list_of_tool_calls_is_cut_and_stays_json(void **state)
{
	struct world *w = *state;
	char id[16], fields[1100] = "'kind':'tool','name':'t','parent':'root','input':'";
	size_t at = strlen(fields);

	memset(fields + at, 'x', 1000);
	memcpy(fields + at + 1000, "'", 2);
	start(w, "root", "'kind':'agent'");
	for (int i = 0; i < 400; i++) {
		snprintf(id, sizeof(id), "t%d", i);
		assert_int_equal(start(w, id, fields), 0);
		end(w, id, NULL);
	}
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "tool_call_count"), 400);
	assert_in_range(json_array_size(member(o, "tool_calls")), 200, 399);
	json_decref(o);
}

static void test_an_observation_says_what_its_root_said(void **state)
{
	struct world *w = *state;

	start(w, "root",
	      "'kind':'agent','name':'bot','session':'s','user':'u','provider':'p','model':'m',"
	      "'tags':['a','b'],'attrs':{'prompt.key':'greet','prompt.version':3,"
	      "'policy_mode':'strict'},"
	      "'input':{'messages':[{'role':'user','content':'Hi \\u00e9'}]}");
	start(w, "t1", "'kind':'tool','name':'search','input':{'q':1},'parent':'root'");
	pass(w, 20 * MS);
	end(w, "t1", "'output':'found','error':{'type':'E','message':'late'}");
	start(w, "r", "'kind':'retriever','name':'docs','parent':'root'");
	pass(w, 10 * MS);
	end(w, "r", NULL);
	end(w, "root",
	    "'output':[{'role':'assistant','content':'Hello'}],"
	    "'error':{'type':'Bad','message':'b'}");
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "session_id"), "s");
	assert_string_equal(text_at(o, "user_id"), "u");
	assert_string_equal(text_at(o, "provider"), "p");
	assert_string_equal(text_at(o, "model"), "m");
	assert_string_equal(text_at(o, "tags/1"), "b");
	assert_string_equal(text_at(o, "prompt_key"), "greet");
	assert_int_equal(count_at(o, "prompt_version"), 3);
	assert_string_equal(text_at(o, "policy_mode"), "strict");
	assert_string_equal(text_at(o, "user_message"), "Hi \xc3\xa9");
	assert_string_equal(text_at(o, "agent_response"), "Hello");
	assert_string_equal(text_at(o, "status/code"), "error");
	assert_string_equal(text_at(o, "error/type"), "Bad");
	assert_string_equal(text_at(o, "tool_calls/0/name"), "search");
	assert_string_equal(text_at(o, "tool_calls/0/output"), "found");
	assert_string_equal(text_at(o, "tool_calls/0/error/message"), "late");
	assert_string_equal(text_at(o, "slowest/name"), "search");
	assert_true(json_is_null(member(o, "total_tokens")));
	assert_int_equal(count_at(o, "span_count"), 3);
	json_decref(o);
}

static void test_the_models_of_the_last_call_speak_for_a_root_without_any(void **state)
{
	struct world *w = *state;

	start(w, "root", NULL);
	start(w, "a", "'kind':'llm','provider':'p1','model':'m1','parent':'root'");
	start(w, "b", "'kind':'llm','provider':'p2','parent':'root'");
	end(w, "b", "'model':'answered'");
	pass(w, MS);
	end(w, "a", NULL);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "provider"), "p1");
	assert_string_equal(text_at(o, "model"), "m1");
	json_decref(o);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_other_models_share_the_last_entry_past_the_bound),
		T(test_the_list_of_tool_calls_is_cut_and_stays_json),
		T(test_an_observation_says_what_its_root_said),
		T(test_the_models_of_the_last_call_speak_for_a_root_without_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
