/* peer.h - who is at the other end of a Unix socket, and whether it is still there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct peer {
	int64_t pid;    // 0: not visible from here (another PID namespace)
	uint64_t start; // clock ticks after boot when it started; 0: not visible
	int64_t parent; // its parent's pid; 0: not visible
	uint32_t uid;
};

/** Asks the kernel. All zero where it doesn't say. */
struct peer peer_of(int fd);

/** The process above peer that knows itself as pid, in whatever PID namespace; its pid 0: none. */
struct peer peer_above(const struct peer *peer, int64_t pid);

/** Whether that very process runs: not one that took its number, and no zombie. */
bool peer_is_alive(int64_t pid, uint64_t start);
