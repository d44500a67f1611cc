#include "content.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "doc.h"

static void put(struct buf *out, struct str s)
{
	buf_append(out, s.p, s.len);
}

/* Text as it is, anything else as JSON. */
static void put_value(struct buf *out, const json_t *v)
{
	if (json_is_string(v)) {
		buf_append(out, json_string_value(v), json_string_length(v));
		return;
	}
	char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
	if (text)
		buf_append_str(out, text);
	free(text);
}

static void put_call(struct buf *out, const json_t *part)
{
	put(out, doc_str(part, "name"));
	buf_append_byte(out, '(');
	put_value(out, json_object_get(part, "arguments"));
	buf_append_byte(out, ')');
}

static void put_part(struct buf *out, const json_t *part)
{
	struct str type = doc_str(part, "type");

	if (str_is(type, "tool_call"))
		put_call(out, part);
	else if (str_is(type, "tool_call_response"))
		put_value(out, json_object_get(part, "response"));
	else if (json_is_string(json_object_get(part, "content")))
		put(out, doc_str(part, "content"));
	else
		put_value(out, part);
}

static void put_message(struct buf *out, const json_t *message)
{
	const json_t *parts = json_object_get(message, "parts");
	struct str role = doc_str(message, "role");

	put(out, role.p ? role : STR("message"));
	buf_append_str(out, ":");
	for (size_t i = 0; i < json_array_size(parts); i++) {
		buf_append_byte(out, ' ');
		put_part(out, json_array_get(parts, i));
	}
	if (!json_is_array(parts)) {
		buf_append_byte(out, ' ');
		put_value(out, json_object_get(message, "content"));
	}
	buf_append_byte(out, '\n');
}

/* A list of messages, or of the parts of one, as the conventions write them: JSON in a text. */
static bool put_messages(struct buf *out, struct str text, const char *role)
{
	json_t *list = json_loadb(text.p, text.len, JSON_ALLOW_NUL, NULL);
	const json_t *first = json_array_get(list, 0);
	bool is_messages = json_is_object(first) && doc_str(first, "role").p;
	bool is_parts = json_is_object(first) && !is_messages && doc_str(first, "type").p;

	for (size_t i = 0; is_messages && i < json_array_size(list); i++)
		put_message(out, json_array_get(list, i));
	if (is_parts)
		buf_append_str(out, role);
	for (size_t i = 0; is_parts && i < json_array_size(list); i++) {
		buf_append_byte(out, i == 0 ? ':' : ';');
		buf_append_byte(out, ' ');
		put_part(out, json_array_get(list, i));
	}
	if (is_parts)
		buf_append_byte(out, '\n');
	json_decref(list);
	return is_messages || is_parts;
}

void content_text(struct buf *out, const json_t *span)
{
	static const struct {
		const char *key, *role;
	} fields[] = {
		{"gen_ai.system_instructions", "system"},
		{"gen_ai.input.messages", "input"},
		{"gen_ai.retrieval.query.text", "query"},
		{"gen_ai.tool.call.arguments", "arguments"},
		{"tool.input", "arguments"},
		{"sidelight.input", "input"},
		{"gen_ai.output.messages", "output"},
		{"gen_ai.retrieval.documents", "documents"},
		{"gen_ai.tool.call.result", "result"},
		{"tool.output", "result"},
		{"sidelight.output", "output"},
	};
	const json_t *attributes = json_object_get(span, "attributes");
	const char *seen = "";

	// Two conventions may say the same under two names, which follow each other here.
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		const json_t *value = json_object_get(attributes, fields[i].key);
		struct str text = doc_str(attributes, fields[i].key);
		bool is_again = strcmp(fields[i].role, seen) == 0;
		if (!value || is_again)
			continue;
		seen = fields[i].role;
		if (text.p && put_messages(out, text, fields[i].role))
			continue;
		buf_append_str(out, fields[i].role);
		buf_append_str(out, ": ");
		put_value(out, value);
		buf_append_byte(out, '\n');
	}
}
