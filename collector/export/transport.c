#include "export/transport.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/buf.h"
#include "base/clock.h"
#include "export/transport_headers.h"
#include "export/transport_hint.h"

enum {
	CONNECT_TIMEOUT_MS = 5000,
	HEADERS_MAX = 64 * 1024,   // of an answer, as far as they are kept
	KEPT_BYTES = 64 * 1024,    // the answer's buffer at rest
	UPLOAD_BYTES = 128 * 1024, // of each request: malloc maps larger ones anew every time
	CURL_8 = 0x080000,
};

struct transport {
	const struct exporter_config *config;
	const struct endpoint *endpoint;
	const struct sink_host *host;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers, *gzip_headers, *connect_to;

	// of the request under way
	const struct transport_body *body;
	size_t given; // of the body
	struct buf answer, header_text;
	size_t header_at[HEADER_COUNT], header_len[HEADER_COUNT];
	bool has_header[HEADER_COUNT];
	bool too_long;
	char error[CURL_ERROR_SIZE];
	char message[CURL_ERROR_SIZE + 64];
	char peer[64];
};

/* --- what curl calls --- */

static size_t body_len(const struct transport_body *b)
{
	return b->head.len + b->rest.len;
}

static size_t take_part(struct transport *t, char *to, size_t room, size_t begin, struct str part)
{
	size_t from = t->given - begin;
	size_t n = part.len - from < room ? part.len - from : room;

	memcpy(to, part.p + from, n);
	t->given += n;
	return n;
}

static size_t give_body(char *to, size_t size, size_t count, void *ctx)
{
	struct transport *t = ctx;
	const struct transport_body *b = t->body;
	size_t room = size * count, n = 0;

	if (t->given < b->head.len)
		n = take_part(t, to, room, 0, b->head);
	if (t->given >= b->head.len && t->given < body_len(b) && n < room)
		n += take_part(t, to + n, room - n, b->head.len, b->rest);
	return n;
}

/* For a connection that turned out to be closed: the request goes out again on a new one. */
static int rewind_body(void *ctx, curl_off_t offset, int origin)
{
	struct transport *t = ctx;

	if (origin != SEEK_SET || offset < 0 || (size_t)offset > body_len(t->body))
		return CURL_SEEKFUNC_FAIL;
	t->given = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t take_answer(char *data, size_t size, size_t count, void *ctx)
{
	struct transport *t = ctx;

	buf_append(&t->answer, data, size * count);
	t->too_long = buf_error(&t->answer) == -ENOSPC;
	return buf_error(&t->answer) ? 0 : size * count;
}

static struct str trim(const char *p, size_t len)
{
	while (len > 0 && strchr(" \t\r\n", p[len - 1]))
		len--;
	while (len > 0 && (*p == ' ' || *p == '\t')) {
		p++;
		len--;
	}
	return (struct str){p, len};
}

static void keep_header(struct transport *t, struct str name, struct str value)
{
	static const char *const names[HEADER_COUNT] = {
		[HEADER_CONTENT_TYPE] = "content-type",
		[HEADER_RETRY_AFTER] = "retry-after",
		[HEADER_GRPC_STATUS] = "grpc-status",
		[HEADER_GRPC_MESSAGE] = "grpc-message",
		[HEADER_GRPC_DETAILS] = "grpc-status-details-bin",
	};

	for (unsigned i = 0; i < HEADER_COUNT; i++) {
		if (strlen(names[i]) != name.len || strncasecmp(names[i], name.p, name.len) != 0)
			continue;
		t->header_at[i] = t->header_text.len;
		t->header_len[i] = value.len;
		t->has_header[i] = true;
		buf_append(&t->header_text, value.p, value.len);
	}
}

/* Headers, and trailers behind the body. A new status line begins anew: what came before it was
 * an interim answer, or a proxy's. */
static size_t take_header(char *line, size_t size, size_t count, void *ctx)
{
	struct transport *t = ctx;
	size_t len = size * count;

	if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) {
		memset(t->has_header, 0, sizeof(t->has_header));
		buf_clear(&t->header_text);
		return len;
	}
	const char *colon = memchr(line, ':', len);
	if (colon)
		keep_header(t, (struct str){line, (size_t)(colon - line)},
		            trim(colon + 1, len - (size_t)(colon + 1 - line)));
	t->too_long = t->too_long || buf_error(&t->header_text) == -ENOSPC;
	return buf_error(&t->header_text) ? 0 : len;
}

/* --- one transfer --- */

/* Drives the transfer to its end. -ECANCELED: the abort descriptor was raised. */
static int drive(struct transport *t, CURLcode *ret_code)
{
	struct curl_waitfd abort = {.fd = t->host->abort_fd, .events = CURL_WAIT_POLLIN};
	uint64_t ticked = clock_mono_ns();
	int running = 1;
	int left;

	for (;;) {
		if (curl_multi_perform(t->multi, &running) != CURLM_OK)
			return -EIO;
		if (running == 0)
			break;
		abort.revents = 0;
		if (curl_multi_poll(t->multi, &abort, 1, SINK_TICK_MS, NULL) != CURLM_OK)
			return -EIO;
		if (abort.revents)
			return -ECANCELED;
		if (clock_mono_ns() - ticked >= SINK_TICK_MS * NS_PER_MS) {
			t->host->tick(t->host->ctx);
			ticked = clock_mono_ns();
		}
	}
	CURLMsg *msg = curl_multi_info_read(t->multi, &left);
	if (!msg || msg->msg != CURLMSG_DONE)
		return -EIO;
	*ret_code = msg->data.result;
	return 0;
}

static void begin(struct transport *t, const struct transport_body *body)
{
	t->body = body;
	t->given = 0;
	t->too_long = false;
	t->error[0] = t->message[0] = t->peer[0] = '\0';
	buf_clear(&t->answer);
	buf_clear(&t->header_text);
	memset(t->has_header, 0, sizeof(t->has_header));
	curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_len(body));
	curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, body->gzip ? t->gzip_headers : t->headers);
}

static int transfer(struct transport *t, CURLcode *ret_code)
{
	if (curl_multi_add_handle(t->multi, t->easy) != CURLM_OK)
		return -EIO;
	int err = drive(t, ret_code);
	curl_multi_remove_handle(t->multi, t->easy);
	curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 0L);
	return err;
}

/* --- what came of it --- */

static uint64_t time_of(struct transport *t, CURLINFO which)
{
	curl_off_t us = 0;

	curl_easy_getinfo(t->easy, which, &us);
	return us > 0 ? (uint64_t)us * 1000 : 0;
}

static void read_answer(struct transport *t, struct answer *a)
{
	long status = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	a->status = (int)status;
	a->body = (struct str){(const char *)t->answer.data, t->answer.len};
	for (unsigned i = 0; i < HEADER_COUNT; i++) {
		const char *text = (const char *)t->header_text.data;
		if (t->has_header[i])
			a->headers[i] =
				(struct str){text ? text + t->header_at[i] : "", t->header_len[i]};
	}
}

static void read_facts(struct transport *t, struct transport_result *ret)
{
	char *peer = NULL;
	long port = 0, local_port = 0;
	curl_off_t sent = 0;

	ret->times = (struct transport_times){
		.resolved_ns = time_of(t, CURLINFO_NAMELOOKUP_TIME_T),
		.connected_ns = time_of(t, CURLINFO_CONNECT_TIME_T),
		.tls_ns = time_of(t, CURLINFO_APPCONNECT_TIME_T),
		.total_ns = time_of(t, CURLINFO_TOTAL_TIME_T),
	};
	curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &peer);
	curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_PORT, &port);
	curl_easy_getinfo(t->easy, CURLINFO_LOCAL_PORT, &local_port);
	curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	snprintf(t->peer, sizeof(t->peer), "%s", peer ? peer : "");
	ret->peer = t->peer;
	ret->peer_port = (uint16_t)port;
	// curl has a time for the connection only once TLS is through.
	ret->reached = ret->times.connected_ns > 0 || local_port > 0;
	ret->sent = (size_t)sent >= body_len(t->body);
}

/* curl has the code of an HTTP/2 reset in its words only: "... (err 7)". */
static uint32_t reset_code(const char *words)
{
	const char *at = strstr(words, "(err ");

	return at ? (uint32_t)strtoul(at + sizeof("(err ") - 1, NULL, 10) : 0;
}

static enum transport_failure failure_of(struct transport *t, CURLcode code)
{
	if (t->too_long)
		return TRANSPORT_ANSWER_TOO_LONG;
	switch (code) {
	case CURLE_OK:
		return TRANSPORT_DONE;
	case CURLE_OPERATION_TIMEDOUT:
		return TRANSPORT_TIMED_OUT;
	case CURLE_HTTP2_STREAM:
		return TRANSPORT_RESET;
	default:
		return TRANSPORT_BROKEN;
	}
}

/* curl speaks of port 80 of localhost where there is a socket. */
static void say_failure(struct transport *t, CURLcode code)
{
	long reason = 0;

	if (t->endpoint->socket && code == CURLE_COULDNT_CONNECT &&
	    curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &reason) == CURLE_OK && reason > 0)
		snprintf(t->message, sizeof(t->message), "can't connect to the socket: %s",
		         err_str(-(int)reason));
	else
		snprintf(t->message, sizeof(t->message), "%s",
		         t->error[0] ? t->error : curl_easy_strerror(code));
}

void transport_post(struct transport *t, const struct transport_body *body,
                    struct transport_result *ret)
{
	CURLcode code = CURLE_OK;

	*ret = (struct transport_result){.message = t->message, .peer = t->peer, .hint = ""};
	begin(t, body);
	int err = transfer(t, &code);
	if (err) {
		ret->failure = err == -ECANCELED ? TRANSPORT_ABORTED : TRANSPORT_BROKEN;
		snprintf(t->message, sizeof(t->message), "can't send: %s", err_str(err));
		return;
	}
	ret->failure = failure_of(t, code);
	read_answer(t, &ret->answer);
	read_facts(t, ret);
	ret->answer.whole = code == CURLE_OK;
	if (code == CURLE_OK)
		return;
	ret->http2_error = reset_code(t->error);
	ret->hint = transport_hint(code, t->error, t->endpoint, t->config->protocol == OTLP_GRPC);
	say_failure(t, code);
}

void transport_be_fresh(struct transport *t)
{
	curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L);
}

void transport_rest(struct transport *t)
{
	if (t->answer.room > KEPT_BYTES)
		buf_deinit(&t->answer);
}

/* --- opening --- */

static void set_protocol(struct transport *t)
{
	bool tls = t->endpoint->tls;

	if (t->config->protocol != OTLP_GRPC) {
		curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
		return;
	}
	curl_easy_setopt(
		t->easy, CURLOPT_HTTP_VERSION,
		(long)(tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
	curl_easy_setopt(t->easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	// Before curl 8.0 the second request on a cleartext HTTP/2 connection fails (its #10634).
	if (!tls && curl_version_info(CURLVERSION_NOW)->version_num < CURL_8)
		curl_easy_setopt(t->easy, CURLOPT_FORBID_REUSE, 1L);
}

/* Files are read with each new connection, so that renewed ones are taken. */
static int set_tls(CURL *c, const struct tls_config *tls)
{
	const char *const files[] = {tls->ca_file, tls->cert_file, tls->key_file};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (files[i] && access(files[i], R_OK) != 0)
			return -errno;
	curl_easy_setopt(c, CURLOPT_SSLVERSION,
	                 (long)(tls->min_version == TLS_1_3 ? CURL_SSLVERSION_TLSv1_3
	                                                    : CURL_SSLVERSION_TLSv1_2));
	if (tls->ca_file) {
		curl_easy_setopt(c, CURLOPT_CAINFO, tls->ca_file);
		curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	}
	if (tls->cert_file) {
		curl_easy_setopt(c, CURLOPT_SSLCERT, tls->cert_file);
		curl_easy_setopt(c, CURLOPT_SSLKEY, tls->key_file);
	}
	return 0;
}

/* Where to connect, other than the URL says. */
static int set_route(struct transport *t, struct curl_slist **connect_to)
{
	const struct endpoint *e = t->endpoint;

	if (e->socket) {
		curl_easy_setopt(t->easy, CURLOPT_UNIX_SOCKET_PATH, e->socket);
		curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
	}
	if (!e->connect_to)
		return 0;
	int err = transport_headers_add(connect_to, e->connect_to);
	curl_easy_setopt(t->easy, CURLOPT_CONNECT_TO, *connect_to);
	return err;
}

static void set_options(struct transport *t)
{
	CURL *c = t->easy;
	long timeout_ms = (long)(t->config->timeout_ns / NS_PER_MS);

	curl_easy_setopt(c, CURLOPT_URL, t->endpoint->url);
	curl_easy_setopt(c, CURLOPT_USERAGENT,
	                 "sidelight/" SIDELIGHT_VERSION " OTel-OTLP-Exporter-C/" SIDELIGHT_VERSION);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	// Else a dead name server blocks the thread for seconds, abort or not.
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, timeout_ms);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
	                 timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BYTES);
	curl_easy_setopt(c, CURLOPT_READFUNCTION, give_body);
	curl_easy_setopt(c, CURLOPT_READDATA, t);
	curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, rewind_body);
	curl_easy_setopt(c, CURLOPT_SEEKDATA, t);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->error);
}

static int prepare(struct transport *t)
{
	t->easy = curl_easy_init();
	t->multi = curl_multi_init();
	if (!t->easy || !t->multi)
		return -ENOMEM;
	set_options(t);
	set_protocol(t);
	int err = transport_headers_make(&t->headers, t->config, false);
	if (!err)
		err = transport_headers_make(&t->gzip_headers, t->config, true);
	if (!err)
		err = set_route(t, &t->connect_to);
	return err || !t->endpoint->tls ? err : set_tls(t->easy, &t->config->tls);
}

int transport_open(struct transport **ret, const struct exporter_config *config,
                   const struct endpoint *endpoint, const struct sink_host *host)
{
	struct transport *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->config = config;
	t->endpoint = endpoint;
	t->host = host;
	buf_init(&t->answer, CAP_EXPORT_RESPONSE);
	buf_init(&t->header_text, HEADERS_MAX);
	// Counted inside curl: one cleanup for each.
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(t);
		return -ENOMEM;
	}
	int err = prepare(t);
	if (err) {
		transport_close(t);
		return err;
	}
	*ret = t;
	return 0;
}

void transport_close(struct transport *t)
{
	if (!t)
		return;
	curl_multi_cleanup(t->multi);
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	curl_slist_free_all(t->gzip_headers);
	curl_slist_free_all(t->connect_to);
	buf_deinit(&t->answer);
	buf_deinit(&t->header_text);
	free(t);
	curl_global_cleanup();
}
