#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config_parts.h"

static char tmp[] = "/tmp/sidelight-config-XXXXXX";
static char *reference; // docs/config.md

/* One way to say "load this": the text of the file, or NULL for no file. */
struct loaded {
	int rc;
	struct config config;
	char *errors;
};

static struct loaded load_flags(const struct config_flags *flags)
{
	struct loaded l = {0};
	size_t len;
	FILE *errors = open_memstream(&l.errors, &len);

	assert_non_null(errors);
	l.rc = config_load(&l.config, flags, errors);
	(void)fclose(errors);
	return l;
}

static void write_file(const char *name, const char *text, size_t len)
{
	FILE *f = fopen(name, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static struct loaded load(const char *yaml)
{
	write_file("t.yaml", yaml, strlen(yaml));
	return load_flags(&(struct config_flags){.config = "t.yaml"});
}

static struct loaded load_good(const char *yaml)
{
	struct loaded l = load(yaml);

	assert_string_equal(l.errors, "");
	assert_int_equal(l.rc, 0);
	return l;
}

static void unload(struct loaded *l)
{
	config_free(&l->config);
	free(l->errors);
}

static char *print(const struct config *c)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	config_print(c, out);
	(void)fclose(out);
	return text;
}

static void clear_env(void)
{
	static const char *const prefixes[] = {"SIDELIGHT_", "OTEL_", "XDG_", "T="};
	bool again = true;

	while (again) {
		again = false;
		for (char **v = environ; *v && !again; v++) {
			for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
				again = again || strncmp(*v, prefixes[i], strlen(prefixes[i])) == 0;
			char *name = again ? strndup(*v, strcspn(*v, "=")) : NULL;
			if (name)
				unsetenv(name);
			free(name);
		}
	}
}

static int setup(void **state)
{
	clear_env();
	return 0;
}

static void refuses(const char *yaml, const char *errors)
{
	struct loaded l = load(yaml);

	assert_string_equal(l.errors, errors);
	assert_int_equal(l.rc, -EINVAL);
	assert_null(l.config.socket);
	unload(&l);
}

static void empty_file_gives_defaults(void **state)
{
	static const char *const empty[] = {"",      "\n\n", "# nothing\n",
	                                    "---\n", "~\n",  "service:\nexporters:\nhttp: ~\n"};

	for (size_t i = 0; i < sizeof(empty) / sizeof(*empty); i++) {
		struct loaded l = load_good(empty[i]);
		const struct config *c = &l.config;
		assert_string_equal(c->file, "t.yaml");
		assert_null(c->service_name);
		assert_null(c->group);
		assert_int_equal(c->mode, 0600);
		assert_int_equal(c->max_frame, 4 * MIB);
		assert_int_equal(c->max_connections, 1024);
		assert_int_equal(c->store_bytes, 256 * MIB);
		assert_int_equal(c->when_full, WHEN_FULL_DROP_OLDEST);
		assert_int_equal(c->retention_ns, 7 * 24 * 3600 * 1000000000ull);
		assert_true(c->content);
		assert_int_equal(c->max_value, 64 * KIB);
		assert_int_equal(c->convention, CONVENTION_GENAI);
		assert_int_equal(c->exporter_count, 0);
		assert_true(c->http_enabled);
		assert_string_equal(c->http_host, "127.0.0.1");
		assert_int_equal(c->http_port, 4320);
		assert_true(c->socket_dir_is_ours);
		assert_true(c->data_dir_is_ours);
		unload(&l);
	}
}

static const char full[] =
	"service: {name: chat-api, attributes: {deployment.environment.name: prod, 'a b': "
	"\"$$5\\t\"}}\n"
	"ingest: {socket: /x/a.sock, mode: \"0660\", group: agents, max_frame: 1GiB, "
	"max_connections: 1}\n"
	"store: {path: /x/data, size: 16777216, retention: 36h, when_full: refuse_newest}\n"
	"capture: {content: none, max_value: 512B}\n"
	"spans: {convention: both}\n"
	"exporters:\n"
	"  - {type: console, format: json, content: false, from: beginning}\n"
	"  - {type: otlp}\n"
	"  - {type: otlp, name: otlp-3, endpoint: 'https://me:pass@[::1]:443/a', content: true,\n"
	"     protocol: http/protobuf, compression: none, timeout: 1500ms, signals: [traces],\n"
	"     headers: {Authorization: 'Bearer secret', X-Scope: \"\"}}\n"
	"  - {type: otlp, protocol: grpc, signals: [logs, metrics], metrics_interval: 90s}\n"
	"  - {type: otlp, protocol: http/json, endpoint: 'unix:///run/otlp.sock'}\n"
	"  - {type: otlp, endpoint: 'https://a/in', endpoint_is_whole: true, compression: gzip,\n"
	"     tls: {ca_file: ca.pem, cert_file: ./cert.pem, key_file: key.pem, server_name: b.c,\n"
	"     min_version: \"1.3\"}}\n"
	"http: {listen: '[::1]:0'}\n";

static void every_key_is_read(void **state)
{
	struct loaded l = load_good(full);
	const struct config *c = &l.config;

	assert_string_equal(c->service_name, "chat-api");
	assert_int_equal(c->service_attribute_count, 2);
	assert_string_equal(c->service_attributes[0].key, "deployment.environment.name");
	assert_string_equal(c->service_attributes[0].value, "prod");
	assert_string_equal(c->service_attributes[1].value, "$5\t");
	assert_string_equal(c->socket, "/x/a.sock");
	assert_string_equal(c->api_socket, "/x/a-api.sock");
	assert_false(c->socket_dir_is_ours);
	assert_int_equal(c->mode, 0660);
	assert_string_equal(c->group, "agents");
	assert_int_equal(c->max_frame, 1024 * MIB);
	assert_int_equal(c->max_connections, 1);
	assert_string_equal(c->data_dir, "/x/data");
	assert_false(c->data_dir_is_ours);
	assert_int_equal(c->store_bytes, 16 * MIB);
	assert_int_equal(c->retention_ns, 36 * 3600 * 1000000000ull);
	assert_int_equal(c->when_full, WHEN_FULL_REFUSE_NEWEST);
	assert_false(c->content);
	assert_int_equal(c->max_value, 512);
	assert_int_equal(c->convention, CONVENTION_BOTH);
	assert_string_equal(c->http_host, "::1");
	assert_int_equal(c->http_port, 0);
	unload(&l);
}

static void exporters_get_the_defaults_of_their_type_and_a_name(void **state)
{
	struct loaded l = load_good(full);
	const struct exporter_config *e = l.config.exporters;

	assert_int_equal(l.config.exporter_count, 6);
	assert_int_equal(e[0].type, EXPORTER_CONSOLE);
	assert_int_equal(e[0].format, CONSOLE_JSON);
	assert_string_equal(e[0].name, "console");
	assert_false(e[0].content);
	assert_true(e[0].from_beginning);
	assert_int_equal(e[0].signals, 1 << SIGNAL_TRACES);
	assert_null(e[0].endpoint);
	assert_int_equal(e[1].type, EXPORTER_OTLP);
	assert_string_equal(e[1].name, "otlp");
	assert_string_equal(e[1].endpoint, "http://localhost:4318");
	assert_int_equal(e[1].timeout_ns, 10000000000);
	assert_false(e[1].content);
	assert_false(e[1].from_beginning);
	assert_false(e[1].endpoint_is_whole);
	assert_int_equal(e[1].protocol, OTLP_HTTP_PROTOBUF);
	assert_int_equal(e[1].compression, COMPRESSION_NONE);
	assert_int_equal(e[1].signals, 1 << SIGNAL_TRACES);
	assert_int_equal(e[1].interval_ns, 60000000000);
	assert_int_equal(e[1].tls.min_version, TLS_1_2);
	assert_string_equal(e[2].endpoint, "https://me:pass@[::1]:443/a");
	assert_int_equal(e[2].timeout_ns, 1500000000);
	assert_true(e[2].content);
	assert_int_equal(e[2].header_count, 2);
	assert_string_equal(e[2].headers[0].key, "Authorization");
	assert_string_equal(e[2].headers[0].value, "Bearer secret");
	assert_string_equal(e[2].headers[1].value, "");
	assert_string_equal(e[3].name, "otlp-2");
	assert_int_equal(e[3].protocol, OTLP_GRPC);
	assert_string_equal(e[3].endpoint, "http://localhost:4317");
	assert_int_equal(e[3].signals, 1 << SIGNAL_LOGS | 1 << SIGNAL_METRICS);
	assert_int_equal(e[3].interval_ns, 90000000000);
	assert_int_equal(e[4].protocol, OTLP_HTTP_JSON);
	assert_string_equal(e[4].endpoint, "unix:///run/otlp.sock");
	assert_true(e[5].endpoint_is_whole);
	assert_int_equal(e[5].compression, COMPRESSION_GZIP);
	assert_string_equal(e[5].tls.ca_file, "ca.pem");
	assert_string_equal(e[5].tls.cert_file, "./cert.pem");
	assert_string_equal(e[5].tls.key_file, "key.pem");
	assert_string_equal(e[5].tls.server_name, "b.c");
	assert_int_equal(e[5].tls.min_version, TLS_1_3);
	unload(&l);
	l = load_good("exporters: [{type: console}, {type: otlp, name: otlp-2}, {type: otlp}]");
	assert_true(l.config.exporters[0].content);
	assert_int_equal(l.config.exporters[0].format, CONSOLE_PRETTY);
	assert_string_equal(l.config.exporters[2].name, "otlp");
	unload(&l);
}

static void printed_configuration_reads_back(void **state)
{
	struct loaded l = load_good(full);
	char *once = print(&l.config), *twice;

	assert_null(strstr(once, "secret"));
	assert_null(strstr(once, "pass"));
	assert_non_null(strstr(once, "endpoint: \"https://***@[::1]:443/a\"\n"));
	assert_non_null(strstr(once, "\"Authorization\": \"***\"\n"));
	assert_non_null(strstr(once, "\"a b\": \"$$5\\t\"\n"));
	assert_non_null(strstr(once, "retention: 36h\n"));
	assert_non_null(strstr(once, "size: 16MiB\n"));
	assert_non_null(strstr(once, "when_full: refuse_newest\n"));
	assert_non_null(strstr(once, "signals: [metrics, logs]\n"));
	assert_non_null(strstr(once, "from: beginning\n"));
	assert_non_null(strstr(once, "endpoint: \"unix:///run/otlp.sock\"\n"));
	assert_non_null(strstr(once, "endpoint_is_whole: true\n"));
	assert_non_null(strstr(once, "    tls:\n"
	                             "      ca_file: \"ca.pem\"\n"
	                             "      cert_file: \"./cert.pem\"\n"
	                             "      key_file: \"key.pem\"\n"
	                             "      server_name: \"b.c\"\n"
	                             "      min_version: 1.3\n"));
	unload(&l);
	l = load_good(once);
	twice = print(&l.config);
	assert_string_equal(once, twice);
	unload(&l);
	free(once);
	free(twice);
}

static void printed_defaults_are_plain(void **state)
{
	struct loaded l =
		load_good("ingest: {socket: s.sock}\nstore: {path: d}\nhttp: {listen: off}");
	char *text = print(&l.config);

	assert_string_equal(text, "ingest:\n"
	                          "  socket: \"s.sock\"\n"
	                          "  mode: \"0600\"\n"
	                          "  max_frame: 4MiB\n"
	                          "  max_connections: 1024\n"
	                          "store:\n"
	                          "  path: \"d\"\n"
	                          "  size: 256MiB\n"
	                          "  retention: 7d\n"
	                          "  when_full: drop_oldest\n"
	                          "capture:\n"
	                          "  content: full\n"
	                          "  max_value: 64KiB\n"
	                          "spans:\n"
	                          "  convention: genai\n"
	                          "exporters: []\n"
	                          "http:\n"
	                          "  listen: \"off\"\n");
	free(text);
	unload(&l);
}

static void every_fault_is_said_at_once(void **state)
{
	refuses("servce: {name: x}\n"
	        "ingest:\n"
	        "  mode: 0777\n"
	        "  socket: [a]\n"
	        "  mode: \"0600\"\n"
	        "store: {size: 1MiB, retenton: 10s}\n",
	        "t.yaml:1:1: servce: unknown key, did you mean 'service'?\n"
	        "t.yaml:3:9: ingest.mode: '0777' is not a mode, must be octal within 0666, like "
	        "\"0660\"\n"
	        "t.yaml:4:11: ingest.socket: is a list, must be a path of at most 103 bytes, 98 if "
	        "it "
	        "does not end in .sock\n"
	        "t.yaml:5:3: ingest.mode: duplicate key, first on line 3\n"
	        "t.yaml:6:15: store.size: '1MiB' is too small, must be a size from 16MiB to "
	        "1024GiB, "
	        "like 256MiB\n"
	        "t.yaml:6:21: store.retenton: unknown key, did you mean 'retention'?\n");
}

/* One wrong value; what is said after "t.yaml:1:1: ". */
struct bad {
	const char *yaml, *error;
};

static void refuses_all(const struct bad *bad, size_t count)
{
	char errors[512];

	for (size_t i = 0; i < count; i++) {
		snprintf(errors, sizeof(errors), "t.yaml:%s\n", bad[i].error);
		refuses(bad[i].yaml, errors);
	}
}
#define REFUSES_ALL(table) refuses_all(table, sizeof(table) / sizeof(*(table)))

static void numbers_are_strict(void **state)
{
#define FRAME "1:21: ingest.max_frame: "
#define FRAME_RULE ", must be a size from 1KiB to 1GiB, like 4MiB"
#define AGE "1:21: store.retention: "
#define AGE_RULE ", must be a duration from 1s to 3650d, like 7d"
	static const struct bad bad[] = {
		{"ingest: {max_frame: 4MB}", FRAME "'4MB' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 4 MiB}", FRAME "'4 MiB' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 4mib}", FRAME "'4mib' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 12abc}", FRAME "'12abc' is not a size" FRAME_RULE},
		{"ingest: {max_frame: -1}", FRAME "'-1' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 0x800}", FRAME "'0x800' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 1.5MiB}", FRAME "'1.5MiB' is not a size" FRAME_RULE},
		{"ingest: {max_frame: MiB}", FRAME "'MiB' is not a size" FRAME_RULE},
		{"ingest: {max_frame: 1023}", FRAME "'1023' is too small" FRAME_RULE},
		{"ingest: {max_frame: 1025MiB}", FRAME "'1025MiB' is too large" FRAME_RULE},
		{"ingest: {max_frame: 18446744073709551617}",
	         FRAME "'18446744073709551617' is too large" FRAME_RULE},
		{"ingest: {max_frame: 17179869184GiB}",
	         FRAME "'17179869184GiB' is too large" FRAME_RULE},
		{"ingest: {max_frame: }", "1:21: ingest.max_frame: is empty" FRAME_RULE},
		{"ingest: {max_frame: {}}", FRAME "is a mapping" FRAME_RULE},
		{"store: {retention:  10}", AGE "'10' is not a duration" AGE_RULE},
		{"store: {retention:  10 s}", AGE "'10 s' is not a duration" AGE_RULE},
		{"store: {retention:  1h30m}", AGE "'1h30m' is not a duration" AGE_RULE},
		{"store: {retention:  1w}", AGE "'1w' is not a duration" AGE_RULE},
		{"store: {retention:  999ms}", AGE "'999ms' is too small" AGE_RULE},
		{"store: {retention:  3651d}", AGE "'3651d' is too large" AGE_RULE},
		{"store: {retention:  999999999999999999d}",
	         AGE "'999999999999999999d' is too large" AGE_RULE},
		{"ingest: {max_connections: 1k}",
	         "1:27: ingest.max_connections: '1k' is not a whole number, must be a whole number "
	         "from 1 to 65536, like 1024"},
		{"ingest: {max_connections: 0}",
	         "1:27: ingest.max_connections: '0' is too small, must be a whole number from 1 to "
	         "65536, like 1024"},
	};

	REFUSES_ALL(bad);
}

static void words_are_strict(void **state)
{
#define MODE_RULE " is not a mode, must be octal within 0666, like \"0660\""
	static const struct bad bad[] = {
		{"ingest: {mode: 660}", "1:16: ingest.mode: '660'" MODE_RULE},
		{"ingest: {mode: 0o660}", "1:16: ingest.mode: '0o660'" MODE_RULE},
		{"ingest: {mode: 0668}", "1:16: ingest.mode: '0668'" MODE_RULE},
		{"ingest: {mode: 0700}", "1:16: ingest.mode: '0700'" MODE_RULE},
		{"ingest: {mode: 2660}", "1:16: ingest.mode: '2660'" MODE_RULE},
		{"ingest: {group: }",
	         "1:17: ingest.group: is empty, must be text of 1 to 255 bytes"},
		{"ingest: {group: ''}",
	         "1:17: ingest.group: '' is empty, must be text of 1 to 255 bytes"},
		{"capture: {content: yes}",
	         "1:20: capture.content: 'yes' is not known, must be full or none"},
		{"spans: {convention: GenAI}",
	         "1:21: spans.convention: 'GenAI' is not known, must be genai, seams or both"},
		{"spans: genai", "1:8: spans: is text, must be a mapping"},
		{"service: []", "1:10: service: is a list, must be a mapping"},
		{"service: {name: \"a\\nb\"}", "1:17: service.name: 'a?b' has a line break or a "
	                                       "control character, must be text of "
	                                       "1 to 255 bytes"},
		{"service: {name: \"a\\0b\"}", "1:17: service.name: has a NUL byte, must be text"},
		{"service: {attributes: {a: [b]}}",
	         "1:27: service.attributes.a: is a list, must be text"},
		{"service: {attributes: {a: }}",
	         "1:27: service.attributes.a: is empty, must be text"},
		{"service: {attributes: {a: 1, a: 2}}",
	         "1:30: service.attributes.a: duplicate key, first on line 1"},
		{"service: {attributes: {service.name: x}}",
	         "1:38: service.attributes.service.name: has a key of its own, must be service: "
	         "{name: …}"},
		{"service: {attributes: [a]}",
	         "1:23: service.attributes: is a list, must be a mapping of names to text"},
		{"[a]: b", "1:1: a key is a list, must be a name"},
		{"- a", "1:1: the file is a list, must be a mapping"},
		{"hello", "1:1: the file is text, must be a mapping"},
	};

	REFUSES_ALL(bad);
}

static void unknown_keys_get_a_hint(void **state)
{
	static const struct bad bad[] = {
		{"expoters: []", "1:1: expoters: unknown key, did you mean 'exporters'?"},
		{"ingest: {scoket: a}", "1:10: ingest.scoket: unknown key, did you mean 'socket'?"},
		{"ingest: {max-frame: 1}",
	         "1:10: ingest.max-frame: unknown key, did you mean 'max_frame'?"},
		{"retention: 7d", "1:1: retention: unknown key, did you mean 'store.retention'?"},
		{"store: {qwertz: 1}",
	         "1:9: store.qwertz: unknown key, must be one of path, size, retention, "
	         "when_full"},
		{"ingest.mode: 1", "1:1: ingest.mode: unknown key, must be one of service, ingest, "
	                           "store, capture, spans, exporters, http"},
		{"\"a\\e[31m\": 1",
	         "1:1: a?[31m: unknown key, must be one of service, ingest, store, "
	         "capture, spans, exporters, http"},
		{"exporters: [{type: otlp, url: x}]",
	         "1:26: exporters[0].url: unknown key, must be one of type, name, content, format, "
	         "from, signals, endpoint, endpoint_is_whole, protocol, headers, compression, "
	         "timeout, metrics_interval, tls"},
	};

	REFUSES_ALL(bad);
}

static void what_is_not_built_says_so(void **state)
{
	static const struct bad bad[] = {
		{"prices: p.yaml",
	         "1:9: prices: is not supported by this version, must be left out"},
		{"capture: {redact: []}",
	         "1:19: capture.redact: is not supported by this version, must be left out"},
	};

	REFUSES_ALL(bad);
}

static void exporters_are_checked(void **state)
{
#define URL_RULE                                                                                   \
	" is not a base URL, must be a URL with a host, without query, like https://host:4318, "   \
	"or unix:///path"
	static const struct bad bad[] = {
		{"exporters: {type: otlp}",
	         "1:12: exporters: is a mapping, must be a list of mappings, each with a type"},
		{"exporters: [otlp]",
	         "1:13: exporters[0]: is text, must be a mapping like {type: console}"},
		{"exporters: [{name: a}]",
	         "1:13: exporters[0]: has no type, must have type: console or type: otlp"},
		{"exporters: [{type: zipkin}]",
	         "1:20: exporters[0].type: 'zipkin' is not known, must be console or otlp"},
		{"exporters: [{type: console, endpoint: 'http://a'}]",
	         "1:29: exporters[0].endpoint: is for type otlp only, must be left out"},
		{"exporters: [{type: otlp, format: json}]",
	         "1:26: exporters[0].format: is for type console only, must be left out"},
		{"exporters: [{type: otlp, content: True}]",
	         "1:35: exporters[0].content: 'True' is not a boolean, must be true or false"},
		{"exporters: [{type: otlp, name: a}, {type: console, name: a}]",
	         "1:58: exporters[1].name: 'a' is exporters[0] already, must be unique"},
		{"exporters: [{type: otlp, name: a/b}]",
	         "1:32: exporters[0].name: 'a/b' is not a name, must be 1 to 63 letters, digits, "
	         "'.', '_' or '-'"},
		{"exporters: [{type: otlp, signals: []}]",
	         "1:35: exporters[0].signals: is a list, must be a list of traces, metrics or "
	         "logs"},
		{"exporters: [{type: otlp, headers: {'a b': c}}]",
	         "1:43: exporters[0].headers.a b: is not the name of a header, must be letters, "
	         "digits "
	         "and -"},
		{"exporters: [{type: otlp, headers: {a: \"secret\\r\\nb: c\"}}]",
	         "1:39: exporters[0].headers.a: has a line break or a control character, must be "
	         "one "
	         "line of text"},
		{"exporters: [{type: otlp, endpoint: 'localhost:4318'}]",
	         "1:36: exporters[0].endpoint: 'localhost:4318'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'ftp://me:pass@h'}]",
	         "1:36: exporters[0].endpoint: 'ftp://***@h'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://'}]",
	         "1:36: exporters[0].endpoint: 'http://'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://:4318'}]",
	         "1:36: exporters[0].endpoint: 'http://:4318'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://a:0'}]",
	         "1:36: exporters[0].endpoint: 'http://a:0'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://a:65536/'}]",
	         "1:36: exporters[0].endpoint: 'http://a:65536/'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://[::g]'}]",
	         "1:36: exporters[0].endpoint: 'http://[::g]'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://a b'}]",
	         "1:36: exporters[0].endpoint: 'http://a b'" URL_RULE},
		{"exporters: [{type: otlp, endpoint: 'http://a/?key=1'}]",
	         "1:36: exporters[0].endpoint: 'http://a/?key=1' has a query or a fragment, must "
	         "be a "
	         "URL with a host, without query, like https://host:4318, or unix:///path"},
	};

	REFUSES_ALL(bad);
}

static void what_contradicts_itself_is_refused(void **state)
{
#define OTLP(...) "exporters:\n- type: otlp\n  " __VA_ARGS__
#define HTTPS "endpoint: https://a\n  "
#define FILE_RULE ", must be a PEM file that can be read"
	static const struct bad bad[] = {
		{OTLP("tls: {ca_file: ca.pem}"),
	         "3:8: exporters[0].tls: is for an https:// endpoint only, must be left out"},
		{OTLP("endpoint: http://a\n  tls: {min_version: 1.3}"),
	         "4:8: exporters[0].tls: is for an https:// endpoint only, must be left out"},
		{OTLP("endpoint: unix:///a\n  tls: {server_name: a}"),
	         "4:8: exporters[0].tls: is for an https:// endpoint only, must be left out"},
		{OTLP(HTTPS "tls: {cert_file: cert.pem}"),
	         "4:20: exporters[0].tls.cert_file: has no key_file beside it, must be both or "
	         "none"},
		{OTLP(HTTPS "tls: {key_file: key.pem}"),
	         "4:19: exporters[0].tls.key_file: has no cert_file beside it, must be both or "
	         "none"},
		{OTLP(HTTPS "tls: {ca_file: none.pem}"),
	         "4:18: exporters[0].tls.ca_file: 'none.pem' does not exist" FILE_RULE},
		{OTLP(HTTPS "tls: {ca_file: '${env:T:-none.pem}'}"),
	         "4:18: exporters[0].tls.ca_file: '${env:T:-none.pem}' does not exist" FILE_RULE},
		{OTLP(HTTPS "tls: {ca_file: .}"),
	         "4:18: exporters[0].tls.ca_file: '.' is not a plain file" FILE_RULE},
		{OTLP(HTTPS "tls: {ca_file: empty.pem}"),
	         "4:18: exporters[0].tls.ca_file: 'empty.pem' is an empty file" FILE_RULE},
		{OTLP(HTTPS "tls: {ca_file: ''}"),
	         "4:18: exporters[0].tls.ca_file: '' is empty" FILE_RULE},
		{OTLP(HTTPS "tls: {server_name: 'a:1'}"),
	         "4:22: exporters[0].tls.server_name: 'a:1' is not a host's name, must be a "
	         "host's name like otlp.example.com"},
		{OTLP(HTTPS "tls: {min_version: 1.1}"),
	         "4:22: exporters[0].tls.min_version: '1.1' is not known, must be 1.2 or 1.3"},
		{OTLP(HTTPS "tls: {cafile: ca.pem}"),
	         "4:9: exporters[0].tls.cafile: unknown key, did you mean 'ca_file'?"},
		{OTLP(HTTPS "ca_file: ca.pem"), "4:3: exporters[0].ca_file: unknown key, did you "
	                                        "mean 'exporters[].tls.ca_file'?"},
		{OTLP("tls: on"), "3:8: exporters[0].tls: is text, must be a mapping"},
		{"exporters: [{type: console, tls: {ca_file: ca.pem}}]",
	         "1:29: exporters[0].tls: is for type otlp only, must be left out"},
		{OTLP("protocol: grpc\n  endpoint: http://a/v1"),
	         "4:13: exporters[0].endpoint: has a path, must have none with protocol grpc"},
		{OTLP("protocol: grpc\n  endpoint_is_whole: true"),
	         "4:22: exporters[0].endpoint_is_whole: is for an http:// or https:// endpoint "
	         "without grpc, must be left out"},
		{OTLP("endpoint: unix:///a\n  endpoint_is_whole: true"),
	         "4:22: exporters[0].endpoint_is_whole: is for an http:// or https:// endpoint "
	         "without grpc, must be left out"},
		{OTLP("signals: [traces, logs]\n  endpoint_is_whole: true"),
	         "4:22: exporters[0].endpoint_is_whole: is for one signal, must be left out where "
	         "there are more"},
		{OTLP("endpoint: unix://a"), "3:13: exporters[0].endpoint: 'unix://a'" URL_RULE},
		{OTLP("endpoint: unix:///a/"),
	         "3:13: exporters[0].endpoint: 'unix:///a/'" URL_RULE},
		{OTLP("signals: [logs, logs]"),
	         "3:19: exporters[0].signals: 'logs' is there twice, must be a list of traces, "
	         "metrics or logs"},
		{OTLP("signals: [profiles]"),
	         "3:13: exporters[0].signals: 'profiles' is not known, must be a list of traces, "
	         "metrics or logs"},
		{OTLP("metrics_interval: 999ms"),
	         "3:21: exporters[0].metrics_interval: '999ms' is too small, must be a duration "
	         "from 1s to 1h, like 60s"},
		{OTLP("from: start"),
	         "3:9: exporters[0].from: 'start' is not known, must be end or beginning"},
		{OTLP("headers: {Grpc-Timeout: 1S}"),
	         "3:27: exporters[0].headers.Grpc-Timeout: is a name that belongs to gRPC, must "
	         "not begin with grpc-"},
		{OTLP("headers: {Content-type: a}"),
	         "3:27: exporters[0].headers.Content-type: is a header that the exporter sets "
	         "itself, must be left out"},
		{OTLP("headers: {a: b, A: b}"),
	         "3:22: exporters[0].headers.A: is there as 'a' already, must be unique"},
		{"store: {when_full: block}",
	         "1:20: store.when_full: 'block' is not known, must be "
	         "drop_oldest or refuse_newest"},
	};

	REFUSES_ALL(bad);
	struct loaded l = load_good(OTLP("endpoint: http://a\n  tls:\n  signals: [logs]"));
	unload(&l);
}

/* Each is an exporter that differs from the first one in one key. */
static void exporters_are_equal_in_all_keys_or_not(void **state)
{
#define SAME(x)                                                                                    \
	"exporters:\n"                                                                             \
	"- {type: otlp, name: a, endpoint: 'https://a'}\n"                                         \
	"- {type: otlp, name: b, endpoint: 'https://a', " x "}\n"
	static const char *const differ[] = {
		SAME("from: beginning"),        SAME("signals: [logs]"),
		SAME("content: true"),          SAME("endpoint_is_whole: true"),
		SAME("protocol: grpc"),         SAME("headers: {a: b}"),
		SAME("compression: gzip"),      SAME("timeout: 1s"),
		SAME("metrics_interval: 1s"),   SAME("tls: {ca_file: ca.pem}"),
		SAME("tls: {server_name: b}"),  SAME("tls: {cert_file: ca.pem, key_file: ca.pem}"),
		SAME("tls: {min_version: 1.3}")};
	struct loaded l = load_good(SAME("timeout: 10s, headers: {}, tls: {min_version: 1.2}"));
	struct exporter_config *e = l.config.exporters;

	assert_false(exporter_config_equal(&e[0], &e[1]));
	e[1].name[0] = 'a';
	assert_true(exporter_config_equal(&e[0], &e[1]));
	e[1].type = EXPORTER_CONSOLE;
	assert_false(exporter_config_equal(&e[0], &e[1]));
	unload(&l);
	for (size_t i = 0; i < sizeof(differ) / sizeof(*differ); i++) {
		l = load_good(differ[i]);
		e = l.config.exporters;
		e[1].name[0] = 'a';
		assert_false(exporter_config_equal(&e[0], &e[1]));
		assert_true(exporter_config_equal(&e[1], &e[1]));
		unload(&l);
	}
	l = load_good("exporters:\n- {type: otlp, headers: {a: b}}\n"
	              "- {type: otlp, name: otlp-, headers: {a: c}}\n");
	e = l.config.exporters;
	e[1].name[4] = '\0';
	assert_false(exporter_config_equal(&e[0], &e[1]));
	unload(&l);
}

static void more_than_one_plain_document_is_refused(void **state)
{
	static const struct bad bad[] = {
		{"service: {name: a}\n---\nservice: {name: b}\n",
	         "2:1: a second document is not supported, must be one"},
		{"service: &a {name: x}\n", "1:10: an anchor is not supported, must be left out"},
		{"service: *a\n", "1:10: an alias is not supported, must be written out"},
		{"service: !!map {name: x}\n", "1:10: a tag is not supported, must be left out"},
		{"service: {name: x\n", "2:1: is not YAML: did not find expected ',' or '}'"},
		{"a: [[[[[[[[[[[[[[[[[[[[", "1:19: is nested too deep, must be at most 16 levels"},
		{"service:\n  name: \"\xff\"\n", "2:10: is not YAML: invalid leading UTF-8 octet"},
	};

	REFUSES_ALL(bad);
}

static void addresses_are_literal(void **state)
{
	static const char *const bad[] = {
		"4320",          ":4320",      "*:4320",        "example.com:80",
		"127.0.0.1",     "127.0.0.1:", "127.0.0.1:x",   "1.2.3:80",
		"1.2.3.4:65536", "::1:80",     "[::1]",         "[::1]80",
		"[127.0.0.1]:1", "OFF",        "[localhost]:1", ""};
	char errors[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct config_flags flags = {.http = bad[i], .config = "/dev/null"};
		snprintf(errors, sizeof(errors),
		         "--http: '%s' is not an address, must be ADDRESS:PORT like 127.0.0.1:4320 "
		         "or "
		         "[::1]:4320, or \"off\"\n",
		         bad[i]);
		struct loaded l = load_flags(&flags);
		assert_string_equal(l.errors, errors);
		assert_int_equal(l.rc, -EINVAL);
		unload(&l);
	}
	struct loaded l = load_good("http: {listen: 'localhost:80'}");
	assert_string_equal(l.config.http_host, "127.0.0.1");
	unload(&l);
	l = load_good("http: {listen: '0.0.0.0:80'}");
	assert_string_equal(l.config.http_host, "0.0.0.0");
	unload(&l);
	l = load_good("http: {listen: off}");
	assert_false(l.config.http_enabled);
	assert_null(l.config.http_host);
	unload(&l);
}

static void variables_are_filled_in(void **state)
{
	struct loaded l;

	setenv("T", "from env", 1);
	l = load_good(
		"service: {name: 'a ${env:T}-${env:NOT_SET:-b c}$$$${env:T}$x${env:NOT_SET:-}'}");
	assert_string_equal(l.config.service_name, "a from env-b c$${env:T}$x");
	unload(&l);
	setenv("T", "", 1);
	l = load_good("service: {name: \"${env:T:-fallback}\"}\nexporters:\n"
	              "  - {type: otlp, headers: {A: \"${env:T}\"}}");
	assert_string_equal(l.config.service_name, "fallback");
	assert_string_equal(l.config.exporters[0].headers[0].value, "");
	unload(&l);
	setenv("T", "true", 1);
	l = load_good("exporters: [{type: otlp, content: \"${env:T}\"}]");
	assert_true(l.config.exporters[0].content);
	unload(&l);
}

static void variables_that_fail_say_where(void **state)
{
#define DOLLAR_RULE                                                                                \
	"1:17: service.name: has a ${ that is no variable, must be ${env:NAME}, "                  \
	"${env:NAME:-default} or $${"
	static const struct bad bad[] = {
		{"service: {name: \"${env:NOT_SET}\"}",
	         "1:17: service.name: variable NOT_SET is not set, must be set or have a default "
	         "like "
	         "${env:NOT_SET:-default}"},
		{"service: {name: \"${HOME}\"}", DOLLAR_RULE},
		{"service: {name: \"${env:}\"}", DOLLAR_RULE},
		{"service: {name: \"${env:1A}\"}", DOLLAR_RULE},
		{"service: {name: \"${env:A\"}", DOLLAR_RULE},
		{"service: {name: \"${env:A:-b\"}", DOLLAR_RULE},
		{"service: {name: \"${env:A-b}\"}", DOLLAR_RULE},
		{"service: {name: \"${\"}", DOLLAR_RULE},
		// what a variable holds may be a secret: it is not shown
		{"store: {size: \"${env:T}\"}", "1:15: store.size: '${env:T}' is not a size, must "
	                                        "be a size from 16MiB to 1024GiB, "
	                                        "like 256MiB"},
	};

	setenv("T", "secret", 1);
	REFUSES_ALL(bad);
}

/* --- OpenTelemetry's variables --- */

#define OTLP_ "OTEL_EXPORTER_OTLP_"
#define HERE OTLP_ "ENDPOINT=http://c:4318"

/* One exporter in a line; what has its default is left out. */
static void tell(const struct exporter_config *e, FILE *out)
{
	static const char *const protocols[] = {"http/protobuf", "http/json", "grpc"};
	static const char *const names[] = {
		[SIGNAL_TRACES] = "traces", [SIGNAL_METRICS] = "metrics", [SIGNAL_LOGS] = "logs"};

	fprintf(out, "%s:", e->name);
	for (unsigned i = 0; i < SIGNAL_COUNT; i++) {
		if (e->signals & 1u << i)
			fprintf(out, " %s", names[i]);
	}
	if (e->type == EXPORTER_CONSOLE) {
		fprintf(out, "%s\n", e->content ? " content" : "");
		return;
	}
	fprintf(out, " %s %s%s%s", protocols[e->protocol], e->endpoint,
	        e->endpoint_is_whole ? "!" : "", e->content ? " content" : "");
	if (e->compression == COMPRESSION_GZIP)
		fputs(" gzip", out);
	if (e->timeout_ns != 10000000000)
		fprintf(out, " %llums", (unsigned long long)e->timeout_ns / 1000000);
	if (e->interval_ns != 60000000000)
		fprintf(out, " every %llums", (unsigned long long)e->interval_ns / 1000000);
	for (size_t i = 0; i < e->header_count; i++)
		fprintf(out, " %s=%s", e->headers[i].key, e->headers[i].value);
	if (e->tls.ca_file)
		fprintf(out, " ca:%s", e->tls.ca_file);
	if (e->tls.cert_file)
		fprintf(out, " cert:%s key:%s", e->tls.cert_file, e->tls.key_file);
	fputc('\n', out);
}

/* Loads with these variables ("A=b|C=d") and without a file's exporters. */
static struct loaded load_env(const char *vars, const char *yaml)
{
	char copy[512], *rest = copy, *one;

	clear_env();
	snprintf(copy, sizeof(copy), "%s", vars);
	while ((one = strsep(&rest, "|"))) {
		char *value = strchr(one, '=');
		assert_non_null(value);
		*value = '\0';
		setenv(one, value + 1, 1);
	}
	return load(yaml);
}

struct vector {
	const char *vars, *exporters;
};

static void the_environment_makes_exporters(void **state)
{
#define ALL(rest)                                                                                  \
	"otlp: traces " rest "\notlp-metrics: metrics " rest "\notlp-logs: logs " rest "\n"
	static const struct vector vectors[] = {
		{"OTEL_SERVICE_NAME=a", ""},
		{OTLP_ "ENDPOINT=", ""},
		{OTLP_ "PROTOCOL=grpc|" OTLP_ "HEADERS=a=b", ""},
		{HERE, ALL("http/protobuf http://c:4318")},
		{OTLP_ "ENDPOINT=http://c:4318/base/", ALL("http/protobuf http://c:4318/base/")},
		{OTLP_ "ENDPOINT=unix:///run/c.sock", ALL("http/protobuf unix:///run/c.sock")},
		{HERE "|" OTLP_ "PROTOCOL=HTTP/JSON", ALL("http/json http://c:4318")},
		{HERE "|" OTLP_ "PROTOCOL=GRPC", ALL("grpc http://c:4318")},
		// a signal's own endpoint is used as it is, and alone asks for that signal only
		{OTLP_ "TRACES_ENDPOINT=http://c:4318",
	         "otlp: traces http/protobuf http://c:4318!\n"},
		{OTLP_ "LOGS_ENDPOINT=http://c/in", "otlp-logs: logs http/protobuf http://c/in!\n"},
		{OTLP_ "TRACES_ENDPOINT=unix:///c", "otlp: traces http/protobuf unix:///c\n"},
		{HERE "|" OTLP_ "METRICS_ENDPOINT=http://m/x",
	         "otlp: traces http/protobuf http://c:4318\n"
	         "otlp-metrics: metrics http/protobuf http://m/x!\n"
	         "otlp-logs: logs http/protobuf http://c:4318\n"},
		{OTLP_ "TRACES_ENDPOINT=http://c:4317|" OTLP_ "TRACES_PROTOCOL=grpc",
	         "otlp: traces grpc http://c:4317\n"},
		// gRPC's may have no scheme: the scheme decides, then INSECURE
		{OTLP_ "TRACES_ENDPOINT=c:4317|" OTLP_ "PROTOCOL=grpc",
	         "otlp: traces grpc https://c:4317\n"},
		{OTLP_ "TRACES_ENDPOINT=c:4317|" OTLP_ "PROTOCOL=grpc|" OTLP_ "INSECURE=False",
	         "otlp: traces grpc https://c:4317\n"},
		{OTLP_ "TRACES_ENDPOINT=c:4317|" OTLP_ "PROTOCOL=grpc|" OTLP_ "INSECURE=TRUE",
	         "otlp: traces grpc http://c:4317\n"},
		{OTLP_ "TRACES_ENDPOINT=https://c:1|" OTLP_ "PROTOCOL=grpc|" OTLP_ "INSECURE=true",
	         "otlp: traces grpc https://c:1\n"},
		{OTLP_ "ENDPOINT=c:1|" OTLP_ "PROTOCOL=grpc|" OTLP_ "LOGS_INSECURE=true",
	         "otlp: traces grpc https://c:1\notlp-metrics: metrics grpc https://c:1\n"
	         "otlp-logs: logs grpc http://c:1\n"},
		// which signals
		{"OTEL_TRACES_EXPORTER=otlp", "otlp: traces http/protobuf http://localhost:4318\n"},
		{"OTEL_LOGS_EXPORTER=OTLP|" OTLP_ "PROTOCOL=grpc",
	         "otlp-logs: logs grpc http://localhost:4317\n"},
		{"OTEL_TRACES_EXPORTER=console", "console: traces content\n"},
		{"OTEL_TRACES_EXPORTER=none", ""},
		{HERE "|OTEL_TRACES_EXPORTER=none|OTEL_METRICS_EXPORTER=None",
	         "otlp-logs: logs http/protobuf http://c:4318\n"},
		{HERE "|OTEL_TRACES_EXPORTER=console|OTEL_METRICS_EXPORTER=none",
	         "console: traces content\notlp-logs: logs http/protobuf http://c:4318\n"},
		{HERE "|OTEL_SDK_DISABLED=True", ""},
		{HERE "|OTEL_SDK_DISABLED=false|OTEL_METRICS_EXPORTER=none|OTEL_LOGS_EXPORTER=none",
	         "otlp: traces http/protobuf http://c:4318\n"},
		// a signal's own value wins, whole
		{OTLP_ "TRACES_ENDPOINT=http://c/|" OTLP_ "COMPRESSION=GZip|" OTLP_ "TIMEOUT=1500",
	         "otlp: traces http/protobuf http://c/! gzip 1500ms\n"},
		{OTLP_ "TRACES_ENDPOINT=http://c/|" OTLP_ "COMPRESSION=gzip|" OTLP_
	               "TRACES_COMPRESSION=none|" OTLP_ "TIMEOUT=1|" OTLP_ "TRACES_TIMEOUT=2",
	         "otlp: traces http/protobuf http://c/! 2ms\n"},
		{OTLP_ "TRACES_ENDPOINT=http://c/|" OTLP_ "HEADERS=a=b|" OTLP_
	               "TRACES_HEADERS= api-key = x%2Cy%20=z , Authorization=Basic a==",
	         "otlp: traces http/protobuf http://c/! api-key=x,y =z Authorization=Basic a==\n"},
		{OTLP_ "TRACES_ENDPOINT=http://c/|" OTLP_ "HEADERS=a=|" OTLP_ "LOGS_HEADERS=b=c",
	         "otlp: traces http/protobuf http://c/! a=\n"},
		{OTLP_ "METRICS_ENDPOINT=http://c/|OTEL_METRIC_EXPORT_INTERVAL=5000",
	         "otlp-metrics: metrics http/protobuf http://c/! every 5000ms\n"},
		{OTLP_ "TRACES_ENDPOINT=http://c/|OTEL_METRIC_EXPORT_INTERVAL=5000",
	         "otlp: traces http/protobuf http://c/!\n"},
		{OTLP_ "ENDPOINT=https://c|" OTLP_ "CERTIFICATE=ca.pem|" OTLP_
	               "CLIENT_CERTIFICATE=cert.pem|" OTLP_ "CLIENT_KEY=key.pem",
	         ALL("http/protobuf https://c ca:ca.pem cert:cert.pem key:key.pem")},
		{OTLP_ "TRACES_ENDPOINT=https://c|" OTLP_ "CERTIFICATE=none.pem|" OTLP_
	               "TRACES_CERTIFICATE=ca.pem",
	         "otlp: traces http/protobuf https://c! ca:ca.pem\n"},
		// what is for all is not for the one that has its own, plain endpoint
		{OTLP_ "ENDPOINT=https://c|" OTLP_ "CERTIFICATE=ca.pem|" OTLP_
	               "LOGS_ENDPOINT=http://l|OTEL_METRICS_EXPORTER=none",
	         "otlp: traces http/protobuf https://c ca:ca.pem\n"
	         "otlp-logs: logs http/protobuf http://l!\n"},
	};

	for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
		struct loaded l = load_env(vectors[i].vars, "exporters: # none\n");
		char *told = NULL;
		size_t len;
		assert_string_equal(l.errors, "");
		FILE *out = open_memstream(&told, &len);
		assert_non_null(out);
		for (size_t e = 0; e < l.config.exporter_count; e++)
			tell(&l.config.exporters[e], out);
		(void)fclose(out);
		assert_string_equal(told, vectors[i].exporters);
		// and it reads back as the file's
		char *once = print(&l.config);
		unload(&l);
		clear_env();
		l = load_good(once);
		char *twice = print(&l.config);
		assert_string_equal(once, twice);
		unload(&l);
		free(told);
		free(once);
		free(twice);
	}
}

static void variables_at_fault_are_named(void **state)
{
#define TRACES OTLP_ "TRACES_ENDPOINT=https://c/|"
	static const struct vector bad[] = {
		{OTLP_ "ENDPOINT=c:4318", OTLP_ "ENDPOINT: 'c:4318'" URL_RULE},
		{OTLP_ "LOGS_ENDPOINT=ftp://me:pass@c",
	         OTLP_ "LOGS_ENDPOINT: 'ftp://***@c'" URL_RULE},
		{HERE "|" OTLP_ "PROTOCOL=http", OTLP_ "PROTOCOL: 'http' is not known, must be "
	                                               "http/protobuf, http/json or grpc"},
		{HERE "/x|" OTLP_ "PROTOCOL=grpc",
	         OTLP_ "ENDPOINT: 'http://c:4318/x' has a path, must be without one for grpc"},
		{OTLP_ "ENDPOINT=c:1|" OTLP_ "PROTOCOL=grpc|" OTLP_ "INSECURE=yes",
	         OTLP_ "INSECURE: 'yes' is not a boolean, must be true or false"},
		{TRACES OTLP_ "TRACES_COMPRESSION=zstd",
	         OTLP_ "TRACES_COMPRESSION: 'zstd' is not known, must be none or gzip"},
		{TRACES OTLP_ "TIMEOUT=10s", OTLP_ "TIMEOUT: '10s' is not a whole number, must be "
	                                           "milliseconds from 1 to 600000"},
		{TRACES OTLP_ "TIMEOUT=0",
	         OTLP_ "TIMEOUT: '0' is too small, must be milliseconds from 1 to 600000"},
		{TRACES OTLP_ "TIMEOUT=99999999999999999999999",
	         OTLP_ "TIMEOUT: '99999999999999999999999' is too large, must be milliseconds "
	               "from 1 to 600000"},
		{HERE "|OTEL_METRIC_EXPORT_INTERVAL=10",
	         "OTEL_METRIC_EXPORT_INTERVAL: '10' is too small, must be milliseconds from 1000 "
	         "to 3600000"},
		{HERE "|OTEL_SDK_DISABLED=1",
	         "OTEL_SDK_DISABLED: '1' is not a boolean, must be true or false"},
		{"OTEL_TRACES_EXPORTER=zipkin",
	         "OTEL_TRACES_EXPORTER: 'zipkin' is not known, must be otlp, console or none"},
		{"OTEL_METRICS_EXPORTER=console",
	         "OTEL_METRICS_EXPORTER: 'console' is not supported "
	         "for this signal, must be otlp or none"},
		{"OTEL_LOGS_EXPORTER=otlp,console", "OTEL_LOGS_EXPORTER: 'otlp,console' is not "
	                                            "supported for this signal, must be otlp or "
	                                            "none"},
		{TRACES OTLP_ "CERTIFICATE=none.pem",
	         OTLP_ "CERTIFICATE: 'none.pem' does not exist" FILE_RULE},
		{TRACES OTLP_ "CLIENT_KEY=key.pem",
	         OTLP_ "CLIENT_KEY: 'key.pem' has no CLIENT_CERTIFICATE beside it, must be both "
	               "or none"},
		{TRACES OTLP_ "TRACES_CLIENT_CERTIFICATE=cert.pem",
	         OTLP_ "TRACES_CLIENT_CERTIFICATE: 'cert.pem' has no CLIENT_KEY beside it, must "
	               "be both or none"},
		{HERE "|" OTLP_ "CERTIFICATE=ca.pem",
	         OTLP_ "CERTIFICATE: 'ca.pem' is for an https:// endpoint only, must be left out"},
		// of a list, nothing is shown
		{HERE "|" OTLP_ "HEADERS=a=b,secret",
	         OTLP_ "HEADERS: entry 2 has no =, must be name=value"},
		{HERE "|" OTLP_ "HEADERS=a=b,",
	         OTLP_ "HEADERS: entry 2 has no =, must be name=value"},
		{TRACES OTLP_ "HEADERS==secret",
	         OTLP_ "HEADERS: entry 1 has an empty name, must have one"},
		{TRACES OTLP_ "HEADERS=my secret=a",
	         OTLP_ "HEADERS: entry 1 is not the name of a header, must be letters, digits and "
	               "-"},
		{TRACES OTLP_ "HEADERS=a=secret;p=1",
	         OTLP_ "HEADERS: entry 1 has a ; in its value, must be %3B"},
		{TRACES OTLP_ "HEADERS=a=%0d%0asecret",
	         OTLP_ "HEADERS: entry 1 has a value that is not one line of text, must be one"},
		{TRACES OTLP_ "HEADERS=a=100%", OTLP_ "HEADERS: entry 1 has a % without two "
	                                              "hexadecimal digits of a byte, must be %25"},
		{TRACES OTLP_ "HEADERS=a=%1", OTLP_ "HEADERS: entry 1 has a % without two "
	                                            "hexadecimal digits of a byte, must be %25"},
		{TRACES OTLP_ "HEADERS=a=%00", OTLP_ "HEADERS: entry 1 has a % without two "
	                                             "hexadecimal digits of a byte, must be %25"},
		{TRACES OTLP_ "TRACES_HEADERS=a=1,A=2",
	         OTLP_ "TRACES_HEADERS: entry 2 has the name of another one, must be unique"},
		{TRACES OTLP_ "HEADERS=te=trailers",
	         OTLP_ "HEADERS: entry 1 is a header that the exporter sets itself, must be left "
	               "out"},
		// each once, and all of them
		{HERE "|" OTLP_ "TIMEOUT=x|" OTLP_ "LOGS_TIMEOUT=y",
	         OTLP_ "TIMEOUT: 'x' is not a whole number, must be milliseconds from 1 to "
	               "600000\n" OTLP_
	               "LOGS_TIMEOUT: 'y' is not a whole number, must be milliseconds from 1 to "
	               "600000"},
	};
	char errors[512];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct loaded l = load_env(bad[i].vars, "");
		snprintf(errors, sizeof(errors), "%s\n", bad[i].exporters);
		assert_string_equal(l.errors, errors);
		assert_int_equal(l.rc, -EINVAL);
		unload(&l);
	}
}

static void a_file_with_exporters_wins_over_the_environment(void **state)
{
	struct loaded l =
		load_env(HERE "|" OTLP_ "HEADERS=secret|OTEL_SDK_DISABLED=what", "exporters: []");
	char *text = print(&l.config);

	assert_string_equal(l.errors, "");
	assert_int_equal(l.config.exporter_count, 0);
	assert_non_null(strstr(text, "# OTEL_EXPORTER_OTLP_ENDPOINT is set and not used: the file "
	                             "has exporters\nexporters: []\n"));
	assert_null(strstr(text, "secret"));
	free(text);
	unload(&l);
	l = load_env("T=x", "exporters: []");
	text = print(&l.config);
	assert_null(strstr(text, "#"));
	free(text);
	unload(&l);
}

static void resource_attributes_come_over_the_files(void **state)
{
#define RESOURCE "OTEL_RESOURCE_ATTRIBUTES"
	static const char yaml[] = "service: {name: file, attributes: {a: file, b: file}}";
	struct loaded l = load_env(RESOURCE "= a = 1%2C2%3d3 ,c%3D=d e,service.name=attr", yaml);
	const struct config *c = &l.config;

	assert_string_equal(l.errors, "");
	assert_string_equal(c->service_name, "attr");
	assert_int_equal(c->service_attribute_count, 3);
	assert_string_equal(c->service_attributes[0].key, "a");
	assert_string_equal(c->service_attributes[0].value, "1,2=3");
	assert_string_equal(c->service_attributes[1].value, "file");
	assert_string_equal(c->service_attributes[2].key, "c=");
	assert_string_equal(c->service_attributes[2].value, "d e");
	unload(&l);
	l = load_env(RESOURCE "=service.name=attr,a=|OTEL_SERVICE_NAME=name", "");
	assert_string_equal(l.config.service_name, "name");
	assert_int_equal(l.config.service_attribute_count, 1);
	assert_string_equal(l.config.service_attributes[0].value, "");
	unload(&l);
}

static void resource_attributes_at_fault_are_said(void **state)
{
	static const struct vector bad[] = {
		{RESOURCE "=a", RESOURCE ": entry 1 has no =, must be name=value\n"},
		{RESOURCE "=a=b=c", RESOURCE ": entry 1 has a = in its value, must be %3D\n"},
		{RESOURCE "=a=b,a%zz=b",
	         RESOURCE ": entry 2 has a % without two hexadecimal digits of a byte, must be "
	                  "%25\n"},
		{RESOURCE "=a=b,a=c", RESOURCE ": entry 2 has the name of another one, must be "
	                                       "unique\n"},
		{RESOURCE "=a=%ff", RESOURCE ": entry 1 has a value that is not one line of text, "
	                                     "must be one\n"},
		{RESOURCE "=service.name=",
	         RESOURCE ": service.name: '' is empty, must be text of 1 "
	                  "to 255 bytes\n"},
	};
	static char big[16 * KIB];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct loaded l = load_env(bad[i].vars, "");
		assert_string_equal(l.errors, bad[i].exporters);
		unload(&l);
	}
	clear_env();
	snprintf(big, sizeof(big), "service: {attributes: {a: '%05000d'}}", 0);
	write_file("t.yaml", big, strlen(big));
	snprintf(big, sizeof(big), "b=%05000d", 0);
	setenv(RESOURCE, big, 1);
	struct loaded l = load_flags(&(struct config_flags){.config = "t.yaml"});
	assert_string_equal(l.errors, RESOURCE ": is too long with the file's, must be at most "
	                                       "8192 bytes in all\n");
	unload(&l);
	snprintf(big, sizeof(big), "b=%09000d", 0);
	setenv(RESOURCE, big, 1);
	l = load_flags(&(struct config_flags){.config = "/dev/null"});
	assert_string_equal(l.errors, RESOURCE ": is too long, must be at most 8192 bytes\n");
	unload(&l);
}

static void flag_beats_environment_beats_file(void **state)
{
	static const char yaml[] = "service: {name: file}\ningest: {socket: /f.sock}\n"
				   "store: {path: /f}\nhttp: {listen: '127.0.0.1:1'}\n";
	struct config_flags flags = {
		.config = "t.yaml", .socket = "/flag", .data = "/flagged", .http = "127.0.0.1:2"};
	struct loaded l = load_good(yaml);

	assert_string_equal(l.config.socket, "/f.sock");
	assert_string_equal(l.config.data_dir, "/f");
	assert_int_equal(l.config.http_port, 1);
	unload(&l);
	setenv("SIDELIGHT_SOCKET", "/e.sock", 1);
	setenv("SIDELIGHT_DATA", "/e", 1);
	setenv("OTEL_SERVICE_NAME", "env", 1);
	l = load_good(yaml);
	assert_string_equal(l.config.socket, "/e.sock");
	assert_string_equal(l.config.data_dir, "/e");
	assert_string_equal(l.config.service_name, "env");
	unload(&l);
	l = load_flags(&flags);
	assert_int_equal(l.rc, 0);
	assert_string_equal(l.config.socket, "/flag");
	assert_string_equal(l.config.api_socket, "/flag-api.sock");
	assert_string_equal(l.config.data_dir, "/flagged");
	assert_int_equal(l.config.http_port, 2);
	unload(&l);
	setenv("SIDELIGHT_SOCKET", "", 1);
	l = load_good(yaml);
	assert_string_equal(l.config.socket, "/f.sock");
	unload(&l);
}

static void the_file_comes_from_flag_or_variable(void **state)
{
	struct loaded l;

	write_file("t.yaml", "service: {name: a}", 18);
	write_file("u.yaml", "service: {name: b}", 18);
	setenv("SIDELIGHT_CONFIG", "t.yaml", 1);
	l = load_flags(&(struct config_flags){0});
	assert_string_equal(l.config.service_name, "a");
	assert_string_equal(l.config.file, "t.yaml");
	unload(&l);
	l = load_flags(&(struct config_flags){.config = "u.yaml"});
	assert_string_equal(l.config.service_name, "b");
	unload(&l);
	setenv("SIDELIGHT_CONFIG", "none.yaml", 1);
	l = load_flags(&(struct config_flags){0});
	assert_int_equal(l.rc, -EINVAL);
	assert_string_equal(l.errors,
	                    "SIDELIGHT_CONFIG: none.yaml: No such file or directory, must "
	                    "be a file that can be read\n");
	unload(&l);
	l = load_flags(&(struct config_flags){.config = "."});
	assert_string_equal(l.errors,
	                    "--config: .: Is a directory, must be a file that can be read\n");
	unload(&l);
}

static void long_socket_paths_are_refused(void **state)
{
	static const struct {
		size_t len;
		bool has_suffix, fits;
	} cases[] = {{103, true, true}, {104, true, false}, {98, false, true}, {99, false, false}};
	char path[128];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		memset(path, 'a', cases[i].len);
		path[0] = '/';
		path[cases[i].len] = '\0';
		if (cases[i].has_suffix)
			memcpy(path + cases[i].len - 5, ".sock", 5);
		setenv("SIDELIGHT_SOCKET", path, 1);
		struct loaded l = load_flags(&(struct config_flags){.config = "/dev/null"});
		assert_int_equal(l.rc, cases[i].fits ? 0 : -EINVAL);
		assert_int_equal(
			strncmp(l.errors, "SIDELIGHT_SOCKET: '/aaa", cases[i].fits ? 0 : 23), 0);
		assert_true(cases[i].fits || strstr(l.errors, "' is too long, must be a path of"));
		assert_true(!cases[i].fits || strlen(l.config.api_socket) == 107);
		unload(&l);
	}
}

static void faults_and_files_are_bounded(void **state)
{
	size_t len = CONFIG_FILE_MAX + 1;
	char *big = malloc(len + 1);
	struct loaded l;

	assert_non_null(big);
	memset(big, '\n', len);
	write_file("t.yaml", big, len);
	l = load_flags(&(struct config_flags){.config = "t.yaml"});
	assert_string_equal(l.errors, "--config: t.yaml: is too large, must be at most 1MiB\n");
	unload(&l);

	big[0] = '\0';
	for (int i = 0; i < 60; i++)
		snprintf(big + strlen(big), 32, "zzzzzzz%d: 1\n", i);
	l = load(big);
	assert_int_equal(l.rc, -EINVAL);
	assert_non_null(strstr(l.errors, "t.yaml:50:1: "));
	assert_null(strstr(l.errors, "t.yaml:51:1: "));
	assert_non_null(strstr(l.errors, "\nt.yaml: and 10 more\n"));
	unload(&l);

	big[0] = '\0';
	for (int i = 0; i < 257; i++)
		snprintf(big + strlen(big), 32, "zzzzzzz%d: 1\n", i);
	refuses(big, "t.yaml:1:1: has too many keys, must have at most 256\n");
	free(big);
}

static void default_places_follow_the_user(void **state)
{
	static const struct {
		uid_t uid;
		const char *runtime, *state, *home, *socket, *data;
	} cases[] = {
		{0, "/run/user/0", "/s", "/root", "/run/sidelight/sidelight.sock",
	         "/var/lib/sidelight"},
		{7, "/run/user/7", "/s", "/home/u", "/run/user/7/sidelight/sidelight.sock",
	         "/s/sidelight"},
		{7, NULL, NULL, "/home/u", "/tmp/sidelight-7/sidelight.sock",
	         "/home/u/.local/state/sidelight"},
		{7, "relative", "relative", "/home/u", "/tmp/sidelight-7/sidelight.sock",
	         "/home/u/.local/state/sidelight"},
		{7, "", "", NULL, "/tmp/sidelight-7/sidelight.sock", "/var/lib/sidelight"},
	};

	const char *was = getenv("HOME");
	char *home = was ? strdup(was) : NULL;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		clear_env();
		unsetenv("HOME");
		if (cases[i].runtime)
			setenv("XDG_RUNTIME_DIR", cases[i].runtime, 1);
		if (cases[i].state)
			setenv("XDG_STATE_HOME", cases[i].state, 1);
		if (cases[i].home)
			setenv("HOME", cases[i].home, 1);
		char *socket = config_default_socket(cases[i].uid);
		char *data = config_default_data_dir(cases[i].uid);
		assert_string_equal(socket, cases[i].socket);
		assert_string_equal(data, cases[i].data);
		free(socket);
		free(data);
	}
	if (home)
		setenv("HOME", home, 1);
	free(home);
}

static void a_client_finds_the_socket_that_exists(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char *path;

	if (access("/run/sidelight/sidelight.sock", F_OK) == 0)
		skip(); // a daemon of this machine comes first
	setenv("XDG_RUNTIME_DIR", tmp, 1);
	path = config_client_socket(NULL);
	assert_string_equal(path, "/run/sidelight/sidelight.sock");
	free(path);

	assert_int_equal(mkdir("sidelight", 0700), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/sidelight/sidelight.sock", tmp);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	path = config_client_socket(NULL);
	assert_string_equal(path, addr.sun_path);
	free(path);
	setenv("SIDELIGHT_SOCKET", "/e.sock", 1);
	path = config_client_socket(NULL);
	assert_string_equal(path, "/e.sock");
	free(path);
	path = config_client_socket("/flag.sock");
	assert_string_equal(path, "/flag.sock");
	free(path);
	setenv("SIDELIGHT_DATA", "/e", 1);
	path = config_client_data_dir(NULL);
	assert_string_equal(path, "/e");
	free(path);
	close(fd);
	unlink(addr.sun_path);
	rmdir("sidelight");
}

/* The reference's line for a key. */
static void reference_row(const struct key *k, char out[1024])
{
	char rule[CONFIG_RULE_MAX], also[128] = "";
	const char *only = k->only == ONLY_OTLP ? " For type otlp." : " For type console.";

	value_rule(k, rule);
	if (k->flag || k->env)
		snprintf(also, sizeof(also), " Also %s%s%s%s%s%s%s.", k->flag ? "`" : "",
		         k->flag ? k->flag : "", k->flag ? "`" : "", k->flag && k->env ? ", " : "",
		         k->env ? "`" : "", k->env ? k->env : "", k->env ? "`" : "");
	snprintf(out, 1024, "| `%s` | %s | %s%s%s | %s%s%s |\n", k->path, rule,
	         k->def_shown ? "" : "`", k->def_shown ? k->def_shown : k->def,
	         k->def_shown ? "" : "`", k->help, k->only == ONLY_ANY ? "" : only, also);
}

static void the_reference_agrees_with_the_table(void **state)
{
	char row[1024];
	size_t rows = 0, found = 0;

	for (size_t i = 0; i < config_key_count; i++) {
		const struct key *k = &config_keys[i];
		if (k->kind == KEY_SECTION)
			continue;
		if (k->kind == KEY_LATER) {
			snprintf(row, sizeof(row), "`%s`", k->path);
			assert_non_null(strstr(reference, row));
			continue;
		}
		rows++;
		reference_row(k, row);
		if (!strstr(reference, row))
			fail_msg("docs/config.md lacks the line\n%s", row);
	}
	const char *p = strstr(reference, "\n## Reference\n"), *end = strstr(p + 1, "\n## ");
	while ((p = strstr(p + 1, "\n| `")) && p < end)
		found++;
	assert_int_equal(found, rows);
}

/* What fuzzing found worth keeping: nothing crashes, and a refusal always has a reason. */
static void the_fuzz_corpus_is_judged(void **state)
{
	static const char dir[] = SOURCE_ROOT "/test/fuzz/corpus/config";
	char path[4096];
	size_t count = 0;
	DIR *corpus = opendir(dir);

	assert_non_null(corpus);
	for (struct dirent *e = readdir(corpus); e; e = readdir(corpus)) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		struct loaded l = load_flags(&(struct config_flags){.config = path});
		assert_int_equal(l.rc, l.errors[0] ? -EINVAL : 0);
		unload(&l);
		count++;
	}
	closedir(corpus);
	assert_true(count > 0);
}

static char *read_reference(void)
{
	char *text = calloc(1, 64 * KIB);
	FILE *in = fopen(SOURCE_ROOT "/docs/config.md", "re");

	if (in && text)
		text[fread(text, 1, 64 * KIB - 1, in)] = '\0';
	if (in)
		(void)fclose(in);
	return text;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(empty_file_gives_defaults, setup),
		cmocka_unit_test_setup(every_key_is_read, setup),
		cmocka_unit_test_setup(exporters_get_the_defaults_of_their_type_and_a_name, setup),
		cmocka_unit_test_setup(printed_configuration_reads_back, setup),
		cmocka_unit_test_setup(printed_defaults_are_plain, setup),
		cmocka_unit_test_setup(every_fault_is_said_at_once, setup),
		cmocka_unit_test_setup(numbers_are_strict, setup),
		cmocka_unit_test_setup(words_are_strict, setup),
		cmocka_unit_test_setup(unknown_keys_get_a_hint, setup),
		cmocka_unit_test_setup(what_is_not_built_says_so, setup),
		cmocka_unit_test_setup(exporters_are_checked, setup),
		cmocka_unit_test_setup(what_contradicts_itself_is_refused, setup),
		cmocka_unit_test_setup(exporters_are_equal_in_all_keys_or_not, setup),
		cmocka_unit_test_setup(more_than_one_plain_document_is_refused, setup),
		cmocka_unit_test_setup(addresses_are_literal, setup),
		cmocka_unit_test_setup(variables_are_filled_in, setup),
		cmocka_unit_test_setup(variables_that_fail_say_where, setup),
		cmocka_unit_test_setup(the_environment_makes_exporters, setup),
		cmocka_unit_test_setup(variables_at_fault_are_named, setup),
		cmocka_unit_test_setup(a_file_with_exporters_wins_over_the_environment, setup),
		cmocka_unit_test_setup(resource_attributes_come_over_the_files, setup),
		cmocka_unit_test_setup(resource_attributes_at_fault_are_said, setup),
		cmocka_unit_test_setup(flag_beats_environment_beats_file, setup),
		cmocka_unit_test_setup(the_file_comes_from_flag_or_variable, setup),
		cmocka_unit_test_setup(long_socket_paths_are_refused, setup),
		cmocka_unit_test_setup(faults_and_files_are_bounded, setup),
		cmocka_unit_test_setup(default_places_follow_the_user, setup),
		cmocka_unit_test_setup(a_client_finds_the_socket_that_exists, setup),
		cmocka_unit_test_setup(the_reference_agrees_with_the_table, setup),
		cmocka_unit_test_setup(the_fuzz_corpus_is_judged, setup),
	};

	static const char *const files[] = {"empty.pem", "ca.pem", "cert.pem", "key.pem"};
	reference = read_reference();
	if (!reference || !mkdtemp(tmp) || chdir(tmp) != 0)
		return 1;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		write_file(files[i], "x", i > 0);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		unlink(files[i]);
	unlink("t.yaml");
	unlink("u.yaml");
	rmdir(tmp);
	free(reference);
	return failed;
}
