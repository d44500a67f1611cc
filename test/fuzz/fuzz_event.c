/* fuzz_event.c - any bytes as a frame's body.
 *
 * What is accepted lies within the frame: its texts are UTF-8 and not too long, its values can be
 * walked without a check to exactly their end, its run has an id.
 */
#include <assert.h>
#include <string.h>

#include "base/caps.h"
#include "core/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Walks one value by its heads alone. */
static void walk(struct mp *c, unsigned depth)
{
	struct mp_value v;
	uint64_t elements = 0;

	assert(mp_read(c, &v) == REFUSAL_NONE);
	if (v.type == MP_ARRAY)
		elements = v.count;
	if (v.type == MP_MAP)
		elements = 2 * (uint64_t)v.count;
	assert(depth > 0 || (v.type != MP_ARRAY && v.type != MP_MAP));
	while (elements-- > 0)
		walk(c, depth - 1);
}

static void check_inside(struct str s, const uint8_t *data, size_t size)
{
	assert((const uint8_t *)s.p >= data);
	assert((const uint8_t *)s.p + s.len <= data + size);
}

static void check_texts(const struct event *ev, const uint8_t *data, size_t size)
{
	const struct str names[] = {ev->name,      ev->session,   ev->user, ev->model,
	                            ev->provider,  ev->service,   ev->sdk,  ev->reason,
	                            ev->kind_word, ev->error_type};
	const struct str texts[] = {ev->traceparent, ev->error_message, ev->error_stack};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!names[i].p)
			continue;
		check_inside(names[i], data, size);
		assert(utf8_is_valid(names[i].p, names[i].len));
		assert(names[i].len <= CAP_NAME);
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (!texts[i].p)
			continue;
		check_inside(texts[i], data, size);
		assert(utf8_is_valid(texts[i].p, texts[i].len));
	}
}

static void check_values(const struct event *ev, const uint8_t *data, size_t size)
{
	const struct str values[] = {ev->input, ev->output, ev->tags,    ev->attrs,
	                             ev->usage, ev->finish, ev->resource};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		if (!values[i].p)
			continue;
		struct mp c = mp_of(values[i]);
		check_inside(values[i], data, size);
		walk(&c, CAP_DEPTH - 1);
		assert(c.p == c.end);
	}
}

/* The keys of an attribute map are texts, and none comes twice. */
static void check_keys(struct str map)
{
	static struct str keys[CAP_ATTRS];
	struct mp c = mp_of(map);
	struct mp_value head, key;

	assert(mp_read(&c, &head) == REFUSAL_NONE && head.type == MP_MAP);
	assert(head.count <= CAP_ATTRS);
	for (uint32_t i = 0; i < head.count; i++) {
		assert(mp_read(&c, &key) == REFUSAL_NONE && key.type == MP_STR);
		assert(utf8_is_valid(key.s.p, key.s.len));
		keys[i] = key.s;
		for (uint32_t j = 0; j < i; j++)
			assert(!str_eq(keys[i], keys[j]));
		assert(mp_skip(&c, CAP_DEPTH) == REFUSAL_NONE);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct run_id zero;
	struct event ev;

	if (event_decode(&ev, data, size) != REFUSAL_NONE)
		return 0;
	struct mp whole = {data, data + size};
	walk(&whole, CAP_DEPTH);
	assert(whole.p == whole.end);
	check_texts(&ev, data, size);
	check_values(&ev, data, size);
	if (ev.attrs.p)
		check_keys(ev.attrs);
	if (ev.resource.p)
		check_keys(ev.resource);
	bool has_run = ev.type == EVENT_START || ev.type == EVENT_END || ev.type == EVENT_POINT;
	assert(has_run == (memcmp(&ev.run, &zero, sizeof(zero)) != 0));
	assert(ev.unix_ns <= INT64_MAX && ev.mono_ns <= INT64_MAX);
	return 0;
}
