#include "export/exporter.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { STACK_BYTES = 256 * 1024 };

static void *run(void *arg)
{
	struct lane *l = arg;
	struct exporter *e = l->exporter;

	lane_run(l);
	pthread_mutex_lock(&e->lock);
	e->running--;
	pthread_cond_signal(&e->ended);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* Signals are the loop's: a thread inherits this mask. */
static int start_thread(struct exporter *e, struct lane *l)
{
	pthread_attr_t attr;
	sigset_t all, old;

	int err = pthread_attr_init(&attr);
	if (err)
		return -err;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (!err)
		err = pthread_create(&e->threads[e->started], &attr, run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!err)
		e->started++;
	return -err;
}

static int start_threads(struct exporter *e)
{
	int err = 0;

	// None counts itself out before all have been counted.
	pthread_mutex_lock(&e->lock);
	while (e->started < e->lane_count && !err)
		err = start_thread(e, &e->lanes[e->started]);
	e->running = e->started;
	pthread_mutex_unlock(&e->lock);
	return err;
}

static int open_lanes(struct exporter *e, const struct exporters_source *source)
{
	for (unsigned s = 0; s < SIGNAL_COUNT; s++) {
		struct lane *l = &e->lanes[e->lane_count];
		if (!(e->config.signals & 1u << s))
			continue;
		e->lane_count++;
		*l = (struct lane){
			.exporter = e,
			.source = source,
			.config = &e->config,
			.signal = (enum otlp_signal)s,
			.stopping = &e->stopping,
			.stats = &e->stats->lanes[s],
			.host = {.abort_fd = e->abort_fd},
			.wake_fd = -1,
		};
		int err = lane_open(l);
		if (err)
			return err;
	}
	return 0;
}

static void init_sync(struct exporter *e)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->ended, &attr);
	pthread_condattr_destroy(&attr);
}

int exporter_new(struct exporter **ret, struct exporter_config *config,
                 const struct exporters_source *source, struct exporter_stats *stats)
{
	struct exporter *e = calloc(1, sizeof(*e));

	if (!e) {
		exporter_config_deinit(config);
		return -ENOMEM;
	}
	e->config = *config;
	*config = (struct exporter_config){0};
	e->stats = stats;
	init_sync(e);
	e->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = e->abort_fd < 0 ? -errno : open_lanes(e, source);
	if (!err)
		err = start_threads(e);
	if (err) {
		exporter_ask_to_stop(e);
		exporter_free(e, 0);
		return err;
	}
	*ret = e;
	return 0;
}

void exporter_ask_to_stop(struct exporter *e)
{
	atomic_store(&e->stopping, true);
	for (unsigned i = 0; i < e->started; i++)
		lane_wake(&e->lanes[i]);
}

static struct timespec time_of(uint64_t mono_ns)
{
	return (struct timespec){(time_t)(mono_ns / NS_PER_S), (long)(mono_ns % NS_PER_S)};
}

static void wait_until(struct exporter *e, uint64_t deadline_ns)
{
	struct timespec deadline = time_of(deadline_ns);

	pthread_mutex_lock(&e->lock);
	while (e->running > 0)
		if (pthread_cond_timedwait(&e->ended, &e->lock, &deadline))
			break;
	pthread_mutex_unlock(&e->lock);
}

static void cut_off(struct exporter *e)
{
	uint64_t one = 1;
	ssize_t n = write(e->abort_fd, &one, sizeof(one));

	(void)n; // an eventfd that nobody has written takes this
}

void exporter_free(struct exporter *e, uint64_t deadline_ns)
{
	wait_until(e, deadline_ns);
	cut_off(e);
	for (unsigned i = 0; i < e->started; i++)
		pthread_join(e->threads[i], NULL);
	for (unsigned i = 0; i < e->lane_count; i++)
		lane_close(&e->lanes[i]);
	if (e->abort_fd >= 0)
		close(e->abort_fd);
	exporter_config_deinit(&e->config);
	pthread_cond_destroy(&e->ended);
	pthread_mutex_destroy(&e->lock);
	free(e);
}
