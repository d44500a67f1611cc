#include "config_reader.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"

struct place place_of(yaml_mark_t mark, const char *path)
{
	return (struct place){mark.line + 1, mark.column + 1, path};
}

void join_path(char out[CONFIG_PATH_MAX], const char *shown, const char *name)
{
	char quoted[CONFIG_QUOTE_MAX];

	fault_quote(quoted, name);
	snprintf(out, CONFIG_PATH_MAX, "%s%s%s", shown, *shown ? "." : "", quoted);
}

const char *shape_of(const yaml_node_t *node)
{
	switch (node->type) {
	case YAML_SEQUENCE_NODE:
		return "is a list";
	case YAML_MAPPING_NODE:
		return "is a mapping";
	default:
		return "is text";
	}
}

const char *text_of(const yaml_node_t *node)
{
	return (const char *)node->data.scalar.value;
}

bool is_text(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE && strlen(text_of(node)) == node->data.scalar.length;
}

bool is_null(const yaml_node_t *node)
{
	if (!is_text(node) || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	const char *text = text_of(node);
	return *text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

void wrong_kind(struct reader *r, const struct entry *e)
{
	char rule[CONFIG_RULE_MAX];

	value_rule(e->key, rule);
	fault(r->faults, &e->at, "%s, must be %s",
	      is_null(e->value) ? "is empty" : shape_of(e->value), rule);
}

void *read_list(struct reader *r, const struct entry *e, const char *what, size_t max, size_t size,
                size_t *ret_count)
{
	const yaml_node_t *list = e->value;

	*ret_count = 0;
	if (is_null(list))
		return NULL;
	if (list->type != YAML_SEQUENCE_NODE) {
		wrong_kind(r, e);
		return NULL;
	}
	size_t count = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
	if (count > max) {
		fault(r->faults, &e->at, "has %zu %s, must have at most %zu", count, what, max);
		return NULL;
	}
	void *room = calloc(count + 1, size);
	r->faults->no_memory = r->faults->no_memory || !room;
	*ret_count = room ? count : 0;
	return room;
}

yaml_node_t *list_item(const struct reader *r, const struct entry *e, size_t n)
{
	return yaml_document_get_node(r->doc, e->value->data.sequence.items.start[n]);
}

char *expand(struct reader *r, const yaml_node_t *node, const struct place *at)
{
	if (!is_text(node)) {
		fault(r->faults, at, "has a NUL byte, must be text");
		return NULL;
	}
	return config_expand(text_of(node), at, r->faults);
}

void read_scalar(struct reader *r, const struct entry *e, void *base)
{
	char quoted[CONFIG_QUOTE_MAX], rule[CONFIG_RULE_MAX];
	const char *wrong;

	if (e->value->type != YAML_SCALAR_NODE || is_null(e->value)) {
		wrong_kind(r, e);
		return;
	}
	char *text = expand(r, e->value, &e->at);
	if (!text)
		return;
	switch (value_parse(e->key, text, base, &wrong)) {
	case 0:
		break;
	case -ENOMEM:
		r->faults->no_memory = true;
		break;
	default:
		// as it was written: what a variable held may be a secret
		fault_quote(quoted, text_of(e->value));
		value_rule(e->key, rule);
		fault(r->faults, &e->at, "'%s' %s, must be %s", quoted, wrong, rule);
	}
	free(text);
}

yaml_node_pair_t *first_pair(const yaml_node_t *map)
{
	return map->data.mapping.pairs.start;
}

yaml_node_pair_t *end_pair(const yaml_node_t *map)
{
	return map->data.mapping.pairs.top;
}

static bool same_text(const yaml_node_t *a, const yaml_node_t *b)
{
	return a->type == YAML_SCALAR_NODE && b->type == YAML_SCALAR_NODE &&
	       a->data.scalar.length == b->data.scalar.length &&
	       memcmp(a->data.scalar.value, b->data.scalar.value, a->data.scalar.length) == 0;
}

/* The earlier key of the same name, or NULL. */
static yaml_node_t *find_duplicate(struct reader *r, const yaml_node_t *map,
                                   const yaml_node_pair_t *pair)
{
	yaml_node_t *key = yaml_document_get_node(r->doc, pair->key);

	for (yaml_node_pair_t *p = first_pair(map); p < pair; p++) {
		yaml_node_t *other = yaml_document_get_node(r->doc, p->key);
		if (same_text(key, other))
			return other;
	}
	return NULL;
}

bool check_key(struct reader *r, const char *shown, const yaml_node_t *map,
               const yaml_node_pair_t *pair, char path[CONFIG_PATH_MAX])
{
	yaml_node_t *key = yaml_document_get_node(r->doc, pair->key), *first;
	struct place at = place_of(key->start_mark, path);

	if (!is_text(key)) {
		snprintf(path, CONFIG_PATH_MAX, "%s", shown);
		fault(r->faults, &at, "a key %s, must be a name",
		      key->type == YAML_SCALAR_NODE ? "has a NUL byte" : shape_of(key));
		return false;
	}
	join_path(path, shown, text_of(key));
	first = find_duplicate(r, map, pair);
	if (first) {
		fault(r->faults, &at, "duplicate key, first on line %zu",
		      first->start_mark.line + 1);
		return false;
	}
	return true;
}

bool check_count(struct reader *r, const char *shown, const yaml_node_t *map)
{
	struct place at = place_of(map->start_mark, shown);

	if (end_pair(map) - first_pair(map) <= CONFIG_KEYS_MAX)
		return true;
	fault(r->faults, &at, "has too many keys, must have at most %d", CONFIG_KEYS_MAX);
	return false;
}

static void read_section(struct reader *r, const struct entry *e, void *base)
{
	struct scope s = {e->key->path, e->at.path, base};

	if (is_null(e->value)) // all of its keys are commented out
		return;
	if (e->value->type != YAML_MAPPING_NODE)
		wrong_kind(r, e);
	else
		read_map(r, &s, e->value);
}

static void read_value(struct reader *r, const struct entry *e, void *base)
{
	struct config *c = r->config;
	struct exporter_config *x = base;

	switch (e->key->kind) {
	case KEY_SECTION:
		read_section(r, e, base);
		break;
	case KEY_EXPORTERS:
		read_exporters(r, e);
		break;
	case KEY_PAIRS:
		if (e->key->only == ONLY_OTLP)
			read_pairs(r, e, &x->headers, &x->header_count);
		else
			read_pairs(r, e, &c->service_attributes, &c->service_attribute_count);
		break;
	case KEY_SIGNALS:
		read_signals(r, e, x);
		break;
	case KEY_MODELS:
		read_models(r, e);
		break;
	case KEY_PRICES:
		read_prices(r, e);
		break;
	case KEY_LATER:
		fault(r->faults, &e->at, "is not supported by this version, must be left out");
		break;
	default:
		read_scalar(r, e, base);
	}
}

static void unknown_key(struct reader *r, const struct scope *s, const char *name,
                        const struct place *at)
{
	const char *meant = key_suggest(s->section, name);
	struct buf list;

	if (meant) {
		fault(r->faults, at, "unknown key, did you mean '%s'?", meant);
		return;
	}
	buf_init(&list, CONFIG_RULE_MAX);
	for (size_t i = 0; i < config_key_count; i++) {
		const char *own = key_name(&config_keys[i], s->section);
		if (own && config_keys[i].kind != KEY_LATER)
			buf_printf(&list, "%s%s", list.len > 0 ? ", " : "", own);
	}
	fault(r->faults, at, "unknown key, must be one of %.*s", (int)list.len,
	      list.data ? (char *)list.data : "");
	buf_deinit(&list);
}

void read_map(struct reader *r, const struct scope *s, const yaml_node_t *map)
{
	char path[CONFIG_PATH_MAX];

	if (!check_count(r, s->shown, map))
		return;
	for (yaml_node_pair_t *p = first_pair(map); p < end_pair(map); p++) {
		if (!check_key(r, s->shown, map, p, path))
			continue;
		yaml_node_t *key = yaml_document_get_node(r->doc, p->key);
		yaml_node_t *value = yaml_document_get_node(r->doc, p->value);
		const struct key *k = key_find(s->section, text_of(key));
		struct place at = place_of(k ? value->start_mark : key->start_mark, path);
		if (k)
			read_value(r, &(struct entry){k, value, at}, s->base);
		else
			unknown_key(r, s, text_of(key), &at);
	}
}

void config_read_document(struct config *c, struct yaml_document_s *doc, struct faults *f)
{
	struct reader r = {doc, c, f};
	struct scope top = {"", "", c};
	yaml_node_t *root = yaml_document_get_root_node(doc);

	if (!root || is_null(root))
		return;
	struct place at = place_of(root->start_mark, "");
	if (root->type != YAML_MAPPING_NODE)
		fault(f, &at, "the file %s, must be a mapping", shape_of(root));
	else
		read_map(&r, &top, root);
	name_exporters(c, f);
}
