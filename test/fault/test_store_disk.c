/* A disk that is full or read-only, and files that are not ours: each its own error, and nothing
 * touched. */
#include "../unit/store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store/db.h"

static void path_of(struct fixture *f, const char *name, char out[128])
{
	snprintf(out, 128, "%s/%s", f->dir, name);
}

static void write_file(struct fixture *f, const char *name, const void *bytes, size_t n)
{
	char path[128];

	path_of(f, name, path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static size_t read_file(struct fixture *f, const char *name, void *bytes, size_t room)
{
	char path[128];

	path_of(f, name, path);
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t n = read(fd, bytes, room);
	assert_true(n >= 0);
	close(fd);
	return (size_t)n;
}

/* --- opening --- */

static void what_is_not_there_yet_is_created_0700(void **state)
{
	struct fixture f;
	struct stat st;
	char dir[128];

	fixture_init(&f);
	path_of(&f, "a/b", dir);
	f.options.dir = dir;
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_true(store_is_preallocated(f.store));
	fixture_deinit(&f);
}

static void one_process_at_a_time(void **state)
{
	struct fixture f;
	struct store_options read_only;
	struct store *other = NULL;

	fixture_init(&f);
	read_only = f.options;
	read_only.read_only = true;
	assert_int_equal(store_open(&other, &read_only, NULL), -ENOENT);
	assert_int_equal(fixture_open(&f), 0);
	assert_int_equal(store_open(&other, &f.options, NULL), ERR_BUSY);
	assert_int_equal(store_open(&other, &read_only, NULL), ERR_BUSY);
	assert_int_equal(store_holder(f.dir), getpid());
	assert_null(other);
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_close(&f);

	/* The tool reads while none runs, and goes on reading when one starts. */
	struct met m = {0};
	assert_int_equal(store_open(&other, &read_only, NULL), 0);
	assert_int_equal(store_spans(other, 0, 0, meet_span, &m), 0);
	assert_int_equal(m.count, 1);
	pid_t pid = fork();
	if (pid == 0)
		_exit(fixture_open(&f) == 0 ? 0 : 1);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(store_spans(other, 0, 0, meet_span, &m), 0);
	assert_int_equal(m.count, 2);
	store_close(other);
	fixture_deinit(&f);
}

static void a_file_is_no_directory(void **state)
{
	struct fixture f;
	char path[128];

	fixture_init(&f);
	write_file(&f, "file", "x", 1);
	path_of(&f, "file", path);
	f.options.dir = path;
	assert_int_equal(fixture_open(&f), -ENOTDIR);
	fixture_deinit(&f);
}

static void a_foreign_file_is_left_alone(void **state)
{
	static const char text[9000] = "somebody's data, not ours";
	char now[sizeof(text)];
	struct fixture f;

	fixture_init(&f);
	write_file(&f, "data.mdb", text, sizeof(text));
	for (unsigned i = 0; i < 2; i++) { // the second time too: our lock file is no proof
		assert_int_equal(fixture_open(&f), ERR_FOREIGN);
		assert_int_equal(read_file(&f, "data.mdb", now, sizeof(now)), sizeof(text));
		assert_memory_equal(now, text, sizeof(text));
	}
	fixture_deinit(&f);
}

/* Puts one number into an LMDB file, in database `name`. */
static void make_mdb(struct fixture *f, const char *name, const char *key, uint64_t number)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val k = val_of(key, strlen(key)), v = val_of(&number, sizeof(number));

	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_set_maxdbs(env, 20), 0);
	assert_int_equal(mdb_env_open(env, f->dir, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, name, MDB_CREATE, &dbi), 0);
	assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void another_program_s_lmdb_is_foreign(void **state)
{
	struct fixture f;

	fixture_init(&f);
	make_mdb(&f, "accounts", "balance", 7);
	assert_int_equal(fixture_open(&f), ERR_FOREIGN);
	assert_int_equal(fixture_open(&f), ERR_FOREIGN);
	fixture_deinit(&f);
}

static void a_newer_format_is_left_alone(void **state)
{
	static uint8_t before[64 * KIB], after[64 * KIB];
	struct fixture f;
	struct store *tool;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	fixture_close(&f);
	make_mdb(&f, "meta", "format", STORE_FORMAT + 1);
	size_t n = read_file(&f, "data.mdb", before, sizeof(before));
	assert_int_equal(fixture_open(&f), ERR_VERSION);
	f.options.read_only = true;
	assert_int_equal(store_open(&tool, &f.options, NULL), ERR_VERSION);
	assert_int_equal(read_file(&f, "data.mdb", after, sizeof(after)), n);
	assert_memory_equal(before, after, n);
	fixture_deinit(&f);
}

/* LMDB's own version stands behind its page's header and magic, on both meta pages. */
static void a_file_of_a_newer_lmdb_is_left_alone(void **state)
{
	static uint8_t before[64 * KIB], after[64 * KIB];
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	fixture_close(&f);
	size_t n = read_file(&f, "data.mdb", before, sizeof(before));
	before[20]++;
	before[4096 + 20]++;
	write_file(&f, "data.mdb", before, n);
	assert_int_equal(fixture_open(&f), ERR_VERSION);
	assert_int_equal(read_file(&f, "data.mdb", after, sizeof(after)), n);
	assert_memory_equal(before, after, n);
	fixture_deinit(&f);
}

static void a_corrupt_file_is_kept_and_its_name_told(void **state)
{
	static uint8_t junk[3 * 4096];
	struct fixture f;
	struct store *tool;
	struct stat st;

	fixture_init(&f);
	assert_int_equal(fixture_open(&f), 0);
	fixture_close(&f);
	write_file(&f, "data.mdb", junk, sizeof(junk));
	f.options.read_only = true;
	assert_int_equal(store_open(&tool, &f.options, NULL), ERR_CORRUPT);
	f.options.read_only = false;
	assert_int_equal(fixture_open(&f), 0);
	assert_non_null(f.quarantine);
	assert_non_null(strstr(f.quarantine, "/data.mdb.bad-"));
	assert_int_equal(stat(f.quarantine, &st), 0);
	assert_int_equal(st.st_size, sizeof(junk));
	add_span(&f, 1, 10, 1);
	assert_int_equal(fixture_commit(&f), 0);
	fixture_deinit(&f);
}

/* Within one second, too, of which their names tell. */
static void a_corrupt_file_replaces_none_before_it(void **state)
{
	static uint8_t junk[3 * 4096];
	char paths[3][128];
	struct fixture f;
	struct stat st;

	fixture_init(&f);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fixture_open(&f), 0);
		fixture_close(&f);
		write_file(&f, "data.mdb", junk, sizeof(junk) - i);
		assert_int_equal(fixture_open(&f), 0);
		assert_non_null(f.quarantine);
		snprintf(paths[i], sizeof(paths[i]), "%s", f.quarantine);
		fixture_close(&f);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(stat(paths[i], &st), 0);
		assert_int_equal(st.st_size, sizeof(junk) - i);
	}
	fixture_deinit(&f);
}

/* --- disks --- */

/* A file system of its own, seen by nobody else; the test is skipped where that is not allowed. */
static void mount_disk(struct fixture *f, const char *options)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", f->dir, "tmpfs", 0, options) != 0)
		skip();
}

static void a_read_only_disk_says_so(void **state)
{
	struct fixture f;

	fixture_init(&f);
	mount_disk(&f, "size=64m");
	assert_int_equal(mount(NULL, f.dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_int_equal(fixture_open(&f), -EROFS);
	umount(f.dir);
	fixture_deinit(&f);
}

static void a_directory_of_others_says_so(void **state)
{
	struct fixture f;
	int status;

	if (geteuid() != 0)
		skip();
	fixture_init(&f);
	pid_t pid = fork();
	if (pid == 0)
		_exit(seteuid(65534) != 0 || fixture_open(&f) != -EACCES);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fixture_deinit(&f);
}

static void what_was_allocated_beforehand_survives_a_full_disk(void **state)
{
	static char junk[MIB];
	struct fixture f;
	char path[128];

	fixture_init(&f);
	mount_disk(&f, "size=40m");
	assert_int_equal(fixture_open(&f), 0);
	assert_true(store_is_preallocated(f.store));
	path_of(&f, "junk", path);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	while (write(fd, junk, sizeof(junk)) > 0) {
	}
	close(fd);
	for (uint32_t i = 0; i < 20; i++) {
		add_span(&f, i, 2 * MIB, 1);
		assert_int_equal(fixture_commit(&f), 0);
	}
	fixture_close(&f);
	umount(f.dir);
	fixture_deinit(&f);
}

/* On a disk too small for the quota: refused while it is full, and nothing of the batch is there;
 * taken when there is room again. */
static void a_full_disk_is_waited_out(void **state)
{
	static char junk[MIB];
	struct fixture f;
	char path[128];
	uint32_t n = 0;

	fixture_init(&f);
	mount_disk(&f, "size=12m");
	f.options.bytes = 64 * MIB;
	path_of(&f, "junk", path);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
	close(fd);
	assert_int_equal(fixture_open(&f), 0);
	assert_false(store_is_preallocated(f.store));
	do
		add_span(&f, n++, MIB, 1);
	while (n < 30 && fixture_commit(&f) == 0);
	assert_int_equal(f.error, -ENOSPC);
	assert_int_equal(fixture_commit(&f), -ENOSPC);
	assert_int_equal(all_spans(&f).count, n - 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(fixture_commit(&f), 0);
	assert_int_equal(all_spans(&f).count, n);
	fixture_close(&f);
	assert_int_equal(fixture_open(&f), 0);
	assert_null(f.quarantine);
	assert_int_equal(all_spans(&f).count, n);
	fixture_close(&f);
	umount(f.dir);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_there_yet_is_created_0700),
		cmocka_unit_test(one_process_at_a_time),
		cmocka_unit_test(a_file_is_no_directory),
		cmocka_unit_test(a_foreign_file_is_left_alone),
		cmocka_unit_test(another_program_s_lmdb_is_foreign),
		cmocka_unit_test(a_newer_format_is_left_alone),
		cmocka_unit_test(a_file_of_a_newer_lmdb_is_left_alone),
		cmocka_unit_test(a_corrupt_file_is_kept_and_its_name_told),
		cmocka_unit_test(a_corrupt_file_replaces_none_before_it),
		cmocka_unit_test(a_read_only_disk_says_so),
		cmocka_unit_test(a_directory_of_others_says_so),
		cmocka_unit_test(what_was_allocated_beforehand_survives_a_full_disk),
		cmocka_unit_test(a_full_disk_is_waited_out),
	};

	return cmocka_run_group_tests_name("store_disk", tests, NULL, NULL);
}
