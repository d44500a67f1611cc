/* lane.h - a connection on which an event is packed and sent in one call.
 *
 * It sends only while nothing waits to be sent, and keeps the GIL from the look at the queue until
 * after the send; what has to wait is left to _transport.py.
 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <stdbool.h>

/** The type `Lane`, once; NULL with Python's error set. */
PyObject *lane_init(void);

/** Packs a start (1) or an end (2) of now, with fields as pack_run() takes them, and sends it where
 * nothing waits to be sent before it. `lane` may be None. False: it is not plain; never sets an
 * error. The garbage collector is off.
 *
 * `ret_frame`: NULL when it is on its way, else the frame, owned, which Python has to emit. */
bool lane_report(PyObject *lane, int kind, PyObject *run_id, PyObject *const *values,
                 PyObject **ret_frame);
