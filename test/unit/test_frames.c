#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/frames.h"

struct seen {
	unsigned frames, refused;
	size_t bytes;
	uint32_t sum; // of all bodies' bytes, weighted by their place
};

static bool see(void *ctx, struct str body, enum refusal refused)
{
	struct seen *s = ctx;

	if (refused) {
		s->refused++;
		return true;
	}
	s->frames++;
	s->bytes += body.len;
	for (size_t i = 0; i < body.len; i++)
		s->sum = s->sum * 31 + (uint8_t)body.p[i];
	return true;
}

static size_t put_frame(uint8_t *p, size_t len, uint8_t fill)
{
	p[0] = (uint8_t)(len >> 24);
	p[1] = (uint8_t)(len >> 16);
	p[2] = (uint8_t)(len >> 8);
	p[3] = (uint8_t)len;
	memset(p + 4, fill, len);
	return len + 4;
}

/* Frames of many lengths, one of them over the limit of 1000. */
static size_t make_stream(uint8_t *p)
{
	static const size_t lengths[] = {1, 0, 3, 4, 5, 200, 1000, 1001, 7, 999, 0, 12};
	size_t at = 0;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		at += put_frame(p + at, lengths[i], (uint8_t)(i + 1));
	return at;
}

static int feed(struct frames *f, const uint8_t *bytes, size_t len, frame_fn *fn, void *ctx)
{
	struct str left = {(const char *)bytes, len};

	return frames_feed(f, &left, fn, ctx);
}

static struct seen feed_in_parts(const uint8_t *stream, size_t len, size_t part)
{
	struct seen seen = {0};
	struct frames f;

	frames_init(&f, 1000);
	for (size_t at = 0; at < len; at += part) {
		size_t n = len - at < part ? len - at : part;
		uint8_t *copy = malloc(n); // so that a read past the end is seen
		assert_non_null(copy);
		memcpy(copy, stream + at, n);
		assert_int_equal(feed(&f, copy, n, see, &seen), 0);
		free(copy);
	}
	assert_false(frames_is_partial(&f));
	frames_deinit(&f);
	return seen;
}

static void every_way_to_cut_the_stream_gives_the_same_frames(void **state)
{
	uint8_t stream[8192];
	size_t len = make_stream(stream);
	struct seen whole = feed_in_parts(stream, len, len);

	assert_int_equal(whole.frames, 11);
	assert_int_equal(whole.refused, 1);
	for (size_t part = 1; part < len; part++) {
		struct seen parts = feed_in_parts(stream, len, part);
		assert_memory_equal(&parts, &whole, sizeof(whole));
	}
}

static void a_prefix_beyond_every_limit_loses_the_stream(void **state)
{
	const uint8_t huge[] = {0x40, 0, 0, 1};
	struct seen seen = {0};
	struct frames f;

	frames_init(&f, 1000);
	assert_int_equal(feed(&f, huge, 2, see, &seen), 0);
	assert_int_equal(feed(&f, huge + 2, 2, see, &seen), -EPROTO);
	assert_int_equal(seen.refused, 1);
	frames_deinit(&f);
}

static void what_is_kept_grows_with_what_came_not_with_what_was_claimed(void **state)
{
	uint8_t start[100] = {0, 0x3f, 0xff, 0xff};
	struct seen seen = {0};
	struct frames f;

	frames_init(&f, 4 * 1024 * 1024);
	assert_int_equal(feed(&f, start, sizeof(start), see, &seen), 0);
	assert_true(f.kept.room <= 512);
	frames_deinit(&f);
}

static void an_abandoned_frame_is_skipped_to_its_end(void **state)
{
	uint8_t stream[64];
	size_t len = put_frame(stream, 20, 1);
	struct seen seen = {0};
	struct frames f;

	len += put_frame(stream + len, 5, 2);
	frames_init(&f, 1000);
	assert_int_equal(feed(&f, stream, 10, see, &seen), 0);
	assert_true(frames_abandon(&f));
	assert_int_equal(feed(&f, stream + 10, len - 10, see, &seen), 0);
	assert_int_equal(seen.frames, 1);
	assert_int_equal(seen.bytes, 5);
	frames_deinit(&f);
}

static bool stop_at_once(void *ctx, struct str body, enum refusal refused)
{
	see(ctx, body, refused);
	return false;
}

static void what_follows_a_stop_can_be_fed_later(void **state)
{
	uint8_t stream[8192];
	struct str left = {(const char *)stream, make_stream(stream)};
	struct seen whole = feed_in_parts(stream, left.len, left.len), seen = {0};
	struct frames f;

	frames_init(&f, 1000);
	for (int i = 0; i < 11; i++)
		assert_int_equal(frames_feed(&f, &left, stop_at_once, &seen), -ECANCELED);
	assert_int_equal(frames_feed(&f, &left, stop_at_once, &seen), 0);
	assert_memory_equal(&seen, &whole, sizeof(whole));
	frames_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_to_cut_the_stream_gives_the_same_frames),
		cmocka_unit_test(a_prefix_beyond_every_limit_loses_the_stream),
		cmocka_unit_test(what_is_kept_grows_with_what_came_not_with_what_was_claimed),
		cmocka_unit_test(what_follows_a_stop_can_be_fed_later),
		cmocka_unit_test(an_abandoned_frame_is_skipped_to_its_end),
	};

	return cmocka_run_group_tests_name("frames", tests, NULL, NULL);
}
