#include "export/lane.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/stats_report.h"
#include "export/answer.h"

#define LOG_EVERY_NS (10 * NS_PER_S) // one lane's failures, when they come and go

_Static_assert(REJECTION_COUNT <= 64, "a bit each in rejections_logged");

/* --- waiting --- */

void lane_wake(struct lane *l)
{
	uint64_t one = 1;
	ssize_t n = write(l->wake_fd, &one, sizeof(one));

	(void)n; // can only fail because it is raised already
}

void lane_notify(struct lane *l)
{
	if (atomic_exchange(&l->asleep, false))
		lane_wake(l);
}

static void lower_fd(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

bool lane_is_stopping(const struct lane *l)
{
	return atomic_load(l->stopping);
}

bool lane_is_aborted(const struct lane *l)
{
	struct pollfd p = {.fd = l->host.abort_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

void lane_wait(struct lane *l, int timeout_ms)
{
	struct pollfd p = {.fd = l->wake_fd, .events = POLLIN};

	if (poll(&p, 1, timeout_ms) > 0)
		lower_fd(l->wake_fd);
}

static void tick(void *ctx)
{
	struct lane *l = ctx;

	if (l->signal != SIGNAL_METRICS)
		records_watch(l);
}

void lane_pause_until(struct lane *l, uint64_t until_ns)
{
	for (;;) {
		uint64_t now = clock_mono_ns();
		if (now >= until_ns || lane_is_stopping(l))
			return;
		uint64_t ms = (until_ns - now + NS_PER_MS - 1) / NS_PER_MS;
		// Records are watched meanwhile; metrics wait for nothing.
		bool whole = ms < SINK_TICK_MS || l->signal == SIGNAL_METRICS;
		lane_wait(l, whole ? (int)ms : SINK_TICK_MS);
		if (!whole)
			tick(l);
	}
}

/* --- what came of a try --- */

static const char *separator(const char *hint)
{
	return *hint ? "; " : "";
}

static void log_failure(struct lane *l, const struct outcome_report *r)
{
	uint64_t now = clock_mono_ns();

	if (!l->failing_since_ns)
		l->failing_since_ns = now;
	if (l->failure_is_logged || (l->logged_ns && now - l->logged_ns < LOG_EVERY_NS))
		return;
	log_warn("exporter %s: %s%s%s; %s", l->label, r->message, separator(r->hint), r->hint,
	         l->signal == SIGNAL_METRICS ? "trying on" : "what is stored waits, trying on");
	l->failure_is_logged = true;
	l->logged_ns = now;
}

/* Once for each reason: the counters say how often. */
static void log_rejection(struct lane *l, const struct outcome_report *r, uint64_t count)
{
	uint64_t bit = 1ull << r->reason;

	if (l->rejections_logged & bit)
		return;
	l->rejections_logged |= bit;
	log_warn("exporter %s: %" PRIu64 " %s rejected for good (%s): %s%s%s; more of this kind "
	         "is only counted",
	         l->label, count, signal_items(l->signal), rejection_label(r->reason), r->message,
	         separator(r->hint), r->hint);
}

/* What a backend says about what it took. */
static void log_notice(struct lane *l, const struct outcome_report *r)
{
	if (l->notice_is_logged || !r->message[0])
		return;
	l->notice_is_logged = true;
	log_info("exporter %s: %s", l->label, r->message);
}

bool lane_wait_for_retry(struct lane *l, const struct outcome_report *r)
{
	uint32_t random = 0;

	stat_add(&l->stats->failures, 1);
	log_failure(l, r);
	if (lane_is_stopping(l))
		return false;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)clock_mono_ns();
	tick(l);
	lane_pause_until(l, clock_mono_ns() + retry_failed(&l->retry, r->retry_after_ns, random));
	// When the end begins meanwhile, one last try: unless the server asked us to stay away.
	return !(lane_is_stopping(l) && r->retry_after_ns);
}

uint64_t rejected_of(const struct outcome_report *r)
{
	return r->outcome == OUTCOME_DELIVERED ? r->refused : r->taken;
}

static void note_success(struct lane *l)
{
	if (l->failure_is_logged)
		log_info("exporter %s: delivering again after %.1f s", l->label,
		         (double)(clock_mono_ns() - l->failing_since_ns) / 1e9);
	l->failure_is_logged = false;
	l->failing_since_ns = 0;
	retry_succeeded(&l->retry);
}

void lane_settled(struct lane *l, const struct outcome_report *r)
{
	uint64_t rejected = rejected_of(r);

	note_success(l);
	stat_add(&l->stats->delivered, r->taken - rejected);
	if (rejected == 0) {
		log_notice(l, r);
		return;
	}
	stat_add(&l->stats->rejected, rejected);
	stat_add(&l->stats->rejected_by[r->reason], rejected);
	log_rejection(l, r, rejected);
}

/* --- the whole of it --- */

int lane_open(struct lane *l)
{
	bool traces = l->signal == SIGNAL_TRACES;

	snprintf(l->label, sizeof(l->label), traces ? "%s" : "%s (%s)", l->config->name,
	         signal_word(l->signal));
	l->host.tick = tick;
	l->host.ctx = l;
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0)
		return -errno;
	return l->signal == SIGNAL_METRICS ? metrics_open(l) : records_open(l);
}

void lane_run(struct lane *l)
{
	char name[16]; // the kernel keeps no more

	snprintf(name, sizeof(name), "export-%s", l->config->name);
	prctl(PR_SET_NAME, name);
	if (l->signal == SIGNAL_METRICS)
		metrics_run(l);
	else
		records_run(l);
}

void lane_close(struct lane *l)
{
	if (l->signal == SIGNAL_METRICS)
		metrics_close(l);
	else
		records_close(l);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
}
