#include "base/str.h"

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

static char *put_digits(char *p, unsigned v, unsigned count)
{
	for (unsigned i = count; i-- > 0; v /= 10)
		p[i] = (char)('0' + v % 10);
	return p + count;
}

void time_text(char out[TIME_TEXT_SIZE], uint64_t unix_ns)
{
	static const char latest[] = "9999-12-31T23:59:59.999999999Z";
	uint64_t seconds = unix_ns / NS_PER_S;
	unsigned second = (unsigned)(seconds % 86400);

	// Days to a date in the calendar that is always the same 400 years long, from March on, so
	// that the leap day comes last.
	uint64_t days = seconds / 86400 + 719468;
	uint64_t era = days / 146097;
	unsigned of_era = (unsigned)(days % 146097);
	unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
	unsigned month = (5 * of_year + 2) / 153;
	unsigned day = of_year - (153 * month + 2) / 5 + 1;
	uint64_t full_year = era * 400 + year + (month >= 10);
	if (full_year > 9999) {
		memcpy(out, latest, sizeof(latest));
		return;
	}
	char *p = put_digits(out, (unsigned)full_year, 4);
	*p++ = '-';
	p = put_digits(p, month < 10 ? month + 3 : month - 9, 2);
	*p++ = '-';
	p = put_digits(p, day, 2);
	*p++ = 'T';
	p = put_digits(p, second / 3600, 2);
	*p++ = ':';
	p = put_digits(p, second / 60 % 60, 2);
	*p++ = ':';
	p = put_digits(p, second % 60, 2);
	*p++ = '.';
	p = put_digits(p, (unsigned)(unix_ns % NS_PER_S), 9);
	*p++ = 'Z';
	*p = '\0';
}
