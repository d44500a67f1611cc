#include "export/otlp_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "core/otlp_json.h"
#include "export/endpoint.h"
#include "export/grpc.h"
#include "export/gzip.h"
#include "export/transport.h"

enum {
	KEPT_BYTES = 64 * 1024,            // buffers at rest
	LEAST_TIMED_OUT_BYTES = 64 * 1024, // a timeout makes requests no smaller than this
	UNSURE_TRIES = 3,                  // in a row, of what may have been taken
};

struct otlp_wire {
	const struct exporter_config *config;
	enum otlp_signal signal;
	struct endpoint endpoint;
	struct transport *transport;
	struct gzip *gzip; // NULL: no compression
	struct buf json, packed;
	uint8_t head[GRPC_HEAD_SIZE];
	size_t max_bytes; // of a request: learnt, grows back slowly
	unsigned unsure;  // tries in a row
};

#define set_message(report, ...)                                                                   \
	((void)snprintf((report)->message, sizeof((report)->message), __VA_ARGS__))

/* --- the request as it goes out --- */

static void compress(struct otlp_wire *w, struct transport_body *body)
{
	if (!w->gzip || !gzip_pack(w->gzip, &w->packed, body->rest))
		return;
	body->rest = (struct str){(const char *)w->packed.data, w->packed.len};
	body->gzip = true;
}

static int make_body(struct otlp_wire *w, struct str request, struct transport_body *ret)
{
	*ret = (struct transport_body){.rest = request};
	if (w->config->protocol == OTLP_HTTP_JSON) {
		int err = otlp_json(&w->json, w->signal, request);
		if (err)
			return err;
		ret->rest = (struct str){(const char *)w->json.data, w->json.len};
	}
	compress(w, ret);
	if (w->config->protocol != OTLP_GRPC)
		return 0;
	grpc_head(w->head, ret->rest.len, ret->gzip);
	ret->head = (struct str){(const char *)w->head, sizeof(w->head)};
	ret->gzip = false; // gRPC says so in the message
	return 0;
}

/* --- what came of it --- */

/* The backend wants less, or can't do so much in time. */
static void shrink(struct otlp_wire *w, size_t request_bytes, size_t least)
{
	size_t half = request_bytes / 2;

	w->max_bytes = half > least ? half : least;
}

/* By a 64th, so that a limit which was met is met again only now and then. */
static void grow(struct otlp_wire *w)
{
	w->max_bytes += w->max_bytes / 64 + 1;
	if (w->max_bytes > CAP_EXPORT_REQUEST)
		w->max_bytes = CAP_EXPORT_REQUEST;
}

static const char *colon(const char *words)
{
	return *words ? ": " : "";
}

static void report_verdict(const struct otlp_wire *w, const struct verdict *v,
                           struct outcome_report *ret)
{
	ret->reason = v->reason;
	ret->hint = v->hint;
	if (v->said[0])
		set_message(ret, "%s answered %s%s%s", w->endpoint.address, v->said,
		            colon(v->words), v->words);
	else
		set_message(ret, "%s answered with %s", w->endpoint.address, v->words);
}

static void accept(struct otlp_wire *w, const struct verdict *v, struct outcome_report *ret)
{
	ret->outcome = OUTCOME_DELIVERED;
	ret->reason = v->reason;
	ret->refused = v->rejected < ret->taken ? v->rejected : ret->taken;
	if (ret->refused || v->words[0])
		set_message(ret, "%s took %s %s%s%s", w->endpoint.address,
		            ret->refused ? "not all" : "the", signal_items(w->signal),
		            colon(v->words), v->words);
	grow(w);
}

static void refuse_too_large(struct otlp_wire *w, size_t request_bytes, struct outcome_report *ret)
{
	ret->outcome = ret->taken > 1 ? OUTCOME_SMALLER : OUTCOME_REFUSED;
	if (ret->taken > 1)
		shrink(w, request_bytes, 1);
}

static void apply(struct otlp_wire *w, const struct verdict *v, size_t request_bytes,
                  struct outcome_report *ret)
{
	bool unsure = v->kind == VERDICT_UNSURE;

	w->unsure = unsure ? w->unsure + 1 : 0;
	report_verdict(w, v, ret);
	switch (v->kind) {
	case VERDICT_ACCEPTED:
		ret->message[0] = '\0';
		accept(w, v, ret);
		break;
	case VERDICT_TOO_LARGE:
		refuse_too_large(w, request_bytes, ret);
		break;
	case VERDICT_REFUSED:
		ret->outcome = OUTCOME_REFUSED;
		break;
	default:
		ret->outcome =
			unsure && w->unsure >= UNSURE_TRIES ? OUTCOME_REFUSED : OUTCOME_RETRY;
		ret->retry_after_ns = v->retry_after_ns;
	}
	if (ret->outcome == OUTCOME_REFUSED)
		w->unsure = 0;
}

static void judge_failure(struct otlp_wire *w, const struct transport_result *r,
                          size_t request_bytes, struct outcome_report *ret)
{
	ret->outcome = OUTCOME_RETRY;
	ret->hint = r->hint;
	set_message(ret, "no answer from %s: %s", w->endpoint.address, r->message);
	if (r->failure == TRANSPORT_TIMED_OUT && r->reached)
		shrink(w, request_bytes, LEAST_TIMED_OUT_BYTES);
}

static struct verdict verdict_of(const struct otlp_wire *w, const struct transport_result *r)
{
	if (w->config->protocol != OTLP_GRPC)
		return answer_judge(&r->answer, w->signal, r->sent, clock_unix_ns());
	struct verdict v = grpc_judge(&r->answer, w->signal);
	if (v.kind == VERDICT_NONE && r->failure == TRANSPORT_RESET)
		v = grpc_judge_reset(r->http2_error);
	return v;
}

/* A server that refuses early may close before it has read all: its status counts all the same. */
static void judge(struct otlp_wire *w, const struct transport_result *r, size_t request_bytes,
                  struct outcome_report *ret)
{
	if (r->failure == TRANSPORT_ABORTED) {
		ret->outcome = OUTCOME_ABORTED;
		return;
	}
	if (r->failure == TRANSPORT_ANSWER_TOO_LONG) {
		ret->outcome = OUTCOME_REFUSED;
		ret->reason = REJECTED_RESPONSE_TOO_LONG;
		ret->hint = "is the endpoint an OTLP receiver?";
		set_message(ret, "the answer of %s is longer than %u MiB", w->endpoint.address,
		            CAP_EXPORT_RESPONSE / MIB);
		return;
	}
	struct verdict v = verdict_of(w, r);
	if (v.kind == VERDICT_NONE)
		judge_failure(w, r, request_bytes, ret);
	else
		apply(w, &v, request_bytes, ret);
}

/* The request could not be put into words. */
static void report_unsendable(const struct otlp_wire *w, int err, struct outcome_report *ret)
{
	if (err == -ENOMEM) {
		ret->outcome = OUTCOME_RETRY;
		set_message(ret, "can't send to %s: %s", w->endpoint.address, err_str(err));
		return;
	}
	ret->outcome = err == -ENOSPC && ret->taken > 1 ? OUTCOME_SMALLER : OUTCOME_REFUSED;
	ret->reason = err == -ENOSPC ? REJECTED_TOO_LONG : REJECTED_MALFORMED;
	set_message(ret, "%s can't be sent: %s", signal_items(w->signal), err_str(err));
}

void otlp_wire_send(struct otlp_wire *w, struct str request, struct outcome_report *ret)
{
	struct transport_body body;
	struct transport_result result;

	int err = make_body(w, request, &body);
	if (err) {
		report_unsendable(w, err, ret);
		if (ret->outcome == OUTCOME_SMALLER)
			shrink(w, request.len, 1);
		return;
	}
	transport_post(w->transport, &body, &result);
	judge(w, &result, request.len, ret);
}

size_t otlp_wire_max_bytes(const struct otlp_wire *w)
{
	return w->max_bytes;
}

/* --- trying it out --- */

#define step_says(step, ...) ((void)snprintf((step)->message, sizeof((step)->message), __VA_ARGS__))

static void pass(struct probe_step *step, uint64_t from_ns, uint64_t to_ns)
{
	step->done = step->ok = true;
	step->hint = "";
	step->took_ns = to_ns > from_ns ? to_ns - from_ns : 0;
}

static void fail(struct probe_step *step, const struct transport_result *r)
{
	step->done = true;
	step->hint = r->hint;
	step->took_ns = r->times.total_ns;
	step_says(step, "%s", r->message);
}

static void report_request(struct otlp_wire *w, const struct transport_result *r,
                           struct probe_step *step)
{
	struct outcome_report report = {.hint = "", .taken = 1};

	judge(w, r, 0, &report);
	step->done = true;
	step->ok = report.outcome == OUTCOME_DELIVERED;
	step->hint = report.hint;
	step->took_ns = r->times.total_ns - r->times.tls_ns;
	step_says(step, "%.255s", step->ok ? "the backend takes them" : report.message);
}

/* Each stage that was passed has a time; the first that has none is where it ended. */
static void report_stages(struct otlp_wire *w, const struct transport_result *r, struct probe *ret)
{
	const struct transport_times *t = &r->times;
	struct probe_step *steps = ret->steps;

	if (!w->endpoint.socket) {
		if (t->resolved_ns == 0) {
			fail(&steps[PROBE_RESOLVE], r);
			return;
		}
		pass(&steps[PROBE_RESOLVE], 0, t->resolved_ns);
		step_says(&steps[PROBE_RESOLVE], "%s", r->peer[0] ? r->peer : "resolved");
	}
	if (!r->reached) {
		fail(&steps[PROBE_CONNECT], r);
		return;
	}
	pass(&steps[PROBE_CONNECT], t->resolved_ns, t->connected_ns);
	if (w->endpoint.socket)
		step_says(&steps[PROBE_CONNECT], "%s", w->endpoint.socket);
	else
		step_says(&steps[PROBE_CONNECT], "port %u", r->peer_port);
	if (w->endpoint.tls) {
		if (t->tls_ns == 0) {
			fail(&steps[PROBE_TLS], r);
			return;
		}
		pass(&steps[PROBE_TLS], t->connected_ns, t->tls_ns);
		step_says(&steps[PROBE_TLS], "the certificate is accepted");
	}
	report_request(w, r, &steps[PROBE_REQUEST]);
}

void otlp_wire_probe(struct otlp_wire *w, struct probe *ret)
{
	struct transport_result result;
	struct transport_body body;

	*ret = (struct probe){0};
	snprintf(ret->address, sizeof(ret->address), "%s", w->endpoint.address);
	for (unsigned i = 0; i < PROBE_STAGES; i++)
		ret->steps[i].hint = "";
	if (make_body(w, STR(""), &body))
		return;
	transport_be_fresh(w->transport);
	transport_post(w->transport, &body, &result);
	report_stages(w, &result, ret);
}

/* --- opening --- */

static void rest(struct buf *b)
{
	if (b->room > KEPT_BYTES)
		buf_deinit(b);
}

void otlp_wire_rest(struct otlp_wire *w)
{
	rest(&w->json);
	rest(&w->packed);
	transport_rest(w->transport);
}

void otlp_wire_close(struct otlp_wire *w)
{
	if (!w)
		return;
	transport_close(w->transport);
	endpoint_deinit(&w->endpoint);
	gzip_free(w->gzip);
	buf_deinit(&w->json);
	buf_deinit(&w->packed);
	free(w);
}

static int open_parts(struct otlp_wire *w, const struct sink_host *host)
{
	int err = endpoint_init(&w->endpoint, w->config, w->signal);

	if (err)
		return err;
	if (w->config->compression == COMPRESSION_GZIP) {
		w->gzip = gzip_new();
		if (!w->gzip)
			return -ENOMEM;
	}
	return transport_open(&w->transport, w->config, &w->endpoint, host);
}

int otlp_wire_open(struct otlp_wire **ret, const struct exporter_config *config,
                   enum otlp_signal signal, const struct sink_host *host)
{
	struct otlp_wire *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->config = config;
	w->signal = signal;
	w->max_bytes = CAP_EXPORT_REQUEST;
	buf_init(&w->json, CAP_EXPORT_BODY);
	buf_init(&w->packed, CAP_EXPORT_BODY);
	int err = open_parts(w, host);
	if (err) {
		otlp_wire_close(w);
		return err;
	}
	*ret = w;
	return 0;
}
