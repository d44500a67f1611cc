#include "tree.h"

#include <errno.h>
#include <stdlib.h>

struct entry {
	struct str id;
	size_t index;
};

static int compare(const void *a, const void *b)
{
	struct str x = ((const struct entry *)a)->id, y = ((const struct entry *)b)->id;
	size_t n = x.len < y.len ? x.len : y.len;
	int order = n ? memcmp(x.p, y.p, n) : 0;

	return order ? order : (x.len > y.len) - (x.len < y.len);
}

static size_t find(const struct entry *sorted, size_t n, struct str id)
{
	struct entry key = {.id = id};
	const struct entry *e = NULL;

	if (id.p)
		e = bsearch(&key, sorted, n, sizeof(key), compare);
	return e ? e->index : TREE_NONE;
}

static int find_parents(struct tree *t, const struct waterfall_span *spans)
{
	struct entry *sorted = calloc(t->count ? t->count : 1, sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < t->count; i++)
		sorted[i] = (struct entry){spans[i].id, i};
	qsort(sorted, t->count, sizeof(*sorted), compare);
	for (size_t i = 0; i < t->count; i++)
		t->nodes[i].parent = find(sorted, t->count, spans[i].parent);
	free(sorted);
	return 0;
}

/* Walks up from each span, marking the way. Who meets the mark of the same walk goes in a ring. The
 * marks are kept in order, which gets its own values later. */
static void cut_rings(struct tree *t)
{
	size_t *mark = t->order;

	for (size_t i = 0; i < t->count; i++)
		mark[i] = TREE_NONE;
	for (size_t i = 0; i < t->count; i++) {
		size_t at = i;
		while (at != TREE_NONE && mark[at] == TREE_NONE) {
			mark[at] = i;
			if (t->nodes[at].parent != TREE_NONE && mark[t->nodes[at].parent] == i)
				t->nodes[at].parent = TREE_NONE;
			at = t->nodes[at].parent;
		}
	}
}

static void link_children(struct tree *t, size_t *ret_first)
{
	size_t first = TREE_NONE, last = TREE_NONE;

	for (size_t i = 0; i < t->count; i++) {
		size_t parent = t->nodes[i].parent;
		size_t *head = parent == TREE_NONE ? &first : &t->nodes[parent].first;
		size_t *tail = parent == TREE_NONE ? &last : &t->nodes[parent].last;
		if (*tail == TREE_NONE)
			*head = i;
		else
			t->nodes[*tail].next = i;
		*tail = i;
	}
	*ret_first = first;
}

static void put_in_order(struct tree *t, size_t first)
{
	size_t at = first, n = 0;
	unsigned depth = 0;

	while (at != TREE_NONE) {
		struct tree_node *node = &t->nodes[at];
		node->depth = depth;
		t->order[n++] = at;
		if (node->first != TREE_NONE) {
			at = node->first;
			depth++;
			continue;
		}
		while (at != TREE_NONE && t->nodes[at].next == TREE_NONE) {
			at = t->nodes[at].parent;
			depth--;
		}
		if (at != TREE_NONE)
			at = t->nodes[at].next;
	}
}

int tree_init(struct tree *t, const struct waterfall_span *spans, size_t n)
{
	size_t first;

	*t = (struct tree){.count = n};
	t->nodes = calloc(n ? n : 1, sizeof(*t->nodes));
	t->order = calloc(n ? n : 1, sizeof(*t->order));
	if (!t->nodes || !t->order)
		goto fail;
	for (size_t i = 0; i < n; i++)
		t->nodes[i] = (struct tree_node){TREE_NONE, TREE_NONE, TREE_NONE, TREE_NONE, 0};
	if (find_parents(t, spans) < 0)
		goto fail;
	cut_rings(t);
	link_children(t, &first);
	put_in_order(t, first);
	return 0;
fail:
	tree_deinit(t);
	return -ENOMEM;
}

void tree_deinit(struct tree *t)
{
	free(t->nodes);
	free(t->order);
	*t = (struct tree){0};
}
