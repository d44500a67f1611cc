/* metrics.h - what the agents did: the metrics that dashboards are built on, and those of the
 * OpenTelemetry GenAI conventions.
 *
 * Each metric holds at most CAP_SERIES label sets; whatever comes past that is counted in one
 * more, which says __other__ in all labels of the first, and otel.metric.overflow in the others.
 * In the first, a label that is not known says unknown; in the others it is left out. Counts begin
 * at zero with the process.
 *
 * No lock, no clock, and in steady state no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "core/metric.h"
#include "core/series.h"

/* X(id, name, type, labels, help) */
#define METRICS_TABLE(X)                                                                           \
	X(REQUESTS, "chat_requests_total", counter, "provider, model",                             \
	  "Requests (root runs) that ended, however they ended")                                   \
	X(DURATION, "chat_request_duration_seconds", histogram, "provider, model",                 \
	  "How long requests took")                                                                \
	X(TOKENS, "llm_tokens_total", counter, "token_type, provider, model",                      \
	  "Tokens by type; total_tokens is the sum of the others, so select one type")             \
	X(SILENT_CALLS, "sidelight_llm_calls_without_usage_total", counter, "provider, model",     \
	  "LLM calls that told no tokens: llm_tokens_total lacks theirs")                          \
	X(COST, "llm_cost_total", counter_nano, "provider, model",                                 \
	  "Cost by the configured prices, in their currency")                                      \
	X(TOOL_CALLS, "tool_calls_total", counter, "tool_name", "Tool calls, failed ones too")

/* The GenAI conventions' histograms, by their OpenTelemetry names: the first three are those of
 * semantic conventions 1.41.1, the others came after it. X(id, name, unit, labels, help) */
#define GENAI_TABLE(X)                                                                             \
	X(CALL_DURATION, "gen_ai.client.operation.duration", "s",                                  \
	  "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model, "                    \
	  "gen_ai.response.model, error.type",                                                     \
	  "How long calls of models and retrievers took")                                          \
	X(TOKEN_USAGE, "gen_ai.client.token.usage", "{token}",                                     \
	  "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model, "                    \
	  "gen_ai.response.model, gen_ai.token.type",                                              \
	  "Tokens that a call used, where the provider told")                                      \
	X(FIRST_CHUNK, "gen_ai.client.operation.time_to_first_chunk", "s",                         \
	  "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model, "                    \
	  "gen_ai.response.model",                                                                 \
	  "How long a streamed answer took to begin")                                              \
	X(AGENT_DURATION, "gen_ai.invoke_agent.duration", "s", "gen_ai.agent.name, error.type",    \
	  "How long agents took")                                                                  \
	X(TOOL_DURATION, "gen_ai.execute_tool.duration", "s", "gen_ai.tool.name, error.type",      \
	  "How long tools took")

struct metrics {
	struct series_table requests; // chat_requests_total and chat_request_duration_seconds
	struct series_table tokens;
	struct series_table silent_calls;
	struct series_table costs;
	struct series_table tool_calls;
	struct series_table calls;  // duration of those that did not fail, tokens, first chunk
	struct series_table failed; // duration of those that did
	struct series_table agents, tools;
};

void metrics_init(struct metrics *m);
void metrics_deinit(struct metrics *m);

/** A copy for reading, to be freed with free(). NULL when out of memory. */
struct metrics *metrics_copy(const struct metrics *m);

/* A p of NULL, or an empty text, is unknown. */

/** A request ended. */
void metrics_request(struct metrics *m, struct str provider, struct str model,
                     uint64_t duration_ns);

/** An LLM call spent tokens. */
void metrics_tokens(struct metrics *m, struct str provider, struct str model, uint64_t prompt,
                    uint64_t completion, uint64_t total);

/** LLM calls ended without a word of their tokens. */
void metrics_calls_without_usage(struct metrics *m, struct str provider, struct str model,
                                 uint64_t count);

/** LLM calls cost so many billionths of the currency. */
void metrics_cost(struct metrics *m, struct str provider, struct str model, uint64_t cost);

/** A tool was called. */
void metrics_tool_call(struct metrics *m, struct str tool_name);

/** A span ended: the GenAI metrics move. */
struct account;
void metrics_span(struct metrics *m, const struct account *a);

/** Gives every metric to a writer. */
void metrics_report(const struct metrics *m, struct metric_writer *w);

/** Writes all as Prometheus text. */
void metrics_write(const struct metrics *m, struct buf *out);

/* --- between metrics.c and metrics_report.c --- */

enum { PROMPT, COMPLETION, TOTAL, TOKEN_TYPES };

extern const struct bounds request_bounds, call_bounds, token_bounds, agent_bounds;

/* A histogram in a row: its buckets, then its sum. */
enum { REQUEST_SUM = 8, CALL_SUM = 15, TOKEN_SUM = 15, AGENT_SUM = 14 };

/* Where the histograms begin in a row of `calls`. */
enum { CALL_AT = 0, INPUT_AT = 16, OUTPUT_AT = 32, FIRST_CHUNK_AT = 48, CALLS_WIDTH = 64 };
_Static_assert((int)CALLS_WIDTH <= (int)ROW_MAX, "a row fits");
