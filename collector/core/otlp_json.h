/* otlp_json.h - an encoded OTLP request as OTLP/JSON.
 *
 * Protobuf's JSON mapping, with the differences that the OTLP specification makes: trace and span
 * ids in hex, enums as integers. A table says what each message's fields are called; what is not
 * in it is left out, as are fields that have their default value. Made for requests of our own: of
 * a field that should stand once the first one counts. Nesting is bounded, and nothing is
 * allocated but the output.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/signals.h"
#include "base/str.h"

/** Writes an Export{Trace,Logs,Metrics}ServiceRequest into out (cleared first). 0, ERR_FORMAT (it
 * is none, or nests too deep), or the buffer's error. */
MUST_CHECK int otlp_json(struct buf *out, enum otlp_signal signal, struct str request);
