#include "config_parts.h"

#include <inttypes.h>

/* Text has no control characters but tabs: value_parse() saw to that. */
static void escaped_print(const char *text, bool is_value, FILE *out)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\t')
			fputs("\\t", out);
		else if (*p == '"' || *p == '\\')
			fprintf(out, "\\%c", *p);
		else if (*p == '$' && is_value)
			fputs("$$", out);
		else
			fputc(*p, out);
	}
}

static void quoted_print(const char *text, bool is_value, FILE *out)
{
	fputc('"', out);
	escaped_print(text, is_value, out);
	fputc('"', out);
}

static void url_print(const char *url, FILE *out)
{
	const char *authority = url_authority(url);
	const char *at = authority ? memrchr(authority, '@', strcspn(authority, "/")) : NULL;

	fputc('"', out);
	if (at)
		fprintf(out, "%.*s***", (int)(authority - url), url);
	escaped_print(at ? at : url, true, out);
	fputc('"', out);
}

static void listen_print(const struct config *c, FILE *out)
{
	bool v6 = c->http_host && strchr(c->http_host, ':');

	if (!c->http_enabled)
		fputs("\"off\"", out);
	else
		fprintf(out, "\"%s%s%s:%u\"", v6 ? "[" : "", c->http_host, v6 ? "]" : "",
		        c->http_port);
}

static void number_print(uint64_t v, const struct unit *units, FILE *out)
{
	const struct unit *u = unit_of(units, v);
	fprintf(out, "%" PRIu64 "%s", v / u->factor, u->name);
}

static const char *word_name(const struct key *k, const void *base)
{
	const struct word *w = k->words;

	while ((uint64_t)w->value != value_uint(k, base))
		w++;
	return w->name;
}

/* "[traces, logs]" */
static void signals_print(const struct key *k, const void *base, FILE *out)
{
	const char *before = "[";

	for (const struct word *w = k->words; w->name; w++) {
		if (!(value_uint(k, base) & 1u << w->value))
			continue;
		fprintf(out, "%s%s", before, w->name);
		before = ", ";
	}
	fputc(']', out);
}

static bool is_set(const struct key *k, const void *base)
{
	switch (k->kind) {
	case KEY_TEXT:
	case KEY_PATH:
	case KEY_SOCKET:
	case KEY_NAME:
	case KEY_URL:
	case KEY_FILE:
	case KEY_HOST:
	case KEY_PRICES:
		return key_text(k, base) != NULL;
	default:
		return true;
	}
}

static void value_print(const struct key *k, const void *base, FILE *out)
{
	fputc(' ', out);
	switch (k->kind) {
	case KEY_SIZE:
		number_print(value_uint(k, base), size_units, out);
		break;
	case KEY_DURATION:
		number_print(value_uint(k, base), duration_units, out);
		break;
	case KEY_COUNT:
		fprintf(out, "%" PRIu64, value_uint(k, base));
		break;
	case KEY_MODE:
		fprintf(out, "\"%04o\"", (unsigned)value_uint(k, base));
		break;
	case KEY_BOOL:
		fputs(value_uint(k, base) ? "true" : "false", out);
		break;
	case KEY_WORD:
		fputs(word_name(k, base), out);
		break;
	case KEY_SIGNALS:
		signals_print(k, base, out);
		break;
	case KEY_LISTEN:
		listen_print(base, out);
		break;
	case KEY_URL:
		url_print(key_text(k, base), out);
		break;
	default:
		quoted_print(key_text(k, base), true, out);
	}
}

static void pairs_print(const struct config_pair *pairs, size_t count, bool secret, int indent,
                        FILE *out)
{
	for (size_t i = 0; i < count; i++) {
		fprintf(out, "\n%*s", indent, "");
		// a name is not a value: nothing is filled in there, so no $ is doubled
		quoted_print(pairs[i].key, false, out);
		fputs(": ", out);
		quoted_print(secret ? "***" : pairs[i].value, true, out);
	}
}

/* The keys of a section below an exporter. */
static void subsection_print(const struct exporter_config *e, const char *section, FILE *out)
{
	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		const char *name = key_name(k, section);
		if (!name || !is_set(k, e))
			continue;
		fprintf(out, "\n      %s:", name);
		value_print(k, e, out);
	}
}

/* Whether an exporter has a use for a key. */
static bool is_used(const struct key *k, const struct exporter_config *e)
{
	if (k->kind == KEY_LATER || !key_is_for(k, e->type))
		return false;
	if (k->kind == KEY_SECTION)
		return url_is_https(e->endpoint);
	return k->kind == KEY_PAIRS ? e->header_count > 0 : is_set(k, e);
}

static void exporter_print(const struct exporter_config *e, FILE *out)
{
	const char *lead = "  - ";

	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		const char *name = key_name(k, "exporters[]");
		if (!name || !is_used(k, e))
			continue;
		fprintf(out, "%s%s:", lead, name);
		lead = "    ";
		if (k->kind == KEY_PAIRS)
			pairs_print(e->headers, e->header_count, true, 6, out);
		else if (k->kind == KEY_SECTION)
			subsection_print(e, k->path, out);
		else
			value_print(k, e, out);
		fputc('\n', out);
	}
}

static void exporters_print(const struct config *c, FILE *out)
{
	if (c->unused_variable)
		fprintf(out, "# %s is set and not used: the file has exporters\n",
		        c->unused_variable);
	fputs(c->exporter_count > 0 ? "exporters:\n" : "exporters: []\n", out);
	for (size_t i = 0; i < c->exporter_count; i++)
		exporter_print(&c->exporters[i], out);
}

static bool key_is_set(const struct key *k, const struct config *c)
{
	if (k->kind == KEY_LATER)
		return false;
	return k->kind == KEY_PAIRS ? c->service_attribute_count > 0 : is_set(k, c);
}

static void section_print(const struct config *c, const char *section, FILE *out)
{
	bool first = true;

	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		const char *name = key_name(k, section);
		if (!name || !key_is_set(k, c))
			continue;
		if (first)
			fprintf(out, "%s:\n", section);
		first = false;
		fprintf(out, "  %s:", name);
		if (k->kind == KEY_PAIRS)
			pairs_print(c->service_attributes, c->service_attribute_count, false, 4,
			            out);
		else
			value_print(k, c, out);
		fputc('\n', out);
	}
}

static void prices_print(const struct key *k, const struct config *c, FILE *out)
{
	fprintf(out, "%s:", k->path);
	value_print(k, c, out);
	fprintf(out, " # models: %zu\n", c->prices.count);
}

void config_print(const struct config *c, FILE *out)
{
	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		if (k->kind == KEY_EXPORTERS)
			exporters_print(c, out);
		else if (k->kind == KEY_SECTION && !key_is_exporters(k))
			section_print(c, k->path, out);
		else if (k->kind == KEY_PRICES && is_set(k, c))
			prices_print(k, c, out);
	}
}
