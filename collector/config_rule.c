#include "config_parts.h"

#include <inttypes.h>

#include "base/buf.h"

const struct unit *unit_of(const struct unit *units, uint64_t v)
{
	while (v % units->factor != 0)
		units++;
	return units;
}

static void number_rule(const struct key *k, const char *noun, const struct unit *units,
                        char out[CONFIG_RULE_MAX])
{
	const struct unit *lo = unit_of(units, k->min), *hi = unit_of(units, k->max);

	snprintf(out, CONFIG_RULE_MAX, "a %s from %" PRIu64 "%s to %" PRIu64 "%s, like %s", noun,
	         k->min / lo->factor, lo->name, k->max / hi->factor, hi->name, k->def);
}

/* "a, b or c" of the words. */
static void word_rule(const struct key *k, const char *before, char out[CONFIG_RULE_MAX])
{
	struct buf text;
	size_t left = 0;

	for (const struct word *w = k->words; w->name; w++)
		left++;
	buf_init(&text, CONFIG_RULE_MAX - 1);
	buf_append_str(&text, before);
	for (const struct word *w = k->words; w->name; w++) {
		left--;
		buf_append_str(&text, w->name);
		buf_append_str(&text, left > 1 ? ", " : (left == 1 ? " or " : ""));
	}
	if (text.len > 0)
		memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	buf_deinit(&text);
}

static const char *fixed_rule(enum key_kind kind)
{
	switch (kind) {
	case KEY_SECTION:
		return "a mapping";
	case KEY_EXPORTERS:
		return "a list of mappings, each with a type";
	case KEY_PAIRS:
		return "a mapping of names to text";
	case KEY_SOCKET:
		return "a path of at most 103 bytes, 98 if it does not end in .sock";
	case KEY_NAME:
		return "1 to 63 letters, digits, '.', '_' or '-'";
	case KEY_HOST:
		return "a host's name like otlp.example.com";
	case KEY_FILE:
		return "a PEM file that can be read";
	case KEY_MODELS:
		return "a list of mappings, each with a model and its input";
	case KEY_MODEL:
		return "a model's name, or how it begins and a *";
	case KEY_PRICE:
		return "a number from 0 to 1000000 of at most 6 decimals, like 2.50";
	case KEY_MODE:
		return "octal within 0666, like \"0660\"";
	case KEY_BOOL:
		return "true or false";
	case KEY_LISTEN:
		return "ADDRESS:PORT like 127.0.0.1:4320 or [::1]:4320, or \"off\"";
	case KEY_URL:
		return "a URL with a host, without query, like https://host:4318, or unix:///path";
	default:
		return "left out";
	}
}

void value_rule(const struct key *k, char out[CONFIG_RULE_MAX])
{
	switch (k->kind) {
	case KEY_SIZE:
		number_rule(k, "size", size_units, out);
		break;
	case KEY_DURATION:
		number_rule(k, "duration", duration_units, out);
		break;
	case KEY_WORD:
		word_rule(k, "", out);
		break;
	case KEY_SIGNALS:
		word_rule(k, "a list of ", out);
		break;
	case KEY_COUNT:
		snprintf(out, CONFIG_RULE_MAX,
		         "a whole number from %" PRIu64 " to %" PRIu64 ", like %s", k->min, k->max,
		         k->def);
		break;
	case KEY_TEXT:
	case KEY_PATH:
	case KEY_PRICES:
		snprintf(out, CONFIG_RULE_MAX, "%s of %" PRIu64 " to %" PRIu64 " bytes",
		         k->kind == KEY_TEXT ? "text" : "a path", k->min, k->max);
		break;
	default:
		snprintf(out, CONFIG_RULE_MAX, "%s", fixed_rule(k->kind));
	}
}
