#include "store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/clock.h"

/* --- round trips --- */

static void spans_come_back_in_order_also_after_reopening(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 10; i++) {
		for (uint32_t j = 0; j < 100; j++)
			add_span(&f, i * 100 + j, 900, 1000 * i);
		assert_int_equal(fixture_commit(&f), 0);
	}
	for (unsigned round = 0; round < 2; round++) {
		struct met m = all_spans(&f);
		assert_int_equal(m.count, 1000);
		assert_int_equal(m.first, 1);
		assert_int_equal(m.last, 1000);
		assert_true(m.in_order);
		assert_int_equal(spans_from(&f, 1), 1000);
		assert_int_equal(spans_from(&f, 901), 100);
		assert_int_equal(spans_from(&f, 5000), 0);
		fixture_close(&f);
		assert_int_equal(fixture_open(&f), 0);
	}
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(all_spans(&f).last, 1001);
	assert_int_equal(stat_get(&f.stats->spans_stored), 1001);
	assert_int_equal(stat_get(&f.stats->commits), 11);
	fixture_deinit(&f);
}

static void a_walk_may_begin_anywhere_stop_and_skip_what_is_old(void **state)
{
	struct fixture f;
	struct met m = {0};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 5; i++) {
		for (uint32_t j = 0; j < 10; j++)
			add_span(&f, i, 50, 100 * (i + 1));
		assert_int_equal(fixture_commit(&f), 0);
	}
	assert_int_equal(store_spans(f.store, 27, 0, meet_span, &m), 0);
	assert_int_equal(m.first, 27);
	assert_int_equal(m.count, 24);
	m = (struct met){.stop_after = 3};
	assert_int_equal(store_spans(f.store, 27, 0, meet_span, &m), 0);
	assert_int_equal(m.last, 29);
	m = (struct met){0};
	assert_int_equal(store_spans(f.store, 0, 350, meet_span, &m), 0);
	assert_int_equal(m.first, 31);
	assert_int_equal(m.count, 20);
	m = (struct met){0};
	assert_int_equal(store_spans(f.store, 51, 0, meet_span, &m), 0);
	assert_int_equal(m.count, 0);
	fixture_deinit(&f);
}

static void an_empty_store_has_nothing_and_says_so(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c;
	struct met m = {0};
	uint8_t trace_id[16] = {1};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	buf_init(&out, STORE_BLOCK_MAX);
	assert_int_equal(all_spans(&f).count, 0);
	assert_int_equal(store_read(f.store, STORE_SPANS, 0, 4096, &out, &c), 0);
	assert_int_equal(c.count, 0);
	assert_int_equal(c.next_seq, 1);
	assert_int_equal(store_trace(f.store, trace_id, meet_span, &m), 0);
	assert_int_equal(store_open_runs(f.store, NULL, meet_span, &m), 0);
	assert_int_equal(m.count, 0);
	assert_int_equal(store_observation(f.store, trace_id, NULL, NULL), -ENOENT);
	assert_int_equal(spans_from(&f, 1), 0);
	buf_deinit(&out);
	fixture_deinit(&f);
}

/* --- what exporters read --- */

static void chunks_are_whole_blocks_that_follow_each_other(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c;
	uint64_t seq = 17, records = 0;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	buf_init(&out, STORE_BLOCK_MAX);
	for (uint32_t i = 0; i < 2000; i++)
		add_span(&f, i, 500, 1);
	assert_int_equal(fixture_commit(&f), 0);
	for (;;) {
		struct met m = {0};
		assert_int_equal(store_read(f.store, STORE_SPANS, seq, 150 * KIB, &out, &c), 0);
		if (c.count == 0)
			break;
		assert_true(out.len <= 150 * KIB);
		assert_int_equal(c.first_seq, seq);
		assert_int_equal(c.lost, 0);
		assert_int_equal(c.next_seq, seq + c.count);
		assert_int_equal(chunk_each(&out, &c, meet_span, &m), 0);
		assert_int_equal(m.first, seq);
		assert_int_equal(m.count, c.count);
		records += c.count;
		seq = c.next_seq;
	}
	assert_int_equal(records, 2000 - 16);
	assert_int_equal(seq, 2001);
	buf_deinit(&out);
	fixture_deinit(&f);
}

static void a_block_larger_than_the_limit_comes_alone(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	buf_init(&out, STORE_BLOCK_MAX);
	add_span(&f, 1, 3 * MIB, 1);
	add_span(&f, 2, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(store_read(f.store, STORE_SPANS, 1, 1000, &out, &c), 0);
	assert_int_equal(c.count, 1);
	assert_true(out.len > 3 * MIB);
	assert_int_equal(store_read(f.store, STORE_SPANS, c.next_seq, 1000, &out, &c), 0);
	assert_int_equal(c.count, 1);
	assert_int_equal(c.next_seq, 3);
	buf_deinit(&out);
	fixture_deinit(&f);
}

static void a_cursor_outlives_a_restart(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 10; i++)
		add_span(&f, i, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(open_cursor(&f, "late", false), 11);
	assert_int_equal(open_cursor(&f, "early", true), 1);
	note_cursor(&f, "early", 7);
	assert_int_equal(open_cursor(&f, "early", true), 7);
	fixture_close(&f);

	assert_int_equal(fixture_open(&f), 0);
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(open_cursor(&f, "late", false), 11);
	assert_int_equal(open_cursor(&f, "early", false), 7);
	fixture_deinit(&f);
}

/* --- traces and observations --- */

static void a_trace_is_found_among_many(void **state)
{
	struct fixture f;
	struct met m = {0};
	uint8_t trace_id[16];

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 20000; i++) {
		add_span(&f, i % 5000, 100, 1);
		if (i % 700 == 0)
			assert_int_equal(fixture_commit(&f), 0);
	}
	assert_int_equal(fixture_commit(&f), 0);
	fixture_trace_id(trace_id, 4321);
	assert_int_equal(store_trace(f.store, trace_id, meet_span, &m), 0);
	assert_int_equal(m.count, 4);
	assert_int_equal(m.first, 4322);
	assert_int_equal(m.last, 19322);
	fixture_trace_id(trace_id, 5000);
	m = (struct met){0};
	assert_int_equal(store_trace(f.store, trace_id, meet_span, &m), 0);
	assert_int_equal(m.count, 0);
	fixture_deinit(&f);
}

/* A trace in more blocks than one pass of the search remembers. */
static void a_trace_of_very_many_blocks_is_found_whole(void **state)
{
	struct fixture f;
	struct met m = {0};
	uint8_t trace_id[16];

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 300; i++) {
		add_span(&f, 7, 20, 1);
		add_span(&f, 8, 20, 1);
		assert_int_equal(fixture_commit(&f), 0);
	}
	fixture_trace_id(trace_id, 7);
	assert_int_equal(store_trace(f.store, trace_id, meet_span, &m), 0);
	assert_int_equal(m.count, 300);
	fixture_deinit(&f);
}

struct wanted {
	struct met met;
	uint8_t ids[2][16];
};

static bool wants(void *ctx, const uint8_t trace_id[16])
{
	struct wanted *w = ctx;

	return memcmp(trace_id, w->ids[0], 16) == 0 || memcmp(trace_id, w->ids[1], 16) == 0;
}

static void many_traces_are_found_in_one_pass(void **state)
{
	struct fixture f;
	struct wanted w = {0};
	uint32_t fingerprints[2];

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 1000; i++)
		add_span(&f, i % 100, 100, 1);
	assert_int_equal(fixture_commit(&f), 0);
	for (uint32_t i = 0; i < 2; i++) {
		fixture_trace_id(w.ids[i], 30 + i * 40);
		fingerprints[i] = trace_fingerprint(w.ids[i]);
	}
	assert_int_equal(store_traces(f.store, fingerprints, 2, wants, meet_span, &w), 0);
	assert_int_equal(w.met.count, 20);
	fixture_deinit(&f);
}

struct seen {
	uint64_t count, first, last, stop_after;
	char meta[64];
};

static bool see(void *ctx, const struct observation_record *o)
{
	struct seen *s = ctx;

	if (s->count++ == 0)
		s->first = o->seq;
	s->last = o->seq;
	snprintf(s->meta, sizeof(s->meta), "%.*s", (int)o->meta.len, o->meta.p);
	assert_true(str_is(o->content, "\"user_message\":\"hi\""));
	assert_int_equal(o->created_ns, o->start_ns + 5);
	return s->count != s->stop_after;
}

static void observations_are_read_both_ways(void **state)
{
	struct fixture f;
	struct seen s = {.stop_after = 50};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 1; i <= 400; i++) {
		add_observation(&f, i, i * 10, "meta");
		if (i % 37 == 0)
			assert_int_equal(fixture_commit(&f), 0);
	}
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(store_observations(f.store, UINT64_MAX, see, &s), 0);
	assert_int_equal(s.first, 400);
	assert_int_equal(s.last, 351);
	s = (struct seen){0};
	assert_int_equal(store_observations(f.store, 100, see, &s), 0);
	assert_int_equal(s.first, 99);
	assert_int_equal(s.last, 1);
	assert_int_equal(s.count, 99);
	s = (struct seen){0};
	assert_int_equal(store_observations_forward(f.store, 0, 0, see, &s), 0);
	assert_int_equal(s.count, 400);
	s = (struct seen){0};
	assert_int_equal(store_observations_forward(f.store, 390, 0, see, &s), 0);
	assert_int_equal(s.count, 11);
	s = (struct seen){0};
	assert_int_equal(store_observations_forward(f.store, 0, 3706, see, &s), 0);
	assert_int_equal(s.first, 371);
	assert_int_equal(stat_get(&f.stats->observations_stored), 400);
	fixture_deinit(&f);
}

static void of_two_roots_of_a_trace_the_first_speaks_for_it(void **state)
{
	struct fixture f;
	struct seen s = {0};
	uint8_t trace_id[16];

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	add_observation(&f, 1, 500, "other");
	add_observation(&f, 2, 300, "lower");
	assert_int_equal(fixture_commit(&f), 0);
	add_observation(&f, 2, 200, "topmost");
	assert_int_equal(fixture_commit(&f), 0);
	fixture_trace_id(trace_id, 2);
	assert_int_equal(store_observation(f.store, trace_id, see, &s), 0);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.meta, "topmost");
	fixture_trace_id(trace_id, 3);
	assert_int_equal(store_observation(f.store, trace_id, see, &s), -ENOENT);
	fixture_deinit(&f);
}

/* --- traces by a prefix --- */

static void add_trace(struct fixture *f, const uint8_t trace_id[16])
{
	struct observation_head h = {.start_ns = 1, .created_ns = 2};
	struct str base = {(const char *)&h, sizeof(h)};
	struct record_parts parts = {.base = &base, .base_count = 1};

	memcpy(h.trace_id, trace_id, 16);
	memcpy(parts.trace_id, trace_id, 16);
	assert_int_equal(batch_add_record(&f->batch.observations, &parts, 0, (struct str){0}), 0);
}

static void add_event(struct fixture *f)
{
	struct observation_head h = {.trace_id = {0x12, 0x34}, .start_ns = 1, .created_ns = 2};
	struct str base = {(const char *)&h, sizeof(h)};
	struct record_parts parts = {
		.head = {.flags = RECORD_EVENT}, .base = &base, .base_count = 1};

	assert_int_equal(batch_add_record(&f->batch.observations, &parts, 0, (struct str){0}), 0);
}

struct named {
	unsigned count, stop_after;
	uint8_t ids[1000][16];
};

static bool name_trace(void *ctx, const uint8_t trace_id[16])
{
	struct named *n = ctx;

	assert_true(n->count < 1000);
	memcpy(n->ids[n->count++], trace_id, 16);
	return n->count != n->stop_after;
}

/* How many have the prefix, which is in hex; their ids are in ret. */
static unsigned find_prefix(struct fixture *f, const char *prefix, struct named *ret)
{
	char hex[33] = "00000000000000000000000000000000";
	uint8_t id[16];

	memcpy(hex, prefix, strlen(prefix));
	assert_true(hex_read(id, sizeof(id), hex));
	ret->count = 0;
	assert_int_equal(store_find_prefix(f->store, id, (unsigned)strlen(prefix), name_trace, ret),
	                 0);
	return ret->count;
}

static void traces_are_found_by_any_prefix(void **state)
{
	static const uint8_t ids[][16] = {
		{0x12, 0x34, 0x56, [15] = 0x01}, {0x12, 0x34, 0x5f, [15] = 0x02},
		{0x00, 0x00, 0x00, [15] = 0x03}, {0x12, 0x35, 0x56, [15] = 0x04},
		{0xff, 0xff, 0xff, [15] = 0xf5},
	};
	struct fixture f;
	struct named n = {0};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(find_prefix(&f, "", &n), 0);
	for (unsigned i = 0; i < 5; i++)
		add_trace(&f, ids[i]);
	add_event(&f); // nobody's observation, whatever the digits
	assert_int_equal(fixture_commit(&f), 0);

	assert_int_equal(find_prefix(&f, "", &n), 5);
	assert_memory_equal(n.ids[0], ids[4], 16); // the newest first
	assert_memory_equal(n.ids[4], ids[0], 16);
	assert_int_equal(find_prefix(&f, "123", &n), 3);
	assert_int_equal(find_prefix(&f, "12345", &n), 2);
	assert_memory_equal(n.ids[0], ids[1], 16);
	assert_memory_equal(n.ids[1], ids[0], 16);
	assert_int_equal(find_prefix(&f, "123456", &n), 1);
	assert_memory_equal(n.ids[0], ids[0], 16);
	assert_int_equal(find_prefix(&f, "1236", &n), 0);
	assert_int_equal(find_prefix(&f, "0", &n), 1);
	assert_int_equal(find_prefix(&f, "00000000", &n), 1);
	assert_memory_equal(n.ids[0], ids[2], 16);
	assert_int_equal(find_prefix(&f, "0000000000000000000000000000000", &n), 1);
	assert_int_equal(find_prefix(&f, "00000000000000000000000000000003", &n), 1);
	assert_int_equal(find_prefix(&f, "00000000000000000000000000000000", &n), 0);
	assert_int_equal(find_prefix(&f, "ffffff000000000000000000000000f", &n), 1);
	assert_int_equal(find_prefix(&f, "ffffff000000000000000000000000f4", &n), 0);
	n.stop_after = 2;
	assert_int_equal(find_prefix(&f, "12", &n), 2);
	fixture_deinit(&f);
}

/* More of them than one pass of the search remembers, in large and small blocks. */
static void traces_with_a_prefix_are_found_in_all_blocks(void **state)
{
	struct fixture f;
	struct named n = {0};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (unsigned i = 0; i < 1200; i++) {
		add_trace(&f,
		          (uint8_t[16]){0xaa, i % 3 ? 0xb1 : 0xc1, (uint8_t)(i >> 8), (uint8_t)i});
		if (i > 1000 && i % 7 == 0)
			assert_int_equal(fixture_commit(&f), 0);
	}
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(find_prefix(&f, "aab", &n), 800);
	for (unsigned i = 0, at = 1200; i < 800; i++) {
		do
			at--;
		while (at % 3 == 0);
		assert_memory_equal(n.ids[i],
		                    ((uint8_t[]){0xaa, 0xb1, (uint8_t)(at >> 8), (uint8_t)at}), 4);
	}
	assert_int_equal(find_prefix(&f, "aac1000", &n), 6); // 0, 3, 6, 9, 12, 15
	fixture_deinit(&f);
}

static void an_evicted_trace_is_found_no_more(void **state)
{
	struct fixture f;
	struct named n = {0};

	fixture_init(&f);
	f.options.bytes = 16 * MIB;
	assert_int_equal(fixture_open(&f), 0);
	add_trace(&f, (uint8_t[16]){0xab, 1});
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(find_prefix(&f, "ab", &n), 1);
	while (stat_get(&f.stats->blocks_evicted) == 0) {
		add_span(&f, 1, MIB, 1);
		assert_int_equal(fixture_commit(&f), 0);
	}
	add_trace(&f, (uint8_t[16]){0xab, 2});
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(find_prefix(&f, "ab", &n), 1);
	assert_int_equal(n.ids[0][1], 2);
	fixture_deinit(&f);
}

/* --- open runs --- */

static void put_open(struct fixture *f, uint8_t run, uint8_t trace, size_t base_len)
{
	static const char base[100 * KIB];
	struct run_id id = {{run}};
	struct open_head head = {.trace_id = {trace}, .record = {.kind = KIND_LLM}};

	assert_int_equal(batch_put_open(&f->batch, &id, &head, (struct str){base, base_len},
	                                STR("content"), STR("resource"), STR("state")),
	                 0);
}

static bool count_open(void *ctx, const struct span_record *rec)
{
	assert_int_equal(rec->seq, 0);
	assert_int_equal(rec->head.status, STATUS_RUNNING);
	assert_int_equal(rec->head.kind, KIND_LLM);
	assert_true(str_is(rec->resource, "resource"));
	++*(unsigned *)ctx;
	return true;
}

static void open_runs_stay_until_they_end(void **state)
{
	struct fixture f;
	struct buf value;
	struct open_parts parts;
	unsigned count = 0;
	struct run_id id = {{3}};

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	buf_init(&value, MIB);
	for (uint8_t i = 1; i <= 30; i++)
		put_open(&f, i, i % 3, 100 * KIB);
	put_open(&f, 40, 0, 0); // no span: something else of the run table's
	put_open(&f, 50, 0, 5);
	assert_int_equal(batch_delete_open(&f.batch, &(struct run_id){{50}}), 0);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_close(&f);

	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(store_open_runs(f.store, NULL, count_open, &count), 0);
	assert_int_equal(count, 30);
	count = 0;
	assert_int_equal(store_open_runs(f.store, (uint8_t[16]){2}, count_open, &count), 0);
	assert_int_equal(count, 10);
	assert_int_equal(store_open_get(f.store, &id, &value), 0);
	assert_int_equal(open_parse(&parts, (struct str){(char *)value.data, value.len}), 0);
	assert_true(str_is(parts.state, "state"));

	assert_int_equal(batch_delete_open(&f.batch, &id), 0);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(store_open_get(f.store, &id, &value), -ENOENT);
	buf_deinit(&value);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_come_back_in_order_also_after_reopening),
		cmocka_unit_test(a_walk_may_begin_anywhere_stop_and_skip_what_is_old),
		cmocka_unit_test(an_empty_store_has_nothing_and_says_so),
		cmocka_unit_test(chunks_are_whole_blocks_that_follow_each_other),
		cmocka_unit_test(a_block_larger_than_the_limit_comes_alone),
		cmocka_unit_test(a_cursor_outlives_a_restart),
		cmocka_unit_test(a_trace_is_found_among_many),
		cmocka_unit_test(a_trace_of_very_many_blocks_is_found_whole),
		cmocka_unit_test(many_traces_are_found_in_one_pass),
		cmocka_unit_test(observations_are_read_both_ways),
		cmocka_unit_test(of_two_roots_of_a_trace_the_first_speaks_for_it),
		cmocka_unit_test(traces_are_found_by_any_prefix),
		cmocka_unit_test(traces_with_a_prefix_are_found_in_all_blocks),
		cmocka_unit_test(an_evicted_trace_is_found_no_more),
		cmocka_unit_test(open_runs_stay_until_they_end),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
