/* sink.h - where an exporter sends: what its loop asks of a destination.
 *
 * A sink belongs to one exporter's thread. It makes one try at a time and says how it went;
 * waiting, retrying, counting and logging are the loop's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/signals.h"
#include "base/stats.h"
#include "config.h"
#include "core/span.h"

enum outcome {
	OUTCOME_DELIVERED, // but for `refused` of them
	OUTCOME_REFUSED,   // all of them, for good, by `reason`
	OUTCOME_RETRY,     // nothing arrived, or we can't know: the same again, later
	OUTCOME_SMALLER,   // nothing arrived: at once again, the sink will take fewer
	OUTCOME_ABORTED,   // the abort descriptor became readable
};

/* How one try went. */
struct outcome_report {
	enum outcome outcome;
	size_t taken;            // spans that the try was about, from the first on; at least one
	uint64_t refused;        // DELIVERED: those of them that the backend refused for good
	enum rejection reason;   // REFUSED, and DELIVERED with refused > 0
	uint64_t retry_after_ns; // RETRY: what the server asked for; 0: nothing
	char message[512];       // what happened, for a person; "" when there is nothing to say
	const char *hint;        // what to look at; "" when we know nothing better
};

/* What a sink gets from its exporter. */
struct sink_host {
	int abort_fd;            // readable when everything must end
	void (*tick)(void *ctx); // call about once a second while a try lasts
	void *ctx;
};

struct sink {
	const struct sink_ops *ops;
};

struct sink_ops {
	/** One try at the records (spans, or records of the observations log) from the first on;
	 * it may take fewer than count. */
	void (*send)(struct sink *s, const struct span_record *records, size_t count,
	             struct outcome_report *ret);

	/** Gives memory back: there is nothing to send now. */
	void (*rest)(struct sink *s);

	/** NULL is fine. */
	void (*close)(struct sink *s);

	uint64_t pace_ns; // between tries that are not full: longer costs less
};

enum { SINK_TICK_MS = 1000 };

/** For SIGNAL_TRACES or SIGNAL_LOGS. Errors are otlp_wire_open()'s. config and host are borrowed
 * until close. */
MUST_CHECK int otlp_sink_open(struct sink **ret, const struct exporter_config *config,
                              enum otlp_signal signal, const struct sink_host *host);

MUST_CHECK int console_open(struct sink **ret, const struct exporter_config *config,
                            const struct sink_host *host);
