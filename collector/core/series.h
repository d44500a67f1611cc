/* series.h - the series of one metric, or of a few with the same labels: label values to a row of
 * numbers.
 *
 * A table holds at most `max` label sets; whatever comes past that is counted in one row more, so
 * that sums stay right whatever names arrive. A label that is longer than CAP_LABEL is cut. Rows
 * are never removed, and a known label set allocates nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/str.h"

enum { LABELS_MAX = 5, ROW_MAX = 64, SERIES_SLOTS = 4096 };
_Static_assert(SERIES_SLOTS >= 2 * CAP_SERIES, "probing stays short");

struct series {
	uint64_t hash;
	uint16_t lens[LABELS_MAX]; // of the label values, whose text follows the numbers
	uint64_t row[];
};

struct series_table {
	unsigned max, labels, width; // label sets; labels of each; numbers of each
	const char *unknown;         // what an empty label says; "": nothing
	const char *other;           // what all labels of the last row say; NULL: they say nothing
	unsigned count;
	struct series *list[CAP_SERIES]; // in order of arrival
	uint16_t slots[SERIES_SLOTS];    // index into list + 1; 0: free
	bool has_overflow;
	uint64_t overflow[ROW_MAX];
};

/* Sets max, labels, width, unknown and other of a table of zeros to begin with; frees its rows to
 * end with. */
void series_deinit(struct series_table *t);

/** The row of a label set, made of zeros when it is new. values are `labels` long. */
uint64_t *series_row(struct series_table *t, const struct str *values);

/** The label values of a series, borrowed. */
void series_labels(const struct series_table *t, const struct series *s, struct str *ret);

/** Bytes that series_copy() needs besides the table. */
size_t series_size(const struct series_table *t);

/** Makes *ret a copy for reading, its rows lying in room. Not to be given to series_deinit(). */
void series_copy(struct series_table *ret, const struct series_table *t, void *room);
