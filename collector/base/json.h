/* json.h - a streaming JSON writer onto a buffer.
 *
 * It places commas and escapes text; nesting is the caller's. Text that is not UTF-8 has its bad
 * bytes replaced by U+FFFD. Errors stick in the buffer. The names begin with jsonw_ because
 * jansson, which reads, has taken json_.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

struct json {
	struct buf *out; // borrowed
	bool comma;      // the next value needs one before it
};

void jsonw_init(struct json *j, struct buf *out);

void jsonw_object(struct json *j);
void jsonw_object_end(struct json *j);
void jsonw_array(struct json *j);
void jsonw_array_end(struct json *j);

/** The key of the next value: a plain word of ours, written as it is. */
static inline void jsonw_key(struct json *j, const char *key)
{
	if (j->comma)
		buf_append_byte(j->out, ',');
	buf_append_byte(j->out, '"');
	buf_append_str(j->out, key);
	buf_append(j->out, "\":", 2);
	j->comma = false;
}

/** A key from outside: escaped. */
void jsonw_key_str(struct json *j, struct str key);

void jsonw_str(struct json *j, struct str s);   // s.p NULL: null
void jsonw_text(struct json *j, const char *s); // NULL: null
void jsonw_base64(struct json *j, struct str bytes);
void jsonw_int(struct json *j, int64_t v);
void jsonw_uint(struct json *j, uint64_t v);
void jsonw_double(struct json *j, double v); // NaN and infinities: null
void jsonw_bool(struct json *j, bool v);
void jsonw_null(struct json *j);
void jsonw_hex(struct json *j, const uint8_t *bytes, size_t n);
void jsonw_time(struct json *j, uint64_t unix_ns); // RFC 3339; 0: null
void jsonw_ms(struct json *j, uint64_t ns);        // milliseconds with three decimals

/** One or more whole values, or members of the object we are in, ready made. Empty: nothing. */
void jsonw_raw(struct json *j, const void *bytes, size_t n);
