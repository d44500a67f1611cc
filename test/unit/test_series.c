#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/series.h"

static int setup(void **state)
{
	struct series_table *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	*t = (struct series_table){
		.max = CAP_SERIES, .labels = 2, .width = 3, .unknown = "none", .other = "rest"};
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	series_deinit(*state);
	free(*state);
	return 0;
}

static uint64_t *row(struct series_table *t, struct str first, struct str second)
{
	const struct str values[] = {first, second};

	return series_row(t, values);
}

static void a_label_set_keeps_its_row(void **state)
{
	struct series_table *t = *state;
	char name[64];

	for (unsigned round = 1; round <= 2; round++) {
		for (unsigned i = 0; i < 1000; i++) {
			snprintf(name, sizeof(name), "%0*u", (int)(1 + i % 40), i);
			uint64_t *numbers = row(t, str_of(name), STR("x"));
			numbers[2] += i;
			assert_int_equal(numbers[2], round * i);
		}
		assert_int_equal(t->count, 1000);
	}
	assert_false(t->has_overflow);
}

static void labels_are_told_apart_at_their_border(void **state)
{
	struct series_table *t = *state;

	uint64_t *a = row(t, STR("12345678"), STR("9"));
	uint64_t *b = row(t, STR("1234567"), STR("89"));
	uint64_t *c = row(t, STR("123456789"), STR("none"));
	assert_ptr_not_equal(a, b);
	assert_ptr_not_equal(b, c);
	assert_ptr_equal(row(t, STR("12345678"), STR("9")), a);
}

static void an_empty_label_is_the_same_as_its_word(void **state)
{
	struct series_table *t = *state;
	struct str values[2];

	uint64_t *a = row(t, STR("a"), (struct str){0});
	assert_ptr_equal(row(t, STR("a"), STR("")), a);
	assert_ptr_equal(row(t, STR("a"), STR("none")), a);
	series_labels(t, t->list[0], values);
	assert_true(str_is(values[1], "none"));
}

static void unclean_labels_share_the_row_of_the_clean_one(void **state)
{
	struct series_table *t = *state;

	uint64_t *a = row(t, STR("bad?"), STR("x"));
	assert_ptr_equal(row(t, STR("bad\xff"), STR("x")), a);
	assert_ptr_equal(row(t, (struct str){"bad\0", 4}, STR("x")), a);
	assert_int_equal(t->count, 1);
}

static void what_comes_past_the_cap_shares_one_row(void **state)
{
	struct series_table *t = *state;

	t->max = 2;
	uint64_t *a = row(t, STR("a"), STR("x"));
	row(t, STR("b"), STR("x"));
	uint64_t *rest = row(t, STR("c"), STR("x"));
	assert_ptr_equal(rest, t->overflow);
	assert_true(t->has_overflow);
	assert_ptr_equal(row(t, STR("d"), STR("x")), rest);
	assert_ptr_equal(row(t, STR("rest"), STR("rest")), rest);
	assert_ptr_equal(row(t, STR("a"), STR("x")), a);
	assert_int_equal(t->count, 2);
}

static void a_copy_has_rows_of_its_own(void **state)
{
	struct series_table *t = *state;
	struct series_table copy;
	struct str values[2];

	row(t, STR("a"), STR("odd"))[0] = 1;
	row(t, STR("bcd"), STR("x"))[1] = 2;
	void *room = malloc(series_size(t));
	assert_non_null(room);
	series_copy(&copy, t, room);
	row(t, STR("a"), STR("odd"))[0] = 9;
	assert_int_equal(copy.list[0]->row[0], 1);
	assert_int_equal(copy.list[1]->row[1], 2);
	series_labels(&copy, copy.list[1], values);
	assert_true(str_is(values[0], "bcd") && str_is(values[1], "x"));
	free(room);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_label_set_keeps_its_row),
		TEST(labels_are_told_apart_at_their_border),
		TEST(an_empty_label_is_the_same_as_its_word),
		TEST(unclean_labels_share_the_row_of_the_clean_one),
		TEST(what_comes_past_the_cap_shares_one_row),
		TEST(a_copy_has_rows_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
