#include <errno.h>

#include "base/caps.h"
#include "core/runs_private.h"

enum { STATE_VERSION = 1 };
enum { MORE_WAITS_FOR_PARENT = 1, MORE_GATHERS = 2 };

/* What the store keeps of a run behind its bytes; its message and response follow, or the frame
 * of an early end, or the members that a request knows of its root. */
struct run_state_record {
	uint8_t version, state, kind, flags;
	uint8_t status, more;
	uint16_t points;
	uint32_t message_len, response_len;
	struct run_id parent, root;
	union {
		struct {
			uint64_t start_ns, start_mono, duration_ns;
		};
		struct { // RUN_SAID, of the run `parent`
			uint64_t said_full, said_tokens, said_page;
		};
	};
	uint64_t root_end_ns; // RUN_ROOT_DONE
	uint8_t root_span_id[8];
	char provider[64], model[128]; // RUN_ROOT_DONE: the root's own
	char service[64];
	int64_t pid;
	uint64_t pid_start;
};

static struct str take(struct str *from, size_t len)
{
	struct str taken = {from->p, len};

	from->p += len;
	from->len -= len;
	return taken;
}

/* --- bytes --- */

/* Takes a stored value apart. */
static int parse_value(struct str value, struct open_head *head, struct run_state_record *state,
                       struct run_bytes *b, struct str *resource)
{
	if (value.len < sizeof(*head))
		return ERR_CORRUPT;
	memcpy(head, take(&value, sizeof(*head)).p, sizeof(*head));
	uint64_t need = (uint64_t)head->record.base_len + head->record.content_len +
	                head->resource_len + head->state_len;
	if (need != value.len || head->state_len < sizeof(*state))
		return ERR_CORRUPT;
	*b = (struct run_bytes){0};
	b->base = take(&value, head->record.base_len);
	b->content = take(&value, head->record.content_len);
	*resource = take(&value, head->resource_len);
	memcpy(state, take(&value, sizeof(*state)).p, sizeof(*state));
	if (state->version != STATE_VERSION)
		return ERR_VERSION;
	if ((uint64_t)state->message_len + state->response_len > value.len)
		return ERR_CORRUPT;
	if (state->state == RUN_EARLY_END) {
		b->base = value;
	} else {
		b->message = take(&value, state->message_len);
		b->response = take(&value, state->response_len);
	}
	// A text of no length was none.
	b->message.p = b->message.len ? b->message.p : NULL;
	b->response.p = b->response.len ? b->response.p : NULL;
	return 0;
}

static int get_stored(struct runs *r, const struct run *run, struct run_bytes *ret)
{
	struct run_state_record state;
	struct open_head head;
	struct str resource;

	int rc = r->o.sink.get_open(r->o.sink.ctx, &run->id, &r->kept);
	if (rc < 0)
		return rc;
	rc = parse_value((struct str){(char *)r->kept.data, r->kept.len}, &head, &state, ret,
	                 &resource);
	// Another run's page, if this one has the name of it.
	return rc == 0 && state.state == RUN_SAID ? ERR_CORRUPT : rc;
}

static struct str slice(const uint8_t **at, uint32_t len)
{
	struct str s = {(const char *)*at, len};

	*at += len;
	return s;
}

int keep_get(struct runs *r, const struct run *run, struct run_bytes *ret)
{
	if (run->place == PLACE_STORE)
		return get_stored(r, run, ret);
	if (run->place == PLACE_NONE)
		return -ENOENT;
	const uint8_t *at = r->arena[run->arena].data + run->at;
	ret->base = slice(&at, run->base_len);
	ret->content = slice(&at, run->content_len);
	ret->message = run->message_len ? slice(&at, run->message_len) : (struct str){0};
	ret->response = run->response_len ? slice(&at, run->response_len) : (struct str){0};
	return 0;
}

/* Where a slice lies in the arena, which may move when it grows; SIZE_MAX: elsewhere. */
static size_t offset_in(const struct buf *arena, struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p;
	bool inside = arena->data && p >= arena->data && p < arena->data + arena->len;

	return inside ? (size_t)(p - arena->data) : SIZE_MAX;
}

static void append_slices(struct buf *arena, const struct run_bytes *b, size_t size)
{
	const struct str slices[] = {b->base, b->content, b->message, b->response};
	size_t offsets[4];

	for (int i = 0; i < 4; i++)
		offsets[i] = offset_in(arena, slices[i]);
	if (!buf_reserve(arena, size))
		return;
	for (int i = 0; i < 4; i++)
		buf_append(arena,
		           offsets[i] == SIZE_MAX ? (const uint8_t *)slices[i].p
		                                  : arena->data + offsets[i],
		           slices[i].len);
}

/* What a put takes besides the run's bytes and its resource. */
enum { PUT_OVERHEAD = sizeof(struct open_head) + sizeof(struct run_state_record) + 32 };
_Static_assert((int)PUT_OVERHEAD <= (int)KEEP_OVERHEAD, "what a page takes");

static void set_lengths(struct runs *r, struct run *run, const struct run_bytes *b)
{
	size_t bytes = b->base.len + b->content.len + b->message.len + b->response.len;

	run->base_len = (uint32_t)b->base.len;
	run->content_len = (uint32_t)b->content.len;
	run->message_len = (uint32_t)b->message.len;
	run->response_len = (uint32_t)b->response.len;
	r->open_bytes -= run->takes;
	run->takes = bytes ? (uint32_t)(bytes + run->source->resource.len + PUT_OVERHEAD) : 0;
	r->open_bytes += run->takes;
}

int keep_put(struct runs *r, struct run *run, const struct run_bytes *b)
{
	struct buf *arena = &r->arena[r->filling];
	size_t at = arena->len;
	size_t size = b->base.len + b->content.len + b->message.len + b->response.len;

	if (arena->len + size > arena->cap)
		return -ENOSPC;
	append_slices(arena, b, size);
	if (buf_error(arena)) {
		arena->len = at;
		arena->error = 0;
		return -ENOMEM;
	}
	set_lengths(r, run, b);
	r->put_bytes += run->takes;
	run->at = (uint32_t)at;
	run->place = PLACE_ARENA;
	run->arena = (uint8_t)r->filling;
	list_remove(&run->in_dirty);
	list_append(&r->dirty, &run->in_dirty);
	return 0;
}

void keep_drop(struct runs *r, struct run *run)
{
	list_remove(&run->in_dirty);
	said_drop(r, run);
	set_lengths(r, run, &(struct run_bytes){0});
	run->place = PLACE_NONE;
	if (run->stored)
		r->o.sink.delete_open(r->o.sink.ctx, &run->id);
	run->stored = false;
}

void keep_renew(struct runs *r, struct run *run)
{
	struct run_bytes b;

	if (!run->stored || (run->place == PLACE_ARENA && run->arena == r->filling))
		return;
	if (keep_get(r, run, &b) < 0 || keep_put(r, run, &b) < 0)
		stat_add(&r->o.stats->events_dropped, 1);
}

size_t runs_bytes(const struct runs *r)
{
	return r->put_bytes;
}

/* --- to the store --- */

static void describe(struct run_state_record *state, const struct run *run,
                     const struct run_bytes *b)
{
	*state = (struct run_state_record){
		.version = STATE_VERSION,
		.state = run->state,
		.kind = run->kind,
		.flags = run->flags,
		.status = run->status,
		.more = run->gathers ? MORE_GATHERS : 0,
		.points = run->points,
		.message_len = (uint32_t)b->message.len,
		.response_len = (uint32_t)b->response.len,
		.parent = run->parent,
		.start_ns = run->start_ns,
		.start_mono = run->start_mono,
		.duration_ns = run->duration_ns,
		.pid = run->source->pid,
		.pid_start = run->source->pid_start,
	};
	if (run->request) {
		state->root = run->request->root;
		state->more |= run->request->waits_for_parent ? MORE_WAITS_FOR_PARENT : 0;
	}
}

static int put_run(struct runs *r, struct run *run)
{
	struct run_state_record state;
	struct open_head head = {0};
	struct run_bytes b;

	int rc = keep_get(r, run, &b);
	if (rc < 0)
		return rc;
	describe(&state, run, &b);
	buf_clear(&r->state);
	buf_append(&r->state, &state, sizeof(state));
	if (run->state == RUN_EARLY_END) {
		buf_append(&r->state, b.base.p, b.base.len);
		b.base = (struct str){0};
	}
	buf_append(&r->state, b.message.p, b.message.len);
	buf_append(&r->state, b.response.p, b.response.len);
	if (buf_error(&r->state))
		return buf_error(&r->state);
	head.record = (struct record_head){
		.kind = run->kind,
		.status = run->state == RUN_HELD ? run->status : STATUS_RUNNING,
		.flags = run->flags & RUN_IS_ROOT ? RECORD_ROOT : 0,
	};
	if (run->request)
		memcpy(head.trace_id, run->request->trace_id, sizeof(head.trace_id));
	return r->o.sink.put_open(
		r->o.sink.ctx, &run->id, &head, b.base, b.content,
		(struct str){(char *)run->source->resource.data, run->source->resource.len},
		(struct str){(char *)r->state.data, r->state.len});
}

int keep_root(struct runs *r, struct table_request *q)
{
	const struct request *sums = &q->sums;
	struct run_state_record state = {
		.version = STATE_VERSION,
		.state = RUN_ROOT_DONE,
		.kind = (uint8_t)sums->kind,
		.status = (uint8_t)sums->status,
		.message_len = (uint32_t)sums->root.len,
		.response_len = (uint32_t)sums->content.len,
		.root = q->root,
		.start_ns = sums->start_ns,
		.duration_ns = sums->duration_ns,
		.root_end_ns = q->root_end_ns,
	};
	struct open_head head = {0};

	memcpy(state.root_span_id, sums->span_id, sizeof(state.root_span_id));
	memcpy(state.provider, sums->provider, sizeof(state.provider));
	memcpy(state.model, sums->model, sizeof(state.model));
	memcpy(state.service, sums->service, sizeof(state.service));
	memcpy(head.trace_id, q->trace_id, sizeof(head.trace_id));
	buf_clear(&r->state);
	buf_append(&r->state, &state, sizeof(state));
	buf_append(&r->state, sums->root.data, sums->root.len);
	buf_append(&r->state, sums->content.data, sums->content.len);
	if (buf_error(&r->state))
		return buf_error(&r->state);
	int rc = r->o.sink.put_open(r->o.sink.ctx, &q->root, &head, (struct str){0},
	                            (struct str){0}, (struct str){0},
	                            (struct str){(char *)r->state.data, r->state.len});
	q->stored = rc == 0;
	return rc;
}

int keep_put_page(struct runs *r, const struct run_id *key, const struct said_page *page)
{
	struct run_state_record state = {
		.version = STATE_VERSION,
		.state = RUN_SAID,
		.parent = page->run,
		.said_tokens = page->tokens,
		.said_full = page->full,
		.said_page = page->number,
	};
	struct open_head head = {0};

	buf_clear(&r->state);
	buf_append(&r->state, &state, sizeof(state));
	if (buf_error(&r->state))
		return buf_error(&r->state);
	return r->o.sink.put_open(r->o.sink.ctx, key, &head, (struct str){0}, page->text,
	                          (struct str){0},
	                          (struct str){(char *)r->state.data, r->state.len});
}

/* Those that came since the last seal are at the end of the list. */
static int put_ended_roots(struct runs *r)
{
	struct list_node *node = r->ended_roots.prev;

	for (; node != &r->ended_roots; node = node->prev) {
		struct table_request *q = container_of(node, struct table_request, in_due);
		if (q->stored)
			break;
		int rc = keep_root(r, q);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What could not be put stays in memory: it moves on to the arena that is filled next. */
static void carry_over(struct runs *r, struct list_node *left)
{
	while (!list_is_empty(left)) {
		struct run *run = list_first(left, struct run, in_dirty);
		struct run_bytes b;
		list_remove(&run->in_dirty);
		if (keep_get(r, run, &b) < 0 || keep_put(r, run, &b) < 0)
			run->place = PLACE_NONE;
	}
}

int runs_seal(struct runs *r)
{
	struct list_node left;
	int rc = put_ended_roots(r);

	list_init(&left);
	while (!list_is_empty(&r->dirty)) {
		struct run *run = list_first(&r->dirty, struct run, in_dirty);
		int put = put_run(r, run);
		list_remove(&run->in_dirty);
		run->stored = run->stored || put == 0;
		list_append(put == 0 ? &r->sealed : &left, &run->in_dirty);
		rc = put < 0 ? put : rc;
	}
	int said = said_seal(r);
	r->filling = (r->filling + 1) % ARENAS;
	r->put_bytes = said_due(r);
	carry_over(r, &left);
	return said < 0 ? said : rc;
}

void runs_committed(struct runs *r)
{
	struct buf *arena = &r->arena[(r->filling + 1) % ARENAS];

	while (!list_is_empty(&r->sealed)) {
		struct run *run = list_first(&r->sealed, struct run, in_dirty);
		list_remove(&run->in_dirty);
		run->place = PLACE_STORE;
	}
	if (arena->room > 256 * KIB && arena->len < arena->room / 8)
		buf_deinit(arena);
	buf_clear(arena);
}

void runs_dropped(struct runs *r)
{
	while (!list_is_empty(&r->sealed)) {
		struct run *run = list_first(&r->sealed, struct run, in_dirty);
		list_remove(&run->in_dirty);
		run->place = PLACE_NONE;
		run->stored = false;
	}
	runs_committed(r);
}

/* --- from the store --- */

static bool is_same_source(const struct source *s, const struct run_state_record *state,
                           struct str resource)
{
	return !s->connected && s->pid == state->pid && s->pid_start == state->pid_start &&
	       str_eq((struct str){(char *)s->resource.data, s->resource.len}, resource);
}

static struct source *find_source(struct runs *r, const struct run_state_record *state,
                                  struct str resource)
{
	for (struct list_node *n = r->sources.next; n != &r->sources; n = n->next) {
		struct source *s = container_of(n, struct source, in_table);
		if (is_same_source(s, state, resource))
			return s;
	}
	struct source *s = runs_add_source(r, state->pid, state->pid_start, resource);
	if (s)
		s->connected = false;
	return s;
}

static struct table_request *find_request(struct runs *r, const uint8_t trace_id[16],
                                          const struct run_id *root)
{
	struct table_request *q = request_by_trace(r, trace_id);

	while (q && (memcmp(q->trace_id, trace_id, 16) || memcmp(&q->root, root, sizeof(*root))))
		q = q->next_by_trace;
	return q ? q : request_new(r, trace_id, root);
}

static int restore_root(struct runs *r, const struct open_head *head,
                        const struct run_state_record *state, const struct run_bytes *b,
                        struct moment now)
{
	struct table_request *q = find_request(r, head->trace_id, &state->root);

	if (!q)
		return -ENOMEM;
	q->root_done = q->stored = q->sums.has_root = true;
	q->root_end_ns = state->root_end_ns;
	q->sums.kind = (enum run_kind)state->kind;
	q->sums.status = (enum run_status)state->status;
	q->sums.start_ns = state->start_ns;
	q->sums.duration_ns = state->duration_ns;
	memcpy(q->sums.span_id, state->root_span_id, sizeof(q->sums.span_id));
	memcpy(q->sums.provider, state->provider, sizeof(q->sums.provider));
	memcpy(q->sums.model, state->model, sizeof(q->sums.model));
	memcpy(q->sums.service, state->service, sizeof(q->sums.service));
	q->sums.provider[sizeof(q->sums.provider) - 1] = '\0';
	q->sums.model[sizeof(q->sums.model) - 1] = '\0';
	q->sums.service[sizeof(q->sums.service) - 1] = '\0';
	buf_append(&q->sums.root, b->message.p, b->message.len);
	buf_append(&q->sums.content, b->response.p, b->response.len);
	request_stop_awaiting(r, q);
	list_remove(&q->in_due);
	q->due_ns = now.mono_ns + ROOT_GRACE_NS;
	list_append(&r->ended_roots, &q->in_due);
	return 0;
}

static int join_restored(struct runs *r, struct run *run, const uint8_t trace_id[16],
                         const struct run_state_record *state, struct moment now)
{
	struct table_request *q = find_request(r, trace_id, &state->root);

	if (!q)
		return -ENOMEM;
	request_attach(q, run);
	bool is_root = run->flags & RUN_IS_ROOT;
	bool is_held = run->state == RUN_HELD && !q->waits_for_parent;
	if ((state->more & MORE_WAITS_FOR_PARENT) && !q->root_done && (is_root || is_held)) {
		// It is the root's parent that is awaited; the root may be read back later.
		request_stop_awaiting(r, q);
		request_await(r, q, is_root ? &run->parent : &q->root);
		q->due_ns = now.mono_ns + PARENT_WAIT_NS;
		list_append(&r->orphans, &q->in_due);
	}
	return 0;
}

/* Whether a stored run can end some day. */
static bool is_sound(const struct run_state_record *state, const struct run_bytes *b)
{
	struct pb_cursor c = pb_cursor_of(b->base);
	struct pb_field f;

	if (state->state == RUN_EARLY_END)
		return true;
	// A span begins with its trace id, which is written over when another one is found.
	bool known = state->state == RUN_OPEN ||
	             (state->state == RUN_HELD && (state->more & MORE_WAITS_FOR_PARENT));
	return known && pb_next(&c, &f) == 1 && f.number == 1 && f.wire == PB_BYTES &&
	       f.bytes.len == 16 && f.bytes.p == b->base.p + TRACE_ID_AT;
}

int runs_restore(struct runs *r, const struct run_id *id, struct str value, struct moment now)
{
	struct run_state_record state;
	struct open_head head;
	struct str resource;
	struct run_bytes b;

	int rc = parse_value(value, &head, &state, &b, &resource);
	if (rc < 0)
		return rc;
	if (state.state == RUN_SAID)
		return 0;
	if (state.state == RUN_ROOT_DONE)
		return restore_root(r, &head, &state, &b, now);
	if (!is_sound(&state, &b))
		return ERR_CORRUPT;
	if (table_find(r, id))
		return -EEXIST;
	struct source *s = find_source(r, &state, resource);
	struct run *run = s ? table_insert(r, id) : NULL;
	if (!run)
		return -ENOMEM;
	run->parent = state.parent;
	run->state = state.state;
	run->kind = state.kind;
	run->flags = state.flags;
	run->gathers = state.more & MORE_GATHERS;
	run->status = state.status;
	run->points = state.points;
	run->start_ns = state.start_ns;
	run->start_mono = state.start_mono;
	run->duration_ns = state.duration_ns;
	run->place = PLACE_STORE;
	run->stored = true;
	source_attach(s, run);
	set_lengths(r, run, &b);
	if (state.state == RUN_EARLY_END) {
		run->due_ns = now.mono_ns + START_WAIT_NS;
		list_append(&r->early, &run->in_request);
		return 0;
	}
	rc = join_restored(r, run, head.trace_id, &state, now);
	if (rc < 0) {
		source_detach(r, run);
		table_remove(r, run);
	}
	runs_report_cuts(r);
	return rc;
}

int runs_restore_said(struct runs *r, const struct run_id *key, struct str value)
{
	struct run_state_record state;
	struct open_head head;
	struct str resource;
	struct run_bytes b;

	if (parse_value(value, &head, &state, &b, &resource) < 0 || state.state != RUN_SAID)
		return 0; // was a matter of runs_restore()
	const struct said_page page = {
		.run = state.parent,
		.number = (unsigned)state.said_page,
		.tokens = state.said_tokens,
		.full = state.said_full,
		.text = b.content,
	};
	return said_restore(r, key, &page);
}

bool runs_wants(const struct runs *r, const uint8_t trace_id[16])
{
	return request_by_trace(r, trace_id) != NULL;
}

size_t runs_trace_ids(const struct runs *r, uint8_t (*ret)[16], size_t max)
{
	size_t count = 0;

	for (int i = 0; i < TRACE_BUCKETS; i++)
		for (struct table_request *q = r->by_trace[i]; q && count < max;
		     q = q->next_by_trace)
			memcpy(ret[count++], q->trace_id, sizeof(*ret));
	return count;
}

void runs_refold(struct runs *r, const struct span_record *rec)
{
	struct account a = {
		.kind = (enum run_kind)rec->head.kind,
		.status = (enum run_status)rec->head.status,
		.wraps = rec->head.flags & RECORD_WRAPS,
	};
	struct span_view view;

	if (span_view(&view, rec) < 0)
		return;
	// A trace may hold several requests, and what is finished must not be counted again.
	struct table_request *q = request_find(r, view.trace_id, rec->head.request);
	if (!q)
		return;
	memcpy(a.span_id, view.span_id, sizeof(a.span_id));
	a.end_ns = view.end_ns;
	a.duration_ns = view.end_ns > view.start_ns ? view.end_ns - view.start_ns : 0;
	usage_init(&a.usage);
	account_scan(&a, rec->base);
	if (a.kind == KIND_TOOL)
		account_scan(&a, rec->content);
	account_total(&a);
	if (rec->head.flags & RECORD_TOTALS)
		usage_init(&a.usage);
	request_add(&q->sums, &a, r->o.prices);
}

void runs_remember(struct runs *r, const struct span_record *rec, struct moment now)
{
	struct span_view view;

	if (span_view(&view, rec) < 0)
		return;
	uint64_t ago = now.unix_ns > view.end_ns ? now.unix_ns - view.end_ns : 0;
	if (ago < CLOSED_REMEMBERED_NS && ago < now.mono_ns)
		closed_add(r->closed, view.span_id, view.trace_id, rec->head.request,
		           now.mono_ns - ago);
}
