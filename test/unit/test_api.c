#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/clock.h"
#include "http/api.h"
#include "store/batch.h"
#include "store/commit.h"
#include "store/store.h"

#define T0 (1700000000 * NS_PER_S)

struct fixture {
	char dir[64];
	struct stats stats;
	struct store *store;
	struct batch batch;
	sem_t committed;
	int error;
	struct buf out;
};

static void done(void *ctx, int error)
{
	struct fixture *f = ctx;

	f->error = error;
	sem_post(&f->committed);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char *quarantine;

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/test-api-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	struct store_options options = {.dir = f->dir, .bytes = 64 * MIB, .stats = &f->stats};
	assert_int_equal(store_open(&f->store, &options, &quarantine), 0);
	assert_null(quarantine);
	sem_init(&f->committed, 0, 0);
	assert_int_equal(commit_start(f->store, done, f), 0);
	batch_init(&f->batch);
	buf_init(&f->out, CAP_RESPONSE);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	commit_stop(f->store);
	store_close(f->store);
	batch_deinit(&f->batch);
	buf_deinit(&f->out);
	sem_destroy(&f->committed);
	nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void commit(struct fixture *f)
{
	commit_submit(f->store, &f->batch);
	sem_wait(&f->committed);
	assert_int_equal(f->error, 0);
	batch_clear(&f->batch);
}

/* A span to write: its ids are its letters, its name too. parent 0: none; end_ms 0: it runs. */
struct one {
	uint8_t trace;
	char id, parent;
	unsigned start_ms, end_ms;
	bool is_root;
};

static void fill_id(uint8_t *ret, size_t size, uint8_t byte)
{
	memset(ret, byte, size);
}

static void encode(struct buf *base, const struct one *s)
{
	uint8_t trace_id[16], span_id[8];

	fill_id(trace_id, sizeof(trace_id), s->trace);
	fill_id(span_id, sizeof(span_id), (uint8_t)s->id);
	pb_bytes(base, 1, trace_id, sizeof(trace_id));
	pb_bytes(base, 2, span_id, sizeof(span_id));
	if (s->parent) {
		fill_id(span_id, sizeof(span_id), (uint8_t)s->parent);
		pb_bytes(base, 4, span_id, sizeof(span_id));
	}
	pb_str(base, 5, (struct str){&s->id, 1});
	pb_fixed64(base, 7, T0 + s->start_ms * NS_PER_MS);
	if (s->end_ms)
		pb_fixed64(base, 8, T0 + s->end_ms * NS_PER_MS);
	pb_attr_str(base, 9, STR("gen_ai.conversation.id"), STR("session-1"));
}

static struct record_head head_of(const struct one *s)
{
	return (struct record_head){.kind = KIND_CHAIN,
	                            .status = s->end_ms ? STATUS_OK : STATUS_RUNNING,
	                            .flags = s->is_root ? RECORD_ROOT : 0};
}

static void add_finished(struct fixture *f, struct one s)
{
	struct buf base, content;

	buf_init(&base, MIB);
	buf_init(&content, MIB);
	encode(&base, &s);
	pb_attr_str(&content, 9, STR("input"), STR("hello"));
	struct str parts[2] = {{(char *)base.data, base.len}, {(char *)content.data, content.len}};
	struct record_parts record = {.head = head_of(&s),
	                              .base = &parts[0],
	                              .base_count = 1,
	                              .content = &parts[1],
	                              .content_count = 1,
	                              .start_ns = T0 + s.start_ms * NS_PER_MS,
	                              .end_ns = T0 + s.end_ms * NS_PER_MS};
	fill_id(record.trace_id, sizeof(record.trace_id), s.trace);
	assert_int_equal(batch_add_record(&f->batch.spans, &record, 0, (struct str){0}), 0);
	buf_deinit(&base);
	buf_deinit(&content);
}

static void add_running(struct fixture *f, struct one s)
{
	struct buf base;
	struct run_id run;
	struct open_head head = {.record = head_of(&s)};

	buf_init(&base, MIB);
	encode(&base, &s);
	fill_id(head.trace_id, sizeof(head.trace_id), s.trace);
	fill_id(run.b, sizeof(run.b), (uint8_t)s.id);
	assert_int_equal(batch_put_open(&f->batch, &run, &head,
	                                (struct str){(char *)base.data, base.len}, (struct str){0},
	                                (struct str){0}, (struct str){0}),
	                 0);
	buf_deinit(&base);
}

static void add_observation(struct fixture *f, uint8_t trace, char id, unsigned created_ms,
                            enum run_status status)
{
	struct observation_head head = {.start_ns = T0 + created_ms * NS_PER_MS,
	                                .created_ns = T0 + created_ms * NS_PER_MS};
	char meta[64];

	fill_id(head.trace_id, sizeof(head.trace_id), trace);
	fill_id(head.span_id, sizeof(head.span_id), (uint8_t)id);
	snprintf(meta, sizeof(meta), "\"name\":\"%c\",\"meta\":%u", id, created_ms);
	struct str base[2] = {{(const char *)&head, sizeof(head)}, str_of(meta)};
	struct str content = STR("\"user_message\":\"hi\"");
	struct record_parts record = {.head = {.status = (uint8_t)status, .flags = RECORD_ROOT},
	                              .base = base,
	                              .base_count = 2,
	                              .content = &content,
	                              .content_count = 1,
	                              .start_ns = head.start_ns,
	                              .end_ns = head.created_ns};
	fill_id(record.trace_id, sizeof(record.trace_id), trace);
	assert_int_equal(batch_add_record(&f->batch.observations, &record, 0, (struct str){0}), 0);
}

static const char *text_of(struct fixture *f)
{
	buf_append_byte(&f->out, 0);
	assert_int_equal(buf_error(&f->out), 0);
	return (const char *)f->out.data;
}

static const char *traces(struct fixture *f, struct api_query q)
{
	buf_clear(&f->out);
	assert_int_equal(api_traces(f->store, &q, T0 + 5000 * NS_PER_MS, &f->out), 0);
	return text_of(f);
}

static const char *observations(struct fixture *f, struct api_query q)
{
	buf_clear(&f->out);
	assert_int_equal(api_observations(f->store, &q, &f->out), 0);
	return text_of(f);
}

static const char *spans(struct fixture *f, struct api_query q)
{
	buf_clear(&f->out);
	assert_int_equal(api_spans(f->store, &q, &f->out), 0);
	return text_of(f);
}

static int trace(struct fixture *f, const char *id)
{
	buf_clear(&f->out);
	return api_trace(f->store, str_of(id), T0 + 5000 * NS_PER_MS, &f->out);
}

static const char *trace_text(struct fixture *f, const char *id)
{
	assert_int_equal(trace(f, id), 0);
	return text_of(f);
}

/* The names of the spans from where key is, in their order. */
static void assert_names(const char *text, const char *key, const char *names)
{
	char found[64] = "";
	size_t n = 0;
	const char *at = strstr(text, key);

	assert_non_null(at);
	for (; (at = strstr(at, "\"name\":\"")) && n < sizeof(found) - 1; at++)
		found[n++] = at[8];
	assert_string_equal(found, names);
}

static uint64_t next_of(const char *text)
{
	const char *at = strstr(text, "],\"next\":");

	assert_non_null(at);
	return strtoull(at + 9, NULL, 10); // null: 0
}

static void an_empty_store_answers(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(traces(f, (struct api_query){.limit = 5}),
	                    "{\"traces\":[],\"next\":null}");
	assert_string_equal(observations(f, (struct api_query){.limit = 5}),
	                    "{\"observations\":[],\"next\":null}");
	assert_string_equal(spans(f, (struct api_query){.limit = 5}),
	                    "{\"spans\":[],\"next\":null}");
	assert_int_equal(trace(f, "last"), -ENOENT);
	assert_int_equal(trace(f, "61616161616161616161616161616161"), -ENOENT);
}

static void a_trace_lists_parents_first_and_siblings_by_start(void **state)
{
	struct fixture *f = *state;

	// As they end: children before parents, the later sibling first.
	add_finished(f, (struct one){'t', 'e', 'c', 60, 70, false});
	add_finished(f, (struct one){'t', 'c', 'a', 50, 80, false});
	add_finished(f, (struct one){'t', 'd', 'b', 20, 30, false});
	add_finished(f, (struct one){'t', 'b', 'a', 10, 40, false});
	add_finished(f, (struct one){'x', 'y', 0, 1, 2, true}); // another trace
	add_finished(f, (struct one){'t', 'a', 0, 1, 90, true});
	add_observation(f, 't', 'a', 90, STATUS_OK);
	commit(f);
	const char *text = trace_text(f, "74747474747474747474747474747474");
	assert_names(text, "\"spans\"", "abdce");
	assert_non_null(strstr(text, "{\"trace\":{\"name\":\"a\",\"meta\":90},\"spans\":["));
	assert_non_null(strstr(text, "\"input\":\"hello\""));
}

static void what_runs_is_in_its_trace(void **state)
{
	struct fixture *f = *state;

	add_running(f, (struct one){'t', 'a', 0, 1, 0, true});
	add_finished(f, (struct one){'t', 'b', 'a', 10, 40, false});
	add_running(f, (struct one){'t', 'c', 'a', 50, 0, false});
	commit(f);
	const char *text = trace_text(f, "last");
	assert_names(text, "\"spans\"", "abc");
	assert_non_null(strstr(text, "\"end_time\":null,\"latency_ms\":4950.000"));
	// The root stands for the trace: with an observation's members, without content.
	assert_non_null(strstr(text, "\"session_id\":\"session-1\""));
	assert_non_null(strstr(text, "\"created_at\":null"));
}

static void a_trace_without_its_root_still_answers(void **state)
{
	struct fixture *f = *state;

	add_finished(f, (struct one){'t', 'c', 'b', 20, 30, false});
	add_finished(f, (struct one){'t', 'b', 'z', 10, 40, false});
	commit(f);
	const char *text = trace_text(f, "74747474747474747474747474747474");
	assert_names(text, "\"spans\"", "bc");
	assert_names(text, "\"trace\"", "bbc");
}

static void a_span_is_shown_once_even_if_it_just_ended(void **state)
{
	struct fixture *f = *state;

	add_running(f, (struct one){'t', 'a', 0, 1, 0, true});
	add_finished(f, (struct one){'t', 'a', 0, 1, 90, true});
	commit(f);
	const char *text = trace_text(f, "74747474747474747474747474747474");
	assert_names(text, "\"spans\"", "a");
	assert_non_null(strstr(strstr(text, "\"spans\""), "\"code\":\"ok\""));
}

static void a_ring_of_parents_is_shown_whole(void **state)
{
	struct fixture *f = *state;

	add_finished(f, (struct one){'t', 'b', 'c', 10, 40, false});
	add_finished(f, (struct one){'t', 'c', 'b', 20, 30, false});
	add_finished(f, (struct one){'t', 's', 's', 30, 31, false}); // its own parent
	commit(f);
	const char *text = trace_text(f, "74747474747474747474747474747474");
	assert_names(text, "\"spans\"", "sbc");
}

static void a_trace_is_found_by_an_unambiguous_prefix(void **state)
{
	struct fixture *f = *state;

	add_finished(f, (struct one){0xab, 'a', 0, 1, 90, true});
	add_observation(f, 0xab, 'a', 90, STATUS_OK);
	add_running(f, (struct one){0xac, 'b', 0, 1, 0, true});
	add_observation(f, 0xab, 'b', 95, STATUS_OK); // a second root of the same trace
	commit(f);
	assert_names(trace_text(f, "ABABAB"), "\"spans\"", "a");
	assert_names(trace_text(f, "abababa"), "\"spans\"", "a");
	assert_names(trace_text(f, "acacacac"), "\"spans\"", "b");
	assert_int_equal(trace(f, "ababac"), -ENOENT);
	assert_int_equal(trace(f, "ababa"), -EINVAL); // too short
	assert_int_equal(trace(f, "ababag"), -EINVAL);
	assert_int_equal(trace(f, "abababababababababababababababababab"), -EINVAL); // too long
	assert_int_equal(trace(f, "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"), -EINVAL);
}

/* A run of a trace whose id is 0xab but for the last byte. */
static void add_running_like_ab(struct fixture *f)
{
	struct one s = {0xab, 'b', 0, 1, 0, true};
	struct open_head head = {.record = head_of(&s)};
	struct run_id run;
	struct buf base;

	fill_id(head.trace_id, sizeof(head.trace_id), 0xab);
	head.trace_id[15] = 1;
	fill_id(run.b, sizeof(run.b), 'b');
	buf_init(&base, MIB);
	pb_bytes(&base, 1, head.trace_id, sizeof(head.trace_id));
	pb_bytes(&base, 2, "bbbbbbbb", 8);
	assert_int_equal(batch_put_open(&f->batch, &run, &head,
	                                (struct str){(char *)base.data, base.len}, (struct str){0},
	                                (struct str){0}, (struct str){0}),
	                 0);
	buf_deinit(&base);
}

static void a_prefix_of_two_traces_is_ambiguous(void **state)
{
	struct fixture *f = *state;

	add_running(f, (struct one){0xab, 'a', 0, 1, 0, true});
	add_running_like_ab(f);
	commit(f);
	assert_int_equal(trace(f, "abababab"), -EEXIST);
	assert_int_equal(trace(f, "abababababababababababababababab"), 0);
}

static void a_prefix_of_a_running_and_an_ended_trace_is_ambiguous(void **state)
{
	struct fixture *f = *state;

	add_finished(f, (struct one){0xab, 'a', 0, 1, 90, true});
	add_observation(f, 0xab, 'a', 90, STATUS_OK);
	commit(f);
	assert_int_equal(trace(f, "abababab"), 0);
	add_running_like_ab(f);
	commit(f);
	assert_int_equal(trace(f, "abababab"), -EEXIST);
	assert_int_equal(trace(f, "ababababababababababababababab0"), 0);
}

static void traces_are_running_ones_then_the_newest(void **state)
{
	struct fixture *f = *state;

	add_observation(f, 1, 'a', 10, STATUS_OK);
	add_observation(f, 2, 'b', 20, STATUS_ERROR);
	add_running(f, (struct one){3, 'c', 0, 1, 0, true});
	add_running(f, (struct one){3, 'x', 'c', 1, 0, false}); // no root
	add_running(f, (struct one){4, 'd', 0, 2, 0, true});
	commit(f);
	const char *text = traces(f, (struct api_query){.limit = 50});
	assert_names(text, "\"traces\"", "dcba");
	assert_null(strstr(text, "user_message"));
	assert_int_equal(next_of(text), 0);
}

static void a_root_that_just_ended_is_listed_once(void **state)
{
	struct fixture *f = *state;

	add_running(f, (struct one){'t', 'a', 0, 1, 0, true});
	add_observation(f, 't', 'a', 10, STATUS_OK);
	commit(f);
	assert_names(traces(f, (struct api_query){.limit = 50}), "\"traces\"", "a");
}

static void pages_follow_each_other(void **state)
{
	struct fixture *f = *state;
	struct api_query q = {.limit = 2};

	for (int i = 0; i < 5; i++)
		add_observation(f, (uint8_t)(i + 1), (char)('a' + i), 10 + i, STATUS_OK);
	add_running(f, (struct one){9, 'r', 0, 1, 0, true});
	commit(f);
	const char *text = traces(f, q);
	assert_names(text, "\"traces\"", "red");
	q.cursor = next_of(text);
	text = traces(f, q);
	assert_names(text, "\"traces\"", "cb");
	q.cursor = next_of(text);
	text = traces(f, q);
	assert_names(text, "\"traces\"", "a");
	assert_int_equal(next_of(text), 0);
	// A last page that is just full says that it is the last.
	q = (struct api_query){.limit = 5};
	assert_int_equal(next_of(observations(f, q)), 0);
}

static void since_and_status_narrow_the_answer(void **state)
{
	struct fixture *f = *state;

	add_observation(f, 1, 'a', 10, STATUS_OK);
	add_observation(f, 2, 'b', 20, STATUS_ERROR);
	add_observation(f, 3, 'c', 30, STATUS_OK);
	add_running(f, (struct one){4, 'r', 0, 1, 0, true});
	commit(f);
	struct api_query q = {.limit = 50, .since_ns = T0 + 20 * NS_PER_MS};
	assert_names(observations(f, q), "\"observations\"", "cb");
	assert_names(traces(f, q), "\"traces\"", "rcb");
	q = (struct api_query){.limit = 50, .statuses = 1u << STATUS_ERROR};
	assert_names(traces(f, q), "\"traces\"", "b");
	q.statuses = 1u << STATUS_RUNNING;
	assert_names(traces(f, q), "\"traces\"", "r");
}

static void observations_have_their_content(void **state)
{
	struct fixture *f = *state;

	add_observation(f, 1, 'a', 10, STATUS_OK);
	commit(f);
	assert_string_equal(observations(f, (struct api_query){.limit = 1}),
	                    "{\"observations\":[{\"name\":\"a\",\"meta\":10,"
	                    "\"user_message\":\"hi\"}],\"next\":null}");
}

static void spans_come_oldest_first_and_in_pages(void **state)
{
	struct fixture *f = *state;
	struct api_query q = {.limit = 2};

	add_finished(f, (struct one){'t', 'a', 0, 10, 20, false});
	add_finished(f, (struct one){'t', 'b', 0, 10, 30, false});
	add_finished(f, (struct one){'t', 'c', 0, 10, 40, false});
	commit(f);
	const char *text = spans(f, q);
	assert_names(text, "\"spans\"", "ab");
	q.cursor = next_of(text);
	text = spans(f, q);
	assert_names(text, "\"spans\"", "c");
	assert_int_equal(next_of(text), 0);
	q = (struct api_query){.limit = 50, .since_ns = T0 + 30 * NS_PER_MS};
	assert_names(spans(f, q), "\"spans\"", "bc");
}

static void a_trace_of_many_spans_is_ordered_in_time(void **state)
{
	struct fixture *f = *state;
	enum { SPANS = 20000 };
	struct buf base;

	// A chain as deep as it is long: no recursion may break on it.
	buf_init(&base, MIB);
	for (int i = SPANS; i > 0; i--) {
		uint8_t trace_id[16],
			span_id[8] = {1,         0, 0, 0, (uint8_t)(i >> 16), (uint8_t)(i >> 8),
		                      (uint8_t)i};
		uint8_t parent[8] = {1,
		                     0,
		                     0,
		                     0,
		                     (uint8_t)((i - 1) >> 16),
		                     (uint8_t)((i - 1) >> 8),
		                     (uint8_t)(i - 1)};
		fill_id(trace_id, sizeof(trace_id), 't');
		buf_clear(&base);
		pb_bytes(&base, 1, trace_id, sizeof(trace_id));
		pb_bytes(&base, 2, span_id, sizeof(span_id));
		if (i > 1)
			pb_bytes(&base, 4, parent, sizeof(parent));
		pb_str(&base, 5, STR("s"));
		pb_fixed64(&base, 7, T0);
		pb_fixed64(&base, 8, T0 + 1);
		struct str part = {(char *)base.data, base.len};
		struct record_parts record = {.head = {.status = STATUS_OK},
		                              .base = &part,
		                              .base_count = 1,
		                              .start_ns = T0,
		                              .end_ns = T0 + 1};
		memcpy(record.trace_id, trace_id, sizeof(trace_id));
		assert_int_equal(batch_add_record(&f->batch.spans, &record, 0, (struct str){0}), 0);
		if (batch_bytes(&f->batch) > MIB)
			commit(f);
	}
	buf_deinit(&base);
	commit(f);
	const char *text = trace_text(f, "74747474747474747474747474747474");
	const char *at = strstr(text, "\"spans\""), *end = text + f->out.len;
	int last = 0, count = 0;
	// A short way at a time: a sanitizer looks at all of what a search is given.
	while ((at = memmem(at, end - at < 1000 ? (size_t)(end - at) : 1000, "\"span_id\":\"",
	                    11))) {
		char digits[7] = "";
		memcpy(digits, at + 19, 6);
		int i = (int)strtol(digits, NULL, 16);
		assert_true(i > last);
		last = i;
		count++;
		at += 11;
	}
	assert_int_equal(count, SPANS);
}

static void since_is_read_in_all_its_forms(void **state)
{
	uint64_t now = 1700000000 * NS_PER_S + 5, ns;
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"10s", 1699999990 * NS_PER_S + 5},
		{"5m", 1699999700 * NS_PER_S + 5},
		{"1h", 1699996400 * NS_PER_S + 5},
		{"2d", 1699827200 * NS_PER_S + 5},
		{"99999999d", 0},
		{"1600000000", 1600000000 * NS_PER_S},
		{"1600000000.25", 1600000000 * NS_PER_S + 250000000},
		{"2023-11-14T22:13:20Z", 1700000000 * NS_PER_S},
		{"2023-11-14t22:13:20.000000001z", 1700000000 * NS_PER_S + 1},
		{"2023-11-15T00:13:20.5+02:00", 1700000000 * NS_PER_S + 500000000},
		{"2024-02-29T00:00:00-00:00", 1709164800 * NS_PER_S},
		{"1970-01-01T00:00:00Z", 0},
	};
	static const char *const bad[] = {
		"",
		"s",
		"-5m",
		"5:",
		"5x",
		"5mm",
		"1h30m",
		"5 m",
		"2023-11-14",
		"2023-02-29T00:00:00Z",
		"yesterday",
		"2023-13-01T00:00:00Z",
		"1.",
		"2023-11-14T22:13:20",
		"1e9",
		"2023-11-14T24:13:20Z",
		"9999999999999999999999",
		"2023-11-14T22:13:20.Z",
		"9999-01-01T00:00:00Z",
		"1969-12-31T23:59:59Z",
		"1970-01-01T00:00:00+01:00",
		"2023-11-14T22:13:20+0200",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (!api_since(str_of(good[i].text), now, &ns))
			fail_msg("refused: %s", good[i].text);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (api_since(str_of(bad[i]), now, &ns))
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_empty_store_answers),
		TEST(a_trace_lists_parents_first_and_siblings_by_start),
		TEST(what_runs_is_in_its_trace),
		TEST(a_trace_without_its_root_still_answers),
		TEST(a_span_is_shown_once_even_if_it_just_ended),
		TEST(a_ring_of_parents_is_shown_whole),
		TEST(a_trace_is_found_by_an_unambiguous_prefix),
		TEST(a_prefix_of_two_traces_is_ambiguous),
		TEST(a_prefix_of_a_running_and_an_ended_trace_is_ambiguous),
		TEST(traces_are_running_ones_then_the_newest),
		TEST(a_root_that_just_ended_is_listed_once),
		TEST(pages_follow_each_other),
		TEST(since_and_status_narrow_the_answer),
		TEST(observations_have_their_content),
		TEST(spans_come_oldest_first_and_in_pages),
		TEST(a_trace_of_many_spans_is_ordered_in_time),
		cmocka_unit_test(since_is_read_in_all_its_forms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
