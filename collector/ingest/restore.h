/* restore.h - what a daemon before us left open goes on. */
#pragma once

#include "base/err.h"
#include "core/runs.h"

struct store;

/** Fills an empty run table from the store: the open runs, what their requests have added up so
 * far, and the runs that ended lately. */
MUST_CHECK int restore_runs(struct runs *r, struct store *store, struct moment now);
