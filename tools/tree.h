/* tree.h - spans arranged as a tree, in the order in which they are shown.
 *
 * Pure. The parent links come from agents, so nothing about them is trusted: one that leads
 * nowhere is dropped, and a ring is cut open at one place. Time is O(n log n).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "waterfall.h"

#define TREE_NONE SIZE_MAX

struct tree_node {
	size_t parent, first, last, next; // indexes of spans, or TREE_NONE
	unsigned depth;                   // 0 at the top
};

struct tree {
	struct tree_node *nodes; // nodes[i] belongs to spans[i]
	size_t *order;           // indexes of spans, as they are shown
	size_t count;
};

/** 0 or -ENOMEM. */
MUST_CHECK int tree_init(struct tree *t, const struct waterfall_span *spans, size_t n);
void tree_deinit(struct tree *t);

/** Whether it is the last of its siblings. */
static inline bool tree_is_last(const struct tree *t, size_t i)
{
	return t->nodes[i].next == TREE_NONE;
}

static inline bool tree_is_leaf(const struct tree *t, size_t i)
{
	return t->nodes[i].first == TREE_NONE;
}
