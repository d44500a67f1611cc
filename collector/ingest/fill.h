/* fill.h - what the run table gives out, as records of a batch.
 *
 * Each returns 0, -ENOMEM or -ENOSPC; on failure the batch is as it was.
 */
#pragma once

#include "base/err.h"
#include "core/runs.h"
#include "store/batch.h"

MUST_CHECK int fill_span(struct batch *b, const struct finished_span *span);
MUST_CHECK int fill_observation(struct batch *b, const struct observation *o);

/** An event without a run; it is counted in the batch. */
MUST_CHECK int fill_event(struct batch *b, const struct orphan_event *e);
