#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"

void json_init(struct json *j, struct buf *out)
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

void json_object(struct json *j)
{
	open_with(j, '{');
}

void json_object_end(struct json *j)
{
	close_with(j, '}');
}

void json_array(struct json *j)
{
	open_with(j, '[');
}

void json_array_end(struct json *j)
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

static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c != '"' && c != '\\' && c != 0x7f;
}

static void write_escaped(struct buf *out, const char *p, size_t len)
{
	size_t i = 0;

	while (i < len) {
		size_t start = i;
		while (i < len && is_plain((uint8_t)p[i]))
			i++;
		buf_append(out, p + start, i - start);
		if (i == len)
			break;
		uint8_t c = (uint8_t)p[i++];
		if (c == '"' || c == '\\') {
			uint8_t esc[2] = {'\\', c};
			buf_append(out, esc, 2);
		} else {
			escape_control(out, c);
		}
	}
}

/* Good stretches as they are, each bad byte as U+FFFD. */
static void write_repaired(struct buf *out, const char *p, size_t len)
{
	while (len > 0) {
		size_t good = utf8_prefix(p, len);
		write_escaped(out, p, good);
		if (good == len)
			return;
		buf_append(out, "\xef\xbf\xbd", 3);
		p += good + 1;
		len -= good + 1;
	}
}

static void write_string(struct buf *out, struct str s)
{
	buf_append_byte(out, '"');
	write_repaired(out, s.p, s.len);
	buf_append_byte(out, '"');
}

void json_key_str(struct json *j, struct str key)
{
	before_value(j);
	write_string(j->out, key);
	buf_append_byte(j->out, ':');
	j->comma = false;
}

void json_key(struct json *j, const char *key)
{
	json_key_str(j, str_of(key));
}

void json_str(struct json *j, struct str s)
{
	if (!s.p) {
		json_null(j);
		return;
	}
	before_value(j);
	write_string(j->out, s);
}

void json_text(struct json *j, const char *s)
{
	json_str(j, str_of(s));
}

void json_int(struct json *j, int64_t v)
{
	before_value(j);
	buf_printf(j->out, "%" PRId64, v);
}

void json_uint(struct json *j, uint64_t v)
{
	before_value(j);
	buf_printf(j->out, "%" PRIu64, v);
}

void json_double(struct json *j, double v)
{
	char text[32];

	if (!isfinite(v)) {
		json_null(j);
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

void json_bool(struct json *j, bool v)
{
	before_value(j);
	buf_append_str(j->out, v ? "true" : "false");
}

void json_null(struct json *j)
{
	before_value(j);
	buf_append_str(j->out, "null");
}

void json_hex(struct json *j, const uint8_t *bytes, size_t n)
{
	before_value(j);
	buf_append_byte(j->out, '"');
	char *at = (char *)buf_extend(j->out, 2 * n);
	if (at)
		hex_write(at, bytes, n);
	buf_append_byte(j->out, '"');
}

void json_time(struct json *j, uint64_t unix_ns)
{
	char text[TIME_TEXT_SIZE];

	if (unix_ns == 0) {
		json_null(j);
		return;
	}
	time_text(text, unix_ns);
	json_text(j, text);
}

void json_ms(struct json *j, uint64_t ns)
{
	uint64_t us = (ns + 500) / NS_PER_US;

	before_value(j);
	buf_printf(j->out, "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
}

void json_raw(struct json *j, const void *bytes, size_t n)
{
	if (n == 0)
		return;
	before_value(j);
	buf_append(j->out, bytes, n);
}
