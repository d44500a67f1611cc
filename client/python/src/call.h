/* call.h - a callback's arguments, looked into without running any of their code.
 *
 * Only exact types are, and a dict only where all its keys are exact strings. What is met that has
 * another form makes the call odd: it is left to Python as a whole, so what was found after that
 * may be anything that is safe to look at.
 *
 * All that is returned is borrowed, unless it says "owned"; NULL and None are the same: nothing.
 */
#pragma once

#include "pack.h"

#define CALL_WORDS(X)                                                                              \
	X(AGENT, "agent")                                                                          \
	X(ASSISTANT, "assistant")                                                                  \
	X(CALL_DESCRIPTION, "gen_ai.tool.description")                                             \
	X(CALL_ID, "gen_ai.tool.call.id")                                                          \
	X(CHAIN, "chain")                                                                          \
	X(CONTENT, "content")                                                                      \
	X(CONVERSATION_ID, "conversation_id")                                                      \
	X(DESCRIPTION, "description")                                                              \
	X(ERROR, "error")                                                                          \
	X(FINISH_REASON, "finish_reason")                                                          \
	X(GENERATION_INFO, "generation_info")                                                      \
	X(GENERATIONS, "generations")                                                              \
	X(ID, "id")                                                                                \
	X(INPUTS, "inputs")                                                                        \
	X(INT, "int")                                                                              \
	X(INVOCATION_PARAMS, "invocation_params")                                                  \
	X(LANGGRAPH, "LangGraph")                                                                  \
	X(LC_AGENT_NAME, "lc_agent_name")                                                          \
	X(LLM, "llm")                                                                              \
	X(LLM_OUTPUT, "llm_output")                                                                \
	X(LS_MAX_TOKENS, "ls_max_tokens")                                                          \
	X(LS_MODEL_NAME, "ls_model_name")                                                          \
	X(LS_PROVIDER, "ls_provider")                                                              \
	X(LS_TEMPERATURE, "ls_temperature")                                                        \
	X(MAX_TOKENS, "max_tokens")                                                                \
	X(MESSAGE, "message")                                                                      \
	X(MESSAGES, "messages")                                                                    \
	X(METADATA, "metadata")                                                                    \
	X(MODEL, "model")                                                                          \
	X(MODEL_NAME, "model_name")                                                                \
	X(NAME, "name")                                                                            \
	X(OWNER, "owner")                                                                          \
	X(PARENT, "parent")                                                                        \
	X(PARENT_RUN_ID, "parent_run_id")                                                          \
	X(RESPONSE_ID, "gen_ai.response.id")                                                       \
	X(RESPONSE_METADATA, "response_metadata")                                                  \
	X(RUN_ID, "run_id")                                                                        \
	X(SESSION_ID, "session_id")                                                                \
	X(STATUS, "status")                                                                        \
	X(STOP_REASON, "stop_reason")                                                              \
	X(STREAM, "stream")                                                                        \
	X(TAGS, "tags")                                                                            \
	X(TEMPERATURE, "temperature")                                                              \
	X(THREAD_ID, "thread_id")                                                                  \
	X(TOKEN_USAGE, "token_usage")                                                              \
	X(TOOL, "tool")                                                                            \
	X(TOOL_CALL_ID, "tool_call_id")                                                            \
	X(USAGE, "usage")                                                                          \
	X(USAGE_METADATA, "usage_metadata")                                                        \
	X(USER_ID, "user_id")                                                                      \
	X(INHERITED, "_inherited")                                                                 \
	X(LANE, "_lane")                                                                           \
	X(AROUND, "_around")                                                                       \
	X(OUTER, "outer")                                                                          \
	X(TOKEN, "_token")                                                                         \
	X(CONFIG_MODULE, "langchain_core.runnables.config")                                        \
	X(CONFIG_VARIABLE, "var_child_runnable_config")                                            \
	X(GET, "get")

#define CALL_AS_ENUM(word, text) word,

enum word { CALL_WORDS(CALL_AS_ENUM) CALL_WORD_COUNT };

extern PyObject *call_words[CALL_WORD_COUNT];

struct call {
	PyObject *self; // the handler
	PyObject *args;
	PyObject *kwargs;
	PyObject *metadata; // a dict that is not empty
	PyObject *lane;
	PyObject *run_id;             // 16 bytes
	PyObject *field[PACK_FIELDS]; // of the event that comes of it
	PyObject *attrs;              // a dict of our own, for its attributes
	PyObject *frame;              // of what could not be sent from here
	bool odd;
};

/** Once. Returns -ENOMEM, with Python's error set. */
int call_init(void);

/** Takes the thing of that name from a module's dict, owned. Returns -1 with Python's error set. */
int call_take(PyObject *module, const char *name, PyObject **ret_thing);

/** The type of the runs' ids, whose instances have an `int`. */
void call_know_ids(PyTypeObject *type);

bool call_is_none(PyObject *value);

/** What is under the word in a dict that may be searched; NULL without a dict, too. */
PyObject *call_get(PyObject *dict, enum word word);

/** The value as a dict that may be searched; NULL if it is empty. */
PyObject *call_dict(struct call *c, PyObject *value);

/** Whether Python takes it for true; odd where Python has to say so itself. */
bool call_is_true(struct call *c, PyObject *value);

/** `a or b`. */
PyObject *call_either(struct call *c, PyObject *a, PyObject *b);

bool call_is_same_text(PyObject *a, PyObject *b);

/** Sets an attribute, unless the value is nothing. */
void call_set_attribute(struct call *c, PyObject *key, PyObject *value);

/** The nth positional argument; odd without one. */
PyObject *call_argument(struct call *c, Py_ssize_t n);

/** The 16 bytes of a UUID, owned; odd for anything else. */
PyObject *call_id(struct call *c, PyObject *value);

/** The dict of a pydantic object, which keeps it; odd without one. */
PyObject *call_held(struct call *c, PyObject *object);
