/* pb.h - protobuf, written and read directly.
 *
 * The writer appends fields to a buffer, byte for byte what nanopb and protoc produce; a test
 * holds it against nanopb. The reader is a bounded cursor that never allocates and never reads
 * past its end. Field numbers come from proto/, by hand for the hot messages.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

/* --- writer: errors stick in the buffer --- */

void pb_varint(struct buf *b, uint64_t v); // bare, without a tag
void pb_uint(struct buf *b, uint32_t field, uint64_t v);
void pb_fixed64(struct buf *b, uint32_t field, uint64_t v);
void pb_fixed32(struct buf *b, uint32_t field, uint32_t v);
void pb_double(struct buf *b, uint32_t field, double v);
void pb_bytes(struct buf *b, uint32_t field, const void *p, size_t len);

static inline void pb_str(struct buf *b, uint32_t field, struct str s)
{
	pb_bytes(b, field, s.p, s.len);
}

/** Opens a submessage; give what it returns to pb_end(). The length is filled in there. */
size_t pb_begin(struct buf *b, uint32_t field);
void pb_end(struct buf *b, size_t begun);

/** The size of v as a varint. */
size_t pb_varint_size(uint64_t v);

/* KeyValue attributes, as repeated field `field` of the message being written. */
void pb_attr_str(struct buf *b, uint32_t field, struct str key, struct str value);
void pb_attr_int(struct buf *b, uint32_t field, struct str key, int64_t value);
void pb_attr_double(struct buf *b, uint32_t field, struct str key, double value);
void pb_attr_bool(struct buf *b, uint32_t field, struct str key, bool value);

/* --- reader --- */

struct pb_cursor {
	const uint8_t *p, *end;
};

struct pb_field {
	uint32_t number;
	enum pb_wire wire;
	uint64_t value;   // varint, fixed64, fixed32; else not set
	struct str bytes; // PB_BYTES, borrowed; else not set
};

static inline struct pb_cursor pb_cursor_of(struct str bytes)
{
	const uint8_t *p = (const uint8_t *)bytes.p;
	return (struct pb_cursor){p, p + bytes.len};
}

/** Reads the next field. 1: there is one; 0: the end; ERR_FORMAT: malformed. */
int pb_next(struct pb_cursor *c, struct pb_field *ret);
