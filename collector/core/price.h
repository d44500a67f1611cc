/* price.h - what a call cost, by a list of prices that the user wrote.
 *
 * Money is counted in billionths of the currency: sums are exact, in whatever order they are made.
 * What can't be told has no cost, COST_UNKNOWN, never 0.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "core/usage.h"

#define COST_UNKNOWN (-1)
#define PRICE_NONE UINT64_MAX

/* Of a token, in 10^-12 of the currency: six decimals of what a million tokens cost. */
struct price {
	char *model;    // one that ends in * is how models begin
	char *provider; // NULL: any
	uint64_t input, output;
	uint64_t cached_input, cache_write; // PRICE_NONE: as input
};

struct price_list {
	char *currency; // NULL: not said
	struct price *prices;
	size_t count;
};

void price_list_deinit(struct price_list *l);
bool price_list_equal(const struct price_list *a, const struct price_list *b);

/** What a call cost in 10^-9 of the currency, by the first entry that matches the model that was
 * asked for, else the one that answered. COST_UNKNOWN where none does, or where a count that has a
 * price is not known. l NULL: no prices. */
int64_t price_cost(const struct price_list *l, struct str provider, struct str model,
                   struct str response_model, const struct usage *u);

/** Adds a cost that is known to a sum that may not be yet. */
void cost_add(int64_t *sum, int64_t cost);
