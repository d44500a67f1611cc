#include <string.h>

#include "core/message.h"
#include "core/otlp_fields.h"
#include "core/runs_private.h"
#include "core/value.h"

uint64_t run_duration(const struct run *run, uint64_t unix_ns, uint64_t mono_ns)
{
	// The monotonic clock, unless one side lacks it or the machine was started anew.
	if (run->start_mono && mono_ns >= run->start_mono)
		return mono_ns - run->start_mono;
	return unix_ns > run->start_ns ? unix_ns - run->start_ns : 0;
}

uint64_t run_age(const struct run *run, struct moment now)
{
	// A client in another time namespace, or on another machine's clock, has only wall time in
	// common with us.
	return run_duration(run, now.unix_ns, run->flags & RUN_OUR_CLOCK ? now.mono_ns : 0);
}

/* Error types that say that a run was called off, with or without their module's name. */
static bool means_cancelled(struct str type)
{
	static const char *const words[] = {"CancelledError", "GeneratorExit", "GraphInterrupt"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct str word = str_of(words[i]);
		if (type.len < word.len || memcmp(type.p + type.len - word.len, word.p, word.len))
			continue;
		if (type.len == word.len || type.p[type.len - word.len - 1] == '.')
			return true;
	}
	return false;
}

/* --- out of the table --- */

static struct span_record record_of(const struct run *run, struct str base, struct str content)
{
	unsigned root = run->flags & RUN_IS_ROOT ? RECORD_ROOT : 0;
	unsigned totals = run->flags & RUN_TOTALS ? RECORD_TOTALS : 0;
	unsigned wraps = run->flags & RUN_WRAPS ? RECORD_WRAPS : 0;

	return (struct span_record){
		.head = {.base_len = (uint32_t)base.len,
	                 .content_len = (uint32_t)content.len,
	                 .kind = run->kind,
	                 .status = run->status,
	                 .flags = (uint8_t)(root | totals | wraps)},
		.base = base,
		.content = content,
		.resource = {(char *)run->source->resource.data, run->source->resource.len},
	};
}

static void account_for(struct account *a, const struct run *run, const struct run_bytes *b,
                        const uint8_t span_id[8])
{
	*a = (struct account){
		.kind = (enum run_kind)run->kind,
		.status = (enum run_status)run->status,
		.wraps = run->flags & RUN_WRAPS,
		.duration_ns = run->duration_ns,
		.end_ns = run->start_ns + run->duration_ns,
	};
	memcpy(a->span_id, span_id, sizeof(a->span_id));
	usage_init(&a->usage);
	account_scan(a, b->base);
	if (run->kind == KIND_TOOL)
		account_scan(a, b->content);
	account_total(a);
	if (run->flags & RUN_TOTALS)
		usage_init(&a->usage);
}

static void set_root(struct runs *r, struct run *run, const struct run_bytes *b,
                     const struct account *a)
{
	struct table_request *q = run->request;
	struct span_record rec = record_of(run, b->base, b->content);
	struct root_text text = {b->message, b->response};

	q->root_done = true;
	q->root_end_ns = a->end_ns;
	if (request_set_root(&q->sums, &rec, a, &text) < 0)
		q->sums.has_root = false; // no memory for it: no observation is written
}

/* Writes a run that has ended, its bytes complete in r->base and r->content. */
static void emit(struct runs *r, struct run *run, struct run_bytes *b, struct moment now)
{
	struct table_request *q = run->request;
	struct account account;
	uint8_t span_id[8];

	memcpy(r->base.data + TRACE_ID_AT, q->trace_id, sizeof(q->trace_id));
	struct finished_span span = {
		.head = record_of(run, b->base, b->content).head,
		.base = b->base,
		.content = b->content,
		.start_ns = run->start_ns,
		.end_ns = run->start_ns + run->duration_ns,
		.source = run->source,
	};
	memcpy(span.trace_id, q->trace_id, sizeof(span.trace_id));
	memcpy(span.head.request, q->tag, sizeof(span.head.request));
	if (r->o.sink.span(r->o.sink.ctx, &span) < 0)
		stat_add(&r->o.stats->spans_dropped, 1);
	span_id_of(span_id, &run->id);
	closed_add(r->closed, span_id, q->trace_id, q->tag, now.mono_ns);
	account_for(&account, run, b, span_id);
	metrics_span(r->o.metrics, &account);
	if (request_add(&q->sums, &account, r->o.prices) < 0)
		stat_add(&r->o.stats->events_dropped, 1);
	if (run->flags & RUN_IS_ROOT)
		set_root(r, run, b, &account);
}

static void leave(struct runs *r, struct run *run)
{
	keep_drop(r, run);
	list_remove(&run->in_request);
	run->request->open--;
	source_detach(r, run);
	table_remove(r, run);
}

/* --- requests --- */

static void write_observation(struct runs *r, struct table_request *q, struct moment now)
{
	buf_clear(&r->meta);
	buf_clear(&r->content);
	request_observe(&q->sums, r->o.prices, now.unix_ns, &r->meta, &r->content);
	struct observation o = {
		.start_ns = q->sums.start_ns,
		.created_ns = now.unix_ns,
		.kind = q->sums.kind,
		.status = q->sums.status,
		.root = {(char *)q->sums.root.data, q->sums.root.len},
		.meta = {(char *)r->meta.data, r->meta.len},
		.content = {(char *)r->content.data, r->content.len},
		.resource = {(char *)q->sums.resource.data, q->sums.resource.len},
	};
	memcpy(o.trace_id, q->trace_id, sizeof(o.trace_id));
	memcpy(o.span_id, q->sums.span_id, sizeof(o.span_id));
	if (buf_error(&r->meta) || buf_error(&r->content) ||
	    r->o.sink.observation(r->o.sink.ctx, &o) < 0)
		stat_add(&r->o.stats->observations_dropped, 1);
	request_count(&q->sums, r->o.metrics);
}

void finish_request(struct runs *r, struct table_request *q, struct moment now)
{
	if (q->open > 0) {
		if (q->root_done && !list_is_linked(&q->in_due)) {
			q->due_ns = now.mono_ns + ROOT_GRACE_NS;
			list_append(&r->ended_roots, &q->in_due);
		}
		return;
	}
	if (q->root_done && q->sums.has_root)
		write_observation(r, q, now);
	else if (q->root_done)
		stat_add(&r->o.stats->observations_dropped, 1);
	if (q->stored)
		r->o.sink.delete_open(r->o.sink.ctx, &q->root);
	request_release(r, q);
}

/* --- ends --- */

static struct str response_text(struct runs *r, const struct event *end)
{
	struct str text = {0};
	size_t full;

	if (!end || !r->o.content || !end->output.p)
		return text;
	text = messages_last_text(end->output, "assistant");
	if (!text.p)
		text = value_text(end->output, r->o.max_value, &r->text, &full);
	return (struct str){text.p, text.p ? utf8_cut(text.p, text.len, r->o.max_value) : 0};
}

/* The user's words, where only the end knows them; borrowed from it. */
static struct str late_message(struct runs *r, const struct event *end)
{
	struct str text = {0};

	if (end && r->o.content && end->input.p)
		text = messages_last_text(end->input, "user");
	return (struct str){text.p, text.p ? utf8_cut(text.p, text.len, r->o.max_value) : 0};
}

/* What an end says was used, unless runs below say the same; then those above don't say it again.
 */
static void own_usage(struct runs *r, struct run *run, const struct event *end, struct usage *ret)
{
	bool is_leaf =
		(run->kind == KIND_LLM && !(run->flags & RUN_WRAPS)) || run->kind == KIND_EMBEDDING;

	usage_init(ret);
	if (end && (is_leaf || !(run->flags & RUN_LLM_BELOW)))
		usage_read(ret, end->usage);
	if (!is_leaf && usage_is_known(ret)) {
		run->flags |= RUN_LLM_BELOW;
		mark_ancestors(r, run);
	}
}

/* Says that the output is what was said until the run was cut off. */
static void note_partial(struct runs *r, const struct run *run)
{
	uint64_t full = said_cut(run);

	pb_attr_bool(&r->base, SPAN_ATTRIBUTES, STR("sidelight.partial_output"), true);
	if (full)
		pb_attr_int(&r->base, SPAN_ATTRIBUTES, STR("sidelight.cut.output"), (int64_t)full);
}

/* Joins a run's start and end in r->base and r->content. */
static int complete(struct runs *r, struct run *run, const struct event *end,
                    const struct ending *ending, struct run_bytes *b)
{
	const struct usage *totals = NULL;
	struct usage usage;
	struct event whole;

	end = said_complete(r, run, end, &whole);
	own_usage(r, run, end, &usage);
	if (run->flags & RUN_IS_ROOT)
		totals = &run->request->sums.usage;
	if (totals && (r->o.convention & CONVENTION_SEAMS) && !usage_is_known(&usage))
		run->flags |= RUN_TOTALS;
	int rc = keep_get(r, run, b);
	if (rc < 0)
		return rc;
	buf_clear(&r->base);
	buf_clear(&r->content);
	buf_append(&r->base, b->base.p, b->base.len);
	buf_append(&r->content, b->content.p, b->content.len);
	encode_end(&r->encoder, (enum run_kind)run->kind, end, ending, &usage, totals, &r->base,
	           &r->content);
	if (end && end->is_partial)
		note_partial(r, run);
	b->base = (struct str){(char *)r->base.data, r->base.len};
	b->content = (struct str){(char *)r->content.data, r->content.len};
	if ((run->flags & RUN_IS_ROOT) && !b->message.p)
		b->message = late_message(r, end);
	b->response = run->flags & RUN_IS_ROOT ? response_text(r, end) : (struct str){0};
	return buf_error(&r->base) ? buf_error(&r->base) : buf_error(&r->content);
}

static void finish(struct runs *r, struct run *run, const struct event *end,
                   const struct ending *ending, struct moment now)
{
	struct table_request *q = run->request;
	struct run_bytes bytes;

	run->status = (uint8_t)ending->status;
	run->duration_ns = ending->duration_ns;
	int rc = complete(r, run, end, ending, &bytes);
	if (rc == 0 && q->waits_for_parent && keep_put(r, run, &bytes) == 0) {
		said_drop(r, run);
		run->state = RUN_HELD;
		return;
	}
	if (rc == 0)
		emit(r, run, &bytes, now);
	else
		stat_add(&r->o.stats->spans_dropped, 1);
	leave(r, run);
	finish_request(r, q, now);
}

void finish_ended(struct runs *r, struct run *run, const struct event *end, struct moment now)
{
	uint64_t duration = run_duration(run, end->unix_ns, end->mono_ns);
	struct ending ending = {
		.status = STATUS_OK,
		.duration_ns = duration,
		.end_ns = run->start_ns + duration,
		.error_type = end->error_type,
		.error_message = end->error_message,
		.error_stack = end->error_stack,
	};

	if (end->has_error)
		ending.status = means_cancelled(end->error_type) ? STATUS_CANCELLED : STATUS_ERROR;
	finish(r, run, end, &ending, now);
}

void finish_closed(struct runs *r, struct run *run, const struct closing *why, uint64_t duration_ns,
                   struct moment now)
{
	struct ending ending = {
		.status = why->status,
		.duration_ns = duration_ns,
		.end_ns = run->start_ns + duration_ns,
		.error_type = why->error_type,
		.error_message = why->error_message,
		.evidence = why->evidence,
	};

	finish(r, run, NULL, &ending, now);
}

static void emit_held(struct runs *r, struct run *run, struct moment now)
{
	struct run_bytes bytes;

	buf_clear(&r->base);
	if (keep_get(r, run, &bytes) == 0)
		buf_append(&r->base, bytes.base.p, bytes.base.len);
	if (r->base.len == 0 || buf_error(&r->base)) {
		stat_add(&r->o.stats->spans_dropped, 1);
		return;
	}
	bytes.base = (struct str){(char *)r->base.data, r->base.len};
	emit(r, run, &bytes, now);
}

void finish_held(struct runs *r, struct table_request *q, struct moment now)
{
	struct list_node *node = q->members.next, *next;

	for (; node != &q->members; node = next) {
		next = node->next;
		struct run *run = container_of(node, struct run, in_request);
		if (run->state != RUN_HELD)
			continue;
		emit_held(r, run, now);
		leave(r, run);
	}
	finish_request(r, q, now);
}

/* --- closings --- */

static bool has_room(const struct runs *r)
{
	return !r->o.sink.has_room || r->o.sink.has_room(r->o.sink.ctx);
}

static struct str text_of(const char *text)
{
	return text[0] ? str_of(text) : (struct str){0};
}

static void close_run(struct runs *r, struct run *run, const struct source *s)
{
	struct closing why = {
		.status = s->closing_status,
		.error_type = s->closing_type,
		.error_message = text_of(s->closing_message),
		.evidence = text_of(s->closing_evidence),
	};

	if (run->state == RUN_EARLY_END) {
		finish_unmatched(r, run, s->closing_at);
	} else if (run->state == RUN_OPEN) {
		stat_add(why.status == STATUS_CANCELLED ? &r->o.stats->runs_cancelled
		                                        : &r->o.stats->runs_lost,
		         1);
		finish_closed(r, run, &why, run_age(run, s->closing_at), s->closing_at);
	}
}

/* Returns whether all are closed. */
static bool close_runs(struct runs *r, struct source *s)
{
	struct list_node todo; // finishing one may finish others: each is taken from here

	list_init(&todo);
	list_move_all(&todo, &s->members);
	while (!list_is_empty(&todo) && has_room(r)) {
		struct list_node *node = todo.prev; // the newest first: children before parents
		list_remove(node);
		list_prepend(&s->members, node); // back to its place
		close_run(r, container_of(node, struct run, in_source), s);
	}
	bool all = list_is_empty(&todo);
	list_move_all(&todo, &s->members);
	list_move_all(&s->members, &todo);
	return all;
}

static void close_sources(struct runs *r)
{
	while (!list_is_empty(&r->closing)) {
		struct source *s = list_first(&r->closing, struct source, in_closing);
		if (!close_runs(r, s))
			break;
		list_remove(&s->in_closing);
		s->closing = false;
		source_release(s);
	}
	runs_report_cuts(r);
}

static void set_text(char *to, size_t size, struct str text)
{
	size_t len = text.len < size ? text.len : size - 1;

	if (len)
		memcpy(to, text.p, len);
	to[len] = '\0';
}

void runs_close_source(struct runs *r, struct source *s, const struct closing *why,
                       struct moment now)
{
	s->closing_status = why->status;
	s->closing_type = why->error_type;
	set_text(s->closing_message, sizeof(s->closing_message), why->error_message);
	set_text(s->closing_evidence, sizeof(s->closing_evidence), why->evidence);
	s->closing_at = now;
	s->runs++; // the caller still has it
	if (!s->closing) {
		s->closing = true;
		s->runs++; // until all are closed
		list_append(&r->closing, &s->in_closing);
	}
	close_sources(r);
	s->runs--;
}

static void cancel_rest(struct runs *r, struct table_request *q, struct moment now)
{
	static const struct closing why = {
		.status = STATUS_CANCELLED,
		.error_type = {"root_ended", 10},
	};
	struct list_node *node = q->members.prev, *prev;

	q->open++; // held until we are through
	for (; node != &q->members && has_room(r); node = prev) {
		prev = node->prev;
		struct run *run = container_of(node, struct run, in_request);
		uint64_t lasted =
			q->root_end_ns > run->start_ns ? q->root_end_ns - run->start_ns : 0;
		stat_add(&r->o.stats->runs_cancelled, 1);
		finish_closed(r, run, &why, lasted, now);
	}
	q->open--;
	if (node == &q->members) {
		finish_request(r, q, now);
		return;
	}
	list_remove(&q->in_due); // goes on after the next commit
	q->due_ns = now.mono_ns;
	list_prepend(&r->ended_roots, &q->in_due);
}

static struct table_request *due_request(struct list_node *list, uint64_t now_ns)
{
	if (list_is_empty(list))
		return NULL;
	struct table_request *q = list_first(list, struct table_request, in_due);
	return q->due_ns <= now_ns ? q : NULL;
}

void runs_tick(struct runs *r, struct moment now)
{
	struct table_request *q;

	while (!list_is_empty(&r->early)) {
		struct run *run = list_first(&r->early, struct run, in_request);
		if (run->due_ns > now.mono_ns)
			break;
		finish_unmatched(r, run, now);
	}
	while ((q = due_request(&r->orphans, now.mono_ns)) != NULL) {
		request_stop_awaiting(r, q); // it makes a trace of its own
		finish_held(r, q, now);
	}
	close_sources(r);
	while (has_room(r) && (q = due_request(&r->ended_roots, now.mono_ns)) != NULL) {
		list_remove(&q->in_due);
		cancel_rest(r, q, now);
	}
	runs_report_cuts(r);
}

static uint64_t first_due(const struct list_node *list)
{
	if (list_is_empty(list))
		return UINT64_MAX;
	return container_of(list->next, struct table_request, in_due)->due_ns;
}

uint64_t runs_deadline(const struct runs *r)
{
	uint64_t due = first_due(&r->orphans);
	uint64_t roots = first_due(&r->ended_roots);
	uint64_t early = list_is_empty(&r->early)
	                         ? UINT64_MAX
	                         : container_of(r->early.next, struct run, in_request)->due_ns;

	if (!list_is_empty(&r->closing))
		return 0;
	due = roots < due ? roots : due;
	return early < due ? early : due;
}
