#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tree.h"

static struct waterfall_span span(const char *id, const char *parent)
{
	return (struct waterfall_span){.id = str_of(id), .parent = str_of(parent)};
}

static void assert_order(const struct waterfall_span *spans, size_t n, const char *ids,
                         const char *depths)
{
	struct tree t;

	assert_int_equal(tree_init(&t, spans, n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(spans[t.order[i]].id.p[0], ids[i]);
		assert_int_equal(t.nodes[t.order[i]].depth, depths[i] - '0');
	}
	tree_deinit(&t);
}

static void children_follow_their_parent_in_the_order_given(void **state)
{
	const struct waterfall_span spans[] = {
		span("a", NULL), span("b", "a"), span("c", "a"), span("d", "c"), span("e", "b"),
	};

	assert_order(spans, 5, "abecd", "01212");
}

static void a_missing_parent_leaves_its_child_at_the_top(void **state)
{
	const struct waterfall_span spans[] = {span("b", "gone"), span("c", "b"), span("d", NULL)};

	assert_order(spans, 3, "bcd", "010");
}

static void rings_are_cut_and_nothing_is_lost(void **state)
{
	const struct waterfall_span spans[] = {
		span("a", "c"), span("b", "a"), span("c", "b"), span("d", "d"), span("e", "a"),
	};

	assert_order(spans, 5, "bcaed", "01230");
}

static void last_and_leaf_are_known(void **state)
{
	const struct waterfall_span spans[] = {span("a", NULL), span("b", "a"), span("c", "a")};
	struct tree t;

	assert_int_equal(tree_init(&t, spans, 3), 0);
	assert_false(tree_is_leaf(&t, 0));
	assert_true(tree_is_leaf(&t, 1));
	assert_false(tree_is_last(&t, 1));
	assert_true(tree_is_last(&t, 2));
	tree_deinit(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(children_follow_their_parent_in_the_order_given),
		cmocka_unit_test(a_missing_parent_leaves_its_child_at_the_top),
		cmocka_unit_test(rings_are_cut_and_nothing_is_lost),
		cmocka_unit_test(last_and_leaf_are_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
