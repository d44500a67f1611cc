/* fuzz_span.c - any bytes as a stored span.
 *
 * Whatever they are, reading comes to an end inside them, and what is shown is one JSON value:
 * brackets match outside strings, and every string is UTF-8 and ends.
 */
#include <assert.h>
#include <string.h>

#include "base/caps.h"
#include "core/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Passes over a string whose opening quote was just read. */
static size_t skip_string(const uint8_t *p, size_t i, size_t len)
{
	while (i < len && p[i] != '"') {
		assert(p[i] >= 0x20);
		i += p[i] == '\\' ? 2 : 1;
	}
	assert(i < len);
	return i + 1;
}

static void check_json(const struct buf *text)
{
	uint8_t open[256];
	size_t depth = 0, i = 0;

	assert(utf8_is_valid((const char *)text->data, text->len));
	while (i < text->len) {
		uint8_t c = text->data[i++];
		if (c == '"') {
			i = skip_string(text->data, i, text->len);
		} else if (c == '{' || c == '[') {
			assert(depth < sizeof(open));
			open[depth++] = c == '{' ? '}' : ']';
		} else if (c == '}' || c == ']') {
			assert(depth > 0 && open[--depth] == c);
			assert(depth > 0 || i == text->len);
		}
	}
	assert(depth == 0);
}

static bool check_attribute(void *ctx, struct str key, struct str value)
{
	const struct str *all = ctx;

	assert(key.len == 0 || (key.p >= all->p && key.p + key.len <= all->p + all->len));
	assert(value.len == 0 || (value.p >= all->p && value.p + value.len <= all->p + all->len));
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str all = {(const char *)data, size};
	size_t half = size / 2;
	struct span_record rec = {
		.base = all, .content = {all.p + half, size - half}, .resource = all};
	struct span_view v;
	struct buf text;
	struct json j;

	rec.head.status = size % STATUS_COUNT;
	rec.head.kind = (uint8_t)(size % 251);
	if (span_view(&v, &rec) == 0)
		assert(v.name.len <= size && v.status_message.len <= size);
	(void)span_attributes(&rec, true, check_attribute, &all);
	(void)span_attribute_str(&rec, "service.name");
	buf_init(&text, 64 * MIB);
	jsonw_init(&j, &text);
	span_json(&j, &rec, true, 0);
	if (buf_error(&text) == 0)
		check_json(&text);
	buf_deinit(&text);
	return 0;
}
