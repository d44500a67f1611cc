/* handler.c - see handler.h. */
#include "handler.h"

#include "call.h"
#include "lane.h"
#include "place.h"

#include <string.h>

/* What Python knows, from langchain.py and _api.py. */
static PyObject *transport, *emit, *request, *no_attrs, *prompt, *call_id_is_late;
static PyTypeObject *result, *choice, *choice_chunk, *tool_message;

/* Whether all in the list are messages that pack.c reads by itself, or maybe dicts. */
static bool is_messages(PyObject *list, bool or_dicts)
{
	if (!list || !PyList_CheckExact(list))
		return false;
	for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
		PyObject *message = PyList_GetItem(list, i);

		if (!pack_is_message(message) && !(or_dicts && PyDict_CheckExact(message)))
			return false;
	}
	return true;
}

static PyObject *name_of(struct call *c, PyObject *serialized)
{
	PyObject *name = call_get(c->kwargs, NAME);
	PyObject *about = call_dict(c, serialized);

	if (call_is_true(c, name) || !about)
		return name;
	PyObject *path = call_get(about, ID);
	name = call_get(about, NAME);
	if (call_is_true(c, name))
		return name;
	if (!call_is_true(c, path))
		return NULL;
	if (PyList_CheckExact(path))
		return PyList_GetItem(path, PyList_Size(path) - 1);
	c->odd = true;
	return NULL;
}

/* ---- Starts ---- */

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

static void copy_scalars(struct call *c, PyObject *metadata)
{
	PyObject *key = NULL;
	PyObject *value = NULL;
	Py_ssize_t at = 0;

	while (PyDict_Next(metadata, &at, &key, &value))
		if ((PyUnicode_CheckExact(value) || PyLong_CheckExact(value) ||
		     PyFloat_CheckExact(value) || PyBool_Check(value)) &&
		    PySet_Contains(no_attrs, key) == 0 && !is_for_langsmith(key))
			call_set_attribute(c, key, value);
}

/* As _context(). */
static void context(struct call *c, PyObject *metadata, bool root)
{
	copy_scalars(c, metadata);
	for (Py_ssize_t i = 0; root && i < PyTuple_Size(prompt); i++) {
		PyObject *pair = PyTuple_GetItem(prompt, i);
		PyObject *value = PyDict_GetItemWithError(metadata, PyTuple_GetItem(pair, 0));

		call_set_attribute(c, PyTuple_GetItem(pair, 1), value);
	}
	PyObject *session =
		call_either(c, call_get(metadata, THREAD_ID), call_get(metadata, SESSION_ID));
	c->field[START_SESSION] = call_either(c, session, call_get(metadata, CONVERSATION_ID));
	c->field[START_USER] = call_get(metadata, USER_ID);
}

static bool send_start(struct call *c)
{
	PyObject *parent_id = call_get(c->kwargs, PARENT_RUN_ID);
	PyObject *parent = call_is_none(parent_id) ? NULL : call_id(c, parent_id);
	bool sent = false;

	if (!c->odd && place_can_open(c, parent)) {
		if (c->metadata)
			context(c, c->metadata, !parent);
		c->field[START_PARENT] = parent;
		c->field[START_TAGS] = call_get(c->kwargs, TAGS);
		c->field[START_ATTRS] = c->attrs;
		sent = !c->odd && lane_report(c->lane, 1, c->run_id, c->field, &c->frame);
	}
	if (sent)
		place_open(c, parent);
	Py_XDECREF(parent);
	return sent;
}

/* As _request(). */
static void request_fields(struct call *c)
{
	static const enum word settings[][2] = {{LS_TEMPERATURE, TEMPERATURE},
	                                        {LS_MAX_TOKENS, MAX_TOKENS}};
	PyObject *metadata = c->metadata;
	PyObject *asked = call_dict(c, call_get(c->kwargs, INVOCATION_PARAMS));
	PyObject *name = NULL;
	PyObject *value = NULL;
	Py_ssize_t at = 0;

	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
		call_set_attribute(c, call_get(request, settings[i][1]),
		                   call_get(metadata, settings[i][0]));
	while (asked && PyDict_Next(asked, &at, &name, &value)) {
		PyObject *attribute = PyDict_GetItemWithError(request, name);

		if (attribute)
			call_set_attribute(c, attribute, value);
	}
	PyObject *model = call_either(c, call_get(asked, MODEL), call_get(asked, MODEL_NAME));
	c->field[START_MODEL] = call_either(c, call_get(metadata, LS_MODEL_NAME), model);
	c->field[START_PROVIDER] = call_get(metadata, LS_PROVIDER);
}

static bool model_start(struct call *c)
{
	PyObject *serialized = call_argument(c, 0);
	PyObject *batches = call_argument(c, 1);
	bool one = batches && PyList_CheckExact(batches) && PyList_Size(batches) > 0;
	PyObject *messages = one ? PyList_GetItem(batches, 0) : NULL;

	if (!is_messages(messages, false))
		return false;
	c->field[START_KIND] = call_words[LLM];
	c->field[START_NAME] = name_of(c, serialized);
	c->field[START_INPUT] = messages;
	request_fields(c);
	return send_start(c);
}

/* As conversation(), where that makes no copy. */
static PyObject *conversation(struct call *c, PyObject *inputs)
{
	PyObject *dict = inputs && PyDict_CheckExact(inputs) ? call_dict(c, inputs) : NULL;
	PyObject *messages = call_get(dict, MESSAGES);

	if (call_is_none(messages))
		return inputs;
	c->odd = c->odd || !is_messages(messages, true);
	return messages;
}

static bool chain_start(struct call *c)
{
	PyObject *name = name_of(c, call_argument(c, 0));
	PyObject *inputs = call_argument(c, 1);
	bool is_root = call_is_none(call_get(c->kwargs, PARENT_RUN_ID));
	PyObject *agent = call_get(c->metadata, LC_AGENT_NAME);
	bool is_agent =
		is_root || call_is_same_text(name, call_words[LANGGRAPH]) ||
		(call_is_true(c, name) && call_is_true(c, agent) && call_is_same_text(name, agent));

	c->field[START_KIND] = call_words[is_agent ? AGENT : CHAIN];
	c->field[START_NAME] = name;
	if (is_root)
		c->field[START_INPUT] = conversation(c, inputs);
	return send_start(c);
}

static bool tool_start(struct call *c)
{
	PyObject *serialized = call_argument(c, 0);
	PyObject *input = call_argument(c, 1);
	PyObject *inputs = call_get(c->kwargs, INPUTS);
	PyObject *call_id = call_get(c->kwargs, TOOL_CALL_ID);
	PyObject *description = call_get(call_dict(c, serialized), DESCRIPTION);

	if (PyTuple_Size(c->args) > 2)
		return false; // which Python refuses
	call_set_attribute(c, call_words[CALL_ID], call_is_true(c, call_id) ? call_id : NULL);
	call_set_attribute(c, call_words[CALL_DESCRIPTION],
	                   call_is_true(c, description) ? description : NULL);
	c->field[START_KIND] = call_words[TOOL];
	c->field[START_NAME] = name_of(c, serialized);
	c->field[START_INPUT] = call_is_none(inputs) ? input : inputs;
	return send_start(c);
}

/* ---- Ends ---- */

static bool send_end(struct call *c)
{
	c->field[END_ATTRS] = c->attrs;
	if (c->odd || !place_can_close(c) ||
	    !lane_report(c->lane, 2, c->run_id, c->field, &c->frame))
		return false;
	place_close(c);
	return true;
}

/* What answer() gathers from the choices. */
struct answer {
	PyObject *output; // owned, as is finish
	PyObject *finish;
	PyObject *usage;
	PyObject *metadata;
	PyObject *id;
};

/* The provider's id of an answer, not the one that LangChain makes up. */
static PyObject *response_id(struct call *c, PyObject *message, PyObject *said)
{
	PyObject *id = call_either(c, call_get(said, ID), call_get(message, ID));

	if (!call_is_true(c, id))
		return NULL;
	const char *text = PyUnicode_CheckExact(id) ? PyUnicode_AsUTF8AndSize(id, NULL) : NULL;
	c->odd = c->odd || !text;
	return !text || !strncmp(text, "lc_", 3) || !strncmp(text, "run-", 4) ? NULL : id;
}

static void append(struct call *c, PyObject *list, PyObject *value)
{
	if (PyList_Append(list, value) < 0)
		c->odd = true;
}

static void read_choice(struct call *c, struct answer *a, PyObject *generation)
{
	PyTypeObject *type = Py_TYPE(generation);
	PyObject *held = type == choice || type == choice_chunk ? call_held(c, generation) : NULL;
	PyObject *message = call_get(held, MESSAGE);
	PyObject *role = message ? pack_role(message) : NULL;
	PyObject *inside =
		call_is_same_text(role, call_words[ASSISTANT]) ? call_held(c, message) : NULL;

	if (!inside) {
		c->odd = true;
		return;
	}
	PyObject *info = call_dict(c, call_get(held, GENERATION_INFO));
	PyObject *said = call_dict(c, call_get(inside, RESPONSE_METADATA));
	PyObject *reason =
		call_either(c, call_get(info, FINISH_REASON), call_get(info, STOP_REASON));
	PyObject *said_reason =
		call_either(c, call_get(said, FINISH_REASON), call_get(said, STOP_REASON));
	reason = call_either(c, said_reason, reason);
	if (call_get(said, MODEL_NAME) || call_get(said, MODEL))
		info = said;
	append(c, a->output, message);
	a->usage = call_either(c, a->usage, call_get(inside, USAGE_METADATA));
	a->id = a->id ? a->id : response_id(c, inside, said);
	a->metadata = a->metadata ? a->metadata : info;
	if (call_is_true(c, reason))
		append(c, a->finish, reason);
}

static void answer_fields(struct call *c, struct answer *a, PyObject *told)
{
	PyObject *usage = call_either(c, call_get(told, TOKEN_USAGE), call_get(told, USAGE));
	PyObject *model = call_either(c, call_get(a->metadata, MODEL), call_get(told, MODEL_NAME));
	PyObject *id = call_either(c, a->id, call_get(told, ID));

	c->field[END_OUTPUT] = a->output;
	c->field[END_USAGE] = call_either(c, a->usage, usage);
	c->field[END_MODEL] = call_either(c, call_get(a->metadata, MODEL_NAME), model);
	if (PyList_Size(a->finish) == 1)
		c->field[END_FINISH] = PyList_GetItem(a->finish, 0);
	else if (PyList_Size(a->finish))
		c->field[END_FINISH] = a->finish;
	if (call_is_true(c, id))
		call_set_attribute(c, call_words[RESPONSE_ID], id);
}

/* As answer(). */
static bool model_end(struct call *c)
{
	PyObject *response = call_argument(c, 0);
	PyObject *held = response && Py_TYPE(response) == result ? call_held(c, response) : NULL;
	PyObject *batches = call_get(held, GENERATIONS);
	bool one = batches && PyList_CheckExact(batches) && PyList_Size(batches) > 0;
	PyObject *choices = one ? PyList_GetItem(batches, 0) : NULL;
	struct answer a = {PyList_New(0), PyList_New(0), NULL, NULL, NULL};
	bool sent = false;

	if (a.output && a.finish && choices && PyList_CheckExact(choices)) {
		for (Py_ssize_t i = 0; i < PyList_Size(choices); i++)
			read_choice(c, &a, PyList_GetItem(choices, i));
		answer_fields(c, &a, call_dict(c, call_get(held, LLM_OUTPUT)));
		sent = send_end(c);
	}
	Py_XDECREF(a.finish);
	Py_XDECREF(a.output);
	return sent;
}

/* As last_words(), where that makes no copy of a message. Owned. */
static PyObject *last_words(struct call *c, PyObject *outputs)
{
	PyObject *dict = outputs && PyDict_CheckExact(outputs) ? call_dict(c, outputs) : NULL;
	PyObject *messages = call_get(dict, MESSAGES);
	bool many = messages && PyList_CheckExact(messages) && PyList_Size(messages) > 0;
	PyObject *last = many ? PyList_GetItem(messages, PyList_Size(messages) - 1) : outputs;

	if (last && (many || pack_is_message(last))) {
		PyObject *list = pack_is_message(last) ? PyList_New(0) : NULL;

		c->odd = c->odd || !list || PyList_Append(list, last) < 0;
		return list;
	}
	Py_XINCREF(last);
	return last;
}

static bool chain_end(struct call *c)
{
	PyObject *outputs = call_argument(c, 0);
	bool is_root = call_is_none(call_get(c->kwargs, PARENT_RUN_ID));
	PyObject *words = is_root ? last_words(c, outputs) : NULL;

	c->field[END_OUTPUT] = words;
	bool sent = send_end(c);
	Py_XDECREF(words);
	return sent;
}

/* As _tool_result(), to which a tool that failed is left, and any of a LangChain whose starts lack
 * the call's id. */
static bool tool_end(struct call *c)
{
	PyObject *output = call_argument(c, 0);
	PyObject *held = output && Py_TYPE(output) == tool_message ? call_held(c, output) : NULL;
	PyObject *status = call_get(held, STATUS);

	if (!output || call_id_is_late == Py_True || PyTuple_Size(c->args) > 1 ||
	    (call_is_true(c, status) && call_is_same_text(status, call_words[ERROR])))
		return false;
	c->odd = c->odd || (!held && !PyUnicode_CheckExact(output));
	c->field[END_OUTPUT] = held ? call_get(held, CONTENT) : output;
	return send_end(c);
}

/* ---- The methods ---- */

typedef bool quick_fn(struct call *c);

/* Whether it is done, but for a frame that could not be sent from here: owned. */
static bool quickly(quick_fn *work, PyObject *self, PyObject *args, PyObject *kwargs,
                    PyObject **ret_frame)
{
	struct call c = {.self = self, .args = args, .kwargs = kwargs};

	if (!kwargs || !PyDict_CheckExact(kwargs) || !pack_has_plain_keys(kwargs))
		return false;
	int collects = PyGC_Disable();
	c.lane = PyObject_GetAttr(transport, call_words[LANE]);
	c.run_id = call_id(&c, call_get(kwargs, RUN_ID));
	c.attrs = PyDict_New();
	c.metadata = call_dict(&c, call_get(kwargs, METADATA));
	bool done = c.lane && c.run_id && c.attrs && !c.odd && work(&c);
	Py_XDECREF(c.attrs);
	Py_XDECREF(c.run_id);
	Py_XDECREF(c.lane);
	PyErr_Clear();
	if (collects)
		PyGC_Enable();
	*ret_frame = c.frame;
	return done;
}

/* It waits its turn: the collector is not there, or has not read enough yet. */
static PyObject *emit_frame(PyObject *frame)
{
	PyObject *returned = PyObject_CallFunctionObjArgs(emit, frame, NULL);

	Py_DECREF(frame);
	return returned;
}

/* What Python does instead. */
static PyObject *slowly(PyObject *method, PyObject *self, PyObject *args, PyObject *kwargs)
{
	Py_ssize_t count = PyTuple_Size(args);
	PyObject *all = PyTuple_New(count + 1);

	if (!all)
		return NULL;
	Py_INCREF(self);
	(void)PyTuple_SetItem(all, 0, self);
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *value = PyTuple_GetItem(args, i);

		Py_INCREF(value);
		(void)PyTuple_SetItem(all, i + 1, value);
	}
	PyObject *returned = PyObject_Call(method, all, kwargs);
	Py_DECREF(all);
	return returned;
}

#define METHODS(X)                                                                                 \
	X(on_chat_model_start, model_start)                                                        \
	X(on_llm_end, model_end)                                                                   \
	X(on_chain_start, chain_start)                                                             \
	X(on_chain_end, chain_end)                                                                 \
	X(on_tool_start, tool_start)                                                               \
	X(on_tool_end, tool_end)

#define AS_METHOD(name, work)                                                                      \
	static PyObject *name##_in_python;                                                         \
	static PyObject *name(PyObject *self, PyObject *args, PyObject *kwargs)                    \
	{                                                                                          \
		PyObject *frame = NULL;                                                            \
		if (!quickly(work, self, args, kwargs, &frame))                                    \
			return slowly(name##_in_python, self, args, kwargs);                       \
		if (frame)                                                                         \
			return emit_frame(frame);                                                  \
		Py_RETURN_NONE;                                                                    \
	}
METHODS(AS_METHOD)

#define AS_DEF(name, work)                                                                         \
	{{#name, (PyCFunction)(void (*)(void))name, METH_VARARGS | METH_KEYWORDS,                  \
	  #name "($self, /, *args, **kwargs)\n--\n\n"},                                            \
	 &name##_in_python},

static struct {
	PyMethodDef def;
	PyObject **in_python;
} methods[] = {METHODS(AS_DEF)};

static int take_names(PyObject *langchain, PyObject *api)
{
	PyObject *uuid = NULL;

	if (call_take(langchain, "UUID", &uuid))
		return -1;
	call_know_ids((PyTypeObject *)uuid);
	return call_take(api, "transport", &transport) || call_take(langchain, "_emit", &emit) ||
	                       call_take(langchain, "REQUEST", &request) ||
	                       call_take(langchain, "_NO_ATTRS", &no_attrs) ||
	                       call_take(langchain, "_PROMPT", &prompt) ||
	                       call_take(langchain, "_CALL_ID_IS_LATE", &call_id_is_late) ||
	                       call_take(langchain, "LLMResult", (PyObject **)&result) ||
	                       call_take(langchain, "ChatGeneration", (PyObject **)&choice) ||
	                       call_take(langchain, "ChatGenerationChunk",
	                                 (PyObject **)&choice_chunk) ||
	                       call_take(langchain, "ToolMessage", (PyObject **)&tool_message)
	               ? -1
	               : 0;
}

static int replace(PyObject *class, PyMethodDef *def, PyObject **in_python)
{
	PyObject *method = PyObject_GetAttrString(class, def->ml_name);
	PyObject *quick = method ? PyDescr_NewMethod((PyTypeObject *)class, def) : NULL;
	int failed = quick ? PyObject_SetAttrString(class, def->ml_name, quick) : -1;

	*in_python = method;
	Py_XDECREF(quick);
	return failed;
}

PyObject *handler_attach(PyObject *module, PyObject *args)
{
	PyObject *class = NULL;
	PyObject *langchain = NULL;
	PyObject *api = NULL;

	if (!PyArg_ParseTuple(args, "O!O!O!", &PyType_Type, &class, &PyDict_Type, &langchain,
	                      &PyDict_Type, &api) ||
	    take_names(langchain, api) || place_attach(langchain, api))
		return NULL;
	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
		if (replace(class, &methods[i].def, methods[i].in_python))
			return NULL;
	Py_RETURN_NONE;
}
