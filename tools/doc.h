/* doc.h - the API's JSON, as what the renderers take.
 *
 * Pure. All text is borrowed from the JSON. What is missing or of another type than it should be
 * counts as not there. Of jansson only what reads is used.
 */
#pragma once

#include <stdint.h>

#include "base/str.h"
#include "table.h"
#include "text.h"
#include "waterfall.h"

struct json_t;

/** A member's text; p is NULL when it is none. */
struct str doc_str(const struct json_t *object, const char *key);

/** A member's number; -1 when it is none, or negative. */
int64_t doc_int(const struct json_t *object, const char *key);

enum run_status doc_status(const struct json_t *run);

/** One of /api/traces' traces. */
struct trace_row doc_trace_row(const struct json_t *trace);

/** What a trace cost; empty when that is not known. */
void doc_cost(char out[COST_SIZE], const struct json_t *trace);

/** One of a trace's spans. */
struct waterfall_span doc_span(const struct json_t *span);
