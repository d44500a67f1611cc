/* A writer is killed in mid-commit, again and again: whatever it was told is durable must be there,
 * once, and the store opens at once. */
#include "../unit/store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"

enum { KILLS = 30 };

/* Commits spans, an open run and a cursor for ever, and says each time how far it got. */
static void write_until_killed(struct fixture *f, int to)
{
	struct run_id run = {{1}};
	struct open_head head = {.trace_id = {1}};

	if (fixture_open(f) != 0)
		_exit(1);
	uint64_t seq = spans_from(f, 0) ? all_spans(f).last : 0;
	open_cursor(f, "exporter", false);
	for (;;) {
		for (unsigned i = 0; i < 40; i++)
			add_span(f, (uint32_t)seq + i, 20 + (seq + i) % 3000, 1);
		seq += 40;
		struct str state = {(char *)&seq, sizeof(seq)};
		if (batch_put_open(&f->batch, &run, &head, STR("base"), (struct str){0},
		                   (struct str){0}, state) != 0)
			_exit(1);
		note_cursor(f, "exporter", seq);
		if (fixture_commit(f) != 0 || write(to, &seq, sizeof(seq)) != sizeof(seq))
			_exit(1);
	}
}

static uint64_t run_and_kill(struct fixture *f, unsigned after_us)
{
	int fds[2];
	uint64_t acknowledged = 0, seq;

	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		write_until_killed(f, fds[1]);
	}
	close(fds[1]);
	/* Let it get going, then kill it at no particular point. */
	assert_int_equal(read(fds[0], &acknowledged, sizeof(acknowledged)), sizeof(acknowledged));
	usleep(after_us);
	assert_int_equal(kill(pid, SIGKILL), 0);
	while (read(fds[0], &seq, sizeof(seq)) == sizeof(seq))
		acknowledged = seq;
	close(fds[0]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return acknowledged;
}

static void nothing_acknowledged_is_lost(void **state)
{
	struct fixture f;
	struct buf value;
	struct open_parts parts;
	uint64_t saved;

	fixture_init(&f);
	f.options.bytes = 256 * MIB;
	buf_init(&value, MIB);
	for (unsigned i = 0; i < KILLS; i++) {
		uint64_t acknowledged = run_and_kill(&f, i * 317);
		assert_int_equal(fixture_open(&f), 0);
		assert_null(f.quarantine);
		struct met m = all_spans(&f);
		assert_true(m.in_order);
		assert_int_equal(m.first, 1);
		assert_int_equal(m.count, m.last);
		/* The last commit may have become durable without the word getting out. */
		assert_in_range(m.last, acknowledged, acknowledged + 40);

		/* One transaction: the open run and the cursor are of the same commit. */
		assert_int_equal(store_open_get(f.store, &(struct run_id){{1}}, &value), 0);
		struct str bytes = {(char *)value.data, value.len};
		assert_int_equal(open_parse(&parts, bytes), 0);
		memcpy(&saved, parts.state.p, sizeof(saved));
		assert_int_equal(saved, m.last);
		assert_int_equal(open_cursor(&f, "exporter", false), m.last);
		fixture_close(&f);
	}
	assert_int_equal(stat_get(&f.stats->blocks_corrupt), 0);
	buf_deinit(&value);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_acknowledged_is_lost)};

	return cmocka_run_group_tests_name("store_kill", tests, NULL, NULL);
}
