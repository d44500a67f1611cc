/* place.h - where a run belongs, and which are open: the tables of langchain.py and _api.py.
 *
 * They are Python's, with its bounds. A step that would take more than looking up and storing, like
 * making room, is left to Python: that makes the call odd, or is "no".
 */
#pragma once

#include "call.h"

/** Once, with the globals of langchain.py and of _api.py. Returns -1 with Python's error set. */
int place_attach(PyObject *langchain, PyObject *api);

/** As parent_within(): what is directly around a run that LangChain puts under `langchain`; owned.
 */
PyObject *place_parent(struct call *c, PyObject *langchain);

/** Whether nobody has told of the run yet, and there is room for it. */
bool place_can_open(struct call *c, bool has_parent);

/** As _remember() and place(). `within` is what is directly around it. */
void place_open(struct call *c, PyObject *parent, PyObject *within);

/** Whether the run is open, this handler's to report, and no stream. */
bool place_can_close(struct call *c);

/** As _forget() and unplace(), of a run that can be closed. */
void place_close(struct call *c);
