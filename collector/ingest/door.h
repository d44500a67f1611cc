/* door.h - a listening Unix socket that is never there half made.
 *
 * It is bound and listening, with its final permissions, under another name before it takes its
 * own: so a connect works from the moment the path appears, and nobody else's can.
 */
#pragma once

#include "base/err.h"

struct door {
	int fd;
	char path[108], temporary[108];
	unsigned long inode; // of what we put there
};

/** Listens under a temporary name beside path. ERR_BUSY: a live daemon answers at path. -ENOTSOCK:
 * something else stands there. -ENAMETOOLONG. group NULL: none; private_dir: make the directory,
 * open to those who may use the socket alone, and refuse one that is not ours. -ESRCH: no such
 * group. */
MUST_CHECK int door_bind(struct door *d, const char *path, unsigned mode, const char *group,
                         int private_dir);

/** Takes the name; a dead daemon's socket makes room. */
MUST_CHECK int door_show(struct door *d);

/** Removes whichever name is there, if it is still ours. The descriptor is the caller's. */
void door_remove(struct door *d);
