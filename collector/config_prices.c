#include "config_reader.h"

#include <errno.h>
#include <stdlib.h>

static void read_price(struct reader *r, yaml_node_t *node, struct price *p)
{
	static const char *const required[] = {"model", "input"};
	char shown[32];
	struct scope s = {"prices.models[]", shown, p};

	snprintf(shown, sizeof(shown), "models[%zu]", (size_t)(p - r->config->prices.prices));
	struct place at = place_of(node->start_mark, shown);
	if (node->type != YAML_MAPPING_NODE) {
		fault(r->faults, &at, "%s, must be a mapping",
		      is_null(node) ? "is empty" : shape_of(node));
		return;
	}
	for (size_t i = 0; i < sizeof(required) / sizeof(*required); i++) {
		if (!find_value(r, node, required[i]))
			fault(r->faults, &at, "has no %s, must have one", required[i]);
	}
	read_map(r, &s, node);
}

void read_models(struct reader *r, const struct entry *e)
{
	struct price_list *l = &r->config->prices;
	size_t count;

	l->prices = read_list(r, e, "models", CAP_PRICES, sizeof(*l->prices), &count);
	for (size_t i = 0; i < count; i++) {
		struct price *p = &l->prices[l->count++];
		p->output = p->cached_input = p->cache_write = PRICE_NONE;
		read_price(r, list_item(r, e, i), p);
	}
}

void config_read_prices(struct config *c, struct yaml_document_s *doc, struct faults *f)
{
	struct reader r = {doc, c, f};
	struct scope top = {"prices", "", &c->prices};
	yaml_node_t *root = yaml_document_get_root_node(doc);
	struct place at = {1, 1, ""};

	if (root && root->type == YAML_MAPPING_NODE) {
		read_map(&r, &top, root);
		return;
	}
	if (root)
		at = place_of(root->start_mark, "");
	fault(f, &at, "the file %s, must be a mapping",
	      !root || is_null(root) ? "is empty" : shape_of(root));
}

/* Makes it absolute, so that what is printed can be read back anywhere. */
static int find_file(char **path, const char *config)
{
	const char *slash = strrchr(config, '/');
	int dir_len = slash ? (int)(slash + 1 - config) : 0;
	char *joined, *whole;

	if (asprintf(&joined, "%.*s%s", **path == '/' ? 0 : dir_len, config, *path) < 0)
		return -ENOMEM;
	free(*path);
	*path = joined;
	whole = realpath(joined, NULL);
	if (!whole)
		return errno == ENOMEM ? -ENOMEM : 0; // which reading it will say
	free(joined);
	*path = whole;
	return 0;
}

void read_prices(struct reader *r, const struct entry *e)
{
	struct config *c = r->config;
	const char *config = r->faults->file;

	read_scalar(r, e, c);
	if (!c->prices_file)
		return;
	if (find_file(&c->prices_file, config) < 0) {
		r->faults->no_memory = true;
		return;
	}
	const char *wrong = text_fault(c->prices_file);
	if (!wrong)
		wrong = file_fault(c->prices_file);
	if (wrong)
		fault(r->faults, &e->at, "%s, must be a file that can be read", wrong);
	else
		config_read_file(c, c->prices_file, &e->at, config_read_prices, r->faults);
	r->faults->file = config;
}
