#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "config_parts.h"

#define DEFAULT_FILE "/etc/sidelight/sidelight.yaml"

/* The file to read, and who named it; NULL: none. */
static const char *find_file(const struct config_flags *flags, const char **ret_who)
{
	const char *named = env_text("SIDELIGHT_CONFIG");

	*ret_who = "--config";
	if (flags->config)
		return flags->config;
	*ret_who = "SIDELIGHT_CONFIG";
	if (named)
		return named;
	*ret_who = "default file";
	return access(DEFAULT_FILE, F_OK) == 0 ? DEFAULT_FILE : NULL;
}

/* Reads to the end, of a pipe too. Returns 0, -EFBIG or an errno's. */
static int read_all(FILE *in, struct buf *out)
{
	char part[4096];
	size_t n;

	while (buf_error(out) == 0 && (n = fread(part, 1, sizeof(part), in)) > 0)
		buf_append(out, part, n);
	if (ferror(in))
		return -errno;
	return buf_error(out) == -ENOSPC ? -EFBIG : buf_error(out);
}

static void read_file(struct config *c, const struct config_flags *flags, struct faults *f)
{
	struct place at = {0};
	const char *path = find_file(flags, &at.path);
	struct buf text;
	int rc;

	if (!path)
		return;
	FILE *in = fopen(path, "re");
	if (!in) {
		fault(f, &at, "%s: %s, must be a file that can be read", path, strerror(errno));
		return;
	}
	buf_init(&text, CONFIG_FILE_MAX);
	rc = read_all(in, &text);
	(void)fclose(in); // read only: there is nothing to lose
	f->file = path;
	c->file = strdup(path);
	if (!c->file || rc == -ENOMEM)
		f->no_memory = true;
	else if (rc == -EFBIG)
		fault(f, &at, "%s: is too large, must be at most 1MiB", path);
	else if (rc != 0)
		fault(f, &at, "%s: %s, must be a file that can be read", path, strerror(-rc));
	else
		config_read(c, text.data ? (const char *)text.data : "", text.len, f);
	buf_deinit(&text);
}

/* Sets a key to what a flag or variable says. */
static void override(struct config *c, const struct key *k, const char *who, const char *text,
                     struct faults *f)
{
	struct place at = {.path = who};
	char quoted[CONFIG_QUOTE_MAX], rule[CONFIG_RULE_MAX];
	const char *wrong;
	int rc = value_parse(k, text, c, &wrong);

	if (rc == -ENOMEM)
		f->no_memory = true;
	if (rc != -EINVAL)
		return;
	fault_quote(quoted, text);
	value_rule(k, rule);
	fault(f, &at, "'%s' %s, must be %s", quoted, wrong, rule);
}

static void read_overrides(struct config *c, const struct config_flags *flags, struct faults *f)
{
	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		const char *text = k->env ? env_text(k->env) : NULL;
		if (text)
			override(c, k, k->env, text, f);
		text = k->flag ? *(const char *const *)((const char *)flags + k->flag_offset)
		               : NULL;
		if (text)
			override(c, k, k->flag, text, f);
	}
}

/* Places that nobody named. */
static void set_places(struct config *c, struct faults *f)
{
	char *text;

	if (!c->socket) {
		text = config_default_socket(geteuid());
		if (text)
			override(c, key_find("ingest", "socket"), "default socket", text, f);
		c->socket_dir_is_ours = true;
		free(text);
	}
	if (!c->data_dir) {
		text = config_default_data_dir(geteuid());
		if (text)
			override(c, key_find("store", "path"), "default data directory", text, f);
		c->data_dir_is_ours = true;
		free(text);
	}
	c->api_socket = c->socket ? config_api_socket(c->socket) : NULL;
	if (!c->api_socket || !c->data_dir)
		f->no_memory = f->no_memory || f->count == 0;
}

/* A file that names exporters, be it none, wins over the variables. */
static void set_exporters(struct config *c, struct faults *f)
{
	if (c->exporters)
		c->unused_variable = config_otel_asks();
	else
		config_read_otel_exporters(c, f);
}

int config_load(struct config *ret, const struct config_flags *flags, FILE *errors)
{
	struct config c = {0};
	struct faults f = {.out = errors};

	if (keys_default(false, &c) != 0)
		f.no_memory = true;
	read_file(&c, flags, &f);
	config_read_otel_resource(&c, &f);
	read_overrides(&c, flags, &f);
	set_exporters(&c, &f);
	set_places(&c, &f);
	if (f.count > CONFIG_FAULTS_MAX)
		fprintf(errors, "%s: and %zu more\n", f.file ? f.file : "config",
		        f.count - CONFIG_FAULTS_MAX);
	if (f.no_memory || f.count > 0) {
		config_free(&c);
		memset(&c, 0, sizeof(c));
	}
	*ret = c;
	if (f.no_memory)
		return -ENOMEM;
	return f.count > 0 ? -EINVAL : 0;
}

void config_free_pairs(struct config_pair *pairs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(pairs[i].key);
		free(pairs[i].value);
	}
	free(pairs);
}

void exporter_config_deinit(struct exporter_config *e)
{
	free(e->name);
	free(e->endpoint);
	free(e->tls.ca_file);
	free(e->tls.cert_file);
	free(e->tls.key_file);
	free(e->tls.server_name);
	config_free_pairs(e->headers, e->header_count);
	*e = (struct exporter_config){0};
}

void config_free(struct config *c)
{
	for (size_t i = 0; i < c->exporter_count; i++)
		exporter_config_deinit(&c->exporters[i]);
	free(c->exporters);
	config_free_pairs(c->service_attributes, c->service_attribute_count);
	free(c->file);
	free(c->service_name);
	free(c->socket);
	free(c->api_socket);
	free(c->group);
	free(c->data_dir);
	free(c->http_host);
	*c = (struct config){0};
}
