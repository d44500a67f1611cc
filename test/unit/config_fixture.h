/* config_fixture.h - configurations loaded from a text, in a directory of its own and without the
 * machine's variables.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config_parts.h"

static char tmp[] = "/tmp/sidelight-config-XXXXXX";

/* What is there to be named by a key. */
static const char *const pem_files[] = {"empty.pem", "ca.pem", "cert.pem", "key.pem"};

/* One way to say "load this": the text of the file, or NULL for no file. */
struct loaded {
	int rc;
	struct config config;
	char *errors;
};

static inline struct loaded load_flags(const struct config_flags *flags)
{
	struct loaded l = {0};
	size_t len;
	FILE *errors = open_memstream(&l.errors, &len);

	assert_non_null(errors);
	l.rc = config_load(&l.config, flags, errors);
	(void)fclose(errors);
	return l;
}

static inline void write_file(const char *name, const char *text, size_t len)
{
	FILE *f = fopen(name, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline struct loaded load(const char *yaml)
{
	write_file("t.yaml", yaml, strlen(yaml));
	return load_flags(&(struct config_flags){.config = "t.yaml"});
}

static inline struct loaded load_good(const char *yaml)
{
	struct loaded l = load(yaml);

	assert_string_equal(l.errors, "");
	assert_int_equal(l.rc, 0);
	return l;
}

static inline void unload(struct loaded *l)
{
	config_free(&l->config);
	free(l->errors);
}

static inline char *print(const struct config *c)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	config_print(c, out);
	(void)fclose(out);
	return text;
}

static inline void clear_env(void)
{
	static const char *const prefixes[] = {"SIDELIGHT_", "OTEL_", "XDG_", "T="};
	bool again = true;

	while (again) {
		again = false;
		for (char **v = environ; *v && !again; v++) {
			for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
				again = again || strncmp(*v, prefixes[i], strlen(prefixes[i])) == 0;
			char *name = again ? strndup(*v, strcspn(*v, "=")) : NULL;
			if (name)
				unsetenv(name);
			free(name);
		}
	}
}

static inline int setup(void **state)
{
	clear_env();
	return 0;
}

static inline void refuses(const char *yaml, const char *errors)
{
	struct loaded l = load(yaml);

	assert_string_equal(l.errors, errors);
	assert_int_equal(l.rc, -EINVAL);
	assert_null(l.config.socket);
	unload(&l);
}

/* One wrong value; what is said after "t.yaml:1:1: ". */
struct bad {
	const char *yaml, *error;
};

static inline void refuses_all(const struct bad *bad, size_t count)
{
	char errors[512];

	for (size_t i = 0; i < count; i++) {
		snprintf(errors, sizeof(errors), "t.yaml:%s\n", bad[i].error);
		refuses(bad[i].yaml, errors);
	}
}
#define REFUSES_ALL(table) refuses_all(table, sizeof(table) / sizeof(*(table)))

/* What messages end with. */
#define URL_RULE                                                                                   \
	" is not a base URL, must be a URL with a host, without query, like https://host:4318, "   \
	"or unix:///path"
#define FILE_RULE ", must be a PEM file that can be read"

/* Into a new directory with the files of the tests. */
static inline bool enter_directory(void)
{
	if (!mkdtemp(tmp) || chdir(tmp) != 0)
		return false;
	for (size_t i = 0; i < sizeof(pem_files) / sizeof(*pem_files); i++)
		write_file(pem_files[i], "x", i > 0);
	return true;
}

static inline void leave_directory(void)
{
	for (size_t i = 0; i < sizeof(pem_files) / sizeof(*pem_files); i++)
		unlink(pem_files[i]);
	unlink("t.yaml");
	unlink("u.yaml");
	rmdir(tmp);
}
