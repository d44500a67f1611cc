/* fast.c - the short way of a start or an end: packed and sent in one call that keeps the GIL.
 *
 * It does what _wire.py and _transport.py do, for what is plain and while nothing waits to be
 * sent, and says "not I" to everything else. No Python code runs in here, so neither a signal
 * handler, nor a finalizer, nor another thread comes between the look at the queue and the send.
 * Before Python 3.12 that takes switching the garbage collector off: any allocation may start it.
 */
#include "pack.h"

#include <structmember.h>

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

static unsigned forks;

static void count_fork(void)
{
	forks++;
}

/* ---- A connection ---- */

struct lane {
	PyObject_HEAD int fd; // -1: closed
	char sent;            // something was, since Python last looked
	Py_ssize_t partial;   // bytes that were written of the queue's first frame
	unsigned forks;
	PyObject *turn; // empty: nobody is about to write
	PyObject *inbox;
	PyObject *queue;
};

static bool is_clear(const struct lane *lane)
{
	return lane->fd >= 0 && lane->forks == forks && PyDict_Size(lane->turn) == 0 &&
	       PyObject_Size(lane->inbox) == 0 && PyObject_Size(lane->queue) == 0;
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* What the kernel did not take goes into the queue; without memory for that, the connection is
 * given up, since half a frame can't be taken back. */
static void keep_rest(struct lane *lane, const unsigned char *data, size_t size, Py_ssize_t written)
{
	PyObject *frame = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
	PyObject *done = frame ? PyObject_CallMethod(lane->queue, "append", "O", frame) : NULL;

	if (done)
		lane->partial = written;
	else
		shutdown(lane->fd, SHUT_RDWR);
	Py_XDECREF(done);
	Py_XDECREF(frame);
	PyErr_Clear();
}

static bool report(struct lane *lane, int kind, PyObject *run_id, PyObject *fields)
{
	const unsigned char *frame = NULL;
	size_t size = pack_run(kind, run_id, now_ns(CLOCK_REALTIME), now_ns(CLOCK_MONOTONIC),
	                       fields, &frame);

	if (!size)
		return false;
	ssize_t written = send(lane->fd, frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (written <= 0)
		return false; // whoever tries next finds out why
	lane->sent = 1;
	if ((size_t)written < size)
		keep_rest(lane, frame, size, written);
	return true;
}

/* report(kind, run_id, fields): True when the event is on its way. */
static PyObject *lane_report(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct lane *lane = (struct lane *)self;

	if (count != 3) {
		PyErr_SetString(PyExc_TypeError, "report(kind, run_id, fields)");
		return NULL;
	}
	int kind = (int)PyLong_AsLong(args[0]);
	if (kind == -1 && PyErr_Occurred())
		return NULL;
	if (!is_clear(lane))
		Py_RETURN_FALSE;
	int collects = PyGC_Disable();
	bool sent = report(lane, kind, args[1], args[2]);
	if (collects)
		PyGC_Enable();
	return PyBool_FromLong(sent);
}

/* send(data, counts): appends the bytes sent; 0 or an errno. It works in any state. */
static PyObject *lane_send(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	struct lane *lane = (struct lane *)self;
	char *data = NULL;
	Py_ssize_t size = 0;

	if (count != 2 || PyBytes_AsStringAndSize(args[0], &data, &size) < 0) {
		PyErr_SetString(PyExc_TypeError, "send(data, counts)");
		return NULL;
	}
	if (lane->fd < 0)
		return PyLong_FromLong(ENOTCONN);
	ssize_t written = send(lane->fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (written < 0)
		return PyLong_FromLong(errno);
	PyObject *sent = PyLong_FromSsize_t(written);
	int kept = sent ? PyList_Append(args[1], sent) : -1;
	Py_XDECREF(sent);
	if (kept < 0) {
		shutdown(lane->fd, SHUT_RDWR); // or bytes would be sent twice
		return NULL;
	}
	return PyLong_FromLong(0);
}

static PyObject *lane_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *turn = NULL;
	PyObject *inbox = NULL;
	PyObject *queue = NULL;
	int fd = -1;

	if (!PyArg_ParseTuple(args, "iO!OO", &fd, &PyDict_Type, &turn, &inbox, &queue))
		return NULL;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct lane *lane = (struct lane *)alloc(type, 0);
	if (!lane)
		return NULL;
	lane->fd = fd;
	lane->forks = forks;
	Py_INCREF(turn);
	Py_INCREF(inbox);
	Py_INCREF(queue);
	lane->turn = turn;
	lane->inbox = inbox;
	lane->queue = queue;
	return (PyObject *)lane;
}

static void lane_dealloc(PyObject *self)
{
	struct lane *lane = (struct lane *)self;
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	Py_XDECREF(lane->turn);
	Py_XDECREF(lane->inbox);
	Py_XDECREF(lane->queue);
	release(self);
	Py_DECREF(type);
}

static PyMemberDef lane_members[] = {
	{"fd", T_INT, offsetof(struct lane, fd), 0, NULL},
	{"sent", T_BOOL, offsetof(struct lane, sent), 0, NULL},
	{"partial", T_PYSSIZET, offsetof(struct lane, partial), 0, NULL},
	{NULL, 0, 0, 0, NULL}};

static PyMethodDef lane_methods[] = {
	{"report", (PyCFunction)(void (*)(void))lane_report, METH_FASTCALL, NULL},
	{"send", (PyCFunction)(void (*)(void))lane_send, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL}};

static PyType_Slot lane_slots[] = {{Py_tp_new, (void *)lane_new},
                                   {Py_tp_dealloc, (void *)lane_dealloc},
                                   {Py_tp_members, lane_members},
                                   {Py_tp_methods, lane_methods},
                                   {0, NULL}};

static PyType_Spec lane_spec = {.name = "sidelight._fast.Lane",
                                .basicsize = sizeof(struct lane),
                                .flags = Py_TPFLAGS_DEFAULT,
                                .slots = lane_slots};

/* ---- The module ---- */

static PyObject *fast_know(PyObject *module, PyObject *args)
{
	PyObject *type = NULL;
	PyObject *role = NULL;

	if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &type, &PyUnicode_Type, &role))
		return NULL;
	(void)pack_know((PyTypeObject *)type, role); // the others are left to Python
	Py_RETURN_NONE;
}

static PyObject *fast_pack(PyObject *module, PyObject *args)
{
	int kind = 0;
	PyObject *run_id = NULL;
	PyObject *fields = NULL;
	long long unix_ns = 0;
	long long mono_ns = 0;

	if (!PyArg_ParseTuple(args, "iOLLO", &kind, &run_id, &unix_ns, &mono_ns, &fields))
		return NULL;
	const unsigned char *frame = NULL;
	int collects = PyGC_Disable();
	size_t size = pack_run(kind, run_id, unix_ns, mono_ns, fields, &frame);
	if (collects)
		PyGC_Enable();
	if (!size)
		Py_RETURN_NONE;
	return PyBytes_FromStringAndSize((const char *)frame, (Py_ssize_t)size);
}

static bool is_for_langsmith(PyObject *name)
{
	static const char prefix[] = "ls_";

	if (PyUnicode_GetLength(name) < 3)
		return false;
	for (Py_ssize_t i = 0; i < 3; i++)
		if (PyUnicode_ReadChar(name, i) != (Py_UCS4)prefix[i])
			return false;
	return true;
}

/* context(metadata, attrs, skipped): copies to attrs the scalars that have other names. */
static PyObject *fast_context(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	PyObject *key = NULL;
	PyObject *value = NULL;
	Py_ssize_t at = 0;

	if (count != 3 || !PyDict_CheckExact(args[0]) || !PyDict_CheckExact(args[1]) ||
	    !PyAnySet_Check(args[2])) {
		PyErr_SetString(PyExc_TypeError, "context(metadata, attrs, skipped)");
		return NULL;
	}
	while (PyDict_Next(args[0], &at, &key, &value)) {
		if (!PyUnicode_CheckExact(key) ||
		    !(PyUnicode_CheckExact(value) || PyLong_CheckExact(value) ||
		      PyFloat_CheckExact(value) || PyBool_Check(value)))
			continue;
		int skipped = PySet_Contains(args[2], key);
		skipped = skipped ? skipped : is_for_langsmith(key);
		if (skipped < 0 || (!skipped && PyDict_SetItem(args[1], key, value) < 0))
			return NULL;
	}
	Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
	{"know", fast_know, METH_VARARGS,
         "know(type, role): objects of it are LangChain's messages"},
	{"context", (PyCFunction)(void (*)(void))fast_context, METH_FASTCALL, NULL},
	{"pack", fast_pack, METH_VARARGS,
         "pack(kind, run_id, unix_ns, mono_ns, fields): the frame, or None"},
	{NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT, "_fast", NULL, -1, module_methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void)
{
	if (pack_init())
		return NULL;
	if (pthread_atfork(NULL, NULL, count_fork))
		return PyErr_NoMemory();
	PyObject *module = PyModule_Create(&module_def);
	PyObject *lane = module ? PyType_FromSpec(&lane_spec) : NULL;
	if (!lane || PyModule_AddObjectRef(module, "Lane", lane)) {
		Py_XDECREF(lane);
		Py_XDECREF(module);
		return NULL;
	}
	Py_DECREF(lane);
	return module;
}
