/* store_fixture.h - a store in a directory of its own, and batches put into it one by one. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/batch.h"
#include "store/commit.h"
#include "store/cursor.h"
#include "store/store.h"

struct fixture {
	char dir[64];
	struct stats *stats;
	struct store_options options;
	struct store *store;
	char *quarantine;
	struct batch batch;
	pthread_mutex_t lock;
	pthread_cond_t came_back;
	bool back;
	int error;
};

static inline void on_done(void *ctx, int error)
{
	struct fixture *f = ctx;

	pthread_mutex_lock(&f->lock);
	f->back = true;
	f->error = error;
	pthread_cond_signal(&f->came_back);
	pthread_mutex_unlock(&f->lock);
}

static inline void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	strcpy(f->dir, "/tmp/sidelight-store-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->stats = calloc(1, sizeof(*f->stats));
	assert_non_null(f->stats);
	f->options = (struct store_options){.dir = f->dir, .bytes = 16 * MIB, .stats = f->stats};
	batch_init(&f->batch);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->came_back, NULL);
}

static inline int fixture_open(struct fixture *f)
{
	int rc = store_open(&f->store, &f->options, &f->quarantine);

	return rc != 0 ? rc : commit_start(f->store, on_done, f);
}

static inline void fixture_close(struct fixture *f)
{
	if (!f->store)
		return;
	commit_stop(f->store);
	store_close(f->store);
	f->store = NULL;
	free(f->quarantine);
	f->quarantine = NULL;
}

static inline int fixture_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline void fixture_deinit(struct fixture *f)
{
	fixture_close(f);
	batch_deinit(&f->batch);
	free(f->stats);
	nftw(f->dir, fixture_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* Commits what has gathered and waits for it; cleared when it was stored. */
static inline int fixture_commit(struct fixture *f)
{
	f->back = false;
	commit_submit(f->store, &f->batch);
	pthread_mutex_lock(&f->lock);
	while (!f->back)
		pthread_cond_wait(&f->came_back, &f->lock);
	pthread_mutex_unlock(&f->lock);
	if (f->error == 0)
		batch_clear(&f->batch);
	return f->error;
}

static inline void fixture_trace_id(uint8_t ret[16], uint32_t n)
{
	memset(ret, 0xa5, 16);
	memcpy(ret, &n, sizeof(n));
}

/* A span of trace n: its trace id as field 1, then a field of `len` bytes. */
static inline void add_span(struct fixture *f, uint32_t n, size_t len, uint64_t end_ns)
{
	static char filler[4 * MIB];
	uint8_t head[18] = {0x0a, 16}, field[6] = {0x2a};
	size_t rest = len, i = 1;

	fixture_trace_id(head + 2, n);
	for (; rest >= 0x80; rest >>= 7)
		field[i++] = (uint8_t)(rest | 0x80);
	field[i++] = (uint8_t)rest;
	struct str base[] = {{(char *)head, 18}, {(char *)field, i}, {filler, len}};
	struct record_parts parts = {
		.head = {.status = STATUS_OK},
		.base = base,
		.base_count = 3,
		.start_ns = end_ns,
		.end_ns = end_ns,
	};
	memcpy(parts.trace_id, head + 2, 16);
	assert_int_equal(batch_add_record(&f->batch.spans, &parts, 1, STR("resource")), 0);
}

static inline void add_observation(struct fixture *f, uint32_t n, uint64_t start_ns,
                                   const char *meta)
{
	struct observation_head h = {.start_ns = start_ns, .created_ns = start_ns + 5};
	struct str content = STR("\"user_message\":\"hi\"");

	fixture_trace_id(h.trace_id, n);
	struct str base[] = {{(char *)&h, sizeof(h)}, str_of(meta)};
	struct record_parts parts = {
		.head = {.status = STATUS_OK},
		.base = base,
		.base_count = 2,
		.content = &content,
		.content_count = 1,
		.start_ns = start_ns,
		.end_ns = start_ns + 5,
	};
	memcpy(parts.trace_id, h.trace_id, 16);
	assert_int_equal(batch_add_record(&f->batch.observations, &parts, 0, (struct str){0}), 0);
}

/* What a walk met. */
struct met {
	uint64_t count, first, last;
	bool in_order;
	uint64_t stop_after; // 0: never
};

static inline bool meet(struct met *m, uint64_t seq)
{
	if (m->count++ == 0) {
		m->first = seq;
		m->in_order = true;
	} else if (seq != m->last + 1) {
		m->in_order = false;
	}
	m->last = seq;
	return m->count != m->stop_after;
}

static inline bool meet_span(void *ctx, const struct span_record *rec)
{
	return meet(ctx, rec->seq);
}

static inline struct met all_spans(struct fixture *f)
{
	struct met m = {0};

	assert_int_equal(store_spans(f->store, 0, 0, meet_span, &m), 0);
	return m;
}

/* Spans in the log from seq on. */
static inline uint64_t spans_from(struct fixture *f, uint64_t seq)
{
	uint64_t first, next;

	store_bounds(f->store, STORE_SPANS, &first, &next);
	if (seq < first)
		seq = first;
	return next > seq ? next - seq : 0;
}

/* Opens a cursor of the spans, and returns its place. */
static inline uint64_t open_cursor(struct fixture *f, const char *name, bool from_beginning)
{
	struct cursor c;

	assert_int_equal(cursor_open(f->store, name, STORE_SPANS, from_beginning, &c), 0);
	return c.seq;
}

static inline void note_cursor(struct fixture *f, const char *name, uint64_t seq)
{
	cursor_note(f->store, name, &(struct cursor){.seq = seq});
}
