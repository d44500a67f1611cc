/* content.h - what a span was given and what it answered, as text.
 *
 * Pure. Messages come one a line as "role: text"; what is no list of messages comes as it is.
 */
#pragma once

#include "base/buf.h"

struct json_t;

/** Appends the lines for a span of the API. Nothing when it has no content. */
void content_text(struct buf *out, const struct json_t *span);
