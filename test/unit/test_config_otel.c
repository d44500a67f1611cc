#include "config_fixture.h"

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

#define ALL(rest)                                                                                  \
	"otlp: traces " rest "\notlp-metrics: metrics " rest "\notlp-logs: logs " rest "\n"
static const struct vector good_vectors[] = {
	{"OTEL_SERVICE_NAME=a", ""},
	{OTLP_ "ENDPOINT=", ""},
	{OTLP_ "PROTOCOL=grpc|" OTLP_ "HEADERS=a=b", ""},
	{HERE, ALL("http/protobuf http://c:4318")},
	{OTLP_ "ENDPOINT=http://c:4318/base/", ALL("http/protobuf http://c:4318/base/")},
	{OTLP_ "ENDPOINT=unix:///run/c.sock", ALL("http/protobuf unix:///run/c.sock")},
	{HERE "|" OTLP_ "PROTOCOL=HTTP/JSON", ALL("http/json http://c:4318")},
	{HERE "|" OTLP_ "PROTOCOL=GRPC", ALL("grpc http://c:4318")},
	// a signal's own endpoint is used as it is, and alone asks for that signal only
	{OTLP_ "TRACES_ENDPOINT=http://c:4318", "otlp: traces http/protobuf http://c:4318!\n"},
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
	{OTLP_ "TRACES_ENDPOINT=http://c:1/|" OTLP_ "PROTOCOL=grpc",
         "otlp: traces grpc http://c:1/\n"},
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
	{OTLP_ "TRACES_ENDPOINT=http://c/|" OTLP_ "HEADERS=a=%C3%A9",
         "otlp: traces http/protobuf http://c/! a=é\n"},
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

static void the_environment_makes_exporters(void **state)
{
	for (size_t i = 0; i < sizeof(good_vectors) / sizeof(*good_vectors); i++) {
		struct loaded l = load_env(good_vectors[i].vars, "exporters: # none\n");
		char *told = NULL;
		size_t len;
		assert_string_equal(l.errors, "");
		FILE *out = open_memstream(&told, &len);
		assert_non_null(out);
		for (size_t e = 0; e < l.config.exporter_count; e++)
			tell(&l.config.exporters[e], out);
		(void)fclose(out);
		assert_string_equal(told, good_vectors[i].exporters);
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

#define TRACES OTLP_ "TRACES_ENDPOINT=https://c/|"
static const struct vector bad_vectors[] = {
	{OTLP_ "ENDPOINT=c:4318", OTLP_ "ENDPOINT: 'c:4318'" URL_RULE},
	{OTLP_ "LOGS_ENDPOINT=ftp://me:pass@c", OTLP_ "LOGS_ENDPOINT: 'ftp://***@c'" URL_RULE},
	{OTLP_ "ENDPOINT=http://me:pass@c/?key=secret@1",
         OTLP_ "ENDPOINT: 'http://***@1' has a query or a fragment, must be a URL with a host, "
               "without query, like https://host:4318, or unix:///path"},
	{OTLP_ "ENDPOINT=c:4318/?key=secret", OTLP_ "ENDPOINT: 'c:4318/?***'" URL_RULE},
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
	{"OTEL_METRICS_EXPORTER=console", "OTEL_METRICS_EXPORTER: 'console' is not supported "
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
	{HERE "|" OTLP_ "HEADERS=a=b,", OTLP_ "HEADERS: entry 2 has no =, must be name=value"},
	{TRACES OTLP_ "HEADERS==secret", OTLP_ "HEADERS: entry 1 has an empty name, must have one"},
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
	{TRACES OTLP_ "HEADERS=a=%C3%A9|" OTLP_ "PROTOCOL=grpc",
         OTLP_ "HEADERS: has a value that gRPC can't carry, must be printable ASCII"},
	// each once, and all of them
	{HERE "|" OTLP_ "TIMEOUT=x|" OTLP_ "LOGS_TIMEOUT=y", OTLP_
         "TIMEOUT: 'x' is not a whole number, must be milliseconds from 1 to "
         "600000\n" OTLP_ "LOGS_TIMEOUT: 'y' is not a whole number, must be milliseconds from 1 to "
         "600000"},
};

static void variables_at_fault_are_named(void **state)
{
	char errors[512];

	for (size_t i = 0; i < sizeof(bad_vectors) / sizeof(*bad_vectors); i++) {
		struct loaded l = load_env(bad_vectors[i].vars, "");
		snprintf(errors, sizeof(errors), "%s\n", bad_vectors[i].exporters);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_environment_makes_exporters, setup),
		cmocka_unit_test_setup(variables_at_fault_are_named, setup),
		cmocka_unit_test_setup(a_file_with_exporters_wins_over_the_environment, setup),
		cmocka_unit_test_setup(resource_attributes_come_over_the_files, setup),
		cmocka_unit_test_setup(resource_attributes_at_fault_are_said, setup),
	};

	if (!enter_directory())
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	leave_directory();
	return failed;
}
