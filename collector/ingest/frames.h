/* frames.h - frames out of a stream of bytes.
 *
 * Pure: the caller brings bytes as they come and gets whole frames back, borrowed from what it
 * brought where it can be. What is left of a frame is kept, at most one; a frame over the limit is
 * skipped without being kept. Nothing is allocated but for a frame that came in parts, and then
 * no more than about twice of what has come.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/stats.h"
#include "base/str.h"

enum { FRAME_PREFIX = 4 };

struct frames {
	struct buf kept; // the beginning of a frame, its prefix included
	uint64_t skip;   // bytes of an oversized frame still to come
	size_t max_frame;
	uint64_t count; // frames begun
};

/* What frames_feed() finds. refused: a frame that is skipped, and why; body is empty then.
 * Returns false to stop after a whole frame. */
typedef bool frame_fn(void *ctx, struct str body, enum refusal refused);

void frames_init(struct frames *f, size_t max_frame);
void frames_deinit(struct frames *f);

/** Takes bytes and calls fn for each frame that they complete. 0; -EPROTO: a prefix beyond every
 * limit, the stream is lost; -ENOMEM: what is left could not be kept; -ECANCELED: fn said so.
 * *bytes is what is left: nothing, or with -ECANCELED what follows that frame. */
int frames_feed(struct frames *f, struct str *bytes, frame_fn *fn, void *ctx);

/** Gives up the frame that is being kept: the rest of it will be skipped. False if its length is
 * not known yet. */
bool frames_abandon(struct frames *f);

/** Whether a frame has begun and is not whole yet. */
static inline bool frames_is_partial(const struct frames *f)
{
	return f->kept.len > 0 || f->skip > 0;
}
