/* fuzz_runs.c - any history of frames, commits, crashes and damaged values.
 *
 * The input is a list of steps: a byte that says which, a length of two bytes, and that many
 * bytes: a frame's body, or what the store gives back. However it goes, everything ends once its
 * connections have and time has passed, and nothing of it is left in the store.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOTS = 64, STEPS_MAX = 400 };

struct slot {
	struct run_id run;
	struct buf value;
	bool used;
};

static struct slot slots[SLOTS];
static struct stats stats;
static struct metrics metrics;

static struct slot *slot_of(const struct run_id *run, bool make)
{
	struct slot *free_slot = NULL;

	for (int i = 0; i < SLOTS; i++) {
		if (slots[i].used && memcmp(&slots[i].run, run, sizeof(*run)) == 0)
			return &slots[i];
		if (!slots[i].used)
			free_slot = &slots[i];
	}
	if (!make || !free_slot)
		return NULL;
	free_slot->used = true;
	free_slot->run = *run;
	return free_slot;
}

static int take_span(void *ctx, const struct finished_span *span)
{
	struct span_record rec = {.head = span->head, .base = span->base};
	struct span_view view;

	assert(span_view(&view, &rec) < 0 || memcmp(view.trace_id, span->trace_id, 16) == 0);
	return 0;
}

static int take_event(void *ctx, const struct orphan_event *e)
{
	assert(e->span.len > 0);
	return 0;
}

static int take_observation(void *ctx, const struct observation *o)
{
	assert(o->meta.len > 0);
	return 0;
}

static int put_open(void *ctx, const struct run_id *run, const struct open_head *head,
                    struct str base, struct str content, struct str resource, struct str state)
{
	struct slot *slot = slot_of(run, true);
	struct open_head filled = *head;

	if (!slot)
		return -ENOSPC;
	filled.record.base_len = (uint32_t)base.len;
	filled.record.content_len = (uint32_t)content.len;
	filled.resource_len = (uint32_t)resource.len;
	filled.state_len = (uint32_t)state.len;
	if (!slot->value.cap)
		buf_init(&slot->value, 16 * MIB);
	buf_clear(&slot->value);
	buf_append(&slot->value, &filled, sizeof(filled));
	buf_append(&slot->value, base.p, base.len);
	buf_append(&slot->value, content.p, content.len);
	buf_append(&slot->value, resource.p, resource.len);
	buf_append(&slot->value, state.p, state.len);
	return buf_error(&slot->value);
}

static int delete_open(void *ctx, const struct run_id *run)
{
	struct slot *slot = slot_of(run, false);

	if (slot)
		slot->used = false;
	return 0;
}

static int get_open(void *ctx, const struct run_id *run, struct buf *out)
{
	const struct slot *slot = slot_of(run, false);

	if (!slot)
		return -ENOENT;
	buf_clear(out);
	buf_append(out, slot->value.data, slot->value.len);
	return buf_error(out);
}

struct history {
	struct runs *r;
	struct source *s;
	struct moment now;
};

static void begin(struct history *h)
{
	const struct runs_options options = {
		.convention = CONVENTION_BOTH,
		.content = true,
		.max_value = 64,
		.max_frame = 64 * KIB,
		.max_open = 16,
		.stats = &stats,
		.metrics = &metrics,
		.sink = {NULL, take_span, take_observation, take_event, put_open, delete_open,
	                 get_open},
	};

	if (runs_new(&h->r, &options) < 0)
		abort();
	for (int i = 0; i < SLOTS; i++) {
		struct str value = {(char *)slots[i].value.data, slots[i].value.len};
		if (slots[i].used && runs_restore(h->r, &slots[i].run, value, h->now) < 0)
			slots[i].used = false;
	}
	for (int i = 0; i < SLOTS; i++) {
		struct str value = {(char *)slots[i].value.data, slots[i].value.len};
		if (slots[i].used && runs_restore_said(h->r, &slots[i].run, value) < 0)
			slots[i].used = false;
	}
	h->s = runs_add_source(h->r, 7, 7, (struct str){0});
	assert(h->s);
	runs_adopt(h->r, h->s);
}

static void close_it(void *ctx, struct source *s)
{
	static const struct closing lost = {.status = STATUS_ERROR, .error_type = {"lost", 4}};
	struct history *h = ctx;

	runs_close_source(h->r, s, &lost, h->now);
	runs_drop_source(h->r, s);
}

static void feed(struct history *h, const uint8_t *body, size_t len)
{
	struct event ev;

	if (event_decode(&ev, body, len) != REFUSAL_NONE)
		return;
	if (ev.type == EVENT_START)
		runs_start(h->r, h->s, &ev, h->now);
	else if (ev.type == EVENT_END)
		runs_end(h->r, h->s, &ev, (struct str){(const char *)body, len}, h->now);
	else if (ev.type == EVENT_POINT)
		runs_point(h->r, h->s, &ev, h->now);
}

static void pass(struct history *h, uint64_t seconds)
{
	h->now.unix_ns += seconds * 1000000000u;
	h->now.mono_ns += seconds * 1000000000u;
	runs_tick(h->r, h->now);
}

/* A value as somebody else wrote it, under the id of its first 16 bytes. */
static void plant(const uint8_t *value, size_t len)
{
	static const struct open_head head;
	struct run_id run;

	if (len < sizeof(run))
		return;
	memcpy(&run, value, sizeof(run));
	if (put_open(NULL, &run, &head, (struct str){0}, (struct str){0}, (struct str){0},
	             (struct str){0}) < 0)
		return;
	struct slot *slot = slot_of(&run, false);
	buf_clear(&slot->value);
	buf_append(&slot->value, value + sizeof(run), len - sizeof(run));
}

static void step(struct history *h, uint8_t what, const uint8_t *bytes, size_t len)
{
	switch (what % 8) {
	case 0:
		runs_seal(h->r); // what did not fit stays in memory
		runs_committed(h->r);
		break;
	case 1:
		pass(h, len % 16);
		break;
	case 2:
		runs_free(h->r);
		plant(bytes, len);
		begin(h);
		break;
	case 3:
		close_it(h, h->s);
		h->s = runs_add_source(h->r, 7, 7, (struct str){0});
		assert(h->s);
		break;
	default:
		feed(h, bytes, len);
	}
}

static void finish(struct history *h)
{
	close_it(h, h->s);
	runs_each_orphaned(h->r, close_it, h);
	for (int i = 0; i < 4; i++)
		pass(h, 11);
	assert(runs_open_count(h->r) == 0);
	assert(runs_deadline(h->r) == UINT64_MAX);
	runs_free(h->r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct history h = {.now = {1700000000000000000u, 5000000000000u}};
	size_t at = 0;

	for (int i = 0; i < SLOTS; i++)
		slots[i].used = false;
	metrics_init(&metrics);
	begin(&h);
	for (int i = 0; i < STEPS_MAX && at + 3 <= size; i++) {
		size_t len = (size_t)data[at + 1] << 8 | data[at + 2];
		uint8_t what = data[at];
		at += 3;
		len = len < size - at ? len : size - at;
		step(&h, what, data + at, len);
		at += len;
	}
	finish(&h);
	metrics_deinit(&metrics);
	for (int i = 0; i < SLOTS; i++) {
		buf_deinit(&slots[i].value);
		slots[i] = (struct slot){0};
	}
	return 0;
}
