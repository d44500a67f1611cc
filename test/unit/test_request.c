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

/* --- tokens that are not known, estimated, or told twice --- */

#define USED "'usage':{'input_tokens':10,'output_tokens':4}"
#define LLM(model) "'kind':'llm','provider':'p','model':'" model "','parent':'root'"

static void test_calls_that_tell_no_tokens_are_counted_and_are_no_zeros(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", LLM("m"));
	end(w, "a", NULL);
	start(w, "b", LLM("m"));
	end(w, "b", "'usage':{'credits':3},'error':{'type':'Cut'}");
	start(w, "e", "'kind':'embedding','parent':'root'");
	end(w, "e", NULL);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_true(json_is_null(member(o, "prompt_tokens")));
	assert_true(json_is_null(member(o, "completion_tokens")));
	assert_true(json_is_null(member(o, "total_tokens")));
	assert_int_equal(count_at(o, "llm_calls"), 2);
	assert_int_equal(count_at(o, "llm_calls_without_usage"), 2);
	assert_true(json_is_false(member(o, "tokens_estimated")));
	json_decref(o);
	o = span_of(w, "a");
	assert_null(member(o, "attributes/gen_ai.usage.input_tokens"));
	assert_null(member(o, "attributes/gen_ai.usage.output_tokens"));
	json_decref(o);
	assert_metric(w, "sidelight_llm_calls_without_usage_total{provider=\"p\",model=\"m\"} 2\n");
	assert_false(has_metric(w, "llm_tokens_total{"));
}

static void test_a_sum_says_how_many_calls_it_lacks(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", LLM("m"));
	end(w, "a", USED);
	start(w, "b", LLM("n"));
	end(w, "b", NULL);
	restart(w);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "total_tokens"), 14);
	assert_int_equal(count_at(o, "llm_calls"), 2);
	assert_int_equal(count_at(o, "llm_calls_without_usage"), 1);
	json_decref(o);
	assert_metric(w, "sidelight_llm_calls_without_usage_total{provider=\"p\",model=\"n\"} 1\n");
	assert_false(has_metric(w, "without_usage_total{provider=\"p\",model=\"m\"}"));
	assert_false(has_metric(w, "llm_tokens_total{token_type=\"prompt_tokens\","
	                           "provider=\"p\",model=\"n\"}"));
}

static void test_estimates_count_and_say_so(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", LLM("m"));
	end(w, "a", "'usage':{'output_tokens':37,'sidelight.estimated':true}");
	start(w, "b", LLM("m"));
	end(w, "b", USED);
	restart(w);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "completion_tokens"), 41);
	assert_true(json_is_true(member(o, "tokens_estimated")));
	assert_int_equal(count_at(o, "llm_calls_without_usage"), 0);
	json_decref(o);
	o = span_of(w, "a");
	assert_int_equal(count_at(o, "attributes/gen_ai.usage.output_tokens"), 37);
	assert_true(json_is_true(member(o, "attributes/sidelight.usage.estimated")));
	json_decref(o);
	o = span_of(w, "b");
	assert_null(member(o, "attributes/sidelight.usage.estimated"));
	json_decref(o);
	assert_metric(w, "llm_tokens_total{token_type=\"completion_tokens\",provider=\"p\","
	                 "model=\"m\"} 41\n");
}

static void test_a_seams_root_says_that_its_totals_are_estimated(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, CONVENTION_SEAMS);
	start(&w, "root", "'kind':'agent'");
	start(&w, "a", LLM("m"));
	end(&w, "a", "'usage':{'output_tokens':37,'sidelight.estimated':true}");
	end(&w, "root", NULL);
	json_t *span = span_of(&w, "root");
	assert_int_equal(count_at(span, "attributes/llm.completion_tokens"), 37);
	assert_true(json_is_true(member(span, "attributes/sidelight.usage.estimated")));
	json_decref(span);
	world_deinit(&w);
}

/* LangChain's run of a call, and the one that a wrapped client made of it below. */
static void check_one_call(struct world *w)
{
	json_t *o = observation_at(w, 0);

	assert_int_equal(count_at(o, "total_tokens"), 14);
	assert_int_equal(count_at(o, "llm_calls"), 1);
	assert_int_equal(count_at(o, "llm_calls_without_usage"), 0);
	assert_int_equal(count_at(o, "span_count"), 3);
	assert_string_equal(text_at(o, "model"), "inner");
	json_decref(o);
	o = span_of(w, "outer");
	assert_null(member(o, "attributes/gen_ai.usage.input_tokens"));
	json_decref(o);
	o = span_of(w, "inner");
	assert_int_equal(count_at(o, "attributes/gen_ai.usage.input_tokens"), 10);
	json_decref(o);
	assert_metric(w, "llm_tokens_total{token_type=\"total_tokens\",provider=\"p\","
	                 "model=\"inner\"} 14\n");
	assert_false(has_metric(w, "model=\"outer\""));
	assert_false(has_metric(w, "gen_ai_request_model=\"outer\""));
}

#define INNER "'kind':'llm','provider':'p','model':'inner','parent':'outer'"

static void test_two_views_of_one_call_are_one_call(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "outer", LLM("outer"));
	start(w, "inner", INNER);
	end(w, "inner", USED);
	end(w, "outer", USED);
	end(w, "root", USED);
	check_one_call(w);
	assert_metric(w, "gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="
	                 "\"chat\",gen_ai_provider_name=\"p\",gen_ai_request_model=\"inner\"} 1\n");
}

static void test_the_outer_view_may_come_later(void **state)
{
	struct world *w = *state;

	start(w, "inner", INNER);
	start(w, "outer", LLM("outer"));
	start(w, "root", "'kind':'agent'");
	end(w, "outer", USED); // a stream that is closed late: the inner one ends last
	end(w, "inner", USED);
	end(w, "root", NULL);
	check_one_call(w);
}

static void test_two_views_stay_one_call_over_restarts(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "outer", LLM("outer"));
	commit(w);
	start(w, "inner", INNER);
	end(w, "inner", USED);
	restart(w);
	end(w, "outer", USED);
	restart(w);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "total_tokens"), 14);
	assert_int_equal(count_at(o, "llm_calls"), 1);
	assert_int_equal(count_at(o, "llm_calls_without_usage"), 0);
	json_decref(o);
}

static void test_a_model_that_a_models_tool_calls_is_a_call_of_its_own(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "outer", LLM("outer"));
	start(w, "tool", "'kind':'tool','name':'t','parent':'outer'");
	start(w, "inner", "'kind':'llm','provider':'p','model':'inner','parent':'tool'");
	end(w, "inner", USED);
	end(w, "tool", NULL);
	end(w, "outer", USED);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(count_at(o, "total_tokens"), 28);
	assert_int_equal(count_at(o, "llm_calls"), 2);
	json_decref(o);
}

/* --- cost --- */

static struct price model_prices[] = {
	{(char[]){"m"}, NULL, 1000000, 2000000, PRICE_NONE, PRICE_NONE},
	{(char[]){"n*"}, (char[]){"p"}, 500000, 500000, PRICE_NONE, PRICE_NONE},
};
static const struct price_list prices = {(char[]){"EUR"}, model_prices, 2};

static int setup_with_prices(void **state)
{
	struct world *w = malloc(sizeof(*w));

	if (!w)
		return -1;
	world_init(w, CONVENTION_GENAI);
	runs_free(w->r);
	w->o.prices = &prices;
	restore(w);
	*state = w;
	return 0;
}

/* In millionths. */
static int64_t cost_at(const json_t *o)
{
	assert_true(json_is_number(member(o, "cost")));
	return (int64_t)(json_number_value(member(o, "cost")) * 1e6 + 0.5);
}

static void test_a_request_costs_what_its_calls_do(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", LLM("m"));
	end(w, "a", USED); // 18 millionths
	start(w, "b", LLM("alias"));
	end(w, "b", "'model':'n-1','usage':{'input_tokens':3,'output_tokens':1}"); // 2
	restart(w);
	start(w, "c", LLM("m"));
	end(w, "c", USED);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(cost_at(o), 38);
	assert_string_equal(text_at(o, "currency"), "EUR");
	assert_int_equal(count_at(o, "calls_without_cost"), 0);
	json_decref(o);
	assert_metric(w, "llm_cost_total{provider=\"p\",model=\"m\"} 0.000036000\n");
	assert_metric(w, "llm_cost_total{provider=\"p\",model=\"alias\"} 0.000002000\n");
}

static void test_what_has_no_price_is_counted_and_no_zero(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", LLM("m"));
	end(w, "a", USED);
	start(w, "b", LLM("other"));
	end(w, "b", USED);
	start(w, "c", LLM("m"));
	end(w, "c", NULL);
	end(w, "root", NULL);
	start(w, "root2", "'kind':'agent'");
	start(w, "d", "'kind':'llm','provider':'p','model':'other','parent':'root2'");
	end(w, "d", USED);
	end(w, "root2", NULL);
	json_t *o = observation_at(w, 0);
	assert_int_equal(cost_at(o), 18);
	assert_int_equal(count_at(o, "calls_without_cost"), 2);
	json_decref(o);
	o = observation_at(w, 1);
	assert_true(json_is_null(member(o, "cost")));
	assert_true(json_is_null(member(o, "currency")));
	assert_int_equal(count_at(o, "calls_without_cost"), 1);
	json_decref(o);
	assert_metric(w, "llm_cost_total{provider=\"p\",model=\"m\"} 0.000018000\n");
	assert_false(has_metric(w, "llm_cost_total{provider=\"p\",model=\"other\"}"));
}

static void test_two_views_of_one_call_cost_once(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "outer", LLM("m"));
	start(w, "inner", "'kind':'llm','provider':'p','model':'m','parent':'outer'");
	end(w, "inner", USED);
	restart(w);
	end(w, "outer", USED);
	end(w, "root", USED);
	json_t *o = observation_at(w, 0);
	assert_int_equal(cost_at(o), 18);
	assert_int_equal(count_at(o, "calls_without_cost"), 0);
	json_decref(o);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define P(name) cmocka_unit_test_setup_teardown(name, setup_with_prices, teardown)
	const struct CMUnitTest tests[] = {
		T(test_other_models_share_the_last_entry_past_the_bound),
		T(test_the_list_of_tool_calls_is_cut_and_stays_json),
		T(test_an_observation_says_what_its_root_said),
		T(test_the_models_of_the_last_call_speak_for_a_root_without_any),
		T(test_calls_that_tell_no_tokens_are_counted_and_are_no_zeros),
		T(test_a_sum_says_how_many_calls_it_lacks),
		T(test_estimates_count_and_say_so),
		cmocka_unit_test(test_a_seams_root_says_that_its_totals_are_estimated),
		T(test_two_views_of_one_call_are_one_call),
		T(test_the_outer_view_may_come_later),
		T(test_two_views_stay_one_call_over_restarts),
		T(test_a_model_that_a_models_tool_calls_is_a_call_of_its_own),
		P(test_a_request_costs_what_its_calls_do),
		P(test_what_has_no_price_is_counted_and_no_zero),
		P(test_two_views_of_one_call_cost_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
