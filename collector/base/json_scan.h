/* json_scan.h - reads back what json.h wrote: members by key, and text.
 *
 * For our own JSON only, which is well-formed and whose keys need no escapes. Nothing is
 * allocated, and nothing past the end is read whatever the bytes are.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/** The value of a member, as it is written; members are those of one object, without its braces. p
 * is NULL when there is none. */
struct str json_member(struct str members, const char *key);

/** Appends a string's text. False for null or anything else: nothing is appended. */
bool json_text(struct buf *out, struct str value);

/** A whole number that is not negative. False for anything else. */
bool json_count(struct str value, int64_t *ret);

/** Any number. False for anything else. */
bool json_number(struct str value, double *ret);
