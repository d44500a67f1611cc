#include "export/export.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "export/check.h"
#include "export/exporter.h"

#define CHECK_KEPT_NS NS_PER_S // its result, for those who ask for it

struct exporters {
	struct exporters_source source;
	pthread_mutex_t lock; // of the list, not of what is in it
	size_t count;
	struct exporter *list[CAP_EXPORTERS];
	struct check *check; // with lock; NULL: none yet
};

int exporters_new(struct exporters **ret, const struct exporters_source *source)
{
	struct exporters *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->source = *source;
	pthread_mutex_init(&x->lock, NULL);
	*ret = x;
	return 0;
}

/* --- their places in the statistics --- */

static struct exporter_stats *find_place(struct stats *stats, const char *name)
{
	unsigned count = atomic_load(&stats->exporter_count);

	for (unsigned i = 0; i < count; i++) {
		if (strcmp(stats->exporters[i].name, name) == 0)
			return &stats->exporters[i];
	}
	if (count == CAP_EXPORTER_NAMES)
		return NULL;
	struct exporter_stats *place = &stats->exporters[count];
	snprintf(place->name, sizeof(place->name), "%s", name);
	atomic_store(&stats->exporter_count, count + 1);
	return place;
}

static void set_active(struct exporter_stats *place, unsigned signals)
{
	atomic_store(&place->signals, signals);
	atomic_store_explicit(&place->active, signals != 0, memory_order_release);
}

/* --- changing them --- */

static void add(struct exporters *x, struct exporter *e)
{
	pthread_mutex_lock(&x->lock);
	x->list[x->count++] = e;
	pthread_mutex_unlock(&x->lock);
}

static struct exporter *take_out(struct exporters *x, size_t i)
{
	struct exporter *e = x->list[i];

	pthread_mutex_lock(&x->lock);
	x->list[i] = x->list[--x->count];
	pthread_mutex_unlock(&x->lock);
	return e;
}

static struct exporter_config *find_equal(struct exporter_config *list, size_t count,
                                          const struct exporter_config *config)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].name && exporter_config_equal(&list[i], config))
			return &list[i];
	}
	return NULL;
}

/* Stops what is not in the list, and empties the list's elements of what goes on. */
static void stop_others(struct exporters *x, struct exporter_config *list, size_t count,
                        struct exporters_change *ret)
{
	for (size_t i = x->count; i > 0; i--) {
		struct exporter *e = x->list[i - 1];
		struct exporter_config *same = find_equal(list, count, &e->config);
		if (same) {
			exporter_config_deinit(same);
			ret->kept++;
			continue;
		}
		take_out(x, i - 1);
		exporter_ask_to_stop(e);
		set_active(e->stats, 0);
		exporter_free(e, 0);
		ret->stopped++;
	}
}

static int start_one(struct exporters *x, struct exporter_config *config)
{
	struct exporter_stats *place = find_place(x->source.stats, config->name);
	unsigned signals = config->signals;
	struct exporter *e;

	if (!place || x->count == CAP_EXPORTERS) {
		exporter_config_deinit(config);
		return -ENOSPC;
	}
	int err = exporter_new(&e, config, &x->source, place);
	if (err)
		return err;
	set_active(place, signals);
	add(x, e);
	return 0;
}

int exporters_change(struct exporters *x, struct exporter_config *list, size_t count,
                     struct exporters_change *ret)
{
	char name[sizeof(ret->failed)];
	int failed = 0;

	*ret = (struct exporters_change){0};
	stop_others(x, list, count, ret);
	for (size_t i = 0; i < count; i++) {
		if (!list[i].name)
			continue;
		snprintf(name, sizeof(name), "%s", list[i].name);
		int err = start_one(x, &list[i]);
		ret->started += err == 0;
		if (err && !failed) {
			failed = err;
			memcpy(ret->failed, name, sizeof(name));
		}
	}
	return failed;
}

/* --- while they run --- */

void exporters_notify(struct exporters *x)
{
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < x->count; i++)
		for (unsigned l = 0; l < x->list[i]->lane_count; l++)
			if (x->list[i]->lanes[l].signal != SIGNAL_METRICS)
				lane_notify(&x->list[i]->lanes[l]);
	pthread_mutex_unlock(&x->lock);
}

void exporters_count_refused(struct exporters *x, uint64_t before_seq, uint64_t starts)
{
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < x->count; i++)
		for (unsigned l = 0; l < x->list[i]->lane_count; l++) {
			struct lane *lane = &x->list[i]->lanes[l];
			if (lane->signal == SIGNAL_TRACES && atomic_load(&lane->at) < before_seq)
				stat_add(&lane->stats->refused, starts);
		}
	pthread_mutex_unlock(&x->lock);
}

/* With the lock: the exporters' configurations hold still. */
static int renew_check(struct exporters *x)
{
	const struct exporter_config *list[CAP_EXPORTERS];
	struct check *fresh;
	uint64_t done_ns;

	if (x->check &&
	    (!check_is_done(x->check, &done_ns) || clock_mono_ns() - done_ns < CHECK_KEPT_NS))
		return 0;
	for (size_t i = 0; i < x->count; i++)
		list[i] = &x->list[i]->config;
	int err = check_start(&fresh, list, x->count);
	if (err)
		return err;
	check_free(x->check);
	x->check = fresh;
	return 0;
}

int exporters_check(struct exporters *x, const char *held_back, struct buf *out)
{
	pthread_mutex_lock(&x->lock);
	int err = renew_check(x);
	if (!err)
		err = check_write(x->check, x->source.store, held_back, out);
	pthread_mutex_unlock(&x->lock);
	return err;
}

void exporters_stop(struct exporters *x, uint64_t grace_ns)
{
	if (!x)
		return;
	uint64_t deadline = clock_mono_ns() + grace_ns;

	check_free(x->check);
	for (size_t i = 0; i < x->count; i++)
		exporter_ask_to_stop(x->list[i]);
	for (size_t i = 0; i < x->count; i++)
		exporter_free(x->list[i], deadline);
	pthread_mutex_destroy(&x->lock);
	free(x);
}
