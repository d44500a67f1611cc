/* value.h - captured values: msgpack to JSON text and to OTLP attributes, cut to size.
 *
 * The msgpack given here was validated by the decoder; lengths are checked again all the same.
 * A text longer than max bytes is cut at a character, and its full length reported.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "core/mp.h"

/** Takes a text out of a budget that many share: one more than the bytes that are left, or 0 once
 * something did not fit and was cut. */
struct str value_spend(struct str s, size_t *budget);

/** One value as JSON: bin as base64, ext as null, keys that are no text as their JSON. Texts share
 * the budget. */
void value_json(struct json *j, struct mp *c, size_t *budget);

/** A value as text: a str as it is (borrowed), anything else as JSON in scratch (cleared first).
 * Cut to max bytes; *ret_full is the uncut length (of JSON: 0 if nothing was cut, else about that
 * of the msgpack, and longer than what is left). */
struct str value_text(struct str value, size_t max, struct buf *scratch, size_t *ret_full);

/** The attributes of a msgpack map as fields `field` (KeyValue) of the message being written, keys
 * verbatim, nested maps as kvlists. Returns how many values were cut at max bytes. */
unsigned value_attributes(struct buf *out, uint32_t field, struct str map, size_t max);

/** The same, but for keys that the message in out, which begins at its start, has already: OTLP
 * wants an attribute once, and the first one stays. */
unsigned value_new_attributes(struct buf *out, uint32_t field, struct str map, size_t max);

/** Whether the encoded message has an attribute. */
bool value_has_attribute(struct str message, uint32_t field, struct str key);

/** An attribute whose value is text, its bad bytes replaced: OTLP's strings are UTF-8. */
void value_attr_text(struct buf *out, uint32_t field, struct str key, struct str text);

/** Reads a map's key; p NULL for one that is no text, which is passed over. */
struct str value_key(struct mp *c);

/** The text under a key of a msgpack map; p NULL when there is none. */
struct str value_lookup_text(struct str map, const char *key);

/** The whole value under a key of a msgpack map; p NULL when there is none. */
struct str value_lookup(struct str map, const char *key);
