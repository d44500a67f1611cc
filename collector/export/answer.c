#include "export/answer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/otlp.h"
#include "export/answer_json.h"
#include "export/retry.h"

const char *signal_items(enum otlp_signal signal)
{
	switch (signal) {
	case SIGNAL_LOGS:
		return "log records";
	case SIGNAL_METRICS:
		return "data points";
	default:
		return "spans";
	}
}

void verdict_quote(struct verdict *v, struct str words)
{
	v->words[0] = '\0';
	if (!words.p || !utf8_is_valid(words.p, words.len))
		return;
	size_t len = utf8_cut(words.p, words.len, ANSWER_WORDS);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)words.p[i];
		v->words[i] = c < ' ' || c == 0x7f ? ' ' : (char)c;
	}
	v->words[len] = '\0';
}

enum rejection http_rejection(int status)
{
	switch (status) {
	case 400:
		return REJECTED_HTTP_400;
	case 401:
		return REJECTED_HTTP_401;
	case 403:
		return REJECTED_HTTP_403;
	case 404:
		return REJECTED_HTTP_404;
	case 405:
		return REJECTED_HTTP_405;
	case 413:
		return REJECTED_HTTP_413;
	case 415:
		return REJECTED_HTTP_415;
	case 422:
		return REJECTED_HTTP_422;
	case 500:
		return REJECTED_HTTP_500;
	default:
		return REJECTED_HTTP_OTHER;
	}
}

static const char *hint_of_not_found(enum otlp_signal signal)
{
	switch (signal) {
	case SIGNAL_LOGS:
		return "if the backend takes no logs, leave logs out of signals; else the endpoint "
		       "must be a base URL, to which /v1/logs is appended";
	case SIGNAL_METRICS:
		return "if the backend takes no metrics, leave metrics out of signals; else the "
		       "endpoint must be a base URL, to which /v1/metrics is appended";
	default:
		return "the endpoint must be a base URL, to which /v1/traces is appended";
	}
}

const char *http_hint(int status, enum otlp_signal signal)
{
	switch (status) {
	case 401:
	case 403:
		return "check the exporter's headers (Authorization?)";
	case 404:
	case 405:
		return hint_of_not_found(signal);
	case 407:
		return "the proxy wants credentials: put them into the proxy variable's URL";
	case 413:
		return "a single item is over the backend's limit: lower capture.max_value";
	case 415:
		return "the backend takes another protocol: http/protobuf, http/json or grpc";
	default:
		return status >= 300 && status < 400
		               ? "redirects are not followed: configure the final endpoint"
		               : "";
	}
}

/* The specification's list, and no other. */
static bool is_retryable(int status)
{
	return status == 429 || (status >= 502 && status <= 504);
}

static bool is_type(const struct answer *a, const char *word)
{
	struct str type = a->headers[HEADER_CONTENT_TYPE];
	char text[64];

	if (!type.p)
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)(type.len < 63 ? type.len : 63), type.p);
	return strcasestr(text, word) != NULL;
}

/* What a backend says about an error: a google.rpc.Status, or the beginning of any other text. A
 * page says nothing to people. */
static void quote_error(struct verdict *v, const struct answer *a)
{
	struct json_answer json;

	if (is_type(a, "html"))
		return;
	if (is_type(a, "protobuf"))
		verdict_quote(v, otlp_status_message(a->body));
	else if (is_type(a, "json") && json_answer_read(&json, a->body) == 0 && json.message[0])
		verdict_quote(v, str_of(json.message));
	else
		verdict_quote(v, a->body);
}

/* A page is no answer of an OTLP receiver: nothing was taken. Any other body that can't be read
 * comes from one that took the items and words its answer freely; a retry would send them again,
 * for ever. */
static void judge_odd(struct verdict *v, const struct answer *a)
{
	if (!is_type(a, "html")) {
		verdict_quote(v, STR("with an answer that is no OTLP"));
		return;
	}
	v->kind = VERDICT_REFUSED;
	v->reason = REJECTED_NOT_OTLP;
	v->hint = "is the endpoint an OTLP receiver?";
	verdict_quote(v, STR("a web page"));
}

static void judge_protobuf(struct verdict *v, const struct answer *a)
{
	struct otlp_answer said;

	if (otlp_answer(&said, a->body)) {
		judge_odd(v, a);
		return;
	}
	v->rejected = said.rejected;
	verdict_quote(v, said.message);
}

static void judge_json(struct verdict *v, const struct answer *a)
{
	struct json_answer said;

	if (json_answer_read(&said, a->body)) {
		judge_odd(v, a);
		return;
	}
	v->rejected = said.rejected;
	verdict_quote(v, str_of(said.message));
}

/* The specification has 200 only, but backends in use answer 202 and 204 (and the Collector takes
 * them): to HTTP each 2xx is a success, and a retry would make duplicates. The same goes for an
 * answer that stops in the middle: the status line was the verdict. */
static void judge_accepted(struct verdict *v, const struct answer *a)
{
	v->kind = VERDICT_ACCEPTED;
	v->reason = REJECTED_PARTIAL_SUCCESS;
	if (!a->whole)
		verdict_quote(v, STR("with an answer that broke off"));
	else if (a->body.len > 0 && is_type(a, "json"))
		judge_json(v, a);
	else
		judge_protobuf(v, a);
}

static void judge_error(struct verdict *v, const struct answer *a, enum otlp_signal signal,
                        uint64_t now_unix_ns)
{
	v->reason = http_rejection(a->status);
	v->hint = http_hint(a->status, signal);
	snprintf(v->said, sizeof(v->said), "HTTP %d", a->status);
	quote_error(v, a);
	if (a->status == 413)
		v->kind = VERDICT_TOO_LARGE;
	else if (!is_retryable(a->status))
		v->kind = VERDICT_REFUSED;
	else
		v->retry_after_ns = retry_after_ns(a->headers[HEADER_RETRY_AFTER], now_unix_ns);
}

struct verdict answer_judge(const struct answer *a, enum otlp_signal signal, bool sent,
                            uint64_t now_unix_ns)
{
	struct verdict v = {.kind = VERDICT_RETRYABLE, .hint = ""};

	if (a->status < 200)
		v.kind = VERDICT_NONE;
	else if (a->status >= 300)
		judge_error(&v, a, signal, now_unix_ns);
	else if (a->whole || sent)
		judge_accepted(&v, a);
	else
		v.kind = VERDICT_NONE;
	return v;
}
