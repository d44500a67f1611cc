#include "runs_fixture.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define TRACEPARENT "'traceparent':'00-" TRACE "-00f067aa0ba902b7-01'"

/* Checks one observation: its number among all, and a count or text in it. */
static void assert_count(const struct world *w, size_t i, const char *path, long long want)
{
	json_t *o = observation_at(w, i);

	assert_int_equal(count_at(o, path), want);
	json_decref(o);
}

static void assert_span_text(const struct world *w, const char *id, const char *path,
                             const char *want)
{
	json_t *span = span_of(w, id);

	assert_string_equal(text_at(span, path), want);
	json_decref(span);
}

/* --- pairing --- */

static void test_start_and_end_make_a_span_and_an_observation(void **state)
{
	struct world *w = *state;

	assert_int_equal(start(w, "a", "'kind':'agent','name':'bot','input':'hi','user':'u1'"), 0);
	assert_int_equal(runs_open_count(w->r), 1);
	pass(w, 1500 * MS);
	assert_int_equal(end(w, "a", "'output':'hello'"), 0);
	assert_int_equal(w->span_count, 1);
	assert_int_equal(w->observation_count, 1);
	assert_trace_of_run(w, "a", "a");
	assert_span_text(w, "a", "status/code", "ok");
	assert_span_text(w, "a", "start_time", "2023-11-14T22:13:20.000000000Z");
	assert_span_text(w, "a", "end_time", "2023-11-14T22:13:21.500000000Z");
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "user_message"), "hi");
	assert_string_equal(text_at(o, "agent_response"), "hello");
	assert_string_equal(text_at(o, "user_id"), "u1");
	assert_string_equal(text_at(o, "service"), "agent");
	assert_int_equal(count_at(o, "span_count"), 1);
	json_decref(o);
	assert_nothing_left(w);
}

static void test_an_input_that_comes_late_stands_where_there_was_none(void **state)
{
	struct world *w = *state;
	const char *late = "'input':[{'role':'user','content':'late'}],'output':'x'";

	start(w, "a", "'kind':'agent','name':'bot'");
	start(w, "t", "'kind':'tool','name':'t','parent':'a'");
	end(w, "t", "'input':'city','output':'x'");
	end(w, "a", late);
	start(w, "b", "'kind':'agent','name':'bot','input':[{'role':'user','content':'first'}]");
	end(w, "b", late);
	json_t *o = observation_at(w, 0), *p = observation_at(w, 1);
	assert_string_equal(text_at(o, "user_message"), "late");
	assert_string_equal(text_at(o, "tool_calls/0/input"), "city");
	assert_string_equal(text_at(p, "user_message"), "first");
	json_decref(o);
	json_decref(p);
	json_t *span = span_of(w, "b");
	const char *input = text_at(span, "attributes/gen_ai.input.messages");
	assert_non_null(strstr(input, "first"));
	assert_null(strstr(input, "late"));
	json_decref(span);
	assert_nothing_left(w);
}

static void test_an_end_may_come_first(void **state)
{
	struct world *w = *state;
	struct moment later = {T0 + 2 * SECOND, M0 + 2 * SECOND};

	assert_int_equal(feed_at(w, w->s, EVENT_END, "a", later, NULL, "'output':'x'"), 0);
	assert_int_equal(w->span_count, 0);
	assert_int_equal(start(w, "a", "'kind':'chain','name':'c'"), 0);
	assert_int_equal(w->span_count, 1);
	assert_true(w->spans[0].end_ns - w->spans[0].start_ns == 2 * SECOND);
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

static void test_an_end_whose_start_never_comes_is_a_span_of_no_length(void **state)
{
	struct world *w = *state;

	end(w, "a", "'usage':{'input_tokens':7,'output_tokens':3}");
	tick_after(w, START_WAIT_NS - 1);
	assert_int_equal(w->span_count, 0);
	tick_after(w, 1);
	json_t *span = span_of(w, "a");
	assert_true(json_is_true(member(span, "attributes/sidelight.unmatched_end")));
	json_decref(span);
	assert_true(w->spans[0].end_ns == w->spans[0].start_ns);
	assert_count(w, 0, "total_tokens", 10);
	assert_int_equal(stat_get(&w->stats.ends_unmatched), 1);
	assert_nothing_left(w);
}

static void test_a_second_start_or_end_is_refused(void **state)
{
	struct world *w = *state;

	start(w, "a", NULL);
	assert_int_equal(start(w, "a", NULL), REFUSED_DUPLICATE_START);
	end(w, "a", NULL);
	assert_int_equal(end(w, "a", NULL), REFUSED_DUPLICATE_END);
	pass(w, CLOSED_REMEMBERED_NS);
	assert_int_equal(start(w, "a", NULL), REFUSED_DUPLICATE_START);
	assert_int_equal(end(w, "a", NULL), REFUSED_DUPLICATE_END);
	end(w, "b", NULL);
	assert_int_equal(end(w, "b", NULL), REFUSED_DUPLICATE_END);
	assert_int_equal(w->span_count, 1);
	assert_int_equal(w->observation_count, 1);
}

static void test_a_run_id_may_be_used_again_after_a_minute(void **state)
{
	struct world *w = *state;

	start(w, "a", NULL);
	end(w, "a", NULL);
	pass(w, CLOSED_REMEMBERED_NS + 1);
	assert_int_equal(start(w, "a", TRACEPARENT), 0);
	end(w, "a", NULL);
	assert_int_equal(w->span_count, 2);
	// A late child joins the trace of the later one.
	start(w, "late", "'parent':'a'");
	end(w, "late", NULL);
	assert_span_text(w, "late", "trace_id", TRACE);
}

static void test_a_run_that_is_its_own_parent_is_refused(void **state)
{
	struct world *w = *state;

	assert_int_equal(start(w, "a", "'parent':'a'"), REFUSED_BAD_RUN_ID);
	assert_nothing_left(w);
}

/* --- times --- */

static void check_duration(struct moment from, struct moment to, uint64_t want)
{
	struct world w;

	world_init(&w, CONVENTION_GENAI);
	feed_at(&w, w.s, EVENT_START, "a", from, NULL, NULL);
	feed_at(&w, w.s, EVENT_END, "a", to, NULL, NULL);
	assert_int_equal(w.span_count, 1);
	assert_true(w.spans[0].start_ns == from.unix_ns);
	assert_true(w.spans[0].end_ns - w.spans[0].start_ns == want);
	world_deinit(&w);
}

static void test_durations_are_by_the_monotonic_clock(void **state)
{
	const uint64_t most = INT64_MAX;

	check_duration((struct moment){T0, 100}, (struct moment){T0 + 9, 103}, 3);
	check_duration((struct moment){T0, 100}, (struct moment){T0 - SECOND, 103}, 3);
	check_duration((struct moment){T0, 0}, (struct moment){T0 + 9, 103}, 9);
	check_duration((struct moment){T0, 100}, (struct moment){T0 + 9, 0}, 9);
	check_duration((struct moment){T0, 0}, (struct moment){T0 - 9, 0}, 0);
	check_duration((struct moment){T0, 100}, (struct moment){T0 + 9, 50}, 9);
	check_duration((struct moment){0, 0}, (struct moment){0, 0}, 0);
	check_duration((struct moment){most, 1}, (struct moment){most, most}, most - 1);
	(void)state;
}

/* --- traces --- */

static void test_a_child_joins_its_parents_trace(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "mid", "'kind':'chain','parent':'root'");
	start(w, "leaf", "'kind':'llm','parent':'mid'");
	end(w, "leaf", NULL);
	end(w, "mid", NULL);
	end(w, "root", NULL);
	assert_trace_of_run(w, "leaf", "root");
	assert_trace_of_run(w, "mid", "root");
	assert_int_equal(w->observation_count, 1);
	assert_count(w, 0, "span_count", 3);
	assert_nothing_left(w);
}

static void test_ids_of_version_7_make_distinct_spans(void **state)
{
	struct world *w = *state;

	start(w, "0190163d-8694-739b-aea5-966c26f8ad90", NULL);
	start(w, "0190163d-8694-739b-aea5-966c26f8ad91",
	      "'parent':'0190163d-8694-739b-aea5-966c26f8ad90'");
	end(w, "0190163d-8694-739b-aea5-966c26f8ad91", NULL);
	end(w, "0190163D-8694-739B-AEA5-966C26F8AD90", NULL);
	assert_memory_not_equal(w->spans[0].span_id, w->spans[1].span_id, 8);
	assert_span_text(w, "0190163d-8694-739b-aea5-966c26f8ad91", "trace_id",
	                 "0190163d8694739baea5966c26f8ad90");
	assert_nothing_left(w);
}

static void test_a_late_parent_takes_its_children_in(void **state)
{
	struct world *w = *state;

	start(w, "ended", "'kind':'llm','parent':'p'");
	start(w, "below", "'parent':'ended'");
	end(w, "below", NULL);
	end(w, "ended", "'usage':{'input_tokens':5,'output_tokens':1}");
	start(w, "open", "'parent':'p'");
	assert_int_equal(w->span_count, 0); // held until the trace is known
	pass(w, PARENT_WAIT_NS - 1);
	runs_tick(w->r, w->now);
	start(w, "p", TRACEPARENT);
	assert_int_equal(w->span_count, 2);
	end(w, "open", NULL);
	end(w, "p", NULL);
	assert_span_text(w, "p", "trace_id", TRACE);
	assert_same_trace(w, "ended", "p");
	assert_same_trace(w, "open", "p");
	assert_same_trace(w, "below", "p");
	assert_int_equal(w->observation_count, 1);
	assert_count(w, 0, "span_count", 4);
	assert_count(w, 0, "total_tokens", 6);
	assert_nothing_left(w);
}

static void test_siblings_stay_together_when_their_parent_never_comes(void **state)
{
	struct world *w = *state;

	start(w, "a", "'parent':'p'");
	end(w, "a", NULL);
	start(w, "b", "'parent':'p'");
	tick_after(w, PARENT_WAIT_NS);
	assert_non_null(find_span(w, "a"));
	end(w, "b", NULL);
	assert_trace_of_run(w, "a", "p");
	assert_trace_of_run(w, "b", "p");
	assert_int_equal(w->observation_count, 2);
	assert_nothing_left(w);
}

static void test_a_parent_that_waits_itself_takes_its_children_along(void **state)
{
	struct world *w = *state;

	start(w, "c", "'parent':'b'");
	end(w, "c", NULL);
	start(w, "b", "'parent':'a'");
	end(w, "b", NULL);
	assert_int_equal(w->span_count, 0);
	start(w, "a", NULL);
	end(w, "a", NULL);
	assert_int_equal(w->span_count, 3);
	assert_same_trace(w, "c", "a");
	assert_same_trace(w, "b", "a");
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

static void test_a_child_of_a_run_that_ended_joins_its_trace(void **state)
{
	struct world *w = *state;

	start(w, "root", TRACEPARENT);
	start(w, "mid", "'parent':'root'");
	end(w, "mid", NULL);
	start(w, "late", "'parent':'mid'");
	end(w, "late", NULL);
	end(w, "root", NULL);
	start(w, "later", "'parent':'root'");
	end(w, "later", NULL);
	assert_same_trace(w, "late", "root");
	assert_same_trace(w, "later", "root");
	assert_count(w, 0, "span_count", 3);
	assert_nothing_left(w);
}

static void test_a_traceparent_gives_trace_and_parent(void **state)
{
	struct world *w = *state;

	start(w, "a", TRACEPARENT);
	end(w, "a", NULL);
	assert_span_text(w, "a", "trace_id", TRACE);
	assert_span_text(w, "a", "parent_span_id", "00f067aa0ba902b7");
	assert_int_equal(w->observation_count, 1); // the root here, if not of the trace
	assert_int_equal(w->spans[0].head.flags & RECORD_ROOT, RECORD_ROOT);
}

static void test_a_malformed_traceparent_is_ignored_and_counted(void **state)
{
	struct world *w = *state;

	start(w, "a", "'traceparent':'00-xyz'");
	end(w, "a", NULL);
	assert_trace_of_run(w, "a", "a");
	assert_int_equal(stat_get(&w->stats.traceparents_bad), 1);
}

static void test_a_parent_wins_over_a_traceparent(void **state)
{
	struct world *w = *state;

	start(w, "root", NULL);
	start(w, "a", "'parent':'root'," TRACEPARENT);
	end(w, "a", NULL);
	end(w, "root", NULL);
	assert_trace_of_run(w, "a", "root");
	assert_int_equal(stat_get(&w->stats.traceparents_bad), 0);
}

static void test_two_roots_of_one_trace_are_two_requests(void **state)
{
	struct world *w = *state;

	start(w, "a", TRACEPARENT);
	start(w, "b", TRACEPARENT);
	start(w, "a1", "'kind':'tool','name':'t','parent':'a'");
	end(w, "a1", NULL);
	end(w, "a", NULL);
	end(w, "b", NULL);
	assert_int_equal(w->observation_count, 2);
	assert_count(w, 0, "tool_call_count", 1);
	assert_count(w, 1, "tool_call_count", 0);
	assert_nothing_left(w);
}

#define TRACE_AS_RUN "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"

static void test_a_run_gathers_the_roots_of_its_trace(void **state)
{
	struct world *w = *state;

	start(w, TRACE_AS_RUN, "'kind':'agent','name':'agent.py','gather':true");
	start(w, "a", "'kind':'llm','model':'m','provider':'p'," TRACEPARENT);
	end(w, "a", "'usage':{'input_tokens':3}");
	restart(w); // which it outlives
	start(w, "b", "'kind':'tool','name':'t'," TRACEPARENT);
	end(w, "b", NULL);
	end(w, TRACE_AS_RUN, NULL);
	assert_span_text(w, "b", "parent_span_id", "00f067aa0ba902b7");
	assert_int_equal(w->observation_count, 1);
	assert_count(w, 0, "span_count", 3);
	assert_count(w, 0, "llm_calls", 1);
	assert_count(w, 0, "tool_call_count", 1);
	assert_count(w, 0, "prompt_tokens", 3);
	assert_nothing_left(w);
}

static void test_nothing_is_gathered_unasked_or_afterwards(void **state)
{
	struct world *w = *state;

	start(w, TRACE_AS_RUN, "'gather':false");
	start(w, "a", TRACEPARENT);
	end(w, "a", NULL);
	end(w, TRACE_AS_RUN, NULL);
	start(w, "b", TRACEPARENT);
	end(w, "b", NULL);
	assert_int_equal(w->observation_count, 3);
	assert_nothing_left(w);
}

static void test_parents_in_a_loop_end_like_others(void **state)
{
	struct world *w = *state;

	start(w, "a", "'parent':'b','kind':'llm'");
	start(w, "b", "'parent':'c'");
	start(w, "c", "'parent':'a','kind':'llm'");
	end(w, "a", NULL);
	end(w, "b", NULL);
	end(w, "c", NULL);
	tick_after(w, 20 * SECOND);
	assert_int_equal(w->span_count, 3);
	assert_same_trace(w, "a", "b");
	assert_same_trace(w, "a", "c");
	assert_nothing_left(w);
}

static void test_a_parent_may_live_on_another_connection(void **state)
{
	struct world *w = *state;
	struct source *other = connect_as(w, 200, "worker");

	start(w, "root", NULL);
	feed_at(w, other, EVENT_START, "a", w->now, NULL, "'parent':'root'");
	end(w, "a", NULL); // and an end on yet another one
	end(w, "root", NULL);
	assert_same_trace(w, "a", "root");
	assert_span_text(w, "a", "service", "worker");
	assert_count(w, 0, "span_count", 2);
	runs_drop_source(w->r, other);
}

/* --- closings --- */

static void test_what_outlives_its_root_is_cancelled_at_the_roots_end(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "llm", "'kind':'llm','parent':'root'");
	start(w, "tool", "'kind':'tool','name':'t','parent':'root'");
	pass(w, SECOND);
	end(w, "root", "'error':{'type':'CancelledError','message':'x'}");
	uint64_t ended = w->now.unix_ns;
	assert_int_equal(w->observation_count, 0);
	tick_after(w, ROOT_GRACE_NS - 1);
	end(w, "tool", "'output':'done'"); // in time
	assert_int_equal(w->span_count, 2);
	tick_after(w, 1);
	assert_int_equal(w->span_count, 3);
	assert_true(find_span(w, "llm")->end_ns == ended);
	assert_span_text(w, "llm", "status/code", "cancelled");
	assert_span_text(w, "tool", "status/code", "ok");
	assert_int_equal(w->observation_count, 1);
	assert_count(w, 0, "span_count", 3);
	assert_int_equal(w->observations[0].status, STATUS_CANCELLED);
	assert_int_equal(end(w, "llm", NULL), REFUSED_DUPLICATE_END);
	assert_nothing_left(w);
}

static void test_the_observation_comes_with_the_last_descendant(void **state)
{
	struct world *w = *state;

	start(w, "root", NULL);
	start(w, "a", "'kind':'llm','parent':'root'");
	end(w, "root", NULL);
	pass(w, SECOND);
	end(w, "a", "'usage':{'input_tokens':2}");
	assert_int_equal(w->observation_count, 1);
	assert_count(w, 0, "prompt_tokens", 2);
	assert_nothing_left(w);
}

static void test_a_run_that_starts_after_its_root_ended_has_the_grace_too(void **state)
{
	struct world *w = *state;

	start(w, "root", NULL);
	start(w, "a", "'parent':'root'");
	end(w, "root", NULL);
	pass(w, SECOND);
	start(w, "b", "'parent':'a'");
	tick_after(w, ROOT_GRACE_NS);
	assert_true(find_span(w, "b")->end_ns == find_span(w, "b")->start_ns);
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

static void test_bye_cancels_what_is_open(void **state)
{
	struct world *w = *state;
	const struct closing bye = {.status = STATUS_CANCELLED, .error_type = STR("bye")};

	start(w, "root", NULL);
	start(w, "a", "'parent':'root'");
	pass(w, SECOND);
	runs_close_source(w->r, w->s, &bye, w->now);
	assert_span_text(w, "a", "status/code", "cancelled");
	assert_span_text(w, "root", "status/code", "cancelled");
	json_t *span = span_of(w, "root");
	assert_null(member(span, "attributes/sidelight.evidence"));
	assert_null(member(span, "attributes/error.type"));
	json_decref(span);
	assert_int_equal(w->observation_count, 1);
	assert_int_equal(stat_get(&w->stats.runs_cancelled), 2);
	assert_nothing_left(w);
}

static const struct closing lost = {
	.status = STATUS_ERROR,
	.error_type = {"process_lost", 12},
	.error_message = {"the process was lost", 20},
	.evidence = {"pid 100 is gone", 15},
};

static void test_a_lost_connection_fails_what_is_open_with_its_evidence(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "t", "'kind':'tool','name':'search','parent':'root'");
	pass(w, SECOND);
	runs_close_source(w->r, w->s, &lost, w->now);
	assert_span_text(w, "t", "status/code", "error");
	assert_span_text(w, "t", "status/message", "the process was lost");
	assert_span_text(w, "t", "attributes/error.type", "process_lost");
	assert_span_text(w, "t", "attributes/sidelight.evidence", "pid 100 is gone");
	assert_true(find_span(w, "t")->end_ns == w->now.unix_ns);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "tool_calls/0/error/type"), "process_lost");
	assert_string_equal(text_at(o, "error/type"), "process_lost");
	assert_int_equal(count_at(o, "tool_call_count"), 1);
	json_decref(o);
	assert_int_equal(stat_get(&w->stats.runs_lost), 2);
	assert_nothing_left(w);
}

static void test_an_end_without_a_start_waits_no_longer_than_its_connection(void **state)
{
	struct world *w = *state;

	end(w, "a", NULL);
	runs_close_source(w->r, w->s, &lost, w->now);
	assert_int_equal(w->span_count, 1);
	assert_span_text(w, "a", "status/code", "ok");
	assert_nothing_left(w);
}

static void test_a_lost_connection_with_a_held_child_and_its_parents_early_end(void **state)
{
	struct world *w = *state;

	start(w, "c", "'parent':'p'");
	end(w, "c", NULL);
	end(w, "p", NULL);
	runs_close_source(w->r, w->s, &lost, w->now);
	assert_int_equal(w->span_count, 2);
	assert_same_trace(w, "c", "p");
	assert_nothing_left(w);
}

static void test_a_lost_connection_leaves_others_alone(void **state)
{
	struct world *w = *state;
	struct source *other = connect_as(w, 200, "worker");

	start(w, "root", NULL);
	feed_at(w, other, EVENT_START, "a", w->now, NULL, "'parent':'root'");
	runs_close_source(w->r, other, &lost, w->now);
	runs_drop_source(w->r, other);
	assert_int_equal(w->span_count, 1);
	end(w, "root", NULL);
	assert_count(w, 0, "span_count", 2);
	assert_nothing_left(w);
}

static void test_called_off_is_no_failure(void **state)
{
	static const char *const types[] = {"CancelledError", "asyncio.exceptions.CancelledError",
	                                    "GeneratorExit", "langgraph.errors.GraphInterrupt"};
	struct world *w = *state;
	char id[16], fields[128];

	for (int i = 0; i < 4; i++) {
		snprintf(id, sizeof(id), "r%d", i);
		snprintf(fields, sizeof(fields), "'error':{'type':'%s'}", types[i]);
		start(w, id, NULL);
		end(w, id, fields);
		assert_span_text(w, id, "status/code", "cancelled");
	}
	start(w, "e", NULL);
	end(w, "e", "'error':{'type':'NotCancelledError','message':'m'}");
	assert_span_text(w, "e", "status/code", "error");
	assert_span_text(w, "e", "status/message", "m");
}

/* --- bounds --- */

static void test_the_oldest_is_given_up_when_too_many_are_open(void **state)
{
	struct world *w = *state;
	char id[16];

	for (int i = 0; i < 1001; i++) {
		snprintf(id, sizeof(id), "r%d", i);
		assert_int_equal(start(w, id, NULL), 0);
	}
	assert_int_equal(runs_open_count(w->r), 1000);
	assert_int_equal(w->span_count, 1);
	assert_span_text(w, "r0", "attributes/error.type", "given_up");
	assert_int_equal(stat_get(&w->stats.runs_given_up), 1);
}

static void test_giving_up_reaches_whatever_waits(void **state)
{
	struct world *w = *state;
	char id[16];

	w->o.max_open = 3;
	runs_free(w->r);
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
	end(w, "early", NULL);
	start(w, "held", "'parent':'nobody'");
	end(w, "held", NULL);
	start(w, "waiting", "'parent':'somebody'");
	for (int i = 0; i < 3; i++) {
		snprintf(id, sizeof(id), "r%d", i);
		assert_int_equal(start(w, id, NULL), 0);
		assert_int_equal(runs_open_count(w->r), 3);
	}
	assert_int_equal(w->span_count, 3);
	assert_non_null(find_span(w, "early"));
	assert_non_null(find_span(w, "held"));
	assert_span_text(w, "waiting", "attributes/error.type", "given_up");
}

static void test_runs_that_never_end_stay_bounded(void **state)
{
	struct world *w = *state;
	char id[16];
	size_t bytes = 0;

	w->forgets = true;
	for (int i = 0; i < 100000; i++) {
		snprintf(id, sizeof(id), "r%d", i);
		assert_int_equal(start(w, id, "'input':'some words'"), 0);
		if (i % 500 == 499)
			commit(w);
		bytes = runs_bytes(w->r) > bytes ? runs_bytes(w->r) : bytes;
	}
	assert_int_equal(runs_open_count(w->r), 1000);
	assert_int_equal(w->span_count, 99000);
	assert_int_equal(durable_count(w), 1000);
	assert_in_range(bytes, 1, 500 * KIB);
}

static void test_points_become_span_events_128_at_most(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'llm'");
	pass(w, 250 * MS);
	point(w, "a", "first_token", "'n':1");
	for (int i = 0; i < 130; i++)
		point(w, "a", "tick", NULL);
	end(w, "a", NULL);
	point(w, "a", "late", NULL);
	point(w, "b", "unknown", NULL);
	json_t *span = span_of(w, "a");
	assert_int_equal(json_array_size(member(span, "events")), 128);
	assert_string_equal(text_at(span, "events/0/name"), "first_token");
	assert_int_equal(count_at(span, "events/0/attributes/n"), 1);
	assert_true(json_real_value(member(
			    span, "attributes/gen_ai.response.time_to_first_chunk")) == 0.25);
	json_decref(span);
	assert_int_equal(stat_get(&w->stats.events_dropped), 3);
	assert_int_equal(w->event_count, 2);
}

static void test_only_the_first_token_gives_the_time_to_it(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'llm'");
	pass(w, 250 * MS);
	point(w, "a", "first_token", NULL);
	pass(w, 250 * MS);
	point(w, "a", "first_token", NULL);
	end(w, "a", NULL);
	json_t *span = span_of(w, "a"); // refuses an attribute that is there twice
	assert_true(json_real_value(member(
			    span, "attributes/gen_ai.response.time_to_first_chunk")) == 0.25);
	json_decref(span);
}

/* --- usage and metrics --- */

#define USED "'usage':{'input_tokens':10,'output_tokens':4}"

static void test_a_chain_that_repeats_its_llms_usage_counts_once(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "chain", "'kind':'chain','parent':'root'");
	start(w, "llm", "'kind':'llm','parent':'chain'");
	end(w, "llm", USED);
	end(w, "chain", USED);
	end(w, "root", USED);
	assert_count(w, 0, "total_tokens", 14);
	json_t *span = span_of(w, "root");
	assert_null(member(span, "attributes/gen_ai.usage.input_tokens"));
	json_decref(span);
}

static void test_chains_without_an_llm_below_count_once(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "chain", "'kind':'chain','parent':'root'");
	end(w, "chain", USED);
	end(w, "root", USED);
	assert_count(w, 0, "total_tokens", 14);
}

static void test_a_late_parent_does_not_count_its_childrens_usage_again(void **state)
{
	struct world *w = *state;

	start(w, "llm", "'kind':'llm','parent':'chain'");
	start(w, "chain", "'kind':'chain','parent':'root'");
	start(w, "root", "'kind':'agent'");
	end(w, "llm", USED);
	end(w, "chain", USED);
	end(w, "root", USED);
	assert_count(w, 0, "total_tokens", 14);

	start(w, "inner", "'kind':'chain','parent':'outer'");
	end(w, "inner", USED);
	start(w, "outer", "'kind':'chain'");
	end(w, "outer", USED);
	assert_count(w, 1, "total_tokens", 14);
}

static void test_an_llm_below_a_run_that_has_ended_counts_once(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "chain", "'kind':'chain','parent':'root'");
	end(w, "chain", NULL);
	start(w, "llm", "'kind':'llm','parent':'chain'");
	end(w, "llm", USED);
	end(w, "root", USED);
	assert_count(w, 0, "total_tokens", 14);
}

static void test_embeddings_count_as_input(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "e", "'kind':'embedding','parent':'root','model':'m'");
	end(w, "e", "'usage':{'prompt_tokens':9,'total_tokens':9}");
	end(w, "root", NULL);
	assert_count(w, 0, "prompt_tokens", 9);
	assert_count(w, 0, "total_tokens", 9);
	assert_count(w, 0, "llm_calls", 0);
}

static void test_the_seams_roots_totals_are_not_added_to_themselves(void **state)
{
	static const enum convention conventions[] = {CONVENTION_SEAMS, CONVENTION_BOTH};

	for (int i = 0; i < 2; i++) {
		struct world w;
		world_init(&w, conventions[i]);
		start(&w, "root", "'kind':'agent'");
		start(&w, "llm", "'kind':'llm','parent':'root'");
		end(&w, "llm", USED);
		end(&w, "root", NULL);
		assert_count(&w, 0, "total_tokens", 14);
		json_t *span = span_of(&w, "root");
		assert_int_equal(count_at(span, "attributes/llm.total_tokens"), 14);
		json_decref(span);
		world_deinit(&w);
	}
	(void)state;
}

static void test_metrics_move_with_the_observation(void **state)
{
	struct world *w = *state;

	start(w, "root", "'kind':'agent'");
	start(w, "l1", "'kind':'llm','parent':'root','model':'m1','provider':'openai'");
	start(w, "l2", "'kind':'llm','parent':'root','model':'m2','provider':'anthropic'");
	start(w, "t", "'kind':'tool','parent':'root','name':'search'");
	end(w, "l2", "'usage':{'input_tokens':3,'output_tokens':1},'model':'m2-long'");
	end(w, "t", NULL);
	pass(w, SECOND);
	end(w, "l1", USED);
	assert_int_equal(w->observation_count, 0);
	end(w, "root", NULL);
	json_t *o = observation_at(w, 0);
	assert_string_equal(text_at(o, "model"), "m1"); // that of the call that ended last
	assert_string_equal(text_at(o, "provider"), "openai");
	assert_int_equal(count_at(o, "total_tokens"), 18);
	json_decref(o);
	assert_metric(w, "chat_requests_total{provider=\"openai\",model=\"m1\"} 1\n");
	assert_metric(w, "llm_tokens_total{token_type=\"prompt_tokens\",provider=\"openai\","
	                 "model=\"m1\"} 10\n");
	assert_metric(w, "llm_tokens_total{token_type=\"total_tokens\",provider=\"anthropic\","
	                 "model=\"m2\"} 4\n");
	assert_metric(w, "tool_calls_total{tool_name=\"search\"} 1\n");
}

static void test_a_tools_name_with_a_nul_in_it_is_one_call(void **state)
{
	struct world *w = *state;

	start(w, "t", "'kind':'tool','name':'a\\u0000b'");
	end(w, "t", NULL);
	assert_metric(w, "tool_calls_total{tool_name=\"a\"} 1\n");
}

/* --- a sink that fails --- */

static void test_a_span_that_the_sink_refuses_is_counted(void **state)
{
	struct world *w = *state;

	w->no_spans = true;
	start(w, "a", NULL);
	end(w, "a", NULL);
	assert_int_equal(stat_get(&w->stats.spans_dropped), 1);
	assert_int_equal(w->observation_count, 1);
	assert_nothing_left(w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_start_and_end_make_a_span_and_an_observation),
		T(test_an_input_that_comes_late_stands_where_there_was_none),
		T(test_an_end_may_come_first),
		T(test_an_end_whose_start_never_comes_is_a_span_of_no_length),
		T(test_a_second_start_or_end_is_refused),
		T(test_a_run_id_may_be_used_again_after_a_minute),
		T(test_a_run_that_is_its_own_parent_is_refused),
		T(test_durations_are_by_the_monotonic_clock),
		T(test_a_child_joins_its_parents_trace),
		T(test_ids_of_version_7_make_distinct_spans),
		T(test_a_late_parent_takes_its_children_in),
		T(test_siblings_stay_together_when_their_parent_never_comes),
		T(test_a_parent_that_waits_itself_takes_its_children_along),
		T(test_a_child_of_a_run_that_ended_joins_its_trace),
		T(test_a_traceparent_gives_trace_and_parent),
		T(test_a_malformed_traceparent_is_ignored_and_counted),
		T(test_a_parent_wins_over_a_traceparent),
		T(test_two_roots_of_one_trace_are_two_requests),
		T(test_a_run_gathers_the_roots_of_its_trace),
		T(test_nothing_is_gathered_unasked_or_afterwards),
		T(test_parents_in_a_loop_end_like_others),
		T(test_a_parent_may_live_on_another_connection),
		T(test_what_outlives_its_root_is_cancelled_at_the_roots_end),
		T(test_the_observation_comes_with_the_last_descendant),
		T(test_a_run_that_starts_after_its_root_ended_has_the_grace_too),
		T(test_bye_cancels_what_is_open),
		T(test_a_lost_connection_fails_what_is_open_with_its_evidence),
		T(test_an_end_without_a_start_waits_no_longer_than_its_connection),
		T(test_a_lost_connection_with_a_held_child_and_its_parents_early_end),
		T(test_a_lost_connection_leaves_others_alone),
		T(test_called_off_is_no_failure),
		T(test_the_oldest_is_given_up_when_too_many_are_open),
		T(test_giving_up_reaches_whatever_waits),
		T(test_runs_that_never_end_stay_bounded),
		T(test_points_become_span_events_128_at_most),
		T(test_only_the_first_token_gives_the_time_to_it),
		T(test_a_chain_that_repeats_its_llms_usage_counts_once),
		T(test_chains_without_an_llm_below_count_once),
		T(test_a_late_parent_does_not_count_its_childrens_usage_again),
		T(test_an_llm_below_a_run_that_has_ended_counts_once),
		T(test_embeddings_count_as_input),
		T(test_the_seams_roots_totals_are_not_added_to_themselves),
		T(test_metrics_move_with_the_observation),
		T(test_a_tools_name_with_a_nul_in_it_is_one_call),
		T(test_a_span_that_the_sink_refuses_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
