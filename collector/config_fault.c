#include "config_parts.h"

#include <stdarg.h>

void fault(struct faults *f, const struct place *at, const char *fmt, ...)
{
	va_list args;

	if (++f->count > CONFIG_FAULTS_MAX)
		return;
	if (at->line > 0)
		fprintf(f->out, "%s:%zu:%zu: ", f->file, at->line, at->column);
	if (at->path[0] != '\0')
		fprintf(f->out, "%s: ", at->path);
	va_start(args, fmt);
	vfprintf(f->out, fmt, args);
	va_end(args);
	fputc('\n', f->out);
}

/* Where credentials begin and end; a text that is no URL yet may hold them just as well. */
static const char *credentials(const char *text, const char **ret_end)
{
	const char *scheme = strstr(text, "://");

	*ret_end = strrchr(text, '@');
	return scheme && scheme < *ret_end ? scheme + 3 : text;
}

void fault_quote(char out[CONFIG_QUOTE_MAX], const char *text)
{
	static const char more[] = "…";
	const char *end, *start = credentials(text, &end);
	const char *shown = end ? end : text;
	size_t room = CONFIG_QUOTE_MAX - sizeof(more), cut, plain = strcspn(shown, "?");

	// A query may be a key as well.
	int len = snprintf(out, room, "%.*s%s%.*s%s", end ? (int)(start - text) : 0, text,
	                   end ? "***" : "", (int)plain, shown, shown[plain] ? "?***" : "");
	for (char *p = out; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	}
	if (len >= (int)room) {
		cut = utf8_cut(out, room - 1, room - 2);
		memcpy(out + cut, more, sizeof(more));
	}
}
