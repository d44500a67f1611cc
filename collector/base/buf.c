#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"

enum { FIRST_ROOM = 256 };

void buf_init(struct buf *b, size_t cap)
{
	*b = (struct buf){.cap = cap};
}

void buf_deinit(struct buf *b)
{
	free(b->data);
	buf_init(b, b->cap);
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->error = 0;
}

static bool widen(struct buf *b, size_t need)
{
	size_t room = b->room ? b->room : FIRST_ROOM;

	while (room < need)
		room *= 2;
	if (room > b->cap)
		room = b->cap;
	uint8_t *data = realloc(b->data, room);
	if (!data) {
		b->error = -ENOMEM;
		return false;
	}
	b->data = data;
	b->room = room;
	return true;
}

bool buf_grow(struct buf *b, size_t n)
{
	if (b->error)
		return false;
	if (n > b->cap - b->len) {
		b->error = -ENOSPC;
		return false;
	}
	return b->len + n <= b->room || widen(b, b->len + n);
}

void buf_append_utf8(struct buf *b, const char *text, size_t len)
{
	while (len > 0) {
		size_t good = utf8_prefix(text, len);
		buf_append(b, text, good);
		if (good == len)
			return;
		buf_append(b, "\xef\xbf\xbd", 3);
		text += good + 1;
		len -= good + 1;
	}
}

void buf_append_digits(struct buf *b, uint64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	buf_append(b, digits + at, sizeof(digits) - at);
}

void buf_append_base64(struct buf *b, const void *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t bits = (uint32_t)p[i] << 16;
		bits |= n > 1 ? (uint32_t)p[i + 1] << 8 : 0;
		bits |= n > 2 ? (uint32_t)p[i + 2] : 0;
		char quad[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
		                n > 1 ? digits[bits >> 6 & 63] : '=',
		                n > 2 ? digits[bits & 63] : '='};
		buf_append(b, quad, sizeof(quad));
	}
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	char small[256];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(small, sizeof(small), fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->error = b->error ? b->error : -EINVAL;
		return;
	}
	if ((size_t)n < sizeof(small)) {
		buf_append(b, small, (size_t)n);
		return;
	}
	if (!buf_reserve(b, (size_t)n + 1))
		return;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}
