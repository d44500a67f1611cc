/* fast.c - the part in C: starts and ends that are plain are read, packed and sent in one call that
 * keeps the GIL.
 *
 * It does what the Python beside it does, for what is plain, and leaves to that everything else,
 * and what has to wait to be sent. No Python code runs in here, so neither a signal handler, nor a
 * finalizer, nor another thread comes between a look at something and its use. Before Python 3.12
 * that takes switching the garbage collector off: any allocation may start it.
 */
#include "call.h"
#include "handler.h"
#include "lane.h"
#include "pack.h"

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
	PyObject *values[PACK_FIELDS];
	size_t size = pack_find(kind, fields, values)
	                      ? pack_run(kind, run_id, unix_ns, mono_ns, values, &frame)
	                      : 0;
	if (collects)
		PyGC_Enable();
	if (!size)
		Py_RETURN_NONE;
	return PyBytes_FromStringAndSize((const char *)frame, (Py_ssize_t)size);
}

static PyMethodDef module_methods[] = {
	{"know", fast_know, METH_VARARGS,
         "know(type, role): objects of it are LangChain's messages"},
	{"attach", handler_attach, METH_VARARGS,
         "attach(handler, langchain, api): does for that class what is plain"},
	{"pack", fast_pack, METH_VARARGS,
         "pack(kind, run_id, unix_ns, mono_ns, fields): the frame, or None"},
	{NULL, NULL, 0, NULL}};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT, "_fast", NULL, -1, module_methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void)
{
	PyObject *lane = pack_init() || call_init() ? NULL : lane_init();
	PyObject *module = lane ? PyModule_Create(&module_def) : NULL;

	if (!module || PyModule_AddObjectRef(module, "Lane", lane)) {
		Py_XDECREF(module);
		return NULL;
	}
	return module;
}
