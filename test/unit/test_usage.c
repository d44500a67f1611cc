#include "runs_fixture.h"

#include "core/usage.h"

#define NO USAGE_UNKNOWN

static const struct {
	const char *source; // who sends it, from which API
	const char *map;
	struct usage want; // input, output, total, cache_read, cache_write, reasoning
} vectors[] = {
	{"OpenAI chat completions",
         "{'prompt_tokens':1034,'completion_tokens':118,'total_tokens':1152,"
         "'prompt_tokens_details':{'cached_tokens':768,'audio_tokens':0},"
         "'completion_tokens_details':{'reasoning_tokens':32,'accepted_prediction_tokens':0}}",
         {1034, 118, 1152, 768, NO, 32}},
	{"OpenAI responses, OpenAI Agents SDK",
         "{'requests':1,'input_tokens':1034,'output_tokens':118,'total_tokens':1152,"
         "'input_tokens_details':{'cached_tokens':768,'cache_write_tokens':0},"
         "'output_tokens_details':{'reasoning_tokens':32}}",
         {1034, 118, 1152, 768, 0, 32}},
	{"OpenAI Agents SDK, turn",
         "{'input_tokens':1034,'output_tokens':118,'cached_input_tokens':768}",
         {1034, 118, 1152, 768, NO, NO}},
	{"OpenAI embeddings", "{'prompt_tokens':9,'total_tokens':9}", {9, NO, 9, NO, NO, NO}},
	{"LangChain usage_metadata, OpenAI",
         "{'input_tokens':1034,'output_tokens':118,'total_tokens':1152,"
         "'input_token_details':{'audio':0,'cache_read':768},"
         "'output_token_details':{'audio':0,'reasoning':32}}",
         {1034, 118, 1152, 768, NO, 32}},
	{"LangChain llm_output, OpenAI",
         "{'token_usage':{'prompt_tokens':1034,'completion_tokens':118,'total_tokens':1152,"
         "'prompt_tokens_details':{'cached_tokens':768},"
         "'completion_tokens_details':{'reasoning_tokens':32}},'model_name':'m'}",
         {1034, 118, 1152, 768, NO, 32}},
	{"LangChain.js llmOutput",
         "{'tokenUsage':{'promptTokens':10,'completionTokens':4,'totalTokens':14}}",
         {10, 4, 14, NO, NO, NO}},
	{"LangChain usage_metadata, Anthropic: inclusive",
         "{'input_tokens':1034,'output_tokens':118,'total_tokens':1152,"
         "'input_token_details':{'cache_read':768,'cache_creation':20,"
         "'ephemeral_5m_input_tokens':20,'ephemeral_1h_input_tokens':0}}",
         {1034, 118, 1152, 768, 20, NO}},
	{"Anthropic messages: exclusive",
         "{'input_tokens':246,'cache_read_input_tokens':768,'cache_creation_input_tokens':20,"
         "'cache_creation':{'ephemeral_5m_input_tokens':20,'ephemeral_1h_input_tokens':0},"
         "'output_tokens':118,'service_tier':'standard'}",
         {1034, 118, 1152, 768, 20, NO}},
	{"LangChain llm_output, Anthropic",
         "{'usage':{'input_tokens':266,'cache_read_input_tokens':768,'output_tokens':118,"
         "'cache_creation':{'ephemeral_5m_input_tokens':0,'ephemeral_1h_input_tokens':0}}}",
         {1034, 118, 1152, 768, NO, NO}},
	{"Anthropic, both lifetimes",
         "{'input_tokens':1,'cache_creation_input_tokens':30,"
         "'cache_creation':{'ephemeral_5m_input_tokens':10,'ephemeral_1h_input_tokens':20}}",
         {31, NO, 31, NO, 30, NO}},
	{"Gemini generateContent",
         "{'promptTokenCount':100,'candidatesTokenCount':20,'thoughtsTokenCount':30,"
         "'totalTokenCount':150,'cachedContentTokenCount':40,"
         "'promptTokensDetails':[{'modality':'TEXT','tokenCount':100}]}",
         {100, 50, 150, 40, NO, 30}},
	{"Gemini, stopped while it thought",
         "{'promptTokenCount':100,'thoughtsTokenCount':30,'totalTokenCount':130}",
         {100, 30, 130, NO, NO, 30}},
	{"Vertex, Python names",
         "{'prompt_token_count':100,'candidates_token_count':20,'total_token_count':120,"
         "'cached_content_token_count':0,"
         "'prompt_tokens_details':[{'modality':'TEXT','token_count':100}]}",
         {100, 20, 120, 0, NO, NO}},
	{"Bedrock converse",
         "{'inputTokens':10,'outputTokens':4,'totalTokens':14}",
         {10, 4, 14, NO, NO, NO}},
	{"Bedrock converse with its cache: exclusive",
         "{'inputTokens':10,'outputTokens':4,'totalTokens':114,'cacheReadInputTokens':60,"
         "'cacheWriteInputTokens':40}",
         {110, 4, 114, 60, 40, NO}},
	{"Bedrock in a stream: lists",
         "{'input_tokens':[10,0],'output_tokens':[1,3]}",
         {10, 4, 14, NO, NO, NO}},
	{"Bedrock Titan", "{'inputTokenCount':10,'outputTokenCount':4}", {10, 4, 14, NO, NO, NO}},
	{"IBM watsonx",
         "{'input_token_count':10,'generated_token_count':4}",
         {10, 4, 14, NO, NO, NO}},
	{"Cohere",
         "{'billed_units':{'input_tokens':10,'output_tokens':4}}",
         {10, 4, 14, NO, NO, NO}},
	{"DeepSeek",
         "{'prompt_tokens':100,'completion_tokens':20,'total_tokens':120,"
         "'prompt_cache_hit_tokens':64,'prompt_cache_miss_tokens':36,"
         "'completion_tokens_details':{'reasoning_tokens':7}}",
         {100, 20, 120, 64, NO, 7}},
	{"Ollama", "{'prompt_eval_count':26,'eval_count':298}", {26, 298, 324, NO, NO, NO}},
	{"Vercel AI SDK",
         "{'inputTokens':10,'outputTokens':4,'totalTokens':14,'reasoningTokens':1,"
         "'cachedInputTokens':3}",
         {10, 4, 14, 3, NO, 1}},
	{"Langfuse's short names",
         "{'prompt':10,'completion':4,'prompt_details':{'cache_read':3,'cache_write':2},"
         "'completion_details':{'reasoning':1}}",
         {10, 4, 14, 3, 2, 1}},
	{"a priority tier repeats the counts",
         "{'input_tokens':10,'output_tokens':4,'total_tokens':14,"
         "'input_token_details':{'priority':10,'priority_cache_read':5,'cache_read':5}}",
         {10, 4, 14, 5, NO, NO}},
	{"only a total", "{'total_tokens':14}", {NO, NO, 14, NO, NO, NO}},
	{"a total that is too small",
         "{'input_tokens':10,'output_tokens':4,'total_tokens':3}",
         {10, 4, 14, NO, NO, NO}},
	{"zeros are known", "{'input_tokens':0,'output_tokens':0}", {0, 0, 0, NO, NO, NO}},
	{"counts as floats", "{'input_tokens':10.0}", {10, NO, 10, NO, NO, NO}},
	{"nothing", "{}", {NO, NO, NO, NO, NO, NO}},
	{"nothing known", "{'credits':3}", {NO, NO, NO, NO, NO, NO}},
	{"no counts",
         "{'input_tokens':-1,'output_tokens':'7','total_tokens':true,'reasoning_tokens':null,"
         "'cached_tokens':9007199254740993,'cache_creation':[1,'x']}",
         {NO, NO, NO, NO, NO, NO}},
	{"a list", "[1,2]", {NO, NO, NO, NO, NO, NO}},
	{"maps within maps go two deep",
         "{'usage':{'token_usage':{'usage':{'input_tokens':5}},'output_tokens':2}}",
         {NO, 2, 2, NO, NO, NO}},
};

static void test_every_providers_words_are_understood(void **state)
{
	(void)state;

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct usage got, want = vectors[i].want;
		struct bytes map = packed(vectors[i].map);
		usage_read(&got, str_of_bytes(map));
		free(map.p);
		if (memcmp(&got, &want, sizeof(got)) != 0)
			fail_msg("%s: %lld %lld %lld, cache %lld %lld, reasoning %lld",
			         vectors[i].source, (long long)got.input, (long long)got.output,
			         (long long)got.total, (long long)got.cache_read,
			         (long long)got.cache_write, (long long)got.reasoning);
		assert_int_equal(usage_is_known(&got),
		                 want.input >= 0 || want.output >= 0 || want.total >= 0);
	}
}

static void test_no_map_is_no_usage(void **state)
{
	struct usage u;

	(void)state;
	usage_read(&u, (struct str){0});
	assert_false(usage_is_known(&u));
}

static void test_any_map_cut_anywhere_is_read_within_its_bounds(void **state)
{
	(void)state;

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct bytes map = packed(vectors[i].map);
		for (size_t len = 1; len < map.len; len++) {
			struct bytes cut = copy_of((struct str){map.p, len});
			struct usage u;
			usage_read(&u, str_of_bytes(cut));
			free(cut.p);
		}
		free(map.p);
	}
}

static void test_sums_add_what_is_known(void **state)
{
	struct usage sum, a = {1, NO, 1, NO, 2, NO}, b = {3, 4, 7, NO, NO, 0};

	(void)state;
	usage_init(&sum);
	usage_add(&sum, &a);
	usage_add(&sum, &b);
	assert_memory_equal(&sum, &((struct usage){4, 4, 8, NO, 2, 0}), sizeof(sum));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_providers_words_are_understood),
		cmocka_unit_test(test_no_map_is_no_usage),
		cmocka_unit_test(test_any_map_cut_anywhere_is_read_within_its_bounds),
		cmocka_unit_test(test_sums_add_what_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
