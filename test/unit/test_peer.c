#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ingest/peer.h"

static void test_the_kernel_says_who_is_there(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	struct peer peer = peer_of(ends[0]);
	assert_int_equal(peer.pid, getpid());
	assert_int_equal(peer.uid, geteuid());
	assert_true(peer.start > 0);
	assert_true(peer_is_alive(peer.pid, peer.start));
	assert_true(peer_is_alive(peer.pid, 0));
	assert_false(peer_is_alive(peer.pid, peer.start + 1)); // another took its number
	close(ends[0]);
	close(ends[1]);
}

static void test_what_is_no_socket_has_no_peer(void **state)
{
	(void)state;
	assert_int_equal(peer_of(-1).pid, 0);
}

static void test_a_zombie_is_not_alive(void **state)
{
	siginfo_t info;

	(void)state;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_false(peer_is_alive(child, 0));
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_false(peer_is_alive(child, 0));
}

static void test_a_name_that_looks_like_more_fields_does_not_confuse(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(prctl(PR_SET_NAME, "a) Z 1 (b)", 0, 0, 0), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	struct peer peer = peer_of(ends[0]);
	assert_true(peer_is_alive(peer.pid, peer.start));
	close(ends[0]);
	close(ends[1]);
}

/* A grandchild at the other end: its own parent, us, and nobody else. */
static void test_the_processes_above_are_found(void **state)
{
	int ends[2];
	int64_t middle = 0;
	char byte;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(ends[0]);
		if (fork() == 0) { // lives until we hang up
			int64_t parent = getppid();
			(void)!write(ends[1], &parent, sizeof(parent));
			(void)!read(ends[1], &byte, 1);
			_exit(0);
		}
		(void)!read(ends[1], &byte, 1);
		_exit(0);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &middle, sizeof(middle)), sizeof(middle));
	assert_int_equal(middle, child);
	struct peer peer = {.pid = 0, .parent = child};
	assert_int_equal(peer_above(&peer, child).pid, child);
	struct peer us = peer_above(&peer, getpid());
	assert_int_equal(us.pid, getpid());
	assert_true(us.start > 0 && peer_is_alive(us.pid, us.start));
	assert_int_equal(peer_above(&peer, 0x7fffffff).pid, 0);
	assert_int_equal(peer_above(&(struct peer){0}, child).pid, 0);
	close(ends[0]);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_kernel_says_who_is_there),
		cmocka_unit_test(test_what_is_no_socket_has_no_peer),
		cmocka_unit_test(test_a_zombie_is_not_alive),
		cmocka_unit_test(test_a_name_that_looks_like_more_fields_does_not_confuse),
		cmocka_unit_test(test_the_processes_above_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
