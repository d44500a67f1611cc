#include "core/mp.h"

#include <endian.h>

/* What the first bytes 0xc0 to 0xdf mean: a type and the bytes of the number that follows. */
static const struct head {
	uint8_t type;
	uint8_t width;
} heads[32] = {
	{MP_NIL, 0},    {MP_NIL, 0},                                // nil, reserved
	{MP_BOOL, 0},   {MP_BOOL, 0},                               // false, true
	{MP_BIN, 1},    {MP_BIN, 2},    {MP_BIN, 4},                // bin 8, 16, 32
	{MP_EXT, 1},    {MP_EXT, 2},    {MP_EXT, 4},                // ext 8, 16, 32
	{MP_DOUBLE, 4}, {MP_DOUBLE, 8},                             // float 32, 64
	{MP_UINT, 1},   {MP_UINT, 2},   {MP_UINT, 4}, {MP_UINT, 8}, // uint 8 to 64
	{MP_INT, 1},    {MP_INT, 2},    {MP_INT, 4},  {MP_INT, 8},  // int 8 to 64
	{MP_EXT, 0},    {MP_EXT, 0},    {MP_EXT, 0},  {MP_EXT, 0},  // fixext 1, 2, 4, 8
	{MP_EXT, 0},                                                // fixext 16
	{MP_STR, 1},    {MP_STR, 2},    {MP_STR, 4},                // str 8, 16, 32
	{MP_ARRAY, 2},  {MP_ARRAY, 4},  {MP_MAP, 2},  {MP_MAP, 4},
};

enum { RESERVED = 0xc1, TRUE = 0xc3, FIXEXT1 = 0xd4, FIXEXT16 = 0xd8 };

static inline uint64_t big_endian(const uint8_t *p, unsigned width)
{
	uint16_t n16;
	uint32_t n32;
	uint64_t n64;

	switch (width) {
	case 1:
		return *p;
	case 2:
		memcpy(&n16, p, 2);
		return be16toh(n16);
	case 4:
		memcpy(&n32, p, 4);
		return be32toh(n32);
	case 8:
		memcpy(&n64, p, 8);
		return be64toh(n64);
	default:
		return 0;
	}
}

static inline size_t left(const struct mp *c)
{
	return (size_t)(c->end - c->p);
}

static inline enum refusal take_bytes(struct mp *c, enum mp_type type, uint64_t len,
                                      struct mp_value *ret)
{
	if (len > left(c))
		return REFUSED_MALFORMED;
	ret->type = type;
	ret->s = (struct str){(const char *)c->p, (size_t)len};
	c->p += len;
	return REFUSAL_NONE;
}

/* Each element takes a byte at least, so a count that the rest can't hold is a lie. */
static inline enum refusal take_count(struct mp *c, enum mp_type type, uint64_t count,
                                      struct mp_value *ret)
{
	if (count * (type == MP_MAP ? 2 : 1) > left(c))
		return REFUSED_MALFORMED;
	ret->type = type;
	ret->count = (uint32_t)count;
	return REFUSAL_NONE;
}

static inline enum refusal take_int(int64_t i, struct mp_value *ret)
{
	ret->type = MP_INT;
	ret->i = i;
	return REFUSAL_NONE;
}

static enum refusal take_uint(uint64_t u, struct mp_value *ret)
{
	ret->type = u > INT64_MAX ? MP_UINT : MP_INT;
	ret->u = u;
	return REFUSAL_NONE;
}

static enum refusal take_signed(uint64_t n, unsigned width, struct mp_value *ret)
{
	unsigned shift = 64 - 8 * width;

	return take_int((int64_t)(n << shift) >> shift, ret);
}

static enum refusal take_double(uint64_t bits, unsigned width, struct mp_value *ret)
{
	uint32_t bits32 = (uint32_t)bits;
	float f;

	ret->type = MP_DOUBLE;
	if (width == 8) {
		memcpy(&ret->d, &bits, sizeof(ret->d));
	} else {
		memcpy(&f, &bits32, sizeof(f));
		ret->d = (double)f;
	}
	return REFUSAL_NONE;
}

/* The type byte is passed over; the data follows. */
static enum refusal take_ext(struct mp *c, uint8_t first, uint64_t len, struct mp_value *ret)
{
	if (first >= FIXEXT1 && first <= FIXEXT16)
		len = 1u << (first - FIXEXT1);
	if (left(c) == 0)
		return REFUSED_MALFORMED;
	c->p++;
	return take_bytes(c, MP_EXT, len, ret);
}

static enum refusal read_long(struct mp *c, uint8_t first, struct mp_value *ret)
{
	struct head head = heads[first - 0xc0];

	if (first == RESERVED || head.width > left(c))
		return REFUSED_MALFORMED;
	uint64_t n = big_endian(c->p, head.width);
	c->p += head.width;
	switch ((enum mp_type)head.type) {
	case MP_NIL:
		ret->type = MP_NIL;
		return REFUSAL_NONE;
	case MP_BOOL:
		ret->type = MP_BOOL;
		ret->b = first == TRUE;
		return REFUSAL_NONE;
	case MP_INT:
		return take_signed(n, head.width, ret);
	case MP_UINT:
		return take_uint(n, ret);
	case MP_DOUBLE:
		return take_double(n, head.width, ret);
	case MP_STR:
	case MP_BIN:
		return take_bytes(c, (enum mp_type)head.type, n, ret);
	case MP_ARRAY:
	case MP_MAP:
		return take_count(c, (enum mp_type)head.type, n, ret);
	case MP_EXT:
		return take_ext(c, first, n, ret);
	}
	return REFUSED_MALFORMED;
}

static inline enum refusal read_value(struct mp *c, struct mp_value *ret)
{
	if (c->p == c->end)
		return REFUSED_MALFORMED;
	uint8_t first = *c->p++;
	if (first < 0x80)
		return take_int(first, ret);
	if (first >= 0xe0)
		return take_int((int8_t)first, ret);
	if (first >= 0xc0)
		return read_long(c, first, ret);
	if (first >= 0xa0)
		return take_bytes(c, MP_STR, first & 0x1fu, ret);
	return take_count(c, first >= 0x90 ? MP_ARRAY : MP_MAP, first & 0x0fu, ret);
}

enum refusal mp_read(struct mp *c, struct mp_value *ret)
{
	return read_value(c, ret);
}

/* Recursion is as deep as depth, no deeper. */
static enum refusal skip_values(struct mp *c, uint64_t count, unsigned depth)
{
	struct mp_value v;

	for (; count > 0; count--) {
		enum refusal r = read_value(c, &v);
		if (r != REFUSAL_NONE)
			return r;
		if (v.type != MP_ARRAY && v.type != MP_MAP)
			continue;
		if (depth == 0)
			return REFUSED_TOO_DEEP;
		r = skip_values(c, (uint64_t)v.count * (v.type == MP_MAP ? 2 : 1), depth - 1);
		if (r != REFUSAL_NONE)
			return r;
	}
	return REFUSAL_NONE;
}

enum refusal mp_skip(struct mp *c, unsigned depth)
{
	return skip_values(c, 1, depth);
}
