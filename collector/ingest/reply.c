#include "ingest/reply.h"

#include <string.h>

enum { PREFIX = 4, TEXT_MAX = 100 };

static uint8_t *put_be(uint8_t *p, uint64_t v, unsigned bytes)
{
	while (bytes-- > 0)
		*p++ = (uint8_t)(v >> 8 * bytes);
	return p;
}

/* The shortest form, as msgpack's packers choose it. */
static uint8_t *put_uint(uint8_t *p, uint64_t v)
{
	if (v < 0x80)
		return put_be(p, v, 1);
	unsigned power = v <= UINT8_MAX ? 0 : v <= UINT16_MAX ? 1 : v <= UINT32_MAX ? 2 : 3;
	*p++ = (uint8_t)(0xcc + power);
	return put_be(p, v, 1u << power);
}

static uint8_t *put_str(uint8_t *p, const char *s)
{
	size_t len = strlen(s);

	len = len < TEXT_MAX ? len : TEXT_MAX;
	if (len >= 32) {
		*p++ = 0xd9;
		*p++ = (uint8_t)len;
	} else {
		*p++ = (uint8_t)(0xa0 | len);
	}
	memcpy(p, s, len);
	return p + len;
}

static size_t finish(uint8_t *out, const uint8_t *end)
{
	size_t len = (size_t)(end - out);

	put_be(out, len - PREFIX, PREFIX);
	return len;
}

size_t reply_flushed(uint8_t out[REPLY_MAX], uint64_t token)
{
	uint8_t *p = out + PREFIX;

	*p++ = 0x92;
	*p++ = 5;
	return finish(out, put_uint(p, token));
}

size_t reply_error(uint8_t out[REPLY_MAX], const char *code, const char *message, uint64_t frame)
{
	uint8_t *p = out + PREFIX;

	*p++ = 0x92;
	*p++ = 8;
	*p++ = 0x83;
	p = put_str(put_str(p, "code"), code);
	p = put_str(put_str(p, "message"), message);
	p = put_uint(put_str(p, "frame"), frame);
	return finish(out, p);
}
