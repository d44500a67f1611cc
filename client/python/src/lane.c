/* lane.c - see lane.h. */
#include "lane.h"

#include "pack.h"

#include <structmember.h>

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

static PyTypeObject *lane_type;
static unsigned forks;

static void count_fork(void)
{
	forks++;
}

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

static bool lane_is_clear(PyObject *object)
{
	return Py_TYPE(object) == lane_type && is_clear((struct lane *)object);
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

static bool send_now(struct lane *lane, const unsigned char *frame, size_t size)
{
	ssize_t written = send(lane->fd, frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (written <= 0)
		return false; // whoever tries next finds out why
	lane->sent = 1;
	if ((size_t)written < size)
		keep_rest(lane, frame, size, written);
	return true;
}

bool lane_report(PyObject *self, int kind, PyObject *run_id, PyObject *const *values,
                 PyObject **ret_frame)
{
	const unsigned char *frame = NULL;
	size_t size = pack_run(kind, run_id, now_ns(CLOCK_REALTIME), now_ns(CLOCK_MONOTONIC),
	                       values, &frame);

	*ret_frame = NULL;
	if (!size)
		return false;
	if (lane_is_clear(self) && send_now((struct lane *)self, frame, size))
		return true;
	*ret_frame = PyBytes_FromStringAndSize((const char *)frame, (Py_ssize_t)size);
	PyErr_Clear();
	return *ret_frame != NULL;
}

/* report(kind, run_id, fields): True when the event is on its way. */
static PyObject *method_report(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	if (count != 3) {
		PyErr_SetString(PyExc_TypeError, "report(kind, run_id, fields)");
		return NULL;
	}
	int kind = (int)PyLong_AsLong(args[0]);
	if (kind == -1 && PyErr_Occurred())
		return NULL;
	PyObject *values[PACK_FIELDS];
	PyObject *frame = NULL;
	int collects = PyGC_Disable();
	bool sent = lane_is_clear(self) && pack_find(kind, args[2], values) &&
	            lane_report(self, kind, args[1], values, &frame) && !frame;
	Py_XDECREF(frame);
	if (collects)
		PyGC_Enable();
	return PyBool_FromLong(sent);
}

/* send(data, counts): appends the bytes sent; 0 or an errno. It works in any state. */
static PyObject *method_send(PyObject *self, PyObject *const *args, Py_ssize_t count)
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
	{"report", (PyCFunction)(void (*)(void))method_report, METH_FASTCALL, NULL},
	{"send", (PyCFunction)(void (*)(void))method_send, METH_FASTCALL, NULL},
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

PyObject *lane_init(void)
{
	if (pthread_atfork(NULL, NULL, count_fork))
		return PyErr_NoMemory();
	lane_type = (PyTypeObject *)PyType_FromSpec(&lane_spec);
	return (PyObject *)lane_type;
}
