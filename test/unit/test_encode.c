#include "runs_fixture.h"

#include "core/encode.h"

/* A span's name, OTLP kind and attributes, as one run of each convention gives them. */
struct golden {
	enum convention convention;
	const char *start, *end;
	const char *name;
	unsigned otlp_kind;
	const char *attributes;
};

#define SAID                                                                                       \
	"'name':'search','model':'m','provider':'openai','session':'s','user':'u','tags':['x','y'" \
	"],"                                                                                       \
	"'attrs':{'my.key':{'a':[1,2.5,true,null]}}"
#define COMMON "'user.id':'u','sidelight.tags':['x','y'],'my.key':{'a':[1,2.5,true,null]}"
#define GENAI                                                                                      \
	"'gen_ai.provider.name':'openai','gen_ai.request.model':'m','gen_ai.conversation.id':'s'"
#define SEAMS "'llm.provider':'openai','llm.model':'m','session_id':'s','latency_ms':1500.01"
#define USED "'usage':{'input_tokens':10,'output_tokens':4,'total_tokens':14}"

static const struct golden goldens[] = {
	{CONVENTION_GENAI, "'kind':'llm'," SAID, "'model':'m-1','finish':'stop'," USED, "chat m", 3,
         "'gen_ai.operation.name':'chat'," GENAI "," COMMON ",'gen_ai.response.model':'m-1',"
         "'gen_ai.response.finish_reasons':['stop'],'gen_ai.usage.input_tokens':10,"
         "'gen_ai.usage.output_tokens':4"},
	{CONVENTION_GENAI, "'kind':'tool'," SAID, "", "execute_tool search", 1,
         "'gen_ai.operation.name':'execute_tool','gen_ai.tool.name':'search'," GENAI "," COMMON},
	{CONVENTION_GENAI, "'kind':'agent'," SAID, "", "invoke_agent search", 1,
         "'gen_ai.operation.name':'invoke_agent','gen_ai.agent.name':'search'," GENAI "," COMMON},
	{CONVENTION_GENAI, "'kind':'embedding'," SAID, "", "embeddings m", 3,
         "'gen_ai.operation.name':'embeddings'," GENAI "," COMMON},
	{CONVENTION_GENAI, "'kind':'retriever'," SAID, "", "search", 1,
         "'gen_ai.operation.name':'retrieval'," GENAI "," COMMON},
	{CONVENTION_GENAI, "'kind':'chain'," SAID, "", "search", 1, GENAI "," COMMON},
	{CONVENTION_GENAI, "'kind':'guardrail','name':'g'", "", "g", 1,
         "'sidelight.kind':'guardrail'"},
	{CONVENTION_GENAI, "", "", "other", 1, ""},
	{CONVENTION_GENAI, "'kind':'llm'", "", "chat", 3, "'gen_ai.operation.name':'chat'"},
	{CONVENTION_GENAI, "'kind':'llm'",
         "'usage':{'input_tokens':1,'cache_read_input_tokens':2,'cache_creation_input_tokens':30,"
         "'cache_creation':{'ephemeral_5m_input_tokens':10,'ephemeral_1h_input_tokens':20},"
         "'input_tokens_details':{'audio_tokens':1},'output_tokens':9,"
         "'output_tokens_details':{'audio_tokens':4,'reasoning_tokens':3},"
         "'sidelight.estimated':true}",
         "chat", 3,
         "'gen_ai.operation.name':'chat','gen_ai.usage.input_tokens':33,"
         "'gen_ai.usage.output_tokens':9,'gen_ai.usage.cache_read.input_tokens':2,"
         "'gen_ai.usage.cache_creation.input_tokens':30,"
         "'gen_ai.usage.reasoning.output_tokens':3,'gen_ai.usage.audio.input_tokens':1,"
         "'gen_ai.usage.audio.output_tokens':4,"
         "'sidelight.usage.cache_creation_5m.input_tokens':10,"
         "'sidelight.usage.cache_creation_1h.input_tokens':20,'sidelight.usage.estimated':true"},
	{CONVENTION_GENAI, "'kind':'llm'",
         "'usage':{'prompt_tokens':1,'prompt_tokens_details':{'audio_tokens':0,'cached_tokens':0},"
         "'cache_creation':{'ephemeral_5m_input_tokens':0}}",
         "chat", 3,
         "'gen_ai.operation.name':'chat','gen_ai.usage.input_tokens':1,"
         "'gen_ai.usage.cache_read.input_tokens':0,'gen_ai.usage.cache_creation.input_tokens':0"},
	{CONVENTION_GENAI, "'kind':'llm'", "'usage':{'total_tokens':14}", "chat", 3,
         "'gen_ai.operation.name':'chat','sidelight.usage.total_tokens':14"},
	{CONVENTION_SEAMS, "'kind':'llm'," SAID, "'model':'m-1','finish':['stop','length']," USED,
         "llm.call", 1,
         SEAMS "," COMMON ",'gen_ai.response.finish_reasons':['stop','length'],"
               "'llm.prompt_tokens':10,'llm.completion_tokens':4,'llm.total_tokens':14"},
	{CONVENTION_SEAMS, "'kind':'tool'," SAID, "", "tool.search", 1,
         "'tool.name':'search'," SEAMS "," COMMON},
	{CONVENTION_SEAMS, "'kind':'agent'," SAID, "", "agent.run", 1, SEAMS "," COMMON},
	{CONVENTION_SEAMS, "'kind':'chain'," SAID, "", "search", 1, SEAMS "," COMMON},
	{CONVENTION_BOTH, "'kind':'tool'," SAID, "", "execute_tool search", 1,
         "'gen_ai.operation.name':'execute_tool','gen_ai.tool.name':'search','tool.name':'search'"
         "," GENAI "," SEAMS "," COMMON},
	{CONVENTION_BOTH, "'kind':'llm'," SAID, USED, "chat m", 3,
         "'gen_ai.operation.name':'chat'," GENAI "," SEAMS "," COMMON
         ",'gen_ai.usage.input_tokens':10,'gen_ai.usage.output_tokens':4,'llm.prompt_tokens':10,"
         "'llm.completion_tokens':4,'llm.total_tokens':14"},
};

static json_t *json_of(const char *members)
{
	char *text = NULL;

	assert_true(asprintf(&text, "{%s}", members) > 0);
	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json_t *v = json_loads(text, 0, NULL);
	if (!v)
		fail_msg("%s", text);
	free(text);
	return v;
}

static void check_golden(const struct golden *g)
{
	struct span_view view;
	struct world w;

	world_init(&w, g->convention);
	start(&w, "a", g->start);
	pass(&w, 1500 * MS + 10 * 1000);
	end(&w, "a", g->end);
	json_t *span = span_of(&w, "a"), *want = json_of(g->attributes);
	const json_t *got = member(span, "attributes");
	// seams says how long every run took
	if (g->convention == CONVENTION_SEAMS || g->convention == CONVENTION_BOTH)
		json_object_set_new(want, "latency_ms", json_real(1500.01));
	if (!json_equal(got, want)) {
		char *a = json_dumps(got, JSON_SORT_KEYS), *b = json_dumps(want, JSON_SORT_KEYS);
		fail_msg("%s\n  gave %s\n  not  %s", g->start, a, b);
	}
	assert_string_equal(text_at(span, "name"), g->name);
	struct span_record rec = record_of_span(&w.spans[0]);
	assert_int_equal(span_view(&view, &rec), 0);
	assert_int_equal(view.otlp_kind, g->otlp_kind);
	assert_int_equal(view.status_code, 0); // unset on success
	json_decref(span);
	json_decref(want);
	world_deinit(&w);
}

static void test_names_and_attributes_of_each_kind_in_each_convention(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(goldens) / sizeof(goldens[0]); i++)
		check_golden(&goldens[i]);
}

static void test_the_prefix_is_ids_start_and_flags(void **state)
{
	static const uint8_t want[] =
		"\x0a\x10TTTTTTTTTTTTTTTT\x12\x08SSSSSSSS\x22\x08PPPPPPPP"
		"\x39\x08\x07\x06\x05\x04\x03\x02\x01\x85\x01\x01\x03\x00\x00";
	struct span_ids ids = {.has_parent = true, .parent_is_remote = true};
	struct buf out;

	(void)state;
	memset(ids.trace_id, 'T', 16);
	memset(ids.span_id, 'S', 8);
	memset(ids.parent_id, 'P', 8);
	buf_init(&out, KIB);
	encode_prefix(&out, &ids, 0x0102030405060708);
	assert_int_equal(out.len, sizeof(want) - 1);
	assert_memory_equal(out.data, want, out.len);
	assert_in_range(out.len, 1, PREFIX_MAX);
	buf_deinit(&out);
}

/* --- status --- */

static void test_a_failure_has_its_type_message_and_stack(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'tool','name':'t'");
	end(w, "a", "'error':{'type':'ValueError','message':'bad','stack':'line 1'}");
	json_t *span = span_of(w, "a");
	assert_string_equal(text_at(span, "status/code"), "error");
	assert_string_equal(text_at(span, "status/message"), "bad");
	assert_string_equal(text_at(span, "attributes/error.type"), "ValueError");
	assert_string_equal(text_at(span, "events/0/name"), "exception");
	assert_string_equal(text_at(span, "events/0/attributes/exception.type"), "ValueError");
	assert_string_equal(text_at(span, "events/0/attributes/exception.stacktrace"), "line 1");
	json_decref(span);
	start(w, "b", NULL);
	end(w, "b", "'error':{}");
	span = span_of(w, "b");
	assert_string_equal(text_at(span, "attributes/error.type"), "_OTHER");
	json_decref(span);
}

static void test_a_long_error_is_cut_and_the_cut_is_told(void **state)
{
	struct world *w = *state;
	char fields[8192], text[3001];

	memset(text, 'x', 3000);
	text[3000] = '\0';
	snprintf(fields, sizeof(fields), "'error':{'type':'E','message':'%s','stack':'%s'}", text,
	         text);
	start(w, "a", NULL);
	end(w, "a", fields);
	json_t *span = span_of(w, "a");
	assert_int_equal(strlen(text_at(span, "status/message")), 1024);
	assert_int_equal(count_at(span, "attributes/sidelight.cut.error.message"), 3000);
	assert_int_equal(count_at(span, "attributes/sidelight.cut.error.stack"), 3000);
	json_decref(span);
	assert_int_equal(stat_get(&w->stats.values_cut), 2);
}

/* --- content --- */

static bool holds(struct bytes b, const char *text)
{
	return memmem(b.p, b.len, text, strlen(text)) != NULL;
}

static void test_content_stands_apart_from_the_base(void **state)
{
	static const char *const kinds[] = {"agent",     "chain",     "llm",  "tool",
	                                    "retriever", "embedding", "other"};

	(void)state;
	for (int c = CONVENTION_GENAI; c <= CONVENTION_BOTH; c++) {
		struct world w;
		char fields[128];
		world_init(&w, (enum convention)c);
		for (int i = 0; i < 7; i++) {
			snprintf(fields, sizeof(fields), "'kind':'%s','name':'n','input':'SECRET'",
			         kinds[i]);
			start(&w, kinds[i], fields);
			end(&w, kinds[i], "'output':[{'role':'ai','content':'SECRET'}]");
			const struct saved_span *s = find_span(&w, kinds[i]);
			assert_false(holds(s->base, "SECRET"));
			assert_true(holds(s->content, "SECRET"));
		}
		world_deinit(&w);
	}
}

static void test_nothing_is_captured_where_content_is_off(void **state)
{
	struct world *w = *state;

	w->o.content = false;
	runs_free(w->r);
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	start(w, "a", "'kind':'llm','input':'SECRET'");
	end(w, "a", "'output':'SECRET'");
	assert_int_equal(w->spans[0].content.len, 0);
	assert_false(holds(w->observations[0].json, "SECRET"));
}

static void check_content(enum convention convention, const char *kind, const char *key)
{
	struct world w;
	char fields[64], path[64];

	world_init(&w, convention);
	snprintf(fields, sizeof(fields), "'kind':'%s','input':'in'", kind);
	snprintf(path, sizeof(path), "attributes/%s", key);
	start(&w, "a", fields);
	end(&w, "a", NULL);
	json_t *span = span_of(&w, "a");
	assert_non_null(strstr(text_at(span, path), "in"));
	json_decref(span);
	world_deinit(&w);
}

static void test_where_content_goes(void **state)
{
	(void)state;
	check_content(CONVENTION_GENAI, "llm", "gen_ai.input.messages");
	check_content(CONVENTION_SEAMS, "llm", "sidelight.input");
	check_content(CONVENTION_GENAI, "tool", "gen_ai.tool.call.arguments");
	check_content(CONVENTION_SEAMS, "tool", "tool.input");
	check_content(CONVENTION_BOTH, "tool", "gen_ai.tool.call.arguments");
	check_content(CONVENTION_BOTH, "tool", "tool.input");
	check_content(CONVENTION_GENAI, "retriever", "gen_ai.retrieval.query.text");
	check_content(CONVENTION_GENAI, "chain", "sidelight.input");
	check_content(CONVENTION_GENAI, "agent", "sidelight.input");
}

static void test_long_content_is_cut_at_a_character_and_the_cut_is_told(void **state)
{
	struct world *w = *state;
	char fields[4096] = "'kind':'chain','input':'x";

	for (int i = 0; i < 600; i++)
		strcat(fields, "\\u00e9"); // two bytes each
	strcat(fields, "'");
	start(w, "a", fields);
	end(w, "a", NULL);
	json_t *span = span_of(w, "a");
	assert_int_equal(strlen(text_at(span, "attributes/sidelight.input")), 1023);
	assert_int_equal(count_at(span, "attributes/sidelight.cut.input"), 1201);
	json_decref(span);
	assert_int_equal(stat_get(&w->stats.values_cut), 1);
}

static void test_content_that_just_fits_is_not_cut(void **state)
{
	static const char *const kinds[] = {"llm", "chain"};
	struct world *w = *state;
	char fields[2048], text[1025];

	memset(text, 'x', 1024);
	text[1024] = '\0';
	for (int i = 0; i < 2; i++) {
		snprintf(fields, sizeof(fields), "'kind':'%s','input':'%s'", kinds[i], text);
		start(w, kinds[i], fields);
		end(w, kinds[i], NULL);
		json_t *span = span_of(w, kinds[i]);
		assert_null(member(span, "attributes/sidelight.cut.input"));
		json_decref(span);
	}
	assert_int_equal(stat_get(&w->stats.values_cut), 0);
}

static void test_bytes_that_are_no_utf8_are_replaced(void **state)
{
	struct encoder e;
	struct buf base, content;
	struct event ev = {.type = EVENT_START,
	                   .kind = KIND_CHAIN,
	                   .name = STR("n"),
	                   .input = STR("\xa3"
	                                "a\xff"
	                                "b"),
	                   .attrs = STR("\x81\xa1k\xa2\xc3x")};

	(void)state;
	encoder_init(&e, CONVENTION_GENAI, true, 1024);
	buf_init(&base, KIB);
	buf_init(&content, KIB);
	encode_start(&e, &ev, &base, &content);
	assert_non_null(memmem(content.data, content.len,
	                       "a\xef\xbf\xbd"
	                       "b",
	                       5));
	assert_non_null(memmem(base.data, base.len, "\xef\xbf\xbdx", 4));
	buf_deinit(&base);
	buf_deinit(&content);
	encoder_deinit(&e);
}

static unsigned count_key(const struct buf *b, const char *key)
{
	unsigned count = 0;
	const uint8_t *p = b->data, *end = b->data + b->len;
	size_t len = strlen(key);

	while ((p = memmem(p, (size_t)(end - p), key, len)) != NULL) {
		count += p[-1] == len; // a key, by its length before it
		p += len;
	}
	return count;
}

static void test_no_attribute_is_written_twice(void **state)
{
	struct encoder e;
	struct buf base, content;
	struct usage usage;
	struct ending ending = {.status = STATUS_OK, .end_ns = 2};
	struct event ev = {.type = EVENT_START,
	                   .kind = KIND_TOOL,
	                   .name = STR("n"),
	                   .attrs = STR("\x82\xa9"
	                                "tool.name\xa1x\xb0gen_ai.tool.name\xa1y")};
	struct event end = {.type = EVENT_END,
	                    .attrs = STR("\x82\xa9"
	                                 "tool.name\xa1z\xa3own\xa1z")};
	const struct resource_pair extra[] = {{STR("dep"), STR("prod")}, {STR("new"), STR("1")}};

	(void)state;
	encoder_init(&e, CONVENTION_GENAI, true, 1024);
	buf_init(&base, 4 * KIB);
	buf_init(&content, KIB);
	usage_init(&usage);
	encode_start(&e, &ev, &base, &content);
	encode_end(&e, KIND_TOOL, &end, &ending, &usage, NULL, &base, &content);
	assert_int_equal(count_key(&base, "gen_ai.tool.name"), 1);
	assert_int_equal(count_key(&base, "tool.name"), 1);
	assert_int_equal(count_key(&base, "own"), 1);
	buf_clear(&base);
	encode_resource(&base, STR("svc"),
	                STR("\x83\xac"
	                    "service.name\xa1x\xa3"
	                    "dep\xa1x\xb2telemetry.sdk.name\xa1x"),
	                STR("s/1"), extra, 2);
	assert_int_equal(count_key(&base, "service.name"), 1);
	assert_int_equal(count_key(&base, "dep"), 1);
	assert_int_equal(count_key(&base, "new"), 1);
	assert_int_equal(count_key(&base, "telemetry.sdk.name"), 1);
	assert_null(memmem(base.data, base.len, "prod", 4)); // the agent's own stays
	buf_deinit(&base);
	buf_deinit(&content);
	encoder_deinit(&e);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_names_and_attributes_of_each_kind_in_each_convention),
		T(test_the_prefix_is_ids_start_and_flags),
		T(test_a_failure_has_its_type_message_and_stack),
		T(test_a_long_error_is_cut_and_the_cut_is_told),
		T(test_content_stands_apart_from_the_base),
		T(test_nothing_is_captured_where_content_is_off),
		T(test_where_content_goes),
		T(test_long_content_is_cut_at_a_character_and_the_cut_is_told),
		T(test_content_that_just_fits_is_not_cut),
		T(test_bytes_that_are_no_utf8_are_replaced),
		T(test_no_attribute_is_written_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
