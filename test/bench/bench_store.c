/* bench_store.c - what the store costs by itself: appending, finding a trace, opening.
 *
 * Usage: bench_store [DIR]. A directory of its own is made in DIR (default: /tmp) and removed.
 * Prints a line a figure; needs 2 GiB of disk.
 */
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/batch.h"
#include "store/commit.h"
#include "store/store.h"

enum { SPANS = 1000000, OBSERVATIONS = 1000000, BODY = 380, LOOKUPS = 50 };

struct bench {
	struct store *store;
	struct store_options options;
	struct stats stats;
	struct batch batch;
	pthread_mutex_t lock;
	pthread_cond_t back;
	bool busy;
	int error;
};

static void on_done(void *ctx, int error)
{
	struct bench *b = ctx;

	pthread_mutex_lock(&b->lock);
	b->busy = false;
	b->error = error;
	pthread_cond_signal(&b->back);
	pthread_mutex_unlock(&b->lock);
}

static void commit(struct bench *b)
{
	b->busy = true;
	commit_submit(b->store, &b->batch);
	pthread_mutex_lock(&b->lock);
	while (b->busy)
		pthread_cond_wait(&b->back, &b->lock);
	pthread_mutex_unlock(&b->lock);
	if (b->error != 0)
		fprintf(stderr, "commit: %s\n", err_str(b->error));
	batch_clear(&b->batch);
}

static double seconds_since(uint64_t begun)
{
	return (double)(clock_mono_ns() - begun) / (double)NS_PER_S;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void trace_id_of(uint32_t n, uint8_t ret[16])
{
	memset(ret, 0x5a, 16);
	n *= 2654435761u;
	memcpy(ret, &n, sizeof(n));
}

/* Ten spans a trace, as they come: those of neighbouring traces mixed. */
static void add_span(struct bench *b, uint32_t n)
{
	static const char body[BODY];
	uint8_t head[21] = {0x0a, 16};

	trace_id_of(n / 100 * 10 + n % 10, head + 2);
	head[18] = 0x2a;
	head[19] = 0x80 | (BODY & 0x7f);
	head[20] = BODY >> 7;
	struct str base[] = {{(char *)head, sizeof(head)}, {body, BODY}};
	struct record_parts parts = {.base = base, .base_count = 2, .start_ns = n, .end_ns = n};
	memcpy(parts.trace_id, head + 2, 16);
	if (batch_add_record(&b->batch.spans, &parts, 1, STR("resource")) != 0)
		abort();
}

static void add_observation(struct bench *b, uint32_t n)
{
	static const char body[200];
	struct observation_head h = {.start_ns = n, .created_ns = n};

	trace_id_of(n, h.trace_id);
	struct str base[] = {{(char *)&h, sizeof(h)}, {body, sizeof(body)}};
	struct record_parts parts = {.base = base, .base_count = 2, .start_ns = n, .end_ns = n};
	memcpy(parts.trace_id, h.trace_id, 16);
	if (batch_add_record(&b->batch.observations, &parts, 0, (struct str){0}) != 0)
		abort();
}

static bool count_span(void *ctx, const struct span_record *rec)
{
	++*(unsigned *)ctx;
	return true;
}

static bool count_observation(void *ctx, const struct observation_record *o)
{
	++*(unsigned *)ctx;
	return true;
}

static bool count_id(void *ctx, const uint8_t trace_id[16])
{
	++*(unsigned *)ctx;
	return true;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_times(const char *what, double ms[LOOKUPS])
{
	qsort(ms, LOOKUPS, sizeof(*ms), compare);
	printf("%-44s p50 %7.2f ms   max %7.2f ms\n", what, ms[LOOKUPS / 2], ms[LOOKUPS - 1]);
}

static void open_store(struct bench *b, const char *what)
{
	uint64_t begun = clock_mono_ns();

	if (store_open(&b->store, &b->options, NULL) != 0 ||
	    commit_start(b->store, on_done, b) != 0)
		abort();
	if (what)
		printf("%-44s %11.1f ms\n", what, seconds_since(begun) * 1e3);
}

static void close_store(struct bench *b)
{
	commit_stop(b->store);
	store_close(b->store);
}

static void bench_append(struct bench *b)
{
	uint64_t begun = clock_mono_ns();
	double cpu = cpu_seconds();

	for (uint32_t i = 0; i < SPANS; i++) {
		add_span(b, i);
		if (batch_bytes(&b->batch) >= MIB)
			commit(b);
	}
	commit(b);
	double wall = seconds_since(begun);
	printf("%-44s %11.0f spans/s, %.2f CPU s\n", "append 1 M spans of 400 B, 1 MiB a commit",
	       SPANS / wall, cpu_seconds() - cpu);
}

static void bench_lookups(struct bench *b)
{
	double trace_ms[LOOKUPS], observation_ms[LOOKUPS], prefix_ms[LOOKUPS];
	unsigned spans = 0, observations = 0, ids = 0;
	uint8_t id[16];

	for (uint32_t i = 0; i < OBSERVATIONS; i++) {
		add_observation(b, i);
		if (batch_bytes(&b->batch) >= MIB)
			commit(b);
	}
	commit(b);
	for (uint32_t i = 0; i < LOOKUPS; i++) {
		trace_id_of(i * 1999, id);
		uint64_t begun = clock_mono_ns();
		if (store_trace(b->store, id, count_span, &spans) != 0)
			abort();
		trace_ms[i] = seconds_since(begun) * 1e3;
		begun = clock_mono_ns();
		if (store_observation(b->store, id, count_observation, &observations) != 0)
			abort();
		observation_ms[i] = seconds_since(begun) * 1e3;
		begun = clock_mono_ns();
		if (store_find_prefix(b->store, id, 8, count_id, &ids) != 0)
			abort();
		prefix_ms[i] = seconds_since(begun) * 1e3;
	}
	if (spans != LOOKUPS * 10 || observations != LOOKUPS || ids != LOOKUPS)
		fprintf(stderr, "found %u spans, %u observations, %u prefixes\n", spans,
		        observations, ids);
	print_times("a trace among 1 M spans", trace_ms);
	print_times("an observation among 1 M", observation_ms);
	print_times("a prefix of 8 digits among 1 M observations", prefix_ms);
}

static void bench_walk(struct bench *b)
{
	unsigned spans = 0;
	uint64_t begun = clock_mono_ns();

	if (store_spans(b->store, 0, 0, count_span, &spans) != 0)
		abort();
	printf("%-44s %11.0f spans/s\n", "walk all spans", spans / seconds_since(begun));
}

/* Fills it to where retention begins, with commits of `bytes`. */
static void fill(struct bench *b, size_t bytes)
{
	for (uint32_t i = 0; stat_get(&b->stats.blocks_evicted) == 0; i++) {
		add_span(b, i);
		if (batch_bytes(&b->batch) >= bytes)
			commit(b);
	}
	commit(b);
}

static void bench_open(struct bench *b)
{
	open_store(b, "open a full 1 GiB store of 64 KiB blocks");
	close_store(b);
	open_store(b, "again");
	close_store(b);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void bench(struct bench *b, const char *in, void (*run)(struct bench *), uint64_t bytes)
{
	char dir[4096];

	snprintf(dir, sizeof(dir), "%s/bench-store-XXXXXX", in);
	if (!mkdtemp(dir))
		abort();
	b->options = (struct store_options){.dir = dir, .bytes = bytes, .stats = &b->stats};
	run(b);
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	memset(&b->stats, 0, sizeof(b->stats));
}

static void bench_open_read_only(struct bench *b)
{
	double ms[LOOKUPS];

	b->options.read_only = true;
	for (unsigned i = 0; i < LOOKUPS; i++) {
		uint64_t begun = clock_mono_ns();
		if (store_open(&b->store, &b->options, NULL) != 0)
			abort();
		ms[i] = seconds_since(begun) * 1e3;
		store_close(b->store);
	}
	print_times("open it to read only", ms);
}

static void append_and_find(struct bench *b)
{
	open_store(b, "create a 2 GiB store");
	bench_append(b);
	bench_walk(b);
	bench_lookups(b);
	close_store(b);
	bench_open_read_only(b);
}

static void open_large_blocks(struct bench *b)
{
	open_store(b, NULL);
	fill(b, 4 * MIB);
	close_store(b);
	bench_open(b);
}

static void open_small_blocks(struct bench *b)
{
	open_store(b, NULL);
	for (uint32_t i = 0; i < 20000; i++) {
		for (unsigned j = 0; j < 3; j++)
			add_span(b, i * 3 + j);
		commit(b);
	}
	close_store(b);
	open_store(b, "open a store of 20,000 blocks of 3 spans");
	close_store(b);
}

int main(int argc, char **argv)
{
	static struct bench b = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.back = PTHREAD_COND_INITIALIZER,
	};
	const char *in = argc > 1 ? argv[1] : "/tmp";

	batch_init(&b.batch);
	setvbuf(stdout, NULL, _IOLBF, 0);
	bench(&b, in, open_large_blocks, 1024ull * MIB);
	bench(&b, in, append_and_find, 2048ull * MIB);
	bench(&b, in, open_small_blocks, 256ull * MIB);
	batch_deinit(&b.batch);
	return 0;
}
