#include "config_fixture.h"

static void exporters_are_checked(void **state)
{
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
	         "1:36: exporters[0].endpoint: 'http://a/?***' has a query or a fragment, must "
	         "be a "
	         "URL with a host, without query, like https://host:4318, or unix:///path"},
	};

	REFUSES_ALL(bad);
}

#define OTLP(...) "exporters:\n- type: otlp\n  " __VA_ARGS__
#define HTTPS "endpoint: https://a\n  "

static const struct bad contradictions[] = {
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
	{OTLP(HTTPS "tls: {ca_file: ''}"), "4:18: exporters[0].tls.ca_file: '' is empty" FILE_RULE},
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
	{OTLP("protocol: grpc\n  headers: {a: é}"),
         "4:12: exporters[0].headers: has a value that gRPC can't carry, must be "
         "printable ASCII"},
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
	{OTLP("endpoint: unix:///a/"), "3:13: exporters[0].endpoint: 'unix:///a/'" URL_RULE},
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
	{"store: {when_full: block}", "1:20: store.when_full: 'block' is not known, must be "
                                      "drop_oldest or refuse_newest"},
};

static void what_contradicts_itself_is_refused(void **state)
{
	REFUSES_ALL(contradictions);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(exporters_are_checked, setup),
		cmocka_unit_test_setup(what_contradicts_itself_is_refused, setup),
		cmocka_unit_test_setup(exporters_are_equal_in_all_keys_or_not, setup),
	};

	if (!enter_directory())
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	leave_directory();
	return failed;
}
