/* kind.h - the small vocabularies that every room shares. */
#pragma once

#include "base/str.h"

/* What a run is. Stored as a byte: append only. */
enum run_kind {
	KIND_OTHER,
	KIND_AGENT,
	KIND_CHAIN,
	KIND_LLM,
	KIND_TOOL,
	KIND_RETRIEVER,
	KIND_EMBEDDING,
	KIND_COUNT
};

/* How a run went. Stored as a byte: append only. */
enum run_status { STATUS_RUNNING, STATUS_OK, STATUS_ERROR, STATUS_CANCELLED, STATUS_COUNT };

const char *kind_word(enum run_kind kind);       // "agent", …
const char *status_word(enum run_status status); // "running", "ok", "error", "cancelled"

/** What the GenAI conventions call it, as "chat"; NULL where they have no word. */
const char *operation_word(enum run_kind kind);

/** The kind of a word on the wire; KIND_OTHER for one that is not known. */
enum run_kind kind_of(struct str word);

/* Whose names a span carries: the OpenTelemetry GenAI conventions', or the older ones of the
 * "seams" chat app. A set of bits. */
enum convention { CONVENTION_GENAI = 1, CONVENTION_SEAMS = 2, CONVENTION_BOTH = 3 };
