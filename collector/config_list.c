#include "config_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

/* Spaces and tabs around a text are not part of it. */
static char *trim(char *text)
{
	text += strspn(text, " \t");
	for (size_t len = strlen(text); len > 0 && strchr(" \t", text[len - 1]); len--)
		text[len - 1] = '\0';
	return text;
}

/* In place: what is decoded is never longer. */
static bool percent_decode(char *text)
{
	char *out = text;

	for (const char *p = text; *p; p++) {
		uint8_t byte = (uint8_t)*p;
		if (*p == '%') {
			if (!p[1] || !hex_read(&byte, 1, p + 1) || byte == 0)
				return false;
			p += 2;
		}
		*out++ = (char)byte;
	}
	*out = '\0';
	return true;
}

/* Splits and decodes "name=value". Returns what is wrong with it, or NULL; never a part of it,
 * which may be a secret. */
static const char *read_entry(char *text, enum list_kind kind, char **ret_name, char **ret_value)
{
	char *equals = strchr(text, '=');
	const char *wrong;

	if (!equals)
		return "has no =, must be name=value";
	*equals = '\0';
	*ret_name = trim(text);
	*ret_value = trim(equals + 1);
	if (kind == LIST_HEADERS && strchr(*ret_value, ';'))
		return "has a ; in its value, must be %3B";
	if (kind == LIST_ATTRIBUTES && strchr(*ret_value, '='))
		return "has a = in its value, must be %3D";
	// the name of a header is a token, in which % is a letter like others
	if (!percent_decode(*ret_value) || (kind == LIST_ATTRIBUTES && !percent_decode(*ret_name)))
		return "has a % without two hexadecimal digits of a byte, must be %25";
	wrong = kind == LIST_HEADERS ? header_name_fault(*ret_name)
	                             : attribute_name_fault(*ret_name);
	if (wrong)
		return wrong;
	return text_fault(*ret_value) ? "has a value that is not one line of text, must be one"
	                              : NULL;
}

static bool is_there(const struct config_pair *pairs, size_t count, enum list_kind kind,
                     const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if ((kind == LIST_HEADERS ? strcasecmp : strcmp)(pairs[i].key, name) == 0)
			return true;
	}
	return false;
}

static bool add_pair(struct config_pair *pairs, size_t *count, const char *name, const char *value)
{
	struct config_pair pair = {strdup(name), strdup(value)};

	pairs[(*count)++] = pair; // freed with the others, whatever is missing
	return pair.key && pair.value;
}

/* Reads a text that it may change. The first fault ends it. */
static bool read_entries(char *text, enum list_kind kind, const struct place *at, struct faults *f,
                         struct config_pair *pairs, size_t *count)
{
	char *name, *value, *entry;

	while ((entry = strsep(&text, ","))) {
		const char *wrong = read_entry(entry, kind, &name, &value);
		if (!wrong && is_there(pairs, *count, kind, name))
			wrong = "has the name of another one, must be unique";
		if (!wrong && *count == CONFIG_KEYS_MAX)
			wrong = "is one too many, must be at most 256";
		if (wrong) {
			fault(f, at, "entry %zu %s", *count + 1, wrong);
			return false;
		}
		if (!add_pair(pairs, count, name, value)) {
			f->no_memory = true;
			return false;
		}
	}
	return true;
}

void config_read_list(const char *text, enum list_kind kind, const struct place *at,
                      struct faults *f, struct config_pair **ret, size_t *ret_count)
{
	const struct key *k = kind == LIST_HEADERS ? key_find("exporters[]", "headers")
	                                           : key_find("service", "attributes");
	char *copy;

	*ret = NULL;
	*ret_count = 0;
	if (strlen(text) > k->max) {
		fault(f, at, "is too long, must be at most %zu bytes", (size_t)k->max);
		return;
	}
	copy = strdup(text);
	*ret = calloc(CONFIG_KEYS_MAX, sizeof(**ret));
	if (!copy || !*ret)
		f->no_memory = true;
	else
		(void)read_entries(copy, kind, at, f, *ret, ret_count);
	free(copy);
}
