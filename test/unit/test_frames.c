#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "ingest/frames.h"

/* What came, as text: a body as it is, a refusal as '!', each with a '|' behind it. */
struct seen {
	char text[256];
	size_t len;
};

static bool see(void *ctx, struct str body, enum refusal refused)
{
	struct seen *s = ctx;

	if (refused != REFUSAL_NONE)
		body = STR("!");
	assert_true(s->len + body.len + 1 < sizeof(s->text));
	memcpy(s->text + s->len, body.p, body.len);
	s->len += body.len;
	s->text[s->len++] = '|';
	return true;
}

/* An empty frame, one byte, one that is too long, two longer ones. */
static const char stream[] = "\0\0\0\0"
			     "\0\0\0\1a"
			     "\0\0\0\x09too long!"
			     "\0\0\0\6frames"
			     "\0\0\0\2ok";
enum { STREAM = sizeof(stream) - 1 };

static void assert_frames(size_t first, size_t second)
{
	const size_t cuts[] = {0, first, second, STREAM};
	struct seen s = {.len = 0};
	struct frames f;

	frames_init(&f, 8);
	for (int i = 0; i < 3; i++)
		assert_int_equal(frames_feed(&f, (const uint8_t *)stream + cuts[i],
		                             cuts[i + 1] - cuts[i], see, &s),
		                 0);
	s.text[s.len] = '\0';
	assert_string_equal(s.text, "|a|!|frames|ok|");
	assert_int_equal(f.count, 5);
	assert_false(frames_is_partial(&f));
	frames_deinit(&f);
}

static void frames_are_the_same_however_the_stream_is_cut(void **state)
{
	for (size_t first = 0; first <= STREAM; first++)
		for (size_t second = first; second <= STREAM; second++)
			assert_frames(first, second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_the_same_however_the_stream_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
