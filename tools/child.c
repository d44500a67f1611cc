#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What is sent on. */
static const int forwarded[] = {SIGHUP,  SIGINT,   SIGQUIT, SIGTERM, SIGUSR1,
                                SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT};

#define FORWARDED_COUNT (sizeof(forwarded) / sizeof(forwarded[0]))

static void awaited(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGCHLD);
	for (size_t i = 0; i < FORWARDED_COUNT; i++)
		sigaddset(ret, forwarded[i]);
}

void child_hold_signals(struct child_signals *ret)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN}, normal = {.sa_handler = SIG_DFL};
	sigset_t set;

	awaited(&set);
	(void)sigprocmask(SIG_BLOCK, &set, &ret->mask);
	(void)sigaction(SIGPIPE, &ignore, &ret->pipe);
	(void)sigaction(SIGCHLD, &normal, &ret->child); // ignored, an ending would be lost
}

void child_restore_signals(const struct child_signals *before)
{
	(void)sigaction(SIGPIPE, &before->pipe, NULL);
	(void)sigaction(SIGCHLD, &before->child, NULL);
	(void)sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

int child_start(struct child *c, char *const *argv)
{
	int ends[2], error = 0;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	c->pid = fork();
	if (c->pid == 0) {
		child_restore_signals(&c->before);
		execvp(argv[0], argv);
		error = errno;
		(void)!write(ends[1], &error, sizeof(error));
		_exit(127);
	}
	if (c->pid < 0)
		error = errno;
	close(ends[1]);
	if (c->pid > 0 && read(ends[0], &error, sizeof(error)) > 0) // it is closed by exec
		(void)waitpid(c->pid, &c->status, 0);
	close(ends[0]);
	return -error;
}

/* A child that is stopped by the terminal is the whole job's stop; one stopped by somebody's
 * SIGSTOP is that somebody's business. */
static void stop_with(int status)
{
	int number = WSTOPSIG(status);

	if (number == SIGTSTP || number == SIGTTIN || number == SIGTTOU)
		(void)raise(SIGSTOP);
}

/* True once the child has ended. */
static bool reap(struct child *c)
{
	bool ended = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (c->helper && pid == *c->helper && !WIFSTOPPED(status))
			*c->helper = 0;
		if (pid != c->pid)
			continue;
		if (WIFSTOPPED(status)) {
			stop_with(status);
			continue;
		}
		c->status = status;
		ended = true;
	}
	return ended;
}

void child_wait(struct child *c)
{
	siginfo_t info;
	sigset_t set;

	awaited(&set);
	for (;;) {
		int number = sigwaitinfo(&set, &info);
		if (number == SIGCHLD && reap(c))
			return;
		// The kernel signals the terminal's whole process group, the child too.
		if (number > 0 && number != SIGCHLD && info.si_code != SI_KERNEL)
			(void)kill(c->pid, number);
	}
}

int child_end_as(const struct child *c)
{
	const struct rlimit no_core = {0, 0}; // the core is the child's
	sigset_t set;

	if (WIFEXITED(c->status))
		return WEXITSTATUS(c->status);
	int number = WTERMSIG(c->status);
	(void)setrlimit(RLIMIT_CORE, &no_core);
	(void)signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(number);
	return 128 + number; // a container's first process is not killed by its own signals
}
