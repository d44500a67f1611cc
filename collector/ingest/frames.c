#include "ingest/frames.h"

#include <errno.h>
#include <sys/types.h>

#include "base/caps.h"

void frames_init(struct frames *f, size_t max_frame)
{
	*f = (struct frames){.max_frame = max_frame};
	buf_init(&f->kept, FRAME_PREFIX + max_frame);
}

void frames_deinit(struct frames *f)
{
	buf_deinit(&f->kept);
}

static size_t length_at(const uint8_t *p)
{
	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

bool frames_abandon(struct frames *f)
{
	if (f->kept.len < FRAME_PREFIX)
		return false;
	f->skip = FRAME_PREFIX + length_at(f->kept.data) - f->kept.len;
	f->count++;
	buf_deinit(&f->kept);
	return true;
}

/* What a prefix announces. 0: a frame; 1: one to be skipped; -EPROTO. */
static int check_prefix(struct frames *f, size_t length, frame_fn *fn, void *ctx)
{
	if (length > CAP_SKIPPABLE_FRAME) {
		f->count++;
		fn(ctx, (struct str){0}, REFUSED_TOO_LONG);
		return -EPROTO;
	}
	if (length <= f->max_frame)
		return 0;
	f->count++;
	return fn(ctx, (struct str){0}, REFUSED_TOO_LONG) ? 1 : -ECANCELED;
}

static size_t skip(struct frames *f, size_t len)
{
	size_t n = f->skip < len ? (size_t)f->skip : len;

	f->skip -= n;
	return n;
}

static int give(struct frames *f, const uint8_t *body, size_t len, frame_fn *fn, void *ctx)
{
	f->count++;
	return fn(ctx, (struct str){(const char *)body, len}, REFUSAL_NONE) ? 0 : -ECANCELED;
}

/* Adds to the kept frame until it is whole. Returns the bytes taken, or an error. */
static ssize_t complete_kept(struct frames *f, const uint8_t *bytes, size_t len, frame_fn *fn,
                             void *ctx)
{
	// A prefix that is kept whole has been checked when it was.
	bool is_known = f->kept.len >= FRAME_PREFIX;
	size_t want = FRAME_PREFIX + (is_known ? length_at(f->kept.data) : 0);
	size_t taken = 0;

	for (;;) {
		size_t missing = want - f->kept.len;
		size_t n = missing < len - taken ? missing : len - taken;
		buf_append(&f->kept, bytes + taken, n);
		if (buf_error(&f->kept))
			return -ENOMEM;
		taken += n;
		if (f->kept.len < want)
			return (ssize_t)taken;
		size_t length = length_at(f->kept.data);
		if (!is_known) {
			is_known = true;
			int rc = check_prefix(f, length, fn, ctx);
			if (rc < 0)
				return rc;
			if (rc > 0) {
				f->skip = length;
				break;
			}
			want += length;
		}
		if (f->kept.len == want) {
			int rc = give(f, f->kept.data + FRAME_PREFIX, length, fn, ctx);
			if (rc < 0)
				return rc;
			break;
		}
	}
	if (f->kept.room > 64 * KIB) // a large frame's room is not kept for the next
		buf_deinit(&f->kept);
	buf_clear(&f->kept);
	return (ssize_t)taken;
}

static int keep(struct frames *f, const uint8_t *bytes, size_t len)
{
	buf_append(&f->kept, bytes, len);
	return buf_error(&f->kept) ? -ENOMEM : 0;
}

int frames_feed(struct frames *f, const uint8_t *bytes, size_t len, frame_fn *fn, void *ctx)
{
	const uint8_t *p = bytes, *end = bytes + len;

	while (p < end) {
		size_t left = (size_t)(end - p);
		if (f->skip > 0) {
			p += skip(f, left);
			continue;
		}
		if (f->kept.len > 0) {
			ssize_t n = complete_kept(f, p, left, fn, ctx);
			if (n < 0)
				return (int)n;
			p += n;
			continue;
		}
		if (left < FRAME_PREFIX)
			return keep(f, p, left);
		size_t length = length_at(p);
		int rc = check_prefix(f, length, fn, ctx);
		if (rc < 0)
			return rc;
		if (rc > 0) {
			f->skip = length;
			p += FRAME_PREFIX;
			continue;
		}
		if (left - FRAME_PREFIX < length)
			return keep(f, p, left);
		rc = give(f, p + FRAME_PREFIX, length, fn, ctx);
		if (rc < 0)
			return rc;
		p += FRAME_PREFIX + length;
	}
	return 0;
}
