#include "export/console_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/caps.h"
#include "base/json.h"
#include "base/str.h"
#include "core/otlp_fields.h"
#include "core/pb.h"

enum {
	SHOWN_VALUE = 160, // bytes of a content value on its line
	SHOWN_NAME = 60,
	NAME_COLUMN = 28,
	INDENT = 4,
};

/* --- pretty --- */

/* C0, DEL and, as UTF-8, C1. */
static size_t control_length(const char *p, size_t left)
{
	uint8_t c = (uint8_t)p[0];

	if (c < 0x20 || c == 0x7f)
		return 1;
	return c == 0xc2 && left > 1 && (uint8_t)p[1] < 0xa0 ? 2 : 0;
}

/* At most max bytes of text, blanks for control characters; the cut is marked. */
static void put_text(struct buf *out, struct str text, size_t max)
{
	size_t len = utf8_cut(text.p, text.len, max);
	size_t from = 0;

	if (text.len == 0)
		return;
	for (size_t i = 0; i < len;) {
		size_t control = control_length(text.p + i, len - i);
		if (control) {
			buf_append_utf8(out, text.p + from, i - from);
			buf_append_byte(out, ' ');
			from = i + control;
		}
		i += control ? control : 1;
	}
	buf_append_utf8(out, text.p + from, len - from);
	if (len < text.len)
		buf_append_str(out, "…");
}

static void pad_to(struct buf *out, size_t line, size_t column)
{
	size_t width = 0;

	for (size_t i = line; i < out->len; i++)
		width += (out->data[i] & 0xc0) != 0x80;
	for (; width < column; width++)
		buf_append_byte(out, ' ');
}

static void put_duration(struct buf *out, uint64_t ns)
{
	double ms = (double)ns / 1e6;

	if (ms < 1000)
		buf_printf(out, "%8.1f ms", ms);
	else
		buf_printf(out, "%8.2f s ", ms / 1000);
}

struct tokens {
	int64_t input, output;
	bool known;
};

static bool find_tokens(void *ctx, struct str key, struct str value)
{
	struct tokens *t = ctx;
	bool input = str_is(key, "gen_ai.usage.input_tokens") || str_is(key, "llm.prompt_tokens");
	bool output =
		str_is(key, "gen_ai.usage.output_tokens") || str_is(key, "llm.completion_tokens");
	struct pb_cursor c = pb_cursor_of(value);
	struct pb_field f;

	if ((!input && !output) || pb_next(&c, &f) <= 0 || f.number != ANY_INT)
		return true;
	if (input)
		t->input = (int64_t)f.value;
	else
		t->output = (int64_t)f.value;
	t->known = true;
	return true;
}

static void put_tokens(struct buf *out, const struct span_record *rec)
{
	struct tokens t = {0};

	if (span_attributes(rec, false, find_tokens, &t) == 0 && t.known)
		buf_printf(out, "  %" PRId64 " → %" PRId64 " tokens", t.input, t.output);
}

static void put_error(struct buf *out, const struct span_record *rec, const struct span_view *v)
{
	struct str type = span_attribute_str(rec, "error.type");

	if (type.len) {
		buf_append_str(out, "  ");
		put_text(out, type, SHOWN_NAME);
	}
	if (v->status_message.len) {
		buf_append_str(out, type.len ? ": " : "  ");
		put_text(out, v->status_message, SHOWN_VALUE);
	}
}

static bool put_content(void *ctx, struct str key, struct str value)
{
	struct buf *out = ctx;
	struct json j;
	struct buf text;

	buf_init(&text, 4 * CAP_FRAME);
	jsonw_init(&j, &text);
	any_value_json(&j, value);
	buf_append_str(out, "                            ");
	put_text(out, key, SHOWN_NAME);
	buf_append_str(out, " = ");
	put_text(out, (struct str){(const char *)text.data, text.len}, SHOWN_VALUE);
	buf_append_byte(out, '\n');
	buf_deinit(&text);
	return true;
}

static void put_times(struct buf *out, const struct span_view *v)
{
	char time[TIME_TEXT_SIZE];
	char trace[8];

	time_text(time, v->start_ns);
	buf_append(out, time + strlen("2026-11-24T"), strlen("01:02:03.123"));
	hex_write(trace, v->trace_id, sizeof(trace) / 2);
	buf_append_str(out, "  ");
	buf_append(out, trace, sizeof(trace));
}

void console_pretty(struct buf *out, const struct span_record *rec, bool content)
{
	struct span_view v;

	if (span_view(&v, rec)) {
		buf_append_str(out, "(a span that can't be read)\n");
		return;
	}
	put_times(out, &v);
	buf_printf(out, "  %-9s  ", kind_word((enum run_kind)rec->head.kind));
	size_t name = out->len;
	put_text(out, v.name, SHOWN_NAME);
	pad_to(out, name, NAME_COLUMN);
	put_duration(out, v.end_ns > v.start_ns ? v.end_ns - v.start_ns : 0);
	buf_printf(out, "  %s", status_word((enum run_status)rec->head.status));
	put_tokens(out, rec);
	put_error(out, rec, &v);
	buf_append_byte(out, '\n');
	if (!content)
		return;
	// The content part alone: a record without a base.
	struct span_record only = {.base = rec->content};
	(void)span_attributes(&only, false, put_content, out);
}

/* --- JSON --- */

static void put_id(struct json *j, const uint8_t *id, size_t size)
{
	char text[2 + 2 * 16] = "0x";

	hex_write(text + 2, id, size);
	jsonw_str(j, (struct str){text, 2 + 2 * size});
}

/* As Python's: microseconds. */
static void put_time(struct json *j, uint64_t unix_ns)
{
	char text[TIME_TEXT_SIZE];

	time_text(text, unix_ns);
	size_t len = strlen("2026-11-24T01:02:03.123456");
	text[len] = 'Z';
	jsonw_str(j, (struct str){text, len + 1});
}

static void put_context(struct json *j, const struct span_view *v)
{
	jsonw_key(j, "context");
	jsonw_object(j);
	jsonw_key(j, "trace_id");
	put_id(j, v->trace_id, sizeof(v->trace_id));
	jsonw_key(j, "span_id");
	put_id(j, v->span_id, sizeof(v->span_id));
	jsonw_key(j, "trace_state");
	jsonw_text(j, "[]");
	jsonw_object_end(j);
}

static const char *kind_name(uint32_t otlp_kind)
{
	static const char *const names[] = {
		"SpanKind.INTERNAL", "SpanKind.INTERNAL", "SpanKind.SERVER",
		"SpanKind.CLIENT",   "SpanKind.PRODUCER", "SpanKind.CONSUMER",
	};

	return names[otlp_kind < sizeof(names) / sizeof(*names) ? otlp_kind : 0];
}

static void put_status(struct json *j, const struct span_view *v)
{
	static const char *const codes[] = {"UNSET", "OK", "ERROR"};

	jsonw_key(j, "status");
	jsonw_object(j);
	jsonw_key(j, "status_code");
	jsonw_text(j, codes[v->status_code < 3 ? v->status_code : 0]);
	if (v->status_message.len) {
		jsonw_key(j, "description");
		jsonw_str(j, v->status_message);
	}
	jsonw_object_end(j);
}

static void put_event(struct json *j, struct str event)
{
	struct pb_cursor c = pb_cursor_of(event);
	struct str name = STR("");
	uint64_t time_ns = 0;
	struct pb_field f;

	while (pb_next(&c, &f) > 0) {
		if (f.number == EVENT_TIME && f.wire == PB_FIXED64)
			time_ns = f.value;
		else if (f.number == EVENT_NAME && f.wire == PB_BYTES)
			name = f.bytes;
	}
	jsonw_object(j);
	jsonw_key(j, "name");
	jsonw_str(j, name);
	jsonw_key(j, "timestamp");
	put_time(j, time_ns);
	jsonw_key(j, "attributes");
	jsonw_object(j);
	attributes_json_members(j, event, EVENT_ATTRIBUTES);
	jsonw_object_end(j);
	jsonw_object_end(j);
}

static void put_events(struct json *j, struct str base)
{
	struct pb_cursor c = pb_cursor_of(base);
	struct pb_field f;

	jsonw_key(j, "events");
	jsonw_array(j);
	while (pb_next(&c, &f) > 0)
		if (f.number == SPAN_EVENTS && f.wire == PB_BYTES)
			put_event(j, f.bytes);
	jsonw_array_end(j);
}

static void put_attributes(struct json *j, const struct span_record *rec, bool content)
{
	jsonw_key(j, "attributes");
	jsonw_object(j);
	attributes_json_members(j, rec->base, SPAN_ATTRIBUTES);
	if (content)
		attributes_json_members(j, rec->content, SPAN_ATTRIBUTES);
	jsonw_object_end(j);
}

static void put_resource(struct json *j, struct str resource)
{
	jsonw_key(j, "resource");
	jsonw_object(j);
	jsonw_key(j, "attributes");
	jsonw_object(j);
	attributes_json_members(j, resource, RESOURCE_ATTRIBUTES);
	jsonw_object_end(j);
	jsonw_key(j, "schema_url");
	jsonw_text(j, "");
	jsonw_object_end(j);
}

static void write_compact(struct buf *out, const struct span_record *rec, bool content,
                          const struct span_view *v)
{
	struct json j;

	jsonw_init(&j, out);
	jsonw_object(&j);
	jsonw_key(&j, "name");
	jsonw_str(&j, v->name);
	put_context(&j, v);
	jsonw_key(&j, "kind");
	jsonw_text(&j, kind_name(v->otlp_kind));
	jsonw_key(&j, "parent_id");
	if (v->has_parent)
		put_id(&j, v->parent_id, sizeof(v->parent_id));
	else
		jsonw_null(&j);
	jsonw_key(&j, "start_time");
	put_time(&j, v->start_ns);
	jsonw_key(&j, "end_time");
	put_time(&j, v->end_ns);
	put_status(&j, v);
	put_attributes(&j, rec, content);
	put_events(&j, rec->base);
	jsonw_key(&j, "links");
	jsonw_array(&j);
	jsonw_array_end(&j);
	put_resource(&j, rec->resource);
	jsonw_object_end(&j);
}

static void new_line(struct buf *out, unsigned depth)
{
	buf_append_byte(out, '\n');
	for (unsigned i = 0; i < depth * INDENT; i++)
		buf_append_byte(out, ' ');
}

/* The end of the string that begins at from, past its quote. */
static size_t string_end(const struct buf *in, size_t from)
{
	size_t i = from + 1;

	while (i < in->len && in->data[i] != '"')
		i += in->data[i] == '\\' ? 2 : 1;
	return i + 1 < in->len ? i + 1 : in->len;
}

/* Lays our own compact, well-formed JSON out as Python's json.dumps(indent=4) does. */
static void lay_out(struct buf *out, const struct buf *in)
{
	unsigned depth = 0;

	for (size_t i = 0; i < in->len;) {
		uint8_t c = in->data[i];
		if (c == '"') {
			size_t end = string_end(in, i);
			buf_append(out, in->data + i, end - i);
			i = end;
			continue;
		}
		bool opens = c == '{' || c == '[';
		bool empty = opens && i + 1 < in->len && (in->data[i + 1] == c + 2);
		if (c == '}' || c == ']')
			new_line(out, --depth);
		buf_append_byte(out, c);
		if (empty)
			buf_append_byte(out, in->data[++i]);
		else if (opens)
			new_line(out, ++depth);
		else if (c == ',')
			new_line(out, depth);
		else if (c == ':')
			buf_append_byte(out, ' ');
		i++;
	}
	buf_append_byte(out, '\n');
}

void console_json(struct buf *out, const struct span_record *rec, bool content)
{
	struct span_view v;
	struct buf compact;

	if (span_view(&v, rec))
		return;
	buf_init(&compact, out->cap);
	write_compact(&compact, rec, content, &v);
	if (buf_error(&compact))
		out->error = out->error ? out->error : buf_error(&compact);
	else
		lay_out(out, &compact);
	buf_deinit(&compact);
}
