/* stats.h - the daemon's numbers about itself.
 *
 * Declared once, here: the code, /metrics and docs/metrics.md come from these tables. Every
 * one is a relaxed atomic, written by the thread whose work it counts and read by any.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "base/caps.h"
#include "base/signals.h"

/* X(field, metric name, type, help). Types: counter, gauge. */
#define STATS_TABLE(X)                                                                             \
	X(connections_accepted, "sidelight_connections_accepted_total", counter,                   \
	  "Client connections accepted")                                                           \
	X(connections_refused, "sidelight_connections_refused_total", counter,                     \
	  "Client connections refused because max_connections were open")                          \
	X(connections_open, "sidelight_connections_open", gauge, "Client connections open now")    \
	X(connections_lost, "sidelight_connections_lost_total", counter,                           \
	  "Client connections that ended without a bye")                                           \
	X(frames_received, "sidelight_frames_received_total", counter,                             \
	  "Frames received, the refused ones among them")                                          \
	X(frames_accepted, "sidelight_frames_accepted_total", counter, "Frames accepted")          \
	X(bytes_received, "sidelight_received_bytes_total", counter, "Bytes read from clients")    \
	X(unknown_keys, "sidelight_unknown_keys_total", counter,                                   \
	  "Keys of messages that this version does not know, ignored")                             \
	X(values_cut, "sidelight_values_cut_total", counter,                                       \
	  "Values cut at capture.max_value, by the client or here")                                \
	X(traceparents_bad, "sidelight_traceparents_bad_total", counter,                           \
	  "Malformed traceparents, ignored")                                                       \
	X(client_dropped, "sidelight_client_dropped_total", counter,                               \
	  "Events that clients said they had to drop")                                             \
	X(events_stored, "sidelight_events_stored_total", counter,                                 \
	  "Run events made durable by themselves: their run was not open")                         \
	X(events_dropped, "sidelight_events_dropped_total", counter,                               \
	  "Run events dropped: too many of one run, no room, partial output of no open run")       \
	X(runs_started, "sidelight_runs_started_total", counter, "Runs started")                   \
	X(runs_open, "sidelight_open_runs", gauge, "Runs open now")                                \
	X(runs_lost, "sidelight_runs_lost_total", counter,                                         \
	  "Open runs closed because their process or connection was lost")                         \
	X(runs_cancelled, "sidelight_runs_cancelled_total", counter,                               \
	  "Open runs closed as cancelled: their root ended or their client left")                  \
	X(runs_given_up, "sidelight_runs_given_up_total", counter,                                 \
	  "Open runs closed because too many were open")                                           \
	X(ends_unmatched, "sidelight_ends_unmatched_total", counter,                               \
	  "Ends whose start never came")                                                           \
	X(spans_stored, "sidelight_spans_stored_total", counter, "Spans made durable")             \
	X(observations_stored, "sidelight_observations_stored_total", counter,                     \
	  "Observations made durable")                                                             \
	X(spans_dropped, "sidelight_spans_dropped_total", counter,                                 \
	  "Spans that could not be stored")                                                        \
	X(observations_dropped, "sidelight_observations_dropped_total", counter,                   \
	  "Observations that could not be stored")                                                 \
	X(blocks_evicted, "sidelight_blocks_evicted_total", counter,                               \
	  "Blocks removed by retention")                                                           \
	X(spans_evicted, "sidelight_store_spans_evicted_total", counter,                           \
	  "Spans removed from the store by retention")                                             \
	X(store_bytes, "sidelight_store_bytes", gauge, "Bytes used in the store")                  \
	X(store_limit_bytes, "sidelight_store_limit_bytes", gauge, "The store's quota")            \
	X(store_errors, "sidelight_store_errors_total", counter, "Commits that failed")            \
	X(blocks_corrupt, "sidelight_blocks_corrupt_total", counter,                               \
	  "Stored blocks whose checksum did not hold")                                             \
	X(commits, "sidelight_commits_total", counter, "Group commits")                            \
	X(commit_ns, "sidelight_commit_seconds_total", counter_ns, "Time spent in commits")        \
	X(http_requests, "sidelight_http_requests_total", counter, "HTTP requests answered")       \
	X(http_refused, "sidelight_http_refused_total", counter,                                   \
	  "HTTP requests refused: host, method, path or size")

/* X(reason, label): why a frame was refused. */
#define REFUSAL_TABLE(X)                                                                           \
	X(TOO_LONG, "too_long")                                                                    \
	X(MALFORMED, "malformed")                                                                  \
	X(UNKNOWN_TYPE, "unknown_type")                                                            \
	X(WRONG_TYPE, "wrong_type")                                                                \
	X(BAD_UTF8, "bad_utf8")                                                                    \
	X(DUPLICATE_KEY, "duplicate_key")                                                          \
	X(TRAILING_BYTES, "trailing_bytes")                                                        \
	X(TOO_DEEP, "too_deep")                                                                    \
	X(TOO_MANY_KEYS, "too_many_keys")                                                          \
	X(BAD_RUN_ID, "bad_run_id")                                                                \
	X(BAD_TIME, "bad_time")                                                                    \
	X(BAD_VERSION, "bad_version")                                                              \
	X(DUPLICATE_START, "duplicate_start")                                                      \
	X(DUPLICATE_END, "duplicate_end")                                                          \
	X(TIMEOUT, "timeout")                                                                      \
	X(TRUNCATED, "truncated")                                                                  \
	X(STORE_FULL, "store_full")                                                                \
	X(NO_MEMORY, "no_memory")

enum refusal {
	REFUSAL_NONE,
#define X(id, label) REFUSED_##id,
	REFUSAL_TABLE(X)
#undef X
		REFUSAL_COUNT
};

/** The label of a refusal, as in sidelight_frames_refused_total{reason=…}. */
const char *refusal_label(enum refusal r);

/* X(id, label): why spans were given up for good by an exporter. */
#define REJECTION_TABLE(X)                                                                         \
	X(HTTP_400, "http_400")                                                                    \
	X(HTTP_401, "http_401")                                                                    \
	X(HTTP_403, "http_403")                                                                    \
	X(HTTP_404, "http_404")                                                                    \
	X(HTTP_405, "http_405")                                                                    \
	X(HTTP_413, "http_413")                                                                    \
	X(HTTP_415, "http_415")                                                                    \
	X(HTTP_422, "http_422")                                                                    \
	X(HTTP_500, "http_500")                                                                    \
	X(HTTP_OTHER, "http_other")                                                                \
	X(GRPC_INVALID_ARGUMENT, "grpc_invalid_argument")                                          \
	X(GRPC_NOT_FOUND, "grpc_not_found")                                                        \
	X(GRPC_PERMISSION_DENIED, "grpc_permission_denied")                                        \
	X(GRPC_RESOURCE_EXHAUSTED, "grpc_resource_exhausted")                                      \
	X(GRPC_UNIMPLEMENTED, "grpc_unimplemented")                                                \
	X(GRPC_INTERNAL, "grpc_internal")                                                          \
	X(GRPC_UNAUTHENTICATED, "grpc_unauthenticated")                                            \
	X(GRPC_UNKNOWN, "grpc_unknown")                                                            \
	X(GRPC_TOO_LARGE, "grpc_too_large")                                                        \
	X(GRPC_OTHER, "grpc_other")                                                                \
	X(PARTIAL_SUCCESS, "partial_success")                                                      \
	X(RESPONSE_TOO_LONG, "response_too_long")                                                  \
	X(NOT_OTLP, "not_otlp")                                                                    \
	X(TOO_LONG, "too_long")                                                                    \
	X(MALFORMED, "malformed")                                                                  \
	X(CLOSED, "closed")

enum rejection {
#define X(id, label) REJECTED_##id,
	REJECTION_TABLE(X)
#undef X
		REJECTION_COUNT
};

/** The label of a rejection, as in sidelight_spans_rejected_total{exporter=…, reason=…}. */
const char *rejection_label(enum rejection r);

/* One exporter's ledger of one signal. Traces count spans and logs count records: stored since its
 * cursor began = delivered + rejected + evicted + pending. Metrics count data points, of which
 * none wait: what could not be sent is in the next report. */
struct lane_stats {
	atomic_uint_fast64_t delivered, rejected, evicted, pending;
	atomic_uint_fast64_t rejected_by[REJECTION_COUNT]; // they add up to rejected
	atomic_uint_fast64_t refused; // not stored since this one held the store (refuse_newest)
	atomic_uint_fast64_t requests, failures; // tries, and tries that failed
};

/* A name keeps its place, and its counts, for the life of the process. */
struct exporter_stats {
	char name[64];       // written once, before the place is counted
	atomic_bool active;  // it is configured now
	atomic_uint signals; // bit: enum otlp_signal
	struct lane_stats lanes[SIGNAL_COUNT];
};

struct stats {
#define X(field, name, type, help) atomic_uint_fast64_t field;
	STATS_TABLE(X)
#undef X
	atomic_uint_fast64_t refused[REFUSAL_COUNT];
	struct exporter_stats exporters[CAP_EXPORTER_NAMES];
	atomic_uint exporter_count; // places taken
};

static inline void stat_add(atomic_uint_fast64_t *s, uint64_t n)
{
	atomic_fetch_add_explicit(s, n, memory_order_relaxed);
}

static inline void stat_set(atomic_uint_fast64_t *s, uint64_t v)
{
	atomic_store_explicit(s, v, memory_order_relaxed);
}

static inline uint64_t stat_get(const atomic_uint_fast64_t *s)
{
	return atomic_load_explicit(s, memory_order_relaxed);
}
