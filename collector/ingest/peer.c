#include "ingest/peer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The fields of /proc/PID/stat behind the command's name, which may hold anything: state is the
 * first of them, the start time the 20th (proc(5): 3 and 22). */
static bool read_stat(int64_t pid, char *ret_state, uint64_t *ret_start)
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
	*ret_state = p[2];
	p += 2;
	for (int field = 3; p && field < 22; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p && sscanf(p, "%" SCNu64, ret_start) == 1;
}

struct peer peer_of(int fd)
{
	struct peer peer = {0};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	char state;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return peer;
	peer.uid = cred.uid;
	peer.pid = cred.pid > 0 ? cred.pid : 0;
	if (peer.pid && !read_stat(peer.pid, &state, &peer.start))
		peer.start = 0;
	return peer;
}

bool peer_is_alive(int64_t pid, uint64_t start)
{
	uint64_t now_start;
	char state;

	if (!read_stat(pid, &state, &now_start))
		return false;
	return state != 'Z' && state != 'X' && (start == 0 || now_start == start);
}
