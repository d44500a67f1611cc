#include "export/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <curl/curl.h>

#define UNIX_SCHEME "unix://"

static const char *const http_paths[SIGNAL_COUNT] = {
	[SIGNAL_TRACES] = "/v1/traces",
	[SIGNAL_LOGS] = "/v1/logs",
	[SIGNAL_METRICS] = "/v1/metrics",
};

static const char *const grpc_paths[SIGNAL_COUNT] = {
	[SIGNAL_TRACES] = "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	[SIGNAL_LOGS] = "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
	[SIGNAL_METRICS] = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

static int from_curl(CURLUcode code)
{
	if (code == CURLUE_OK)
		return 0;
	return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

static int set_part(CURLU *url, CURLUPart part, const char *text)
{
	return from_curl(curl_url_set(url, part, text, 0));
}

/* curl's copy of a part; NULL when it has none. */
static char *get_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;

	return curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

static int append_path(CURLU *url, const char *end)
{
	char *path = get_part(url, CURLUPART_PATH);
	char *longer = NULL;

	if (!path)
		return -ENOMEM;
	size_t len = strlen(path);
	while (len > 0 && path[len - 1] == '/')
		len--;
	int n = asprintf(&longer, "%.*s%s", (int)len, path, end);
	curl_free(path);
	if (n < 0)
		return -ENOMEM;
	int err = set_part(url, CURLUPART_PATH, longer);
	free(longer);
	return err;
}

static int set_path(CURLU *url, const struct exporter_config *config, enum otlp_signal signal)
{
	if (config->protocol == OTLP_GRPC)
		return set_part(url, CURLUPART_PATH, grpc_paths[signal]);
	return config->endpoint_is_whole ? 0 : append_path(url, http_paths[signal]);
}

static int copy_url(CURLU *url, char **ret)
{
	char *text = NULL;

	if (curl_url_get(url, CURLUPART_URL, &text, 0))
		return -ENOMEM;
	*ret = strdup(text);
	curl_free(text);
	return *ret ? 0 : -ENOMEM;
}

/* The URL is for another name than the one to connect to: SNI, the certificate's check and the
 * authority all follow the URL. */
static int set_server_name(struct endpoint *e, CURLU *url, const char *name)
{
	char *host = get_part(url, CURLUPART_HOST);
	char *port = get_part(url, CURLUPART_PORT);
	int err =
		host && port && asprintf(&e->connect_to, "::%s:%s", host, port) >= 0 ? 0 : -ENOMEM;

	curl_free(host);
	curl_free(port);
	return err ? err : set_part(url, CURLUPART_HOST, name);
}

static int set_address(struct endpoint *e, CURLU *url, bool grpc)
{
	set_part(url, CURLUPART_USER, NULL);
	set_part(url, CURLUPART_PASSWORD, NULL);
	set_part(url, CURLUPART_QUERY, NULL); // may be a key, too
	if (grpc)
		set_part(url, CURLUPART_PATH, NULL);
	return copy_url(url, &e->address);
}

/* A URL that has been set has a scheme. */
static int read_scheme(CURLU *url, bool *ret_tls)
{
	char *scheme = get_part(url, CURLUPART_SCHEME);

	if (!scheme)
		return -ENOMEM;
	*ret_tls = strcmp(scheme, "https") == 0;
	int err = *ret_tls || strcmp(scheme, "http") == 0 ? 0 : -EINVAL;
	curl_free(scheme);
	return err;
}

static int parse_url(struct endpoint *e, CURLU *url, const struct exporter_config *config,
                     enum otlp_signal signal)
{
	int err = set_part(url, CURLUPART_URL, config->endpoint);

	if (!err)
		err = read_scheme(url, &e->tls);
	if (!err)
		err = set_path(url, config, signal);
	if (err)
		return err;
	CURLU *shown = curl_url_dup(url);
	err = shown ? set_address(e, shown, config->protocol == OTLP_GRPC) : -ENOMEM;
	curl_url_cleanup(shown);
	if (!err && e->tls && config->tls.server_name)
		err = set_server_name(e, url, config->tls.server_name);
	return err ? err : copy_url(url, &e->url);
}

static int parse_socket(struct endpoint *e, CURLU *url, const struct exporter_config *config,
                        enum otlp_signal signal)
{
	const char *path = config->endpoint + strlen(UNIX_SCHEME);

	if (*path != '/' || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -EINVAL;
	e->socket = strdup(path);
	e->address = strdup(config->endpoint);
	if (!e->socket || !e->address)
		return -ENOMEM;
	int err = set_part(url, CURLUPART_URL, "http://localhost");
	if (!err)
		err = config->protocol == OTLP_GRPC
		              ? set_part(url, CURLUPART_PATH, grpc_paths[signal])
		              : set_part(url, CURLUPART_PATH, http_paths[signal]);
	return err ? err : copy_url(url, &e->url);
}

int endpoint_init(struct endpoint *ret, const struct exporter_config *config,
                  enum otlp_signal signal)
{
	bool is_socket = strncmp(config->endpoint, UNIX_SCHEME, strlen(UNIX_SCHEME)) == 0;
	CURLU *url = curl_url();
	int err = -ENOMEM;

	*ret = (struct endpoint){0};
	if (url)
		err = is_socket ? parse_socket(ret, url, config, signal)
		                : parse_url(ret, url, config, signal);
	curl_url_cleanup(url);
	if (err)
		endpoint_deinit(ret);
	return err;
}

void endpoint_deinit(struct endpoint *e)
{
	free(e->url);
	free(e->address);
	free(e->socket);
	free(e->connect_to);
	*e = (struct endpoint){0};
}
