/* own_resource.h - the collector's description of itself: a Resource, for the metrics that it
 * sends. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "config.h"

/** Appends it: the configured service, the version, and an instance id that is a new one each
 * time. -ENOMEM, -ENOSPC. */
MUST_CHECK int own_resource(struct buf *out, const struct config *config);
