#include "store_fixture.h"

#include <errno.h>

#include "base/clock.h"
#include "store/db.h"

/* Pages in use by LMDB's own books: all that were ever used, less those in its list of free ones.
 */
static uint64_t used_by_walk(struct store *s)
{
	MDB_envinfo info;
	MDB_cursor *c;
	MDB_txn *txn;
	MDB_val k, v;
	uint64_t free_pages = 0, count;

	assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(mdb_env_info(s->env, &info), 0);
	assert_int_equal(mdb_cursor_open(txn, 0, &c), 0);
	while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0) {
		memcpy(&count, v.mv_data, sizeof(count));
		free_pages += count;
	}
	mdb_cursor_close(c);
	mdb_txn_abort(txn);
	return info.me_last_pgno + 1 - free_pages;
}

static uint64_t file_bytes(struct fixture *f)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/data.mdb", f->dir);
	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void assert_within_quota(struct fixture *f)
{
	uint64_t used = used_by_walk(f->store) * 4096, said = stat_get(&f->stats->store_bytes);

	/* LMDB writes its list of free pages last of all, after we have counted. */
	assert_in_range(said + 128 * KIB, used, used + 256 * KIB);
	assert_true(used <= f->options.bytes * 95 / 100);
	assert_int_equal(file_bytes(f), f->options.bytes);
}

/* What was stored and not evicted is all there, and the ledger adds up. */
static void assert_ledger(struct fixture *f, uint64_t stored)
{
	struct met m = all_spans(f);

	assert_int_equal(stat_get(&f->stats->spans_stored), stored);
	assert_int_equal(m.count, stored - stat_get(&f->stats->spans_evicted));
	assert_int_equal(m.last, stored);
	assert_true(m.in_order);
	assert_int_equal(spans_from(f, 0), m.count);
}

/* What LMDB has made of the file is what the check at the next start takes for sound. */
static void assert_sound(struct fixture *f)
{
	fixture_close(f);
	assert_int_equal(fixture_open(f), 0);
	assert_null(f->quarantine);
}

/* --- retention --- */

static void a_full_store_takes_appends_for_ever(void **state)
{
	struct fixture f;
	uint32_t n = 0;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < 150; i++) {
		for (unsigned j = 0; j < 500 + i % 7 * 100; j++)
			add_span(&f, n++, 300 + j % 400, 1);
		add_observation(&f, i, 1, "meta");
		assert_int_equal(fixture_commit(&f), 0);
		assert_within_quota(&f);
	}
	assert_true(stat_get(&f.stats->spans_evicted) > n / 2);
	assert_true(stat_get(&f.stats->store_bytes) > f.options.bytes * 70 / 100);
	assert_ledger(&f, n);
	assert_sound(&f);
	fixture_deinit(&f);
}

static void a_full_store_takes_records_of_every_size(void **state)
{
	static const size_t sizes[] = {10, 4 * MIB - 64, 1800, 2100, 60 * KIB, 100, MIB, 5000};
	struct fixture f;
	uint32_t n = 0;

	fixture_init(&f);
	f.options.bytes = 32 * MIB;
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < 200; i++) {
		add_span(&f, n++, sizes[i * 5 % 8], 1);
		add_span(&f, n++, 64, 1);
		assert_int_equal(fixture_commit(&f), 0);
		assert_within_quota(&f);
	}
	assert_ledger(&f, n);
	assert_sound(&f);
	fixture_deinit(&f);
}

static void a_small_store_full_of_small_blocks_takes_large_ones(void **state)
{
	struct fixture f;
	uint32_t n = 0;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < 30; i++) {
		for (unsigned j = 0; j < 40; j++) {
			add_span(&f, n++, 10, 1);
			assert_int_equal(fixture_commit(&f), 0);
		}
		for (unsigned j = 0; j < 2; j++)
			add_span(&f, n++, 2 * MIB, 1);
		assert_int_equal(fixture_commit(&f), 0);
	}
	assert_within_quota(&f);
	assert_ledger(&f, n);
	assert_sound(&f);
	fixture_deinit(&f);
}

static void observations_go_in_step_with_spans(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 100; i++) {
		add_observation(&f, i, 1, "meta");
		for (unsigned j = 0; j < 1000; j++)
			add_span(&f, i, 400, 1);
		assert_int_equal(fixture_commit(&f), 0);
	}
	struct log *spans = &f.store->logs[STORE_SPANS],
		   *observations = &f.store->logs[STORE_OBSERVATIONS];
	uint64_t span = atomic_load(&spans->first), observation = atomic_load(&observations->first);
	assert_true(span > 50000);
	assert_in_range(observation, span / 1000, span / 1000 + 2);
	fixture_deinit(&f);
}

static void what_is_too_old_goes_and_the_numbers_go_on(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c;

	fixture_init(&f);
	f.options.retention_ns = 1;
	buf_init(&out, STORE_BLOCK_MAX);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 10; i++) {
		add_span(&f, i, 100, UINT64_MAX / 2); // an agent's clock may be wrong
		assert_int_equal(fixture_commit(&f), 0);
	}
	assert_int_equal(stat_get(&f.stats->spans_evicted), 9);
	assert_int_equal(all_spans(&f).first, 10);
	assert_int_equal(batch_delete_open(&f.batch, &(struct run_id){{1}}), 0);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(all_spans(&f).count, 0);
	assert_int_equal(store_read(f.store, STORE_SPANS, 4, MIB, &out, &c), 0);
	assert_int_equal(c.lost, 7);
	assert_int_equal(c.next_seq, 11);
	fixture_close(&f);

	assert_int_equal(fixture_open(&f), 0);
	add_span(&f, 1, 100, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(all_spans(&f).first, 11);
	buf_deinit(&out);
	fixture_deinit(&f);
}

/* The daemon that comes back after a week: no batch has to come for old blocks to go. */
static void the_worker_removes_what_is_too_old_by_itself(void **state)
{
	struct fixture f;
	uint64_t until = clock_mono_ns() + 10 * NS_PER_S;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	add_span(&f, 1, 100, 1);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_close(&f);
	f.options.retention_ns = 1;
	assert_int_equal(fixture_open(&f), 0);
	while (stat_get(&f.stats->spans_evicted) == 0 && clock_mono_ns() < until)
		usleep(1000);
	assert_int_equal(stat_get(&f.stats->spans_evicted), 1);
	fixture_deinit(&f);
}

static void a_slow_exporter_learns_how_many_it_lost(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c;
	uint64_t seq = 1, delivered = 0, lost = 0;
	uint32_t n = 0;

	fixture_init(&f);
	buf_init(&out, STORE_BLOCK_MAX);
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned j = 0; j < 1000; j++)
			add_span(&f, n++, 500, 1);
		assert_int_equal(fixture_commit(&f), 0);
		assert_int_equal(store_read(f.store, STORE_SPANS, seq, 100 * KIB, &out, &c), 0);
		struct met m = {0};
		assert_int_equal(chunk_each(&out, &c, meet_span, &m), 0);
		assert_int_equal(m.count, c.count);
		assert_int_equal(c.next_seq, seq + c.lost + c.count);
		delivered += c.count;
		lost += c.lost;
		seq = c.next_seq;
	}
	assert_true(lost > 0);
	assert_int_equal(delivered + lost + spans_from(&f, seq), n);
	buf_deinit(&out);
	fixture_deinit(&f);
}

/* --- no room --- */

static void put_open(struct fixture *f, uint32_t n, size_t len)
{
	static const char base[MIB];
	struct run_id id = {{0xff}};
	struct open_head head = {.trace_id = {1}};

	memcpy(id.b + 4, &n, sizeof(n));
	assert_int_equal(batch_put_open(&f->batch, &id, &head, (struct str){base, len},
	                                (struct str){0}, (struct str){0}, (struct str){0}),
	                 0);
}

static void open_runs_that_fill_the_store_can_still_end(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	int rc = 0;
	uint32_t n = 0;
	while (rc == 0) {
		put_open(&f, n++, MIB);
		rc = fixture_commit(&f);
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(n > 12);
	batch_clear(&f.batch);
	for (uint32_t i = 0; i < n; i++) {
		struct run_id id = {{0xff}};
		memcpy(id.b + 4, &i, sizeof(i));
		assert_int_equal(batch_delete_open(&f.batch, &id), 0);
	}
	assert_int_equal(fixture_commit(&f), 0);
	add_span(&f, 1, MIB, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_within_quota(&f);
	assert_sound(&f);
	fixture_deinit(&f);
}

/* However finely it is filled up: what deletes need is never taken. */
static void open_runs_never_take_the_reserve(void **state)
{
	static const size_t sizes[] = {MIB, 64 * KIB, 4 * KIB, 100};
	struct fixture f;
	uint32_t n = 0;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		do
			put_open(&f, n++, sizes[i]);
		while (fixture_commit(&f) == 0);
		assert_int_equal(f.error, -ENOSPC);
		assert_true(stat_get(&f.stats->store_bytes) <= f.options.bytes * 95 / 100);
		batch_clear(&f.batch);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct run_id id = {{0xff}};
		memcpy(id.b + 4, &i, sizeof(i));
		assert_int_equal(batch_delete_open(&f.batch, &id), 0);
		assert_int_equal(fixture_commit(&f), 0);
	}
	assert_within_quota(&f);
	fixture_deinit(&f);
}

static void a_refused_batch_may_be_handed_over_again(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	struct batch refused, empty;
	batch_init(&empty);
	for (uint32_t i = 0; i < 12; i++) {
		put_open(&f, i, MIB);
		assert_int_equal(fixture_commit(&f), 0);
	}
	for (uint32_t i = 0; i < 4; i++)
		add_span(&f, i, MIB, 1);
	assert_int_equal(fixture_commit(&f), -ENOSPC);
	assert_int_equal(stat_get(&f.stats->store_errors), 1);
	assert_int_equal(all_spans(&f).count, 0);

	refused = f.batch;
	f.batch = empty;
	for (uint32_t i = 0; i < 12; i++) {
		struct run_id id = {{0xff}};
		memcpy(id.b + 4, &i, sizeof(i));
		assert_int_equal(batch_delete_open(&f.batch, &id), 0);
		assert_int_equal(fixture_commit(&f), 0);
	}
	batch_deinit(&f.batch);
	f.batch = refused;
	assert_int_equal(fixture_commit(&f), 0);
	assert_ledger(&f, 4);
	fixture_deinit(&f);
}

static void a_batch_larger_than_the_store_is_too_big_for_ever(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 15; i++) {
		add_span(&f, i, MIB, 1);
		put_open(&f, i, MIB);
	}
	assert_int_equal(fixture_commit(&f), -E2BIG);
	batch_clear(&f.batch);
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_deinit(&f);
}

/* --- cursors --- */

static bool is_pending(struct fixture *f)
{
	pthread_mutex_lock(&f->store->lock);
	bool pending = f->store->notes[0].pending;
	pthread_mutex_unlock(&f->store->lock);
	return pending;
}

static void a_cursor_alone_is_written_soon(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	uint64_t begun = clock_mono_ns();
	open_cursor(&f, "tempo", false);
	note_cursor(&f, "tempo", 5);
	while (is_pending(&f) && clock_mono_ns() - begun < 10 * NS_PER_S)
		usleep(10000);
	assert_false(is_pending(&f));
	assert_true(clock_mono_ns() - begun < 5 * NS_PER_S);
	assert_int_equal(stat_get(&f.stats->commits), 0);
	fixture_deinit(&f);
}

static void a_cursor_goes_with_the_next_batch(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	open_cursor(&f, "tempo", false);
	note_cursor(&f, "tempo", 5);
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_false(is_pending(&f));
	fixture_deinit(&f);
}

/* What the worker does around a commit, and a note in the midst of it; seq 0: none. */
static void commit_notes(struct fixture *f, uint64_t seq)
{
	pthread_mutex_lock(&f->store->lock);
	notes_take(f->store);
	pthread_mutex_unlock(&f->store->lock);
	if (seq)
		note_cursor(f, "tempo", seq);
	pthread_mutex_lock(&f->store->lock);
	notes_written(f->store);
	pthread_mutex_unlock(&f->store->lock);
}

static void a_cursor_noted_during_a_commit_waits_for_the_next(void **state)
{
	struct fixture f;

	for (unsigned earlier = 0; earlier < 2; earlier++) {
		fixture_init(&f);
		assert_int_equal(store_open(&f.store, &f.options, &f.quarantine), 0); // no worker
		open_cursor(&f, "tempo", false);
		if (!earlier)
			commit_notes(&f, 0); // there is nothing to be written, then
		commit_notes(&f, 7);
		assert_true(is_pending(&f));
		store_close(f.store);
		assert_int_equal(fixture_open(&f), 0);
		assert_int_equal(open_cursor(&f, "tempo", false), 7);
		fixture_deinit(&f);
	}
}

static void a_cursor_whose_commit_failed_is_not_forgotten(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	open_cursor(&f, "tempo", false);
	for (uint32_t n = 0; fixture_commit(&f) == 0; n++) {
		note_cursor(&f, "tempo", n + 5);
		put_open(&f, n, MIB);
	}
	assert_int_equal(f.error, -ENOSPC);
	assert_true(is_pending(&f));
	uint64_t place = open_cursor(&f, "tempo", false);
	fixture_close(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(open_cursor(&f, "tempo", false), place);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_store_takes_appends_for_ever),
		cmocka_unit_test(a_full_store_takes_records_of_every_size),
		cmocka_unit_test(a_small_store_full_of_small_blocks_takes_large_ones),
		cmocka_unit_test(observations_go_in_step_with_spans),
		cmocka_unit_test(what_is_too_old_goes_and_the_numbers_go_on),
		cmocka_unit_test(the_worker_removes_what_is_too_old_by_itself),
		cmocka_unit_test(a_slow_exporter_learns_how_many_it_lost),
		cmocka_unit_test(open_runs_that_fill_the_store_can_still_end),
		cmocka_unit_test(open_runs_never_take_the_reserve),
		cmocka_unit_test(a_refused_batch_may_be_handed_over_again),
		cmocka_unit_test(a_batch_larger_than_the_store_is_too_big_for_ever),
		cmocka_unit_test(a_cursor_alone_is_written_soon),
		cmocka_unit_test(a_cursor_goes_with_the_next_batch),
		cmocka_unit_test(a_cursor_noted_during_a_commit_waits_for_the_next),
		cmocka_unit_test(a_cursor_whose_commit_failed_is_not_forgotten),
	};

	return cmocka_run_group_tests_name("commit", tests, NULL, NULL);
}
