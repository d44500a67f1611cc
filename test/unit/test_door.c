#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ingest/door.h"

struct place {
	char dir[64], path[96], temporary[96];
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	snprintf(p->dir, sizeof(p->dir), "/tmp/sidelight-door-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/a.sock", p->dir);
	snprintf(p->temporary, sizeof(p->temporary), "%s/a.soc~", p->dir);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	unlink(p->path);
	unlink(p->temporary);
	assert_int_equal(rmdir(p->dir), 0);
	free(p);
	return 0;
}

static int try_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int rc = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

static void test_the_name_appears_when_it_can_be_used(void **state)
{
	struct place *p = *state;
	struct stat st;
	struct door d;

	assert_int_equal(door_bind(&d, p->path, 0660, NULL, 0), 0);
	assert_int_equal(access(p->path, F_OK), -1);
	assert_int_equal(door_show(&d), 0);
	assert_int_equal(try_connect(p->path), 0);
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	assert_int_equal(access(p->temporary, F_OK), -1);
	door_remove(&d);
	close(d.fd);
	assert_int_equal(access(p->path, F_OK), -1);
}

static void test_a_live_daemon_is_left_alone(void **state)
{
	struct place *p = *state;
	struct door first, second;

	assert_int_equal(door_bind(&first, p->path, 0600, NULL, 0), 0);
	// It has not shown itself yet, but it is there.
	assert_int_equal(door_bind(&second, p->path, 0600, NULL, 0), ERR_BUSY);
	door_remove(&second);
	assert_int_equal(door_show(&first), 0);
	assert_int_equal(door_bind(&second, p->path, 0600, NULL, 0), ERR_BUSY);
	door_remove(&second);
	assert_int_equal(try_connect(p->path), 0);
	door_remove(&first);
	close(first.fd);
}

static void test_a_dead_daemons_socket_makes_room(void **state)
{
	struct place *p = *state;
	struct door dead, d;

	assert_int_equal(door_bind(&dead, p->path, 0600, NULL, 0), 0);
	assert_int_equal(door_show(&dead), 0);
	close(dead.fd);
	assert_int_equal(door_bind(&d, p->path, 0600, NULL, 0), 0);
	assert_int_equal(door_show(&d), 0);
	assert_int_equal(try_connect(p->path), 0);
	door_remove(&dead); // not its any more
	assert_int_equal(try_connect(p->path), 0);
	door_remove(&d);
	close(d.fd);
}

static void put_file(const char *path)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fclose(f);
}

static void test_a_foreign_file_is_never_removed(void **state)
{
	struct place *p = *state;
	struct door d;

	put_file(p->path);
	assert_int_equal(door_bind(&d, p->path, 0600, NULL, 0), -ENOTSOCK);
	door_remove(&d);
	assert_int_equal(access(p->path, F_OK), 0);
	unlink(p->path);
	put_file(p->temporary);
	assert_int_equal(door_bind(&d, p->path, 0600, NULL, 0), -ENOTSOCK);
	door_remove(&d);
	assert_int_equal(access(p->temporary, F_OK), 0);
}

static void test_paths_that_cannot_be_bound(void **state)
{
	char longest[120];
	struct door d;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[108] = '\0';
	assert_int_equal(door_bind(&d, longest, 0600, NULL, 0), -ENAMETOOLONG);
	assert_int_equal(door_bind(&d, "", 0600, NULL, 0), -EINVAL);
	assert_int_equal(door_bind(&d, "/nonexistent/a.sock", 0600, NULL, 0), -ENOENT);
	assert_int_equal(door_bind(&d, "/tmp/a.sock", 0600, "no such group", 0), -ESRCH);
}

static void test_a_directory_of_ours_is_made_and_others_refused(void **state)
{
	struct place *p = *state;
	char dir[128], path[160];
	struct stat st;
	struct door d;

	snprintf(dir, sizeof(dir), "%s/own", p->dir);
	snprintf(path, sizeof(path), "%s/b.sock", dir);
	assert_int_equal(door_bind(&d, path, 0600, NULL, 1), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	door_remove(&d);
	close(d.fd);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(door_bind(&d, path, 0600, NULL, 1), -EPERM);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(symlink("/tmp", dir), 0);
	assert_int_equal(door_bind(&d, path, 0600, NULL, 1), -EPERM);
	unlink(dir);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_the_name_appears_when_it_can_be_used),
		T(test_a_live_daemon_is_left_alone),
		T(test_a_dead_daemons_socket_makes_room),
		T(test_a_foreign_file_is_never_removed),
		T(test_paths_that_cannot_be_bound),
		T(test_a_directory_of_ours_is_made_and_others_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
