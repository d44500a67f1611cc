#include "core/message.h"

#include "base/caps.h"
#include "core/mp.h"
#include "core/value.h"

/* A list of messages, as a cursor on its first element. */
struct list {
	struct mp at;
	uint32_t count;
};

static bool read_list(struct str value, struct list *ret)
{
	struct mp c = mp_of(value);
	struct mp_value v;

	if (!value.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_ARRAY || v.count == 0)
		return false;
	*ret = (struct list){c, v.count};
	return true;
}

static struct str take(struct mp *c)
{
	const uint8_t *start = c->p;

	if (mp_skip(c, CAP_DEPTH) != REFUSAL_NONE)
		return (struct str){0};
	return (struct str){(const char *)start, (size_t)(c->p - start)};
}

static bool is_text(struct str value, struct str *ret)
{
	struct mp c = mp_of(value);
	struct mp_value v;

	if (!value.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_STR)
		return false;
	*ret = v.s;
	return true;
}

/* A message's fields, found in one walk. Each is a msgpack value; p NULL when it is not there. */
struct message {
	struct str role; // the conventions' word, or what `role` says
	struct str content, name, tool_calls, call_id;
	bool is_call; // the whole message is a tool call: an item of OpenAI's responses
};

static void read_member(struct message *m, struct str key, struct str value, struct str *type)
{
	if (str_is(key, "role"))
		is_text(value, &m->role);
	else if (str_is(key, "type"))
		is_text(value, type);
	else if (str_is(key, "content") || (str_is(key, "output") && !m->content.p))
		m->content = value;
	else if (str_is(key, "name"))
		m->name = value;
	else if (str_is(key, "tool_calls"))
		m->tool_calls = value;
	else if (str_is(key, "tool_call_id") || str_is(key, "call_id"))
		m->call_id = value;
}

/* What frameworks say for a role; in `type` only these are one. */
static struct str role_of(struct str word)
{
	static const char *const words[][2] = {
		{"human", "user"},
		{"HumanMessageChunk", "user"},
		{"ai", "assistant"},
		{"AIMessageChunk", "assistant"},
		{"model", "assistant"},
		{"function_call", "assistant"},
		{"system", "system"},
		{"SystemMessageChunk", "system"},
		{"developer", "system"},
		{"tool", "tool"},
		{"ToolMessageChunk", "tool"},
		{"function", "tool"},
		{"function_call_output", "tool"},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (str_eq(word, str_of(words[i][0])))
			return str_of(words[i][1]);
	return (struct str){0};
}

/* Whether it is one: it has a role, and a content or tool calls. */
static bool read_message(struct str value, struct message *ret)
{
	struct mp c = mp_of(value);
	struct str type = {0};
	struct mp_value v;

	*ret = (struct message){0};
	if (!value.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_MAP)
		return false;
	for (uint32_t i = 0; i < v.count && c.p < c.end; i++) {
		struct str key = value_key(&c);
		read_member(ret, key, take(&c), &type);
	}
	struct str role = role_of(ret->role.p ? ret->role : type);
	ret->is_call = !ret->role.p && str_is(type, "function_call");
	ret->role = role.p ? role : ret->role;
	return ret->role.p && (ret->content.p || ret->tool_calls.p);
}

static bool find_list(struct str value, struct list *ret)
{
	struct str inner = value_lookup(value, "messages");
	struct message first;

	if (!read_list(inner.p ? inner : value, ret))
		return false;
	struct mp at = ret->at;
	return read_message(take(&at), &first);
}

bool messages_are(struct str value)
{
	struct message message;
	struct list list;

	return value.p && (find_list(value, &list) || read_message(value, &message));
}

static void text_part(struct json *j, struct str text, size_t *budget)
{
	jsonw_object(j);
	jsonw_key(j, "type");
	jsonw_text(j, "text");
	jsonw_key(j, "content");
	jsonw_str(j, value_spend(text, budget));
	jsonw_object_end(j);
}

static void any_member(struct json *j, const char *key, struct str value, size_t *budget)
{
	struct mp c = mp_of(value);

	if (!value.p)
		return;
	jsonw_key(j, key);
	value_json(j, &c, budget);
}

/* OpenAI's {id, function: {name, arguments}} and {call_id, name, arguments}, LangChain's {id, name,
 * args}, Anthropic's {id, name, input}. */
static void tool_call_part(struct json *j, struct str call, size_t *budget)
{
	struct str function = value_lookup(call, "function");
	struct str from = function.p ? function : call;
	struct str id = value_lookup(call, "call_id");
	struct str arguments = value_lookup(from, "arguments");

	if (!arguments.p)
		arguments = value_lookup(from, "args");
	if (!arguments.p)
		arguments = value_lookup(from, "input");
	jsonw_object(j);
	jsonw_key(j, "type");
	jsonw_text(j, "tool_call");
	any_member(j, "id", id.p ? id : value_lookup(call, "id"), budget);
	any_member(j, "name", value_lookup(from, "name"), budget);
	any_member(j, "arguments", arguments, budget);
	jsonw_object_end(j);
}

static void response_part(struct json *j, struct str id, struct str response, size_t *budget)
{
	jsonw_object(j);
	jsonw_key(j, "type");
	jsonw_text(j, "tool_call_response");
	any_member(j, "id", id, budget);
	any_member(j, "response", response, budget);
	jsonw_object_end(j);
}

static void other_part(struct json *j, const char *type, struct str content, size_t *budget)
{
	jsonw_object(j);
	jsonw_key(j, "type");
	jsonw_text(j, type);
	any_member(j, "content", content, budget);
	jsonw_object_end(j);
}

/* A block that is no text: whatever it is, under its own type. */
static void typed_part(struct json *j, struct str block, bool calls_follow, size_t *budget)
{
	struct str type = value_lookup_text(block, "type");

	if (str_is(type, "tool_use") || str_is(type, "function_call")) {
		if (!calls_follow)
			tool_call_part(j, block, budget);
	} else if (str_is(type, "tool_result")) {
		response_part(j, value_lookup(block, "tool_use_id"), value_lookup(block, "content"),
		              budget);
	} else if (str_is(type, "thinking")) {
		other_part(j, "reasoning", value_lookup(block, "thinking"), budget);
	} else {
		jsonw_object(j);
		jsonw_key(j, "type");
		jsonw_str(j, type.p ? value_spend(type, budget) : STR("generic"));
		any_member(j, "content", block, budget);
		jsonw_object_end(j);
	}
}

static bool has_type_of_text(struct str block)
{
	struct str type = value_lookup_text(block, "type");

	return !type.p || str_is(type, "text") || str_is(type, "input_text") ||
	       str_is(type, "output_text");
}

/* calls_follow: the message says its tool calls a second time, in a list of their own. */
static void content_parts(struct json *j, struct str content, bool calls_follow, size_t *budget)
{
	struct list blocks;
	struct str text;

	if (is_text(content, &text)) {
		if (text.len)
			text_part(j, text, budget);
	} else if (read_list(content, &blocks)) {
		for (uint32_t i = 0; i < blocks.count; i++) {
			struct str block = take(&blocks.at);
			if (!is_text(block, &text))
				text = value_lookup_text(block, "text");
			if (text.p && has_type_of_text(block))
				text_part(j, text, budget);
			else
				typed_part(j, block, calls_follow, budget);
		}
	}
}

static void message_json(struct json *j, struct str message, size_t *budget)
{
	struct message m;
	struct list calls;

	read_message(message, &m); // one without a role or content shows what it has
	struct str role = m.role;
	bool calls_follow = read_list(m.tool_calls, &calls);

	jsonw_object(j);
	jsonw_key(j, "role");
	jsonw_str(j, value_spend(role, budget));
	jsonw_key(j, "parts");
	jsonw_array(j);
	if (str_is(role, "tool")) {
		response_part(j, m.call_id, m.content, budget);
	} else if (m.is_call) {
		tool_call_part(j, message, budget);
	} else {
		content_parts(j, m.content, calls_follow, budget);
		for (uint32_t i = 0; calls_follow && i < calls.count; i++)
			tool_call_part(j, take(&calls.at), budget);
	}
	jsonw_array_end(j);
	if (!m.is_call)
		any_member(j, "name", m.name, budget);
	jsonw_object_end(j);
}

/* How many of the oldest messages to leave out, so that the rest fits; the newest always stays. */
static uint32_t too_old(struct list list, size_t max)
{
	size_t total = (size_t)(list.at.end - list.at.p);
	uint32_t skip = 0;

	while (skip + 1 < list.count && total > max) {
		total -= take(&list.at).len;
		skip++;
	}
	return skip;
}

static void plain_message(struct json *j, struct str text, const char *role, size_t *budget)
{
	jsonw_object(j);
	jsonw_key(j, "role");
	jsonw_text(j, role);
	jsonw_key(j, "parts");
	jsonw_array(j);
	text_part(j, text, budget);
	jsonw_array_end(j);
	jsonw_object_end(j);
}

bool messages_json(struct json *j, struct str value, const char *default_role, size_t max)
{
	size_t budget = max + 1;
	struct list list;
	uint32_t skip = 0;
	struct str text;

	jsonw_array(j);
	if (find_list(value, &list)) {
		skip = too_old(list, max);
		for (uint32_t i = 0; i < list.count; i++) {
			struct str message = take(&list.at);
			if (i >= skip)
				message_json(j, message, &budget);
		}
	} else if (is_text(value, &text)) {
		plain_message(j, text, default_role, &budget);
	} else {
		message_json(j, value, &budget);
	}
	jsonw_array_end(j);
	return skip > 0 || budget == 0;
}

static struct str content_text(struct str content)
{
	struct list blocks;
	struct str text;

	if (is_text(content, &text))
		return text;
	if (!read_list(content, &blocks))
		return (struct str){0};
	for (uint32_t i = 0; i < blocks.count; i++) {
		struct str block = take(&blocks.at);
		if (is_text(block, &text))
			return text;
		text = value_lookup_text(block, "text");
		if (text.p)
			return text;
	}
	return (struct str){0};
}

struct str messages_last_text(struct str value, const char *role)
{
	struct str found = {0}, wanted = str_of(role);
	struct message m;
	struct list list;

	if (is_text(value, &found))
		return found;
	if (!find_list(value, &list))
		return read_message(value, &m) ? content_text(m.content) : found;
	for (uint32_t i = 0; i < list.count; i++) {
		read_message(take(&list.at), &m);
		struct str text = content_text(m.content);
		if (text.p && str_eq(m.role, wanted))
			found = text;
	}
	return found;
}
