#include "runs_fixture.h"

static const struct closing lost = {
	.status = STATUS_ERROR, .error_type = {"connection_lost", 15}, .evidence = {"gone", 4}};
static const struct closing bye = {.status = STATUS_CANCELLED, .error_type = {"bye", 3}};

static void partial(struct world *w, const char *id, const char *text, int tokens)
{
	char *fields = NULL;

	assert_true(asprintf(&fields, "'text':'%s','tokens':%d", text, tokens) > 0);
	point(w, id, "partial_output", fields);
	free(fields);
}

static void start_llm(struct world *w)
{
	start(w, "a", "'kind':'llm','model':'m','input':'question'");
	point(w, "a", "first_token", NULL);
}

/* The content of the one message that is a span's output; the caller frees it. */
static char *output_of(const json_t *span)
{
	json_error_t error;
	json_t *attributes = json_object_get(span, "attributes");
	const char *text = json_string_value(json_object_get(attributes, "gen_ai.output.messages"));

	if (!text)
		return strdup("");
	json_t *messages = json_loads(text, 0, &error);
	assert_int_equal(json_array_size(messages), 1);
	json_t *message = json_array_get(messages, 0);
	assert_string_equal(json_string_value(json_object_get(message, "role")), "assistant");
	json_t *part = json_array_get(json_object_get(message, "parts"), 0);
	char *content = strdup(json_string_value(json_object_get(part, "content")));
	json_decref(messages);
	return content;
}

static const json_t *attribute(const json_t *span, const char *key)
{
	return json_object_get(json_object_get(span, "attributes"), key);
}

/* What a's span shows of its answer. tokens 0: no usage; cut 0: nothing is missing. */
static void assert_told(struct world *w, const char *text, bool is_partial, int tokens, int cut)
{
	json_t *span = span_of(w, "a");
	char *output = output_of(span);

	assert_string_equal(output, text);
	free(output);
	assert_true(json_is_true(attribute(span, "sidelight.partial_output")) == is_partial);
	assert_int_equal(json_integer_value(attribute(span, "gen_ai.usage.output_tokens")), tokens);
	assert_int_equal(json_integer_value(attribute(span, "sidelight.cut.output")), cut);
	json_t *events = json_object_get(span, "events");
	for (size_t i = 0; i < json_array_size(events); i++)
		assert_string_not_equal(text_at(json_array_get(events, i), "name"),
		                        "partial_output");
	json_decref(span);
}

static void lose(struct world *w)
{
	runs_close_source(w->r, w->s, &lost, w->now);
}

/* --- who wins --- */

static void test_a_lost_run_has_said_what_it_told(void **state)
{
	struct world *w = *state;

	start_llm(w);
	partial(w, "a", "The weather", 3);
	partial(w, "a", " in Paris", 5);
	lose(w);
	assert_told(w, "The weather in Paris", true, 5, 0);
	json_t *span = span_of(w, "a");
	assert_true(json_is_true(attribute(span, "sidelight.usage.estimated")));
	assert_string_equal(json_string_value(attribute(span, "error.type")), "connection_lost");
	assert_string_equal(json_string_value(attribute(span, "sidelight.evidence")), "gone");
	assert_non_null(attribute(span, "gen_ai.response.time_to_first_chunk"));
	json_decref(span);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "agent_response"), "The weather in Paris");
	assert_true(json_is_true(member(o, "tokens_estimated")));
	json_decref(o);
	assert_nothing_left(w);
}

static void test_a_run_that_is_cancelled_without_an_end_has_said_it_too(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "a", "'kind':'llm','parent':'root'");
	partial(w, "a", "Half an ans", 3);
	end(w, "root", NULL);
	tick_after(w, 6 * SECOND);
	assert_told(w, "Half an ans", true, 3, 0);
	assert_nothing_left(w);

	start(w, "b", "'kind':'llm'");
	partial(w, "b", "x", 1);
	runs_close_source(w->r, w->s, &bye, w->now);
	json_t *span = span_of(w, "b");
	char *output = output_of(span);
	assert_string_equal(output, "x");
	free(output);
	json_decref(span);
	assert_nothing_left(w);
}

static void test_an_end_of_its_own_wins(void **state)
{
	struct world *w = *state;

	start_llm(w);
	partial(w, "a", "The wea", 2);
	commit(w);
	end(w, "a", "'output':'The weather is fine','usage':{'output_tokens':6}");
	assert_told(w, "The weather is fine", false, 6, 0);
	assert_nothing_left(w);
}

static void test_an_end_with_neither_takes_both(void **state)
{
	struct world *w = *state;

	start_llm(w);
	partial(w, "a", "The wea", 2);
	end(w, "a", "'error':{'type':'ReadError'},'usage':{}");
	assert_told(w, "The wea", true, 2, 0);
	assert_nothing_left(w);
}

static void test_an_end_with_one_of_the_two_lacks_nothing(void **state)
{
	struct world *w = *state;

	start_llm(w);
	partial(w, "a", "The wea", 2);
	end(w, "a", "'output':'The weather'");
	assert_told(w, "The weather", false, 0, 0);

	start(w, "b", "'kind':'llm'");
	partial(w, "b", "x", 1);
	end(w, "b", "'usage':{'output_tokens':9}");
	json_t *span = span_of(w, "b");
	assert_int_equal(json_integer_value(attribute(span, "gen_ai.usage.output_tokens")), 9);
	assert_null(attribute(span, "sidelight.usage.estimated"));
	assert_null(attribute(span, "gen_ai.output.messages"));
	json_decref(span);
	assert_nothing_left(w);
}

static void test_tokens_alone_are_no_output(void **state)
{
	struct world *w = *state;

	start_llm(w);
	point(w, "a", "partial_output", "'tokens':7");
	point(w, "a", "partial_output", "'tokens':4"); // sent twice, or out of order
	commit(w);
	crash(w);
	lose(w);
	assert_told(w, "", false, 7, 0);
	assert_nothing_left(w);
}

static void test_without_content_only_tokens_are_kept(void **state)
{
	struct world *w = *state;

	world_deinit(w);
	world_init(w, CONVENTION_GENAI);
	runs_free(w->r);
	w->o.content = false;
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	start_llm(w);
	partial(w, "a", "secret", 2);
	assert_int_equal(seal(w), 0);
	for (const struct change *c = w->sealed; c; c = c->next)
		assert_null(memmem(c->value.p, c->value.len, "secret", 6));
	settle(w);
	lose(w);
	assert_told(w, "", false, 2, 0);
	assert_nothing_left(w);
}

static void test_a_held_run_has_said_it_once(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'llm','parent':'late'");
	partial(w, "a", "Half", 1);
	commit(w);
	lose(w);
	start(w, "late", "'kind':'agent'");
	end(w, "late", NULL);
	assert_told(w, "Half", true, 1, 0);
	assert_nothing_left(w);
}

static void test_what_no_open_run_said_is_dropped(void **state)
{
	struct world *w = *state;

	partial(w, "a", "x", 1);
	start_llm(w);
	end(w, "a", NULL);
	partial(w, "a", "x", 1);
	assert_int_equal(stat_get(&w->stats.events_dropped), 2);
	assert_int_equal(w->event_count, 0);
	assert_told(w, "", false, 0, 0);
	assert_nothing_left(w);
}

/* --- restarts --- */

static void test_it_outlives_a_restart(void **state)
{
	struct world *w = *state;
	char text[101];

	// Of several pages each, the last one not full.
	runs_free(w->r);
	w->o.max_value = 64 * KIB;
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	start_llm(w);
	char *all = calloc(1, 20000);
	assert_non_null(all);
	for (int i = 0; i < 180; i++) {
		snprintf(text, sizeof(text), "%03d%96s|", i, "");
		partial(w, "a", text, i + 1);
		strcat(all, text);
		if (i % 7 == 0)
			restart(w);
		else if (i % 3 == 0)
			commit(w);
	}
	restart(w);
	assert_int_equal(durable_count(w), 1 + (strlen(all) + 3583) / 3584);
	lose(w);
	assert_told(w, all, true, 180, 0);
	free(all);
	assert_nothing_left(w);
}

static void test_what_was_not_committed_is_lost_from_its_end(void **state)
{
	struct world *w = *state;

	start_llm(w);
	partial(w, "a", "one ", 1);
	commit(w);
	partial(w, "a", "two ", 2);
	assert_int_equal(seal(w), 0);
	partial(w, "a", "three", 3);
	crash(w);
	lose(w);
	assert_told(w, "one ", true, 1, 0);
	assert_nothing_left(w);
}

static void test_a_sink_that_is_full_takes_it_later(void **state)
{
	struct world *w = *state;

	start_llm(w);
	commit(w);
	partial(w, "a", "one ", 1);
	w->no_opens = true;
	assert_int_equal(seal(w), -ENOSPC);
	settle(w);
	assert_true(runs_bytes(w->r) > 0);
	w->no_opens = false;
	restart(w);
	lose(w);
	assert_told(w, "one ", true, 1, 0);
	assert_nothing_left(w);
}

static void test_a_page_that_is_nobodys_is_refused(void **state)
{
	struct world *w = *state;
	struct world other;

	start_llm(w);
	partial(w, "a", "one", 1);
	commit(w);
	world_init(&other, CONVENTION_GENAI);
	unsigned refused = 0;
	for (int i = 0; i < DURABLE_BUCKETS; i++)
		for (const struct change *c = w->durable[i]; c; c = c->next)
			refused += runs_restore_said(other.r, &c->run, str_of_bytes(c->value)) < 0;
	assert_int_equal(refused, 1);
	world_deinit(&other);
	lose(w);
	assert_nothing_left(w);
}

/* Whoever knows a run's id can name another run like one of its pages. */
static void test_a_run_that_is_named_like_a_page_has_no_span_of_its_text(void **state)
{
	struct world *w = *state;
	struct run_id run, key;
	uint8_t span_id[8];
	char id[37], *at = id;

	start_llm(w);
	ids_of("a", &run, span_id);
	key = runs_said_key(&run, 0);
	for (int i = 0; i < 16; i++)
		at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
		              key.b[i]);
	assert_int_equal(start(w, id, "'kind':'llm','input':'question'"), REFUSAL_NONE);
	commit(w);
	partial(w, "a", "an answer of thirty-two letters.", 1);
	commit(w);
	assert_int_equal(end(w, id, "'output':'answer'"), REFUSAL_NONE);
	assert_int_equal(w->span_count, 0);
	assert_int_equal(stat_get(&w->stats.spans_dropped), 1);
	lose(w);
	assert_told(w, "an answer of thirty-two letters.", true, 1, 0);
	assert_nothing_left(w);
}

static void test_where_something_was_lost_the_text_ends(void **state)
{
	struct world *w = *state;

	start_llm(w);
	point(w, "a", "partial_output", "'text':'one ','at':0");
	point(w, "a", "partial_output", "'text':'one ','at':0"); // came twice
	point(w, "a", "partial_output", "'text':'two ','at':4");
	point(w, "a", "partial_output", "'text':'four','at':14,'tokens':5");
	restart(w);
	point(w, "a", "partial_output", "'text':' five','at':18");
	lose(w);
	assert_told(w, "one two ", true, 5, 23);
	assert_nothing_left(w);
}

static void test_a_place_that_can_not_be_is_the_last_one(void **state)
{
	struct world *w = *state;

	start_llm(w);
	point(w, "a", "partial_output", "'text':'one ','at':0");
	for (int i = 0; i < 2; i++)
		point(w, "a", "partial_output", "'text':'two','at':9223372036854775807");
	lose(w);
	json_t *span = span_of(w, "a");
	assert_true(json_integer_value(attribute(span, "sidelight.cut.output")) == INT64_MAX);
	json_decref(span);
	assert_nothing_left(w);
}

/* --- bounds --- */

static void test_it_is_cut_at_the_longest_value(void **state)
{
	struct world *w = *state;
	char piece[101], want[1025] = "";

	memset(piece, 'x', 100);
	piece[100] = '\0';
	memcpy(piece + 97, "\xe6\x97\xa5", 3); // it must not be cut inside
	start_llm(w);
	for (int i = 0; i < 20; i++)
		partial(w, "a", piece, i);
	for (int i = 0; i < 10; i++)
		strcat(want, piece);
	memset(want + 1000, 'x', 24);
	restart(w);
	partial(w, "a", "more", 20);
	lose(w);
	assert_told(w, want, true, 20, 2004);
	assert_int_equal(stat_get(&w->stats.values_cut), 1);
	assert_nothing_left(w);
}

static void test_open_bytes_bound_it_too(void **state)
{
	struct world *w = *state;

	runs_free(w->r);
	w->o.max_open_bytes = 8 * KIB;
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	char *input = malloc(5000);
	assert_non_null(input);
	snprintf(input, 5000, "'kind':'llm','input':'%*s'", 4000, "");
	start(w, "b", input);
	start(w, "a", "'kind':'llm'");
	partial(w, "a", "one ", 1);
	snprintf(input, 5000, "%2000s", "");
	partial(w, "b", input, 1);
	assert_int_equal(stat_get(&w->stats.events_dropped), 1);
	end(w, "b", NULL);
	partial(w, "a", "two", 2);
	lose(w);
	assert_told(w, "one two", true, 2, 0);
	free(input);
	assert_nothing_left(w);
}

static void test_they_leave_room_for_runs_that_begin(void **state)
{
	struct world *w = *state;
	char id[] = "0", answer[1001];

	runs_free(w->r);
	w->o.max_open_bytes = 40 * KIB;
	w->o.max_said_bytes = 20 * KIB;
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	snprintf(answer, sizeof(answer), "%1000s", "");
	for (int i = 0; i < 20; i++, id[0]++) {
		start(w, id, "'kind':'llm'");
		partial(w, id, answer, 1);
	}
	unsigned dropped = (unsigned)stat_get(&w->stats.events_dropped);
	assert_in_range(dropped, 1, 19);
	assert_int_equal(w->span_count, 0); // nobody was given up
	lose(w);
	unsigned told = 0;
	for (size_t i = 0; i < w->span_count; i++)
		told += w->spans[i].content.len > 1000;
	assert_int_equal(told, 20 - dropped);
	assert_nothing_left(w);
	start(w, "a", "'kind':'llm'");
	partial(w, "a", "one", 1); // there is room again
	lose(w);
	assert_told(w, "one", true, 1, 0);
}

/* Ten minutes of a long answer to a long prompt, one partial and two commits a second. */
static void test_a_long_answer_costs_little(void **state)
{
	struct world *w = *state;
	size_t put = 0;

	runs_free(w->r);
	w->o.max_value = 64 * KIB;
	w->o.max_frame = 1024 * KIB;
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	char *input = malloc(70000);
	assert_non_null(input);
	snprintf(input, 70000, "'kind':'llm','input':'%*s'", 65000, "");
	start(w, "a", input);
	free(input);
	commit(w);
	for (int i = 0; i < 600; i++) {
		partial(w, "a",
		        "a hundred bytes of an answer, as a model of today says them in one second "
		        "or so, more or less.....",
		        i);
		for (int k = 0; k < 2; k++) {
			size_t bound = runs_bytes(w->r);
			assert_int_equal(seal(w), 0);
			size_t sealed = 0;
			for (const struct change *c = w->sealed; c; c = c->next)
				sealed += c->value.len;
			assert_true(sealed <= bound);
			put += sealed;
			settle(w);
		}
	}
	assert_true(put < 600 * 4200); // not 600 times 65,000
	assert_true(durable_count(w) <= 1 + 65536 / 3584 + 1);
	lose(w);
	assert_nothing_left(w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_lost_run_has_said_what_it_told),
		T(test_a_run_that_is_cancelled_without_an_end_has_said_it_too),
		T(test_an_end_of_its_own_wins),
		T(test_an_end_with_neither_takes_both),
		T(test_an_end_with_one_of_the_two_lacks_nothing),
		T(test_tokens_alone_are_no_output),
		T(test_without_content_only_tokens_are_kept),
		T(test_a_held_run_has_said_it_once),
		T(test_what_no_open_run_said_is_dropped),
		T(test_it_outlives_a_restart),
		T(test_what_was_not_committed_is_lost_from_its_end),
		T(test_a_sink_that_is_full_takes_it_later),
		T(test_a_page_that_is_nobodys_is_refused),
		T(test_a_run_that_is_named_like_a_page_has_no_span_of_its_text),
		T(test_where_something_was_lost_the_text_ends),
		T(test_a_place_that_can_not_be_is_the_last_one),
		T(test_it_is_cut_at_the_longest_value),
		T(test_open_bytes_bound_it_too),
		T(test_they_leave_room_for_runs_that_begin),
		T(test_a_long_answer_costs_little),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
