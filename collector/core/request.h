/* request.h - what one request adds up to: the fold of its spans into an observation.
 *
 * A request is a root run and everything below it. Each finished span is added once, as it is
 * written; when the last one has ended, the sums become the observation and move the metrics, so
 * that the two always agree. After a restart the same fold runs over the stored spans.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "core/account.h"
#include "core/id.h"
#include "core/kind.h"
#include "core/metrics.h"
#include "core/price.h"
#include "core/span.h"
#include "core/usage.h"

/* A share of the tokens, by who got paid for them. */
struct spend {
	char provider[64], model[128];
	unsigned calls_without_usage;
	struct usage usage;
	int64_t cost;
};

struct request {
	unsigned spans, llm_calls, llm_calls_without_usage, calls_without_cost, tool_calls;
	struct usage usage;
	int64_t cost;
	struct buf spends;                       // struct spend, one for each model
	struct buf tools;                        // the members of tool_calls, as JSON
	struct buf tool_names;                   // of the calls, each with its terminator
	char last_provider[64], last_model[128]; // of the LLM call that ended last
	uint64_t last_llm_end_ns;
	uint64_t slowest_ns;
	char slowest_name[128];
	enum run_kind slowest_kind;
	uint8_t slowest_id[8];

	// the root, once it has ended
	bool has_root;
	enum run_kind kind;
	enum run_status status;
	uint64_t start_ns, duration_ns; // unix
	uint8_t span_id[8];
	char provider[64], model[128]; // the root's own
	char service[64];
	struct buf root;     // its span without content, as stored
	struct buf content;  // members of the observation that the root knows
	struct buf resource; // encoded
};

void request_init(struct request *q);
void request_deinit(struct request *q);

/** Back to zero; small buffers keep their room. */
void request_clear(struct request *q);

/** Adds a finished span. -ENOMEM: nothing but the list of tool calls may lack it. */
int request_add(struct request *q, const struct account *a, const struct price_list *prices);

/* What of the root's own text the observation shows; p NULL: not captured or not there. */
struct root_text {
	struct str user_message, agent_response;
};

/** The root has ended: keeps what the observation says of it. */
int request_set_root(struct request *q, const struct span_record *root, const struct account *a,
                     const struct root_text *text);

/** Writes the observation's members that its root's span doesn't hold. meta: service provider model
 * prompt_tokens completion_tokens total_tokens cached_tokens reasoning_tokens tokens_estimated
 * cost currency calls_without_cost llm_calls llm_calls_without_usage tool_call_count span_count
 * slowest {name kind span_id latency_ms} created_at. content: user_message agent_response
 * tool_calls [{name input output latency_ms error}]. */
void request_observe(const struct request *q, const struct price_list *prices, uint64_t created_ns,
                     struct buf *meta, struct buf *content);

/** Moves the metrics of a request. */
void request_count(const struct request *q, struct metrics *m);

/** The members of an observation that its root's span holds: trace_id span_id parent_span_id name
 * kind start_time end_time latency_ms status attributes session_id user_id prompt_key
 * prompt_version policy_mode tags error. Decoded only here, where somebody looks. */
void root_json_members(struct json *j, struct str root, enum run_kind kind, enum run_status status);
