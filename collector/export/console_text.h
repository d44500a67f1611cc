/* console_text.h - a span as text for people, or for what reads JSON. Pure.
 *
 * Names and values come from agents: control characters never reach the terminal.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "core/span.h"

/** One line: time, trace, kind, name, duration, status, tokens, error. With content, each of its
 * attributes on a line of its own, cut. */
void console_pretty(struct buf *out, const struct span_record *rec, bool content);

/** The object that OpenTelemetry's console exporter for Python prints, indented by 4. */
void console_json(struct buf *out, const struct span_record *rec, bool content);
