/* OTEL_RESOURCE_ATTRIBUTES, over the file's service. */
#include "config_parts.h"

#include <errno.h>
#include <stdlib.h>

#define VARIABLE "OTEL_RESOURCE_ATTRIBUTES"

static const struct place at = {.path = VARIABLE};

static void set_name(struct config *c, const char *name, struct faults *f)
{
	char quoted[CONFIG_QUOTE_MAX], rule[CONFIG_RULE_MAX];
	const struct key *k = key_find("service", "name");
	const char *wrong;

	switch (value_parse(k, name, c, &wrong)) {
	case 0:
		break;
	case -ENOMEM:
		f->no_memory = true;
		break;
	default:
		fault_quote(quoted, name);
		value_rule(k, rule);
		fault(f, &at, "service.name: '%s' %s, must be %s", quoted, wrong, rule);
	}
}

static struct config_pair *find_attribute(const struct config *c, const char *key)
{
	for (size_t i = 0; i < c->service_attribute_count; i++) {
		if (strcmp(c->service_attributes[i].key, key) == 0)
			return &c->service_attributes[i];
	}
	return NULL;
}

/* Takes the pair; there is room for one more. */
static void merge(struct config *c, struct config_pair *pair)
{
	struct config_pair *had = find_attribute(c, pair->key);

	if (!had)
		had = &c->service_attributes[c->service_attribute_count++];
	free(had->key);
	free(had->value);
	*had = *pair;
	*pair = (struct config_pair){0};
}

static void merge_all(struct config *c, struct config_pair *pairs, size_t count, struct faults *f)
{
	size_t had = c->service_attribute_count;
	struct config_pair *more =
		realloc(c->service_attributes, (had + count) * sizeof(*c->service_attributes));

	if (!more) {
		f->no_memory = true;
		return;
	}
	memset(more + had, 0, count * sizeof(*more));
	c->service_attributes = more;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(pairs[i].key, "service.name") == 0)
			set_name(c, pairs[i].value, f);
		else
			merge(c, &pairs[i]);
	}
}

/* Both together keep to what the file's alone must keep to. */
static void check_bounds(const struct config *c, struct faults *f)
{
	const struct key *k = key_find("service", "attributes");
	size_t len = 0;

	for (size_t i = 0; i < c->service_attribute_count; i++)
		len += strlen(c->service_attributes[i].key) +
		       strlen(c->service_attributes[i].value);
	if (c->service_attribute_count > CONFIG_KEYS_MAX)
		fault(f, &at, "makes too many attributes with the file's, must be at most %d",
		      CONFIG_KEYS_MAX);
	else if (len > k->max)
		fault(f, &at, "is too long with the file's, must be at most %zu bytes in all",
		      (size_t)k->max);
}

void config_read_otel_resource(struct config *c, struct faults *f)
{
	const char *text = env_text(VARIABLE);
	struct config_pair *pairs;
	size_t count, faults = f->count;

	if (!text)
		return;
	config_read_list(text, LIST_ATTRIBUTES, &at, f, &pairs, &count);
	// a file at fault may have left halves of attributes
	if (f->count == 0 && !f->no_memory) {
		merge_all(c, pairs, count, f);
		if (f->count == faults && !f->no_memory)
			check_bounds(c, f);
	}
	config_free_pairs(pairs, count);
}
