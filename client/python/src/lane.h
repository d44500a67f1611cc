/* lane.h - a connection on which an event is packed and sent in one call.
 *
 * It does what _transport.py does while nothing waits to be sent, and says no to everything else.
 * It keeps the GIL from the look at the queue until after the send.
 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <stdbool.h>

/** The type `Lane`, once; NULL with Python's error set. */
PyObject *lane_init(void);

/** Whether it is a Lane on which nothing waits to be sent. */
bool lane_is_clear(PyObject *object);

/** Sends a start (1) or an end (2) of now, with fields as pack_run() takes them. False: nothing was
 * sent, it is Python's to do; never sets an error. The garbage collector is off. */
bool lane_report(PyObject *lane, int kind, PyObject *run_id, PyObject *const *values);
