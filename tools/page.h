/* page.h - the items of one answer of the API, as they are.
 *
 * Pure. An answer is an object with one list and, where there may be more, "next". The items are
 * handed out as slices of the text, so that what is printed again is byte for byte what came.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/** One item's JSON text, borrowed. Returns false to stop. */
typedef bool page_item_fn(void *ctx, struct str item);

/** Calls fn for each item of the list named key. *ret_next is 0 where there is no next page. 0, or
 * ERR_FORMAT. */
MUST_CHECK int page_each(struct str doc, const char *key, page_item_fn *fn, void *ctx,
                         uint64_t *ret_next);
