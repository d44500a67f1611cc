#include "pack.h"

#include <string.h>

static inline bool has_room(struct pack *p, size_t n)
{
	if (p->full || n > p->room - p->len)
		p->full = true;
	return !p->full;
}

void sl_pack_bytes(struct pack *p, const void *bytes, size_t n)
{
	if (!has_room(p, n))
		return;
	memcpy(p->data + p->len, bytes, n);
	p->len += n;
}

/* A first byte and a big-endian number of so many bytes. */
static inline void pack_head(struct pack *p, uint8_t first, uint64_t n, size_t width)
{
	if (!has_room(p, 1 + width))
		return;
	uint8_t *out = p->data + p->len;
	p->len += 1 + width;
	*out = first;
	for (size_t i = width; i > 0; i--, n >>= 8)
		out[i] = (uint8_t)n;
}

/* The shortest of an 8-bit (if there is one), 16-bit and 32-bit length. */
static void pack_length(struct pack *p, uint8_t first8, uint8_t first16, size_t n)
{
	if (first8 && n <= UINT8_MAX)
		pack_head(p, first8, n, 1);
	else if (n <= UINT16_MAX)
		pack_head(p, first16, n, 2);
	else
		pack_head(p, (uint8_t)(first16 + 1), n, 4);
}

void sl_pack_array(struct pack *p, size_t count)
{
	if (count < 16)
		pack_head(p, (uint8_t)(0x90 | count), 0, 0);
	else
		pack_length(p, 0, 0xdc, count);
}

void sl_pack_map(struct pack *p, size_t count)
{
	if (count < 16)
		pack_head(p, (uint8_t)(0x80 | count), 0, 0);
	else
		pack_length(p, 0, 0xde, count);
}

void sl_pack_uint(struct pack *p, uint64_t n)
{
	if (n < 0x80)
		pack_head(p, (uint8_t)n, 0, 0);
	else if (n <= UINT8_MAX)
		pack_head(p, 0xcc, n, 1);
	else if (n <= UINT16_MAX)
		pack_head(p, 0xcd, n, 2);
	else if (n <= UINT32_MAX)
		pack_head(p, 0xce, n, 4);
	else
		pack_head(p, 0xcf, n, 8);
}

void sl_pack_int(struct pack *p, int64_t n)
{
	if (n >= 0)
		sl_pack_uint(p, (uint64_t)n);
	else if (n >= -32)
		pack_head(p, (uint8_t)n, 0, 0);
	else if (n >= INT8_MIN)
		pack_head(p, 0xd0, (uint64_t)n, 1);
	else if (n >= INT16_MIN)
		pack_head(p, 0xd1, (uint64_t)n, 2);
	else if (n >= INT32_MIN)
		pack_head(p, 0xd2, (uint64_t)n, 4);
	else
		pack_head(p, 0xd3, (uint64_t)n, 8);
}

void sl_pack_double(struct pack *p, double d)
{
	uint64_t bits;

	memcpy(&bits, &d, sizeof(bits));
	pack_head(p, 0xcb, bits, 8);
}

void sl_pack_bool(struct pack *p, bool b)
{
	pack_head(p, b ? 0xc3 : 0xc2, 0, 0);
}

void sl_pack_bin(struct pack *p, const void *bytes, size_t n)
{
	pack_length(p, 0xc4, 0xc5, n);
	sl_pack_bytes(p, bytes, n);
}

/* ---- UTF-8 ---- */

static bool is_continuation(uint8_t c)
{
	return (c & 0xc0) == 0x80;
}

/* Bytes of the character at s, 0 if it is malformed (RFC 3629). */
static size_t character_length(const uint8_t *s, size_t left)
{
	// Per first byte from 0xc0: the length, and what the second byte may be at least and at
	// most.
	uint8_t low = 0x80, high = 0xbf;
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (n == 1)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (!is_continuation(s[i]))
			return 0;
	return n;
}

static inline uint64_t load(const char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* Eight bytes at a time, the last ones twice: most text is nothing else. */
static bool is_ascii(const char *text, size_t len)
{
	uint64_t high = 0;
	size_t i;

	if (len < 8) {
		for (i = 0; i < len; i++)
			high |= (uint8_t)text[i];
		return !(high & 0x80);
	}
	for (i = 0; i + 8 < len; i += 8)
		high |= load(text + i);
	return !((high | load(text + len - 8)) & 0x8080808080808080ull);
}

/* Where the first bad byte is, from `from` on; len if there is none. */
static size_t find_bad(const char *text, size_t from, size_t len)
{
	const uint8_t *s = (const uint8_t *)text;

	while (from < len) {
		size_t n = character_length(s + from, len - from);
		if (n == 0)
			return from;
		from += n;
	}
	return len;
}

void sl_pack_text(struct pack *p, const char *text, size_t len)
{
	size_t from = 0;

	if (len < 32)
		pack_head(p, (uint8_t)(0xa0 | len), 0, 0);
	else
		pack_length(p, 0xd9, 0xda, len);
	if (is_ascii(text, len)) {
		sl_pack_bytes(p, text, len);
		return;
	}
	while (from < len) {
		size_t bad = find_bad(text, from, len);
		sl_pack_bytes(p, text + from, bad - from);
		if (bad < len)
			sl_pack_bytes(p, "?", 1);
		from = bad + 1;
	}
}

size_t sl_text_cut(const char *text, size_t len, size_t max)
{
	size_t at = max;

	if (len <= max)
		return len;
	// At most three steps: text that is no UTF-8 need not have a beginning of a character.
	while (at > 0 && max - at < 3 && is_continuation((uint8_t)text[at]))
		at--;
	return is_continuation((uint8_t)text[at]) ? max : at;
}
