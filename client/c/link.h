/* link.h - the connection and what waits for it.
 *
 * Frames wait in a ring and leave it only when the socket took the whole of them: a connection
 * that breaks in the middle of one is followed by one that begins with it. The ring is allocated
 * once. No call blocks; the caller holds the lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LINK_PATH 108 // sun_path
#define LINK_HELLO 4096

struct link {
	char paths[3][LINK_PATH]; // the first that exists
	int path_count;
	bool path_named; // by the user: no other is looked for

	int fd;       // -1: none
	dev_t device; // with inode: which file fd was when it was opened
	ino_t inode;
	uint64_t retry_at_ns, connected_at_ns, backoff_ns;

	uint8_t *ring;
	size_t room;
	uint64_t head, tail;  // bytes ever released and ever appended
	size_t sent;          // bytes after head that this connection took
	uint64_t lost_before; // frames before this went to a connection that broke

	uint8_t hello[LINK_HELLO];
	size_t hello_len, hello_sent;

	uint8_t answer[16]; // a frame from the collector: its beginning is all that counts
	size_t answer_len, answer_skip;
	uint64_t flushed; // the last token answered
};

/** Finds where the socket may be. -ENAMETOOLONG, -ENOMEM. */
int sl_link_init(struct link *l, const char *socket, size_t room);
void sl_link_deinit(struct link *l);

/** Forgets the connection and all that waits: what a child does with its parent's. */
void sl_link_abandon(struct link *l);

bool sl_link_fits(const struct link *l, size_t n);

/** Appends a whole frame, which fits. */
void sl_link_append(struct link *l, const void *frame, size_t n);

/** Whether there is no connection, and it is not time to try for one. */
bool sl_link_is_away(const struct link *l);

/** Connects if it is time to, and sends what the socket takes. */
void sl_link_pump(struct link *l);

/** Reads the collector's answers. */
void sl_link_read(struct link *l);

static inline bool sl_link_is_empty(const struct link *l)
{
	return l->head == l->tail;
}

uint64_t sl_mono_now_ns(void);
