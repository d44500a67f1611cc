#include "runs_fixture.h"

static long long observed(const struct world *w, size_t i, const char *path)
{
	json_t *o = observation_at(w, i);
	long long count = count_at(o, path);

	json_decref(o);
	return count;
}

/* --- seal, commit --- */

static void test_a_run_that_ends_before_the_commit_is_never_stored(void **state)
{
	struct world *w = *state;

	start(w, "a", "'input':'x'");
	assert_true(runs_bytes(w->r) > 0);
	end(w, "a", NULL);
	assert_int_equal(seal(w), 0);
	assert_null(w->sealed);
	settle(w);
	assert_nothing_left(w);
}

static void test_a_stored_run_ends_from_the_store(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'agent','name':'bot','input':'question'");
	point(w, "a", "one", NULL);
	commit(w);
	assert_int_equal(runs_bytes(w->r), 0);
	assert_int_equal(durable_count(w), 1);
	point(w, "a", "two", NULL);
	commit(w);
	end(w, "a", "'output':'answer'");
	json_t *span = span_of(w, "a");
	assert_int_equal(json_array_size(member(span, "events")), 2);
	json_decref(span);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "user_message"), "question");
	assert_string_equal(text_at(o, "agent_response"), "answer");
	json_decref(o);
	assert_nothing_left(w);
}

static void test_a_run_may_end_while_its_start_is_being_committed(void **state)
{
	struct world *w = *state;

	start(w, "a", "'input':'x'");
	start(w, "b", NULL);
	seal(w);
	end(w, "a", NULL);
	point(w, "b", "p", NULL);
	start(w, "c", NULL);
	settle(w);
	assert_int_equal(durable_count(w), 2); // a's delete is in the next commit
	commit(w);
	assert_int_equal(durable_count(w), 2); // b and c
	end(w, "b", NULL);
	end(w, "c", NULL);
	json_t *span = span_of(w, "b");
	assert_int_equal(json_array_size(member(span, "events")), 1);
	json_decref(span);
	assert_int_equal(w->span_count, 3);
	assert_nothing_left(w);
}

static void test_a_commit_that_takes_long_holds_nothing_up(void **state)
{
	struct world *w = *state;

	start(w, "a", "'input':'x'");
	seal(w); // the store can't write it for a while, and tries again
	for (int i = 0; i < 100; i++) {
		char id[16];
		snprintf(id, sizeof(id), "r%d", i);
		start(w, id, "'parent':'a'");
		end(w, id, NULL);
	}
	end(w, "a", NULL);
	assert_int_equal(w->span_count, 101);
	settle(w);
	assert_nothing_left(w);
}

static void test_what_the_sink_does_not_take_stays_in_memory(void **state)
{
	struct world *w = *state;

	start(w, "a", "'input':'x'");
	w->no_opens = true;
	assert_int_equal(seal(w), -ENOSPC);
	settle(w);
	assert_int_equal(durable_count(w), 0);
	w->no_opens = false;
	commit(w);
	assert_int_equal(durable_count(w), 1);
	end(w, "a", NULL);
	assert_non_null(find_span(w, "a"));
	assert_nothing_left(w);
}

static void test_an_early_end_that_is_gone_from_the_store_is_counted(void **state)
{
	struct world *w = *state;

	end(w, "a", NULL);
	commit(w);
	for (int i = 0; i < DURABLE_BUCKETS; i++) {
		free_changes(w->durable[i]);
		w->durable[i] = NULL;
	}
	tick_after(w, START_WAIT_NS);
	assert_int_equal(stat_get(&w->stats.spans_dropped), 1);
	assert_nothing_left(w);
}

static void test_a_run_that_is_gone_from_the_store_is_counted(void **state)
{
	struct world *w = *state;

	start(w, "a", NULL);
	commit(w);
	for (int i = 0; i < DURABLE_BUCKETS; i++) {
		free_changes(w->durable[i]);
		w->durable[i] = NULL;
	}
	end(w, "a", NULL);
	assert_int_equal(w->span_count, 0);
	assert_int_equal(stat_get(&w->stats.spans_dropped), 1);
	assert_nothing_left(w);
}

/* --- restarts --- */

static void test_an_open_run_goes_on_after_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'agent','input':'question'");
	pass(w, SECOND);
	restart(w);
	assert_int_equal(runs_open_count(w->r), 1);
	pass(w, SECOND);
	assert_int_equal(start(w, "a", NULL), REFUSED_DUPLICATE_START);
	end(w, "a", "'output':'answer'");
	assert_true(w->spans[0].end_ns - w->spans[0].start_ns == 2 * SECOND);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "user_message"), "question");
	json_decref(o);
	assert_nothing_left(w);
}

static void test_what_was_not_committed_is_as_if_it_never_came(void **state)
{
	struct world *w = *state;

	start(w, "a", NULL);
	commit(w);
	end(w, "a", NULL);
	start(w, "b", NULL);
	crash(w);
	assert_int_equal(w->span_count, 0);
	assert_int_equal(runs_open_count(w->r), 1);
	end(w, "a", NULL);
	assert_int_equal(w->span_count, 1);
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

static void test_ended_runs_are_remembered_over_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "a", NULL);
	end(w, "a", NULL);
	restart(w);
	assert_int_equal(start(w, "a", NULL), REFUSED_DUPLICATE_START);
	assert_int_equal(end(w, "a", NULL), REFUSED_DUPLICATE_END);
	tick_after(w, 61 * SECOND);
	assert_int_equal(start(w, "a", NULL), 0);
}

static void test_an_early_end_outlives_a_restart(void **state)
{
	struct world *w = *state;

	end(w, "a", "'usage':{'input_tokens':4}");
	restart(w);
	assert_int_equal(end(w, "a", NULL), REFUSED_DUPLICATE_END);
	start(w, "a", "'kind':'llm'");
	assert_int_equal(observed(w, 0, "prompt_tokens"), 4);
	end(w, "b", NULL);
	restart(w);
	tick_after(w, START_WAIT_NS);
	assert_non_null(find_span(w, "b"));
	assert_nothing_left(w);
}

static void test_held_runs_outlive_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "c", "'parent':'p','kind':'llm'");
	start(w, "below", "'parent':'c'");
	start(w, "open", "'parent':'c'");
	end(w, "below", NULL);
	end(w, "c", "'usage':{'input_tokens':4}");
	restart(w);
	assert_int_equal(w->span_count, 0);
	start(w, "p", "'traceparent':'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'");
	assert_int_equal(w->span_count, 2);
	end(w, "open", NULL);
	end(w, "p", "'usage':{'input_tokens':4}");
	assert_same_trace(w, "c", "p");
	assert_same_trace(w, "below", "p");
	assert_same_trace(w, "open", "p");
	assert_int_equal(w->observation_count, 1);
	assert_int_equal(observed(w, 0, "prompt_tokens"), 4);
	assert_int_equal(observed(w, 0, "span_count"), 4);
	assert_nothing_left(w);
}

static void test_a_stored_child_that_joined_its_parent_stays_there_after_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "c", "'parent':'p'");
	commit(w);
	start(w, "p", "'traceparent':'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'");
	restart(w);
	end(w, "c", NULL);
	assert_non_null(find_span(w, "c"));
	end(w, "p", NULL);
	assert_same_trace(w, "c", "p");
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

static void test_a_request_whose_root_has_ended_goes_on_after_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent','input':'question','user':'u'");
	start(w, "llm", "'kind':'llm','model':'m','provider':'p','parent':'root'");
	commit(w);
	end(w, "root", "'output':'answer'");
	pass(w, SECOND);
	restart(w);
	end(w, "llm", "'usage':{'input_tokens':4}");
	assert_int_equal(w->observation_count, 1);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "user_message"), "question");
	assert_string_equal(text_at(o, "agent_response"), "answer");
	assert_string_equal(text_at(o, "user_id"), "u");
	assert_string_equal(text_at(o, "model"), "m");
	assert_string_equal(text_at(o, "kind"), "agent");
	assert_string_equal(text_at(o, "service"), "agent");
	assert_int_equal(count_at(o, "prompt_tokens"), 4);
	assert_int_equal(count_at(o, "span_count"), 2);
	json_decref(o);
	assert_nothing_left(w);
}

static void test_what_outlived_its_root_is_cancelled_after_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "root", NULL);
	start(w, "a", "'parent':'root'");
	pass(w, SECOND);
	end(w, "root", NULL);
	uint64_t ended = w->now.unix_ns;
	restart(w);
	restart(w);
	tick_after(w, ROOT_GRACE_NS);
	assert_true(find_span(w, "a")->end_ns == ended);
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

#define USED "'usage':{'input_tokens':10,'output_tokens':4}"

static void test_usage_counts_once_over_a_restart(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "chain", "'kind':'chain','parent':'root'");
	commit(w);
	start(w, "llm", "'kind':'llm','parent':'chain'");
	end(w, "llm", USED);
	end(w, "chain", USED);
	restart(w);
	end(w, "root", USED);
	assert_int_equal(observed(w, 0, "total_tokens"), 14);
}

static void test_a_finished_request_of_the_same_trace_is_not_counted_again(void **state)
{
	static const char traceparent[] =
		"'traceparent':'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'";
	struct world *w = *state;

	start(w, "first", traceparent);
	start(w, "chain", "'kind':'chain','parent':'first'");
	start(w, "llm", "'kind':'llm','parent':'chain'");
	end(w, "llm", USED);
	end(w, "chain", NULL);
	end(w, "first", NULL);
	start(w, "second", traceparent);
	start(w, "tool", "'kind':'tool','name':'t','parent':'second'");
	end(w, "tool", NULL);
	restart(w);
	end(w, "second", NULL);
	assert_int_equal(observed(w, 0, "total_tokens"), 14);
	assert_int_equal(observed(w, 1, "total_tokens"), -1);
	assert_int_equal(observed(w, 1, "span_count"), 2);
}

/* One agent's run with everything in it; after each step the world is told. */
static void play(struct world *w, void (*after)(struct world *w))
{
	static const struct {
		bool is_end;
		const char *id, *fields;
	} steps[] = {
		{false, "root",
	         "'kind':'agent','name':'bot','input':'q','session':'s','tags':['x']"},
		{false, "node", "'kind':'chain','name':'model','parent':'root'"},
		{false, "llm1", "'kind':'llm','model':'m1','provider':'p1','parent':'node'"},
		{true, "llm1", USED},
		{true, "node", USED},
		{false, "t1", "'kind':'tool','name':'search','input':{'q':1},'parent':'root'"},
		{false, "t2", "'kind':'tool','name':'fetch','parent':'root'"},
		{true, "t1", "'output':'found'"},
		{true, "t2", "'error':{'type':'Timeout','message':'too slow'}"},
		{false, "emb", "'kind':'embedding','model':'e','parent':'root'"},
		{true, "emb", "'usage':{'prompt_tokens':3}"},
		{false, "llm2", "'kind':'llm','model':'m2','provider':'p2','parent':'root'"},
		{true, "root", "'output':'a'," USED},
		{true, "llm2", "'usage':{'prompt_tokens':7,'completion_tokens':2},'model':'m2-x'"},
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		pass(w, 100 * MS);
		if (steps[i].is_end)
			assert_int_equal(end(w, steps[i].id, steps[i].fields), 0);
		else
			assert_int_equal(start(w, steps[i].id, steps[i].fields), 0);
		if (after)
			after(w);
	}
}

static void test_the_observation_is_the_same_with_and_without_restarts(void **state)
{
	static const enum convention conventions[] = {CONVENTION_GENAI, CONVENTION_SEAMS,
	                                              CONVENTION_BOTH};
	(void)state;

	for (int i = 0; i < 3; i++) {
		struct world calm, restarted;
		world_init(&calm, conventions[i]);
		world_init(&restarted, conventions[i]);
		play(&calm, NULL);
		play(&restarted, restart);
		assert_int_equal(calm.observation_count, 1);
		assert_int_equal(restarted.observation_count, 1);
		assert_int_equal(observed(&calm, 0, "total_tokens"), 14 + 3 + 9);
		json_t *a = observation_at(&calm, 0), *b = observation_at(&restarted, 0);
		if (!json_equal(a, b))
			fail_msg("%.*s\n%.*s", (int)calm.observations[0].json.len,
			         calm.observations[0].json.p,
			         (int)restarted.observations[0].json.len,
			         restarted.observations[0].json.p);
		json_decref(a);
		json_decref(b);
		assert_nothing_left(&restarted);
		world_deinit(&calm);
		world_deinit(&restarted);
	}
}

/* --- sources --- */

static void close_it(void *ctx, struct source *s)
{
	static const struct closing lost = {.status = STATUS_ERROR, .error_type = {"lost", 4}};
	struct world *w = ctx;

	runs_close_source(w->r, s, &lost, w->now);
	runs_drop_source(w->r, s);
}

static void test_runs_of_a_process_that_did_not_come_back_can_be_closed(void **state)
{
	struct world *w = *state;
	struct source *a = connect_as(w, 200, "a"), *b = connect_as(w, 300, "b");

	feed_at(w, a, EVENT_START, "held", w->now, NULL, "'parent':'p'");
	feed_at(w, a, EVENT_END, "held", w->now, NULL, NULL);
	feed_at(w, b, EVENT_END, "p", w->now, NULL, NULL);
	feed_at(w, b, EVENT_START, "open", w->now, NULL, NULL);
	start(w, "mine", NULL);
	restart(w);
	runs_each_orphaned(w->r, close_it, w);
	runs_each_orphaned(w->r, close_it, w); // none is left
	assert_int_equal(w->span_count, 3);
	assert_same_trace(w, "held", "p");
	assert_int_equal(runs_open_count(w->r), 1); // adopted by the process that came back
	end(w, "mine", NULL);
	assert_nothing_left(w);
}

static void test_a_run_keeps_the_resource_it_was_stored_with(void **state)
{
	struct world *w = *state;
	struct source *other = connect_as(w, 200, "other");

	feed_at(w, other, EVENT_START, "a", w->now, NULL, NULL);
	restart(w);
	end(w, "a", NULL);
	json_t *span = span_of(w, "a");
	assert_string_equal(text_at(span, "service"), "other");
	json_decref(span);
	assert_nothing_left(w);
}

/* --- values that are not what was stored --- */

static void test_a_damaged_value_is_refused_and_leaves_nothing(void **state)
{
	struct world *w = *state;
	struct run_id id;
	uint8_t span_id[8];

	start(w, "a", "'parent':'b','input':'x'");
	end(w, "e", NULL);
	commit(w);
	ids_of("a", &id, span_id);
	struct change *good = *durable_at(w, &id);
	struct runs *r;
	for (size_t len = 0; len < good->value.len; len++) {
		assert_int_equal(runs_new(&r, &w->o), 0);
		struct bytes cut = copy_of((struct str){good->value.p, len});
		assert_int_equal(runs_restore(r, &id, str_of_bytes(cut), w->now), ERR_CORRUPT);
		free(cut.p);
		assert_int_equal(runs_open_count(r), 0);
		runs_free(r);
	}
}

static void test_a_value_with_any_byte_changed_does_no_harm(void **state)
{
	struct world *w = *state;
	const struct closing lost = {.status = STATUS_ERROR};
	struct run_id id;
	uint8_t span_id[8];

	start(w, "a", "'parent':'b','input':'x'");
	commit(w);
	ids_of("a", &id, span_id);
	const struct change *good = *durable_at(w, &id);
	for (size_t i = 0; i < good->value.len; i++) {
		struct bytes bad = copy_of(str_of_bytes(good->value));
		struct world other;
		world_init(&other, CONVENTION_GENAI);
		bad.p[i] ^= 0x15;
		// The sink gives back what is there, whatever that is.
		struct change *c = calloc(1, sizeof(*c));
		assert_non_null(c);
		*c = (struct change){.run = id, .value = bad};
		apply(&other, c);
		other.no_spans = true; // a span of bad bytes is not looked at here
		int rc = runs_restore(other.r, &id, str_of_bytes(bad), other.now);
		(void)rc;
		tick_after(&other, 20 * SECOND);
		while (runs_open_count(other.r) > 0) {
			unsigned before = runs_open_count(other.r);
			end(&other, "a", NULL);
			assert_true(runs_open_count(other.r) < before);
		}
		runs_close_source(other.r, other.s, &lost, other.now);
		world_deinit(&other);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_a_run_that_ends_before_the_commit_is_never_stored),
		T(test_a_stored_run_ends_from_the_store),
		T(test_a_run_may_end_while_its_start_is_being_committed),
		T(test_a_commit_that_takes_long_holds_nothing_up),
		T(test_what_the_sink_does_not_take_stays_in_memory),
		T(test_an_early_end_that_is_gone_from_the_store_is_counted),
		T(test_a_run_that_is_gone_from_the_store_is_counted),
		T(test_an_open_run_goes_on_after_a_restart),
		T(test_what_was_not_committed_is_as_if_it_never_came),
		T(test_ended_runs_are_remembered_over_a_restart),
		T(test_an_early_end_outlives_a_restart),
		T(test_held_runs_outlive_a_restart),
		T(test_a_stored_child_that_joined_its_parent_stays_there_after_a_restart),
		T(test_a_request_whose_root_has_ended_goes_on_after_a_restart),
		T(test_what_outlived_its_root_is_cancelled_after_a_restart),
		T(test_usage_counts_once_over_a_restart),
		T(test_a_finished_request_of_the_same_trace_is_not_counted_again),
		T(test_the_observation_is_the_same_with_and_without_restarts),
		T(test_runs_of_a_process_that_did_not_come_back_can_be_closed),
		T(test_a_run_keeps_the_resource_it_was_stored_with),
		T(test_a_damaged_value_is_refused_and_leaves_nothing),
		T(test_a_value_with_any_byte_changed_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
