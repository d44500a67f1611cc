#include "base/json_scan.h"

#include <stdlib.h>
#include <string.h>

/* Past the string that begins at p; end when it doesn't stop. */
static const char *skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p < end ? p + 1 : end;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Past the value at p: to the comma behind it, or the end. */
static const char *skip_value(const char *p, const char *end)
{
	int depth = 0;

	while (p < end && !(depth == 0 && *p == ',')) {
		if (*p == '"') {
			p = skip_string(p, end);
			continue;
		}
		depth += *p == '{' || *p == '[';
		depth -= *p == '}' || *p == ']';
		p++;
	}
	return p;
}

static struct str trimmed(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	while (end > p && is_space(end[-1]))
		end--;
	return (struct str){p, (size_t)(end - p)};
}

struct str json_member(struct str members, const char *key)
{
	const char *p = members.p, *end = members.p + members.len;

	while (p && p < end) {
		while (p < end && (is_space(*p) || *p == ','))
			p++;
		if (p == end || *p != '"')
			break;
		const char *name = p + 1;
		p = skip_string(p, end);
		struct str own = {name, (size_t)(p - name - (p > name))};
		while (p < end && *p != ':')
			p++;
		const char *value = p < end ? p + 1 : end;
		p = skip_value(value, end);
		if (str_eq(own, str_of(key)))
			return trimmed(value, p);
	}
	return (struct str){0};
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits at p, of what our writer escapes: control characters. -1: something else. */
static int code_at(const char *p, const char *end)
{
	int code = 0;

	for (int i = 0; i < 4; i++, p++) {
		int digit = p < end ? hex_digit(*p) : -1;
		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code < 0x80 ? code : -1;
}

static char plain_escape(char c)
{
	switch (c) {
	case 'n':
		return '\n';
	case 't':
		return '\t';
	case 'r':
		return '\r';
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	default:
		return c;
	}
}

bool json_text(struct buf *out, struct str value)
{
	if (value.len < 2 || value.p[0] != '"' || value.p[value.len - 1] != '"')
		return false;
	const char *p = value.p + 1, *end = value.p + value.len - 1;
	while (p < end) {
		const char *escape = memchr(p, '\\', (size_t)(end - p));
		const char *stop = escape ? escape : end;
		buf_append(out, p, (size_t)(stop - p));
		p = stop;
		if (!escape || ++p == end)
			break;
		int code = *p == 'u' ? code_at(p + 1, end) : -1;
		buf_append_byte(out, (uint8_t)(code < 0 ? plain_escape(*p) : code));
		p += code < 0 ? 1 : 5;
	}
	return true;
}

bool json_count(struct str value, int64_t *ret)
{
	int64_t n = 0;

	if (value.len == 0 || value.len > 18)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (value.p[i] < '0' || value.p[i] > '9')
			return false;
		n = n * 10 + (value.p[i] - '0');
	}
	*ret = n;
	return true;
}

bool json_number(struct str value, double *ret)
{
	char text[32], *end;

	if (value.len == 0 || value.len >= sizeof(text))
		return false;
	// strtod() would take "inf" and " 1" as well
	if (value.p[0] != '-' && (value.p[0] < '0' || value.p[0] > '9'))
		return false;
	memcpy(text, value.p, value.len);
	text[value.len] = '\0';
	double number = strtod(text, &end);
	if (end != text + value.len)
		return false;
	*ret = number;
	return true;
}
