#include "core/kind.h"

static const char *const kinds[KIND_COUNT] = {
	[KIND_OTHER] = "other",         [KIND_AGENT] = "agent",
	[KIND_CHAIN] = "chain",         [KIND_LLM] = "llm",
	[KIND_TOOL] = "tool",           [KIND_RETRIEVER] = "retriever",
	[KIND_EMBEDDING] = "embedding",
};

static const char *const statuses[STATUS_COUNT] = {
	[STATUS_RUNNING] = "running",
	[STATUS_OK] = "ok",
	[STATUS_ERROR] = "error",
	[STATUS_CANCELLED] = "cancelled",
};

const char *kind_word(enum run_kind kind)
{
	return kind < KIND_COUNT ? kinds[kind] : "other";
}

const char *operation_word(enum run_kind kind)
{
	static const char *const operations[KIND_COUNT] = {
		[KIND_AGENT] = "invoke_agent",   [KIND_LLM] = "chat",
		[KIND_TOOL] = "execute_tool",    [KIND_RETRIEVER] = "retrieval",
		[KIND_EMBEDDING] = "embeddings",
	};

	return kind < KIND_COUNT ? operations[kind] : NULL;
}

const char *status_word(enum run_status status)
{
	return status < STATUS_COUNT ? statuses[status] : "error";
}

enum run_kind kind_of(struct str word)
{
	for (int i = 0; i < KIND_COUNT; i++)
		if (word.len == strlen(kinds[i]) && memcmp(word.p, kinds[i], word.len) == 0)
			return (enum run_kind)i;
	return KIND_OTHER;
}
