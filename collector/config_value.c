#include "config_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"

// the largest first: a value is printed in the first that divides it
const struct unit size_units[] = {
	{"GiB", 1024ull * MIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}, {0}};
const struct unit duration_units[] = {{"d", 24 * 3600ull * NS_PER_S},
                                      {"h", 3600 * NS_PER_S},
                                      {"m", 60 * NS_PER_S},
                                      {"s", NS_PER_S},
                                      {"ms", NS_PER_MS},
                                      {"us", NS_PER_US},
                                      {"ns", 1},
                                      {0}};

static void *field_of(const struct key *k, const void *base)
{
	return (char *)base + k->offset;
}

/* A field of any width; of none for a key that only accepts one value. */
static void put_uint(const struct key *k, void *base, uint64_t v)
{
	void *field = field_of(k, base);

	if (k->size == sizeof(uint64_t))
		*(uint64_t *)field = v;
	else if (k->size == sizeof(uint32_t))
		*(uint32_t *)field = (uint32_t)v;
	else if (k->size == sizeof(bool))
		*(bool *)field = v != 0;
}

uint64_t value_uint(const struct key *k, const void *base)
{
	const void *field = field_of(k, base);

	if (k->size == sizeof(uint64_t))
		return *(const uint64_t *)field;
	if (k->size == sizeof(uint32_t))
		return *(const uint32_t *)field;
	return k->size == sizeof(bool) && *(const bool *)field;
}

static int put_text(char **field, const char *text, size_t len)
{
	char *copy = strndup(text, len);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

/* Digits only: no sign, no space, no fraction. *ret_end is what follows them. */
static bool read_digits(const char *text, uint64_t *ret, const char **ret_end)
{
	uint64_t v = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p - '0', &v))
			v = UINT64_MAX;
	}
	*ret = v;
	*ret_end = p;
	return p > text;
}

static const struct unit *find_unit(const struct unit *units, const char *name)
{
	for (; units->name; units++) {
		if (strcmp(units->name, name) == 0)
			return units;
	}
	return NULL;
}

static int put_bounded(const struct key *k, void *base, uint64_t v, const char **ret_wrong)
{
	if (v < k->min || v > k->max) {
		*ret_wrong = v < k->min ? "is too small" : "is too large";
		return -EINVAL;
	}
	put_uint(k, base, v);
	return 0;
}

static int parse_number(const struct key *k, const char *text, const struct unit *units, void *base,
                        const char **ret_wrong)
{
	uint64_t v;
	const char *end;
	const struct unit *u;

	if (!read_digits(text, &v, &end))
		return -EINVAL;
	if (units == size_units && *end == '\0')
		return put_bounded(k, base, v, ret_wrong);
	u = find_unit(units, end);
	if (!u)
		return -EINVAL;
	if (__builtin_mul_overflow(v, u->factor, &v))
		v = UINT64_MAX;
	return put_bounded(k, base, v, ret_wrong);
}

static int parse_count(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	uint64_t v;
	const char *end;

	if (!read_digits(text, &v, &end) || *end != '\0')
		return -EINVAL;
	return put_bounded(k, base, v, ret_wrong);
}

static int parse_mode(const struct key *k, const char *text, void *base)
{
	unsigned v = 0;

	// the leading 0 says octal: a bare 432 or 660 could be either
	if (strlen(text) != 4 || text[0] != '0')
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '7')
			return -EINVAL;
		v = v * 8 + (unsigned)(*p - '0');
	}
	if (v & ~0666u)
		return -EINVAL;
	put_uint(k, base, v);
	return 0;
}

static int parse_bool(const struct key *k, const char *text, void *base)
{
	bool yes = strcmp(text, "true") == 0;

	if (!yes && strcmp(text, "false") != 0)
		return -EINVAL;
	put_uint(k, base, yes);
	return 0;
}

static int parse_word(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	for (const struct word *w = k->words; w->name; w++) {
		if (strcmp(w->name, text) != 0)
			continue;
		if (w->value == WORD_LATER) {
			*ret_wrong = "is not supported by this version";
			return -EINVAL;
		}
		put_uint(k, base, (uint64_t)w->value);
		return 0;
	}
	return -EINVAL;
}

/* No control characters and no line breaks: such text would come out differently from a log, from
 * a header, and from the printed configuration. */
static bool is_line(const char *text)
{
	static const char *const breaks[] = {"\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff"};

	for (const char *p = text; *p; p++) {
		unsigned char byte = (unsigned char)*p, next = (unsigned char)p[1];
		if ((byte < ' ' && byte != '\t') || byte == 0x7f)
			return false;
		if (byte == 0xc2 && next >= 0x80 && next < 0xa0)
			return false;
	}
	for (size_t i = 0; i < sizeof(breaks) / sizeof(*breaks); i++) {
		if (strstr(text, breaks[i]))
			return false;
	}
	return true;
}

const char *text_fault(const char *text)
{
	if (!utf8_is_valid(text, strlen(text)))
		return "is not UTF-8";
	return is_line(text) ? NULL : "has a line break or a control character";
}

static int parse_text(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	size_t len = strlen(text);
	const char *wrong = text_fault(text);

	if (wrong) {
		*ret_wrong = wrong;
		return -EINVAL;
	}
	if (len < k->min || len > k->max) {
		*ret_wrong = len < k->min ? "is empty" : "is too long";
		return -EINVAL;
	}
	return put_text(field_of(k, base), text, len);
}

static int parse_name(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

	if (text[strspn(text, allowed)] != '\0')
		return -EINVAL;
	return parse_text(k, text, base, ret_wrong);
}

static int parse_socket(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	size_t len = strlen(text);
	char *api;

	if (len == 0 || text[len - 1] == '/' || text_fault(text))
		return -EINVAL;
	api = config_api_socket(text);
	if (!api)
		return -ENOMEM;
	size_t api_len = strlen(api);
	free(api);
	if (api_len > SOCKET_PATH_MAX) {
		*ret_wrong = "is too long";
		return -EINVAL;
	}
	return put_text(field_of(k, base), text, len);
}

/* "1.2.3.4" or "[::1]" in *ret_host without the brackets; the port's text, or NULL. */
static const char *split_host(const char *text, const char **ret_host, size_t *ret_len)
{
	const char *end;

	if (*text == '[') {
		end = strchr(text, ']');
		*ret_host = text + 1;
		*ret_len = end ? (size_t)(end - text) - 1 : 0;
		return end && end[1] == ':' ? end + 2 : NULL;
	}
	end = strchr(text, ':');
	*ret_host = text;
	*ret_len = end ? (size_t)(end - text) : 0;
	return end ? end + 1 : NULL;
}

static bool is_address(const char *host, bool v6)
{
	unsigned char bytes[sizeof(struct in6_addr)];
	return inet_pton(v6 ? AF_INET6 : AF_INET, host, bytes) == 1;
}

static bool read_port(const char *text, uint64_t *ret)
{
	const char *end;
	return read_digits(text, ret, &end) && *end == '\0' && *ret <= UINT16_MAX;
}

static int parse_listen(const char *text, struct config *c)
{
	char host[INET6_ADDRSTRLEN];
	const char *start, *port_text;
	uint64_t port;
	size_t len;

	if (strcmp(text, "off") == 0) {
		free(c->http_host);
		c->http_host = NULL;
		c->http_enabled = false;
		c->http_port = 0;
		return 0;
	}
	port_text = split_host(text, &start, &len);
	if (!port_text || len >= sizeof(host) || !read_port(port_text, &port))
		return -EINVAL;
	memcpy(host, start, len);
	host[len] = '\0';
	// no resolver: the one name that is taken has one meaning
	if (*text != '[' && strcmp(host, "localhost") == 0)
		memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));
	if (!is_address(host, *text == '['))
		return -EINVAL;
	int rc = put_text(&c->http_host, host, strlen(host));
	if (rc == 0) {
		c->http_enabled = true;
		c->http_port = (uint16_t)port;
	}
	return rc;
}

/* Whether "host", "host:port" or "[v6]:port", len bytes, could be connected to. */
static bool is_authority(const char *p, size_t len)
{
	char host[256];
	uint64_t port = 1;
	char *colon, *close;

	if (len == 0 || len >= sizeof(host))
		return false;
	memcpy(host, p, len);
	host[len] = '\0';
	close = host[0] == '[' ? strchr(host, ']') : NULL;
	if (host[0] == '[' && !close)
		return false;
	colon = strchr(close ? close : host, ':');
	if (colon && (!read_port(colon + 1, &port) || port == 0))
		return false;
	if (colon)
		*colon = '\0';
	if (!close)
		return host[0] && !host[strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		                                     "abcdefghijklmnopqrstuvwxyz0123456789.-_")];
	if (close[1] != '\0')
		return false;
	*close = '\0';
	return is_address(host + 1, true);
}

const char *url_authority(const char *url)
{
	if (strncmp(url, "http://", 7) == 0)
		return url + 7;
	return strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

static int parse_url(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const char *authority = url_authority(text), *at;

	if (!authority || text_fault(text))
		return -EINVAL;
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("\\\"<>^`{|}", *p))
			return -EINVAL;
	}
	if (strpbrk(authority, "?#")) {
		*ret_wrong = "has a query or a fragment";
		return -EINVAL;
	}
	size_t len = strcspn(authority, "/");
	at = memrchr(authority, '@', len);
	if (at) {
		len -= (size_t)(at + 1 - authority);
		authority = at + 1;
	}
	if (!is_authority(authority, len))
		return -EINVAL;
	return parse_text(k, text, base, ret_wrong);
}

static const char *what(enum key_kind kind)
{
	switch (kind) {
	case KEY_SIZE:
		return "is not a size";
	case KEY_DURATION:
		return "is not a duration";
	case KEY_COUNT:
		return "is not a whole number";
	case KEY_MODE:
		return "is not a mode";
	case KEY_BOOL:
		return "is not a boolean";
	case KEY_SOCKET:
		return "is not the path of a socket";
	case KEY_LISTEN:
		return "is not an address";
	case KEY_URL:
		return "is not a base URL";
	case KEY_NAME:
		return "is not a name";
	default:
		return "is not known";
	}
}

int value_parse(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	*ret_wrong = what(k->kind);
	switch (k->kind) {
	case KEY_SIZE:
		return parse_number(k, text, size_units, base, ret_wrong);
	case KEY_DURATION:
		return parse_number(k, text, duration_units, base, ret_wrong);
	case KEY_COUNT:
		return parse_count(k, text, base, ret_wrong);
	case KEY_MODE:
		return parse_mode(k, text, base);
	case KEY_BOOL:
		return parse_bool(k, text, base);
	case KEY_WORD:
	case KEY_SIGNALS:
		return parse_word(k, text, base, ret_wrong);
	case KEY_SOCKET:
		return parse_socket(k, text, base, ret_wrong);
	case KEY_NAME:
		return parse_name(k, text, base, ret_wrong);
	case KEY_LISTEN:
		return parse_listen(text, base);
	case KEY_URL:
		return parse_url(k, text, base, ret_wrong);
	default:
		return parse_text(k, text, base, ret_wrong);
	}
}

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

/* "a, b or c" of the words that are accepted now. */
static void word_rule(const struct key *k, const char *before, char out[CONFIG_RULE_MAX])
{
	struct buf text;
	size_t left = 0;

	for (const struct word *w = k->words; w->name; w++)
		left += w->value != WORD_LATER;
	buf_init(&text, CONFIG_RULE_MAX - 1);
	buf_append_str(&text, before);
	for (const struct word *w = k->words; w->name; w++) {
		if (w->value == WORD_LATER)
			continue;
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
	case KEY_MODE:
		return "octal within 0666, like \"0660\"";
	case KEY_BOOL:
		return "true or false";
	case KEY_LISTEN:
		return "ADDRESS:PORT like 127.0.0.1:4320 or [::1]:4320, or \"off\"";
	case KEY_URL:
		return "a URL with a host, without query, like https://host:4318";
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
		snprintf(out, CONFIG_RULE_MAX, "%s of %" PRIu64 " to %" PRIu64 " bytes",
		         k->kind == KEY_TEXT ? "text" : "a path", k->min, k->max);
		break;
	default:
		snprintf(out, CONFIG_RULE_MAX, "%s", fixed_rule(k->kind));
	}
}
