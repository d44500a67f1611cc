/* json.h - a streaming JSON writer onto a buffer.
 *
 * It places commas and escapes text; nesting is the caller's. Text that is not UTF-8 has its
 * bad bytes replaced by U+FFFD. Errors stick in the buffer.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

struct json {
	struct buf *out; // borrowed
	bool comma;      // the next value needs one before it
};

void json_init(struct json *j, struct buf *out);

void json_object(struct json *j);
void json_object_end(struct json *j);
void json_array(struct json *j);
void json_array_end(struct json *j);

/** The key of the next value: a plain word of ours, written as it is. */
static inline void json_key(struct json *j, const char *key)
{
	if (j->comma)
		buf_append_byte(j->out, ',');
	buf_append_byte(j->out, '"');
	buf_append_str(j->out, key);
	buf_append(j->out, "\":", 2);
	j->comma = false;
}

/** A key from outside: escaped. */
void json_key_str(struct json *j, struct str key);

void json_str(struct json *j, struct str s); // s.p NULL: null
void json_text(struct json *j, const char *s); // NULL: null
void json_int(struct json *j, int64_t v);
void json_uint(struct json *j, uint64_t v);
void json_double(struct json *j, double v); // NaN and infinities: null
void json_bool(struct json *j, bool v);
void json_null(struct json *j);
void json_hex(struct json *j, const uint8_t *bytes, size_t n);
void json_time(struct json *j, uint64_t unix_ns); // RFC 3339; 0: null
void json_ms(struct json *j, uint64_t ns);        // milliseconds with three decimals

/** One or more whole values, or members of the object we are in, ready made. Empty: nothing. */
void json_raw(struct json *j, const void *bytes, size_t n);
