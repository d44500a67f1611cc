#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
	NAP_MS = 5,
	READY_MS = 10000,
	STOP_MS = 15000, // exporters are given 5 s, and the disk what it needs
	REMOVE_FILES = 8,
};

/* --- the directory --- */

int private_dir_make(struct private_dir *ret)
{
	const char *bases[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
	int err = ENOENT;

	for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		if (!bases[i] || bases[i][0] != '/')
			continue;
		int len =
			snprintf(ret->path, sizeof(ret->path), "%s/sidelight-run-XXXXXX", bases[i]);
		if (len >= (int)sizeof(ret->path))
			continue;
		if (mkdtemp(ret->path)) // 0700
			return 0;
		err = errno;
	}
	ret->path[0] = '\0';
	return -err;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)remove(path);
	return 0;
}

void private_dir_remove(const struct private_dir *d)
{
	if (d->path[0])
		(void)nftw(d->path, remove_one, REMOVE_FILES, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* --- the collector --- */

int private_reach(const char *socket_path)
{
	static const uint8_t bye[] = {0, 0, 0, 3, 0x92, 7, 0x80}; // lest it look like a loss
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strncpy(addr.sun_path, socket_path, sizeof(addr.sun_path) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int rc = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? 0 : -errno;
	rc = rc == -EAGAIN ? 0 : rc; // it is busy
	if (rc == 0)
		(void)send(fd, bye, sizeof(bye), MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
	return rc;
}

/* Beside this program, or where a build has it, or in PATH. */
static void find_program(char path[PRIVATE_PATH])
{
	static const char *const places[] = {"sidelightd", "../collector/sidelightd"};
	char own[PRIVATE_PATH - 32];

	ssize_t len = readlink("/proc/self/exe", own, sizeof(own) - 1);
	own[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(own, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, PRIVATE_PATH, "%s%s", own, places[i]);
		if (access(path, X_OK) == 0)
			return;
	}
	snprintf(path, PRIVATE_PATH, "sidelightd");
}

static void redirect(const char *log)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int file = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (null < 0 || file < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(file, STDERR_FILENO) < 0)
		_exit(1);
}

/* In the child. Not of our session, so that the terminal's signals don't reach it. */
static void become(const char *program, const char *const *argv, const char *log,
                   const struct child_signals *signals, pid_t parent)
{
	redirect(log);
	setsid();
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	child_restore_signals(signals);
	execvp(program, (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

/* The last line of its log, without what stands before the message. */
static void read_why(struct private_collector *p, const char *log)
{
	FILE *f = fopen(log, "re");
	char line[sizeof(p->why)];

	snprintf(p->why, sizeof(p->why), "it said nothing");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0])
			memcpy(p->why, line, sizeof(line));
	}
	if (f)
		(void)fclose(f);
}

/* Until it serves. False when it has ended, or takes too long. */
static bool await(struct private_collector *p)
{
	uint64_t deadline_ns = clock_mono_ns() + READY_MS * NS_PER_MS;

	while (private_reach(p->socket) < 0) {
		if (waitpid(p->pid, NULL, WNOHANG) == p->pid) {
			p->pid = 0;
			return false;
		}
		if (clock_mono_ns() > deadline_ns) {
			private_stop(p);
			return false;
		}
		(void)poll(NULL, 0, NAP_MS);
	}
	return true;
}

static int start(struct private_collector *p, const struct private_dir *d, const char *data,
                 const struct child_signals *signals)
{
	char program[PRIVATE_PATH], log[PRIVATE_PATH];
	const char *argv[] = {"sidelightd", "--socket", p->socket, "--http",
	                      "off",        "--data",   NULL,      NULL};
	pid_t parent = getpid();

	find_program(program);
	snprintf(log, sizeof(log), "%s/log", d->path);
	if (data)
		argv[6] = data;
	else
		argv[5] = NULL;
	p->pid = fork();
	if (p->pid == 0)
		become(program, argv, log, signals, parent);
	if (p->pid < 0) {
		p->pid = 0;
		return -errno;
	}
	if (await(p))
		return 0;
	read_why(p, log);
	return -ECONNREFUSED;
}

int private_start(struct private_collector *ret, const struct private_dir *d,
                  const struct child_signals *signals)
{
	char data[PRIVATE_PATH], why[sizeof(ret->why)];

	*ret = (struct private_collector){0};
	snprintf(ret->socket, sizeof(ret->socket), "%s/sidelight.sock", d->path);
	int err = start(ret, d, NULL, signals);
	if (err == 0)
		return 0;
	memcpy(why, ret->why, sizeof(why));
	snprintf(data, sizeof(data), "%s/data", d->path);
	err = start(ret, d, data, signals);
	ret->is_lost = err == 0;
	memcpy(ret->why, why, sizeof(why));
	return err;
}

void private_stop(struct private_collector *p)
{
	uint64_t deadline_ns = clock_mono_ns() + STOP_MS * NS_PER_MS;

	if (p->pid == 0)
		return;
	(void)kill(p->pid, SIGTERM);
	while (waitpid(p->pid, NULL, WNOHANG) == 0) {
		if (clock_mono_ns() > deadline_ns)
			(void)kill(p->pid, SIGKILL);
		(void)poll(NULL, 0, NAP_MS);
	}
	p->pid = 0;
}
