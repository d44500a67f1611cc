/* cgroup.h - whether the kernel's OOM killer was at work in a process's memory cgroup.
 *
 * The kernel counts the processes that it kills for want of memory, by the cgroup they are in:
 * oom_kill in memory.oom_control (cgroup v1) and memory.events (v2). A count is taken when a
 * process connects and again when its connection ends; when it rose between, that says more of the
 * end than anything but the process's parent could.
 *
 * Processes of one cgroup share its entry and one open file; at most CGROUPS_MAX cgroups are
 * followed. What can't be seen from here (another namespace, no cgroups) is passed over in silence.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { CGROUPS_MAX = 256 };

struct cgroups;
struct cgroup;

/** Looks for the mounts of memory controllers, once. proc is "/proc", but in tests. */
MUST_CHECK int cgroups_new(struct cgroups **ret, const char *proc);

/** All cgroups must have been left. NULL is fine. */
void cgroups_free(struct cgroups *g);

/** The memory cgroup that a process is in, and its count now. NULL: not visible. */
struct cgroup *cgroups_join(struct cgroups *g, int64_t pid, uint64_t *ret_kills);

/** NULL is fine. */
void cgroup_leave(struct cgroup *cg);

/** The count now. False once the cgroup was removed; NULL is fine. */
bool cgroup_kills(const struct cgroup *cg, uint64_t *ret);

/** Whether the count rose above `since` by a kill that was not used before to explain an end; then
 * it is used now. */
bool cgroup_explains(struct cgroup *cg, uint64_t since, uint64_t kills);
