#include "core/pb.h"

#include "base/err.h"
#include "core/otlp_fields.h"

enum { VARINT_MAX = 10, TAG_MAX = 5 };

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static uint8_t *put_tag(uint8_t *p, uint32_t field, enum pb_wire wire)
{
	return put_varint(p, (uint64_t)field << 3 | wire);
}

size_t pb_varint_size(uint64_t v)
{
	size_t n = 1;

	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

/* The caller has reserved the room; only the length is to be moved. */
static void advance_to(struct buf *b, const uint8_t *p)
{
	b->len = (size_t)(p - b->data);
}

void pb_varint(struct buf *b, uint64_t v)
{
	if (buf_reserve(b, VARINT_MAX))
		advance_to(b, put_varint(b->data + b->len, v));
}

void pb_uint(struct buf *b, uint32_t field, uint64_t v)
{
	if (!buf_reserve(b, TAG_MAX + VARINT_MAX))
		return;
	uint8_t *p = put_tag(b->data + b->len, field, PB_VARINT);
	advance_to(b, put_varint(p, v));
}

void pb_fixed64(struct buf *b, uint32_t field, uint64_t v)
{
	if (!buf_reserve(b, TAG_MAX + sizeof(v)))
		return;
	uint8_t *p = put_tag(b->data + b->len, field, PB_FIXED64);
	memcpy(p, &v, sizeof(v)); // little-endian, as this machine
	advance_to(b, p + sizeof(v));
}

void pb_fixed32(struct buf *b, uint32_t field, uint32_t v)
{
	if (!buf_reserve(b, TAG_MAX + sizeof(v)))
		return;
	uint8_t *p = put_tag(b->data + b->len, field, PB_FIXED32);
	memcpy(p, &v, sizeof(v));
	advance_to(b, p + sizeof(v));
}

void pb_double(struct buf *b, uint32_t field, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	pb_fixed64(b, field, bits);
}

void pb_bytes(struct buf *b, uint32_t field, const void *bytes, size_t len)
{
	if (!buf_reserve(b, TAG_MAX + VARINT_MAX + len))
		return;
	uint8_t *p = put_tag(b->data + b->len, field, PB_BYTES);
	p = put_varint(p, len);
	if (len)
		memcpy(p, bytes, len);
	advance_to(b, p + len);
}

size_t pb_begin(struct buf *b, uint32_t field)
{
	if (!buf_reserve(b, TAG_MAX + 1))
		return 0;
	uint8_t *p = put_tag(b->data + b->len, field, PB_BYTES);
	*p++ = 0; // the length of a short message; pb_end() widens it for a long one
	advance_to(b, p);
	return b->len;
}

void pb_end(struct buf *b, size_t begun)
{
	if (buf_error(b))
		return;
	size_t len = b->len - begun;
	size_t extra = pb_varint_size(len) - 1;
	if (extra) {
		if (!buf_reserve(b, extra))
			return;
		memmove(b->data + begun + extra, b->data + begun, len);
		b->len += extra;
	}
	put_varint(b->data + begun - 1, len);
}

/* KeyValue's head: its tag and length, the key, and the tag and length of the AnyValue. */
static uint8_t *put_attr_head(struct buf *b, uint32_t field, struct str key, size_t any_len)
{
	size_t value_len = 1 + pb_varint_size(any_len) + any_len;
	size_t body = 1 + pb_varint_size(key.len) + key.len + value_len;

	if (!buf_reserve(b, TAG_MAX + VARINT_MAX + body))
		return NULL;
	uint8_t *p = put_tag(b->data + b->len, field, PB_BYTES);
	p = put_varint(p, body);
	p = put_tag(p, KEYVALUE_KEY, PB_BYTES);
	p = put_varint(p, key.len);
	if (key.len)
		memcpy(p, key.p, key.len);
	p += key.len;
	p = put_tag(p, KEYVALUE_VALUE, PB_BYTES);
	return put_varint(p, any_len);
}

void pb_attr_str(struct buf *b, uint32_t field, struct str key, struct str value)
{
	uint8_t *p = put_attr_head(b, field, key, 1 + pb_varint_size(value.len) + value.len);

	if (!p)
		return;
	p = put_tag(p, ANY_STRING, PB_BYTES);
	p = put_varint(p, value.len);
	if (value.len)
		memcpy(p, value.p, value.len);
	advance_to(b, p + value.len);
}

void pb_attr_int(struct buf *b, uint32_t field, struct str key, int64_t value)
{
	uint8_t *p = put_attr_head(b, field, key, 1 + pb_varint_size((uint64_t)value));

	if (!p)
		return;
	p = put_tag(p, ANY_INT, PB_VARINT);
	advance_to(b, put_varint(p, (uint64_t)value));
}

void pb_attr_double(struct buf *b, uint32_t field, struct str key, double value)
{
	uint8_t *p = put_attr_head(b, field, key, 1 + sizeof(value));

	if (!p)
		return;
	p = put_tag(p, ANY_DOUBLE, PB_FIXED64);
	memcpy(p, &value, sizeof(value));
	advance_to(b, p + sizeof(value));
}

void pb_attr_bool(struct buf *b, uint32_t field, struct str key, bool value)
{
	uint8_t *p = put_attr_head(b, field, key, 2);

	if (!p)
		return;
	p = put_tag(p, ANY_BOOL, PB_VARINT);
	*p++ = value;
	advance_to(b, p);
}

static bool get_long_varint(struct pb_cursor *c, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && c->p < c->end; shift += 7) {
		uint8_t byte = *c->p++;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = v;
			return true;
		}
	}
	return false;
}

static inline bool get_varint(struct pb_cursor *c, uint64_t *ret)
{
	if (c->p < c->end && *c->p < 0x80) { // most tags and lengths
		*ret = *c->p++;
		return true;
	}
	return get_long_varint(c, ret);
}

static bool get_fixed(struct pb_cursor *c, size_t size, uint64_t *ret)
{
	*ret = 0;
	if ((size_t)(c->end - c->p) < size)
		return false;
	memcpy(ret, c->p, size);
	c->p += size;
	return true;
}

static bool get_bytes(struct pb_cursor *c, struct str *ret)
{
	uint64_t len;

	if (!get_varint(c, &len) || len > (size_t)(c->end - c->p))
		return false;
	*ret = (struct str){(const char *)c->p, (size_t)len};
	c->p += len;
	return true;
}

int pb_next(struct pb_cursor *c, struct pb_field *ret)
{
	uint64_t tag;
	bool ok;

	if (c->p == c->end)
		return 0;
	if (!get_varint(c, &tag) || tag >> 3 == 0 || tag >> 32)
		return ERR_FORMAT;
	ret->number = (uint32_t)(tag >> 3);
	ret->wire = (enum pb_wire)(tag & 7);
	switch (ret->wire) {
	case PB_VARINT:
		ok = get_varint(c, &ret->value);
		break;
	case PB_FIXED64:
		ok = get_fixed(c, 8, &ret->value);
		break;
	case PB_FIXED32:
		ok = get_fixed(c, 4, &ret->value);
		break;
	case PB_BYTES:
		ok = get_bytes(c, &ret->bytes);
		break;
	default: // groups
		ok = false;
	}
	return ok ? 1 : ERR_FORMAT;
}
