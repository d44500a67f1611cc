#include "ingest/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANCESTORS_MAX = 64 };

struct stat_fields {
	char state;
	int64_t parent;
	uint64_t start;
};

/* The fields of /proc/PID/stat behind the command's name, which may hold anything: state is the
 * first of them, the parent the second, the start time the 20th (proc(5): 3, 4 and 22). */
static bool read_stat(int64_t pid, struct stat_fields *ret)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *p = strrchr(text, ')');
	if (!p || p[1] != ' ')
		return false;
	p += 2;
	if (sscanf(p, "%c %" SCNd64, &ret->state, &ret->parent) != 2)
		return false;
	for (int field = 3; p && field < 22; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p && sscanf(p, "%" SCNu64, &ret->start) == 1;
}

struct peer peer_of(int fd)
{
	struct peer peer = {0};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct stat_fields stat;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return peer;
	peer.uid = cred.uid;
	peer.pid = cred.pid > 0 ? cred.pid : 0;
	if (peer.pid && read_stat(peer.pid, &stat)) {
		peer.start = stat.start;
		peer.parent = stat.parent;
	}
	return peer;
}

/* The last of "NSpid:", one number for each PID namespace from ours to its own (proc(5)). */
static int64_t own_pid(int64_t pid)
{
	char path[64], line[256];
	int64_t own = 0;

	snprintf(path, sizeof(path), "/proc/%" PRId64 "/status", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return 0;
	while (own == 0 && fgets(line, sizeof(line), f)) {
		const char *last = strncmp(line, "NSpid:", 6) == 0 ? strrchr(line, '\t') : NULL;
		if (last)
			own = strtoll(last, NULL, 10);
	}
	(void)fclose(f);
	return own;
}

struct peer peer_above(const struct peer *peer, int64_t pid)
{
	struct peer above = {.pid = peer->parent, .uid = peer->uid};
	struct stat_fields stat;

	for (int i = 0; i < ANCESTORS_MAX && above.pid > 0; i++) {
		if (!read_stat(above.pid, &stat))
			break;
		above.start = stat.start;
		above.parent = stat.parent;
		if (own_pid(above.pid) == pid)
			return above;
		above.pid = stat.parent;
	}
	return (struct peer){.uid = peer->uid};
}

bool peer_is_alive(int64_t pid, uint64_t start)
{
	struct stat_fields stat;

	// Where /proc hides others' processes, its start was not visible before either.
	if (!read_stat(pid, &stat))
		return start == 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
	return stat.state != 'Z' && stat.state != 'X' && (start == 0 || stat.start == start);
}
