/* Records of a log, as OTLP requests of a signal. */
#include "export/sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "core/otlp.h"
#include "core/otlp_logs.h"
#include "export/otlp_wire.h"

enum { KEPT_BYTES = 64 * 1024 }; // the request's buffer at rest

/* What writes a request of as many records as its limits allow. */
typedef size_t encode_fn(struct buf *out, const struct span_record *records, size_t count,
                         const struct otlp_limits *limits);

struct otlp_sink {
	struct sink sink;
	struct otlp_wire *wire;
	encode_fn *encode;
	bool content;
	struct buf request;
};

static void report_too_long(struct outcome_report *ret)
{
	ret->outcome = OUTCOME_REFUSED;
	ret->reason = REJECTED_TOO_LONG;
	ret->taken = 1;
	(void)snprintf(ret->message, sizeof(ret->message), "one alone is longer than %u MiB",
	               CAP_EXPORT_BODY / MIB);
}

static void otlp_sink_send(struct sink *sink, const struct span_record *records, size_t count,
                           struct outcome_report *ret)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;
	struct otlp_limits limits = {CAP_EXPORT_SPANS, otlp_wire_max_bytes(s->wire), s->content};

	ret->taken = s->encode(&s->request, records, count, &limits);
	int err = buf_error(&s->request);
	if (err == -ENOSPC) {
		report_too_long(ret);
		return;
	}
	if (err) {
		ret->outcome = OUTCOME_RETRY;
		(void)snprintf(ret->message, sizeof(ret->message), "can't send: %s", err_str(err));
		return;
	}
	otlp_wire_send(s->wire, (struct str){(const char *)s->request.data, s->request.len}, ret);
}

static void otlp_sink_rest(struct sink *sink)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;

	if (s->request.room > KEPT_BYTES)
		buf_deinit(&s->request);
	otlp_wire_rest(s->wire);
}

static void otlp_sink_close(struct sink *sink)
{
	struct otlp_sink *s = (struct otlp_sink *)sink;

	if (!s)
		return;
	otlp_wire_close(s->wire);
	buf_deinit(&s->request);
	free(s);
}

static const struct sink_ops otlp_sink_ops = {
	.send = otlp_sink_send,
	.rest = otlp_sink_rest,
	.close = otlp_sink_close,
	.pace_ns = 200 * NS_PER_MS,
};

int otlp_sink_open(struct sink **ret, const struct exporter_config *config, enum otlp_signal signal,
                   const struct sink_host *host)
{
	struct otlp_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sink.ops = &otlp_sink_ops;
	s->encode = signal == SIGNAL_LOGS ? otlp_log_request : otlp_request;
	s->content = config->content;
	buf_init(&s->request, CAP_EXPORT_BODY);
	int err = otlp_wire_open(&s->wire, config, signal, host);
	if (err) {
		otlp_sink_close(&s->sink);
		return err;
	}
	*ret = &s->sink;
	return 0;
}
