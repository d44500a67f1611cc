/* Metrics, as they are at the moment of a report. One that could not be sent is not kept: the next
 * holds the same sums and newer ones. */
#include "export/lane.h"

#include "base/clock.h"

/* False: the abort descriptor was raised. */
static bool try_report(struct lane *l, struct outcome_report *ret)
{
	*ret = (struct outcome_report){.hint = ""};
	buf_clear(&l->report);
	ret->taken = l->source->write_metrics(l->source->ctx, &l->report);
	if (buf_error(&l->report) || ret->taken == 0) {
		ret->taken = 0;
		return true;
	}
	struct str request = {(const char *)l->report.data, l->report.len};
	otlp_wire_send(l->wire, request, ret);
	if (ret->outcome == OUTCOME_ABORTED)
		return false;
	stat_add(&l->stats->requests, 1);
	if (ret->outcome == OUTCOME_SMALLER) { // there is nothing to leave for later
		ret->outcome = OUTCOME_REFUSED;
		ret->reason = REJECTED_HTTP_413;
	}
	return true;
}

/* False: there is no further try. */
static bool report(struct lane *l)
{
	struct outcome_report r;

	do {
		if (!try_report(l, &r))
			return false;
		if (r.taken == 0)
			return true;
	} while (r.outcome == OUTCOME_RETRY && lane_wait_for_retry(l, &r));
	if (r.outcome == OUTCOME_RETRY)
		return false;
	lane_settled(l, &r);
	return true;
}

void metrics_run(struct lane *l)
{
	uint64_t due = clock_mono_ns();
	bool stopping = false;

	while (!stopping && !lane_is_aborted(l)) {
		due += l->config->interval_ns;
		lane_pause_until(l, due);
		stopping = lane_is_stopping(l);
		if (!report(l))
			break;
		otlp_wire_rest(l->wire);
		buf_deinit(&l->report);
		if (due < clock_mono_ns()) // an outage was longer than the interval
			due = clock_mono_ns();
	}
}

int metrics_open(struct lane *l)
{
	buf_init(&l->report, CAP_EXPORT_BODY);
	return otlp_wire_open(&l->wire, l->config, SIGNAL_METRICS, &l->host);
}

void metrics_close(struct lane *l)
{
	otlp_wire_close(l->wire);
	buf_deinit(&l->report);
}
