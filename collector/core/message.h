/* message.h - conversations: from what frameworks send to the GenAI conventions' messages.
 *
 * Recognized: a list of maps with `role` (OpenAI, Anthropic) or `type` (LangChain: human, ai,
 * tool, system) and `content`, or one such map, or a map with such a list as `messages`. Written
 * as the conventions' JSON schema says:
 *   [{"role": "user", "parts": [{"type": "text", "content": "…"}]}]
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/str.h"

/** Whether the value is a conversation. */
bool messages_are(struct str value);

/** Writes the conversation as one JSON array. Texts share max bytes: when they don't fit, the
 * oldest messages are left out first, then the newest is cut. default_role is that of a plain
 * text, which counts as one message. Returns whether anything was cut. */
bool messages_json(struct json *j, struct str value, const char *default_role, size_t max);

/** The text of the last message of a role ("user", "assistant"), or a plain text itself; p NULL
 * when there is none. Borrowed. */
struct str messages_last_text(struct str value, const char *role);
