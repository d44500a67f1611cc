/* pack.c - see pack.h. */
#include "pack.h"

#include <errno.h>
#include <string.h>

#define MAX_TEXT (64 * 1024)
#define MAX_DEPTH 8
#define MAX_NODES 20000
#define MAX_ATTRS 1000
#define MAX_KEY 256
#define RUN_ID_BYTES 16

struct out {
	unsigned char *at;
	unsigned char *end;
	Py_ssize_t nodes;
};

/* Only one call at a time has the GIL, and keeps it as long as it uses this. */
static unsigned char buffer[MAX_TEXT];

/* ---- msgpack ---- */

static bool put(struct out *o, const void *data, size_t size)
{
	if ((size_t)(o->end - o->at) < size)
		return false;
	memcpy(o->at, data, size);
	o->at += size;
	return true;
}

/* A tag and a big-endian number of that many bytes. */
static bool put_tagged(struct out *o, unsigned char tag, uint64_t n, int bytes)
{
	unsigned char head[9] = {tag};

	for (int i = bytes; i > 0; i--, n >>= 8)
		head[i] = (unsigned char)n;
	return put(o, head, (size_t)bytes + 1);
}

static bool put_byte(struct out *o, uint64_t byte)
{
	unsigned char c = (unsigned char)byte;

	return put(o, &c, 1);
}

static bool put_uint(struct out *o, uint64_t n)
{
	if (n < 0x80)
		return put_byte(o, n);
	if (n <= UINT8_MAX)
		return put_tagged(o, 0xcc, n, 1);
	if (n <= UINT16_MAX)
		return put_tagged(o, 0xcd, n, 2);
	if (n <= UINT32_MAX)
		return put_tagged(o, 0xce, n, 4);
	return put_tagged(o, 0xcf, n, 8);
}

static bool put_int(struct out *o, int64_t n)
{
	if (n >= 0)
		return put_uint(o, (uint64_t)n);
	if (n >= -32)
		return put_byte(o, (uint64_t)n);
	if (n >= INT8_MIN)
		return put_tagged(o, 0xd0, (uint64_t)n, 1);
	if (n >= INT16_MIN)
		return put_tagged(o, 0xd1, (uint64_t)n, 2);
	if (n >= INT32_MIN)
		return put_tagged(o, 0xd2, (uint64_t)n, 4);
	return put_tagged(o, 0xd3, (uint64_t)n, 8);
}

static bool put_long(struct out *o, PyObject *value)
{
	int overflow = 0;
	int64_t n = PyLong_AsLongLongAndOverflow(value, &overflow);

	if (!overflow)
		return put_int(o, n);
	if (overflow < 0)
		return false;
	uint64_t u = PyLong_AsUnsignedLongLong(value);
	return !PyErr_Occurred() && put_uint(o, u);
}

static bool put_float(struct out *o, PyObject *value)
{
	double d = PyFloat_AsDouble(value);
	uint64_t bits = 0;

	memcpy(&bits, &d, sizeof(bits));
	return put_tagged(o, 0xcb, bits, 8);
}

static bool put_text(struct out *o, PyObject *value)
{
	Py_ssize_t size = 0;
	bool fits = false;

	if (PyUnicode_GetLength(value) > MAX_TEXT)
		return false; // before Python makes and keeps a copy of it
	const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size);
	size_t n = (size_t)size;
	if (!utf8)
		return false; // a lone surrogate
	if (n < 32)
		fits = put_byte(o, 0xa0 | n);
	else if (n <= UINT8_MAX)
		fits = put_tagged(o, 0xd9, n, 1);
	else if (n <= UINT16_MAX)
		fits = put_tagged(o, 0xda, n, 2);
	return fits && put(o, utf8, n);
}

static bool put_bytes(struct out *o, PyObject *value)
{
	char *data = NULL;
	Py_ssize_t size = 0;

	if (PyBytes_AsStringAndSize(value, &data, &size) < 0 || size > UINT16_MAX)
		return false;
	bool fits = size <= UINT8_MAX ? put_tagged(o, 0xc4, (uint64_t)size, 1)
	                              : put_tagged(o, 0xc5, (uint64_t)size, 2);
	return fits && put(o, data, (size_t)size);
}

/* The head of an array or a map: `fix` is its tag for up to 15 elements, `tag` for up to 65535. */
static bool put_head(struct out *o, unsigned fix, unsigned char tag, Py_ssize_t count)
{
	o->nodes += count;
	if (count > UINT16_MAX || o->nodes > MAX_NODES)
		return false;
	return count < 16 ? put_byte(o, fix | (uint64_t)count)
	                  : put_tagged(o, tag, (uint64_t)count, 2);
}

static bool put_value(struct out *o, PyObject *value, int depth);

/* ---- LangChain's messages, as _messages.py words them ---- */

enum { ROLE, CONTENT, NAME, TOOL_CALLS, TOOL_CALL_ID, INVALID_TOOL_CALLS, ID, ARGS, WORDS };

static PyObject *words[WORDS];
static const char *const word_names[WORDS] = {"role",       "content",      "name",
                                              "tool_calls", "tool_call_id", "invalid_tool_calls",
                                              "id",         "args"};

#define MAX_KNOWN 16

static struct known {
	PyTypeObject *type;
	PyObject *role;
} known[MAX_KNOWN];
static int known_count;

bool pack_has_plain_keys(PyObject *map)
{
	PyObject *key = NULL;
	Py_ssize_t at = 0;

	while (PyDict_Next(map, &at, &key, NULL))
		if (!PyUnicode_CheckExact(key))
			return false;
	return true;
}

static bool is_true(PyObject *value)
{
	return value && PyObject_IsTrue(value) == 1;
}

/* Looks only into what is plain, whose truth and length no Python code tells. */
static bool is_plain_or_none(PyObject *value)
{
	return !value || value == Py_None || PyUnicode_CheckExact(value) ||
	       PyList_CheckExact(value);
}

static bool put_call(struct out *o, PyObject *call, int depth)
{
	static const int order[] = {ID, NAME, ARGS};

	if (!PyDict_CheckExact(call) || !pack_has_plain_keys(call) || !put_head(o, 0x80, 0xde, 3))
		return false;
	for (int k = 0; k < 3; k++) {
		PyObject *value = PyDict_GetItemWithError(call, words[order[k]]);

		if (!put_text(o, words[order[k]]) || !put_value(o, value ? value : Py_None, depth))
			return false;
	}
	return true;
}

static bool put_calls(struct out *o, PyObject *calls, int depth)
{
	Py_ssize_t count = PyList_Size(calls);

	for (Py_ssize_t i = 0; depth < MAX_DEPTH && i < count; i++)
		if (!put_call(o, PyList_GetItem(calls, i), depth + 1))
			return false;
	return depth < MAX_DEPTH;
}

static bool put_all_calls(struct out *o, PyObject *calls, PyObject *broken, int depth)
{
	calls = is_true(calls) ? calls : NULL;
	broken = is_true(broken) ? broken : NULL;
	if (depth >= MAX_DEPTH || (calls && !PyList_CheckExact(calls)) ||
	    (broken && !PyList_CheckExact(broken)))
		return false;
	Py_ssize_t count = (calls ? PyList_Size(calls) : 0) + (broken ? PyList_Size(broken) : 0);
	return put_text(o, words[TOOL_CALLS]) && put_head(o, 0x90, 0xdc, count) &&
	       (!calls || put_calls(o, calls, depth + 1)) &&
	       (!broken || put_calls(o, broken, depth + 1));
}

static bool put_word(struct out *o, int word, PyObject *value, int depth)
{
	return put_text(o, words[word]) && put_value(o, value, depth);
}

/* What a message may lack. Returns how many fields that were, or -1. */
static int put_optional(struct out *o, PyObject *const value[WORDS], int depth)
{
	int count = 0;

	if (is_true(value[NAME])) {
		if (!put_word(o, NAME, value[NAME], depth))
			return -1;
		count++;
	}
	if (is_true(value[TOOL_CALLS]) || is_true(value[INVALID_TOOL_CALLS])) {
		if (!put_all_calls(o, value[TOOL_CALLS], value[INVALID_TOOL_CALLS], depth))
			return -1;
		count++;
	}
	if (is_true(value[TOOL_CALL_ID])) {
		if (!put_word(o, TOOL_CALL_ID, value[TOOL_CALL_ID], depth))
			return -1;
		count++;
	}
	return count;
}

static bool put_held(struct out *o, PyObject *held, PyObject *role, int depth)
{
	PyObject *value[WORDS];
	unsigned char *head = o->at;

	if (!pack_has_plain_keys(held))
		return false;
	for (int w = CONTENT; w <= INVALID_TOOL_CALLS; w++) {
		value[w] = PyDict_GetItemWithError(held, words[w]);
		if (w != CONTENT && !is_plain_or_none(value[w]))
			return false;
	}
	if (!value[CONTENT] || !put_byte(o, 0x80) || !put_text(o, words[ROLE]) ||
	    !put_text(o, role) || !put_word(o, CONTENT, value[CONTENT], depth))
		return false;
	int more = put_optional(o, value, depth);
	if (more < 0)
		return false;
	*head = (unsigned char)(0x82 + more);
	o->nodes += 2 + more;
	return true;
}

PyObject *pack_role(PyObject *object)
{
	for (int i = 0; i < known_count; i++)
		if (known[i].type == Py_TYPE(object))
			return known[i].role;
	return NULL;
}

bool pack_is_message(PyObject *object)
{
	return pack_role(object) != NULL;
}

/* An object of a type that pack_know() was told of; its dict is read without its own code. */
static bool put_message(struct out *o, PyObject *message, int depth)
{
	PyObject *role = pack_role(message);
	PyObject *held = role ? PyObject_GenericGetDict(message, NULL) : NULL;
	bool done = held && PyDict_CheckExact(held) && put_held(o, held, role, depth);

	Py_XDECREF(held);
	return done;
}

bool pack_know(PyTypeObject *type, PyObject *role)
{
	if (known_count == MAX_KNOWN)
		return false;
	Py_INCREF(type);
	Py_INCREF(role);
	known[known_count++] = (struct known){type, role};
	return true;
}

static bool put_list(struct out *o, PyObject *list, int depth)
{
	bool is_list = PyList_CheckExact(list);
	Py_ssize_t count = is_list ? PyList_Size(list) : PyTuple_Size(list);

	if (!put_head(o, 0x90, 0xdc, count))
		return false;
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *item = is_list ? PyList_GetItem(list, i) : PyTuple_GetItem(list, i);

		if (!put_value(o, item, depth))
			return false;
	}
	return true;
}

/* A longer one is cut beside a message, and kept beside what is plain. */
static bool put_key(struct out *o, PyObject *key)
{
	const unsigned char *head = o->at;

	return put_text(o, key) && o->at - head <= MAX_KEY + 3;
}

static bool put_map(struct out *o, PyObject *map, int depth)
{
	PyObject *key = NULL;
	PyObject *value = NULL;
	Py_ssize_t at = 0;

	if (!put_head(o, 0x80, 0xde, PyDict_Size(map)))
		return false;
	while (PyDict_Next(map, &at, &key, &value))
		if (!PyUnicode_CheckExact(key) || !put_key(o, key) || !put_value(o, value, depth))
			return false;
	return true;
}

/* `depth` is the number of containers around the value, a message's fields not counted. */
static bool put_value(struct out *o, PyObject *value, int depth)
{
	if (PyUnicode_CheckExact(value))
		return put_text(o, value);
	if (value == Py_None)
		return put_byte(o, 0xc0);
	if (PyBool_Check(value))
		return put_byte(o, value == Py_True ? 0xc3 : 0xc2);
	if (PyLong_CheckExact(value))
		return put_long(o, value);
	if (PyFloat_CheckExact(value))
		return put_float(o, value);
	if (PyBytes_CheckExact(value))
		return put_bytes(o, value);
	if (depth >= MAX_DEPTH)
		return false;
	if (PyDict_CheckExact(value))
		return put_map(o, value, depth + 1);
	if (PyList_CheckExact(value) || PyTuple_CheckExact(value))
		return put_list(o, value, depth + 1);
	return put_message(o, value, depth + 1);
}

/* ---- The fields of a start and of an end ---- */

struct field {
	const char *name;
	enum pack_form form;
	PyObject *key;
};

#define AS_FIELD(word, name, form) {name, PACK_##form, NULL},

static struct field fields_of_start[] = {PACK_START(AS_FIELD){NULL, PACK_ANY, NULL}};
static struct field fields_of_end[] = {PACK_END(AS_FIELD){NULL, PACK_ANY, NULL}};

static bool is_texts(PyObject *value)
{
	bool is_list = PyList_CheckExact(value);

	if (!is_list && !PyTuple_CheckExact(value))
		return false;
	Py_ssize_t count = is_list ? PyList_Size(value) : PyTuple_Size(value);
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *item = is_list ? PyList_GetItem(value, i) : PyTuple_GetItem(value, i);

		if (!PyUnicode_CheckExact(item))
			return false;
	}
	return true;
}

static bool is_run_id(PyObject *value)
{
	static const char zero[RUN_ID_BYTES];

	return PyBytes_CheckExact(value) && PyBytes_Size(value) == RUN_ID_BYTES &&
	       memcmp(PyBytes_AsString(value), zero, RUN_ID_BYTES) != 0;
}

static bool has_form(PyObject *value, enum pack_form form)
{
	switch (form) {
	case PACK_TEXT:
		return PyUnicode_CheckExact(value);
	case PACK_RUN:
		return is_run_id(value);
	case PACK_TEXTS:
		return is_texts(value);
	case PACK_TEXT_OR_TEXTS:
		return PyUnicode_CheckExact(value) || is_texts(value);
	case PACK_MAP:
		return PyDict_CheckExact(value) && PyDict_Size(value) <= MAX_ATTRS;
	case PACK_ANY:
		return true;
	}
	return false;
}

/* Left out: None, and lists and maps that have nothing to say. */
static bool is_absent(PyObject *value, enum pack_form form)
{
	if (value == Py_None)
		return true;
	if (form == PACK_TEXTS && PyTuple_CheckExact(value))
		return PyTuple_Size(value) == 0;
	return (form == PACK_MAP && PyDict_CheckExact(value) && PyDict_Size(value) == 0) ||
	       (form == PACK_TEXTS && PyList_CheckExact(value) && PyList_Size(value) == 0);
}

static bool put_fields(struct out *o, PyObject *const *values, const struct field *table)
{
	unsigned char *head = o->at;
	unsigned char count = 0;

	if (!put_byte(o, 0x80))
		return false;
	for (const struct field *f = table; f->name; f++) {
		PyObject *value = values[f - table];

		if (!value || is_absent(value, f->form))
			continue;
		if (!has_form(value, f->form) || !put_text(o, f->key) || !put_value(o, value, 0))
			return false;
		count++;
	}
	*head = 0x80 | count;
	o->nodes += count;
	return o->nodes <= MAX_NODES;
}

static const struct field *table_of(int kind)
{
	return kind == 1 ? fields_of_start : kind == 2 ? fields_of_end : NULL;
}

bool pack_find(int kind, PyObject *fields, PyObject *values[PACK_FIELDS])
{
	const struct field *table = table_of(kind);
	Py_ssize_t found = 0;

	if (!table || !PyDict_CheckExact(fields) || !pack_has_plain_keys(fields))
		return false;
	for (const struct field *f = table; f->name; f++) {
		values[f - table] = PyDict_GetItemWithError(fields, f->key);
		found += values[f - table] != NULL;
	}
	return found == PyDict_Size(fields);
}

size_t pack_run(int kind, PyObject *run_id, int64_t unix_ns, int64_t mono_ns,
                PyObject *const values[PACK_FIELDS], const unsigned char **ret_frame)
{
	struct out o = {buffer + 4, buffer + MAX_TEXT, 0};
	bool fits = (PyUnicode_CheckExact(run_id) || PyBytes_CheckExact(run_id)) &&
	            put_byte(&o, 0x95) && put_byte(&o, (uint64_t)kind) &&
	            put_value(&o, run_id, 0) && put_int(&o, unix_ns) && put_int(&o, mono_ns) &&
	            put_fields(&o, values, table_of(kind));

	PyErr_Clear();
	if (!fits)
		return 0;
	size_t size = (size_t)(o.at - buffer);
	uint32_t body = (uint32_t)size - 4;
	for (int i = 3; i >= 0; i--, body >>= 8)
		buffer[i] = (unsigned char)body;
	*ret_frame = buffer;
	return size;
}

static bool name_fields(struct field *table)
{
	for (struct field *f = table; f->name; f++)
		if (!(f->key = PyUnicode_InternFromString(f->name)))
			return false;
	return true;
}

int pack_init(void)
{
	for (int w = 0; w < WORDS; w++)
		if (!(words[w] = PyUnicode_InternFromString(word_names[w])))
			return -ENOMEM;
	return name_fields(fields_of_start) && name_fields(fields_of_end) ? 0 : -ENOMEM;
}
