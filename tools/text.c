#include "text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <wchar.h>

#include "base/clock.h"

/* One character as it is shown. */
struct glyph {
	const char *p;
	size_t len;
	unsigned columns;
};

/* Lengths by the first byte; text from JSON is well-formed, a cut end is not. */
static size_t decode(struct str s, uint32_t *ret_code)
{
	uint8_t c = (uint8_t)s.p[0];
	size_t len = c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	if (len > s.len || !utf8_is_valid(s.p, len)) {
		*ret_code = UINT32_MAX;
		return 1;
	}
	uint32_t code = len == 1 ? c : c & (0x7fu >> len);
	for (size_t i = 1; i < len; i++)
		code = code << 6 | ((uint8_t)s.p[i] & 0x3f);
	*ret_code = code;
	return len;
}

/* Characters that reorder what stands around them can make a line lie. */
static bool is_unsafe(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
	       code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069) || code == UINT32_MAX;
}

static size_t next_glyph(const struct term *t, struct str s, struct glyph *ret)
{
	uint32_t code;
	size_t len = decode(s, &code);

	if (code == '\n' || code == '\t' || code == '\r') {
		*ret = (struct glyph){" ", 1, 1};
		return len;
	}
	int columns = is_unsafe(code) ? -1 : code < 0x7f ? 1 : wcwidth((wchar_t)code);
	if (!t->utf8 && (code >= 0x7f || columns < 0))
		*ret = (struct glyph){"?", 1, 1};
	else if (columns < 0)
		*ret = (struct glyph){"\xef\xbf\xbd", 3, 1};
	else
		*ret = (struct glyph){s.p, len, (unsigned)columns};
	return len;
}

static struct str skip(struct str s, size_t n)
{
	return (struct str){s.p + n, s.len - n};
}

size_t text_columns(const struct term *t, struct str s)
{
	size_t columns = 0;
	struct glyph g;

	while (s.len > 0) {
		s = skip(s, next_glyph(t, s, &g));
		columns += g.columns;
	}
	return columns;
}

/* Whether s fits max columns; looks no further than it must. */
static bool fits(const struct term *t, struct str s, size_t max)
{
	size_t columns = 0;
	struct glyph g;

	while (s.len > 0 && columns <= max) {
		s = skip(s, next_glyph(t, s, &g));
		columns += g.columns;
	}
	return columns <= max;
}

size_t text_put(struct buf *out, const struct term *t, struct str s, size_t max)
{
	struct str mark = t->utf8 ? STR("…") : STR("..");
	size_t mark_columns = t->utf8 ? 1 : 2;
	size_t columns = 0;
	struct glyph g;
	bool cut = !fits(t, s, max);

	if (cut && max < mark_columns)
		return 0;
	if (cut)
		max -= mark_columns;
	while (s.len > 0) {
		s = skip(s, next_glyph(t, s, &g));
		if (columns + g.columns > max)
			break;
		buf_append(out, g.p, g.len);
		columns += g.columns;
	}
	if (!cut)
		return columns;
	buf_append(out, mark.p, mark.len);
	return columns + mark_columns;
}

void text_blanks(struct buf *out, size_t n)
{
	uint8_t *at = buf_extend(out, n);

	if (at)
		memset(at, ' ', n);
}

void text_put_left(struct buf *out, const struct term *t, struct str s, size_t width)
{
	size_t columns = text_put(out, t, s, width);

	text_blanks(out, width - columns);
}

void text_put_right(struct buf *out, const struct term *t, struct str s, size_t width)
{
	size_t columns = text_columns(t, s);

	if (columns < width)
		text_blanks(out, width - columns);
	text_put(out, t, s, width);
}

size_t text_line(const struct term *t, struct str s, size_t max)
{
	size_t at = 0, behind_space = 0, columns = 0;
	struct glyph g;

	while (at < s.len) {
		if (s.p[at] == '\n')
			return at + 1;
		size_t len = next_glyph(t, skip(s, at), &g);
		columns += g.columns;
		if (columns > max && at > 0)
			return behind_space > 0 ? behind_space : at;
		at += len;
		if (g.p[0] == ' ')
			behind_space = at;
	}
	return at;
}

void text_colour(struct buf *out, const struct term *t, const char *code)
{
	if (t->colour)
		buf_printf(out, "\x1b[%sm", code);
}

void text_plain(struct buf *out, const struct term *t)
{
	text_colour(out, t, "0");
}

static uint64_t rounded(uint64_t ns, uint64_t unit)
{
	return ns / unit + (ns % unit >= (unit + 1) / 2);
}

/* From a minute on, in two units. */
static void long_duration(char out[DURATION_SIZE], uint64_t ns)
{
	uint64_t s = rounded(ns, NS_PER_S);

	if (s < 3600)
		snprintf(out, DURATION_SIZE, "%um %02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(out, DURATION_SIZE, "%uh %02um", (unsigned)(s / 3600),
		         (unsigned)(s / 60 % 60));
	else
		snprintf(out, DURATION_SIZE, "%" PRIu64 "d %02uh", s / 86400,
		         (unsigned)(s / 3600 % 24));
}

void text_duration(char out[DURATION_SIZE], const struct term *t, uint64_t ns)
{
	// Each limit is where rounding would give the unit one digit too many.
	unsigned tenths = (unsigned)rounded(ns, NS_PER_MS / 10);
	unsigned ms = (unsigned)rounded(ns, NS_PER_MS);

	if (rounded(ns, NS_PER_US) < 1000)
		snprintf(out, DURATION_SIZE, "%u %s", (unsigned)rounded(ns, NS_PER_US),
		         t->utf8 ? "µs" : "us");
	else if (ns < NS_PER_S && tenths < 100)
		snprintf(out, DURATION_SIZE, "%u.%u ms", tenths / 10, tenths % 10);
	else if (ns < NS_PER_S && ms < 1000)
		snprintf(out, DURATION_SIZE, "%u ms", ms);
	else if (rounded(ns, 10 * NS_PER_MS) < 1000)
		snprintf(out, DURATION_SIZE, "%.2f s", (double)rounded(ns, 10 * NS_PER_MS) / 100);
	else if (rounded(ns, 100 * NS_PER_MS) < 600)
		snprintf(out, DURATION_SIZE, "%.1f s", (double)rounded(ns, 100 * NS_PER_MS) / 10);
	else
		long_duration(out, ns);
}

static void count_text(char *out, size_t size, int64_t n)
{
	if (n < 0)
		snprintf(out, size, "?");
	else if (n < 10000)
		snprintf(out, size, "%" PRId64, n);
	else if (n < 999950)
		snprintf(out, size, "%.1fk", (double)n / 1e3);
	else if (n < 999950000)
		snprintf(out, size, "%.1fM", (double)n / 1e6);
	else
		snprintf(out, size, "%.1fG", (double)n / 1e9);
}

void text_tokens(char out[TOKENS_SIZE], const struct term *t, int64_t in, int64_t out_tokens)
{
	char a[TOKENS_SIZE / 2 - 2], b[TOKENS_SIZE / 2 - 2];

	out[0] = '\0';
	if (in < 0 && out_tokens < 0)
		return;
	count_text(a, sizeof(a), in);
	count_text(b, sizeof(b), out_tokens);
	snprintf(out, TOKENS_SIZE, "%s%s%s", a, t->utf8 ? "→" : "->", b);
}

void text_cost(char out[COST_SIZE], double amount, struct str currency, bool has_more)
{
	bool is_dollar = str_is(currency, "USD"), is_less = amount > 0 && amount < 0.0001;
	int len = currency.len < COST_SIZE / 4 && !is_dollar ? (int)currency.len : 0;

	out[0] = '\0';
	if (!(amount >= 0))
		return;
	snprintf(out, COST_SIZE, "%s%s%.*f%s%s%.*s", is_less ? "<" : "", is_dollar ? "$" : "",
	         amount < 1 ? 4 : 2, is_less ? 0.0001 : amount, has_more ? "+" : "",
	         len > 0 ? " " : "", len, len > 0 ? currency.p : "");
}

/* Exactly n digits at s.p[at]. */
static bool digits(struct str s, size_t at, size_t n, int *ret)
{
	int v = 0;

	if (at + n > s.len)
		return false;
	for (size_t i = at; i < at + n; i++) {
		if (!isdigit((unsigned char)s.p[i]))
			return false;
		v = v * 10 + (s.p[i] - '0');
	}
	*ret = v;
	return true;
}

/* ".123456789" or less of it, then "Z". */
static bool fraction(struct str s, uint64_t *ret_ns)
{
	uint64_t ns = 0, unit = NS_PER_S;
	size_t at = 0;

	if (s.len > 0 && s.p[0] == '.') {
		for (at = 1; at < s.len && at <= 9 && isdigit((unsigned char)s.p[at]); at++) {
			unit /= 10;
			ns += (uint64_t)(s.p[at] - '0') * unit;
		}
	}
	*ret_ns = ns;
	return at + 1 == s.len && s.p[at] == 'Z';
}

bool text_time(struct str s, uint64_t *ret_unix_ns)
{
	struct tm tm = {0};
	uint64_t ns;

	if (!digits(s, 0, 4, &tm.tm_year) || !digits(s, 5, 2, &tm.tm_mon) ||
	    !digits(s, 8, 2, &tm.tm_mday) || !digits(s, 11, 2, &tm.tm_hour) ||
	    !digits(s, 14, 2, &tm.tm_min) || !digits(s, 17, 2, &tm.tm_sec))
		return false;
	if (tm.tm_year < 1970 || !fraction(skip(s, 19), &ns))
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret_unix_ns = (uint64_t)timegm(&tm) * NS_PER_S + ns;
	return true;
}

struct str text_bare_name(struct str kind, struct str name)
{
	static const struct {
		struct str kind, verb;
	} verbs[] = {
		{{"agent", 5}, {"invoke_agent ", 13}},
		{{"tool", 4}, {"execute_tool ", 13}},
		{{"tool", 4}, {"tool.", 5}},
		{{"llm", 3}, {"chat ", 5}},
		{{"embedding", 9}, {"embeddings ", 11}},
	};

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		struct str verb = verbs[i].verb;
		if (str_eq(kind, verbs[i].kind) && name.len > verb.len &&
		    memcmp(name.p, verb.p, verb.len) == 0)
			return skip(name, verb.len);
	}
	return name;
}
