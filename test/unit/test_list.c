#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
	char name;
	struct list_node in_list;
};

static void assert_names(const struct list_node *head, const char *names)
{
	const struct list_node *n = head->next;

	for (; *names; names++, n = n->next) {
		assert_ptr_not_equal(n, head);
		assert_int_equal(container_of(n, struct item, in_list)->name, *names);
		assert_ptr_equal(n->next->prev, n);
	}
	assert_ptr_equal(n, head);
}

static void test_nodes_keep_their_order(void **state)
{
	struct item a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
	struct list_node head;

	(void)state;
	list_init(&head);
	assert_true(list_is_empty(&head));
	list_append(&head, &a.in_list);
	list_append(&head, &b.in_list);
	list_append(&head, &c.in_list);
	assert_names(&head, "abc");
	assert_ptr_equal(list_first(&head, struct item, in_list), &a);
	list_remove(&b.in_list);
	assert_names(&head, "ac");
	assert_false(list_is_linked(&b.in_list));
	assert_true(list_is_linked(&a.in_list));
}

static void test_a_node_in_no_list_may_be_removed(void **state)
{
	struct item a = {.name = 'a'};
	struct list_node head;

	(void)state;
	list_remove(&a.in_list);
	list_init(&head);
	list_append(&head, &a.in_list);
	list_remove(&a.in_list);
	list_remove(&a.in_list);
	assert_true(list_is_empty(&head));
}

static void test_all_nodes_move_behind_those_that_are_there(void **state)
{
	struct item a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
	struct list_node from, to;

	(void)state;
	list_init(&from);
	list_init(&to);
	list_move_all(&to, &from);
	assert_true(list_is_empty(&to));
	list_append(&to, &a.in_list);
	list_append(&from, &b.in_list);
	list_append(&from, &c.in_list);
	list_move_all(&to, &from);
	assert_names(&to, "abc");
	assert_true(list_is_empty(&from));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nodes_keep_their_order),
		cmocka_unit_test(test_a_node_in_no_list_may_be_removed),
		cmocka_unit_test(test_all_nodes_move_behind_those_that_are_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
