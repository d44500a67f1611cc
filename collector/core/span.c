#include "core/span.h"

#include "base/err.h"
#include "core/otlp_fields.h"

/* What the decoder lets in nests half as deep; the rest of a deeper value is shown as null. */
enum { MAX_NESTING = 32 };

/* An absent text and an empty one differ: see struct str. */
static struct str text_of(const struct pb_field *f)
{
	return f->bytes.p ? f->bytes : STR("");
}

static int read_id(uint8_t *ret, size_t size, const struct pb_field *f)
{
	if (f->wire != PB_BYTES || f->bytes.len != size)
		return ERR_FORMAT;
	memcpy(ret, f->bytes.p, size);
	return 0;
}

static int read_parent(struct span_view *v, const struct pb_field *f)
{
	static const uint8_t none[sizeof(v->parent_id)];

	if (f->wire == PB_BYTES && f->bytes.len == 0)
		return 0;
	int err = read_id(v->parent_id, sizeof(v->parent_id), f);
	v->has_parent = err == 0 && memcmp(v->parent_id, none, sizeof(none)) != 0;
	return err;
}

static int read_status(struct span_view *v, const struct pb_field *status)
{
	struct pb_cursor c = pb_cursor_of(status->bytes);
	struct pb_field f;
	int more;

	if (status->wire != PB_BYTES)
		return ERR_FORMAT;
	while ((more = pb_next(&c, &f)) > 0) {
		if (f.number == SPAN_STATUS_MESSAGE && f.wire == PB_BYTES)
			v->status_message = text_of(&f);
		else if (f.number == SPAN_STATUS_CODE && f.wire == PB_VARINT)
			v->status_code = (uint32_t)f.value;
	}
	return more;
}

static int read_field(struct span_view *v, const struct pb_field *f)
{
	switch (f->number) {
	case SPAN_TRACE_ID:
		return read_id(v->trace_id, sizeof(v->trace_id), f);
	case SPAN_SPAN_ID:
		return read_id(v->span_id, sizeof(v->span_id), f);
	case SPAN_PARENT_SPAN_ID:
		return read_parent(v, f);
	case SPAN_STATUS:
		return read_status(v, f);
	case SPAN_NAME:
		if (f->wire == PB_BYTES)
			v->name = text_of(f);
		return f->wire == PB_BYTES ? 0 : ERR_FORMAT;
	case SPAN_KIND:
		v->otlp_kind = (uint32_t)f->value;
		return f->wire == PB_VARINT ? 0 : ERR_FORMAT;
	case SPAN_START:
		v->start_ns = f->value;
		return f->wire == PB_FIXED64 ? 0 : ERR_FORMAT;
	case SPAN_END:
		v->end_ns = f->value;
		return f->wire == PB_FIXED64 ? 0 : ERR_FORMAT;
	default:
		return 0;
	}
}

/* Leaves in *v what could be read, whatever it returns. */
static int read_span(struct span_view *v, struct str base)
{
	static const uint8_t none[sizeof(v->trace_id)];
	struct pb_cursor c = pb_cursor_of(base);
	struct pb_field f;
	int more;

	*v = (struct span_view){0};
	while ((more = pb_next(&c, &f)) > 0) {
		int err = read_field(v, &f);
		if (err)
			return err;
	}
	if (more < 0)
		return more;
	bool has_ids = memcmp(v->trace_id, none, sizeof(v->trace_id)) != 0 &&
	               memcmp(v->span_id, none, sizeof(v->span_id)) != 0;
	return has_ids ? 0 : ERR_FORMAT;
}

int span_view(struct span_view *ret, const struct span_record *rec)
{
	struct span_view v;
	int err = read_span(&v, rec->base);

	if (err == 0)
		*ret = v;
	return err;
}

/* A KeyValue's two halves; absent ones are empty, and an empty value is legal. */
static int read_key_value(struct str bytes, struct str *ret_key, struct str *ret_value)
{
	struct pb_cursor c = pb_cursor_of(bytes);
	struct pb_field f;
	int more;

	*ret_key = STR("");
	*ret_value = STR("");
	while ((more = pb_next(&c, &f)) > 0) {
		if (f.wire != PB_BYTES)
			continue;
		if (f.number == KEYVALUE_KEY)
			*ret_key = text_of(&f);
		else if (f.number == KEYVALUE_VALUE)
			*ret_value = text_of(&f);
	}
	return more;
}

/* 1: fn stopped it; 0: all seen; ERR_FORMAT. */
static int each_attribute(struct str message, uint32_t field, attr_fn *fn, void *ctx)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct pb_field f;
	struct str key, value;
	int more;

	while ((more = pb_next(&c, &f)) > 0) {
		if (f.number != field || f.wire != PB_BYTES)
			continue;
		int err = read_key_value(f.bytes, &key, &value);
		if (err)
			return err;
		if (!fn(ctx, key, value))
			return 1;
	}
	return more;
}

int span_attributes(const struct span_record *rec, bool content, attr_fn *fn, void *ctx)
{
	int done = each_attribute(rec->base, SPAN_ATTRIBUTES, fn, ctx);

	if (done == 0 && content)
		done = each_attribute(rec->content, SPAN_ATTRIBUTES, fn, ctx);
	return done < 0 ? done : 0;
}

/* AnyValue is a oneof: of several fields the last one holds. number 0: it is empty. */
static struct pb_field any_field(struct str any)
{
	struct pb_cursor c = pb_cursor_of(any);
	struct pb_field f, last = {0};
	int more;

	while ((more = pb_next(&c, &f)) > 0)
		if (f.number >= ANY_STRING && f.number <= ANY_BYTES)
			last = f;
	return more == 0 ? last : (struct pb_field){0};
}

struct string_search {
	struct str key, value;
};

static bool match_string(void *ctx, struct str key, struct str value)
{
	struct string_search *search = ctx;

	if (!str_eq(key, search->key))
		return true;
	struct pb_field f = any_field(value);
	if (f.number == ANY_STRING && f.wire == PB_BYTES)
		search->value = text_of(&f);
	return false;
}

struct str span_attribute_str(const struct span_record *rec, const char *key)
{
	struct string_search search = {.key = str_of(key)};

	return span_attributes(rec, true, match_string, &search) == 0 ? search.value
	                                                              : (struct str){0};
}

struct str resource_service_name(struct str resource)
{
	struct string_search search = {.key = STR("service.name")};

	return each_attribute(resource, RESOURCE_ATTRIBUTES, match_string, &search) >= 0
	               ? search.value
	               : (struct str){0};
}

/* --- JSON --- */

static void nested_json(struct json *j, struct str any, unsigned depth);

static void array_json(struct json *j, struct str values, unsigned depth)
{
	struct pb_cursor c = pb_cursor_of(values);
	struct pb_field f;

	jsonw_array(j);
	while (pb_next(&c, &f) > 0)
		if (f.number == LIST_VALUES && f.wire == PB_BYTES)
			nested_json(j, f.bytes, depth);
	jsonw_array_end(j);
}

static void kvlist_json(struct json *j, struct str values, unsigned depth)
{
	struct pb_cursor c = pb_cursor_of(values);
	struct pb_field f;
	struct str key, value;

	jsonw_object(j);
	while (pb_next(&c, &f) > 0) {
		if (f.number != LIST_VALUES || f.wire != PB_BYTES ||
		    read_key_value(f.bytes, &key, &value) != 0)
			continue;
		jsonw_key_str(j, key);
		nested_json(j, value, depth);
	}
	jsonw_object_end(j);
}

static void delimited_json(struct json *j, const struct pb_field *f, unsigned depth)
{
	switch (depth ? f->number : 0) {
	case ANY_STRING:
		jsonw_str(j, text_of(f));
		break;
	case ANY_ARRAY:
		array_json(j, f->bytes, depth - 1);
		break;
	case ANY_KVLIST:
		kvlist_json(j, f->bytes, depth - 1);
		break;
	case ANY_BYTES:
		jsonw_base64(j, f->bytes);
		break;
	default:
		jsonw_null(j);
	}
}

static void nested_json(struct json *j, struct str any, unsigned depth)
{
	struct pb_field f = any_field(any);
	double number;

	if (f.number == ANY_BOOL && f.wire == PB_VARINT) {
		jsonw_bool(j, f.value != 0);
	} else if (f.number == ANY_INT && f.wire == PB_VARINT) {
		jsonw_int(j, (int64_t)f.value);
	} else if (f.number == ANY_DOUBLE && f.wire == PB_FIXED64) {
		memcpy(&number, &f.value, sizeof(number));
		jsonw_double(j, number);
	} else if (f.wire == PB_BYTES) {
		delimited_json(j, &f, depth);
	} else {
		jsonw_null(j);
	}
}

void any_value_json(struct json *j, struct str any)
{
	nested_json(j, any, MAX_NESTING);
}

/* The keys of one JSON object, so that none is written twice: the first one stays. Keys past the
 * first MAX_KEYS distinct ones are not remembered. */
enum { MAX_KEYS = 256, KEY_SLOTS = 512 };

struct members {
	struct json *json;
	unsigned count;
	struct str slots[KEY_SLOTS];
};

static bool is_new_key(struct members *m, struct str key)
{
	uint32_t h = 2166136261u; // FNV-1a

	for (size_t i = 0; i < key.len; i++)
		h = (h ^ (uint8_t)key.p[i]) * 16777619u;
	uint32_t slot = (h ^ h >> 16) % KEY_SLOTS;
	for (; m->slots[slot].p; slot = (slot + 1) % KEY_SLOTS)
		if (str_eq(m->slots[slot], key))
			return false;
	if (m->count < MAX_KEYS) {
		m->slots[slot] = key;
		m->count++;
	}
	return true;
}

static bool write_member(void *ctx, struct str key, struct str value)
{
	struct members *m = ctx;

	if (is_new_key(m, key)) {
		jsonw_key_str(m->json, key);
		any_value_json(m->json, value);
	}
	return true;
}

void attributes_json_members(struct json *j, struct str message, uint32_t field)
{
	struct members m = {.json = j};

	// What comes before a malformed field is shown.
	(void)each_attribute(message, field, write_member, &m);
}

static void span_attributes_json(struct json *j, const struct span_record *rec, bool content)
{
	struct members m = {.json = j};

	jsonw_key(j, "attributes");
	jsonw_object(j);
	(void)span_attributes(rec, content, write_member, &m);
	jsonw_object_end(j);
}

static void event_json(struct json *j, struct str event)
{
	struct pb_cursor c = pb_cursor_of(event);
	struct pb_field f;
	struct str name = STR("");
	uint64_t time_ns = 0;

	while (pb_next(&c, &f) > 0) {
		if (f.number == EVENT_TIME && f.wire == PB_FIXED64)
			time_ns = f.value;
		else if (f.number == EVENT_NAME && f.wire == PB_BYTES)
			name = text_of(&f);
	}
	jsonw_object(j);
	jsonw_key(j, "name");
	jsonw_str(j, name);
	jsonw_key(j, "time");
	jsonw_time(j, time_ns);
	jsonw_key(j, "attributes");
	jsonw_object(j);
	attributes_json_members(j, event, EVENT_ATTRIBUTES);
	jsonw_object_end(j);
	jsonw_object_end(j);
}

static void events_json(struct json *j, struct str base)
{
	struct pb_cursor c = pb_cursor_of(base);
	struct pb_field f;

	jsonw_key(j, "events");
	jsonw_array(j);
	while (pb_next(&c, &f) > 0)
		if (f.number == SPAN_EVENTS && f.wire == PB_BYTES)
			event_json(j, f.bytes);
	jsonw_array_end(j);
}

static void status_json(struct json *j, const struct span_record *rec, struct str message)
{
	jsonw_key(j, "status");
	jsonw_object(j);
	jsonw_key(j, "code");
	jsonw_text(j, status_word((enum run_status)rec->head.status));
	jsonw_key(j, "message");
	jsonw_str(j, message.p ? message : STR(""));
	jsonw_object_end(j);
}

static void times_json(struct json *j, const struct span_view *v, bool running, uint64_t now_ns)
{
	uint64_t until = running ? now_ns : v->end_ns;

	jsonw_key(j, "start_time");
	jsonw_time(j, v->start_ns);
	jsonw_key(j, "end_time");
	jsonw_time(j, running ? 0 : v->end_ns);
	jsonw_key(j, "latency_ms");
	jsonw_ms(j, until > v->start_ns ? until - v->start_ns : 0);
}

static void ids_json(struct json *j, const struct span_view *v)
{
	jsonw_key(j, "trace_id");
	jsonw_hex(j, v->trace_id, sizeof(v->trace_id));
	jsonw_key(j, "span_id");
	jsonw_hex(j, v->span_id, sizeof(v->span_id));
	jsonw_key(j, "parent_span_id");
	if (v->has_parent)
		jsonw_hex(j, v->parent_id, sizeof(v->parent_id));
	else
		jsonw_null(j);
}

void span_json_members(struct json *j, const struct span_record *rec, bool content, uint64_t now_ns)
{
	struct span_view v;

	// A malformed span is shown as far as it could be read: better than a hole in a trace.
	(void)read_span(&v, rec->base);
	ids_json(j, &v);
	jsonw_key(j, "name");
	jsonw_str(j, v.name);
	jsonw_key(j, "kind");
	jsonw_text(j, kind_word((enum run_kind)rec->head.kind));
	times_json(j, &v, rec->head.status == STATUS_RUNNING, now_ns);
	status_json(j, rec, v.status_message);
	span_attributes_json(j, rec, content);
	events_json(j, rec->base);
	jsonw_key(j, "service");
	jsonw_str(j, resource_service_name(rec->resource));
}

void span_json(struct json *j, const struct span_record *rec, bool content, uint64_t now_ns)
{
	jsonw_object(j);
	span_json_members(j, rec, content, now_ns);
	jsonw_object_end(j);
}
