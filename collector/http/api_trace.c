/* One trace: which one, its spans as a tree in order, and what stands for it as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/json.h"
#include "http/api.h"
#include "http/api_parts.h"
#include "store/store.h"

enum { ID_DIGITS = 32, MIN_PREFIX = 6 };

/* --- which one --- */

struct search {
	char prefix[ID_DIGITS]; // lower case
	size_t len;
	uint8_t found[16];
	bool has_found, is_ambiguous;
};

static bool consider(void *ctx, const uint8_t trace_id[16])
{
	struct search *s = ctx;
	char hex[ID_DIGITS];

	hex_write(hex, trace_id, 16);
	if (memcmp(hex, s->prefix, s->len) != 0)
		return true;
	s->is_ambiguous = s->has_found && memcmp(s->found, trace_id, 16) != 0;
	memcpy(s->found, trace_id, 16);
	s->has_found = true;
	return !s->is_ambiguous;
}

static bool consider_running(void *ctx, const struct span_record *rec)
{
	struct span_view v;

	return span_view(&v, rec) != 0 || consider(ctx, v.trace_id);
}

static int find_prefix(struct store *s, struct str id, uint8_t ret_id[16])
{
	struct search search = {.len = id.len};
	uint8_t prefix[16];

	memset(search.prefix, '0', sizeof(search.prefix));
	memcpy(search.prefix, id.p, id.len);
	if (!hex_read(prefix, sizeof(prefix), search.prefix))
		return -EINVAL;
	hex_write(search.prefix, prefix, sizeof(prefix)); // in lower case
	int err = store_open_runs(s, NULL, consider_running, &search);
	if (err == 0 && !search.is_ambiguous)
		err = store_find_prefix(s, prefix, (unsigned)id.len, consider, &search);
	if (err)
		return err;
	if (search.is_ambiguous)
		return -EEXIST;
	if (!search.has_found)
		return -ENOENT;
	memcpy(ret_id, search.found, 16);
	return 0;
}

struct newest {
	uint8_t trace_id[16];
	uint64_t start_ns;
	bool has_found;
};

static void consider_start(struct newest *n, const uint8_t trace_id[16], uint64_t start_ns)
{
	if (n->has_found && start_ns <= n->start_ns)
		return;
	memcpy(n->trace_id, trace_id, sizeof(n->trace_id));
	n->start_ns = start_ns;
	n->has_found = true;
}

static bool consider_running_root(void *ctx, const struct span_record *rec)
{
	struct span_view v;

	if (rec->head.flags & RECORD_ROOT && span_view(&v, rec) == 0)
		consider_start(ctx, v.trace_id, v.start_ns);
	return true;
}

static bool consider_last_observation(void *ctx, const struct observation_record *rec)
{
	consider_start(ctx, rec->trace_id, rec->start_ns);
	return false;
}

/* Of the newest one that ended and those that run, the one that started last. */
static int find_last(struct store *s, uint8_t ret_id[16])
{
	struct newest n = {0};
	int err = store_open_runs(s, NULL, consider_running_root, &n);

	if (err == 0)
		err = store_observations(s, UINT64_MAX, consider_last_observation, &n);
	if (err)
		return err;
	if (!n.has_found)
		return -ENOENT;
	memcpy(ret_id, n.trace_id, sizeof(n.trace_id));
	return 0;
}

static int find_trace(struct store *s, struct str id, uint8_t ret_id[16])
{
	if (str_is(id, "last"))
		return find_last(s, ret_id);
	if (id.len == ID_DIGITS)
		return hex_read(ret_id, 16, id.p) ? 0 : -EINVAL;
	if (id.len < MIN_PREFIX || id.len > ID_DIGITS)
		return -EINVAL;
	return find_prefix(s, id, ret_id);
}

/* --- its spans --- */

enum { NONE = -1 };

/* A span in the tree; the links are indexes. */
struct node {
	uint8_t span_id[8], parent_id[8];
	bool has_parent, is_running, is_root, is_written;
	uint64_t start_ns;
	size_t at, len; // its JSON
	int parent, first_child, next_sibling;
};

struct tree {
	uint64_t now_ns;
	bool content;
	struct buf text;   // the spans' JSON, as they came
	struct buf nodes;  // struct node
	struct node *list; // nodes.data, once they are all there
	int count;
	struct node **by_id; // sorted, each id once
	int id_count;
	int first_top;
};

static void tree_init(struct tree *t, uint64_t now_ns)
{
	*t = (struct tree){.now_ns = now_ns, .content = true, .first_top = NONE};
	buf_init(&t->text, CAP_RESPONSE);
	buf_init(&t->nodes, CAP_RESPONSE);
}

static void tree_deinit(struct tree *t)
{
	buf_deinit(&t->text);
	buf_deinit(&t->nodes);
	free(t->by_id);
}

static bool collect_span(void *ctx, const struct span_record *rec)
{
	struct tree *t = ctx;
	struct span_view v;
	struct json j;

	if (span_view(&v, rec) != 0)
		return true;
	struct node n = {.has_parent = v.has_parent,
	                 .is_running = rec->head.status == STATUS_RUNNING,
	                 .is_root = rec->head.flags & RECORD_ROOT,
	                 .start_ns = v.start_ns,
	                 .at = t->text.len,
	                 .parent = NONE,
	                 .first_child = NONE,
	                 .next_sibling = NONE};
	memcpy(n.span_id, v.span_id, sizeof(n.span_id));
	memcpy(n.parent_id, v.parent_id, sizeof(n.parent_id));
	jsonw_init(&j, &t->text);
	span_json(&j, rec, t->content, t->now_ns);
	n.len = t->text.len - n.at;
	buf_append(&t->nodes, &n, sizeof(n));
	return buf_error(&t->text) == 0 && buf_error(&t->nodes) == 0;
}

static int collect_once(struct tree *t, struct store *s, const uint8_t id[16])
{
	buf_clear(&t->text);
	buf_clear(&t->nodes);
	// In this order, what ends meanwhile is seen twice rather than never.
	int err = store_open_runs(s, id, collect_span, t);
	if (err == 0)
		err = store_trace(s, id, collect_span, t);
	if (err == 0)
		err = buf_error(&t->text) ? buf_error(&t->text) : buf_error(&t->nodes);
	return err;
}

/* With content, or without it when that would be more than an answer can hold. */
static int collect(struct tree *t, struct store *s, const uint8_t id[16])
{
	int err = collect_once(t, s, id);

	if (err == -ENOSPC) {
		t->content = false;
		err = collect_once(t, s, id);
	}
	if (err)
		return err;
	t->list = (struct node *)(void *)t->nodes.data;
	t->count = (int)(t->nodes.len / sizeof(struct node)); // CAP_RESPONSE is well below 2^31
	return 0;
}

static int by_start(const void *left, const void *right)
{
	const struct node *a = left, *b = right;

	if (a->start_ns != b->start_ns)
		return a->start_ns < b->start_ns ? -1 : 1;
	return a->at < b->at ? -1 : a->at > b->at;
}

/* The finished one comes before the same span while it ran. */
static int by_span_id(const void *left, const void *right)
{
	const struct node *a = *(struct node *const *)left, *b = *(struct node *const *)right;
	int order = memcmp(a->span_id, b->span_id, sizeof(a->span_id));

	return order ? order : (int)a->is_running - (int)b->is_running;
}

static int compare_id(const void *key, const void *entry)
{
	return memcmp(key, (*(struct node *const *)entry)->span_id, sizeof(uint8_t[8]));
}

/* Fills by_id; of a span that is there twice, only the first is to be shown. */
static int index_ids(struct tree *t)
{
	int kept = 0;

	t->by_id = malloc((size_t)t->count * sizeof(*t->by_id));
	if (!t->by_id)
		return -ENOMEM;
	for (int i = 0; i < t->count; i++)
		t->by_id[i] = &t->list[i];
	qsort(t->by_id, (size_t)t->count, sizeof(*t->by_id), by_span_id);
	for (int i = 0; i < t->count; i++) {
		bool is_again =
			kept > 0 && compare_id(t->by_id[i]->span_id, &t->by_id[kept - 1]) == 0;
		if (is_again)
			t->by_id[i]->is_written = true; // as far as writing is concerned
		else
			t->by_id[kept++] = t->by_id[i];
	}
	t->id_count = kept;
	return 0;
}

static int find_parent(const struct tree *t, const struct node *n)
{
	if (!n->has_parent)
		return NONE;
	struct node **at =
		bsearch(n->parent_id, t->by_id, (size_t)t->id_count, sizeof(*t->by_id), compare_id);
	return at && *at != n ? (int)(*at - t->list) : NONE;
}

/* Links every node below its parent. From the last to the first, so that each goes to the front of
 * its siblings. */
static void link_nodes(struct tree *t)
{
	for (int i = t->count - 1; i >= 0; i--) {
		struct node *n = &t->list[i];
		if (n->is_written)
			continue;
		n->parent = find_parent(t, n);
		int *first = n->parent == NONE ? &t->first_top : &t->list[n->parent].first_child;
		n->next_sibling = *first;
		*first = i;
	}
}

static int arrange(struct tree *t)
{
	qsort(t->list, (size_t)t->count, sizeof(*t->list), by_start);
	int err = index_ids(t);
	if (err == 0)
		link_nodes(t);
	return err;
}

static void write_node(const struct tree *t, struct node *n, struct json *j)
{
	if (!n->is_written)
		jsonw_raw(j, t->text.data + n->at, n->len);
	n->is_written = true;
}

/* The node after i in the walk that shows a parent before its children. */
static int next_in_order(const struct tree *t, int i)
{
	if (t->list[i].first_child != NONE)
		return t->list[i].first_child;
	while (i != NONE && t->list[i].next_sibling == NONE)
		i = t->list[i].parent;
	return i == NONE ? NONE : t->list[i].next_sibling;
}

static void write_spans(struct tree *t, struct json *j)
{
	for (int i = t->first_top; i != NONE; i = next_in_order(t, i))
		write_node(t, &t->list[i], j);
	// Nothing at the top leads to spans whose parents form a ring.
	for (int i = 0; i < t->count; i++)
		write_node(t, &t->list[i], j);
}

/* --- the whole --- */

static bool write_observation(void *ctx, const struct observation_record *rec)
{
	struct json *j = ctx;

	jsonw_object(j);
	api_observation_meta(j, rec);
	jsonw_object_end(j);
	return false;
}

struct top_search {
	struct json *json;
	const struct node *top;
	uint64_t now_ns;
	bool has_found;
};

static bool write_top(void *ctx, const struct span_record *rec)
{
	struct top_search *s = ctx;
	struct span_view v;

	if (span_view(&v, rec) != 0 || memcmp(v.span_id, s->top->span_id, sizeof(v.span_id)) != 0)
		return true;
	root_json(s->json, rec, s->now_ns);
	s->has_found = true;
	return false;
}

/* The first root, else the first that has no parent here. */
static const struct node *top_node(const struct tree *t)
{
	const struct node *first = t->first_top == NONE ? t->list : &t->list[t->first_top];

	for (int i = t->first_top; i != NONE; i = t->list[i].next_sibling)
		if (t->list[i].is_root)
			return &t->list[i];
	return first;
}

/* Without an observation, the span at the top stands for the trace. */
static int write_trace(const struct tree *t, struct store *s, const uint8_t id[16], struct json *j)
{
	int err = store_observation(s, id, write_observation, j);

	if (err != -ENOENT)
		return err;
	struct top_search search = {.json = j, .top = top_node(t), .now_ns = t->now_ns};
	err = store_trace(s, id, write_top, &search);
	if (err == 0 && !search.has_found)
		err = store_open_runs(s, id, write_top, &search);
	if (err == 0 && !search.has_found)
		jsonw_null(j); // it went away just now
	return err;
}

static int write_answer(struct tree *t, struct store *s, const uint8_t id[16], struct buf *out)
{
	struct json j;

	jsonw_init(&j, out);
	jsonw_object(&j);
	jsonw_key(&j, "trace");
	int err = write_trace(t, s, id, &j);
	if (err)
		return err;
	jsonw_key(&j, "spans");
	jsonw_array(&j);
	write_spans(t, &j);
	jsonw_array_end(&j);
	jsonw_object_end(&j);
	return buf_error(out);
}

int api_trace(struct store *s, struct str id, uint64_t now_ns, struct buf *out)
{
	uint8_t trace_id[16];
	struct tree t;

	int err = find_trace(s, id, trace_id);
	if (err)
		return err;
	tree_init(&t, now_ns);
	err = collect(&t, s, trace_id);
	if (err == 0 && t.count == 0)
		err = -ENOENT;
	if (err == 0)
		err = arrange(&t);
	if (err == 0)
		err = write_answer(&t, s, trace_id, out);
	tree_deinit(&t);
	return err;
}
