/* child.h - one command that runs in our place: in our process group, on our terminal.
 *
 * What the terminal signals reaches it by itself; what somebody sends us is sent on to it. We stop
 * when it is stopped by the terminal, so that a shell's job control sees one job.
 */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "base/err.h"

/* How signals were when we began: what the command is to find. */
struct child_signals {
	sigset_t mask;
	struct sigaction pipe, child;
};

struct child {
	struct child_signals before;
	pid_t pid;
	pid_t *helper; // another process of ours, set to 0 when it ends; or NULL
	int status;    // as waitpid() says it, once it has ended
};

/** Blocks what child_wait() waits for; to be called before there is a second thread. */
void child_hold_signals(struct child_signals *ret);

/** Sets the signals as they were, in a process that is about to exec. */
void child_restore_signals(const struct child_signals *before);

/** Starts argv, found in PATH, with our environment. A negative errno when it can't be executed. */
MUST_CHECK int child_start(struct child *c, char *const *argv);

/** Returns when it has ended. Children of ours that end meanwhile are reaped. */
void child_wait(struct child *c);

/** Ends this process as the child has ended: an exit code to return, or the same signal. */
int child_end_as(const struct child *c);
