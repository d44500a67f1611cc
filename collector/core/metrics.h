/* metrics.h - what the agents did, as the four metrics that dashboards are built on.
 *
 * Each metric holds at most CAP_SERIES label sets; whatever comes past that is counted in one
 * more, whose labels all say __other__, so that sums stay right whatever names arrive. A label
 * that is not known says unknown; one longer than CAP_LABEL is cut. Counts begin at zero with the
 * process.
 *
 * No lock, no clock, and in steady state no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/caps.h"
#include "base/str.h"

/* X(id, name, type, labels, help) */
#define METRICS_TABLE(X)                                                                           \
	X(REQUESTS, "chat_requests_total", "counter", "provider, model",                           \
	  "Requests (root runs) that ended, however they ended")                                   \
	X(DURATION, "chat_request_duration_seconds", "histogram", "provider, model",               \
	  "How long requests took")                                                                \
	X(TOKENS, "llm_tokens_total", "counter", "token_type, provider, model",                    \
	  "Tokens by type; total_tokens is the sum of the others, so select one type")             \
	X(TOOL_CALLS, "tool_calls_total", "counter", "tool_name", "Tool calls, failed ones too")

/* Upper bounds of the duration's buckets; one more has none. X(nanoseconds, label) */
#define DURATION_BUCKETS(X)                                                                        \
	X(500000000, "0.5")                                                                        \
	X(1000000000, "1")                                                                         \
	X(2000000000, "2")                                                                         \
	X(5000000000, "5")                                                                         \
	X(10000000000, "10")                                                                       \
	X(30000000000, "30")                                                                       \
	X(60000000000, "60")

enum { SERIES_VALUES = 9 }; // what the widest metric needs: eight buckets and a sum

struct series {
	uint64_t hash;
	uint64_t values[SERIES_VALUES];
	uint16_t first_len, second_len; // of its label values, in text
	char text[];
};

/* The series of one metric, found by hash and listed in order of arrival. */
struct series_table {
	unsigned max, count;
	struct series *list[CAP_SERIES];
	uint16_t slots[4096]; // index into list + 1; 0: free
	bool has_overflow;
	uint64_t overflow[SERIES_VALUES];
};

struct metrics {
	struct series_table requests; // chat_requests_total and chat_request_duration_seconds
	struct series_table tokens;
	struct series_table tool_calls;
};

void metrics_init(struct metrics *m);
void metrics_deinit(struct metrics *m);

/* A p of NULL, or an empty text, is unknown. */

/** A request ended. */
void metrics_request(struct metrics *m, struct str provider, struct str model,
                     uint64_t duration_ns);

/** An LLM call spent tokens. */
void metrics_tokens(struct metrics *m, struct str provider, struct str model, uint64_t prompt,
                    uint64_t completion, uint64_t total);

/** A tool was called. */
void metrics_tool_call(struct metrics *m, struct str tool_name);

/** Writes all four as Prometheus text. */
void metrics_write(const struct metrics *m, struct buf *out);
