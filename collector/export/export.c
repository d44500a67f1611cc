#include "export/export.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "export/exporter.h"

enum { STACK_BYTES = 256 * 1024 };

/* One of them and its thread. */
struct member {
	struct exporter exporter;
	struct exporters *all;
	pthread_t thread;
	bool started;
};

struct exporters {
	struct store *store;
	size_t count;
	struct member list[CAP_EXPORTERS];
	atomic_bool stopping;
	int abort_fd;
	pthread_mutex_t lock;
	pthread_cond_t ended; // with lock
	size_t running;       // with lock
};

static void *run(void *arg)
{
	struct member *m = arg;

	exporter_run(&m->exporter);
	pthread_mutex_lock(&m->all->lock);
	m->all->running--;
	pthread_cond_signal(&m->all->ended);
	pthread_mutex_unlock(&m->all->lock);
	return NULL;
}

/* Signals are the loop's: a thread inherits this mask. */
static int start_thread(struct member *m)
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
		err = pthread_create(&m->thread, &attr, run, m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	m->started = err == 0;
	return -err;
}

static struct exporters *new_exporters(struct store *store)
{
	struct exporters *x = calloc(1, sizeof(*x));
	pthread_condattr_t attr;

	if (!x)
		return NULL;
	x->store = store;
	x->abort_fd = -1;
	pthread_mutex_init(&x->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&x->ended, &attr);
	pthread_condattr_destroy(&attr);
	return x;
}

static void free_exporters(struct exporters *x)
{
	for (size_t i = 0; i < x->count; i++)
		exporter_close(&x->list[i].exporter);
	if (x->abort_fd >= 0)
		close(x->abort_fd);
	pthread_cond_destroy(&x->ended);
	pthread_mutex_destroy(&x->lock);
	free(x);
}

static int open_all(struct exporters *x, const struct config *config, struct stats *stats)
{
	x->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (x->abort_fd < 0)
		return -errno;
	for (size_t i = 0; i < config->exporter_count; i++) {
		struct member *m = &x->list[x->count++];
		m->all = x;
		m->exporter = (struct exporter){
			.store = x->store,
			.stopping = &x->stopping,
			.config = &config->exporters[i],
			.stats = &stats->exporters[i].lanes[SIGNAL_TRACES],
			.host = {.abort_fd = x->abort_fd},
		};
		snprintf(stats->exporters[i].name, sizeof(stats->exporters[i].name), "%s",
		         config->exporters[i].name);
		atomic_store(&stats->exporters[i].signals, 1u << SIGNAL_TRACES);
		atomic_store(&stats->exporters[i].active, true);
		int err = exporter_open(&m->exporter);
		if (err)
			return err;
	}
	atomic_store(&stats->exporter_count, (unsigned)x->count);
	return 0;
}

static int start_all(struct exporters *x)
{
	int err = 0;

	// None ends, and so none counts itself out, before all have been counted.
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < x->count && !err; i++) {
		err = start_thread(&x->list[i]);
		if (!err)
			x->running++;
	}
	pthread_mutex_unlock(&x->lock);
	return err;
}

int exporters_start(struct exporters **ret, const struct config *config, struct store *store,
                    struct stats *stats)
{
	if (config->exporter_count > CAP_EXPORTERS)
		return -EINVAL;
	struct exporters *x = new_exporters(store);
	if (!x)
		return -ENOMEM;
	int err = open_all(x, config, stats);
	if (err) {
		free_exporters(x);
		return err;
	}
	err = start_all(x);
	if (err) {
		exporters_stop(x, 0);
		return err;
	}
	*ret = x;
	return 0;
}

void exporters_notify(struct exporters *x)
{
	for (size_t i = 0; i < x->count; i++)
		exporter_notify(&x->list[i].exporter);
}

static void abort_all(struct exporters *x)
{
	uint64_t one = 1;
	ssize_t n = write(x->abort_fd, &one, sizeof(one));

	(void)n; // an eventfd that nobody has written takes this
}

static struct timespec deadline_of(uint64_t mono_ns)
{
	return (struct timespec){(time_t)(mono_ns / NS_PER_S), (long)(mono_ns % NS_PER_S)};
}

void exporters_stop(struct exporters *x, uint64_t grace_ns)
{
	if (!x)
		return;
	struct timespec deadline = deadline_of(clock_mono_ns() + grace_ns);
	atomic_store(&x->stopping, true);
	for (size_t i = 0; i < x->count; i++)
		exporter_wake(&x->list[i].exporter);
	pthread_mutex_lock(&x->lock);
	while (x->running > 0)
		if (pthread_cond_timedwait(&x->ended, &x->lock, &deadline))
			break;
	pthread_mutex_unlock(&x->lock);
	abort_all(x);
	for (size_t i = 0; i < x->count; i++)
		if (x->list[i].started)
			pthread_join(x->list[i].thread, NULL);
	free_exporters(x);
}
