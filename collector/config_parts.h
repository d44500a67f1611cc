/* config_parts.h - what the config_*.c files share: the table of keys and the list of faults.
 *
 * The table is the one description of the file: reading, defaults, printing, the words of the
 * errors and the reference in docs/config.md all come from it.
 */
#pragma once

#include <sys/types.h>

#include "base/str.h"
#include "config.h"

enum {
	CONFIG_FILE_MAX = 1024 * 1024, // bytes of a file
	CONFIG_DEPTH_MAX = 16,         // nested lists and mappings
	CONFIG_KEYS_MAX = 256,         // keys of one mapping
	CONFIG_VALUE_MAX = 64 * 1024,  // bytes of one value, variables filled in
	CONFIG_FAULTS_MAX = 50,        // printed; the rest is only counted
	CONFIG_PATH_MAX = 192,         // "exporters[12].headers.KEY", as shown
	CONFIG_QUOTE_MAX = 96,         // a user's text inside a message
	CONFIG_RULE_MAX = 160,         // value_rule()
	PRICE_DECIMALS = 6,            // in the file of prices
	SOCKET_PATH_MAX = 107,         // sun_path without its terminator
};

#define PRICE_MAX (1000000ull * 1000000) // a million, with its decimals

enum key_kind {
	// what has other keys or values below it
	KEY_SECTION,
	KEY_EXPORTERS,
	KEY_PAIRS,
	KEY_SIGNALS, // a list of words, each a bit
	KEY_MODELS,  // and their prices
	KEY_LATER,   // designed, and not part of this version
	// scalars
	KEY_TEXT,
	KEY_PATH,
	KEY_FILE, // can be read now
	KEY_HOST, // a name, without a port
	KEY_SOCKET,
	KEY_NAME,
	KEY_SIZE,
	KEY_DURATION,
	KEY_COUNT,
	KEY_MODE,
	KEY_BOOL,
	KEY_WORD,
	KEY_PRICES, // a file, read as well
	KEY_MODEL,
	KEY_PRICE,
	KEY_LISTEN, // three fields: its offset is that of the whole struct config
	KEY_URL,
};

struct word {
	const char *name; // NULL ends a list
	int value;
};

/* Which type of exporter a key is for. */
enum key_only { ONLY_ANY, ONLY_CONSOLE, ONLY_OTLP };

struct key {
	const char *path; // "section.key"; an exporter's: "exporters[].key"
	enum key_kind kind;
	enum key_only only;
	size_t offset, size; // of the field
	uint64_t min, max;   // inclusive; of a text: bytes
	const struct word *words;
	const char *def;       // the default, as in a file; NULL: none, or worked out
	const char *def_shown; // in the reference, where def says too little
	const char *flag, *env;
	size_t flag_offset; // in struct config_flags
	const char *help;
};

extern const struct key config_keys[];
extern const size_t config_key_count;

/** The key of this name inside a section ("" is the top), or NULL. */
const struct key *key_find(const char *section, const char *name);

/** The last part of the path if the key is directly inside the section, else NULL. */
const char *key_name(const struct key *k, const char *section);

/** What an unknown name inside a section was meant to be, as a path to show, or NULL. */
const char *key_suggest(const char *section, const char *name);

/** Whether an exporter's settings, those below tls too, have this key among them. */
bool key_is_exporters(const struct key *k);

/** Whether a key is of use to a type of exporter. */
bool key_is_for(const struct key *k, enum exporter_type type);

/** The text in a field of KEY_TEXT's family, or NULL. */
const char *key_text(const struct key *k, const void *base);

/* Where something is wrong: a place in the file, or (line 0) the flag or variable in path. */
struct place {
	size_t line, column;
	const char *path; // "": the file as such
};

struct faults {
	FILE *out;
	const char *file;
	size_t count;
	bool no_memory;
};

/** Writes "file:line:column: path: …" and counts it. */
void fault(struct faults *f, const struct place *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** A user's text for a message: cut, control characters replaced, credentials masked. */
void fault_quote(char out[CONFIG_QUOTE_MAX], const char *text);

/** Reads a scalar into the field at base + k->offset, replacing what was there.
 *
 * A signal is added to those in the field. Returns -EINVAL with the words for what is wrong ("is
 * not a size"), or -ENOMEM; on failure the field is untouched. */
MUST_CHECK int value_parse(const struct key *k, const char *text, void *base,
                           const char **ret_wrong);

/** What a value must be: "a size from 1KiB to 1GiB, like 4MiB". */
void value_rule(const struct key *k, char out[CONFIG_RULE_MAX]);

/** What keeps a file from being read, or NULL. */
const char *file_fault(const char *path);

/** What is wrong with a text of any kind, or NULL. */
const char *text_fault(const char *text);

/** The number in a field of any width; 0 where there is none. */
uint64_t value_uint(const struct key *k, const void *base);

struct unit {
	const char *name;
	uint64_t factor;
};

extern const struct unit size_units[], duration_units[]; // the largest first

/** The largest unit that divides v. */
const struct unit *unit_of(const struct unit *units, uint64_t v);

/** What follows the scheme of an http or https URL, or NULL. */
const char *url_authority(const char *url);

/** The socket of a unix:///path URL, or NULL. */
const char *url_socket(const char *url);

bool url_is_https(const char *url);

/** Whether something but a single / follows the host of an http or https URL. */
bool url_has_path(const char *url);

/** value_parse() for KEY_URL and KEY_LISTEN. */
int parse_url(const struct key *k, const char *text, void *base, const char **ret_wrong);
int parse_listen(const char *text, struct config *c);

/** Digits only: no sign, no space, no fraction. UINT64_MAX when there are too many. *ret_end is
 * what follows them. */
bool read_digits(const char *text, uint64_t *ret, const char **ret_end);

/** Replaces a text by a copy. */
MUST_CHECK int put_text(char **field, const char *text, size_t len);

/** value_parse() for plain text. */
MUST_CHECK int parse_text(const struct key *k, const char *text, void *base,
                          const char **ret_wrong);

/** What is wrong with the name of a header or attribute, or NULL. */
const char *header_name_fault(const char *name);
const char *attribute_name_fault(const char *name);

/** Whether gRPC can carry the headers: printable ASCII alone. */
bool headers_fit_grpc(const struct exporter_config *e);

/** Sets the fields that have a default in the table: an exporter's, or all others. */
MUST_CHECK int keys_default(bool exporter, void *base);

/** Reads keys and values into the config. */
struct yaml_document_s;
typedef void config_document_fn(struct config *c, struct yaml_document_s *doc, struct faults *f);
config_document_fn config_read_document;
config_document_fn config_read_prices; // the file of them

/** Reads one YAML text into the config, which holds the defaults. Faults are the result. */
void config_read(struct config *c, const char *text, size_t len, config_document_fn *fn,
                 struct faults *f);

/** The same of a file, which faults then name; one that can't be read is said to be so at the
 * place. */
void config_read_file(struct config *c, const char *path, const struct place *at,
                      config_document_fn *fn, struct faults *f);

/** What an exporter has where nobody said it: a place to send to. -ENOMEM. */
MUST_CHECK int exporter_finish(struct exporter_config *e);

/** Replaces ${env:NAME}, ${env:NAME:-default} and $$; malloc'd. NULL after a fault. */
char *config_expand(const char *text, const struct place *at, struct faults *f);

/** A variable that is set and not empty, or NULL. */
const char *env_text(const char *name);

enum list_kind { LIST_HEADERS, LIST_ATTRIBUTES };

/** Reads "name=value,name=value" with %XX for bytes, as variables have it; the first fault ends it.
 * *ret is malloc'd, whatever happens; config_free_pairs(). No part of a value is ever shown. */
void config_read_list(const char *text, enum list_kind kind, const struct place *at,
                      struct faults *f, struct config_pair **ret, size_t *ret_count);
void config_free_pairs(struct config_pair *pairs, size_t count);

/** A variable of OpenTelemetry's that asks for an exporter, or NULL. */
const char *config_otel_asks(void);

/** The exporters that OpenTelemetry's variables ask for; the config has none. */
void config_read_otel_exporters(struct config *c, struct faults *f);

/** OTEL_RESOURCE_ATTRIBUTES. */
void config_read_otel_resource(struct config *c, struct faults *f);

/** The default places for a user; malloc'd, NULL when out of memory. */
char *config_default_socket(uid_t uid);
char *config_default_data_dir(uid_t uid);
