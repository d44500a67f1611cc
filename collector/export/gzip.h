/* gzip.h - compresses a request's body: one shot, in memory, by libdeflate.
 *
 * Bodies under GZIP_LEAST bytes stay as they are: it would cost more than it saves.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/str.h"

enum { GZIP_LEAST = 1024 };

struct gzip;

/** NULL when out of memory. */
struct gzip *gzip_new(void);

/** NULL is fine. */
void gzip_free(struct gzip *g);

/** Writes the compressed body into out (cleared first). False where the body is better sent as it
 * is: too small, not compressible, or out of memory. */
bool gzip_pack(struct gzip *g, struct buf *out, struct str body);
