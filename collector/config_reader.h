/* config_reader.h - what the files that read a YAML document share.
 *
 * Everything goes on after a fault, so that one run says them all. Nodes belong to the document.
 */
#pragma once

#include <yaml.h>

#include "config_parts.h"

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

struct place place_of(yaml_mark_t mark, const char *path);
void join_path(char out[CONFIG_PATH_MAX], const char *shown, const char *name);

/** "is a list". */
const char *shape_of(const yaml_node_t *node);

/** A scalar's text. */
const char *text_of(const yaml_node_t *node);

/** Whether it is a scalar without a NUL byte. */
bool is_text(const yaml_node_t *node);

/** Nothing written, or YAML's words for nothing. */
bool is_null(const yaml_node_t *node);

void wrong_kind(struct reader *r, const struct entry *e);

/** The text of a scalar with its variables filled in; malloc'd. NULL after a fault. */
char *expand(struct reader *r, const yaml_node_t *node, const struct place *at);

void read_scalar(struct reader *r, const struct entry *e, void *base);
void read_map(struct reader *r, const struct scope *s, const yaml_node_t *map);

yaml_node_pair_t *first_pair(const yaml_node_t *map);
yaml_node_pair_t *end_pair(const yaml_node_t *map);

/** Whether the pair has a usable key: text, and for the first time. path is set to its own. */
bool check_key(struct reader *r, const char *shown, const yaml_node_t *map,
               const yaml_node_pair_t *pair, char path[CONFIG_PATH_MAX]);

/** Looking for duplicates is quadratic, so a mapping has a bound. */
bool check_count(struct reader *r, const char *shown, const yaml_node_t *map);

/** Room for a list's elements of that size, zeroed and one more; what they are is `what`. NULL, and
 * none to read, where nothing is written, after a fault and without memory. */
void *read_list(struct reader *r, const struct entry *e, const char *what, size_t max, size_t size,
                size_t *ret_count);
yaml_node_t *list_item(const struct reader *r, const struct entry *e, size_t n);

/** Reads headers or attributes. */
void read_pairs(struct reader *r, const struct entry *e, struct config_pair **ret,
                size_t *ret_count);

void read_signals(struct reader *r, const struct entry *e, struct exporter_config *x);
void read_exporters(struct reader *r, const struct entry *e);

/** Reads the file that a key names; and, of that file, its models. */
void read_prices(struct reader *r, const struct entry *e);
void read_models(struct reader *r, const struct entry *e);

/** The value of a name in a mapping, or NULL. */
yaml_node_t *find_value(struct reader *r, const yaml_node_t *map, const char *name);

/** Gives those that have none a name. */
void name_exporters(struct config *c, struct faults *f);
