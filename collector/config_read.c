#include "config_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/buf.h"

struct reader {
	yaml_document_t *doc;
	struct config *config;
	struct faults *faults;
};

/* One mapping that is being read. */
struct scope {
	const char *section; // in the table: "", "ingest", "exporters[]"
	const char *shown;   // the same for a person: "exporters[1]"
	void *base;          // the struct that its keys' fields are in
};

/* A key that was found, with its value and how both are shown. */
struct entry {
	const struct key *key;
	yaml_node_t *value;
	struct place at;
};

static void read_map(struct reader *r, const struct scope *s, const yaml_node_t *map);

static struct place place_of(yaml_mark_t mark, const char *path)
{
	return (struct place){mark.line + 1, mark.column + 1, path};
}

static void join_path(char out[CONFIG_PATH_MAX], const char *shown, const char *name)
{
	char quoted[CONFIG_QUOTE_MAX];

	fault_quote(quoted, name);
	snprintf(out, CONFIG_PATH_MAX, "%s%s%s", shown, *shown ? "." : "", quoted);
}

static const char *shape_of(const yaml_node_t *node)
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

static const char *text_of(const yaml_node_t *node)
{
	return (const char *)node->data.scalar.value;
}

static bool is_text(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE && strlen(text_of(node)) == node->data.scalar.length;
}

/* Nothing written, or YAML's words for nothing. */
static bool is_null(const yaml_node_t *node)
{
	if (!is_text(node) || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	const char *text = text_of(node);
	return *text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

static void wrong_kind(struct reader *r, const struct entry *e)
{
	char rule[CONFIG_RULE_MAX];

	value_rule(e->key, rule);
	fault(r->faults, &e->at, "%s, must be %s",
	      is_null(e->value) ? "is empty" : shape_of(e->value), rule);
}

/* The text of a scalar with its variables filled in; NULL after a fault. */
static char *expand(struct reader *r, const yaml_node_t *node, const struct place *at)
{
	if (!is_text(node)) {
		fault(r->faults, at, "has a NUL byte, must be text");
		return NULL;
	}
	return config_expand(text_of(node), at, r->faults);
}

static void read_scalar(struct reader *r, const struct entry *e, void *base)
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

static void read_signals(struct reader *r, const struct entry *e, void *base)
{
	yaml_node_t *list = e->value;

	if (list->type != YAML_SEQUENCE_NODE ||
	    list->data.sequence.items.top == list->data.sequence.items.start) {
		wrong_kind(r, e);
		return;
	}
	for (yaml_node_item_t *it = list->data.sequence.items.start;
	     it < list->data.sequence.items.top; it++) {
		yaml_node_t *item = yaml_document_get_node(r->doc, *it);
		read_scalar(r,
		            &(struct entry){e->key, item, place_of(item->start_mark, e->at.path)},
		            base);
	}
}

static yaml_node_pair_t *first_pair(const yaml_node_t *map)
{
	return map->data.mapping.pairs.start;
}

static yaml_node_pair_t *end_pair(const yaml_node_t *map)
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

/* Whether the pair has a usable key: text, and for the first time. path is set to its own. */
static bool check_key(struct reader *r, const char *shown, const yaml_node_t *map,
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

/* Looking for duplicates is quadratic, so a mapping has a bound. */
static bool check_count(struct reader *r, const char *shown, const yaml_node_t *map)
{
	struct place at = place_of(map->start_mark, shown);

	if (end_pair(map) - first_pair(map) <= CONFIG_KEYS_MAX)
		return true;
	fault(r->faults, &at, "has too many keys, must have at most %d", CONFIG_KEYS_MAX);
	return false;
}

/* What is wrong with the name of a header or attribute, or NULL. */
static const char *pair_name_fault(const struct key *k, const char *name)
{
	static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "!#$%&'*+-.^_`|~";

	if (*name == '\0')
		return "has an empty name, must have one";
	if (k->only == ONLY_OTLP)
		return name[strspn(name, token)] ? "is not the name of a header, must be letters, "
		                                   "digits and -"
		                                 : NULL;
	if (strcmp(name, "service.name") == 0)
		return "has a key of its own, must be service: {name: …}";
	if (strlen(name) > CAP_ATTR_KEY)
		return "is too long a name, must have at most 256 bytes";
	return text_fault(name) ? "has a control character in its name, must have none" : NULL;
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

static size_t pair_len(const struct config_pair *p)
{
	return (p->key ? strlen(p->key) : 0) + (p->value ? strlen(p->value) : 0);
}

static void read_pairs(struct reader *r, const struct entry *e, struct config_pair **ret,
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
		len += pair_len(&(*ret)[(*ret_count)++]);
	}
	if (len > e->key->max)
		fault(r->faults, &e->at, "is too long, must be at most %zu bytes in all",
		      (size_t)e->key->max);
}

static yaml_node_t *find_value(struct reader *r, const yaml_node_t *map, const char *name)
{
	for (yaml_node_pair_t *p = first_pair(map); p < end_pair(map); p++) {
		yaml_node_t *key = yaml_document_get_node(r->doc, p->key);
		if (is_text(key) && strcmp(text_of(key), name) == 0)
			return yaml_document_get_node(r->doc, p->value);
	}
	return NULL;
}

/* Keys that the exporter's type has no use for. */
static void check_type(struct reader *r, const struct scope *s, const yaml_node_t *map,
                       enum exporter_type type)
{
	char path[CONFIG_PATH_MAX];

	for (yaml_node_pair_t *p = first_pair(map); p < end_pair(map); p++) {
		yaml_node_t *node = yaml_document_get_node(r->doc, p->key);
		const struct key *k = is_text(node) ? key_find(s->section, text_of(node)) : NULL;
		if (!k || k->only == ONLY_ANY || (k->only == ONLY_OTLP) == (type == EXPORTER_OTLP))
			continue;
		join_path(path, s->shown, text_of(node));
		struct place at = place_of(node->start_mark, path);
		fault(r->faults, &at, "is for type %s only, must be left out",
		      k->only == ONLY_OTLP ? "otlp" : "console");
	}
}

static void check_name(struct reader *r, const struct scope *s, const yaml_node_t *map,
                       const struct exporter_config *e)
{
	char path[CONFIG_PATH_MAX];
	const struct config *c = r->config;
	const yaml_node_t *node = find_value(r, map, "name");

	if (!node || !e->name)
		return;
	join_path(path, s->shown, "name");
	struct place at = place_of(node->start_mark, path);
	for (const struct exporter_config *o = c->exporters; o < e; o++) {
		if (!o->name || strcmp(o->name, e->name) != 0)
			continue;
		fault(r->faults, &at, "'%s' is exporters[%zu] already, must be unique", e->name,
		      (size_t)(o - c->exporters));
		return;
	}
}

static void read_exporter(struct reader *r, yaml_node_t *node, struct exporter_config *e)
{
	char shown[32];
	struct scope s = {"exporters[]", shown, e};
	struct place at = place_of(node->start_mark, shown);
	size_t faults = r->faults->count;

	snprintf(shown, sizeof(shown), "exporters[%zu]", (size_t)(e - r->config->exporters));
	if (node->type != YAML_MAPPING_NODE) {
		fault(r->faults, &at, "%s, must be a mapping like {type: console}",
		      is_null(node) ? "is empty" : shape_of(node));
		return;
	}
	if (!find_value(r, node, "type"))
		fault(r->faults, &at, "has no type, must have type: console or type: otlp");
	read_map(r, &s, node);
	if (!find_value(r, node, "content"))
		e->content = e->type == EXPORTER_CONSOLE;
	check_name(r, &s, node, e);
	if (r->faults->count == faults &&
	    !r->faults->no_memory) // else the type itself may be what is wrong
		check_type(r, &s, node, e->type);
}

static void read_exporters(struct reader *r, const struct entry *e)
{
	struct config *c = r->config;
	yaml_node_t *list = e->value;

	if (is_null(list))
		return;
	if (list->type != YAML_SEQUENCE_NODE) {
		wrong_kind(r, e);
		return;
	}
	size_t count = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
	if (count > CAP_EXPORTERS) {
		fault(r->faults, &e->at, "has %zu exporters, must have at most %u", count,
		      CAP_EXPORTERS);
		return;
	}
	c->exporters = calloc(count + 1, sizeof(*c->exporters));
	if (!c->exporters) {
		r->faults->no_memory = true;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct exporter_config *x = &c->exporters[c->exporter_count++];
		if (keys_default(true, x) != 0)
			r->faults->no_memory = true;
		read_exporter(r, yaml_document_get_node(r->doc, list->data.sequence.items.start[i]),
		              x);
	}
}

static void read_section(struct reader *r, const struct entry *e)
{
	struct scope s = {e->key->path, e->at.path, r->config};

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
		read_section(r, e);
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
		read_signals(r, e, base);
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

static void read_map(struct reader *r, const struct scope *s, const yaml_node_t *map)
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

static bool name_is_taken(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->exporter_count; i++) {
		if (c->exporters[i].name && strcmp(c->exporters[i].name, name) == 0)
			return true;
	}
	return false;
}

/* Names those that have none by their type: otlp, otlp-2, … */
static void name_exporters(struct config *c, struct faults *f)
{
	char name[32];

	for (size_t i = 0; i < c->exporter_count; i++) {
		struct exporter_config *e = &c->exporters[i];
		const char *type = e->type == EXPORTER_CONSOLE ? "console" : "otlp";
		if (e->name)
			continue;
		snprintf(name, sizeof(name), "%s", type);
		for (unsigned n = 2; name_is_taken(c, name); n++)
			snprintf(name, sizeof(name), "%s-%u", type, n);
		e->name = strdup(name);
		if (!e->name)
			f->no_memory = true;
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
