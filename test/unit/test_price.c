#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/price.h"

/* Millionths of what a million tokens cost. */
#define M 1000000ull

#define T(text) ((char[]){text}) // that may be changed

static struct price prices[] = {
	{T("big"), T("azure"), 10 * M, 20 * M, PRICE_NONE, PRICE_NONE},
	{T("big*"), NULL, 2500000, 10 * M, 1250000, 3750000},
	{T("vec"), NULL, 20000, PRICE_NONE, PRICE_NONE, PRICE_NONE},
	{T("gold"), NULL, M *M, M *M, PRICE_NONE, PRICE_NONE},
	{T("fine"), NULL, 1, 1, PRICE_NONE, PRICE_NONE},
	{T("free"), NULL, 0, 0, PRICE_NONE, PRICE_NONE},
	{T("*"), T("local"), 0, 0, PRICE_NONE, PRICE_NONE},
};

static const struct price_list list = {
	.prices = prices,
	.count = sizeof(prices) / sizeof(*prices),
};

#define NO USAGE_UNKNOWN
#define HUGE_COUNT ((int64_t)1 << 53)
#define MOST (M * M * M)

static const struct {
	const char *provider, *model, *answered;
	int64_t input, output, cached, written;
	int64_t cost; // 10^-9
} cases[] = {
	// the whole of it: 2.5 + 10
	{"openai", "big", NULL, M, M, NO, NO, 12500000000},
	{NULL, "big", NULL, M, M, 0, 0, 12500000000},
	// shares of the input: 400000 plain, 500000 read, 100000 written
	{"openai", "big", NULL, M, 0, 500000, 100000, 1000000000 + 625000000 + 375000000},
	{"azure", "big", NULL, M, 0, 500000, 100000, 10000000000},
	{"openai", "big", NULL, 10, 0, 500, 0, 625000}, // a share that is more than all
	// which entry: the first, its provider, its beginning
	{"azure", "big", NULL, 100, 0, NO, NO, 1000000},
	{"azure", "big-2", NULL, 100, 0, NO, NO, 250000},
	{"openai", "bi", NULL, 1, 1, NO, NO, NO},
	{"openai", "Big", NULL, 1, 1, NO, NO, NO},
	{"openai", "freedom", NULL, 1, 1, NO, NO, NO},
	{"local", "anything", NULL, 1, 1, NO, NO, 0},
	{"local", NULL, NULL, 1, 1, NO, NO, NO},
	// the model that was asked for goes before the one that answered
	{NULL, "free", "big-2", 100, 0, NO, NO, 0},
	{NULL, "alias", "big-2", 100, 0, NO, NO, 250000},
	{NULL, NULL, "big-2", 100, 0, NO, NO, 250000},
	{NULL, "alias", "other", 100, 0, NO, NO, NO},
	// what is not told, or has no price
	{"openai", "big", NULL, NO, NO, NO, NO, NO},
	{"openai", "big", NULL, NO, 5, NO, NO, NO},
	{"openai", "big", NULL, 5, NO, NO, NO, NO},
	{"openai", "vec", NULL, 100, NO, NO, NO, 2000},
	{"openai", "vec", NULL, 100, 0, NO, NO, 2000},
	{"openai", "vec", NULL, 100, 1, NO, NO, NO},
	{"openai", "big", NULL, 0, 0, NO, NO, 0},
	// rounding and bounds
	{NULL, "fine", NULL, 499, 0, NO, NO, 0},
	{NULL, "fine", NULL, 500, 0, NO, NO, 1},
	{NULL, "fine", NULL, HUGE_COUNT, 0, NO, NO, 9007199254741},
	{NULL, "gold", NULL, 3, 4, NO, NO, 7000000000},
	{NULL, "gold", NULL, HUGE_COUNT, HUGE_COUNT, NO, NO, MOST},
};

static int64_t cost_of(const struct price_list *l, size_t i)
{
	struct usage u;

	usage_init(&u);
	u.input = cases[i].input;
	u.output = cases[i].output;
	u.cache_read = cases[i].cached;
	u.cache_write = cases[i].written;
	return price_cost(l, str_of(cases[i].provider), str_of(cases[i].model),
	                  str_of(cases[i].answered), &u);
}

static void calls_cost_what_the_list_says(void **state)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int64_t cost = cost_of(&list, i);
		if (cost != cases[i].cost)
			fail_msg("case %zu costs %lld, not %lld", i, (long long)cost,
			         (long long)cases[i].cost);
	}
}

static void without_a_list_nothing_is_known(void **state)
{
	static const struct price_list empty = {0};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(cost_of(NULL, i), COST_UNKNOWN);
		assert_int_equal(cost_of(&empty, i), COST_UNKNOWN);
	}
}

static void a_sum_is_unknown_until_something_is(void **state)
{
	int64_t sum = COST_UNKNOWN;

	cost_add(&sum, COST_UNKNOWN);
	assert_int_equal(sum, COST_UNKNOWN);
	cost_add(&sum, 0);
	assert_int_equal(sum, 0);
	cost_add(&sum, 5);
	cost_add(&sum, COST_UNKNOWN);
	cost_add(&sum, 7);
	assert_int_equal(sum, 12);
	cost_add(&sum, (int64_t)MOST);
	cost_add(&sum, (int64_t)MOST);
	assert_int_equal(sum, MOST);
}

static void lists_are_the_same_in_all_or_not(void **state)
{
	struct price other[sizeof(prices) / sizeof(*prices)];
	struct price_list changed = {.prices = other, .count = list.count};

	memcpy(other, prices, sizeof(other));
	assert_true(price_list_equal(&list, &changed));
	changed.currency = T("EUR");
	assert_false(price_list_equal(&list, &changed));
	changed.currency = NULL;
	changed.count--;
	assert_false(price_list_equal(&list, &changed));
	changed.count++;
#define DIFFERS(field, value)                                                                      \
	do {                                                                                       \
		other[0].field = (value);                                                          \
		assert_false(price_list_equal(&list, &changed));                                   \
		other[0] = prices[0];                                                              \
	} while (0)
	DIFFERS(model, T("small"));
	DIFFERS(provider, NULL);
	DIFFERS(input, 1);
	DIFFERS(output, 1);
	DIFFERS(cached_input, 1);
	DIFFERS(cache_write, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_cost_what_the_list_says),
		cmocka_unit_test(without_a_list_nothing_is_known),
		cmocka_unit_test(a_sum_is_unknown_until_something_is),
		cmocka_unit_test(lists_are_the_same_in_all_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
