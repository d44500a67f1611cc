#include "export/sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "base/buf.h"
#include "base/clock.h"
#include "core/otlp.h"
#include "export/retry.h"

enum {
	KEPT_BYTES = 64 * 1024,            // the request buffer at rest
	LEAST_TIMED_OUT_BYTES = 64 * 1024, // a timeout makes requests no smaller than this
	CONNECT_TIMEOUT_MS = 5000,
	QUOTED_BYTES = 160, // of what a backend says
};

struct otlp_sink {
	struct sink sink;
	const struct sink_host *host;
	bool content;
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	char *url;     // with v1/traces, and credentials if it has them: never logged
	char *address; // without: for people
	struct buf request, response;
	bool response_too_long;
	size_t max_bytes; // of a request: learnt from 413s and timeouts, grows back slowly
	char curl_error[CURL_ERROR_SIZE];
};

#define set_message(report, ...)                                                                   \
	((void)snprintf((report)->message, sizeof((report)->message), __VA_ARGS__))

/* --- one transfer --- */

static size_t take_response(char *data, size_t size, size_t n, void *ctx)
{
	struct otlp_sink *s = ctx;

	buf_append(&s->response, data, size * n);
	s->response_too_long = buf_error(&s->response) == -ENOSPC;
	return buf_error(&s->response) ? 0 : size * n;
}

/* Drives the transfer to its end. -ECANCELED: the abort descriptor was raised. */
static int drive(struct otlp_sink *s, CURLcode *ret_code)
{
	struct curl_waitfd abort = {.fd = s->host->abort_fd, .events = CURL_WAIT_POLLIN};
	uint64_t ticked = clock_mono_ns();
	int running = 1;
	int left;

	for (;;) {
		if (curl_multi_perform(s->multi, &running) != CURLM_OK)
			return -EIO;
		if (running == 0)
			break;
		abort.revents = 0;
		if (curl_multi_poll(s->multi, &abort, 1, SINK_TICK_MS, NULL) != CURLM_OK)
			return -EIO;
		if (abort.revents)
			return -ECANCELED;
		if (clock_mono_ns() - ticked >= SINK_TICK_MS * NS_PER_MS) {
			s->host->tick(s->host->ctx);
			ticked = clock_mono_ns();
		}
	}
	CURLMsg *msg = curl_multi_info_read(s->multi, &left);
	if (!msg || msg->msg != CURLMSG_DONE)
		return -EIO;
	*ret_code = msg->data.result;
	return 0;
}

static int transfer(struct otlp_sink *s, CURLcode *ret_code)
{
	buf_clear(&s->response);
	s->response_too_long = false;
	s->curl_error[0] = '\0';
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, (char *)s->request.data);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->request.len);
	if (curl_multi_add_handle(s->multi, s->easy) != CURLM_OK)
		return -EIO;
	int err = drive(s, ret_code);
	curl_multi_remove_handle(s->multi, s->easy);
	return err;
}

/* --- what came of it --- */

static struct str response_of(const struct otlp_sink *s)
{
	return (struct str){(const char *)s->response.data, s->response.len};
}

static bool content_type_has(struct otlp_sink *s, const char *word)
{
	char *type = NULL;

	return curl_easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK && type &&
	       strcasestr(type, word);
}

static struct str quotable(struct str words)
{
	if (!words.p || !utf8_is_valid(words.p, words.len))
		return STR("");
	return (struct str){words.p, utf8_cut(words.p, words.len, QUOTED_BYTES)};
}

/* What a backend says about an error: a google.rpc.Status, or the beginning of any other text. */
static struct str words_of(struct otlp_sink *s)
{
	struct str body = response_of(s);
	struct str words = content_type_has(s, "protobuf") ? otlp_status_message(body) : body;

	return content_type_has(s, "html") ? STR("") : quotable(words);
}

static void report_status(struct otlp_sink *s, long status, struct outcome_report *ret)
{
	struct str words = words_of(s);

	ret->hint = http_hint(status);
	set_message(ret, "%s answered HTTP %ld%s%.*s", s->address, status, words.len ? ": " : "",
	            (int)words.len, words.p);
}

/* The backend wants less, or can't do so much in time. */
static void shrink(struct otlp_sink *s, size_t least)
{
	size_t half = s->request.len / 2;

	s->max_bytes = half > least ? half : least;
}

/* By a 64th, so that a limit which was met is met again only now and then. */
static void grow(struct otlp_sink *s)
{
	s->max_bytes += s->max_bytes / 64 + 1;
	if (s->max_bytes > CAP_EXPORT_REQUEST)
		s->max_bytes = CAP_EXPORT_REQUEST;
}

static const char *hint_of(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		return "is the backend running?";
	case CURLE_COULDNT_RESOLVE_HOST:
		return "check the endpoint's host name";
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		return "check the endpoint's scheme and its certificate";
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_GOT_NOTHING:
		return "does it speak OTLP over HTTP there? (usually port 4318; 4317 is gRPC)";
	default:
		return "";
	}
}

static void judge_transport(struct otlp_sink *s, CURLcode code, struct outcome_report *ret)
{
	if (s->response_too_long) {
		ret->outcome = OUTCOME_REFUSED;
		ret->reason = REJECTED_RESPONSE_TOO_LONG;
		ret->hint = "is the endpoint an OTLP receiver?";
		set_message(ret, "the answer of %s is longer than %u MiB", s->address,
		            CAP_EXPORT_RESPONSE / MIB);
		return;
	}
	ret->outcome = OUTCOME_RETRY;
	ret->hint = hint_of(code);
	set_message(ret, "no answer from %s: %s", s->address,
	            s->curl_error[0] ? s->curl_error : curl_easy_strerror(code));
	if (code == CURLE_OPERATION_TIMEDOUT)
		shrink(s, LEAST_TIMED_OUT_BYTES);
}

/* A page is no answer of an OTLP receiver: nothing was taken in. Any other body that can't be read
 * (JSON, mostly) comes from one that took the spans and words its answer freely; a retry would
 * send them again, for ever. */
static void judge_odd_answer(struct otlp_sink *s, struct outcome_report *ret)
{
	if (!content_type_has(s, "html")) {
		set_message(ret, "%s took spans with an answer that is no OTLP protobuf",
		            s->address);
		return;
	}
	ret->outcome = OUTCOME_REFUSED;
	ret->reason = REJECTED_NOT_OTLP;
	ret->hint = "is the endpoint an OTLP receiver?";
	set_message(ret, "%s answered with a web page", s->address);
}

static void judge_accepted(struct otlp_sink *s, struct outcome_report *ret)
{
	struct otlp_answer answer;

	ret->outcome = OUTCOME_DELIVERED;
	grow(s);
	if (otlp_answer(&answer, response_of(s))) {
		judge_odd_answer(s, ret);
		return;
	}
	ret->refused = answer.rejected < ret->taken ? answer.rejected : ret->taken;
	ret->reason = REJECTED_PARTIAL_SUCCESS;
	if (ret->refused || answer.message.len)
		set_message(ret, "%s took %s spans: %.*s", s->address,
		            ret->refused ? "not all" : "the", (int)quotable(answer.message).len,
		            quotable(answer.message).p);
}

static void judge_retryable(struct otlp_sink *s, long status, struct outcome_report *ret)
{
	curl_off_t seconds = 0;

	ret->outcome = OUTCOME_RETRY;
	// 0 when there is none; curl before 8.12 says a negative number for a date that is past.
	if (curl_easy_getinfo(s->easy, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0)
		ret->retry_after_ns =
			seconds < 1000 ? (uint64_t)seconds * NS_PER_S : RETRY_AFTER_MAX_NS;
	report_status(s, status, ret);
}

static void judge_refused(struct otlp_sink *s, long status, struct outcome_report *ret)
{
	ret->outcome = OUTCOME_REFUSED;
	ret->reason = http_rejection(status);
	report_status(s, status, ret);
}

static void judge_too_large(struct otlp_sink *s, long status, struct outcome_report *ret)
{
	if (ret->taken == 1) {
		judge_refused(s, status, ret);
		return;
	}
	ret->outcome = OUTCOME_SMALLER;
	shrink(s, 1);
}

static void judge_status(struct otlp_sink *s, long status, struct outcome_report *ret)
{
	switch (http_verdict(status)) {
	case HTTP_ACCEPTED:
		judge_accepted(s, ret);
		break;
	case HTTP_RETRYABLE:
		judge_retryable(s, status, ret);
		break;
	case HTTP_TOO_LARGE:
		judge_too_large(s, status, ret);
		break;
	case HTTP_REFUSED:
		judge_refused(s, status, ret);
		break;
	}
}

/* A server that refuses early may close before it has read all: its status counts all the same. */
static void judge(struct otlp_sink *s, CURLcode code, struct outcome_report *ret)
{
	long status = 0;

	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK || (status >= 400 && !s->response_too_long))
		judge_status(s, status, ret);
	else
		judge_transport(s, code, ret);
}

static void otlp_http_send(struct sink *sink, const struct span_record *spans, size_t count,
                           struct outcome_report *ret)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;
	struct otlp_limits limits = {CAP_EXPORT_SPANS, s->max_bytes, s->content};
	CURLcode code = CURLE_OK;

	ret->taken = otlp_request(&s->request, spans, count, &limits);
	int err = buf_error(&s->request);
	if (err == -ENOSPC) {
		ret->outcome = OUTCOME_REFUSED;
		ret->reason = REJECTED_TOO_LONG;
		ret->taken = 1;
		set_message(ret, "a span is longer than %u MiB", CAP_EXPORT_BODY / MIB);
		return;
	}
	if (!err)
		err = transfer(s, &code);
	if (err == -ECANCELED) {
		ret->outcome = OUTCOME_ABORTED;
	} else if (err) {
		ret->outcome = OUTCOME_RETRY;
		set_message(ret, "can't send: %s", err_str(err));
	} else {
		judge(s, code, ret);
	}
}

/* --- opening --- */

static int append_path(CURLU *url)
{
	char *path = NULL;
	char *longer = NULL;

	if (curl_url_get(url, CURLUPART_PATH, &path, 0))
		return -ENOMEM;
	size_t len = strlen(path);
	while (len > 0 && path[len - 1] == '/')
		len--;
	int n = asprintf(&longer, "%.*s/v1/traces", (int)len, path);
	curl_free(path);
	if (n < 0)
		return -ENOMEM;
	CURLUcode code = curl_url_set(url, CURLUPART_PATH, longer, 0);
	free(longer);
	return code ? -EINVAL : 0;
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

static int parse_endpoint(struct otlp_sink *s, CURLU *url, const char *endpoint)
{
	if (curl_url_set(url, CURLUPART_URL, endpoint, 0))
		return -EINVAL;
	int err = append_path(url);
	if (!err)
		err = copy_url(url, &s->url);
	if (err)
		return err;
	curl_url_set(url, CURLUPART_USER, NULL, 0);
	curl_url_set(url, CURLUPART_PASSWORD, NULL, 0);
	curl_url_set(url, CURLUPART_QUERY, NULL, 0); // may be a key, too
	return copy_url(url, &s->address);
}

static int set_endpoint(struct otlp_sink *s, const char *endpoint)
{
	CURLU *url = curl_url();

	if (!url)
		return -ENOMEM;
	int err = parse_endpoint(s, url, endpoint);
	curl_url_cleanup(url);
	return err;
}

static int add_header(struct otlp_sink *s, const char *line)
{
	struct curl_slist *longer = curl_slist_append(s->headers, line);

	if (!longer)
		return -ENOMEM;
	s->headers = longer;
	return 0;
}

static int add_pair(struct otlp_sink *s, const struct config_pair *pair)
{
	char *line = NULL;

	if (strpbrk(pair->key, "\r\n:") || strpbrk(pair->value, "\r\n"))
		return -EINVAL;
	// curl's way to send a header without a value.
	int n = *pair->value ? asprintf(&line, "%s: %s", pair->key, pair->value)
	                     : asprintf(&line, "%s;", pair->key);

	if (n < 0)
		return -ENOMEM;
	int err = add_header(s, line);
	free(line);
	return err;
}

static int set_headers(struct otlp_sink *s, const struct exporter_config *config)
{
	int err = add_header(s, "Content-Type: application/x-protobuf");

	if (!err)
		err = add_header(s, "Expect:"); // else curl waits a second for a 100
	for (size_t i = 0; i < config->header_count && !err; i++)
		if (strcasecmp(config->headers[i].key, "content-type") != 0)
			err = add_pair(s, &config->headers[i]);
	return err;
}

static void set_options(struct otlp_sink *s, const struct exporter_config *config)
{
	CURL *c = s->easy;
	long timeout_ms = (long)(config->timeout_ns / NS_PER_MS);

	curl_easy_setopt(c, CURLOPT_URL, s->url);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, s->headers);
	curl_easy_setopt(c, CURLOPT_USERAGENT,
	                 "sidelight/" SIDELIGHT_VERSION " OTel-OTLP-Exporter-C/" SIDELIGHT_VERSION);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	// Else a dead name server blocks the thread for seconds, abort or not.
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, timeout_ms);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
	                 timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_response);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, s->curl_error);
}

static void rest(struct buf *b)
{
	if (b->room > KEPT_BYTES)
		buf_deinit(b);
}

static void otlp_http_rest(struct sink *sink)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;

	rest(&s->request);
	rest(&s->response);
}

static void otlp_http_close(struct sink *sink)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;

	if (!s)
		return;
	curl_multi_cleanup(s->multi);
	curl_easy_cleanup(s->easy);
	curl_slist_free_all(s->headers);
	buf_deinit(&s->request);
	buf_deinit(&s->response);
	free(s->url);
	free(s->address);
	free(s);
	curl_global_cleanup();
}

static const struct sink_ops otlp_http_ops = {
	.send = otlp_http_send,
	.rest = otlp_http_rest,
	.close = otlp_http_close,
	.pace_ns = 200 * NS_PER_MS,
};

static int prepare(struct otlp_sink *s, const struct exporter_config *config)
{
	int err = set_endpoint(s, config->endpoint);

	if (!err)
		err = set_headers(s, config);
	if (err)
		return err;
	s->easy = curl_easy_init();
	s->multi = curl_multi_init();
	if (!s->easy || !s->multi)
		return -ENOMEM;
	set_options(s, config);
	return 0;
}

int otlp_sink_open(struct sink **ret, const struct exporter_config *config, enum otlp_signal signal,
                   const struct sink_host *host)
{
	struct otlp_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sink.ops = &otlp_http_ops;
	s->host = host;
	s->content = config->content;
	s->max_bytes = CAP_EXPORT_REQUEST;
	buf_init(&s->request, CAP_EXPORT_BODY);
	buf_init(&s->response, CAP_EXPORT_RESPONSE);
	// Counted inside curl: one cleanup for each.
	int err = curl_global_init(CURL_GLOBAL_DEFAULT) ? -ENOMEM : 0;
	if (err) {
		free(s);
		return err;
	}
	err = prepare(s, config);
	if (err) {
		otlp_http_close(&s->sink);
		return err;
	}
	*ret = &s->sink;
	return 0;
}
