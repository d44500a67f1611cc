#include "config_fixture.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char *reference; // docs/config.md

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
	                           "store, capture, spans, exporters, http, prices"},
		{"\"a\\e[31m\": 1",
	         "1:1: a?[31m: unknown key, must be one of service, ingest, store, "
	         "capture, spans, exporters, http, prices"},
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
		{"capture: {redact: []}",
	         "1:19: capture.redact: is not supported by this version, must be left out"},
	};

	REFUSES_ALL(bad);
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
		cmocka_unit_test_setup(more_than_one_plain_document_is_refused, setup),
		cmocka_unit_test_setup(addresses_are_literal, setup),
		cmocka_unit_test_setup(variables_are_filled_in, setup),
		cmocka_unit_test_setup(variables_that_fail_say_where, setup),
		cmocka_unit_test_setup(flag_beats_environment_beats_file, setup),
		cmocka_unit_test_setup(the_file_comes_from_flag_or_variable, setup),
		cmocka_unit_test_setup(long_socket_paths_are_refused, setup),
		cmocka_unit_test_setup(faults_and_files_are_bounded, setup),
		cmocka_unit_test_setup(default_places_follow_the_user, setup),
		cmocka_unit_test_setup(a_client_finds_the_socket_that_exists, setup),
		cmocka_unit_test_setup(the_reference_agrees_with_the_table, setup),
		cmocka_unit_test_setup(the_fuzz_corpus_is_judged, setup),
	};

	reference = read_reference();
	if (!reference || !enter_directory())
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	leave_directory();
	free(reference);
	return failed;
}
