#include "base/str.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"

static bool is_continuation(uint8_t c)
{
	return (c & 0xc0) == 0x80;
}

size_t utf8_length(const char *text, size_t left)
{
	const uint8_t *p = (const uint8_t *)text;
	uint8_t c = left > 0 ? p[0] : 0xff;

	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		return left >= 2 && is_continuation(p[1]) ? 2 : 0;
	if ((c & 0xf0) == 0xe0) {
		if (left < 3 || !is_continuation(p[1]) || !is_continuation(p[2]))
			return 0;
		if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f))
			return 0;
		return 3;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		if (left < 4 || !is_continuation(p[1]) || !is_continuation(p[2]) ||
		    !is_continuation(p[3]))
			return 0;
		if ((c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

size_t utf8_prefix(const char *text, size_t len)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t i = 0;

	while (i < len) {
		uint64_t word;
		// Eight plain ASCII bytes at a time: most text is nothing else.
		while (len - i >= 8) {
			memcpy(&word, p + i, 8);
			if (word & 0x8080808080808080ull)
				break;
			i += 8;
		}
		if (i == len)
			break;
		size_t n = utf8_length(text + i, len - i);
		if (n == 0)
			return i;
		i += n;
	}
	return len;
}

bool utf8_is_valid(const char *text, size_t len)
{
	return utf8_prefix(text, len) == len;
}

size_t utf8_cut(const char *p, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && is_continuation((uint8_t)p[max]))
		max--;
	return max;
}

void hex_write(char *out, const uint8_t *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool hex_read(uint8_t *ret_bytes, size_t n, const char *hex)
{
	for (size_t i = 0; i < n; i++) {
		int hi = digit_value(hex[2 * i]);
		int lo = hi < 0 ? -1 : digit_value(hex[2 * i + 1]);
		if (lo < 0)
			return false;
		ret_bytes[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

void time_text(char out[TIME_TEXT_SIZE], uint64_t unix_ns)
{
	static const char latest[] = "9999-12-31T23:59:59.999999999Z";
	time_t seconds = (time_t)(unix_ns / NS_PER_S);
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || tm.tm_year > 9999 - 1900) {
		memcpy(out, latest, sizeof(latest));
		return;
	}
	size_t n = strftime(out, TIME_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, TIME_TEXT_SIZE - n, ".%09uZ", (unsigned)(unix_ns % NS_PER_S));
}
