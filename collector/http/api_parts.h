/* api_parts.h - what the files behind api.h share. */
#pragma once

#include <stdint.h>

#include "base/json.h"
#include "core/span.h"

/** The JSON object of a trace that has no observation (yet), from the span at its top: the span's
 * members without content, then those of an observation as far as they are known. */
void root_json(struct json *j, const struct span_record *root, uint64_t now_ns);

struct observation_record;

/** An observation's members but its content. */
void api_observation_meta(struct json *j, const struct observation_record *rec);
