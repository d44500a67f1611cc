#include "config_reader.h"

#include <errno.h>
#include <stdlib.h>

void read_signals(struct reader *r, const struct entry *e, struct exporter_config *x)
{
	yaml_node_t *list = e->value;

	if (list->type != YAML_SEQUENCE_NODE ||
	    list->data.sequence.items.top == list->data.sequence.items.start) {
		wrong_kind(r, e);
		return;
	}
	x->signals = 0; // the default
	for (yaml_node_item_t *it = list->data.sequence.items.start;
	     it < list->data.sequence.items.top; it++) {
		yaml_node_t *item = yaml_document_get_node(r->doc, *it);
		read_scalar(r,
		            &(struct entry){e->key, item, place_of(item->start_mark, e->at.path)},
		            x);
	}
}

yaml_node_t *find_value(struct reader *r, const yaml_node_t *map, const char *name)
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
		if (!k || key_is_for(k, type))
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

/* Says what is wrong with a key that is there, next to the others. */
static void complain(struct reader *r, const struct scope *s, const yaml_node_t *map,
                     const char *name, const char *wrong)
{
	char path[CONFIG_PATH_MAX];
	const yaml_node_t *node = find_value(r, map, name);

	if (!node)
		return;
	join_path(path, s->shown, name);
	struct place at = place_of(node->start_mark, path);
	fault(r->faults, &at, "%s", wrong);
}

static void check_tls(struct reader *r, const struct scope *s, const yaml_node_t *map,
                      const struct exporter_config *e)
{
	char shown[CONFIG_PATH_MAX];
	const struct scope own = {"exporters[].tls", shown, NULL};
	const yaml_node_t *tls = find_value(r, map, "tls");

	if (!tls || tls->type != YAML_MAPPING_NODE || first_pair(tls) == end_pair(tls))
		return;
	join_path(shown, s->shown, "tls");
	if (!url_is_https(e->endpoint))
		complain(r, s, map, "tls", "is for an https:// endpoint only, must be left out");
	if (e->tls.cert_file && !e->tls.key_file)
		complain(r, &own, tls, "cert_file",
		         "has no key_file beside it, must be both or none");
	if (e->tls.key_file && !e->tls.cert_file)
		complain(r, &own, tls, "key_file",
		         "has no cert_file beside it, must be both or none");
}

static void check_protocol(struct reader *r, const struct scope *s, const yaml_node_t *map,
                           const struct exporter_config *e)
{
	if (e->protocol == OTLP_GRPC && url_has_path(e->endpoint))
		complain(r, s, map, "endpoint", "has a path, must have none with protocol grpc");
	if (e->protocol == OTLP_GRPC && !headers_fit_grpc(e))
		complain(r, s, map, "headers",
		         "has a value that gRPC can't carry, must be printable ASCII");
	if (!e->endpoint_is_whole)
		return;
	if (e->protocol == OTLP_GRPC || url_socket(e->endpoint))
		complain(r, s, map, "endpoint_is_whole",
		         "is for an http:// or https:// endpoint without grpc, must be left out");
	else if ((e->signals & (e->signals - 1)) != 0)
		complain(r, s, map, "endpoint_is_whole",
		         "is for one signal, must be left out where there are more");
}

int exporter_finish(struct exporter_config *e)
{
	if (e->type != EXPORTER_OTLP || e->endpoint)
		return 0;
	e->endpoint = strdup(e->protocol == OTLP_GRPC ? "http://localhost:4317"
	                                              : "http://localhost:4318");
	return e->endpoint ? 0 : -ENOMEM;
}

static void check_together(struct reader *r, const struct scope *s, const yaml_node_t *map,
                           struct exporter_config *e)
{
	size_t faults = r->faults->count;

	check_type(r, s, map, e->type);
	if (exporter_finish(e) != 0)
		r->faults->no_memory = true;
	if (r->faults->count > faults || r->faults->no_memory || e->type != EXPORTER_OTLP)
		return;
	check_tls(r, s, map, e);
	check_protocol(r, s, map, e);
}

static void read_exporter(struct reader *r, yaml_node_t *node, struct exporter_config *e)
{
	char shown[32];
	struct scope s = {"exporters[]", shown, e};
	size_t faults = r->faults->count;

	snprintf(shown, sizeof(shown), "exporters[%zu]", (size_t)(e - r->config->exporters));
	struct place at = place_of(node->start_mark, shown);
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
		check_together(r, &s, node, e);
}

void read_exporters(struct reader *r, const struct entry *e)
{
	struct config *c = r->config;
	size_t count;

	c->exporters = read_list(r, e, "exporters", CAP_EXPORTERS, sizeof(*c->exporters), &count);
	for (size_t i = 0; i < count; i++) {
		struct exporter_config *x = &c->exporters[c->exporter_count++];
		if (keys_default(true, x) != 0)
			r->faults->no_memory = true;
		read_exporter(r, list_item(r, e, i), x);
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

/* By their type: otlp, otlp-2, … */
void name_exporters(struct config *c, struct faults *f)
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
