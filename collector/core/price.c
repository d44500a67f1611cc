#include "core/price.h"

#include <stdlib.h>

#include "base/caps.h"

#define COST_MAX ((int64_t)1000000000 * 1000000000) // a billion of the currency; four of them fit

void price_list_deinit(struct price_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->prices[i].model);
		free(l->prices[i].provider);
	}
	free(l->prices);
	free(l->currency);
	*l = (struct price_list){0};
}

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool price_equal(const struct price *a, const struct price *b)
{
	return text_equal(a->model, b->model) && text_equal(a->provider, b->provider) &&
	       a->input == b->input && a->output == b->output &&
	       a->cached_input == b->cached_input && a->cache_write == b->cache_write;
}

bool price_list_equal(const struct price_list *a, const struct price_list *b)
{
	if (!text_equal(a->currency, b->currency) || a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!price_equal(&a->prices[i], &b->prices[i]))
			return false;
	return true;
}

static bool matches(const char *pattern, struct str model)
{
	size_t len = strlen(pattern);

	if (len > 0 && pattern[len - 1] == '*')
		return model.len >= len - 1 && memcmp(model.p, pattern, len - 1) == 0;
	return str_eq(model, str_of(pattern));
}

static const struct price *find(const struct price_list *l, struct str provider, struct str model)
{
	for (size_t i = 0; model.len > 0 && i < l->count; i++) {
		const struct price *p = &l->prices[i];
		if ((!p->provider || str_eq(provider, str_of(p->provider))) &&
		    matches(p->model, model))
			return p;
	}
	return NULL;
}

static int64_t limit(uint64_t cost)
{
	return cost < (uint64_t)COST_MAX ? (int64_t)cost : COST_MAX;
}

/* Rounded to a billionth. Counts are at most 2^53 and prices 10^12. */
static int64_t cost_of(int64_t count, uint64_t price)
{
	uint64_t thousands = (uint64_t)count / 1000, rest = (uint64_t)count % 1000, cost;

	if (__builtin_mul_overflow(thousands, price, &cost))
		return COST_MAX;
	return limit(limit(cost) + (rest * price + 500) / 1000);
}

static int64_t known(int64_t count)
{
	return count > 0 ? count : 0;
}

static uint64_t price_or(uint64_t price, uint64_t other)
{
	return price == PRICE_NONE ? other : price;
}

static int64_t cost_at(const struct price *p, const struct usage *u)
{
	int64_t cached = known(u->cache_read), written = known(u->cache_write);

	// What answers with vectors tells of no output, and has no price of it.
	if (u->input < 0 || (p->output == PRICE_NONE ? u->output > 0 : u->output < 0))
		return COST_UNKNOWN;
	return limit((uint64_t)cost_of(known(u->input - cached - written), p->input) +
	             (uint64_t)cost_of(cached, price_or(p->cached_input, p->input)) +
	             (uint64_t)cost_of(written, price_or(p->cache_write, p->input)) +
	             (uint64_t)cost_of(known(u->output), price_or(p->output, 0)));
}

int64_t price_cost(const struct price_list *l, struct str provider, struct str model,
                   struct str response_model, const struct usage *u)
{
	const struct price *p = l ? find(l, provider, model) : NULL;

	if (l && !p)
		p = find(l, provider, response_model);
	return p ? cost_at(p, u) : COST_UNKNOWN;
}

void cost_add(int64_t *sum, int64_t cost)
{
	if (cost >= 0)
		*sum = limit((uint64_t)known(*sum) + (uint64_t)cost);
}
