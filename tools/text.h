/* text.h - data made fit for a terminal: safe, measured in columns, cut and worded.
 *
 * Pure. Text comes from agents and models, so nothing of it reaches the terminal unchecked:
 * control characters, escapes and direction overrides become a replacement character, line
 * ends and tabs a space. Without UTF-8, everything past ASCII becomes a question mark.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "term.h"

/** How many columns text_put() would take for all of it. */
size_t text_columns(const struct term *t, struct str s);

/** Appends at most max columns; what is cut ends with a mark. Returns the columns taken. */
size_t text_put(struct buf *out, const struct term *t, struct str s, size_t max);

/** text_put(), then blanks up to exactly width columns. */
void text_put_left(struct buf *out, const struct term *t, struct str s, size_t width);

/** Blanks first, so that the text ends at width columns. */
void text_put_right(struct buf *out, const struct term *t, struct str s, size_t width);

void text_blanks(struct buf *out, size_t n);

/** The bytes of s that fit one line of max columns, at least one character. A line breaks behind
 * a space where it can, and at a line feed. */
size_t text_line(const struct term *t, struct str s, size_t max);

/** Switches to SGR code "31;1", and back with text_plain(). Nothing without colour. */
void text_colour(struct buf *out, const struct term *t, const char *code);
void text_plain(struct buf *out, const struct term *t);

#define DURATION_SIZE 24

/** "850 us", "4.2 ms", "412 ms", "2.41 s", "12.3 s", "3m 12s", "2h 05m", "3d 04h". */
void text_duration(char out[DURATION_SIZE], const struct term *t, uint64_t ns);

#define TOKENS_SIZE 64

/** "1234→56"; from 10000 on "12.3k". A negative number is not there; empty without either. */
void text_tokens(char out[TOKENS_SIZE], const struct term *t, int64_t in, int64_t out_tokens);

#define COST_SIZE 64

/** "$0.0123", "1.50 EUR", "<$0.0001"; a + says that more was spent than is known. Empty for a
 * negative amount. The currency may be any text. */
void text_cost(char out[COST_SIZE], double amount, struct str currency, bool has_more);

/** Reads an RFC 3339 time of up to nanoseconds in UTC; false if it is none. */
bool text_time(struct str s, uint64_t *ret_unix_ns);

/** The run's own name in a span's: without the verb that conventions put before it. */
struct str text_bare_name(struct str kind, struct str name);
