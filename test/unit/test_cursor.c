/* Exporters' places and ledgers, a store that keeps what they have not got, and what was lost. */
#include "base/clock.h"
#include "store/db.h"
#include "store_fixture.h"

static void fill(struct fixture *f, unsigned batches)
{
	for (unsigned i = 0; i < batches; i++) {
		for (uint32_t j = 0; j < 50; j++)
			add_span(f, j, 4000, 1);
		assert_int_equal(fixture_commit(f), 0);
	}
}

static void a_ledger_outlives_a_restart_with_its_place(void **state)
{
	struct fixture f;
	struct cursor c, saved;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	uint64_t before = clock_unix_ns();
	assert_int_equal(cursor_open(f.store, "tempo", STORE_SPANS, false, &c), 0);
	assert_in_range(c.since_ns, before, clock_unix_ns());
	fill(&f, 1);
	c.seq = 51;
	c.delivered = 40;
	c.rejected = c.rejected_by[REJECTED_HTTP_400] = 7;
	c.evicted = 3;
	cursor_note(f.store, "tempo", &c);
	fixture_close(&f);

	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(cursor_open(f.store, "tempo", STORE_SPANS, false, &saved), 0);
	assert_memory_equal(&saved, &c, sizeof(c));
	fixture_deinit(&f);
}

static void each_exporter_has_its_own_place(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	open_cursor(&f, "a", true);
	open_cursor(&f, "b", true);
	note_cursor(&f, "a", 20);
	note_cursor(&f, "b", 30);
	fill(&f, 1);
	fixture_close(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(open_cursor(&f, "a", true), 20);
	assert_int_equal(open_cursor(&f, "b", true), 30);
	fixture_deinit(&f);
}

/* What is stored between its first day and its first delivery is its own. */
static void the_place_of_a_new_exporter_is_saved_at_once(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	fill(&f, 1);
	assert_int_equal(open_cursor(&f, "late", false), 51);
	fill(&f, 1);
	fixture_close(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(open_cursor(&f, "late", false), 51);
	fixture_deinit(&f);
}

static void an_exporter_that_comes_back_has_what_it_noted_last(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	open_cursor(&f, "tempo", true);
	fill(&f, 1);
	note_cursor(&f, "tempo", 40); // not durable yet
	cursor_close(f.store, "tempo");
	assert_int_equal(open_cursor(&f, "tempo", true), 40);
	fixture_deinit(&f);
}

static bool count_cursor(void *ctx, const char *name, const struct cursor *c)
{
	unsigned *count = ctx;

	assert_true(strcmp(name, "a") == 0 || strcmp(name, "b/logs") == 0);
	assert_int_equal(c->seq, *name == 'a' ? 9 : 1);
	(*count)++;
	return true;
}

static void cursors_are_listed_as_they_are_now(void **state)
{
	struct fixture f;
	struct cursor c;
	unsigned count = 0;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(cursor_open(f.store, "a", STORE_SPANS, true, &c), 0);
	assert_int_equal(cursor_open(f.store, "b/logs", STORE_OBSERVATIONS, true, &c), 0);
	fill(&f, 1);
	assert_int_equal(cursor_open(f.store, "a", STORE_SPANS, true, &c), 0);
	c.seq = 9;
	cursor_note(f.store, "a", &c); // not saved yet
	assert_int_equal(cursor_each(f.store, count_cursor, &count), 0);
	assert_int_equal(count, 2);
	fixture_deinit(&f);
}

static void a_place_of_an_older_version_is_read(void **state)
{
	struct fixture f;
	struct cursor c;
	uint64_t seq = 17;
	MDB_txn *txn;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(mdb_txn_begin(f.store->env, NULL, 0, &txn), 0);
	MDB_val k = val_of("old", 3), v = val_of(&seq, sizeof(seq));
	assert_int_equal(mdb_put(txn, f.store->cursors, &k, &v, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	assert_int_equal(cursor_open(f.store, "old", STORE_SPANS, false, &c), 0);
	assert_int_equal(c.seq, 17);
	assert_int_equal(c.delivered, 0);
	fixture_deinit(&f);
}

/* Fills the store until it says that it is held, or for more than it can hold. */
static bool fill_until_held(struct fixture *f)
{
	uint64_t before;

	for (unsigned i = 0; i < 200; i++) {
		fill(f, 1);
		if (store_is_held(f->store, &before))
			return true;
	}
	return false;
}

static void a_store_keeps_what_an_exporter_has_not_got(void **state)
{
	struct fixture f;
	struct cursor c;
	uint64_t first, next, before;

	fixture_init(&f);
	f.options.bytes = 16 * MIB;
	f.options.keep_undelivered = true;
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(cursor_open(f.store, "tempo", STORE_SPANS, false, &c), 0);
	assert_true(fill_until_held(&f));
	store_bounds(f.store, STORE_SPANS, &first, &next);
	assert_int_equal(first, 1);
	assert_true(store_is_held(f.store, &before));
	assert_true(before > c.seq);

	// Once it has got them, they go and there is room again.
	c.seq = next;
	cursor_note(f.store, "tempo", &c);
	fill(&f, 1);
	assert_false(store_is_held(f.store, &before));
	store_bounds(f.store, STORE_SPANS, &first, &next);
	assert_true(first > 1);
	fixture_deinit(&f);
}

static uint64_t first_span(struct fixture *f)
{
	uint64_t first, next;

	store_bounds(f->store, STORE_SPANS, &first, &next);
	return first;
}

static void open_full_of_undelivered(struct fixture *f)
{
	fixture_init(f);
	f->options.bytes = 16 * MIB;
	f->options.keep_undelivered = true;
	assert_int_equal(fixture_open(f), 0);
	open_cursor(f, "slow", true);
	open_cursor(f, "fast", true);
	assert_true(fill_until_held(f));
}

/* Whichever was opened first. */
static void the_slowest_exporter_decides_what_stays(void **state)
{
	static const char *const names[] = {"slow", "fast"};
	struct fixture f;

	for (unsigned i = 0; i < 2; i++) {
		open_full_of_undelivered(&f);
		note_cursor(&f, names[i], 500);
		note_cursor(&f, names[1 - i], 200);
		fill(&f, 10);
		assert_in_range(first_span(&f), 2, 200);
		fixture_deinit(&f);
	}
}

static void a_block_that_is_half_delivered_stays(void **state)
{
	struct fixture f;

	open_full_of_undelivered(&f);
	// In the midst of some block: of 50 spans of 4 KB there are several in each commit.
	for (uint64_t seq = 100; seq < 105; seq++) {
		note_cursor(&f, "slow", seq);
		note_cursor(&f, "fast", seq);
		fill(&f, 1);
		assert_in_range(first_span(&f), 2, seq);
	}
	fixture_deinit(&f);
}

static void an_exporter_that_is_gone_holds_nothing(void **state)
{
	struct fixture f;
	struct cursor c;

	fixture_init(&f);
	f.options.bytes = 16 * MIB;
	f.options.keep_undelivered = true;
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(cursor_open(f.store, "tempo", STORE_SPANS, false, &c), 0);
	cursor_close(f.store, "tempo");
	assert_false(fill_until_held(&f));
	fixture_deinit(&f);
}

static void without_being_told_the_oldest_go(void **state)
{
	struct fixture f;
	struct cursor c;

	fixture_init(&f);
	f.options.bytes = 16 * MIB;
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(cursor_open(f.store, "tempo", STORE_SPANS, false, &c), 0);
	assert_false(fill_until_held(&f));
	fixture_deinit(&f);
}

static void meet_loss(void *ctx, const char *reason, uint64_t count)
{
	uint64_t *counts = ctx;

	if (strcmp(reason, "client_dropped") == 0)
		counts[0] = count;
	else if (strcmp(reason, "frames_refused/bad_utf8") == 0)
		counts[1] = count;
	else
		fail_msg("%s", reason);
}

static void losses_add_up_over_restarts(void **state)
{
	struct fixture f;
	uint64_t counts[2];

	fixture_init(&f);
	for (uint64_t i = 1; i <= 3; i++) {
		memset(f.stats, 0, sizeof(*f.stats)); // as a new process begins
		assert_int_equal(fixture_open(&f), 0);
		stat_set(&f.stats->client_dropped, 5);
		stat_set(&f.stats->refused[REFUSED_BAD_UTF8], 2);
		fill(&f, 1);
		counts[0] = counts[1] = 0;
		store_losses(f.store, meet_loss, counts);
		assert_int_equal(counts[0], 5 * i);
		assert_int_equal(counts[1], 2 * i);
		fixture_close(&f);
	}
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ledger_outlives_a_restart_with_its_place),
		cmocka_unit_test(cursors_are_listed_as_they_are_now),
		cmocka_unit_test(each_exporter_has_its_own_place),
		cmocka_unit_test(the_place_of_a_new_exporter_is_saved_at_once),
		cmocka_unit_test(an_exporter_that_comes_back_has_what_it_noted_last),
		cmocka_unit_test(a_place_of_an_older_version_is_read),
		cmocka_unit_test(a_store_keeps_what_an_exporter_has_not_got),
		cmocka_unit_test(the_slowest_exporter_decides_what_stays),
		cmocka_unit_test(a_block_that_is_half_delivered_stays),
		cmocka_unit_test(an_exporter_that_is_gone_holds_nothing),
		cmocka_unit_test(without_being_told_the_oldest_go),
		cmocka_unit_test(losses_add_up_over_restarts),
	};

	return cmocka_run_group_tests_name("cursor", tests, NULL, NULL);
}
