#include "http/api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/json.h"
#include "core/request.h"
#include "http/api_parts.h"
#include "store/store.h"

/* A page of an answer being written. */
struct page {
	const struct api_query *query;
	struct json json;
	unsigned count;
	bool has_more; // than were written
	uint64_t next; // cursor
	uint64_t now_ns;
};

static bool is_wanted(const struct api_query *q, uint8_t status)
{
	return q->statuses == 0 || (status < STATUS_COUNT && q->statuses & 1u << status);
}

static struct page page_begin(const struct api_query *q, const char *key, struct buf *out)
{
	struct page p = {.query = q};

	jsonw_init(&p.json, out);
	jsonw_object(&p.json);
	jsonw_key(&p.json, key);
	jsonw_array(&p.json);
	return p;
}

static int page_end(struct page *p)
{
	struct json *j = &p->json;

	jsonw_array_end(j);
	jsonw_key(j, "next");
	if (p->has_more)
		jsonw_uint(j, p->next);
	else
		jsonw_null(j);
	jsonw_object_end(j);
	return buf_error(j->out);
}

/* --- observations --- */

/* Whether there is room for one more; else the page ends here. */
static bool page_has_room(struct page *p)
{
	p->has_more = p->count == p->query->limit;
	return !p->has_more;
}

void api_observation_meta(struct json *j, const struct observation_record *rec)
{
	if (rec->root.len)
		root_json_members(j, rec->root, (enum run_kind)rec->kind,
		                  (enum run_status)rec->status);
	jsonw_raw(j, rec->meta.p, rec->meta.len);
}

static bool add_observation(void *ctx, const struct observation_record *rec)
{
	struct page *p = ctx;
	struct json *j = &p->json;

	if (rec->created_ns < p->query->since_ns)
		return false; // and so are all that are still to come
	if (!is_wanted(p->query, rec->status))
		return true;
	if (!page_has_room(p))
		return false;
	jsonw_object(j);
	api_observation_meta(j, rec);
	jsonw_raw(j, rec->content.p, rec->content.len);
	jsonw_object_end(j);
	p->count++;
	p->next = rec->seq;
	return buf_error(j->out) == 0;
}

static uint64_t before(const struct api_query *q)
{
	return q->cursor ? q->cursor : UINT64_MAX;
}

int api_observations(struct store *s, const struct api_query *q, struct buf *out)
{
	struct page p = page_begin(q, "observations", out);
	int err = store_observations(s, before(q), add_observation, &p);

	return err < 0 ? err : page_end(&p);
}

/* --- spans --- */

static bool add_span(void *ctx, const struct span_record *rec)
{
	struct page *p = ctx;
	struct span_view v;

	// Blocks are skipped by their latest end: some of their spans are older.
	if (p->query->since_ns && span_view(&v, rec) == 0 && v.end_ns < p->query->since_ns)
		return true;
	if (!is_wanted(p->query, rec->head.status))
		return true;
	if (!page_has_room(p))
		return false;
	span_json(&p->json, rec, true, 0);
	p->count++;
	p->next = rec->seq + 1;
	return buf_error(p->json.out) == 0;
}

int api_spans(struct store *s, const struct api_query *q, struct buf *out)
{
	struct page p = page_begin(q, "spans", out);
	int err = store_spans(s, q->cursor, q->since_ns, add_span, &p);

	return err < 0 ? err : page_end(&p);
}

/* --- traces --- */

static void str_member(struct json *j, const char *key, const struct span_record *rec,
                       const char *name, const char *other_name)
{
	struct str value = span_attribute_str(rec, name);

	jsonw_key(j, key);
	jsonw_str(j, value.p ? value : span_attribute_str(rec, other_name));
}

void root_json(struct json *j, const struct span_record *root, uint64_t now_ns)
{
	static const char *const unknown[] = {"prompt_tokens",
	                                      "completion_tokens",
	                                      "total_tokens",
	                                      "cached_tokens",
	                                      "llm_calls",
	                                      "tool_call_count",
	                                      "span_count",
	                                      "slowest",
	                                      "error",
	                                      "created_at",
	                                      "reasoning_tokens",
	                                      "tokens_estimated",
	                                      "llm_calls_without_usage",
	                                      "cost",
	                                      "currency",
	                                      "calls_without_cost"};

	jsonw_object(j);
	span_json_members(j, root, false, now_ns);
	str_member(j, "session_id", root, "gen_ai.conversation.id", "session_id");
	str_member(j, "user_id", root, "user.id", "user.id");
	str_member(j, "provider", root, "gen_ai.provider.name", "llm.provider");
	str_member(j, "model", root, "gen_ai.request.model", "llm.model");
	str_member(j, "prompt_key", root, "prompt.key", "gen_ai.prompt.name");
	str_member(j, "prompt_version", root, "prompt.version", "gen_ai.prompt.version");
	str_member(j, "policy_mode", root, "policy_mode", "policy_mode");
	jsonw_key(j, "tags");
	jsonw_array(j);
	jsonw_array_end(j);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		jsonw_key(j, unknown[i]);
		jsonw_null(j);
	}
	jsonw_object_end(j);
}

/* A root that runs, its JSON lying in a buffer. */
struct running {
	uint8_t trace_id[16], span_id[8];
	bool has_ended; // it has an observation by now
	uint64_t start_ns;
	size_t at, len;
};

struct traces {
	struct page page;
	struct buf roots; // struct running
	struct buf text;
};

static struct running *running_list(const struct traces *t, size_t *ret_count)
{
	*ret_count = t->roots.len / sizeof(struct running);
	return (struct running *)(void *)t->roots.data;
}

static bool collect_running(void *ctx, const struct span_record *rec)
{
	struct traces *t = ctx;
	struct span_view v;
	struct json j;

	if (!(rec->head.flags & RECORD_ROOT) || span_view(&v, rec) != 0)
		return true;
	struct running r = {.start_ns = v.start_ns, .at = t->text.len};
	memcpy(r.trace_id, v.trace_id, sizeof(r.trace_id));
	memcpy(r.span_id, v.span_id, sizeof(r.span_id));
	jsonw_init(&j, &t->text);
	root_json(&j, rec, t->page.now_ns);
	r.len = t->text.len - r.at;
	buf_append(&t->roots, &r, sizeof(r));
	return buf_error(&t->text) == 0 && buf_error(&t->roots) == 0;
}

static int newest_first(const void *left, const void *right)
{
	const struct running *a = left, *b = right;

	if (a->start_ns != b->start_ns)
		return a->start_ns < b->start_ns ? 1 : -1;
	return memcmp(a->span_id, b->span_id, sizeof(a->span_id));
}

static int read_running(struct traces *t, struct store *s)
{
	const struct api_query *q = t->page.query;
	size_t count;

	// Later pages go on with what has ended.
	if (q->cursor || !is_wanted(q, STATUS_RUNNING))
		return 0;
	int err = store_open_runs(s, NULL, collect_running, t);
	if (err == 0)
		err = buf_error(&t->text) ? buf_error(&t->text) : buf_error(&t->roots);
	if (err)
		return err;
	struct running *list = running_list(t, &count);
	if (count > 1)
		qsort(list, count, sizeof(*list), newest_first);
	if (count > q->limit)
		t->roots.len = q->limit * sizeof(*list);
	return 0;
}

static bool add_trace(void *ctx, const struct observation_record *rec)
{
	struct traces *t = ctx;
	struct observation_record meta = *rec;
	size_t count;
	struct running *list = running_list(t, &count);

	for (size_t i = 0; i < count; i++)
		if (memcmp(list[i].trace_id, rec->trace_id, sizeof(rec->trace_id)) == 0 &&
		    memcmp(list[i].span_id, rec->span_id, sizeof(rec->span_id)) == 0)
			list[i].has_ended = true;
	meta.content.len = 0;
	return add_observation(&t->page, &meta);
}

/* The finished ones are already written, to their own buffer: they tell which have ended since. */
static int write_traces(struct traces *t, const struct buf *finished, struct buf *out)
{
	size_t count;
	const struct running *list = running_list(t, &count);
	struct page p = page_begin(t->page.query, "traces", out);

	for (size_t i = 0; i < count; i++)
		if (!list[i].has_ended)
			jsonw_raw(&p.json, t->text.data + list[i].at, list[i].len);
	jsonw_raw(&p.json, finished->data, finished->len);
	p.has_more = t->page.has_more;
	p.next = t->page.next;
	return page_end(&p);
}

int api_traces(struct store *s, const struct api_query *q, uint64_t now_ns, struct buf *out)
{
	struct traces t = {.page = {.query = q, .now_ns = now_ns}};
	struct buf finished;

	buf_init(&t.roots, CAP_RESPONSE);
	buf_init(&t.text, CAP_RESPONSE);
	buf_init(&finished, CAP_RESPONSE);
	jsonw_init(&t.page.json, &finished);
	// In this order, what ends meanwhile is seen twice rather than never.
	int err = read_running(&t, s);
	if (err == 0)
		err = store_observations(s, before(q), add_trace, &t);
	if (err == 0)
		err = buf_error(&finished);
	if (err == 0)
		err = write_traces(&t, &finished, out);
	buf_deinit(&t.roots);
	buf_deinit(&t.text);
	buf_deinit(&finished);
	return err;
}
