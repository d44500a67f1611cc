/* place.h - where a run belongs, and which are open: the tables of langchain.py and _api.py.
 *
 * They are Python's, with its bounds. A step that would take more than looking up and storing, like
 * making room or being inside a span(), is left to Python: the answer is "no".
 */
#pragma once

#include "call.h"

/** Once, with the globals of langchain.py and of _api.py. Returns -1 with Python's error set. */
int place_attach(PyObject *langchain, PyObject *api);

/** Whether nobody has told of the run yet, there is room for it, and it is directly under the
 * parent that LangChain gives it; NULL: it has none. */
bool place_can_open(struct call *c, PyObject *parent);

/** As _remember() and place(), of a run that can be opened. */
void place_open(struct call *c, PyObject *parent);

/** Whether the run is open, this handler's to report, and no stream. */
bool place_can_close(struct call *c);

/** As _forget() and unplace(), of a run that can be closed. */
void place_close(struct call *c);
