#include "config_parts.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"

#define NAME_FIRST "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"

const char *env_text(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

struct reference {
	char name[128];
	const char *fallback; // NULL: none
	size_t fallback_len;
	const char *end; // what follows the closing brace
};

/* Reads "{env:NAME}" or "{env:NAME:-default}". */
static bool read_reference(const char *p, struct reference *ret)
{
	static const char open[] = "{env:";
	size_t len;

	if (strncmp(p, open, sizeof(open) - 1) != 0)
		return false;
	p += sizeof(open) - 1;
	len = strspn(p, NAME_FIRST "0123456789");
	if (len == 0 || len >= sizeof(ret->name) || (*p >= '0' && *p <= '9'))
		return false;
	memcpy(ret->name, p, len);
	ret->name[len] = '\0';
	p += len;
	ret->fallback = NULL;
	if (strncmp(p, ":-", 2) == 0) {
		ret->fallback = p + 2;
		ret->fallback_len = strcspn(ret->fallback, "}");
		p = ret->fallback + ret->fallback_len;
	}
	ret->end = p + 1;
	return *p == '}';
}

/* Appends what a reference stands for; like a shell's :-, a default also replaces the empty. */
static bool append_reference(const struct reference *ref, const struct place *at, struct buf *out,
                             struct faults *f)
{
	const char *value = getenv(ref->name);

	if (ref->fallback && (!value || *value == '\0')) {
		buf_append(out, ref->fallback, ref->fallback_len);
	} else if (value) {
		buf_append_str(out, value);
	} else {
		fault(f, at,
		      "variable %s is not set, must be set or have a default like "
		      "${env:%s:-default}",
		      ref->name, ref->name);
		return false;
	}
	return true;
}

/* Appends what a $ at p begins. Returns what follows it, or NULL after a fault. */
static const char *append_dollar(const char *p, const struct place *at, struct buf *out,
                                 struct faults *f)
{
	struct reference ref;

	if (p[1] != '{') {
		buf_append_byte(out, '$');
		return p + (p[1] == '$' ? 2 : 1);
	}
	if (!read_reference(p + 1, &ref)) {
		fault(f, at,
		      "has a ${ that is no variable, must be ${env:NAME}, "
		      "${env:NAME:-default} or $${");
		return NULL;
	}
	return append_reference(&ref, at, out, f) ? ref.end : NULL;
}

char *config_expand(const char *text, const struct place *at, struct faults *f)
{
	struct buf out;
	const char *p = text;

	buf_init(&out, CONFIG_VALUE_MAX);
	while (p && *p) {
		size_t plain = strcspn(p, "$");
		buf_append(&out, p, plain);
		p += plain;
		if (*p == '$')
			p = append_dollar(p, at, &out, f);
	}
	buf_append_byte(&out, '\0');
	if (buf_error(&out) == -ENOSPC)
		fault(f, at, "is too long, must be at most %d bytes", CONFIG_VALUE_MAX - 1);
	if (buf_error(&out) == -ENOMEM)
		f->no_memory = true;
	if (!p || buf_error(&out)) {
		buf_deinit(&out);
		return NULL;
	}
	return (char *)out.data; // buf.c's memory is malloc's
}
