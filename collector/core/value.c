#include "core/value.h"

#include "base/caps.h"
#include "core/otlp_fields.h"
#include "core/pb.h"

static struct str clip(struct str s, size_t max)
{
	return (struct str){s.p, utf8_cut(s.p, s.len, max)};
}

struct str value_spend(struct str s, size_t *budget)
{
	if (s.len < *budget) {
		*budget -= s.len;
		return s;
	}
	s = clip(s, *budget ? *budget - 1 : 0);
	*budget = 0;
	return s;
}

static void container_json(struct json *j, struct mp *c, const struct mp_value *v, size_t *budget);

static void scalar_json(struct json *j, const struct mp_value *v, size_t *budget)
{
	switch (v->type) {
	case MP_BOOL:
		jsonw_bool(j, v->b);
		break;
	case MP_INT:
		jsonw_int(j, v->i);
		break;
	case MP_UINT:
		jsonw_uint(j, v->u);
		break;
	case MP_DOUBLE:
		jsonw_double(j, v->d);
		break;
	case MP_STR:
		jsonw_str(j, value_spend(v->s, budget));
		break;
	case MP_BIN:
		jsonw_base64(j, value_spend(v->s, budget));
		break;
	default:
		jsonw_null(j);
	}
}

void value_json(struct json *j, struct mp *c, size_t *budget)
{
	struct mp_value v;

	if (mp_read(c, &v) != REFUSAL_NONE) {
		jsonw_null(j);
		return;
	}
	if (v.type == MP_ARRAY || v.type == MP_MAP)
		container_json(j, c, &v, budget);
	else
		scalar_json(j, &v, budget);
}

/* A key that is no text becomes its own JSON, as text. */
static void key_json(struct json *j, struct mp *c, size_t *budget)
{
	struct mp at = *c;
	struct mp_value v;

	if (mp_read(c, &v) == REFUSAL_NONE && v.type == MP_STR) {
		jsonw_key_str(j, value_spend(v.s, budget));
		return;
	}
	struct buf text;
	struct json inner;
	*c = at;
	buf_init(&text, 4096);
	jsonw_init(&inner, &text);
	value_json(&inner, c, budget);
	jsonw_key_str(j, (struct str){text.data ? (char *)text.data : "", text.len});
	buf_deinit(&text);
}

static void container_json(struct json *j, struct mp *c, const struct mp_value *v, size_t *budget)
{
	if (v->type == MP_ARRAY) {
		jsonw_array(j);
		for (uint32_t i = 0; i < v->count && c->p < c->end; i++)
			value_json(j, c, budget);
		jsonw_array_end(j);
		return;
	}
	jsonw_object(j);
	for (uint32_t i = 0; i < v->count && c->p < c->end; i++) {
		key_json(j, c, budget);
		value_json(j, c, budget);
	}
	jsonw_object_end(j);
}

struct str value_key(struct mp *c)
{
	struct mp at = *c;
	struct mp_value v;

	if (mp_read(c, &v) == REFUSAL_NONE && v.type == MP_STR)
		return v.s;
	*c = at;
	if (mp_skip(c, CAP_DEPTH) != REFUSAL_NONE)
		c->p = c->end;
	return (struct str){0};
}

/* A string field whose bad bytes are replaced. */
static void pb_text(struct buf *out, uint32_t field, struct str s)
{
	if (utf8_is_valid(s.p, s.len)) {
		pb_str(out, field, s);
		return;
	}
	size_t text = pb_begin(out, field);
	buf_append_utf8(out, s.p, s.len);
	pb_end(out, text);
}

void value_attr_text(struct buf *out, uint32_t field, struct str key, struct str text)
{
	if (utf8_is_valid(text.p, text.len)) {
		pb_attr_str(out, field, key, text);
		return;
	}
	size_t kv = pb_begin(out, field);
	pb_str(out, KEYVALUE_KEY, key);
	size_t any = pb_begin(out, KEYVALUE_VALUE);
	pb_text(out, ANY_STRING, text);
	pb_end(out, any);
	pb_end(out, kv);
}

struct str value_text(struct str value, size_t max, struct buf *scratch, size_t *ret_full)
{
	struct mp c = mp_of(value);
	struct mp at = c;
	struct mp_value v;
	struct json j;

	*ret_full = 0;
	if (mp_read(&c, &v) != REFUSAL_NONE)
		return (struct str){0};
	if (v.type == MP_STR) {
		*ret_full = v.s.len;
		return clip(v.s, max);
	}
	// Texts inside share the limit, so that what is cut is still JSON.
	size_t budget = max + 1;
	buf_clear(scratch);
	jsonw_init(&j, scratch);
	value_json(&j, &at, &budget);
	if (budget == 0)
		*ret_full = value.len > scratch->len ? value.len : scratch->len + 1;
	if (buf_error(scratch))
		return (struct str){0};
	return (struct str){(const char *)scratch->data, scratch->len};
}

static void any_value(struct buf *out, struct mp *c, size_t max, unsigned *cut);

static void any_key_value(struct buf *out, uint32_t field, struct mp *c, size_t max, unsigned *cut)
{
	size_t kv = pb_begin(out, field);

	pb_text(out, KEYVALUE_KEY, clip(value_key(c), CAP_ATTR_KEY));
	size_t any = pb_begin(out, KEYVALUE_VALUE);
	any_value(out, c, max, cut);
	pb_end(out, any);
	pb_end(out, kv);
}

static void any_text(struct buf *out, uint32_t field, struct str s, size_t max, unsigned *cut)
{
	struct str kept =
		field == ANY_STRING ? clip(s, max) : (struct str){s.p, s.len < max ? s.len : max};

	*cut += kept.len < s.len;
	if (field == ANY_STRING)
		pb_text(out, field, kept);
	else
		pb_str(out, field, kept);
}

static void any_container(struct buf *out, struct mp *c, const struct mp_value *v, size_t max,
                          unsigned *cut)
{
	bool is_array = v->type == MP_ARRAY;
	size_t list = pb_begin(out, is_array ? ANY_ARRAY : ANY_KVLIST);

	for (uint32_t i = 0; i < v->count && c->p < c->end; i++) {
		if (!is_array) {
			any_key_value(out, 1, c, max, cut);
			continue;
		}
		size_t element = pb_begin(out, 1);
		any_value(out, c, max, cut);
		pb_end(out, element);
	}
	pb_end(out, list);
}

static void any_value(struct buf *out, struct mp *c, size_t max, unsigned *cut)
{
	struct mp_value v;

	if (mp_read(c, &v) != REFUSAL_NONE)
		return;
	switch (v.type) {
	case MP_BOOL:
		pb_uint(out, ANY_BOOL, v.b);
		break;
	case MP_INT:
		pb_uint(out, ANY_INT, (uint64_t)v.i);
		break;
	case MP_UINT: // past what OTLP's integers hold
		pb_double(out, ANY_DOUBLE, (double)v.u);
		break;
	case MP_DOUBLE:
		pb_double(out, ANY_DOUBLE, v.d);
		break;
	case MP_STR:
		any_text(out, ANY_STRING, v.s, max, cut);
		break;
	case MP_BIN:
		any_text(out, ANY_BYTES, v.s, max, cut);
		break;
	case MP_ARRAY:
	case MP_MAP:
		any_container(out, c, &v, max, cut);
		break;
	default: // nil, ext: an empty AnyValue
		break;
	}
}

/* An attribute of a plain value is written at once; false for the others. */
static bool plain_attr(struct buf *out, uint32_t field, struct str key, const struct mp_value *v,
                       size_t max, unsigned *cut)
{
	switch (v->type) {
	case MP_BOOL:
		pb_attr_bool(out, field, key, v->b);
		return true;
	case MP_INT:
		pb_attr_int(out, field, key, v->i);
		return true;
	case MP_DOUBLE:
		pb_attr_double(out, field, key, v->d);
		return true;
	case MP_STR:
		*cut += v->s.len > max;
		value_attr_text(out, field, key, clip(v->s, max));
		return true;
	default:
		return false;
	}
}

static void attribute(struct buf *out, uint32_t field, struct mp *c, size_t max, unsigned *cut)
{
	struct mp at = *c;
	struct str key = clip(value_key(c), CAP_ATTR_KEY);
	struct mp_value v;

	if (utf8_is_valid(key.p, key.len) && mp_read(c, &v) == REFUSAL_NONE &&
	    plain_attr(out, field, key, &v, max, cut))
		return;
	*c = at;
	any_key_value(out, field, c, max, cut);
}

/* The key of the next attribute of a message; false at its end. */
static bool next_key(struct pb_cursor *c, uint32_t field, struct str *ret)
{
	struct pb_field f, key;

	while (pb_next(c, &f) == 1) {
		if (f.number != field || f.wire != PB_BYTES)
			continue;
		struct pb_cursor kv = pb_cursor_of(f.bytes);
		if (pb_next(&kv, &key) != 1 || key.wire != PB_BYTES)
			continue;
		*ret = key.bytes;
		return true;
	}
	return false;
}

bool value_has_attribute(struct str message, uint32_t field, struct str key)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct str there;

	while (next_key(&c, field, &there))
		if (str_eq(there, key))
			return true;
	return false;
}

/* One of 64 bits for a key: enough to tell at once that most are new. */
static uint64_t key_bit(struct str key)
{
	if (key.len == 0)
		return 1;
	return 1ull << ((key.len * 7 + (uint8_t)key.p[key.len - 1] * 3u +
	                 (uint8_t)key.p[key.len / 2]) &
	                63);
}

static uint64_t key_bits(struct str message, uint32_t field)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct str key;
	uint64_t bits = 0;

	while (next_key(&c, field, &key))
		bits |= key_bit(key);
	return bits;
}

/* there: the part of out that a key must not be in. */
static unsigned attributes(struct buf *out, uint32_t field, struct str map, size_t max,
                           size_t there)
{
	uint64_t bits = key_bits((struct str){(const char *)out->data, there}, field);
	struct mp c = mp_of(map);
	struct mp_value v;
	unsigned cut = 0;

	if (!map.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_MAP)
		return 0;
	for (uint32_t i = 0; i < v.count && c.p < c.end; i++) {
		struct mp at = c;
		struct str key = clip(value_key(&c), CAP_ATTR_KEY);
		bool taken = (bits & key_bit(key)) &&
		             value_has_attribute((struct str){(const char *)out->data, there},
		                                 field, key);
		if (taken && mp_skip(&c, CAP_DEPTH) == REFUSAL_NONE)
			continue;
		c = at;
		attribute(out, field, &c, max, &cut);
	}
	return cut;
}

unsigned value_attributes(struct buf *out, uint32_t field, struct str map, size_t max)
{
	return attributes(out, field, map, max, 0);
}

unsigned value_new_attributes(struct buf *out, uint32_t field, struct str map, size_t max)
{
	return attributes(out, field, map, max, out->len);
}

struct str value_lookup(struct str map, const char *key)
{
	struct mp c = mp_of(map);
	struct mp_value v;

	if (!map.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_MAP)
		return (struct str){0};
	for (uint32_t i = 0; i < v.count && c.p < c.end; i++) {
		struct str k = value_key(&c);
		bool found = k.p && str_eq(k, str_of(key));
		const uint8_t *at = c.p;
		if (mp_skip(&c, CAP_DEPTH) != REFUSAL_NONE)
			break;
		if (found)
			return (struct str){(const char *)at, (size_t)(c.p - at)};
	}
	return (struct str){0};
}

struct str value_lookup_text(struct str map, const char *key)
{
	struct str value = value_lookup(map, key);
	struct mp c = mp_of(value);
	struct mp_value v;

	if (!value.p || mp_read(&c, &v) != REFUSAL_NONE || v.type != MP_STR)
		return (struct str){0};
	return v.s;
}
