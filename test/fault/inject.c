/* inject - run a program and spoil one of its system calls.
 *
 *   inject REPORT COMMAND...                       count the calls
 *   inject REPORT kill:CALL:N COMMAND...           SIGKILL as the Nth CALL begins
 *   inject REPORT error:CALL:N:ERRNO COMMAND...    the Nth CALL is not made, and fails so
 *   inject REPORT short:CALL:N COMMAND...          the Nth CALL moves half of what it was asked to
 *
 * CALL and ERRNO are numbers. Calls are counted over all threads and children together, in the
 * order in which they begin, which strace's when= does not do: it counts each thread's. REPORT gets
 * a line "CALL COUNT" for each call that was made, and "hit THREAD" if the Nth came. SIGTERM is
 * passed on; the program's end, a signal's too, becomes ours. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS = 1024, FAILED = 125 };
enum fault { NONE, KILL, ERROR, SHORT };

static const char kinds[] = "-fspo"; // what a descriptor may be
enum { NO_FD, OTHER = 4, KINDS };

static struct {
	enum fault fault;
	unsigned call, nth;
	char on;
	int error;
} plan;

static unsigned counts[CALLS][KINDS];
static bool is_counting;       // from main()'s first call on, an fcntl
static pid_t program, spoiled; // the thread whose call is spoiled, until it returns
static unsigned long long asked;
static char hit[32];

static void die(const char *what)
{
	perror(what);
	exit(FAILED);
}

static void pass_on(int sig)
{
	kill(program, sig);
}

/* --- one call --- */

static void note_hit(pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", tid);
	FILE *f = fopen(path, "r");
	if (!f || !fgets(hit, sizeof(hit), f))
		snprintf(hit, sizeof(hit), "?\n");
	if (f)
		fclose(f);
}

/* Half of a count of bytes, or of buffers. False: it can't be less. */
static bool halve(pid_t tid, struct user_regs_struct *regs)
{
	switch (regs->orig_rax) {
	case SYS_read:
	case SYS_write:
	case SYS_pread64:
	case SYS_pwrite64:
	case SYS_sendto:
	case SYS_recvfrom:
	case SYS_readv:
	case SYS_writev:
	case SYS_preadv:
	case SYS_pwritev:
		break;
	default:
		return false;
	}
	if (regs->rdx < 2)
		return false;
	asked = regs->rdx;
	regs->rdx /= 2;
	spoiled = tid;
	return true;
}

static void spoil(pid_t tid)
{
	struct user_regs_struct regs;

	if (plan.fault == KILL) {
		note_hit(tid);
		kill(program, SIGKILL);
		return;
	}
	if (ptrace(PTRACE_GETREGS, tid, NULL, &regs) != 0)
		return;
	if (plan.fault == SHORT && !halve(tid, &regs))
		return;
	if (plan.fault == ERROR) {
		if (plan.call != SYS_close) // which has closed, whatever it says
			regs.orig_rax = (unsigned long long)-1; // no such call: nothing is done
		spoiled = tid;
	}
	if (ptrace(PTRACE_SETREGS, tid, NULL, &regs) == 0)
		note_hit(tid);
}

static void finish_spoiled(pid_t tid)
{
	struct user_regs_struct regs;

	spoiled = 0;
	if (ptrace(PTRACE_GETREGS, tid, NULL, &regs) != 0)
		return;
	if (plan.fault == ERROR)
		regs.rax = (unsigned long long)-plan.error;
	else
		regs.rdx = asked; // a call keeps its arguments
	ptrace(PTRACE_SETREGS, tid, NULL, &regs);
}

/* What the call's first argument is a descriptor of. */
static unsigned kind_of(pid_t tid, unsigned call, int fd)
{
	static const unsigned of_fds[] = {SYS_read,   SYS_write, SYS_readv,
	                                  SYS_writev, SYS_close, SYS_fcntl};
	char path[64], target[16] = {0};

	for (unsigned i = 0; call != of_fds[i]; i++) {
		if (i + 1 == sizeof(of_fds) / sizeof(of_fds[0]))
			return NO_FD;
	}
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", tid, fd);
	if (readlink(path, target, sizeof(target) - 1) < 0)
		return OTHER;
	if (target[0] == '/')
		return 1;
	return strncmp(target, "socket:", 7) == 0 ? 2
	       : strncmp(target, "pipe:", 5) == 0 ? 3
	                                          : OTHER;
}

static void on_call(pid_t tid)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_EXIT && tid == spoiled)
		finish_spoiled(tid);
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr >= CALLS)
		return;
	unsigned call = (unsigned)info.entry.nr;
	if (call == SYS_fcntl && info.entry.args[1] == F_GETFD) {
		is_counting = true; // itself it can't fail
		return;
	}
	if (!is_counting)
		return;
	unsigned kind = kind_of(tid, call, (int)info.entry.args[0]);
	if (++counts[call][kind] == plan.nth && call == plan.call && kinds[kind] == plan.on)
		spoil(tid);
}

/* --- the program --- */

/* It waits to be traced, and is traced from its exec on. */
static void start(char **command)
{
	int gate[2];
	char byte;

	if (pipe(gate) != 0 || (program = fork()) < 0)
		die("inject");
	if (program == 0) {
		close(gate[1]);
		if (read(gate[0], &byte, 1) != 0)
			_exit(FAILED);
		close(gate[0]);
		execv(command[0], command);
		_exit(FAILED);
	}
	close(gate[0]);
	if (ptrace(PTRACE_SEIZE, program, NULL,
	           PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE |
	                   PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL) != 0) {
		int why = errno;
		kill(program, SIGKILL);
		errno = why;
		die("inject: ptrace");
	}
	signal(SIGTERM, pass_on);
	close(gate[1]);
}

/* Until the program has ended; what outlives it dies with us. */
static int follow(void)
{
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno != EINTR)
			die("inject: wait");
		if (tid < 0)
			continue;
		if (!WIFSTOPPED(status)) {
			if (tid == program)
				return status;
			continue;
		}
		int sig = WSTOPSIG(status);
		if (sig == (SIGTRAP | 0x80)) {
			on_call(tid);
			sig = 0;
		} else if (status >> 16) {
			sig = 0; // an event of ours: a thread, a child, the exec
		}
		ptrace(PTRACE_SYSCALL, tid, NULL, sig);
	}
}

static void write_report(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		die(path);
	for (unsigned i = 0; i < CALLS; i++) {
		for (unsigned k = 0; k < KINDS; k++) {
			if (counts[i][k])
				fprintf(f, "%u.%c %u\n", i, kinds[k], counts[i][k]);
		}
	}
	if (hit[0])
		fprintf(f, "hit %s", hit);
	if (fclose(f) != 0)
		die(path);
}

static bool parse_plan(const char *text)
{
	if (sscanf(text, "kill:%u.%c:%u", &plan.call, &plan.on, &plan.nth) == 3)
		plan.fault = KILL;
	else if (sscanf(text, "error:%u.%c:%u:%d", &plan.call, &plan.on, &plan.nth, &plan.error) ==
	         4)
		plan.fault = ERROR;
	else if (sscanf(text, "short:%u.%c:%u", &plan.call, &plan.on, &plan.nth) == 3)
		plan.fault = SHORT;
	return plan.fault != NONE;
}

int main(int argc, char **argv)
{
	int command = argc > 2 && parse_plan(argv[2]) ? 3 : 2;

	if (argc <= command) {
		fputs("usage: inject REPORT [FAULT] COMMAND...\n", stderr);
		return FAILED;
	}
	start(argv + command);
	int status = follow();
	write_report(argv[1]);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	return FAILED;
}
