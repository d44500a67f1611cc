/* commit.h - the commit worker: the one thread that writes.
 *
 * It takes what has gathered and commits it as one transaction, fdatasync included.
 */
#pragma once

#include <stdint.h>

struct store;

/** Notes that everything before seq has been delivered to, or given up for, the exporter `name`.
 * Thread-safe, never blocks; durable with the next commit, at the latest a second later. */
void commit_cursor(struct store *s, const char *name, uint64_t seq);
