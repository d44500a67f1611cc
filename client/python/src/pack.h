/* pack.h - a start or an end as a frame, if all its values are plain.
 *
 * What isn't is left to _wire.py, so there is no rule in here that isn't there: the frames are the
 * same, byte for byte. No Python code runs in here as long as the garbage collector is off: only
 * exact types are looked into, and a dict is searched only if its keys are exact strings. So
 * nothing that is read can change meanwhile.
 *
 * A frame is at most 64 KiB; so no string in it can be longer than a string may be.
 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Once, before all else. Returns -ENOMEM, with Python's error set. */
int pack_init(void);

/** Objects of this very type are LangChain's messages. False: there are too many types already. */
bool pack_know(PyTypeObject *type, PyObject *role);

/** The role of an object whose type is one of those, borrowed; else NULL. */
PyObject *pack_role(PyObject *object);

bool pack_is_message(PyObject *object);

/** Whether an exact dict may be searched: a key of another type may compare itself in Python. */
bool pack_has_plain_keys(PyObject *map);

/* The fields of a start and of an end, in the order of the protocol's tables. */
#define PACK_START(X)                                                                              \
	X(START_KIND, "kind", TEXT)                                                                \
	X(START_NAME, "name", TEXT)                                                                \
	X(START_PARENT, "parent", RUN)                                                             \
	X(START_TRACEPARENT, "traceparent", TEXT)                                                  \
	X(START_SESSION, "session", TEXT)                                                          \
	X(START_USER, "user", TEXT)                                                                \
	X(START_MODEL, "model", TEXT)                                                              \
	X(START_PROVIDER, "provider", TEXT)                                                        \
	X(START_INPUT, "input", ANY)                                                               \
	X(START_TAGS, "tags", TEXTS)                                                               \
	X(START_ATTRS, "attrs", MAP)
#define PACK_END(X)                                                                                \
	X(END_INPUT, "input", ANY)                                                                 \
	X(END_OUTPUT, "output", ANY)                                                               \
	X(END_USAGE, "usage", MAP)                                                                 \
	X(END_MODEL, "model", TEXT)                                                                \
	X(END_FINISH, "finish", TEXT_OR_TEXTS)                                                     \
	X(END_ERROR, "error", ANY)                                                                 \
	X(END_ATTRS, "attrs", MAP)
#define PACK_FIELDS 11 // at most

#define PACK_AS_ENUM(word, name, form) word,

enum pack_start { PACK_START(PACK_AS_ENUM) };
enum pack_end { PACK_END(PACK_AS_ENUM) };
enum pack_form { PACK_TEXT, PACK_RUN, PACK_ANY, PACK_TEXTS, PACK_TEXT_OR_TEXTS, PACK_MAP };

/** Finds the fields of a start (1) or of an end (2) in a dict. False: it is no plain one, or has
 * others. */
bool pack_find(int kind, PyObject *fields, PyObject *values[PACK_FIELDS]);

/** A start (1) or an end (2); NULL and None are absent fields. Returns its size, or 0 if it isn't
 * plain; never sets an error.
 *
 * `ret_frame` is valid until the next call or until the GIL is given up. */
size_t pack_run(int kind, PyObject *run_id, int64_t unix_ns, int64_t mono_ns,
                PyObject *const values[PACK_FIELDS], const unsigned char **ret_frame);
