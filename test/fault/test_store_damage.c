/* Damaged files: whatever is wrong with them, opening and using the store neither crashes nor
 * hangs, and what could not be read is set aside, not removed. */
#include "../unit/store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/db.h"

enum { PAGE = 4096, SECONDS = 20, FLIPS = 200 };

static void path_of(struct fixture *f, char out[128])
{
	snprintf(out, 128, "%s/data.mdb", f->dir);
}

/* A store with large and small blocks, observations, open runs and a list of free pages. */
static void fill(struct fixture *f)
{
	fixture_init(f);
	assert_int_equal(fixture_open(f), 0);
	open_cursor(f, "exporter", false);
	for (uint32_t i = 0; i < 60; i++) {
		struct run_id run = {{1, (uint8_t)i}};
		struct open_head head = {.trace_id = {1}};
		for (uint32_t j = 0; j < (i % 4 ? 3 : 150); j++)
			add_span(f, i, 400, 1000);
		add_observation(f, i, 1000, "meta");
		assert_int_equal(batch_put_open(&f->batch, &run, &head, STR("base"), STR("content"),
		                                STR("resource"), STR("state")),
		                 0);
		if (i % 3 == 0)
			assert_int_equal(batch_delete_open(&f->batch, &run), 0);
		note_cursor(f, "exporter", i + 1);
		assert_int_equal(fixture_commit(f), 0);
	}
	fixture_close(f);
}

/* The part of the file that holds anything. */
static size_t read_used(struct fixture *f, uint8_t **ret)
{
	char path[128];
	enum { MOST = 8 * MIB };
	uint8_t *bytes = calloc(1, MOST);

	assert_non_null(bytes);
	path_of(f, path);
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t n = read(fd, bytes, MOST);
	assert_true(n > 0);
	close(fd);
	size_t used = (size_t)n;
	while (used > 2 * PAGE && bytes[used - 1] == 0)
		used--;
	*ret = bytes;
	return (used + PAGE - 1) / PAGE * PAGE;
}

/* Puts the file back as it was, but for what the case does to it. */
static void restore(struct fixture *f, const uint8_t *bytes, size_t n)
{
	char path[128];

	path_of(f, path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static bool see_any(void *ctx, const struct observation_record *o)
{
	return true;
}

static bool load_any(void *ctx, const struct run_id *run, struct str value)
{
	return true;
}

static bool name_any(void *ctx, const uint8_t trace_id[16])
{
	return true;
}

/* Everything that can be asked of a store. */
static void read_all(struct fixture *f)
{
	struct met m = {0};
	struct buf out;
	struct store_chunk c = {.next_seq = 1};
	uint8_t trace_id[16];
	uint64_t from = 0;
	struct cursor cursor;

	buf_init(&out, STORE_BLOCK_MAX);
	(void)!store_spans(f->store, 0, 0, meet_span, &m);
	while (store_read(f->store, STORE_SPANS, c.next_seq, MIB, &out, &c) == 0 &&
	       c.next_seq != from)
		from = c.next_seq;
	fixture_trace_id(trace_id, 8);
	(void)!store_trace(f->store, trace_id, meet_span, &m);
	(void)!store_observations(f->store, UINT64_MAX, see_any, NULL);
	(void)!store_observation(f->store, trace_id, see_any, NULL);
	(void)!store_find_prefix(f->store, trace_id, 0, name_any, NULL);
	(void)!store_open_runs(f->store, NULL, meet_span, &m);
	(void)!store_open_load(f->store, load_any, NULL);
	(void)!cursor_open(f->store, "exporter", STORE_SPANS, true, &cursor);
	buf_deinit(&out);
}

/* As the daemon does: opens, reads, writes, evicts by age. 0 fine, 1 set aside. */
static int use(struct fixture *f)
{
	if (fixture_open(f) != 0)
		return 2;
	int aside = f->quarantine != NULL;
	read_all(f);
	add_span(f, 1, 100, 1);
	int rc = fixture_commit(f);
	return aside && rc != 0 ? 3 : aside;
}

/* As the tool does when no daemon runs. 0 read, 1 refused. */
static int look(struct fixture *f)
{
	f->options.read_only = true;
	int rc = store_open(&f->store, &f->options, &f->quarantine);
	if (rc == 0)
		read_all(f);
	return rc == 0 ? 0 : rc == ERR_CORRUPT || rc == -ENOENT ? 1 : 2;
}

/* In a child: what the function returned, or minus the signal that ended it. */
static int in_child(struct fixture *f, int (*what)(struct fixture *))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL); // not cmocka's: it would go on with the next test
		alarm(SECONDS);
		_exit(what(f));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int expect(int how, const char *who, const char *what, size_t where)
{
	if (how != 0 && how != 1)
		fail_msg("%s, %s at %zu: %s %d", who, what, where, how < 0 ? "signal" : "exit",
		         abs(how));
	return how;
}

/* How many files were set aside; they are removed, for the next case. */
static unsigned take_aside(struct fixture *f)
{
	char path[PATH_MAX];
	unsigned count = 0;
	DIR *d = opendir(f->dir);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		if (!strstr(e->d_name, ".bad-"))
			continue;
		count += strncmp(e->d_name, "data.mdb", 8) == 0;
		snprintf(path, sizeof(path), "%s/%s", f->dir, e->d_name);
		assert_int_equal(unlink(path), 0);
	}
	closedir(d);
	return count;
}

/* 0: it was used as it is; 1: set aside. Anything else fails the test. What a reader is refused is
 * set aside by a writer. */
static int use_damaged(struct fixture *f, const char *what, size_t where)
{
	int looked = expect(in_child(f, look), "reader", what, where);
	assert_int_equal(take_aside(f), 0);
	int how = expect(in_child(f, use), "writer", what, where);

	if (looked == 1 && how == 0 && strcmp(what, "empty") != 0)
		fail_msg("%s at %zu: only a reader refused it", what, where);
	assert_int_equal(take_aside(f), how);
	return how;
}

static void a_sound_file_is_not_set_aside(void **state)
{
	struct fixture f;
	uint8_t *bytes;

	fill(&f);
	size_t used = read_used(&f, &bytes);
	assert_int_equal(use_damaged(&f, "nothing", 0), 0);
	restore(&f, bytes, used);
	assert_int_equal(use_damaged(&f, "nothing", 0), 0);
	restore(&f, bytes, 0);
	assert_int_equal(use_damaged(&f, "empty", 0), 0);
	free(bytes);
	fixture_deinit(&f);
}

static void a_file_cut_short_is_set_aside(void **state)
{
	static const size_t at[] = {1, 15, 100, PAGE - 1, PAGE, PAGE + 100, 2 * PAGE, 3 * PAGE};
	struct fixture f;
	uint8_t *bytes;

	fill(&f);
	size_t used = read_used(&f, &bytes);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		restore(&f, bytes, at[i]);
		assert_int_equal(use_damaged(&f, "cut", at[i]), 1);
	}
	restore(&f, bytes, used / 2);
	assert_int_equal(use_damaged(&f, "cut", used / 2), 1);
	restore(&f, bytes, used - PAGE);
	assert_int_equal(use_damaged(&f, "cut", used - PAGE), 1);
	free(bytes);
	fixture_deinit(&f);
}

static void a_page_of_zeroes_is_survived_wherever_it_is(void **state)
{
	struct fixture f;
	uint8_t *bytes, page[PAGE];
	unsigned aside = 0;

	fill(&f);
	size_t used = read_used(&f, &bytes);
	for (size_t at = 0; at < used; at += PAGE) {
		memcpy(page, bytes + at, PAGE);
		memset(bytes + at, 0, PAGE);
		restore(&f, bytes, used);
		memcpy(bytes + at, page, PAGE);
		aside += (unsigned)use_damaged(&f, "zeroes", at);
	}
	assert_true(aside > 5);
	free(bytes);
	fixture_deinit(&f);
}

/* Half of the flips hit a page's header and its table of nodes, where they hurt most. */
static void a_flipped_byte_is_survived_wherever_it_is(void **state)
{
	struct fixture f;
	uint8_t *bytes;
	uint32_t random = 12345;
	unsigned aside = 0;

	fill(&f);
	size_t used = read_used(&f, &bytes);
	for (unsigned i = 0; i < FLIPS; i++) {
		random = random * 1664525 + 1013904223;
		size_t at = (random >> 4) % used;
		if (i % 2)
			at = at / PAGE * PAGE + (random >> 24) % 64;
		uint8_t bit = (uint8_t)(1u << (random >> 29));
		bytes[at] ^= bit;
		restore(&f, bytes, used);
		bytes[at] ^= bit;
		aside += (unsigned)use_damaged(&f, "flip", at);
	}
	assert_true(aside > 5);
	free(bytes);
	fixture_deinit(&f);
}

static bool flip_block(struct fixture *f, uint8_t *bytes, size_t used, unsigned nth)
{
	for (size_t at = 0; at + 4 <= used; at += 2) {
		if (memcmp(bytes + at, "SLB1", 4) != 0 || nth-- != 0)
			continue;
		bytes[at + 100] ^= 1;
		restore(f, bytes, used);
		bytes[at + 100] ^= 1;
		return true;
	}
	return false;
}

/* A crash hits what was written last: a file with a damaged block there is not to be trusted. */
static void a_damaged_newest_block_is_found_at_the_start(void **state)
{
	struct fixture f;
	uint8_t *bytes;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	add_span(&f, 1, 4000, 1000);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_close(&f);
	size_t used = read_used(&f, &bytes);
	assert_true(flip_block(&f, bytes, used, 0));
	assert_int_equal(fixture_open(&f), 0);
	assert_non_null(f.quarantine);
	free(bytes);
	fixture_deinit(&f);
}

/* A block that fails its checksum is passed over and counted, and an exporter is told that it lost
 * it. */
static void a_corrupt_block_is_skipped_and_counted(void **state)
{
	struct fixture f;
	struct buf out;
	struct store_chunk c = {.next_seq = 1};
	uint64_t lost = 0, count = 0, from;
	uint8_t *bytes;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	for (uint32_t i = 0; i < 2000; i++)
		add_span(&f, i, 400, 1000);
	assert_int_equal(fixture_commit(&f), 0);
	for (uint32_t i = 0; i < 20; i++) {
		add_span(&f, i, 4000, 1000);
		assert_int_equal(fixture_commit(&f), 0);
	}
	fixture_close(&f);
	size_t used = read_used(&f, &bytes);
	assert_true(flip_block(&f, bytes, used, 3));

	assert_int_equal(fixture_open(&f), 0);
	assert_null(f.quarantine);
	struct met m = all_spans(&f);
	assert_false(m.in_order);
	assert_in_range(m.count, 1800, 1950);
	buf_init(&out, STORE_BLOCK_MAX);
	do {
		from = c.next_seq;
		assert_int_equal(store_read(f.store, STORE_SPANS, from, 200 * KIB, &out, &c), 0);
		count += c.count;
		lost += c.lost;
	} while (c.next_seq != from);
	assert_int_equal(count, m.count);
	assert_int_equal(count + lost, 2020);
	assert_true(stat_get(&f.stats->blocks_corrupt) >= 2);
	buf_deinit(&out);
	free(bytes);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_file_is_not_set_aside),
		cmocka_unit_test(a_file_cut_short_is_set_aside),
		cmocka_unit_test(a_page_of_zeroes_is_survived_wherever_it_is),
		cmocka_unit_test(a_flipped_byte_is_survived_wherever_it_is),
		cmocka_unit_test(a_damaged_newest_block_is_found_at_the_start),
		cmocka_unit_test(a_corrupt_block_is_skipped_and_counted),
	};

	return cmocka_run_group_tests_name("store_damage", tests, NULL, NULL);
}
