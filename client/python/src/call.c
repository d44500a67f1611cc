/* call.c - see call.h. */
#include "call.h"

#include <errno.h>

#define RUN_ID_BYTES 16

#define AS_TEXT(word, text) text,

static const char *const texts[CALL_WORD_COUNT] = {CALL_WORDS(AS_TEXT)};
PyObject *call_words[CALL_WORD_COUNT];

static PyObject *sixty_four;
static PyTypeObject *uuid;

int call_init(void)
{
	for (int w = 0; w < CALL_WORD_COUNT; w++)
		if (!(call_words[w] = PyUnicode_InternFromString(texts[w])))
			return -ENOMEM;
	return (sixty_four = PyLong_FromLong(64)) ? 0 : -ENOMEM;
}

int call_take(PyObject *module, const char *name, PyObject **ret_thing)
{
	PyObject *thing = PyDict_GetItemString(module, name);

	if (!thing) {
		PyErr_SetString(PyExc_AttributeError, name);
		return -1;
	}
	Py_INCREF(thing);
	*ret_thing = thing;
	return 0;
}

void call_know_ids(PyTypeObject *type)
{
	uuid = type;
}

bool call_is_none(PyObject *value)
{
	return !value || value == Py_None;
}

PyObject *call_get(PyObject *dict, enum word word)
{
	return dict ? PyDict_GetItemWithError(dict, call_words[word]) : NULL;
}

PyObject *call_dict(struct call *c, PyObject *value)
{
	if (call_is_none(value))
		return NULL;
	if (PyDict_CheckExact(value) && pack_has_plain_keys(value))
		return PyDict_Size(value) ? value : NULL;
	c->odd = true;
	return NULL;
}

bool call_is_true(struct call *c, PyObject *value)
{
	if (call_is_none(value))
		return false;
	if (PyUnicode_CheckExact(value) || PyDict_CheckExact(value) || PyList_CheckExact(value) ||
	    PyLong_CheckExact(value) || PyBool_Check(value))
		return PyObject_IsTrue(value) == 1;
	c->odd = true;
	return false;
}

PyObject *call_either(struct call *c, PyObject *a, PyObject *b)
{
	return call_is_true(c, a) ? a : b;
}

bool call_is_same_text(PyObject *a, PyObject *b)
{
	return a && b && PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) &&
	       PyUnicode_Compare(a, b) == 0;
}

void call_set_attribute(struct call *c, PyObject *key, PyObject *value)
{
	if (!call_is_none(value) && PyDict_SetItem(c->attrs, key, value) < 0)
		c->odd = true;
}

PyObject *call_argument(struct call *c, Py_ssize_t n)
{
	PyObject *value = n < PyTuple_Size(c->args) ? PyTuple_GetItem(c->args, n) : NULL;

	c->odd = c->odd || !value;
	return value;
}

PyObject *call_id(struct call *c, PyObject *value)
{
	unsigned char bytes[RUN_ID_BYTES];
	PyObject *n =
		value && Py_TYPE(value) == uuid ? PyObject_GetAttr(value, call_words[INT]) : NULL;
	PyObject *high = n && PyLong_CheckExact(n) ? PyNumber_Rshift(n, sixty_four) : NULL;
	PyObject *id = NULL;

	if (high) {
		uint64_t half[] = {PyLong_AsUnsignedLongLongMask(high),
		                   PyLong_AsUnsignedLongLongMask(n)};
		for (int i = 0; i < RUN_ID_BYTES; i++)
			bytes[i] = (unsigned char)(half[i / 8] >> (56 - i % 8 * 8));
		id = PyBytes_FromStringAndSize((const char *)bytes, sizeof(bytes));
	}
	Py_XDECREF(high);
	Py_XDECREF(n);
	c->odd = c->odd || !id;
	return id;
}

PyObject *call_held(struct call *c, PyObject *object)
{
	PyObject *held = PyObject_GenericGetDict(object, NULL);
	bool plain = held && PyDict_CheckExact(held) && pack_has_plain_keys(held);

	Py_XDECREF(held);
	c->odd = c->odd || !plain;
	return plain ? held : NULL;
}
