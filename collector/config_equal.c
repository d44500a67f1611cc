#include "config_parts.h"

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool headers_equal(const struct exporter_config *a, const struct exporter_config *b)
{
	if (a->header_count != b->header_count)
		return false;
	for (size_t i = 0; i < a->header_count; i++) {
		if (!text_equal(a->headers[i].key, b->headers[i].key) ||
		    !text_equal(a->headers[i].value, b->headers[i].value))
			return false;
	}
	return true;
}

static bool key_equal(const struct key *k, const struct exporter_config *a,
                      const struct exporter_config *b)
{
	switch (k->kind) {
	case KEY_SECTION:
	case KEY_EXPORTERS:
	case KEY_LATER:
		return true; // what is below them has keys of its own
	case KEY_PAIRS:
		return headers_equal(a, b);
	case KEY_NAME:
	case KEY_URL:
	case KEY_FILE:
	case KEY_HOST:
		return text_equal(key_text(k, a), key_text(k, b));
	default:
		return value_uint(k, a) == value_uint(k, b);
	}
}

bool exporter_config_equal(const struct exporter_config *a, const struct exporter_config *b)
{
	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		if (key_is_exporters(k) && !key_equal(k, a, b))
			return false;
	}
	return true;
}
