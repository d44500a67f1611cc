#include "ingest/door.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 512 };

static int find_group(const char *name, gid_t *ret)
{
	const struct group *g = name ? getgrnam(name) : NULL;

	*ret = g ? g->gr_gid : (gid_t)-1;
	return name && !g ? -ESRCH : 0;
}

/* Whoever may use the socket may pass through its directory; nobody else. */
static mode_t dir_mode(unsigned socket_mode, bool has_group)
{
	return 0700 | (has_group && (socket_mode & 060) ? 0050 : 0) | (socket_mode & 06 ? 0055 : 0);
}

static int make_dir(const char *socket_path, unsigned mode, gid_t group)
{
	mode_t wanted = dir_mode(mode, group != (gid_t)-1);
	char copy[108];
	struct stat st;

	snprintf(copy, sizeof(copy), "%s", socket_path);
	const char *dir = dirname(copy);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (lstat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return -EPERM;
	if (group != (gid_t)-1 && chown(dir, (uid_t)-1, group) < 0)
		return -errno;
	return (st.st_mode & 0777) == wanted || chmod(dir, wanted) == 0 ? 0 : -errno;
}

static void set_address(struct sockaddr_un *ret, const char *path)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
}

/* 0: nothing answers there. */
static int probe(const char *path)
{
	struct sockaddr_un address;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	set_address(&address, path);
	int rc = connect(fd, (struct sockaddr *)&address, sizeof(address));
	int error = rc < 0 ? errno : 0;
	close(fd);
	if (rc == 0 || error == EAGAIN) // its backlog is full, so somebody listens
		return ERR_BUSY;
	return error == ECONNREFUSED || error == ENOENT ? 0 : -error;
}

static int bind_and_listen(struct door *d, unsigned mode, gid_t group)
{
	struct sockaddr_un address;
	struct stat st;

	set_address(&address, d->temporary);
	unlink(d->temporary);
	mode_t before = umask(0177);
	int rc = bind(d->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(before);
	if (rc < 0)
		return rc;
	if (group != (gid_t)-1 && chown(d->temporary, (uid_t)-1, group) < 0)
		rc = -errno;
	if (rc == 0 && chmod(d->temporary, mode) < 0)
		rc = -errno;
	if (rc == 0 && listen(d->fd, BACKLOG) < 0)
		rc = -errno;
	if (rc == 0 && lstat(d->temporary, &st) < 0)
		rc = -errno;
	if (rc < 0) {
		unlink(d->temporary);
		return rc;
	}
	d->inode = st.st_ino;
	return 0;
}

/* The last character gives way, so that the name is as short as the real one. */
static void temporary_name(struct door *d)
{
	size_t len = strlen(d->path);

	memcpy(d->temporary, d->path, len + 1);
	d->temporary[len - 1] = d->temporary[len - 1] == '~' ? '-' : '~';
}

int door_bind(struct door *d, const char *path, unsigned mode, const char *group, int private_dir)
{
	*d = (struct door){.fd = -1};
	if (path[0] == '\0' || strlen(path) >= sizeof(d->path))
		return path[0] ? -ENAMETOOLONG : -EINVAL;
	snprintf(d->path, sizeof(d->path), "%s", path);
	temporary_name(d);
	gid_t gid;
	int rc = find_group(group, &gid);
	if (rc == 0 && private_dir)
		rc = make_dir(path, mode, gid);
	if (rc == 0)
		rc = probe(path);
	if (rc == 0)
		rc = probe(d->temporary); // of one that is about to show itself
	if (rc < 0)
		return rc;
	d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0)
		return -errno;
	rc = bind_and_listen(d, mode, gid);
	if (rc < 0) {
		close(d->fd);
		d->fd = -1;
	}
	return rc;
}

int door_show(struct door *d)
{
	int rc = probe(d->path); // once more: another may have come meanwhile

	if (rc == 0 && rename(d->temporary, d->path) < 0)
		rc = -errno;
	return rc;
}

static void remove_own(const struct door *d, const char *path)
{
	struct stat st;

	if (d->inode && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == d->inode)
		unlink(path);
}

void door_remove(struct door *d)
{
	remove_own(d, d->temporary);
	remove_own(d, d->path);
}
