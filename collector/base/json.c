#include "base/json.h"

#include <math.h>
#include <stdio.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/clock.h"

void jsonw_init(struct json *j, struct buf *out)
{
	*j = (struct json){.out = out};
}

static void before_value(struct json *j)
{
	if (j->comma)
		buf_append_byte(j->out, ',');
	j->comma = true;
}

static void open_with(struct json *j, uint8_t bracket)
{
	before_value(j);
	buf_append_byte(j->out, bracket);
	j->comma = false;
}

static void close_with(struct json *j, uint8_t bracket)
{
	buf_append_byte(j->out, bracket);
	j->comma = true;
}

void jsonw_object(struct json *j)
{
	open_with(j, '{');
}

void jsonw_object_end(struct json *j)
{
	close_with(j, '}');
}

void jsonw_array(struct json *j)
{
	open_with(j, '[');
}

void jsonw_array_end(struct json *j)
{
	close_with(j, ']');
}

static void escape_control(struct buf *out, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";
	char esc[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

	switch (c) {
	case '\n':
		buf_append(out, "\\n", 2);
		break;
	case '\t':
		buf_append(out, "\\t", 2);
		break;
	case '\r':
		buf_append(out, "\\r", 2);
		break;
	default:
		buf_append(out, esc, 6);
	}
}

/* Bytes that stand for themselves: printable ASCII but the quote and the backslash. */
static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* How many plain bytes there are at the start. */
static size_t plain_prefix(const char *p, size_t len)
{
	size_t i = 0;

#ifdef __SSE2__
	for (; len - i >= 16; i += 16) {
		__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
		// As signed numbers, what is not ASCII is less than a space too.
		__m128i special = _mm_cmplt_epi8(bytes, _mm_set1_epi8(' '));
		special = _mm_or_si128(special, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
		special = _mm_or_si128(special, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
		special = _mm_or_si128(special, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f)));
		unsigned mask = (unsigned)_mm_movemask_epi8(special);
		if (mask)
			return i + (size_t)__builtin_ctz(mask);
	}
#endif
	while (i < len && is_plain((uint8_t)p[i]))
		i++;
	return i;
}

/* One character that is not plain. Returns its length. */
static size_t write_special(struct buf *out, const char *p, size_t len)
{
	uint8_t c = (uint8_t)*p;

	if (c == '"' || c == '\\') {
		uint8_t esc[2] = {'\\', c};
		buf_append(out, esc, 2);
		return 1;
	}
	if (c < 0x80) {
		escape_control(out, c);
		return 1;
	}
	size_t n = utf8_length(p, len);
	if (n == 0) {
		buf_append(out, "\xef\xbf\xbd", 3);
		return 1;
	}
	buf_append(out, p, n);
	return n;
}

static void write_text(struct buf *out, const char *p, size_t len)
{
	while (len > 0) {
		size_t n = plain_prefix(p, len);
		buf_append(out, p, n);
		if (n < len)
			n += write_special(out, p + n, len - n);
		p += n;
		len -= n;
	}
}

static void write_string(struct buf *out, struct str s)
{
	buf_append_byte(out, '"');
	write_text(out, s.p, s.len);
	buf_append_byte(out, '"');
}

void jsonw_key_str(struct json *j, struct str key)
{
	before_value(j);
	write_string(j->out, key);
	buf_append_byte(j->out, ':');
	j->comma = false;
}

void jsonw_str(struct json *j, struct str s)
{
	if (!s.p) {
		jsonw_null(j);
		return;
	}
	before_value(j);
	write_string(j->out, s);
}

void jsonw_text(struct json *j, const char *s)
{
	jsonw_str(j, str_of(s));
}

void jsonw_base64(struct json *j, struct str bytes)
{
	before_value(j);
	buf_append_byte(j->out, '"');
	buf_append_base64(j->out, bytes.p, bytes.len);
	buf_append_byte(j->out, '"');
}

void jsonw_int(struct json *j, int64_t v)
{
	before_value(j);
	if (v < 0)
		buf_append_byte(j->out, '-');
	buf_append_digits(j->out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void jsonw_uint(struct json *j, uint64_t v)
{
	before_value(j);
	buf_append_digits(j->out, v);
}

void jsonw_double(struct json *j, double v)
{
	char text[32];

	if (!isfinite(v)) {
		jsonw_null(j);
		return;
	}
	before_value(j);
	// The shortest of the two that reads back as the same number.
	snprintf(text, sizeof(text), "%.15g", v);
	double back = 0;
	if (sscanf(text, "%lf", &back) != 1 || back < v || back > v)
		snprintf(text, sizeof(text), "%.17g", v);
	buf_append_str(j->out, text);
}

void jsonw_bool(struct json *j, bool v)
{
	before_value(j);
	buf_append_str(j->out, v ? "true" : "false");
}

void jsonw_null(struct json *j)
{
	before_value(j);
	buf_append_str(j->out, "null");
}

void jsonw_hex(struct json *j, const uint8_t *bytes, size_t n)
{
	before_value(j);
	buf_append_byte(j->out, '"');
	char *at = (char *)buf_extend(j->out, 2 * n);
	if (at)
		hex_write(at, bytes, n);
	buf_append_byte(j->out, '"');
}

void jsonw_time(struct json *j, uint64_t unix_ns)
{
	char text[TIME_TEXT_SIZE];

	if (unix_ns == 0) {
		jsonw_null(j);
		return;
	}
	time_text(text, unix_ns);
	jsonw_text(j, text);
}

void jsonw_ms(struct json *j, uint64_t ns)
{
	uint64_t us = (ns + 500) / NS_PER_US;
	char part[4] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10),
	                (char)('0' + us % 10)};

	before_value(j);
	buf_append_digits(j->out, us / 1000);
	buf_append(j->out, part, sizeof(part));
}

void jsonw_raw(struct json *j, const void *bytes, size_t n)
{
	if (n == 0)
		return;
	before_value(j);
	buf_append(j->out, bytes, n);
}
