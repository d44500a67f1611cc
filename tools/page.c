#include "page.h"

#include <ctype.h>
#include <stddef.h>

/* Reads forward only; p is NULL once something is wrong. */
struct reader {
	const char *p, *end;
};

static void skip_space(struct reader *r)
{
	while (r->p && r->p < r->end && isspace((unsigned char)*r->p))
		r->p++;
}

/* Takes c if it comes next. */
static bool take(struct reader *r, char c)
{
	skip_space(r);
	if (!r->p || r->p == r->end || *r->p != c)
		return false;
	r->p++;
	return true;
}

static void expect(struct reader *r, char c)
{
	if (!take(r, c))
		r->p = NULL;
}

/* From behind the opening quote to behind the closing one. */
static void skip_string(struct reader *r)
{
	while (r->p < r->end && *r->p != '"')
		r->p += *r->p == '\\' && r->end - r->p > 1 ? 2 : 1;
	r->p = r->p < r->end ? r->p + 1 : NULL;
}

/* Objects and lists by their depth, other values to whatever ends them. */
static struct str take_value(struct reader *r)
{
	size_t depth = 0;

	skip_space(r);
	const char *start = r->p;
	while (r->p && r->p < r->end) {
		char c = *r->p;
		if (depth == 0 && r->p > start && (c == ',' || c == ']' || c == '}'))
			break;
		r->p++;
		if (c == '"')
			skip_string(r);
		else if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth-- == 0)
			r->p = NULL;
	}
	if (!r->p || depth > 0 || r->p == start) {
		r->p = NULL;
		return (struct str){NULL, 0};
	}
	return (struct str){start, (size_t)(r->p - start)};
}

static struct str take_key(struct reader *r)
{
	expect(r, '"');
	if (!r->p)
		return (struct str){NULL, 0};
	const char *start = r->p;
	skip_string(r);
	struct str key = {start, r->p ? (size_t)(r->p - start) - 1 : 0};
	expect(r, ':');
	return key;
}

static void read_list(struct reader *r, page_item_fn *fn, void *ctx)
{
	bool wanted = true;

	expect(r, '[');
	if (take(r, ']'))
		return;
	while (r->p) {
		struct str item = take_value(r);
		if (r->p && wanted)
			wanted = fn(ctx, item);
		if (take(r, ']'))
			return;
		expect(r, ',');
	}
}

/* A number of the form that cursors have; 0 for null and anything else. */
static uint64_t cursor_of(struct str value)
{
	uint64_t n = 0;

	for (size_t i = 0; i < value.len && isdigit((unsigned char)value.p[i]); i++)
		n = n * 10 + (uint64_t)(value.p[i] - '0');
	return n;
}

int page_each(struct str doc, const char *key, page_item_fn *fn, void *ctx, uint64_t *ret_next)
{
	struct reader r = {doc.p, doc.p + doc.len};
	const struct str wanted = {key, strlen(key)};
	uint64_t next = 0;
	bool seen = false;

	expect(&r, '{');
	while (r.p) {
		struct str name = take_key(&r);
		if (r.p && str_eq(name, wanted)) {
			read_list(&r, fn, ctx);
			seen = true;
		} else if (r.p) {
			struct str value = take_value(&r);
			if (str_is(name, "next"))
				next = cursor_of(value);
		}
		if (take(&r, '}'))
			break;
		expect(&r, ',');
	}
	if (!r.p || !seen)
		return ERR_FORMAT;
	*ret_next = next;
	return 0;
}
