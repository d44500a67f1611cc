#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/closed.h"

static const uint8_t trace[16] = {1}, request[3] = {7, 8, 9};

/* Spread over the index by a multiplication, or crowded into one corner of it. */
static void id_of(uint8_t ret[8], uint64_t n, bool crowded)
{
	uint64_t id = crowded ? n << 32 | (n & 7) : n * 0x9e3779b97f4a7c15ull;

	memcpy(ret, &id, sizeof(id));
}

static void test_a_run_is_remembered_for_a_minute(void **state)
{
	struct closed *c = closed_new();
	uint8_t id[8];

	(void)state;
	assert_non_null(c);
	id_of(id, 1, false);
	assert_null(closed_get(c, id, 0));
	closed_add(c, id, trace, request, 5);
	const struct closed_run *run = closed_get(c, id, 5 + CLOSED_REMEMBERED_NS);
	assert_non_null(run);
	assert_memory_equal(run->trace_id, trace, 16);
	assert_memory_equal(run->request, request, 3);
	assert_null(closed_get(c, id, 6 + CLOSED_REMEMBERED_NS));
	closed_free(c);
}

static void test_an_id_that_is_used_again_is_remembered_anew(void **state)
{
	static const uint8_t other[16] = {2};
	struct closed *c = closed_new();
	uint8_t id[8];

	(void)state;
	assert_non_null(c);
	id_of(id, 1, false);
	closed_add(c, id, trace, request, 0);
	closed_add(c, id, other, request, 2 * CLOSED_REMEMBERED_NS);
	const struct closed_run *run = closed_get(c, id, 3 * CLOSED_REMEMBERED_NS);
	assert_non_null(run);
	assert_memory_equal(run->trace_id, other, 16);
	closed_free(c);
}

static void fill(bool crowded, uint64_t count)
{
	struct closed *c = closed_new();
	uint8_t id[8];

	assert_non_null(c);
	for (uint64_t n = 1; n <= count; n++) {
		id_of(id, n, crowded);
		closed_add(c, id, trace, request, n);
	}
	for (uint64_t n = 1; n <= count; n++) {
		id_of(id, n, crowded);
		bool kept = n + CAP_CLOSED_RUNS > count;
		assert_int_equal(closed_get(c, id, count) != NULL, kept);
	}
	closed_free(c);
}

static void test_the_oldest_are_forgotten_first_and_only_they(void **state)
{
	(void)state;
	fill(false, CAP_CLOSED_RUNS);
	fill(false, 3 * CAP_CLOSED_RUNS + 17);
}

static void test_ids_that_collide_are_told_apart(void **state)
{
	(void)state;
	fill(true, 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_run_is_remembered_for_a_minute),
		cmocka_unit_test(test_an_id_that_is_used_again_is_remembered_anew),
		cmocka_unit_test(test_the_oldest_are_forgotten_first_and_only_they),
		cmocka_unit_test(test_ids_that_collide_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
