#include "core/runs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "core/message.h"
#include "core/runs_private.h"
#include "core/value.h"

#define CLOCKS_APART_NS (600 * NS_PER_S)

enum { ANCESTORS_MAX = 256 }; // a chain of parents longer than this is a loop

static void init_lists(struct runs *r)
{
	list_init(&r->early);
	list_init(&r->ended_roots);
	list_init(&r->orphans);
	list_init(&r->age);
	list_init(&r->sources);
	list_init(&r->closing);
	list_init(&r->dirty);
	list_init(&r->sealed);
	list_init(&r->said);
	list_init(&r->said_dirty);
}

static void init_buffers(struct runs *r)
{
	size_t most = 4 * r->o.max_frame + MIB; // a span of the largest start and end, escaped

	for (int i = 0; i < ARENAS; i++)
		buf_init(&r->arena[i], 2 * CAP_BATCH + 4 * r->o.max_frame);
	buf_init(&r->base, most);
	buf_init(&r->content, 2 * most);
	buf_init(&r->kept, 4 * most);
	buf_init(&r->state, 2 * most);
	buf_init(&r->meta, 2 * most);
	buf_init(&r->text, most);
	buf_init(&r->told, r->o.max_value + KIB);
}

int runs_new(struct runs **ret, const struct runs_options *options)
{
	struct runs *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->o = *options;
	init_lists(r);
	init_buffers(r);
	encoder_init(&r->encoder, options->convention, options->content, options->max_value);
	r->closed = closed_new();
	if (!r->closed || table_init(r) < 0) {
		runs_free(r);
		return -ENOMEM;
	}
	*ret = r;
	return 0;
}

void runs_free(struct runs *r)
{
	if (!r)
		return;
	while (!list_is_empty(&r->sources))
		source_free(list_first(&r->sources, struct source, in_table));
	said_deinit(r);
	table_deinit(r);
	closed_free(r->closed);
	encoder_deinit(&r->encoder);
	for (int i = 0; i < ARENAS; i++)
		buf_deinit(&r->arena[i]);
	buf_deinit(&r->base);
	buf_deinit(&r->content);
	buf_deinit(&r->kept);
	buf_deinit(&r->state);
	buf_deinit(&r->meta);
	buf_deinit(&r->text);
	free(r);
}

/* --- requests --- */

void request_attach(struct table_request *q, struct run *run)
{
	run->request = q;
	q->open++;
	list_append(&q->members, &run->in_request);
}

/* The parent, or, where that has ended, the root of them all. */
static struct run *nearest_above(const struct runs *r, const struct run *run)
{
	struct run *parent = table_find(r, &run->parent);

	return parent && parent->request ? parent : table_find(r, &run->request->root);
}

/* Two instrumentations see one call: the outer run wraps the inner. */
static bool is_wrapped(const struct run *run, const struct run *above)
{
	return run->kind == KIND_LLM && above->kind == KIND_LLM &&
	       memcmp(&run->parent, &above->id, sizeof(run->parent)) == 0;
}

/* The runs above an LLM run don't count what they repeat of its usage. */
void mark_ancestors(struct runs *r, const struct run *run)
{
	for (int i = 0; i < ANCESTORS_MAX && (run->flags & RUN_HAS_PARENT); i++) {
		struct run *above = nearest_above(r, run);
		if (!above || above == run)
			return;
		uint8_t flags = RUN_LLM_BELOW | (is_wrapped(run, above) ? RUN_WRAPS : 0);
		if ((above->flags & flags) == flags)
			return;
		above->flags |= flags;
		keep_renew(r, above);
		run = above;
	}
}

static struct table_request *new_root_request(struct runs *r, struct run *run,
                                              const uint8_t trace_id[16])
{
	struct table_request *q = request_new(r, trace_id, &run->id);

	if (!q)
		return NULL;
	run->flags |= RUN_IS_ROOT;
	return q;
}

static struct table_request *request_of_child(struct runs *r, struct run *run, struct moment now)
{
	struct run *parent = table_find(r, &run->parent);
	uint8_t parent_span[8];

	if (parent && parent->request)
		return parent->request;
	span_id_of(parent_span, &run->parent);
	const struct closed_run *closed = closed_get(r->closed, parent_span, now.mono_ns);
	if (closed) {
		struct table_request *open = request_find(r, closed->trace_id, closed->request);
		return open ? open : new_root_request(r, run, closed->trace_id);
	}
	// The parent's id is the likeliest trace id, and keeps siblings together if it never comes.
	struct table_request *q = new_root_request(r, run, run->parent.b);
	if (!q)
		return NULL;
	request_await(r, q, &run->parent);
	q->due_ns = now.mono_ns + PARENT_WAIT_NS;
	list_append(&r->orphans, &q->in_due);
	return q;
}

/* A trace has its first root's id, so the run that gathers it is found by that. */
static struct table_request *gathering(const struct runs *r, const uint8_t trace_id[16])
{
	struct run_id id;

	memcpy(id.b, trace_id, sizeof(id.b));
	const struct run *run = table_find(r, &id);
	bool gathers = run && run->state == RUN_OPEN && run->gathers;
	return gathers ? run->request : NULL;
}

/* Finds or makes the request that a new run belongs to. remote: the parent span of a traceparent.
 */
static struct table_request *find_request(struct runs *r, struct run *run, const struct event *ev,
                                          uint8_t remote[8], struct moment now)
{
	uint8_t trace_id[16], flags;

	if (run->flags & RUN_HAS_PARENT)
		return request_of_child(r, run, now);
	if (ev->traceparent.p) {
		if (traceparent_parse(ev->traceparent, trace_id, remote, &flags)) {
			run->flags |= RUN_REMOTE_PARENT;
			struct table_request *q = gathering(r, trace_id);
			return q ? q : new_root_request(r, run, trace_id);
		}
		stat_add(&r->o.stats->traceparents_bad, 1);
	}
	return new_root_request(r, run, run->id.b);
}

static void join_request(struct runs *r, struct table_request *q, struct table_request *late)
{
	while (!list_is_empty(&late->members)) {
		struct run *run = list_first(&late->members, struct run, in_request);
		list_remove(&run->in_request);
		late->open--;
		run->flags &= (uint8_t)~RUN_IS_ROOT; // its sums are empty still: what ended is held
		request_attach(q, run);
		keep_renew(r, run);
		if (run->kind == KIND_LLM || (run->flags & RUN_LLM_BELOW))
			mark_ancestors(r, run);
	}
	request_release(r, late);
}

/* Those who waited for this run join its request; a run that waits, in the end, for itself is a
 * root. */
static void welcome_children(struct runs *r, struct run *run, struct moment now)
{
	struct table_request *late, *q = run->request;
	bool any = false;

	while ((late = request_awaiting(r, &run->id)) != NULL) {
		request_stop_awaiting(r, late);
		if (late != q)
			join_request(r, q, late);
		any = true;
	}
	if (any && !q->waits_for_parent)
		finish_held(r, q, now);
}

/* --- starts --- */

static struct str kept_text(struct runs *r, struct str value, const char *role)
{
	struct str text = {0};
	size_t full;

	if (!r->o.content || !value.p)
		return text;
	text = messages_last_text(value, role);
	if (!text.p)
		text = value_text(value, r->o.max_value, &r->text, &full);
	return (struct str){text.p, text.p ? utf8_cut(text.p, text.len, r->o.max_value) : 0};
}

static int encode_run(struct runs *r, struct run *run, const struct event *ev,
                      const uint8_t remote[8])
{
	struct span_ids ids = {.has_parent = run->flags & (RUN_HAS_PARENT | RUN_REMOTE_PARENT)};
	bool is_root = run->flags & RUN_IS_ROOT;

	memcpy(ids.trace_id, run->request->trace_id, sizeof(ids.trace_id));
	span_id_of(ids.span_id, &run->id);
	if (run->flags & RUN_REMOTE_PARENT) {
		memcpy(ids.parent_id, remote, sizeof(ids.parent_id));
		ids.parent_is_remote = true;
	} else if (run->flags & RUN_HAS_PARENT) {
		span_id_of(ids.parent_id, &run->parent);
	}
	buf_clear(&r->base);
	buf_clear(&r->content);
	encode_prefix(&r->base, &ids, run->start_ns);
	encode_start(&r->encoder, ev, &r->base, &r->content);
	if (buf_error(&r->base) || buf_error(&r->content))
		return -ENOMEM;
	struct run_bytes bytes = {
		.base = {(char *)r->base.data, r->base.len},
		.content = {(char *)r->content.data, r->content.len},
		.message = is_root ? kept_text(r, ev->input, "user") : (struct str){0},
	};
	return keep_put(r, run, &bytes);
}

static void remove_run(struct runs *r, struct run *run)
{
	struct table_request *q = run->request;

	keep_drop(r, run);
	list_remove(&run->in_request); // or runs.early
	if (q && --q->open == 0)
		request_release(r, q);
	source_detach(r, run);
	table_remove(r, run);
}

static void give_up_oldest(struct runs *r, struct moment now)
{
	static const struct closing why = {
		.status = STATUS_ERROR,
		.error_type = {"given_up", 8},
		.error_message = {"too many runs were open; the oldest was given up", 48},
	};
	struct run *run = list_first(&r->age, struct run, in_age);

	stat_add(&r->o.stats->runs_given_up, 1);
	if (run->state == RUN_EARLY_END) {
		finish_unmatched(r, run, now);
		return;
	}
	if (run->state == RUN_HELD) {
		request_stop_awaiting(r, run->request);
		finish_held(r, run->request, now);
		return;
	}
	finish_closed(r, run, &why, run_age(run, now), now);
}

static void make_room(struct runs *r, struct moment now)
{
	while (r->count >= r->o.max_open ||
	       (r->o.max_open_bytes && r->open_bytes >= r->o.max_open_bytes && r->count > 0))
		give_up_oldest(r, now);
}

static bool is_parent_of_itself(const struct event *ev)
{
	return ev->has_parent && memcmp(&ev->parent, &ev->run, sizeof(ev->run)) == 0;
}

/* An event is minutes old at most, if a client had to keep it; another clock is off by more. */
static bool is_our_clock(uint64_t theirs, uint64_t ours)
{
	return theirs <= ours + NS_PER_S && ours - theirs <= CLOCKS_APART_NS;
}

static enum refusal open_run(struct runs *r, struct source *s, const struct event *ev,
                             struct moment now)
{
	uint8_t remote[8];

	make_room(r, now);
	struct run *run = table_insert(r, &ev->run);
	if (!run)
		return REFUSED_NO_MEMORY;
	run->state = RUN_OPEN;
	run->kind = (uint8_t)ev->kind;
	run->start_ns = ev->unix_ns;
	run->start_mono = ev->mono_ns;
	if (is_our_clock(ev->mono_ns, now.mono_ns))
		run->flags |= RUN_OUR_CLOCK;
	if (ev->has_parent) {
		run->flags |= RUN_HAS_PARENT;
		run->parent = ev->parent;
	}
	run->gathers = ev->gather;
	source_attach(s, run);
	struct table_request *q = find_request(r, run, ev, remote, now);
	if (q)
		request_attach(q, run);
	if (!q || encode_run(r, run, ev, remote) < 0) {
		remove_run(r, run);
		return REFUSED_NO_MEMORY;
	}
	if (run->kind == KIND_LLM)
		mark_ancestors(r, run);
	if (r->awaiting_count)
		welcome_children(r, run, now);
	return REFUSAL_NONE;
}

/* The end came first: the run starts, and ends at once. */
static enum refusal open_ended(struct runs *r, struct source *s, const struct event *ev,
                               struct run *early, struct moment now)
{
	struct run_bytes bytes;
	struct event end;
	struct buf frame;

	buf_init(&frame, r->o.max_frame);
	int read = keep_get(r, early, &bytes);
	if (read == 0)
		buf_append(&frame, bytes.base.p, bytes.base.len);
	if (read < 0 || buf_error(&frame)) {
		buf_deinit(&frame);
		return REFUSED_NO_MEMORY;
	}
	remove_run(r, early);
	enum refusal rc = open_run(r, s, ev, now);
	struct run *run = table_find(r, &ev->run);
	if (rc == REFUSAL_NONE && run && event_decode(&end, frame.data, frame.len) == REFUSAL_NONE)
		finish_ended(r, run, &end, now);
	buf_deinit(&frame);
	return rc;
}

void runs_report_cuts(struct runs *r)
{
	stat_add(&r->o.stats->values_cut, r->encoder.cut - r->cut_reported);
	r->cut_reported = r->encoder.cut;
	stat_set(&r->o.stats->runs_open, r->count);
}

enum refusal runs_start(struct runs *r, struct source *s, const struct event *ev, struct moment now)
{
	struct run *known = table_find(r, &ev->run);
	uint8_t span_id[8];

	if (is_parent_of_itself(ev))
		return REFUSED_BAD_RUN_ID;
	if (known && known->state != RUN_EARLY_END)
		return REFUSED_DUPLICATE_START;
	if (known) {
		enum refusal rc = open_ended(r, s, ev, known, now);
		stat_add(&r->o.stats->runs_started, rc == REFUSAL_NONE);
		runs_report_cuts(r);
		return rc;
	}
	span_id_of(span_id, &ev->run);
	if (closed_get(r->closed, span_id, now.mono_ns))
		return REFUSED_DUPLICATE_START;
	enum refusal rc = open_run(r, s, ev, now);
	stat_add(&r->o.stats->runs_started, rc == REFUSAL_NONE);
	runs_report_cuts(r);
	return rc;
}

/* --- ends that come first --- */

/* Makes a msgpack value a text of as many bytes that says nothing: it may not be kept. */
static void blank(uint8_t *p, size_t len)
{
	static const size_t heads[] = {1, 2, 3, 5};
	static const uint8_t bytes[] = {0xa0, 0xd9, 0xda, 0xdb};
	int form = len <= 32 ? 0 : len < 0x100 + 2 ? 1 : len < 0x10000 + 3 ? 2 : 3;
	size_t text = len - heads[form];

	memset(p, ' ', len);
	p[0] = bytes[form];
	if (form == 0)
		p[0] |= (uint8_t)text;
	for (size_t i = 1; i < heads[form]; i++)
		p[i] = (uint8_t)(text >> 8 * (heads[form] - 1 - i));
}

static enum refusal keep_early(struct runs *r, struct source *s, const struct event *ev,
                               struct str body, struct moment now)
{
	struct run_bytes bytes = {.base = body};

	make_room(r, now);
	struct run *run = table_insert(r, &ev->run);
	if (!run)
		return REFUSED_NO_MEMORY;
	run->state = RUN_EARLY_END;
	run->start_ns = ev->unix_ns;
	run->start_mono = ev->mono_ns;
	run->due_ns = now.mono_ns + START_WAIT_NS;
	source_attach(s, run);
	list_append(&r->early, &run->in_request);
	if (keep_put(r, run, &bytes) < 0) {
		remove_run(r, run);
		return REFUSED_NO_MEMORY;
	}
	if (!r->o.content && ev->output.p)
		blank(r->arena[run->arena].data + run->at + (ev->output.p - body.p),
		      ev->output.len);
	return REFUSAL_NONE;
}

void finish_unmatched(struct runs *r, struct run *early, struct moment now)
{
	static const uint8_t attrs[] = "\x81\xb7sidelight.unmatched_end\xc3"; // {key: true}
	struct event start = {
		.type = EVENT_START,
		.run = early->id,
		.unix_ns = early->start_ns,
		.mono_ns = early->start_mono,
		.name = STR("unmatched end"),
		.attrs = {(const char *)attrs, sizeof(attrs) - 1},
	};

	stat_add(&r->o.stats->ends_unmatched, 1);
	struct source *s = early->source;
	s->runs++; // it must outlive the moment between the two
	if (open_ended(r, s, &start, early, now) != REFUSAL_NONE) {
		stat_add(&r->o.stats->spans_dropped, 1);
		if (table_find(r, &start.run) == early)
			remove_run(r, early);
	}
	source_release(s);
}

enum refusal runs_end(struct runs *r, struct source *s, const struct event *ev, struct str body,
                      struct moment now)
{
	struct run *run = table_find(r, &ev->run);
	enum refusal rc = REFUSAL_NONE;
	uint8_t span_id[8];

	if (run && run->state != RUN_OPEN)
		return REFUSED_DUPLICATE_END;
	if (run) {
		finish_ended(r, run, ev, now);
	} else {
		span_id_of(span_id, &ev->run);
		if (closed_get(r->closed, span_id, now.mono_ns))
			return REFUSED_DUPLICATE_END;
		rc = keep_early(r, s, ev, body, now);
	}
	runs_report_cuts(r);
	return rc;
}

/* --- points --- */

/* Which trace a run that is not open belongs to. Of one that never was, only its id is known: as if
 * it were a root. */
static void ids_of_absent(const struct runs *r, const struct run_id *id, struct moment now,
                          struct orphan_event *ret)
{
	span_id_of(ret->span_id, id);
	const struct closed_run *closed = closed_get(r->closed, ret->span_id, now.mono_ns);
	memcpy(ret->trace_id, closed ? closed->trace_id : id->b, sizeof(ret->trace_id));
}

static void give_out_point(struct runs *r, struct source *s, const struct run *run,
                           const struct event *ev, struct moment now)
{
	struct orphan_event e = {.time_ns = ev->unix_ns, .received_ns = now.unix_ns, .source = s};

	ids_of_absent(r, &ev->run, now, &e);
	if (run && run->request)
		memcpy(e.trace_id, run->request->trace_id, sizeof(e.trace_id));
	buf_clear(&r->base);
	encode_point(&r->encoder, ev, KIND_OTHER, 0, &r->base);
	e.span = (struct str){(char *)r->base.data, r->base.len};
	if (buf_error(&r->base) || r->o.sink.event(r->o.sink.ctx, &e) < 0)
		stat_add(&r->o.stats->events_dropped, 1);
}

/* Adds the point to its run's span. */
static int add_point(struct runs *r, struct run *run, const struct event *ev)
{
	struct run_bytes bytes;

	int rc = keep_get(r, run, &bytes);
	if (rc < 0)
		return rc;
	buf_clear(&r->base);
	buf_append(&r->base, bytes.base.p, bytes.base.len);
	bool first = str_is(ev->name, "first_token");
	bool again = first && (run->flags & RUN_FIRST_TOKEN);
	encode_point(&r->encoder, ev, again ? KIND_OTHER : (enum run_kind)run->kind,
	             run_duration(run, ev->unix_ns, ev->mono_ns), &r->base);
	bytes.base = (struct str){(char *)r->base.data, r->base.len};
	rc = buf_error(&r->base) ? buf_error(&r->base) : keep_put(r, run, &bytes);
	if (rc < 0)
		return rc;
	run->points++;
	run->flags |= first ? RUN_FIRST_TOKEN : 0;
	return 0;
}

void runs_point(struct runs *r, struct source *s, const struct event *ev, struct moment now)
{
	struct run *run = table_find(r, &ev->run);
	bool is_open = run && run->state == RUN_OPEN;

	if (ev->is_partial)
		stat_add(&r->o.stats->events_dropped, !is_open || said_add(r, run, ev) < 0);
	else if (!is_open)
		give_out_point(r, s, run, ev, now);
	else if (run->points == CAP_EVENTS_PER_RUN || add_point(r, run, ev) < 0)
		stat_add(&r->o.stats->events_dropped, 1);
	runs_report_cuts(r);
}

unsigned runs_open_count(const struct runs *r)
{
	return r->count;
}

bool runs_has(const struct runs *r, const struct run_id *run)
{
	return table_find(r, run) != NULL;
}
