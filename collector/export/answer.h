/* answer.h - what a backend's answer over HTTP means for the items of a request: OTLP's rules.
 * Pure.
 *
 * The status line is the verdict; the body can only take items back (partial success) or explain.
 * Nothing is retried but what the specification lists. Nothing is decompressed, and at most
 * ANSWER_WORDS bytes of what a backend says are quoted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/signals.h"
#include "base/stats.h"
#include "base/str.h"

enum answer_header {
	HEADER_CONTENT_TYPE,
	HEADER_RETRY_AFTER,
	HEADER_GRPC_STATUS,
	HEADER_GRPC_MESSAGE,
	HEADER_GRPC_DETAILS,
	HEADER_COUNT
};

/* What came back, as far as it came; borrowed. */
struct answer {
	int status;                       // HTTP's; 0: none
	bool whole;                       // to its end, as far as the transport can tell
	struct str headers[HEADER_COUNT]; // or trailers; p is NULL where there is none
	struct str body;
};

enum verdict_kind {
	VERDICT_NONE,      // there is none: how the transport failed decides
	VERDICT_ACCEPTED,  // but for `rejected` items
	VERDICT_RETRYABLE, // after retry_after_ns, if that is not 0
	VERDICT_UNSURE,    // perhaps taken, perhaps not: again, but not for ever
	VERDICT_TOO_LARGE, // fewer items may pass; a single one is refused
	VERDICT_REFUSED,
};

enum { ANSWER_WORDS = 160 };

struct verdict {
	enum verdict_kind kind;
	enum rejection reason;   // of what is not accepted, now or in the end
	uint64_t rejected;       // ACCEPTED: items refused for good
	uint64_t retry_after_ns; // RETRYABLE: what the server asked for; 0: nothing
	char said[64];           // "HTTP 503", "gRPC status 14 (UNAVAILABLE)"; "" when ACCEPTED
	char words[ANSWER_WORDS + 1]; // the backend's own, or ours about its answer; "" for none
	const char *hint;             // what a person may look at; never NULL
};

/** Judges an answer. sent: all of the request had gone out before the answer ended. */
struct verdict answer_judge(const struct answer *a, enum otlp_signal signal, bool sent,
                            uint64_t now_unix_ns);

/** The reason for an HTTP status that refuses. */
enum rejection http_rejection(int status);

/** What a person may look at; never NULL, "" when we know nothing better. */
const char *http_hint(int status, enum otlp_signal signal);

/** Quotes a backend: its well-formed beginning, without control characters. */
void verdict_quote(struct verdict *v, struct str words);

/** What a signal's items are called. */
const char *signal_items(enum otlp_signal signal);
