#include "config_parts.h"

#include <assert.h>
#include <errno.h>

#define FIELD(s, f) .offset = offsetof(struct s, f), .size = sizeof(((struct s *)NULL)->f)
#define FLAG(f, name) .flag = (name), .flag_offset = offsetof(struct config_flags, f)
#define DAY_NS (24 * 3600ull * 1000000000)

static const struct word content_words[] = {{"full", true}, {"none", false}, {0}};
static const struct word convention_words[] = {
	{"genai", CONVENTION_GENAI}, {"seams", CONVENTION_SEAMS}, {"both", CONVENTION_BOTH}, {0}};
static const struct word type_words[] = {
	{"console", EXPORTER_CONSOLE}, {"otlp", EXPORTER_OTLP}, {0}};
static const struct word format_words[] = {{"pretty", CONSOLE_PRETTY}, {"json", CONSOLE_JSON}, {0}};
static const struct word protocol_words[] = {{"http/protobuf", OTLP_HTTP_PROTOBUF},
                                             {"http/json", OTLP_HTTP_JSON},
                                             {"grpc", OTLP_GRPC},
                                             {0}};
static const struct word compression_words[] = {
	{"none", COMPRESSION_NONE}, {"gzip", COMPRESSION_GZIP}, {0}};
static const struct word signal_words[] = {
	{"traces", SIGNAL_TRACES}, {"metrics", SIGNAL_METRICS}, {"logs", SIGNAL_LOGS}, {0}};
static const struct word from_words[] = {{"end", false}, {"beginning", true}, {0}};
static const struct word tls_words[] = {{"1.2", TLS_1_2}, {"1.3", TLS_1_3}, {0}};
static const struct word full_words[] = {
	{"drop_oldest", WHEN_FULL_DROP_OLDEST}, {"refuse_newest", WHEN_FULL_REFUSE_NEWEST}, {0}};

const struct key config_keys[] = {
	{"service", KEY_SECTION},
	{"service.name", KEY_TEXT, FIELD(config, service_name), .min = 1, .max = 255,
         .def_shown = "`unknown_service`", .env = "OTEL_SERVICE_NAME",
         .help = "Service of agents that name none in their hello."},
	{"service.attributes", KEY_PAIRS, .max = 8ull * KIB, .def_shown = "none",
         .help = "Resource attributes of agents that do not set them, "
                 "`deployment.environment.name` "
                 "for one."},

	{"ingest", KEY_SECTION},
	{"ingest.socket", KEY_SOCKET, FIELD(config, socket), FLAG(socket, "--socket"),
         .env = "SIDELIGHT_SOCKET", .def_shown = "see [Places](#places)",
         .help = "The Unix socket that agents connect to. The HTTP API has `NAME-api.sock` beside "
                 "`NAME.sock`."},
	{"ingest.mode", KEY_MODE, FIELD(config, mode), .def = "0600",
         .help = "Permissions of both sockets."},
	{"ingest.group", KEY_TEXT, FIELD(config, group), .min = 1, .max = 255,
         .def_shown = "the daemon's own", .help = "Group of both sockets."},
	{"ingest.max_frame", KEY_SIZE, FIELD(config, max_frame), .min = KIB,
         .max = CAP_SKIPPABLE_FRAME, .def = "4MiB",
         .help = "Longest message taken; a longer one is skipped, counted and answered."},
	{"ingest.max_connections", KEY_COUNT, FIELD(config, max_connections), .min = 1,
         .max = 65536, .def = "1024",
         .help = "Most agents at a time; one more is refused, counted and told so."},

	{"store", KEY_SECTION},
	{"store.path", KEY_PATH, FIELD(config, data_dir), FLAG(data, "--data"), .min = 1,
         .max = 4000, .env = "SIDELIGHT_DATA", .def_shown = "see [Places](#places)",
         .help = "Directory of the store."},
	{"store.size", KEY_SIZE, FIELD(config, store_bytes), .min = 16ull * MIB,
         .max = 1024ull * 1024 * MIB, .def = "256MiB",
         .help = "Room for the store, reserved when it is made."},
	{"store.retention", KEY_DURATION, FIELD(config, retention_ns), .min = 1000000000,
         .max = 3650 * DAY_NS, .def = "7d", .help = "Age at which records are removed."},
	{"store.when_full", KEY_WORD, FIELD(config, when_full), .words = full_words,
         .def = "drop_oldest",
         .help = "Whether the oldest records go when the room is used up, or events are refused "
                 "until there is room. Either is counted."},

	{"capture", KEY_SECTION},
	{"capture.content", KEY_WORD, FIELD(config, content), .words = content_words, .def = "full",
         .help = "Whether prompts, completions, tool inputs and outputs are stored."},
	{"capture.max_value", KEY_SIZE, FIELD(config, max_value), .min = 256, .max = 16ull * MIB,
         .def = "64KiB", .help = "Longest value stored; a longer one is cut, the cut marked."},
	{"capture.redact", KEY_LATER},

	{"spans", KEY_SECTION},
	{"spans.convention", KEY_WORD, FIELD(config, convention), .words = convention_words,
         .def = "genai",
         .help = "Names of spans and attributes: OpenTelemetry's GenAI conventions, the plain "
                 "words of the seams, or both."},

	{"exporters", KEY_EXPORTERS, .max = CAP_EXPORTERS, .def_shown = "none",
         .help = "Where spans go besides the store."},
	{"exporters[].type", KEY_WORD, FIELD(exporter_config, type), .words = type_words,
         .def_shown = "required", .help = "The console prints to stdout."},
	{"exporters[].name", KEY_NAME, FIELD(exporter_config, name), .min = 1, .max = 63,
         .def_shown = "the type, then `otlp-2`, …",
         .help = "Its name in metrics and logs. Its place in the store goes by it: a new name "
                 "starts anew."},
	{"exporters[].content", KEY_BOOL, FIELD(exporter_config, content),
         .def_shown = "`false`; console: `true`",
         .help = "Whether prompts and completions go out too."},
	{"exporters[].format", KEY_WORD, FIELD(exporter_config, format), .words = format_words,
         .def = "pretty", .only = ONLY_CONSOLE, .help = "For people, or one JSON object a line."},
	{"exporters[].from", KEY_WORD, FIELD(exporter_config, from_beginning), .words = from_words,
         .def = "end",
         .help = "Where a new name starts: at what comes next, or at the oldest that is stored."},
	{"exporters[].signals", KEY_SIGNALS, FIELD(exporter_config, signals), .words = signal_words,
         .def = "traces", .def_shown = "`[traces]`", .only = ONLY_OTLP, .help = "What is sent."},
	{"exporters[].endpoint", KEY_URL, FIELD(exporter_config, endpoint), .max = 2048,
         .def_shown = "`http://localhost:4318`; grpc: port 4317", .only = ONLY_OTLP,
         .help = "Where to. With HTTP a base URL: `v1/traces`, `v1/metrics` or `v1/logs` is "
                 "appended."},
	{"exporters[].endpoint_is_whole", KEY_BOOL, FIELD(exporter_config, endpoint_is_whole),
         .def = "false", .only = ONLY_OTLP,
         .help = "Nothing is appended to the endpoint. With HTTP and one signal."},
	{"exporters[].protocol", KEY_WORD, FIELD(exporter_config, protocol),
         .words = protocol_words, .def = "http/protobuf", .only = ONLY_OTLP,
         .help = "OTLP's encoding and transport."},
	{"exporters[].headers", KEY_PAIRS, .max = 16ull * KIB, .def_shown = "none",
         .only = ONLY_OTLP, .help = "HTTP headers of each request. Printed masked."},
	{"exporters[].compression", KEY_WORD, FIELD(exporter_config, compression),
         .words = compression_words, .def = "none", .only = ONLY_OTLP,
         .help = "Of request bodies."},
	{"exporters[].timeout", KEY_DURATION, FIELD(exporter_config, timeout_ns), .min = 1000000,
         .max = 600000000000, .def = "10s", .only = ONLY_OTLP, .help = "Of one request."},
	{"exporters[].metrics_interval", KEY_DURATION, FIELD(exporter_config, interval_ns),
         .min = 1000000000, .max = 3600000000000, .def = "60s", .only = ONLY_OTLP,
         .help = "Time between two reports of the metrics."},
	{"exporters[].tls", KEY_SECTION, .only = ONLY_OTLP},
	{"exporters[].tls.ca_file", KEY_FILE, FIELD(exporter_config, tls.ca_file), .min = 1,
         .max = 4000, .def_shown = "the system's", .only = ONLY_OTLP,
         .help = "Certificates that the server's must come from."},
	{"exporters[].tls.cert_file", KEY_FILE, FIELD(exporter_config, tls.cert_file), .min = 1,
         .max = 4000, .def_shown = "none", .only = ONLY_OTLP,
         .help = "The client's own certificate, and what leads from it to a CA."},
	{"exporters[].tls.key_file", KEY_FILE, FIELD(exporter_config, tls.key_file), .min = 1,
         .max = 4000, .def_shown = "none", .only = ONLY_OTLP,
         .help = "The key of `cert_file`, without a passphrase."},
	{"exporters[].tls.server_name", KEY_HOST, FIELD(exporter_config, tls.server_name), .min = 1,
         .max = 253, .def_shown = "the endpoint's host", .only = ONLY_OTLP,
         .help = "The name that is asked for and that the certificate must have."},
	{"exporters[].tls.min_version", KEY_WORD, FIELD(exporter_config, tls.min_version),
         .words = tls_words, .def = "1.2", .only = ONLY_OTLP,
         .help = "The oldest version of TLS that is spoken."},

	{"http", KEY_SECTION},
	{"http.listen", KEY_LISTEN, FLAG(http, "--http"), .def = "127.0.0.1:4320",
         .help = "Where `/metrics`, health and the API answer over TCP; port 0 takes a free one. "
                 "`off` leaves them on the Unix socket alone."},

	{"prices", KEY_PRICES, FIELD(config, prices_file), .min = 1, .max = 4000,
         .def_shown = "none",
         .help = "File of what models cost. A relative path begins at the configuration's "
                 "directory."},
	{"prices.currency", KEY_TEXT, FIELD(price_list, currency), .min = 1, .max = 15,
         .def_shown = "none", .help = "What the prices are in, `USD` for one."},
	{"prices.models", KEY_MODELS, .max = CAP_PRICES, .def_shown = "none",
         .help = "The first that matches a call is its price."},
	{"prices.models[].model", KEY_MODEL, FIELD(price, model), .min = 1, .max = 255,
         .def_shown = "required", .help = "The model that was asked for, or that answered."},
	{"prices.models[].provider", KEY_TEXT, FIELD(price, provider), .min = 1, .max = 255,
         .def_shown = "any", .help = "As the metrics call it."},
	{"prices.models[].input", KEY_PRICE, FIELD(price, input), .max = PRICE_MAX,
         .def_shown = "required", .help = "Of a million input tokens."},
	{"prices.models[].output", KEY_PRICE, FIELD(price, output), .max = PRICE_MAX,
         .def_shown = "none", .help = "Of a million output tokens, those of reasoning too."},
	{"prices.models[].cached_input", KEY_PRICE, FIELD(price, cached_input), .max = PRICE_MAX,
         .def_shown = "`input`", .help = "Of a million input tokens that came from a cache."},
	{"prices.models[].cache_write", KEY_PRICE, FIELD(price, cache_write), .max = PRICE_MAX,
         .def_shown = "`input`", .help = "Of a million input tokens that went to a cache."},
};

const size_t config_key_count = sizeof(config_keys) / sizeof(*config_keys);

const char *key_name(const struct key *k, const char *section)
{
	size_t len = strlen(section);
	const char *name = k->path;

	if (len > 0) {
		if (strncmp(name, section, len) != 0 || name[len] != '.')
			return NULL;
		name += len + 1;
	}
	return strchr(name, '.') ? NULL : name;
}

const struct key *key_find(const char *section, const char *name)
{
	for (size_t i = 0; i < config_key_count; i++) {
		const char *own = key_name(&config_keys[i], section);
		if (own && strcmp(own, name) == 0)
			return &config_keys[i];
	}
	return NULL;
}

bool key_is_exporters(const struct key *k)
{
	return strncmp(k->path, "exporters[", strlen("exporters[")) == 0;
}

/* Whether it is a key of the file of prices. */
static bool is_of_prices(const char *path)
{
	return strncmp(path, "prices.", strlen("prices.")) == 0;
}

bool key_is_for(const struct key *k, enum exporter_type type)
{
	return k->only == ONLY_ANY || (k->only == ONLY_OTLP) == (type == EXPORTER_OTLP);
}

const char *key_text(const struct key *k, const void *base)
{
	const void *field = (const char *)base + k->offset;
	return *(char *const *)field;
}

int keys_default(bool exporter, void *base)
{
	const char *wrong;

	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		if (!k->def || exporter != key_is_exporters(k))
			continue;
		int rc = value_parse(k, k->def, base, &wrong);
		assert(rc != -EINVAL); // the table's own
		if (rc != 0)
			return rc;
	}
	return 0;
}

enum { WORD_MAX = 24 }; // no key is longer

/* How many letters to add, drop, change or swap to get from a to b (optimal string alignment). */
static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), d[WORD_MAX + 1][WORD_MAX + 1];

	if (la > WORD_MAX || lb > WORD_MAX)
		return SIZE_MAX;
	for (size_t i = 0; i <= la; i++) {
		for (size_t j = 0; j <= lb; j++) {
			if (i == 0 || j == 0) {
				d[i][j] = i + j;
				continue;
			}
			size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	}
	return d[la][lb];
}

static const char *last_part(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot ? dot + 1 : path;
}

const char *key_suggest(const char *section, const char *name)
{
	const char *best = NULL;
	size_t best_distance = strlen(name) / 3 + 1; // a third may be wrong
	bool in_prices = strncmp(section, "prices", strlen("prices")) == 0;

	for (size_t i = 0; i < config_key_count; i++) {
		const char *own = key_name(&config_keys[i], section);
		if (!own || config_keys[i].kind == KEY_LATER)
			continue;
		size_t d = distance(own, name);
		if (d < best_distance || (!best && d == best_distance)) {
			best = own;
			best_distance = d;
		}
	}
	// right, and in the wrong section
	for (size_t i = 0; !best && i < config_key_count; i++) {
		if (config_keys[i].kind != KEY_LATER &&
		    is_of_prices(config_keys[i].path) == in_prices &&
		    strcmp(last_part(config_keys[i].path), name) == 0)
			best = config_keys[i].path + (in_prices ? strlen("prices.") : 0);
	}
	return best;
}
