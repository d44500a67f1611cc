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

void config_read_file(struct config *c, const char *path, const struct place *at,
                      config_document_fn *fn, struct faults *f)
{
	struct buf text;
	FILE *in = fopen(path, "re");
	int rc;

	if (!in) {
		f->no_memory = f->no_memory || errno == ENOMEM;
		if (errno != ENOMEM)
			fault(f, at, "%s: %s, must be a file that can be read", path,
			      strerror(errno));
		return;
	}
	buf_init(&text, CONFIG_FILE_MAX);
	rc = read_all(in, &text);
	(void)fclose(in); // read only: there is nothing to lose
	if (rc == -ENOMEM) {
		f->no_memory = true;
	} else if (rc == -EFBIG) {
		fault(f, at, "%s: is too large, must be at most 1MiB", path);
	} else if (rc != 0) {
		fault(f, at, "%s: %s, must be a file that can be read", path, strerror(-rc));
	} else {
		f->file = path;
		config_read(c, text.data ? (const char *)text.data : "", text.len, fn, f);
	}
	buf_deinit(&text);
}

static void read_file(struct config *c, const struct config_flags *flags, struct faults *f)
{
	struct place at = {0};
	const char *path = find_file(flags, &at.path);

	if (!path)
		return;
	c->file = strdup(path);
	if (c->file)
		config_read_file(c, path, &at, config_read_document, f);
	else
		f->no_memory = true;
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

static bool copy_text(char **ret, const char *from)
{
	*ret = from ? strdup(from) : NULL;
	return *ret || !from;
}

static bool copy_headers(struct exporter_config *to, const struct exporter_config *from)
{
	to->headers = calloc(from->header_count + 1, sizeof(*to->headers));
	if (!to->headers)
		return false;
	for (size_t i = 0; i < from->header_count; i++) {
		to->header_count++;
		if (!copy_text(&to->headers[i].key, from->headers[i].key) ||
		    !copy_text(&to->headers[i].value, from->headers[i].value))
			return false;
	}
	return true;
}

int exporter_config_copy(struct exporter_config *ret, const struct exporter_config *from)
{
	struct exporter_config c = *from;

	// What is not copied yet must not be freed.
	c.name = c.endpoint = NULL;
	c.tls.ca_file = c.tls.cert_file = c.tls.key_file = c.tls.server_name = NULL;
	c.headers = NULL;
	c.header_count = 0;
	bool ok = copy_text(&c.name, from->name) && copy_text(&c.endpoint, from->endpoint) &&
	          copy_text(&c.tls.ca_file, from->tls.ca_file) &&
	          copy_text(&c.tls.cert_file, from->tls.cert_file) &&
	          copy_text(&c.tls.key_file, from->tls.key_file) &&
	          copy_text(&c.tls.server_name, from->tls.server_name) && copy_headers(&c, from);
	if (!ok) {
		exporter_config_deinit(&c);
		*ret = (struct exporter_config){0};
		return -ENOMEM;
	}
	*ret = c;
	return 0;
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
	free(c->prices_file);
	price_list_deinit(&c->prices);
	*c = (struct config){0};
}
