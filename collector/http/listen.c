#include "http/listen.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 256 };

static int bind_tcp(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	// A restart must not wait for the connections of the last run to be forgotten.
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0 &&
	    bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int err = -errno;
	close(fd);
	return err;
}

static int bound_port(int fd, uint16_t *ret_port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addr = {0};
	socklen_t len = sizeof(addr);

	if (getsockname(fd, &addr.any, &len) < 0)
		return -errno;
	*ret_port = ntohs(addr.any.sa_family == AF_INET6 ? addr.v6.sin6_port : addr.v4.sin_port);
	return 0;
}

int listen_tcp(const char *host, uint16_t port, uint16_t *ret_port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
	                         .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list;
	char service[8];

	snprintf(service, sizeof(service), "%u", (unsigned)port);
	int found = getaddrinfo(host, service, &hints, &list);
	if (found != 0)
		return found == EAI_MEMORY ? -ENOMEM : -EINVAL;
	int fd = bind_tcp(list);
	freeaddrinfo(list);
	if (fd < 0)
		return fd;
	int err = bound_port(fd, ret_port);
	if (err == 0)
		return fd;
	close(fd);
	return err;
}

static int unix_address(struct sockaddr_un *ret, const char *path)
{
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret->sun_path, path, len);
	return 0;
}

/* 0 when nothing is at the address, or a socket that nobody listens on. */
static int check_free(const struct sockaddr_un *addr)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int err = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? errno : 0;
	close(fd);
	return err == ECONNREFUSED ? 0 : -EADDRINUSE;
}

static int set_owner(const char *path, unsigned mode, const char *group)
{
	if (group) {
		errno = 0;
		const struct group *g = getgrnam(group);
		if (!g)
			return -ESRCH;
		if (lchown(path, (uid_t)-1, g->gr_gid) < 0)
			return -errno;
	}
	return chmod(path, mode) < 0 ? -errno : 0;
}

/* Under a name of its own until nothing about it will change any more. */
static int bind_aside(int fd, const char *path, unsigned mode, const char *group)
{
	struct sockaddr_un aside;
	int err = unix_address(&aside, path);

	if (err)
		return err;
	aside.sun_path[strlen(aside.sun_path) - 1] = '~'; // no longer than what must fit anyway
	err = check_free(&aside);
	if (err)
		return err;
	unlink(aside.sun_path);
	// The mode of an unbound socket is that of its path to be: there is no moment when others
	// could connect, and no umask to change under the other threads.
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&aside, sizeof(aside)) < 0)
		return -errno;
	err = set_owner(aside.sun_path, mode, group);
	if (err == 0 && (listen(fd, BACKLOG) < 0 || rename(aside.sun_path, path) < 0))
		err = -errno;
	if (err)
		unlink(aside.sun_path);
	return err;
}

int listen_unix(const char *path, unsigned mode, const char *group)
{
	struct sockaddr_un addr;
	int err = unix_address(&addr, path);

	if (err == 0)
		err = check_free(&addr);
	if (err)
		return err;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	err = bind_aside(fd, path, mode, group);
	if (err == 0)
		return fd;
	close(fd);
	return err;
}

void unlisten_unix(const char *path, int fd)
{
	struct sockaddr_un addr;

	// Close first: then nobody answers at our own path, and whoever does is another.
	close(fd);
	if (unix_address(&addr, path) == 0 && check_free(&addr) == 0)
		unlink(path);
}
