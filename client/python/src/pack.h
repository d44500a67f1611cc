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

/** A start (1) or an end (2). Returns its size, or 0 if it isn't plain; never sets an error.
 *
 * `ret_frame` is valid until the next call or until the GIL is given up. */
size_t pack_run(int kind, PyObject *run_id, int64_t unix_ns, int64_t mono_ns, PyObject *fields,
                const unsigned char **ret_frame);
