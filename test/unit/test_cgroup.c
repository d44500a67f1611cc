#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/cgroup.h"

/* A /proc and its hierarchies, in a directory of the test's own. */
struct fixture {
	char dir[64];
	struct cgroups *groups;
};

static void write_file(const struct fixture *f, const char *name, const char *text)
{
	char path[256];

	for (const char *p = strchr(name, '/'); p; p = strchr(p + 1, '/')) {
		snprintf(path, sizeof(path), "%s/%.*s", f->dir, (int)(p - name), name);
		(void)mkdir(path, 0700);
	}
	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* One memory hierarchy: of which version, and which part of it is mounted. */
static void mounted(struct fixture *f, const char *type, const char *root)
{
	char text[512], proc[128];

	snprintf(text, sizeof(text),
	         "22 1 8:1 / / rw - ext4 /dev/root rw\n"
	         "30 22 0:26 / /with\\040space rw - cgroup2 cgroup2 rw\n"
	         "31 22 0:27 %s %s/mem rw,relatime shared:1 - %s x rw,memory\n",
	         root, f->dir, type);
	write_file(f, "proc/self/mountinfo", text);
	snprintf(proc, sizeof(proc), "%s/proc", f->dir);
	assert_int_equal(cgroups_new(&f->groups, proc), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	snprintf(f->dir, sizeof(f->dir), "/tmp/test_cgroup.XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	static const char *const files[] = {
		"proc/self/mountinfo",
		"proc/7/cgroup",
		"mem/a/b/memory.oom_control",
		"mem/a/memory.events",
		"mem/a/memory.events.local",
		"mem/b/memory.oom_control",
		"proc/self",
		"proc/7",
		"proc",
		"mem/a/b",
		"mem/a",
		"mem/b",
		"mem",
		"",
	};

	cgroups_free(f->groups);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[256];
		snprintf(path, sizeof(path), "%s/%s", f->dir, files[i]);
		(void)remove(path);
	}
	free(f);
	return 0;
}

static void assert_kills(const struct cgroup *cg, uint64_t wanted)
{
	uint64_t kills = UINT64_MAX;

	assert_true(cgroup_kills(cg, &kills));
	assert_int_equal(kills, wanted);
}

static struct cgroup *join(struct fixture *f, uint64_t wanted)
{
	uint64_t kills = UINT64_MAX;
	struct cgroup *cg = cgroups_join(f->groups, 7, &kills);

	assert_non_null(cg);
	assert_int_equal(kills, wanted);
	return cg;
}

static void test_version_1_is_read_where_its_memory_is(void **state)
{
	struct fixture *f = *state;
	static const char control[] = "oom_kill_disable 0\nunder_oom 0\noom_kill %d\n";
	char text[128];

	mounted(f, "cgroup", "/");
	write_file(f, "proc/7/cgroup", "5:cpu:/elsewhere\n4:hugetlb,memory:/a/b\n0::/unified\n");
	snprintf(text, sizeof(text), control, 3);
	write_file(f, "mem/a/b/memory.oom_control", text);
	struct cgroup *cg = join(f, 3);
	snprintf(text, sizeof(text), control, 4);
	write_file(f, "mem/a/b/memory.oom_control", text);
	assert_kills(cg, 4);
	cgroup_leave(cg);
}

static void test_version_2_counts_the_cgroup_itself_where_it_can(void **state)
{
	struct fixture *f = *state;

	mounted(f, "cgroup2", "/");
	write_file(f, "proc/7/cgroup", "4:cpu:/elsewhere\n0::/a\n");
	write_file(f, "mem/a/memory.events", "low 0\noom 9\noom_kill 9\noom_group_kill 0\n");
	struct cgroup *subtree = join(f, 9);
	cgroup_leave(subtree);
	write_file(f, "mem/a/memory.events.local", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n");
	struct cgroup *own = join(f, 1);
	cgroup_leave(own);
}

static void test_a_part_of_the_hierarchy_that_is_mounted_is_found(void **state)
{
	struct fixture *f = *state;
	uint64_t kills;

	mounted(f, "cgroup2", "/kubepods/pod1");
	write_file(f, "proc/7/cgroup", "0::/kubepods/pod1/a\n");
	write_file(f, "mem/a/memory.events", "oom_kill 0\n");
	cgroup_leave(join(f, 0));
	write_file(f, "proc/7/cgroup", "0::/kubepods/pod10/a\n"); // its name begins alike
	assert_null(cgroups_join(f->groups, 7, &kills));
	write_file(f, "proc/7/cgroup", "0::/../a\n"); // outside our namespace
	assert_null(cgroups_join(f->groups, 7, &kills));
}

static void test_what_can_not_be_seen_is_passed_over(void **state)
{
	struct fixture *f = *state;
	uint64_t kills;

	mounted(f, "cgroup", "/");
	assert_null(cgroups_join(f->groups, 7, &kills)); // no such process
	assert_null(cgroups_join(f->groups, 0, &kills)); // in another namespace
	write_file(f, "proc/7/cgroup", "4:memory:/b\n");
	assert_null(cgroups_join(f->groups, 7, &kills)); // no such cgroup
	write_file(f, "mem/b/memory.oom_control", "oom_kill_disable 0\n");
	assert_null(cgroups_join(f->groups, 7, &kills)); // a kernel that doesn't count
	assert_null(cgroups_join(NULL, 7, &kills));
	cgroup_leave(NULL);
	assert_false(cgroup_kills(NULL, &kills));
}

static void test_each_kill_explains_one_end(void **state)
{
	struct fixture *f = *state;

	mounted(f, "cgroup", "/");
	write_file(f, "proc/7/cgroup", "4:memory:/b\n");
	write_file(f, "mem/b/memory.oom_control", "oom_kill 5\n");
	struct cgroup *cg = join(f, 5), *other = join(f, 5);
	assert_ptr_equal(cg, other);
	assert_false(cgroup_explains(cg, 5, 5)); // it did not rise
	assert_true(cgroup_explains(cg, 5, 6));
	assert_false(cgroup_explains(cg, 5, 6)); // that kill has been told of
	assert_true(cgroup_explains(cg, 5, 7));
	assert_false(cgroup_explains(cg, 7, 7)); // who came after them was not killed by them
	cgroup_leave(cg);
	cgroup_leave(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_version_1_is_read_where_its_memory_is, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(
			test_version_2_counts_the_cgroup_itself_where_it_can, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_part_of_the_hierarchy_that_is_mounted_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_can_not_be_seen_is_passed_over, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_each_kill_explains_one_end, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
