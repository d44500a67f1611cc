#include "ingest/frames.h"

#include <errno.h>

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
	fn(ctx, (struct str){0}, REFUSED_TOO_LONG);
	return 1;
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

/* Adds to what is kept until there are `want` bytes. False: there are not enough yet, or error. */
static bool fill_kept(struct frames *f, size_t want, struct str *from)
{
	size_t missing = want - f->kept.len;
	size_t n = missing < from->len ? missing : from->len;

	buf_append(&f->kept, from->p, n);
	from->p += n;
	from->len -= n;
	return f->kept.len == want;
}

static void drop_kept(struct frames *f)
{
	if (f->kept.room > 64 * KIB) // a large frame's room is not kept for the next
		buf_deinit(&f->kept);
	buf_clear(&f->kept);
}

/* Goes on with the frame that is kept. 0 or an error, as frames_feed(). */
static int go_on(struct frames *f, struct str *from, frame_fn *fn, void *ctx)
{
	if (f->kept.len < FRAME_PREFIX) {
		if (!fill_kept(f, FRAME_PREFIX, from))
			return buf_error(&f->kept) ? -ENOMEM : 0;
		int rc = check_prefix(f, length_at(f->kept.data), fn, ctx);
		if (rc != 0) {
			f->skip = rc > 0 ? length_at(f->kept.data) : 0;
			drop_kept(f);
			return rc < 0 ? rc : 0;
		}
	}
	size_t length = length_at(f->kept.data);
	if (!fill_kept(f, FRAME_PREFIX + length, from))
		return buf_error(&f->kept) ? -ENOMEM : 0;
	int rc = give(f, f->kept.data + FRAME_PREFIX, length, fn, ctx);
	drop_kept(f);
	return rc;
}

static int keep(struct frames *f, const uint8_t *bytes, size_t len)
{
	buf_append(&f->kept, bytes, len);
	return buf_error(&f->kept) ? -ENOMEM : 0;
}

/* Takes one frame, or what there is of it, from where none was begun. */
static int begin(struct frames *f, struct str *from, frame_fn *fn, void *ctx)
{
	const uint8_t *p = (const uint8_t *)from->p;
	size_t left = from->len;

	*from = (struct str){from->p + left, 0};
	if (left < FRAME_PREFIX)
		return keep(f, p, left);
	size_t length = length_at(p);
	int rc = check_prefix(f, length, fn, ctx);
	if (rc < 0)
		return rc;
	if (rc == 0 && left - FRAME_PREFIX < length)
		return keep(f, p, left);
	size_t taken = FRAME_PREFIX + (rc > 0 ? 0 : length);
	*from = (struct str){(const char *)p + taken, left - taken};
	if (rc == 0)
		return give(f, p + FRAME_PREFIX, length, fn, ctx);
	f->skip = length;
	return 0;
}

int frames_feed(struct frames *f, struct str *bytes, frame_fn *fn, void *ctx)
{
	int rc = 0;

	while (rc == 0 && bytes->len > 0) {
		if (f->skip > 0) {
			size_t n = skip(f, bytes->len);
			*bytes = (struct str){bytes->p + n, bytes->len - n};
		} else if (f->kept.len > 0) {
			rc = go_on(f, bytes, fn, ctx);
		} else {
			rc = begin(f, bytes, fn, ctx);
		}
	}
	return rc;
}
