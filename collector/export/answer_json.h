/* answer_json.h - what an OTLP backend says in JSON: partial success, or a google.rpc.Status. Pure.
 *
 * Longer answers than JSON_ANSWER_MAX are not read: what they would take as a tree could be a
 * hundred times as much.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { JSON_ANSWER_MAX = 64 * 1024, JSON_MESSAGE_MAX = 255 };

struct json_answer {
	uint64_t rejected; // spans, log records or data points; negative counts as 0
	char message[JSON_MESSAGE_MAX + 1]; // of the partial success, else of the status; UTF-8
};

/** 0, or ERR_FORMAT for what is no JSON object or is too long. */
MUST_CHECK int json_answer_read(struct json_answer *ret, struct str body);
