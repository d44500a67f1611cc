/* private.h - a collector for one command, and the directory that it lives in.
 *
 * The directory is ours alone (0700) and is removed at the end. The collector keeps its log in the
 * usual place, so that the tool finds it afterwards; where that can't be used, say because another
 * collector has it, in the directory, and it is gone with it. It ends with us, however we end.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "child.h"

enum { PRIVATE_PATH = 256 };

struct private_dir {
	char path[80]; // short enough for a socket in it
};

struct private_collector {
	char socket[PRIVATE_PATH];
	pid_t pid;     // 0: none
	bool is_lost;  // its log goes with the directory
	char why[256]; // it is lost, or there is none: what the collector said
};

/** A negative errno. */
MUST_CHECK int private_dir_make(struct private_dir *ret);
void private_dir_remove(const struct private_dir *d);

/** Starts sidelightd, the one beside this program or in PATH, and returns when it serves. On
 * failure why says what is wrong. */
MUST_CHECK int private_start(struct private_collector *ret, const struct private_dir *d,
                             const struct child_signals *signals);

/** Lets it finish what it has to do. */
void private_stop(struct private_collector *p);

/** 0 when a collector listens there, else why not: -ENOENT, -ECONNREFUSED, … */
int private_reach(const char *socket);
