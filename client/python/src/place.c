/* place.c - see place.h. */
#include "place.h"

static PyObject *modules; // sys.modules, kept: asking for it very late at exit is fatal
static PyObject *api;     // the globals of _api.py
static PyObject *current, *above;
static PyObject *runs, *ended;
static PyTypeObject *open_run, *run_class;
static Py_ssize_t max_runs, max_above, max_ended;

/* The innermost span() that is open here, as _api._open_run() finds it. Owned; None without one, or
 * something else where that can't be told. */
static PyObject *open_run_here(void)
{
	PyObject *run = PyObject_CallMethodObjArgs(current, call_words[GET], NULL);

	while (run && Py_TYPE(run) == open_run) {
		PyObject *token = PyObject_GetAttr(run, call_words[TOKEN]);
		bool is_open = token && token != Py_None;
		Py_XDECREF(token);
		if (is_open)
			break;
		PyObject *around = PyObject_GetAttr(run, call_words[AROUND]);
		Py_DECREF(run);
		run = around;
	}
	return run;
}

/* Whether the code that runs here is, or may be, part of a LangChain run, which a root of its own
 * is then put under. A module that is loaded only when it is looked into is left to Python. */
static bool is_inside_langchain(void)
{
	PyObject *module = call_get(modules, CONFIG_MODULE);
	PyObject *names = module && PyModule_CheckExact(module) ? PyModule_GetDict(module) : NULL;
	PyObject *variable = call_get(names, CONFIG_VARIABLE);
	bool is_one = variable && Py_TYPE(variable) == Py_TYPE(current);
	PyObject *config =
		is_one ? PyObject_CallMethodObjArgs(variable, call_words[GET], NULL) : NULL;
	bool is_none_around = !module || config == Py_None;

	Py_XDECREF(config);
	return !is_none_around;
}

static bool is_same_id(PyObject *a, PyObject *b)
{
	return a && b && PyBytes_CheckExact(a) && PyBytes_CheckExact(b) &&
	       PyObject_RichCompareBool(a, b, Py_EQ) == 1;
}

/* Whether a span() is, or may be, between the run and what LangChain puts it under. */
static bool is_in_span(PyObject *parent)
{
	PyObject *run = open_run_here();
	bool is_span = run && Py_TYPE(run) == open_run;
	PyObject *outer = is_span ? PyObject_GetAttr(run, call_words[OUTER]) : NULL;
	bool between = run != Py_None;

	if (outer)
		between = parent ? is_same_id(outer, parent) : outer == Py_None;
	Py_XDECREF(outer);
	Py_XDECREF(run);
	return between;
}

/* A root is a part of nothing else, unless this process was told so. */
static bool has_no_trace_to_join(void)
{
	PyObject *told = call_get(api, INHERITED);

	return told && PyTuple_CheckExact(told) && PyTuple_Size(told) == 2 &&
	       PyTuple_GetItem(told, 0) == Py_None && PyTuple_GetItem(told, 1) == Py_None &&
	       !is_inside_langchain();
}

bool place_can_open(struct call *c, PyObject *parent)
{
	return PyDict_Contains(runs, c->run_id) == 0 && PyDict_Size(runs) < max_runs &&
	       PyDict_Size(above) < max_above && !is_in_span(parent) &&
	       (parent || has_no_trace_to_join());
}

void place_open(struct call *c, PyObject *parent)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(run_class, Py_tp_alloc);
	PyObject *run = alloc(run_class, 0);
	PyObject *owner = PyLong_FromVoidPtr(c->self);
	PyObject *over = parent ? parent : Py_None;
	bool done = run && owner && PyObject_SetAttr(run, call_words[OWNER], owner) == 0 &&
	            PyObject_SetAttr(run, call_words[PARENT], over) == 0 &&
	            PyObject_SetAttr(run, call_words[STREAM], Py_None) == 0 &&
	            PyDict_SetItem(runs, c->run_id, run) == 0 &&
	            PyDict_SetItem(above, c->run_id, over) == 0;

	(void)done; // without memory, its end is still reported: as that of a run unknown here
	Py_XDECREF(owner);
	Py_XDECREF(run);
}

static bool is_ours_and_no_stream(struct call *c)
{
	PyObject *run = PyDict_GetItemWithError(runs, c->run_id);
	PyObject *owner = run ? PyObject_GetAttr(run, call_words[OWNER]) : NULL;
	PyObject *stream = run ? PyObject_GetAttr(run, call_words[STREAM]) : NULL;
	bool ours = owner && PyLong_AsVoidPtr(owner) == c->self && stream == Py_None;

	Py_XDECREF(stream);
	Py_XDECREF(owner);
	return ours;
}

static PyObject *newest_ended(void)
{
	PyObject *newest = PyList_Size(ended) == 2 ? PyList_GetItem(ended, 1) : NULL;

	return newest && PyAnySet_Check(newest) && PySet_Size(newest) + 1 < max_ended ? newest
	                                                                              : NULL;
}

bool place_can_close(struct call *c)
{
	return newest_ended() && is_ours_and_no_stream(c);
}

void place_close(struct call *c)
{
	(void)PySet_Add(newest_ended(), c->run_id);
	(void)PyDict_DelItem(runs, c->run_id);
	if (PyDict_Contains(above, c->run_id) == 1)
		(void)PyDict_DelItem(above, c->run_id);
}

static int take_number(PyObject *module, const char *name, Py_ssize_t *ret)
{
	PyObject *value = NULL;

	if (call_take(module, name, &value))
		return -1;
	*ret = PyLong_AsSsize_t(value);
	Py_DECREF(value);
	return PyErr_Occurred() ? -1 : 0;
}

int place_attach(PyObject *langchain, PyObject *its_api)
{
	Py_INCREF(its_api);
	api = its_api;
	modules = PyImport_GetModuleDict();
	Py_INCREF(modules);
	return call_take(api, "_current", &current) || call_take(api, "_above", &above) ||
	                       call_take(api, "Run", (PyObject **)&open_run) ||
	                       call_take(langchain, "_runs", &runs) ||
	                       call_take(langchain, "_ended", &ended) ||
	                       call_take(langchain, "_Run", (PyObject **)&run_class) ||
	                       take_number(api, "MAX_ABOVE", &max_above) ||
	                       take_number(langchain, "MAX_RUNS", &max_runs) ||
	                       take_number(langchain, "MAX_ENDED", &max_ended)
	               ? -1
	               : 0;
}
