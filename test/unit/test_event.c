#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "core/event.h"

#define VECTORS SOURCE_ROOT "/proto/vectors/"

struct bytes {
	uint8_t *p;
	size_t len;
};

/* Exactly as long as they are, so that a sanitizer sees a read past the end. */
static struct bytes bytes_of_hex(const char *hex)
{
	struct bytes b = {malloc(strlen(hex) / 2 + 1), strlen(hex) / 2};

	b.p = realloc(b.p, b.len ? b.len : 1);
	assert_non_null(b.p);
	assert_true(hex_read(b.p, b.len, hex));
	return b;
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static json_t *load(const char *path)
{
	json_error_t error;
	json_t *vectors = json_load_file(path, 0, &error);

	if (!vectors)
		fail_msg("%s:%d: %s", path, error.line, error.text);
	assert_true(json_array_size(vectors) > 70);
	return vectors;
}

/* ---- A msgpack value against the JSON that describes it ---- */

static bool value_is(struct mp *c, const json_t *want);

static bool has_bytes(struct str s, const char *hex)
{
	struct bytes b = bytes_of_hex(hex);
	bool same = s.len == b.len && (s.len == 0 || memcmp(s.p, b.p, s.len) == 0);

	free(b.p);
	return same;
}

static bool int_is(const struct mp_value *v, const char *digits)
{
	if (v->type == MP_UINT)
		return v->u == strtoull(digits, NULL, 10);
	return v->type == MP_INT && v->i == strtoll(digits, NULL, 10);
}

static bool double_is(const struct mp_value *v, double want)
{
	return v->type == MP_DOUBLE && (v->d == want || (isnan(v->d) && isnan(want)));
}

static bool pairs_are(struct mp *c, const struct mp_value *v, const json_t *pairs)
{
	if (v->type != MP_MAP || v->count != json_array_size(pairs))
		return false;
	for (size_t i = 0; i < json_array_size(pairs); i++) {
		const json_t *pair = json_array_get(pairs, i);
		if (!value_is(c, json_array_get(pair, 0)) || !value_is(c, json_array_get(pair, 1)))
			return false;
	}
	return true;
}

/* {"$int": …} and its like. */
static bool special_is(struct mp *c, const struct mp_value *v, const char *kind, const json_t *want)
{
	if (strcmp(kind, "$int") == 0)
		return int_is(v, json_string_value(want));
	if (strcmp(kind, "$float") == 0)
		return double_is(v, strtod(json_string_value(want), NULL));
	if (strcmp(kind, "$bin") == 0)
		return v->type == MP_BIN && has_bytes(v->s, json_string_value(want));
	if (strcmp(kind, "$text") == 0)
		return v->type == MP_STR && has_bytes(v->s, json_string_value(want));
	if (strcmp(kind, "$ext") == 0)
		return v->type == MP_EXT &&
		       has_bytes(v->s, json_string_value(json_array_get(want, 1)));
	return pairs_are(c, v, want);
}

static bool map_is(struct mp *c, const struct mp_value *v, json_t *want)
{
	const char *key;
	json_t *element;

	json_object_foreach(want, key, element)
	{
		if (key[0] == '$')
			return special_is(c, v, key, element);
		break;
	}
	if (v->type != MP_MAP || v->count != json_object_size(want))
		return false;
	json_object_foreach(want, key, element)
	{
		struct mp_value k;
		if (mp_read(c, &k) != REFUSAL_NONE || k.type != MP_STR ||
		    !str_eq(k.s, str_of(key)) || !value_is(c, element))
			return false;
	}
	return true;
}

static bool array_is(struct mp *c, const struct mp_value *v, const json_t *want)
{
	if (v->type != MP_ARRAY || v->count != json_array_size(want))
		return false;
	for (size_t i = 0; i < json_array_size(want); i++)
		if (!value_is(c, json_array_get(want, i)))
			return false;
	return true;
}

static bool value_is(struct mp *c, const json_t *want)
{
	struct mp_value v;

	if (mp_read(c, &v) != REFUSAL_NONE)
		return false;
	switch (json_typeof(want)) {
	case JSON_OBJECT:
		return map_is(c, &v, (json_t *)want);
	case JSON_ARRAY:
		return array_is(c, &v, want);
	case JSON_STRING:
		return v.type == MP_STR && v.s.len == json_string_length(want) &&
		       memcmp(v.s.p, json_string_value(want), v.s.len) == 0;
	case JSON_INTEGER:
		return v.type == MP_INT && v.i == json_integer_value(want);
	case JSON_REAL:
		return double_is(&v, json_real_value(want));
	case JSON_TRUE:
	case JSON_FALSE:
		return v.type == MP_BOOL && v.b == json_is_true(want);
	case JSON_NULL:
		return v.type == MP_NIL;
	}
	return false;
}

/* ---- A decoded event against its message ---- */

static const char *current; // the vector, for what a failure says

static void assert_value(struct str value, const json_t *want, const char *what)
{
	struct mp c = mp_of(value);

	if (!value.p || !value_is(&c, want) || c.p != c.end)
		fail_msg("%s: %s is not what was sent", current, what);
}

static void assert_text(struct str got, const json_t *want, const char *what)
{
	if (!got.p || got.len != json_string_length(want) ||
	    memcmp(got.p, json_string_value(want), got.len) != 0)
		fail_msg("%s: %s is not what was sent", current, what);
}

static void assert_id(const void *got, size_t size, const json_t *ids, const char *key)
{
	struct bytes want = bytes_of_hex(text_of(ids, key));

	assert_int_equal(want.len, size);
	assert_memory_equal(got, want.p, size);
	free(want.p);
}

static bool assert_text_field(const struct event *ev, const char *key, const json_t *want)
{
	const struct {
		const char *key;
		struct str got;
	} texts[] = {
		{"name", ev->name},       {"traceparent", ev->traceparent},
		{"session", ev->session}, {"user", ev->user},
		{"model", ev->model},     {"provider", ev->provider},
		{"service", ev->service}, {"sdk", ev->sdk},
		{"reason", ev->reason},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (strcmp(key, texts[i].key) == 0) {
			assert_text(texts[i].got, want, key);
			return true;
		}
	return false;
}

static bool assert_value_field(const struct event *ev, const char *key, const json_t *want)
{
	const struct {
		const char *key;
		struct str got;
	} values[] = {
		{"input", ev->input},       {"output", ev->output}, {"tags", ev->tags},
		{"attrs", ev->attrs},       {"usage", ev->usage},   {"finish", ev->finish},
		{"resource", ev->resource},
	};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		if (strcmp(key, values[i].key) == 0) {
			assert_value(values[i].got, want, key);
			return true;
		}
	return false;
}

static void assert_error(const struct event *ev, const json_t *error)
{
	assert_true(ev->has_error);
	if (json_object_get(error, "type"))
		assert_text(ev->error_type, json_object_get(error, "type"), "error type");
	if (json_object_get(error, "message"))
		assert_text(ev->error_message, json_object_get(error, "message"), "error message");
	if (json_object_get(error, "stack"))
		assert_text(ev->error_stack, json_object_get(error, "stack"), "error stack");
}

static void assert_kind(const struct event *ev, const json_t *want)
{
	enum run_kind kind = kind_of(str_of(json_string_value(want)));

	assert_int_equal(ev->kind, kind);
	if (kind == KIND_OTHER && strcmp(json_string_value(want), "other") != 0)
		assert_text(ev->kind_word, want, "kind");
	else
		assert_null(ev->kind_word.p);
}

/* False for a field that this version does not know. */
static bool assert_field(const struct event *ev, const char *key, const json_t *want,
                         const json_t *ids)
{
	bool start = ev->type == EVENT_START;

	if (ev->type == EVENT_BYE || (start && strcmp(key, "") == 0))
		return false;
	if (assert_text_field(ev, key, want) || assert_value_field(ev, key, want))
		return true;
	if (strcmp(key, "kind") == 0)
		assert_kind(ev, want);
	else if (strcmp(key, "parent") == 0)
		assert_id(ev->parent.b, 16, ids, "parent");
	else if (strcmp(key, "error") == 0)
		assert_error(ev, want);
	else if (strcmp(key, "v") == 0)
		assert_int_equal(ev->version, json_integer_value(want));
	else if (strcmp(key, "pid") == 0)
		assert_int_equal(ev->pid, json_integer_value(want));
	else if (strcmp(key, "owner") == 0)
		assert_int_equal(ev->owner, json_integer_value(want));
	else if (strcmp(key, "gather") == 0)
		assert_int_equal(ev->gather, json_is_true(want));
	else if (ev->type == EVENT_CHILD && strcmp(key, "exit") == 0)
		assert_int_equal(ev->exit, json_integer_value(want));
	else if (ev->type == EVENT_CHILD && strcmp(key, "signal") == 0)
		assert_int_equal(ev->signal, json_integer_value(want));
	else if (strcmp(key, "count") == 0)
		assert_int_equal(ev->dropped, json_integer_value(want));
	else
		return false;
	return true;
}

static void assert_fields(const struct event *ev, json_t *fields, const json_t *ids)
{
	uint32_t unknown = 0;
	const char *key;
	json_t *want;

	json_object_foreach(fields, key, want)
	{
		if (!json_is_null(want) && !assert_field(ev, key, want, ids))
			unknown++;
	}
	assert_int_equal(ev->unknown_keys, unknown);
	assert_true(ev->has_parent == json_is_string(json_object_get(ids, "parent")));
	assert_true(ev->has_error == !!json_object_get(fields, "error"));
}

static uint64_t uint_of(const json_t *message, const char *key)
{
	const json_t *v = json_object_get(message, key);

	if (json_is_object(v))
		return strtoull(text_of(v, "$int"), NULL, 10);
	return (uint64_t)json_integer_value(v);
}

static void assert_partial(const struct event *ev, const json_t *message)
{
	const json_t *fields = json_object_get(message, "fields");
	const json_t *text = json_object_get(fields, "text");

	assert_int_equal(ev->is_partial, str_is(ev->name, "partial_output"));
	if (ev->is_partial && json_is_string(text))
		assert_text(ev->text, text, "text");
	else
		assert_null(ev->text.p);
	if (!ev->is_partial) {
		assert_int_equal(ev->tokens, 0);
		return;
	}
	const json_t *at = json_object_get(fields, "at");
	assert_int_equal(ev->at, json_is_integer(at) ? json_integer_value(at) : -1);
	if (!json_is_null(json_object_get(fields, "tokens")))
		assert_int_equal(ev->tokens, uint_of(fields, "tokens"));
}

static void assert_event(const struct event *ev, const json_t *vector)
{
	const json_t *message = json_object_get(vector, "message");
	const json_t *ids = json_object_get(vector, "ids");
	uint8_t span[8];

	if (ev->type == EVENT_FLUSH) {
		assert_int_equal(ev->token, uint_of(message, "token"));
		return;
	}
	if (ids) {
		assert_id(ev->run.b, 16, ids, "run");
		span_id_of(span, &ev->run);
		assert_id(span, 8, ids, "span");
		assert_int_equal(ev->unix_ns, uint_of(message, "unix_ns"));
		assert_int_equal(ev->mono_ns, uint_of(message, "mono_ns"));
	}
	if (ev->type == EVENT_CHILD) {
		json_t *fields = json_object_get(message, "fields");
		assert_true((ev->exit >= 0) == json_is_integer(json_object_get(fields, "exit")));
		assert_true((ev->signal >= 0) ==
		            json_is_integer(json_object_get(fields, "signal")));
	}
	if (ev->type == EVENT_POINT) {
		assert_text(ev->name, json_object_get(message, "name"), "name");
		assert_value(ev->attrs, json_object_get(message, "fields"), "attributes");
		assert_partial(ev, message);
		return;
	}
	assert_fields(ev, json_object_get(message, "fields"), ids);
}

/* ---- The vectors ---- */

static int type_of(const json_t *message)
{
	static const char *const names[] = {"hello",   "start",   "end", "event", "flush",
	                                    "flushed", "dropped", "bye", "error", "child"};

	for (int i = 0; i < 10; i++)
		if (strcmp(text_of(message, "type"), names[i]) == 0)
			return i;
	return -1;
}

static struct bytes body_of(const json_t *vector)
{
	struct bytes frame = bytes_of_hex(text_of(vector, "frame"));

	assert_true(frame.len >= 4);
	size_t len = (size_t)frame.p[0] << 24 | (size_t)frame.p[1] << 16 | (size_t)frame.p[2] << 8 |
	             frame.p[3];
	assert_int_equal(len, frame.len - 4);
	uint8_t *body = malloc(len ? len : 1);
	assert_non_null(body);
	memcpy(body, frame.p + 4, len);
	free(frame.p);
	return (struct bytes){body, len};
}

static void every_good_frame_decodes_to_its_message(void **state)
{
	json_t *vectors = load(VECTORS "good.json");

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		struct bytes body = body_of(vector);
		struct event ev;
		enum refusal r = event_decode(&ev, body.p, body.len);

		current = text_of(vector, "name");
		if (strcmp(text_of(vector, "from"), "collector") == 0) {
			assert_string_equal(refusal_label(r), "unknown_type");
		} else {
			if (r != REFUSAL_NONE)
				fail_msg("%s: %s", current, refusal_label(r));
			assert_int_equal(ev.type, type_of(json_object_get(vector, "message")));
			assert_event(&ev, vector);
		}
		free(body.p);
	}
	json_decref(vectors);
}

/* What the collector sends is read back through the cursor alone. */
static void the_collectors_own_frames_hold_their_message(void **state)
{
	json_t *vectors = load(VECTORS "good.json");
	int seen = 0;

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		const json_t *message = json_object_get(vector, "message");
		if (strcmp(text_of(vector, "from"), "collector") != 0)
			continue;
		struct bytes body = body_of(vector);
		struct mp c = {body.p, body.p + body.len};
		struct mp_value v;

		assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
		assert_int_equal(v.count, 2);
		assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
		assert_int_equal(v.i, type_of(message));
		const json_t *rest = json_object_get(message, v.i == 5 ? "token" : "fields");
		assert_true(value_is(&c, rest));
		assert_ptr_equal(c.p, c.end);
		free(body.p);
		seen++;
	}
	assert_true(seen >= 2);
	json_decref(vectors);
}

static void every_good_frame_cut_anywhere_is_malformed(void **state)
{
	json_t *vectors = load(VECTORS "good.json");

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		struct bytes body = body_of(vector);
		struct event ev;

		if (strcmp(text_of(vector, "from"), "client") != 0)
			body.len = 0;
		// Long texts are cut in the same way everywhere: a thousand places will do.
		size_t step = body.len / 1000 + 1;
		for (size_t len = 0; len < body.len; len += step) {
			uint8_t *cut = malloc(len ? len : 1);
			assert_non_null(cut);
			memcpy(cut, body.p, len);
			assert_int_equal(event_decode(&ev, cut, len), REFUSED_MALFORMED);
			free(cut);
		}
		free(body.p);
	}
	json_decref(vectors);
}

static void every_bad_frame_is_refused_with_its_reason(void **state)
{
	json_t *vectors = load(VECTORS "bad.json");

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		if (json_object_get(vector, "prefix"))
			continue;
		struct bytes body = body_of(vector);
		struct event ev;
		enum refusal r = event_decode(&ev, body.p, body.len);

		if (r == REFUSAL_NONE || strcmp(refusal_label(r), text_of(vector, "reason")) != 0)
			fail_msg("%s: %s instead of %s", text_of(vector, "name"),
			         r ? refusal_label(r) : "accepted", text_of(vector, "reason"));
		free(body.p);
	}
	json_decref(vectors);
}

/* msgpack-c allocates what a head claims and stops at 32 levels: it is kept from those. */
static bool oracle_can_judge(const json_t *vector)
{
	return !json_object_get(vector, "prefix") && !json_object_get(vector, "several") &&
	       strncmp(text_of(vector, "name"), "claims-", 7) != 0 &&
	       strcmp(text_of(vector, "name"), "deep-thousands") != 0;
}

static void assert_oracle_agrees(const json_t *vector)
{
	const char *reason = text_of(vector, "reason");
	struct bytes body = body_of(vector);
	msgpack_unpacked result;
	size_t offset = 0;

	msgpack_unpacked_init(&result);
	msgpack_unpack_return r =
		msgpack_unpack_next(&result, (const char *)body.p, body.len, &offset);
	bool one_value = r == MSGPACK_UNPACK_SUCCESS && offset == body.len;
	if (reason && strcmp(reason, "malformed") == 0)
		assert_int_not_equal(r, MSGPACK_UNPACK_SUCCESS);
	else if (reason && strcmp(reason, "trailing_bytes") == 0)
		assert_true(r == MSGPACK_UNPACK_SUCCESS && offset < body.len);
	else if (!one_value && !(reason && strcmp(reason, "wrong_type") == 0))
		fail_msg("%s: msgpack-c says %d", text_of(vector, "name"), r);
	msgpack_unpacked_destroy(&result);
	free(body.p);
}

static void msgpack_c_agrees_on_what_is_msgpack(void **state)
{
	static const char *const files[] = {VECTORS "good.json", VECTORS "bad.json"};

	for (int f = 0; f < 2; f++) {
		json_t *vectors = load(files[f]);
		for (size_t i = 0; i < json_array_size(vectors); i++)
			if (oracle_can_judge(json_array_get(vectors, i)))
				assert_oracle_agrees(json_array_get(vectors, i));
		json_decref(vectors);
	}
}

/* ---- What the vectors don't show ---- */

static void long_names_are_cut_at_a_character_and_counted(void **state)
{
	static uint8_t body[4096];
	static const uint8_t head[] = "\x95\x01\xc4\x10"
				      "0123456789abcdef\x01\x01\x82\xa4name\xda\x08\x01";
	size_t n = sizeof(head) - 1;
	struct event ev;

	// 1023 letters, then two-byte characters: the cut at 1024 would split the first.
	memcpy(body, head, n);
	memset(body + n, 'x', 1023);
	for (size_t i = 1023; i < 2049; i += 2)
		memcpy(body + n + i, "\xc3\xa9", 2);
	n += 2049;
	memcpy(body + n, "\xa4kind\xa4tool", 10);
	assert_int_equal(event_decode(&ev, body, n + 10), REFUSAL_NONE);
	assert_int_equal(ev.name.len, 1023);
	assert_int_equal(ev.cut_fields, 1);
	assert_int_equal(ev.kind, KIND_TOOL);
}

static void absent_fields_have_no_text(void **state)
{
	static const uint8_t body[] = "\x92\x00\x80";
	struct event ev;

	memset(&ev, 0xff, sizeof(ev));
	assert_int_equal(event_decode(&ev, body, 3), REFUSAL_NONE);
	assert_null(ev.service.p);
	assert_null(ev.resource.p);
	assert_int_equal(ev.version, 1);
	assert_int_equal(ev.pid, 0);
	assert_false(ev.has_parent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_good_frame_decodes_to_its_message),
		cmocka_unit_test(the_collectors_own_frames_hold_their_message),
		cmocka_unit_test(every_good_frame_cut_anywhere_is_malformed),
		cmocka_unit_test(every_bad_frame_is_refused_with_its_reason),
		cmocka_unit_test(msgpack_c_agrees_on_what_is_msgpack),
		cmocka_unit_test(long_names_are_cut_at_a_character_and_counted),
		cmocka_unit_test(absent_fields_have_no_text),
	};

	return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
