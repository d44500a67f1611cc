#include "export/grpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/otlp.h"
#include "core/pb.h"
#include "export/retry.h"

enum grpc_status {
	GRPC_OK,
	GRPC_CANCELLED,
	GRPC_UNKNOWN,
	GRPC_INVALID_ARGUMENT,
	GRPC_DEADLINE_EXCEEDED,
	GRPC_NOT_FOUND,
	GRPC_ALREADY_EXISTS,
	GRPC_PERMISSION_DENIED,
	GRPC_RESOURCE_EXHAUSTED,
	GRPC_FAILED_PRECONDITION,
	GRPC_ABORTED,
	GRPC_OUT_OF_RANGE,
	GRPC_UNIMPLEMENTED,
	GRPC_INTERNAL,
	GRPC_UNAVAILABLE,
	GRPC_DATA_LOSS,
	GRPC_UNAUTHENTICATED,
	GRPC_STATUS_COUNT
};

/* google.rpc.Status, google.protobuf.Any and Duration, google.rpc.RetryInfo */
enum { STATUS_DETAILS = 3, ANY_TYPE_URL = 1, ANY_VALUE = 2 };
enum { RETRY_INFO_DELAY = 1, DURATION_SECONDS = 1, DURATION_NANOS = 2 };

enum { DETAILS_MAX = 8192 }; // bytes; gRPC suggests so much for all headers

#define TOO_LARGE_HINT "a single item is over the backend's limit: lower capture.max_value"

static const struct {
	const char *name;
	bool retryable;
	enum rejection reason;
} statuses[GRPC_STATUS_COUNT] = {
	[GRPC_OK] = {"OK", false, REJECTED_GRPC_OTHER},
	[GRPC_CANCELLED] = {"CANCELLED", true, REJECTED_GRPC_OTHER},
	[GRPC_UNKNOWN] = {"UNKNOWN", false, REJECTED_GRPC_UNKNOWN},
	[GRPC_INVALID_ARGUMENT] = {"INVALID_ARGUMENT", false, REJECTED_GRPC_INVALID_ARGUMENT},
	[GRPC_DEADLINE_EXCEEDED] = {"DEADLINE_EXCEEDED", true, REJECTED_GRPC_OTHER},
	[GRPC_NOT_FOUND] = {"NOT_FOUND", false, REJECTED_GRPC_NOT_FOUND},
	[GRPC_ALREADY_EXISTS] = {"ALREADY_EXISTS", false, REJECTED_GRPC_OTHER},
	[GRPC_PERMISSION_DENIED] = {"PERMISSION_DENIED", false, REJECTED_GRPC_PERMISSION_DENIED},
	[GRPC_RESOURCE_EXHAUSTED] = {"RESOURCE_EXHAUSTED", false, REJECTED_GRPC_RESOURCE_EXHAUSTED},
	[GRPC_FAILED_PRECONDITION] = {"FAILED_PRECONDITION", false, REJECTED_GRPC_OTHER},
	[GRPC_ABORTED] = {"ABORTED", true, REJECTED_GRPC_OTHER},
	[GRPC_OUT_OF_RANGE] = {"OUT_OF_RANGE", true, REJECTED_GRPC_OTHER},
	[GRPC_UNIMPLEMENTED] = {"UNIMPLEMENTED", false, REJECTED_GRPC_UNIMPLEMENTED},
	[GRPC_INTERNAL] = {"INTERNAL", false, REJECTED_GRPC_INTERNAL},
	[GRPC_UNAVAILABLE] = {"UNAVAILABLE", true, REJECTED_GRPC_OTHER},
	[GRPC_DATA_LOSS] = {"DATA_LOSS", true, REJECTED_GRPC_OTHER},
	[GRPC_UNAUTHENTICATED] = {"UNAUTHENTICATED", false, REJECTED_GRPC_UNAUTHENTICATED},
};

void grpc_head(uint8_t out[GRPC_HEAD_SIZE], size_t len, bool compressed)
{
	out[0] = compressed;
	out[1] = (uint8_t)(len >> 24);
	out[2] = (uint8_t)(len >> 16);
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
}

/* --- grpc-message: UTF-8, percent-encoded --- */

static bool percent_byte(const char *p, size_t left, uint8_t *ret)
{
	return left >= 3 && p[0] == '%' && hex_read(ret, 1, p + 1);
}

/* What is no encoding stays as it is. */
static void quote_message(struct verdict *v, struct str encoded)
{
	char text[ANSWER_WORDS + 4]; // room for a character that the cut ends in
	size_t n = 0;

	for (size_t i = 0; i < encoded.len && n < sizeof(text); n++) {
		uint8_t byte;
		bool is_encoded = percent_byte(encoded.p + i, encoded.len - i, &byte);
		text[n] = is_encoded ? (char)byte : encoded.p[i];
		i += is_encoded ? 3 : 1;
	}
	verdict_quote(v, (struct str){text, utf8_prefix(text, n)});
}

/* --- grpc-status-details-bin: a google.rpc.Status in base64, padded or not --- */

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

/* Returns the bytes up to the first character that is none of base64's. */
static size_t base64_read(uint8_t *out, size_t room, struct str text)
{
	uint32_t bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < text.len; i++) {
		int digit = base64_digit(text.p[i]);
		if (digit < 0)
			break;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 == 0)
			continue;
		if (n == room)
			break;
		out[n++] = (uint8_t)(bits >> (6 - i % 4 * 2));
	}
	return n;
}

static bool has_end(struct str s, struct str end)
{
	return s.len >= end.len && memcmp(s.p + s.len - end.len, end.p, end.len) == 0;
}

/* The last field of this number that is bytes; p is NULL when there is none. */
static struct str bytes_in(struct str message, uint32_t number)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct str found = {0};
	struct pb_field f;

	while (pb_next(&c, &f) > 0)
		if (f.number == number && f.wire == PB_BYTES)
			found = f.bytes;
	return found;
}

static uint64_t duration_ns(struct str duration)
{
	struct pb_cursor c = pb_cursor_of(duration);
	uint64_t seconds = 0;
	uint64_t nanos = 0;
	struct pb_field f;

	while (pb_next(&c, &f) > 0) {
		if (f.number == DURATION_SECONDS && f.wire == PB_VARINT)
			seconds = f.value;
		else if (f.number == DURATION_NANOS && f.wire == PB_VARINT)
			nanos = f.value;
	}
	if (seconds > INT64_MAX || nanos >= NS_PER_S) // negative, or malformed
		return 0;
	return seconds < RETRY_AFTER_MAX_NS / NS_PER_S ? seconds * NS_PER_S + nanos
	                                               : RETRY_AFTER_MAX_NS;
}

/* Whether the details have a RetryInfo, and its delay. */
static bool find_retry_info(struct str details_base64, uint64_t *ret_delay_ns)
{
	uint8_t bytes[DETAILS_MAX];
	size_t n = base64_read(bytes, sizeof(bytes), details_base64);
	struct pb_cursor c = pb_cursor_of((struct str){(const char *)bytes, n});
	struct pb_field f;

	while (pb_next(&c, &f) > 0) {
		if (f.number != STATUS_DETAILS || f.wire != PB_BYTES ||
		    !has_end(bytes_in(f.bytes, ANY_TYPE_URL), STR("/google.rpc.RetryInfo")))
			continue;
		struct str delay = bytes_in(bytes_in(f.bytes, ANY_VALUE), RETRY_INFO_DELAY);
		*ret_delay_ns = delay.p ? duration_ns(delay) : 0;
		return true;
	}
	return false;
}

/* --- judging --- */

static const char *hint_of(int status, enum otlp_signal signal)
{
	switch (status) {
	case GRPC_UNAUTHENTICATED:
	case GRPC_PERMISSION_DENIED:
		return "check the exporter's headers (authorization?)";
	case GRPC_UNIMPLEMENTED:
		if (signal == SIGNAL_LOGS)
			return "the backend takes no logs: leave logs out of signals";
		if (signal == SIGNAL_METRICS)
			return "the backend takes no metrics: leave metrics out of signals";
		return "does it speak OTLP over gRPC there? (usually port 4317; 4318 is HTTP)";
	default:
		return "";
	}
}

/* RESOURCE_EXHAUSTED is also how gRPC libraries say that a message is over their limit. */
static bool is_about_size(const char *words)
{
	static const char *const phrases[] = {
		"larger than",  "too large", "too big",    "exceeds",  "max message",
		"message size", "max size",  "size limit", "limit of",
	};

	for (size_t i = 0; i < sizeof(phrases) / sizeof(*phrases); i++)
		if (strcasestr(words, phrases[i]))
			return true;
	return false;
}

static void judge_exhausted(struct verdict *v, bool has_retry_info)
{
	if (has_retry_info) {
		v->kind = VERDICT_RETRYABLE;
	} else if (is_about_size(v->words)) {
		v->kind = VERDICT_TOO_LARGE;
		v->reason = REJECTED_GRPC_TOO_LARGE;
		v->hint = TOO_LARGE_HINT;
	}
}

static void judge_status(struct verdict *v, const struct answer *a, int status,
                         enum otlp_signal signal)
{
	bool is_known = status >= 0 && status < GRPC_STATUS_COUNT;
	bool retryable = is_known && statuses[status].retryable;

	snprintf(v->said, sizeof(v->said), "gRPC status %d (%s)", status,
	         is_known ? statuses[status].name : "no such status");
	v->kind = retryable ? VERDICT_RETRYABLE : VERDICT_REFUSED;
	v->reason = is_known ? statuses[status].reason : REJECTED_GRPC_UNKNOWN;
	v->hint = hint_of(status, signal);
	bool has_retry_info = find_retry_info(a->headers[HEADER_GRPC_DETAILS], &v->retry_after_ns);
	if (status == GRPC_RESOURCE_EXHAUSTED)
		judge_exhausted(v, has_retry_info);
}

/* The one message of an answer; false when it is not there, not whole, or compressed, which we
 * have not offered. */
static bool message_of(struct str body, struct str *ret)
{
	const uint8_t *p = (const uint8_t *)body.p;

	if (body.len < GRPC_HEAD_SIZE || p[0] != 0)
		return false;
	size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	*ret = (struct str){body.p + GRPC_HEAD_SIZE, len};
	return body.len - GRPC_HEAD_SIZE == len;
}

static void judge_ok(struct verdict *v, const struct answer *a)
{
	struct otlp_answer said;
	struct str message;

	if (!message_of(a->body, &message) || otlp_answer(&said, message)) {
		v->kind = VERDICT_REFUSED;
		v->reason = REJECTED_GRPC_INTERNAL;
		snprintf(v->said, sizeof(v->said), "gRPC status 0 (OK)");
		verdict_quote(v, STR("but without a message that can be read"));
		return;
	}
	v->kind = VERDICT_ACCEPTED;
	v->reason = REJECTED_PARTIAL_SUCCESS;
	v->rejected = said.rejected;
	verdict_quote(v, said.message);
}

/* gRPC's table for answers without a grpc-status. */
static int status_of_http(int http)
{
	switch (http) {
	case 400:
	case 431:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
		return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

static bool is_grpc(const struct answer *a)
{
	struct str type = a->headers[HEADER_CONTENT_TYPE];
	struct str word = STR("application/grpc");

	return type.len >= word.len && strncasecmp(type.p, word.p, word.len) == 0;
}

/* HTTP said 200 and nothing else followed: gRPC's UNKNOWN. But it may be a stream that was cut off
 * (curl before 8.0 doesn't always tell), so it is not the last word at once. */
static void judge_without_status(struct verdict *v, const struct answer *a)
{
	struct str message;

	if (!is_grpc(a)) {
		v->kind = VERDICT_REFUSED;
		v->reason = REJECTED_NOT_OTLP;
		v->hint = "does it speak OTLP over gRPC there? (usually port 4317; 4318 is HTTP)";
		snprintf(v->said, sizeof(v->said), "HTTP %d", a->status);
		verdict_quote(v, STR("and not as gRPC"));
	} else if (a->whole || message_of(a->body, &message)) {
		v->kind = VERDICT_UNSURE;
		v->reason = REJECTED_GRPC_UNKNOWN;
		snprintf(v->said, sizeof(v->said), "HTTP %d", a->status);
		verdict_quote(v, STR("without a grpc-status"));
	}
}

static void judge_http(struct verdict *v, const struct answer *a, enum otlp_signal signal)
{
	if (a->status == 413) {
		v->kind = VERDICT_TOO_LARGE;
		v->reason = REJECTED_GRPC_TOO_LARGE;
		v->hint = TOO_LARGE_HINT;
	} else {
		judge_status(v, a, status_of_http(a->status), signal);
	}
	snprintf(v->said, sizeof(v->said), "HTTP %d without a grpc-status", a->status);
}

/* -1: no number. */
static int status_in(struct str header)
{
	char text[12];

	if (header.len == 0 || header.len >= sizeof(text))
		return -1;
	snprintf(text, sizeof(text), "%.*s", (int)header.len, header.p);
	char *end;
	long status = strtol(text, &end, 10);
	return *end || status < 0 || status > 9999 ? -1 : (int)status;
}

struct verdict grpc_judge(const struct answer *a, enum otlp_signal signal)
{
	struct verdict v = {.kind = VERDICT_NONE, .hint = ""};
	struct str status = a->headers[HEADER_GRPC_STATUS];

	if (a->headers[HEADER_GRPC_MESSAGE].p)
		quote_message(&v, a->headers[HEADER_GRPC_MESSAGE]);
	if (status.p && status_in(status) == GRPC_OK)
		judge_ok(&v, a);
	else if (status.p)
		judge_status(&v, a, status_in(status), signal);
	else if (a->status == 200)
		judge_without_status(&v, a);
	else if (a->status > 200)
		judge_http(&v, a, signal);
	return v;
}

/* By gRPC's table. ENHANCE_YOUR_CALM is RESOURCE_EXHAUSTED there, without a delay; it asks us to
 * slow down, not to drop what we have. INTERNAL is not to be retried, but a proxy that has lost its
 * backend says it, too. */
struct verdict grpc_judge_reset(uint32_t http2_error)
{
	enum { REFUSED_STREAM = 7, CANCEL = 8, ENHANCE_YOUR_CALM = 11, INADEQUATE_SECURITY = 12 };
	struct verdict v = {.kind = VERDICT_RETRYABLE, .hint = ""};

	snprintf(v.said, sizeof(v.said), "a reset of the stream (HTTP/2 error %u)", http2_error);
	switch (http2_error) {
	case REFUSED_STREAM:
	case CANCEL:
	case ENHANCE_YOUR_CALM:
		break;
	case INADEQUATE_SECURITY:
		v.kind = VERDICT_REFUSED;
		v.reason = REJECTED_GRPC_PERMISSION_DENIED;
		v.hint = "the backend wants better TLS: set tls.min_version to 1.3";
		break;
	default:
		v.kind = VERDICT_UNSURE;
		v.reason = REJECTED_GRPC_INTERNAL;
	}
	return v;
}
