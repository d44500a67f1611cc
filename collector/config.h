/* config.h - the effective configuration: defaults, then file, then environment, then flags.
 *
 * Invariant: a struct config that config_load() filled is complete and within every bound;
 * nothing downstream checks it again. All text is owned by the config.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/caps.h"
#include "base/err.h"
#include "base/signals.h"
#include "core/kind.h"
#include "core/price.h"

enum exporter_type { EXPORTER_CONSOLE, EXPORTER_OTLP };
enum console_format { CONSOLE_PRETTY, CONSOLE_JSON };

enum otlp_protocol { OTLP_HTTP_PROTOBUF, OTLP_HTTP_JSON, OTLP_GRPC };
enum compression { COMPRESSION_NONE, COMPRESSION_GZIP };
enum tls_version { TLS_1_2, TLS_1_3 };
enum when_full { WHEN_FULL_DROP_OLDEST, WHEN_FULL_REFUSE_NEWEST };

struct config_pair {
	char *key, *value;
};

/* PEM files; NULL: the system's CAs, no client certificate, the endpoint's own name. */
struct tls_config {
	char *ca_file;
	char *cert_file, *key_file; // both or none
	char *server_name;          // asked for and verified instead of the endpoint's host
	enum tls_version min_version;
};

struct exporter_config {
	char *name; // unique; default: the type, then type-2, …
	enum exporter_type type;
	enum console_format format; // console
	bool content;               // prompts and completions too; otlp: false, console: true
	bool from_beginning;        // a new name starts at the oldest span that is stored
	// otlp
	unsigned signals;       // bit: enum otlp_signal; console: traces
	char *endpoint;         // http, https or unix URL; HTTP: a base, v1/SIGNAL is appended
	bool endpoint_is_whole; // HTTP: nothing is appended (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)
	enum otlp_protocol protocol;
	enum compression compression;
	struct config_pair *headers;
	size_t header_count;
	struct tls_config tls;
	uint64_t timeout_ns;  // of one request; default 10 s
	uint64_t interval_ns; // between two reports of metrics; default 60 s
};

/* What the command line says; NULL where it says nothing. */
struct config_flags {
	const char *config, *socket, *data, *http;
};

struct config {
	char *file; // NULL: none was read
	// service
	char *service_name; // NULL: unknown_service
	struct config_pair *service_attributes;
	size_t service_attribute_count;
	// ingest
	char *socket;            // ≤ 107 bytes
	char *api_socket;        // NAME-api.sock beside it
	bool socket_dir_is_ours; // a default place: create it 0700 and check its owner
	unsigned mode;           // default 0600
	char *group;             // NULL: none
	size_t max_frame;        // bytes
	unsigned max_connections;
	// store
	char *data_dir;
	bool data_dir_is_ours; // a default place: create it 0700
	uint64_t store_bytes;  // quota; default 256 MiB
	uint64_t retention_ns; // default 7 d
	enum when_full when_full;
	// capture
	size_t max_value; // bytes of one value
	bool content;     // false: none is stored
	// spans
	enum convention convention;
	// exporters
	struct exporter_config *exporters;
	size_t exporter_count;
	const char *unused_variable; // static: an OTEL_* one that the file's exporters win over
	// http
	char *http_host;    // a literal loopback address unless the user chose otherwise
	uint16_t http_port; // 0: any free one
	bool http_enabled;  // "off" switches TCP off; the Unix socket stays
	// prices
	char *prices_file; // absolute; NULL: none
	struct price_list prices;
};

/** Reads everything that says how to run.
 *
 * Every fault is written to errors, one line each: "file:line:column: key: what is wrong, what
 * would be right" (faults of flags and variables name those instead of a place). Returns 0,
 * -EINVAL when at least one line was written, or -ENOMEM. On failure *ret is empty. */
MUST_CHECK int config_load(struct config *ret, const struct config_flags *flags, FILE *errors);

void config_free(struct config *c);

/** Frees what it owns and leaves it empty. */
void exporter_config_deinit(struct exporter_config *e);

/** A copy of all that it owns. -ENOMEM: *ret is empty. */
MUST_CHECK int exporter_config_copy(struct exporter_config *ret,
                                    const struct exporter_config *from);

/** Whether two exporters are the same in all that they do. */
bool exporter_config_equal(const struct exporter_config *a, const struct exporter_config *b);

/** Prints the effective configuration as YAML that config_load() reads back, secrets (headers'
 * values, credentials in URLs) masked. */
void config_print(const struct config *c, FILE *out);

/** The socket, API socket and data directory as defaults, environment and flags say, without a
 * file: what the command-line tool needs. Returned text is malloc'd; NULL when out of memory.
 * A client's socket is the first candidate that exists, else the first. */
char *config_client_socket(const char *flag);
char *config_api_socket(const char *socket);
char *config_client_data_dir(const char *flag);
