#include "config_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* A field of any width. */
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

int put_text(char **field, const char *text, size_t len)
{
	char *copy = strndup(text, len);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

bool read_digits(const char *text, uint64_t *ret, const char **ret_end)
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

static const struct word *find_word(const struct key *k, const char *text)
{
	for (const struct word *w = k->words; w->name; w++) {
		if (strcmp(w->name, text) == 0)
			return w;
	}
	return NULL;
}

static int parse_word(const struct key *k, const char *text, void *base)
{
	const struct word *w = find_word(k, text);

	if (!w)
		return -EINVAL;
	put_uint(k, base, (uint64_t)w->value);
	return 0;
}

static int parse_signal(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const struct word *w = find_word(k, text);
	uint64_t has = value_uint(k, base);

	if (!w)
		return -EINVAL;
	if (has & 1u << w->value) {
		*ret_wrong = "is there twice";
		return -EINVAL;
	}
	put_uint(k, base, has | 1u << w->value);
	return 0;
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

int parse_text(const struct key *k, const char *text, void *base, const char **ret_wrong)
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

static int parse_host(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";

	if (text[strspn(text, allowed)] != '\0')
		return -EINVAL;
	return parse_text(k, text, base, ret_wrong);
}

/* A pipe can't either: it would be empty the second time. */
const char *file_fault(const char *path)
{
	struct stat st;

	// a device may do something when it is opened: look first
	if (stat(path, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			return "is not a plain file";
		if (st.st_size == 0)
			return "is an empty file";
		if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0)
			return NULL;
	}
	switch (errno) {
	case ENOENT:
	case ENOTDIR:
		return "does not exist";
	case EACCES:
		return "may not be read by this user";
	default:
		return "can't be opened";
	}
}

static int parse_file(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const char *wrong = *text ? file_fault(text) : NULL;

	if (wrong) {
		*ret_wrong = wrong;
		return -EINVAL;
	}
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

static int parse_model(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	const char *star = strchr(text, '*');

	if (star && star[1] != '\0') {
		*ret_wrong = "has a * that is not its end";
		return -EINVAL;
	}
	return parse_text(k, text, base, ret_wrong);
}

/* Exactly, in the last decimal's unit. */
static int parse_price(const struct key *k, const char *text, void *base, const char **ret_wrong)
{
	static const uint64_t unit = 1000000;
	uint64_t whole, part = 0;
	const char *end;

	if (!read_digits(text, &whole, &end))
		return -EINVAL;
	if (*end == '.') {
		const char *decimals = end + 1;
		if (!read_digits(decimals, &part, &end))
			return -EINVAL;
		if (end - decimals > PRICE_DECIMALS) {
			*ret_wrong = "has too many decimals";
			return -EINVAL;
		}
		for (ptrdiff_t i = end - decimals; i < PRICE_DECIMALS; i++)
			part *= 10;
	}
	if (*end != '\0')
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit, &whole))
		whole = UINT64_MAX - unit;
	return put_bounded(k, base, whole + part, ret_wrong);
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
	case KEY_HOST:
		return "is not a host's name";
	case KEY_PRICE:
		return "is not a price";
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
		return parse_word(k, text, base);
	case KEY_SIGNALS:
		return parse_signal(k, text, base, ret_wrong);
	case KEY_SOCKET:
		return parse_socket(k, text, base, ret_wrong);
	case KEY_NAME:
		return parse_name(k, text, base, ret_wrong);
	case KEY_HOST:
		return parse_host(k, text, base, ret_wrong);
	case KEY_FILE:
		return parse_file(k, text, base, ret_wrong);
	case KEY_MODEL:
		return parse_model(k, text, base, ret_wrong);
	case KEY_PRICE:
		return parse_price(k, text, base, ret_wrong);
	case KEY_LISTEN:
		return parse_listen(text, base);
	case KEY_URL:
		return parse_url(k, text, base, ret_wrong);
	default:
		return parse_text(k, text, base, ret_wrong);
	}
}
