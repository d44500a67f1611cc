/* otlp_logs.h - OTLP log requests from stored observations, and from events that found no span.
 *
 * An observation is a log event `sidelight.observation` with its root's ids: its attributes are
 * those of the root's span and the sums over the request. An event of a run that was not open any
 * more, or had too many, is one of its own name.
 */
#pragma once

#include "core/otlp.h"

/** Writes an ExportLogsServiceRequest into out (cleared first) with as many of the records of the
 * observations log, from the first on, as the limits allow, and one in any case. Returns how many.
 * Content is what the observation holds of it: user message, agent response, tool calls. */
size_t otlp_log_request(struct buf *out, const struct span_record *records, size_t count,
                        const struct otlp_limits *limits);
