#include "runs_fixture.h"

/* Random histories of a few runs against what must hold for each of them. The model knows the
 * starts and ends that were accepted and became durable; it does not know how. */

enum { RUNS = 14, STEPS = 120, SEQUENCES = 2000 };

/* What of a run the collector has accepted; a crash goes back to what was durable. */
struct fate {
	bool started, ended;
	int parent; // -1: none
};

struct history {
	struct world w;
	struct source *sources[2]; // w.s is the first
	struct fate now[RUNS], sealed[RUNS], durable[RUNS];
	bool is_sealed; // a commit is on its way
	uint64_t random;
	unsigned given_up;
};

static unsigned pick(struct history *h, unsigned n)
{
	h->random = h->random * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(h->random >> 33) % n;
}

static const char *name_of(int run)
{
	static char names[4][16];
	static unsigned next;
	char *name = names[next++ % 4];

	snprintf(name, sizeof(names[0]), "run-%d", run);
	return name;
}

static struct source *some_source(struct history *h)
{
	return h->sources[pick(h, 2)];
}

static void step_start(struct history *h)
{
	static const char *const kinds[] = {"agent", "chain", "llm", "tool", "embedding", "other"};
	int run = (int)pick(h, RUNS);
	int parent = pick(h, 4) ? (int)pick(h, RUNS) : -1;
	char fields[128], of[64] = "";

	if (parent >= 0 && parent != run)
		snprintf(of, sizeof(of), ",'parent':'%s'", name_of(parent));
	snprintf(fields, sizeof(fields), "'kind':'%s','name':'n','input':'i'%s", kinds[pick(h, 6)],
	         of);
	if (feed_at(&h->w, some_source(h), EVENT_START, name_of(run), h->w.now, NULL, fields) ==
	    0) {
		assert_false(h->now[run].started);
		h->now[run].started = true;
		h->now[run].parent = of[0] ? parent : -1;
	}
}

static void step_end(struct history *h)
{
	int run = (int)pick(h, RUNS);

	if (feed_at(&h->w, some_source(h), EVENT_END, name_of(run), h->w.now, NULL,
	            "'output':'o','usage':{'input_tokens':1}") == 0)
		h->now[run].ended = true;
}

static void step_commit(struct history *h)
{
	if (h->is_sealed) {
		settle(&h->w);
		memcpy(h->durable, h->sealed, sizeof(h->durable));
	} else {
		assert_int_equal(seal(&h->w), 0);
		memcpy(h->sealed, h->now, sizeof(h->sealed));
	}
	h->is_sealed = !h->is_sealed;
}

static void step_crash(struct history *h)
{
	crash(&h->w);
	h->sources[0] = h->w.s;
	h->sources[1] = connect_as(&h->w, 200, "worker");
	runs_adopt(h->w.r, h->sources[1]);
	memcpy(h->now, h->durable, sizeof(h->now));
	h->is_sealed = false;
}

static void step_lose(struct history *h)
{
	static const struct closing lost = {
		.status = STATUS_ERROR, .error_type = {"lost", 4}, .evidence = {"gone", 4}};
	static const struct closing bye = {.status = STATUS_CANCELLED, .error_type = {"bye", 3}};
	unsigned i = pick(h, 2);

	runs_close_source(h->w.r, h->sources[i], pick(h, 2) ? &lost : &bye, h->w.now);
	runs_drop_source(h->w.r, h->sources[i]);
	h->sources[i] = connect_as(&h->w, i ? 200 : 100, i ? "worker" : "agent");
	h->w.s = h->sources[0];
}

static void step(struct history *h)
{
	unsigned what = pick(h, 100);

	if (what < 38)
		step_start(h);
	else if (what < 70)
		step_end(h);
	else if (what < 73)
		point(&h->w, name_of((int)pick(h, RUNS)), "first_token", NULL);
	else if (what < 76)
		point(&h->w, name_of((int)pick(h, RUNS)), "partial_output",
		      "'text':'o','tokens':1");
	else if (what < 88)
		step_commit(h);
	else if (what < 91)
		step_crash(h);
	else if (what < 93)
		step_lose(h);
	else
		tick_after(&h->w, (uint64_t)pick(h, 3000) * MS);
}

static void check_deadline(struct history *h)
{
	// What waits can be waited for: ticks at the deadlines alone come to an end.
	for (int i = 0; i < 100 && runs_deadline(h->w.r) != UINT64_MAX; i++) {
		uint64_t due = runs_deadline(h->w.r);
		pass(&h->w, due > h->w.now.mono_ns ? due - h->w.now.mono_ns : 0);
		runs_tick(h->w.r, h->w.now);
	}
	assert_true(runs_deadline(h->w.r) == UINT64_MAX);
}

static void close_all(struct history *h)
{
	static const struct closing bye = {.status = STATUS_CANCELLED, .error_type = {"bye", 3}};

	for (int i = 0; i < 2; i++)
		runs_close_source(h->w.r, h->sources[i], &bye, h->w.now);
	check_deadline(h);
}

/* Every run of which anything was accepted is one span, and nothing else is. */
static void check_spans(struct history *h)
{
	size_t expected = 0;

	for (int run = 0; run < RUNS; run++) {
		bool known = h->now[run].started || h->now[run].ended;
		expected += known;
		assert_int_equal(find_span(&h->w, name_of(run)) != NULL, known);
	}
	assert_int_equal(h->w.span_count, expected);
}

static void check_observations(struct history *h)
{
	size_t roots = 0, spans = 0;

	for (size_t i = 0; i < h->w.span_count; i++)
		roots += h->w.spans[i].head.flags & RECORD_ROOT;
	assert_int_equal(h->w.observation_count, roots);
	for (size_t i = 0; i < h->w.observation_count; i++) {
		json_t *o = observation_at(&h->w, i);
		spans += (size_t)count_at(o, "span_count");
		json_decref(o);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(h->w.observations[i].span_id,
			                        h->w.observations[j].span_id, 8);
	}
	assert_int_equal(spans, h->w.span_count); // each counted in one request
}

/* A parent that was there in time gave its children its trace. */
static void check_traces(struct history *h)
{
	for (int run = 0; run < RUNS; run++) {
		const struct saved_span *span = find_span(&h->w, name_of(run));
		if (!span || !h->now[run].started || h->now[run].parent < 0 ||
		    (span->head.flags & RECORD_ROOT))
			continue;
		assert_same_trace(&h->w, name_of(run), name_of(h->now[run].parent));
	}
}

static void play(struct history *h, uint64_t seed)
{
	*h = (struct history){.random = seed * 2654435761u + 1};
	world_init(&h->w, 1 + (enum convention)pick(h, 3));
	h->sources[0] = h->w.s;
	h->sources[1] = connect_as(&h->w, 200, "worker");
	for (int i = 0; i < STEPS; i++)
		step(h);
	close_all(h);
	if (h->is_sealed)
		step_commit(h);
	check_spans(h);
	check_observations(h);
	check_traces(h);
	assert_nothing_left(&h->w);
	world_deinit(&h->w);
}

static uint64_t seed; // of the history that is being played

/* SEED=n plays that one alone. */
static void test_random_histories_keep_what_was_accepted(void **state)
{
	const char *one = getenv("SEED");
	uint64_t last = one ? strtoull(one, NULL, 10) : SEQUENCES;
	struct history *h = malloc(sizeof(*h));

	(void)state;
	assert_non_null(h);
	for (seed = one ? last : 1; seed <= last; seed++)
		play(h, seed);
	free(h);
}

static int tell_seed(void **state)
{
	(void)state;
	if (seed <= SEQUENCES)
		print_message("stopped in history %" PRIu64 "\n", seed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_random_histories_keep_what_was_accepted, tell_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
