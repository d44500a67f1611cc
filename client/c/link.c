#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull
#define BACKOFF_FIRST_NS (50 * MS)
#define BACKOFF_LAST_NS (2000 * MS)
#define SEND_BUFFER (1024 * 1024) // asked for; the kernel gives net.core.wmem_max at most

_Static_assert(LINK_PATH == sizeof(((struct sockaddr_un *)0)->sun_path), "a path fits an address");

uint64_t sl_mono_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- Where the socket is ---- */

static int add_path(struct link *l, const char *directory, const char *rest)
{
	int n = snprintf(l->paths[l->path_count], LINK_PATH, "%s%s", directory, rest);

	if (n < 0 || n >= LINK_PATH)
		return -ENAMETOOLONG;
	l->path_count++;
	return 0;
}

static int find_paths(struct link *l, const char *socket)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char directory[64];

	if (!socket || !*socket)
		socket = getenv("SIDELIGHT_SOCKET");
	if (socket && *socket) {
		l->path_named = true;
		return add_path(l, socket, "");
	}
	int r = add_path(l, "/run/sidelight", "/sidelight.sock");
	// One that is too long for an address can't be the collector's.
	if (r == 0 && runtime && *runtime)
		(void)add_path(l, runtime, "/sidelight/sidelight.sock");
	snprintf(directory, sizeof(directory), "/tmp/sidelight-%u", (unsigned)geteuid());
	return r < 0 ? r : add_path(l, directory, "/sidelight.sock");
}

/* Anybody may make a directory in /tmp: only our own, closed to others, is trusted. */
static bool is_trusted(const char *path)
{
	char directory[LINK_PATH];
	struct stat st;

	if (strncmp(path, "/tmp/", 5) != 0)
		return true;
	snprintf(directory, sizeof(directory), "%s", path);
	*strrchr(directory, '/') = '\0';
	return lstat(directory, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       (st.st_mode & 077) == 0;
}

static const char *choose_path(const struct link *l)
{
	struct stat st;

	if (l->path_named)
		return l->paths[0];
	for (int i = 0; i < l->path_count; i++)
		if (stat(l->paths[i], &st) == 0 && is_trusted(l->paths[i]))
			return l->paths[i];
	return NULL;
}

int sl_link_init(struct link *l, const char *socket, size_t room)
{
	memset(l, 0, sizeof(*l));
	l->fd = -1;
	l->backoff_ns = BACKOFF_FIRST_NS;
	l->room = room;
	int r = find_paths(l, socket);
	if (r < 0)
		return r;
	l->ring = malloc(room);
	return l->ring ? 0 : -ENOMEM;
}

/* If the agent closed it, the number may be that of a file of its own. */
static void close_ours(struct link *l)
{
	struct stat st;

	if (l->fd >= 0 && fstat(l->fd, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
		close(l->fd);
	l->fd = -1;
}

void sl_link_deinit(struct link *l)
{
	close_ours(l);
	free(l->ring);
	l->ring = NULL;
}

/* ---- The connection ---- */

static void disconnect(struct link *l)
{
	close_ours(l);
	l->sent = 0;
	l->hello_sent = 0;
	l->answer_len = 0;
	l->answer_skip = 0;
	l->lost_before = l->head;
}

void sl_link_abandon(struct link *l)
{
	disconnect(l);
	l->head = l->tail;
	l->lost_before = l->tail;
	l->backoff_ns = BACKOFF_FIRST_NS;
	l->retry_at_ns = 0;
}

/* A connection that lasted wins the short pause back; one that is closed at once does not. */
static void retry_later(struct link *l, uint64_t now_ns)
{
	if (l->connected_at_ns && now_ns - l->connected_at_ns > BACKOFF_LAST_NS)
		l->backoff_ns = BACKOFF_FIRST_NS;
	l->connected_at_ns = 0;
	l->retry_at_ns = now_ns + l->backoff_ns;
	l->backoff_ns *= 2;
	if (l->backoff_ns > BACKOFF_LAST_NS)
		l->backoff_ns = BACKOFF_LAST_NS;
}

/* An agent may close all descriptors, to become a daemon, say. What it opens then gets the lowest
 * numbers, and must not get what we send: so ours is a high one, where there is room for it. To ask
 * before each send whether it is still ours would cost a quarter of the send. */
static int out_of_the_way(int fd)
{
	static const int from[] = {960, 224}; // limits are 1024 at least, but 256 on some systems

	for (int i = 0; i < 2; i++) {
		int high = fcntl(fd, F_DUPFD_CLOEXEC, from[i]);
		if (high >= 0) {
			close(fd);
			return high;
		}
	}
	return fd;
}

static int open_socket(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int size = SEND_BUFFER;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	fd = out_of_the_way(fd);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	// A Unix socket connects at once or not at all: EAGAIN is a full backlog.
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -1;
}

bool sl_link_is_away(const struct link *l)
{
	return l->fd < 0 && sl_mono_now_ns() < l->retry_at_ns;
}

static bool connect_if_due(struct link *l)
{
	if (l->fd >= 0)
		return true;
	uint64_t now_ns = sl_mono_now_ns();
	if (now_ns < l->retry_at_ns)
		return false;
	const char *path = choose_path(l);
	struct stat st;
	l->fd = path ? open_socket(path) : -1;
	if (l->fd < 0 || fstat(l->fd, &st) < 0) {
		retry_later(l, now_ns);
		return false;
	}
	l->device = st.st_dev;
	l->inode = st.st_ino;
	l->connected_at_ns = now_ns;
	return true;
}

static bool is_passing(int error)
{
	return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

/* ---- The ring ---- */

bool sl_link_fits(const struct link *l, size_t n)
{
	return n <= l->room - (size_t)(l->tail - l->head);
}

void sl_link_append(struct link *l, const void *frame, size_t n)
{
	size_t at = (size_t)(l->tail % l->room);
	size_t first = n < l->room - at ? n : l->room - at;

	memcpy(l->ring + at, frame, first);
	memcpy(l->ring, (const uint8_t *)frame + first, n - first);
	l->tail += n;
}

/* The whole length of the frame at head, its prefix included. */
static size_t frame_length(const struct link *l)
{
	size_t len = 0;

	for (size_t i = 0; i < 4; i++)
		len = len << 8 | l->ring[(l->head + i) % l->room];
	return len + 4;
}

static void release_sent(struct link *l)
{
	while (l->head < l->tail) {
		size_t len = frame_length(l);
		if (l->sent < len)
			return;
		l->sent -= len;
		l->head += len;
	}
}

/* What is left of the hello, then the ring from where the socket stopped taking it. */
static int gather(struct link *l, struct iovec iov[3])
{
	size_t left = (size_t)(l->tail - l->head) - l->sent;
	size_t at = (size_t)((l->head + l->sent) % l->room);
	size_t first = left < l->room - at ? left : l->room - at;
	int n = 0;

	if (l->hello_sent < l->hello_len)
		iov[n++] = (struct iovec){l->hello + l->hello_sent, l->hello_len - l->hello_sent};
	if (first > 0)
		iov[n++] = (struct iovec){l->ring + at, first};
	if (left > first)
		iov[n++] = (struct iovec){l->ring, left - first};
	return n;
}

static void count_sent(struct link *l, size_t n)
{
	size_t hello = l->hello_len - l->hello_sent;

	if (hello > n)
		hello = n;
	l->hello_sent += hello;
	l->sent += n - hello;
	release_sent(l);
}

void sl_link_pump(struct link *l)
{
	enum { FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
	struct iovec iov[3];
	struct msghdr msg = {.msg_iov = iov};

	if (!connect_if_due(l))
		return;
	while ((msg.msg_iovlen = (size_t)gather(l, iov)) > 0) {
		ssize_t n = msg.msg_iovlen == 1
		                    ? send(l->fd, iov[0].iov_base, iov[0].iov_len, FLAGS)
		                    : sendmsg(l->fd, &msg, FLAGS);
		if (n >= 0) {
			count_sent(l, (size_t)n);
		} else if (is_passing(errno)) {
			return;
		} else if (errno != EINTR) {
			disconnect(l);
			retry_later(l, sl_mono_now_ns());
			return;
		}
	}
}

/* ---- Answers ---- */

/* [5, token] in the shortest or any other form of the token. */
static void take_answer(struct link *l)
{
	const uint8_t *p = l->answer + 4;
	uint64_t token = 0;

	if (l->answer_len < 7 || p[0] != 0x92 || p[1] != 5)
		return;
	size_t width = p[2] >= 0xcc && p[2] <= 0xcf ? (size_t)1 << (p[2] - 0xcc) : 0;
	if (width == 0)
		token = p[2];
	for (size_t i = 0; i < width && 7 + i < l->answer_len; i++)
		token = token << 8 | p[3 + i];
	if (token > l->flushed)
		l->flushed = token;
}

static void take_byte(struct link *l, uint8_t byte)
{
	const uint8_t *a = l->answer;

	if (l->answer_len < sizeof(l->answer))
		l->answer[l->answer_len++] = byte;
	if (l->answer_len < 4)
		return;
	if (l->answer_len == 4)
		l->answer_skip = (size_t)a[0] << 24 | (size_t)a[1] << 16 | (size_t)a[2] << 8 | a[3];
	else
		l->answer_skip--;
	if (l->answer_skip == 0) {
		take_answer(l);
		l->answer_len = 0;
	}
}

void sl_link_read(struct link *l)
{
	uint8_t bytes[512];

	while (l->fd >= 0) {
		ssize_t n = recv(l->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && is_passing(errno))
			return;
		if (n <= 0) {
			disconnect(l);
			retry_later(l, sl_mono_now_ns());
			return;
		}
		for (ssize_t i = 0; i < n; i++)
			take_byte(l, bytes[i]);
	}
}
