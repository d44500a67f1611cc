/* mp.h - a bounded msgpack cursor.
 *
 * It borrows the frame, never allocates, and checks every length against the bytes that are left
 * before it believes it: five bytes may claim four billion elements. mp_skip() validates a whole
 * value, so that what an event hands out can be walked again without a second check of bounds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/stats.h"
#include "base/str.h"

enum mp_type {
	MP_NIL,
	MP_BOOL,
	MP_INT,  // i, from -2^63 to 2^63-1
	MP_UINT, // u, above 2^63-1
	MP_DOUBLE,
	MP_STR,
	MP_BIN,
	MP_ARRAY, // count elements follow
	MP_MAP,   // count pairs follow
	MP_EXT,   // s is its data
};

struct mp {
	const uint8_t *p, *end;
};

struct mp_value {
	enum mp_type type;
	union {
		bool b;
		int64_t i;
		uint64_t u;
		double d;
		struct str s;
		uint32_t count;
	};
};

static inline struct mp mp_of(struct str bytes)
{
	const uint8_t *p = (const uint8_t *)bytes.p;
	return (struct mp){p, p + bytes.len};
}

/** Reads one value; of a container only the head, its elements come next. REFUSAL_NONE, or
 * REFUSED_MALFORMED: cut short, a reserved byte, or a count beyond the bytes that are left. */
enum refusal mp_read(struct mp *c, struct mp_value *ret);

/** Passes over one whole value. depth: containers that may nest in it (0: scalars only).
 * REFUSED_MALFORMED or REFUSED_TOO_DEEP. */
enum refusal mp_skip(struct mp *c, unsigned depth);
