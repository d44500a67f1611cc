/* handler.h - what LangChain tells a handler most often: starts and ends of models, chains, tools.
 *
 * They are read as langchain.py and _messages.py read them, and what is open is kept in the same
 * tables. A callback that is not plain in every part, that tells of a stream or of a run that
 * another handler reports, is left to the Python method of its name, which then finds everything
 * as if it had been called first. A frame that has to wait goes to its _emit().
 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

/** attach(handler, langchain, api): takes the place of methods of that class; the dicts are the
 * globals of langchain.py and of _api.py, by whose names the tables are known. */
PyObject *handler_attach(PyObject *module, PyObject *args);
