#include "core/event.h"

#include <stddef.h>

#include "base/caps.h"
#include "core/key_set.h"

/* What a field must be, and so where it goes. */
enum want {
	WANT_NAME,          // text, cut at CAP_NAME: struct str
	WANT_TEXT,          // text: struct str
	WANT_ANY,           // one value: struct str
	WANT_MAP,           // a map with keys of any type: struct str
	WANT_ATTRS,         // a map with text for keys, none twice: struct str
	WANT_TEXTS,         // an array of texts: struct str
	WANT_TEXT_OR_TEXTS, // struct str
	WANT_COUNT,         // an integer that is not negative: uint64_t
	WANT_INT,           // an integer: int64_t
	WANT_BOOL,
	WANT_VERSION,
	WANT_KIND,
	WANT_PARENT,
	WANT_ERROR,
};

struct field {
	struct str key;
	enum want want;
	size_t offset; // in struct event
};

struct fields {
	const struct field *list;
	unsigned count; // 32 at most: a bit set says which were seen
};

#define KEY(word)                                                                                  \
	{                                                                                          \
		word, sizeof(word) - 1                                                             \
	}
#define FIELDS(list) (&(const struct fields){list, sizeof(list) / sizeof(*(list))})

/* In the order in which clients write them: the search goes on where the last one ended. */
static const struct field hello_fields[] = {
	{KEY("v"), WANT_VERSION, offsetof(struct event, version)},
	{KEY("service"), WANT_NAME, offsetof(struct event, service)},
	{KEY("resource"), WANT_ATTRS, offsetof(struct event, resource)},
	{KEY("sdk"), WANT_NAME, offsetof(struct event, sdk)},
	{KEY("pid"), WANT_INT, offsetof(struct event, pid)},
	{KEY("owner"), WANT_COUNT, offsetof(struct event, owner)},
};

static const struct field start_fields[] = {
	{KEY("kind"), WANT_KIND, 0},
	{KEY("name"), WANT_NAME, offsetof(struct event, name)},
	{KEY("parent"), WANT_PARENT, 0},
	{KEY("traceparent"), WANT_TEXT, offsetof(struct event, traceparent)},
	{KEY("gather"), WANT_BOOL, offsetof(struct event, gather)},
	{KEY("session"), WANT_NAME, offsetof(struct event, session)},
	{KEY("user"), WANT_NAME, offsetof(struct event, user)},
	{KEY("model"), WANT_NAME, offsetof(struct event, model)},
	{KEY("provider"), WANT_NAME, offsetof(struct event, provider)},
	{KEY("input"), WANT_ANY, offsetof(struct event, input)},
	{KEY("tags"), WANT_TEXTS, offsetof(struct event, tags)},
	{KEY("attrs"), WANT_ATTRS, offsetof(struct event, attrs)},
};

static const struct field end_fields[] = {
	{KEY("input"), WANT_ANY, offsetof(struct event, input)},
	{KEY("output"), WANT_ANY, offsetof(struct event, output)},
	{KEY("usage"), WANT_MAP, offsetof(struct event, usage)},
	{KEY("model"), WANT_NAME, offsetof(struct event, model)},
	{KEY("finish"), WANT_TEXT_OR_TEXTS, offsetof(struct event, finish)},
	{KEY("error"), WANT_ERROR, 0},
	{KEY("attrs"), WANT_ATTRS, offsetof(struct event, attrs)},
};

static const struct field error_fields[] = {
	{KEY("type"), WANT_NAME, offsetof(struct event, error_type)},
	{KEY("message"), WANT_TEXT, offsetof(struct event, error_message)},
	{KEY("stack"), WANT_TEXT, offsetof(struct event, error_stack)},
};

static const struct field dropped_fields[] = {
	{KEY("count"), WANT_COUNT, offsetof(struct event, dropped)},
	{KEY("reason"), WANT_NAME, offsetof(struct event, reason)},
};

static const struct field child_fields[] = {
	{KEY("pid"), WANT_COUNT, offsetof(struct event, pid)},
	{KEY("exit"), WANT_COUNT, offsetof(struct event, exit)},
	{KEY("signal"), WANT_COUNT, offsetof(struct event, signal)},
};

/* The frame's cursor and the event it fills. */
struct decoder {
	struct mp c;
	struct event *ev;
};

static enum refusal read_fields(struct decoder *d, uint32_t count, const struct fields *known,
                                unsigned depth);

static inline enum refusal read_type(struct mp *c, enum mp_type type, struct mp_value *ret)
{
	enum refusal r = mp_read(c, ret);

	if (r != REFUSAL_NONE)
		return r;
	return ret->type == type ? REFUSAL_NONE : REFUSED_WRONG_TYPE;
}

/* The head of most texts, and of nearly all keys, is one byte. */
static inline enum refusal read_text(struct mp *c, struct str *ret)
{
	size_t left = (size_t)(c->end - c->p);
	struct mp_value v;

	if (left > 0 && (*c->p & 0xe0) == 0xa0 && (*c->p & 0x1fu) < left) {
		*ret = (struct str){(const char *)c->p + 1, *c->p & 0x1fu};
		c->p += 1 + ret->len;
	} else {
		enum refusal r = read_type(c, MP_STR, &v);
		if (r != REFUSAL_NONE)
			return r;
		*ret = v.s;
	}
	return is_utf8(*ret) ? REFUSAL_NONE : REFUSED_BAD_UTF8;
}

/* A value from where it begins to where the cursor stands. */
static inline struct str since(const uint8_t *begin, const struct mp *c)
{
	return (struct str){(const char *)begin, (size_t)(c->p - begin)};
}

/* ---- Values ---- */

static bool is_zero(const struct run_id *run)
{
	static const struct run_id zero;

	return memcmp(run, &zero, sizeof(zero)) == 0;
}

static enum refusal run_id_of_value(const struct mp_value *v, struct run_id *ret)
{
	if (v->type == MP_BIN) {
		if (v->s.len != sizeof(ret->b))
			return REFUSED_BAD_RUN_ID;
		memcpy(ret->b, v->s.p, sizeof(ret->b));
	} else if (v->type == MP_STR) {
		if (v->s.len == 0 || v->s.len > CAP_RUN_ID)
			return REFUSED_BAD_RUN_ID;
		if (!is_utf8(v->s))
			return REFUSED_BAD_UTF8;
		run_id_of_text(ret, v->s);
	} else {
		return REFUSED_WRONG_TYPE;
	}
	return is_zero(ret) ? REFUSED_BAD_RUN_ID : REFUSAL_NONE;
}

static enum refusal text_of_value(const struct mp_value *v, struct str *ret)
{
	if (v->type != MP_STR)
		return REFUSED_WRONG_TYPE;
	*ret = v->s;
	return is_utf8(v->s) ? REFUSAL_NONE : REFUSED_BAD_UTF8;
}

static enum refusal name_of_value(struct event *ev, const struct mp_value *v, struct str *ret)
{
	enum refusal r = text_of_value(v, ret);

	if (r == REFUSAL_NONE && ret->len > CAP_NAME) {
		ret->len = utf8_cut(ret->p, ret->len, CAP_NAME);
		ev->cut_fields++;
	}
	return r;
}

static enum refusal kind_of_value(struct event *ev, const struct mp_value *v)
{
	struct str word;
	enum refusal r = name_of_value(ev, v, &word);

	if (r != REFUSAL_NONE || word.len == 0)
		return r;
	ev->kind = kind_of(word);
	if (ev->kind == KIND_OTHER && !str_is(word, "other"))
		ev->kind_word = word;
	return REFUSAL_NONE;
}

static enum refusal version_of_value(struct event *ev, const struct mp_value *v)
{
	if (v->type != MP_INT && v->type != MP_UINT)
		return REFUSED_WRONG_TYPE;
	if (v->type != MP_INT || v->i != 1)
		return REFUSED_BAD_VERSION;
	ev->version = v->i;
	return REFUSAL_NONE;
}

/* The value of an attribute of a partial output: three of them are known. */
static enum refusal read_partial(struct decoder *d, struct str key, unsigned depth)
{
	bool is_text = str_is(key, "text"), is_at = str_is(key, "at");
	struct mp_value v;

	if (!is_text && !is_at && !str_is(key, "tokens"))
		return mp_skip(&d->c, depth);
	enum refusal r = mp_read(&d->c, &v);
	if (r != REFUSAL_NONE || v.type == MP_NIL)
		return r;
	if (is_text)
		return text_of_value(&v, &d->ev->text);
	if (v.type != MP_INT || v.i < 0)
		return REFUSED_WRONG_TYPE;
	*(is_at ? &d->ev->at : &d->ev->tokens) = v.i;
	return REFUSAL_NONE;
}

static enum refusal read_attrs(struct decoder *d, uint32_t count, uint32_t cap, unsigned depth)
{
	struct key_set set;
	struct str key;
	enum refusal r;

	if (count > cap)
		return REFUSED_TOO_MANY_KEYS;
	key_set_init(&set, count);
	for (; count > 0; count--) {
		r = read_text(&d->c, &key);
		if (r != REFUSAL_NONE)
			return r;
		if (!key_set_add(&set, key))
			return REFUSED_DUPLICATE_KEY;
		r = d->ev->is_partial ? read_partial(d, key, depth) : mp_skip(&d->c, depth);
		if (r != REFUSAL_NONE)
			return r;
	}
	return REFUSAL_NONE;
}

/* The elements of an array whose head was read. */
static enum refusal read_texts(struct mp *c, const struct mp_value *v, unsigned depth)
{
	struct str text;

	if (v->type != MP_ARRAY)
		return REFUSED_WRONG_TYPE;
	if (depth == 0)
		return REFUSED_TOO_DEEP;
	for (uint32_t i = 0; i < v->count; i++) {
		enum refusal r = read_text(c, &text);
		if (r != REFUSAL_NONE)
			return r;
	}
	return REFUSAL_NONE;
}

/* The pairs of a map whose head was read. */
static enum refusal read_map(struct decoder *d, const struct mp_value *v, enum want want,
                             unsigned depth)
{
	if (v->type != MP_MAP)
		return REFUSED_WRONG_TYPE;
	if (depth == 0)
		return REFUSED_TOO_DEEP;
	if (want == WANT_ATTRS)
		return read_attrs(d, v->count, CAP_ATTRS, depth - 1);
	if (want == WANT_ERROR) {
		d->ev->has_error = true;
		return read_fields(d, v->count, FIELDS(error_fields), depth - 1);
	}
	for (uint64_t n = 2 * (uint64_t)v->count; n > 0; n--) {
		enum refusal r = mp_skip(&d->c, depth - 1);
		if (r != REFUSAL_NONE)
			return r;
	}
	return REFUSAL_NONE;
}

/* A value whose bytes are handed on as they are, from begin. */
static enum refusal read_raw(struct decoder *d, const struct field *f, const uint8_t *begin,
                             const struct mp_value *v, unsigned depth)
{
	enum refusal r = REFUSAL_NONE;
	struct str text;

	switch (f->want) {
	case WANT_TEXTS:
		r = read_texts(&d->c, v, depth);
		break;
	case WANT_TEXT_OR_TEXTS:
		r = v->type == MP_STR ? text_of_value(v, &text) : read_texts(&d->c, v, depth);
		break;
	case WANT_ANY:
		if (v->type != MP_MAP && v->type != MP_ARRAY)
			break;
		d->c.p = begin;
		r = mp_skip(&d->c, depth);
		break;
	default:
		r = read_map(d, v, f->want, depth);
	}
	if (r == REFUSAL_NONE && f->want != WANT_ERROR)
		*(struct str *)((char *)d->ev + f->offset) = since(begin, &d->c);
	return r;
}

static enum refusal read_field(struct decoder *d, const struct field *f, unsigned depth)
{
	const uint8_t *begin = d->c.p;
	void *to = (char *)d->ev + f->offset;
	struct mp_value v;
	enum refusal r = mp_read(&d->c, &v);

	if (r != REFUSAL_NONE || v.type == MP_NIL)
		return r;
	switch (f->want) {
	case WANT_NAME:
		return name_of_value(d->ev, &v, to);
	case WANT_TEXT:
		return text_of_value(&v, to);
	case WANT_KIND:
		return kind_of_value(d->ev, &v);
	case WANT_PARENT:
		d->ev->has_parent = true;
		return run_id_of_value(&v, &d->ev->parent);
	case WANT_VERSION:
		return version_of_value(d->ev, &v);
	case WANT_COUNT:
	case WANT_INT:
		if (v.type != MP_INT || (f->want == WANT_COUNT && v.i < 0))
			return REFUSED_WRONG_TYPE;
		memcpy(to, &v.i, sizeof(v.i));
		return REFUSAL_NONE;
	case WANT_BOOL:
		if (v.type != MP_BOOL)
			return REFUSED_WRONG_TYPE;
		*(bool *)to = v.b;
		return REFUSAL_NONE;
	default:
		return read_raw(d, f, begin, &v, depth);
	}
}

/* ---- A map of fields ---- */

/* The index of key, searched from `from` on and round; known->count if it is not there. */
static unsigned find_field(const struct fields *known, struct str key, unsigned from)
{
	for (unsigned n = 0, i = from; n < known->count; n++, i++) {
		if (i >= known->count)
			i = 0;
		if (key_eq(known->list[i].key, key))
			return i;
	}
	return known->count;
}

static bool was_seen(const struct str *seen, uint32_t count, struct str key)
{
	for (uint32_t i = 0; i < count; i++)
		if (key_eq(seen[i], key))
			return true;
	return false;
}

static enum refusal read_fields(struct decoder *d, uint32_t count, const struct fields *known,
                                unsigned depth)
{
	struct str unknown[CAP_TOP_KEYS], key;
	uint32_t unknown_count = 0, seen = 0;
	unsigned i = 0;
	enum refusal r;

	if (count > CAP_TOP_KEYS)
		return REFUSED_TOO_MANY_KEYS;
	for (; count > 0; count--) {
		r = read_text(&d->c, &key);
		if (r != REFUSAL_NONE)
			return r;
		i = find_field(known, key, i);
		if (i < known->count) {
			if (seen & 1u << i)
				return REFUSED_DUPLICATE_KEY;
			seen |= 1u << i;
			r = read_field(d, &known->list[i++], depth);
		} else {
			if (was_seen(unknown, unknown_count, key))
				return REFUSED_DUPLICATE_KEY;
			unknown[unknown_count++] = key;
			r = mp_skip(&d->c, depth);
		}
		if (r != REFUSAL_NONE)
			return r;
	}
	d->ev->unknown_keys += unknown_count;
	return REFUSAL_NONE;
}

/* ---- Messages ---- */

static enum refusal read_run_and_times(struct decoder *d)
{
	uint64_t *const times[] = {&d->ev->unix_ns, &d->ev->mono_ns};
	struct mp_value v;
	enum refusal r = mp_read(&d->c, &v);

	if (r == REFUSAL_NONE)
		r = run_id_of_value(&v, &d->ev->run);
	for (int i = 0; r == REFUSAL_NONE && i < 2; i++) {
		r = mp_read(&d->c, &v);
		if (r != REFUSAL_NONE)
			return r;
		if (v.type != MP_INT && v.type != MP_UINT)
			return REFUSED_WRONG_TYPE;
		if (v.type == MP_UINT || v.i < 0)
			return REFUSED_BAD_TIME;
		*times[i] = v.u;
	}
	return r;
}

/* The message's own map, whose elements may nest depth deep. */
static enum refusal read_message_map(struct decoder *d, const struct fields *known)
{
	struct mp_value v;
	enum refusal r = read_type(&d->c, MP_MAP, &v);

	return r == REFUSAL_NONE ? read_fields(d, v.count, known, CAP_DEPTH - 2) : r;
}

static enum refusal read_run_message(struct decoder *d, const struct fields *known)
{
	enum refusal r = read_run_and_times(d);

	return r == REFUSAL_NONE ? read_message_map(d, known) : r;
}

static enum refusal read_point(struct decoder *d)
{
	struct mp_value v;
	enum refusal r = read_run_and_times(d);

	if (r == REFUSAL_NONE)
		r = mp_read(&d->c, &v);
	if (r == REFUSAL_NONE)
		r = name_of_value(d->ev, &v, &d->ev->name);
	if (r == REFUSAL_NONE && d->ev->name.len == 0)
		r = REFUSED_WRONG_TYPE;
	if (r != REFUSAL_NONE)
		return r;
	const uint8_t *begin = d->c.p;
	r = read_type(&d->c, MP_MAP, &v);
	d->ev->is_partial = str_is(d->ev->name, "partial_output");
	d->ev->at = -1;
	if (r == REFUSAL_NONE)
		r = read_attrs(d, v.count, CAP_TOP_KEYS, CAP_DEPTH - 2);
	d->ev->attrs = since(begin, &d->c);
	return r;
}

static enum refusal read_flush(struct decoder *d)
{
	struct mp_value v;
	enum refusal r = read_type(&d->c, MP_INT, &v);

	if (r != REFUSAL_NONE)
		return r;
	d->ev->token = v.u;
	return v.i < 0 ? REFUSED_WRONG_TYPE : REFUSAL_NONE;
}

/* Its numbers are judged when all are known. */
static enum refusal read_child(struct decoder *d)
{
	struct event *ev = d->ev;

	ev->exit = ev->signal = -1;
	enum refusal r = read_message_map(d, FIELDS(child_fields));
	if (r != REFUSAL_NONE)
		return r;
	bool sound = ev->pid > 0 && ev->pid <= INT32_MAX && ev->exit <= 255 && ev->signal != 0 &&
	             ev->signal <= 127 && (ev->exit < 0 || ev->signal < 0);
	return sound ? REFUSAL_NONE : REFUSED_WRONG_TYPE;
}

/* Type and array head: how many elements each message has; 0 for what no client may send. */
static enum refusal read_head(struct decoder *d)
{
	static const uint8_t lengths[] = {
		[EVENT_HELLO] = 2, [EVENT_START] = 5,   [EVENT_END] = 5, [EVENT_POINT] = 6,
		[EVENT_FLUSH] = 2, [EVENT_DROPPED] = 2, [EVENT_BYE] = 2, [EVENT_CHILD] = 2,
	};
	struct mp_value array, type;
	enum refusal r = read_type(&d->c, MP_ARRAY, &array);

	if (r != REFUSAL_NONE)
		return r;
	if (array.count == 0)
		return REFUSED_WRONG_TYPE;
	r = mp_read(&d->c, &type);
	if (r != REFUSAL_NONE)
		return r;
	if (type.type != MP_INT || type.i < 0 || type.i >= (int64_t)sizeof(lengths) ||
	    lengths[type.i] == 0)
		return REFUSED_UNKNOWN_TYPE;
	d->ev->type = (enum event_type)type.i;
	return array.count == lengths[type.i] ? REFUSAL_NONE : REFUSED_WRONG_TYPE;
}

static enum refusal read_message(struct decoder *d)
{
	enum refusal r = read_head(d);

	if (r != REFUSAL_NONE)
		return r;
	switch (d->ev->type) {
	case EVENT_HELLO:
		d->ev->version = 1;
		return read_message_map(d, FIELDS(hello_fields));
	case EVENT_START:
		return read_run_message(d, FIELDS(start_fields));
	case EVENT_END:
		return read_run_message(d, FIELDS(end_fields));
	case EVENT_POINT:
		return read_point(d);
	case EVENT_FLUSH:
		return read_flush(d);
	case EVENT_DROPPED:
		return read_message_map(d, FIELDS(dropped_fields));
	case EVENT_BYE:
		return read_message_map(d, &(const struct fields){NULL, 0});
	case EVENT_CHILD:
		return read_child(d);
	default:
		return REFUSED_UNKNOWN_TYPE;
	}
}

enum refusal event_decode(struct event *ret, const uint8_t *body, size_t len)
{
	struct decoder d = {.c = {body, body + len}, .ev = ret};

	memset(ret, 0, sizeof(*ret));
	enum refusal r = read_message(&d);
	if (r != REFUSAL_NONE)
		return r;
	return d.c.p == d.c.end ? REFUSAL_NONE : REFUSED_TRAILING_BYTES;
}
