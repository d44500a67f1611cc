#include "config_reader.h"

#include <stdlib.h>
#include <strings.h>

const char *header_name_fault(const char *name)
{
	static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "!#$%&'*+-.^_`|~";
	static const char *const ours[] = {
		"connection", "content-encoding",  "content-length", "content-type", "expect",
		"te",         "transfer-encoding", "user-agent"};

	if (*name == '\0')
		return "has an empty name, must have one";
	if (name[strspn(name, token)] != '\0')
		return "is not the name of a header, must be letters, digits and -";
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++) {
		if (strcasecmp(name, ours[i]) == 0)
			return "is a header that the exporter sets itself, must be left out";
	}
	if (strncasecmp(name, "grpc-", 5) == 0)
		return "is a name that belongs to gRPC, must not begin with grpc-";
	return NULL;
}

const char *attribute_name_fault(const char *name)
{
	if (*name == '\0')
		return "has an empty name, must have one";
	if (strlen(name) > CAP_ATTR_KEY)
		return "is too long a name, must have at most 256 bytes";
	return text_fault(name) ? "has a control character in its name, must have none" : NULL;
}

bool headers_fit_grpc(const struct exporter_config *e)
{
	for (size_t i = 0; i < e->header_count; i++) {
		for (const char *p = e->headers[i].value; *p; p++) {
			if (*p < ' ' || *p > '~')
				return false;
		}
	}
	return true;
}

static const char *pair_name_fault(const struct key *k, const char *name)
{
	if (key_is_exporters(k))
		return header_name_fault(name);
	if (strcmp(name, "service.name") == 0)
		return "has a key of its own, must be service: {name: …}";
	return attribute_name_fault(name);
}

/* Reads one header or attribute. Its value is never shown: it may be a secret. */
static void read_pair(struct reader *r, const struct key *k, const char *name,
                      const yaml_node_t *value, const struct place *at, struct config_pair *ret)
{
	const char *wrong = pair_name_fault(k, name);

	if (wrong) {
		fault(r->faults, at, "%s", wrong);
		return;
	}
	if (value->type != YAML_SCALAR_NODE || is_null(value)) {
		fault(r->faults, at, "%s, must be text",
		      is_null(value) ? "is empty" : shape_of(value));
		return;
	}
	ret->value = expand(r, value, at);
	wrong = ret->value ? text_fault(ret->value) : NULL;
	if (wrong)
		fault(r->faults, at, "%s, must be one line of text", wrong);
	ret->key = strdup(name);
	if (!ret->key)
		r->faults->no_memory = true;
}

/* A header's name is the same in either case. */
static void check_unique(struct reader *r, const struct key *k, const struct config_pair *pairs,
                         size_t count, const struct place *at)
{
	const char *name = pairs[count].key;

	for (size_t i = 0; name && key_is_exporters(k) && i < count; i++) {
		if (pairs[i].key && strcasecmp(pairs[i].key, name) == 0)
			fault(r->faults, at, "is there as '%s' already, must be unique",
			      pairs[i].key);
	}
}

static size_t pair_len(const struct config_pair *p)
{
	return (p->key ? strlen(p->key) : 0) + (p->value ? strlen(p->value) : 0);
}

void read_pairs(struct reader *r, const struct entry *e, struct config_pair **ret,
                size_t *ret_count)
{
	char path[CONFIG_PATH_MAX];
	size_t len = 0;

	if (is_null(e->value))
		return;
	if (e->value->type != YAML_MAPPING_NODE) {
		wrong_kind(r, e);
		return;
	}
	if (!check_count(r, e->at.path, e->value))
		return;
	*ret = calloc(CONFIG_KEYS_MAX, sizeof(**ret));
	if (!*ret) {
		r->faults->no_memory = true;
		return;
	}
	for (yaml_node_pair_t *p = first_pair(e->value); p < end_pair(e->value); p++) {
		if (!check_key(r, e->at.path, e->value, p, path))
			continue;
		yaml_node_t *value = yaml_document_get_node(r->doc, p->value);
		struct place at = place_of(value->start_mark, path);
		read_pair(r, e->key, text_of(yaml_document_get_node(r->doc, p->key)), value, &at,
		          &(*ret)[*ret_count]);
		check_unique(r, e->key, *ret, *ret_count, &at);
		len += pair_len(&(*ret)[(*ret_count)++]);
	}
	if (len > e->key->max)
		fault(r->faults, &e->at, "is too long, must be at most %zu bytes in all",
		      (size_t)e->key->max);
}
