/* exporter.h - one exporter: its configuration and a lane for each of its signals. Private to the
 * room.
 *
 * Each lane has a thread, so that a backend that takes no metrics costs the traces nothing.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "export/lane.h"

struct exporter {
	struct exporter_config config; // its own
	struct exporter_stats *stats;
	unsigned lane_count;
	struct lane lanes[SIGNAL_COUNT];
	pthread_t threads[SIGNAL_COUNT];
	unsigned started; // threads
	atomic_bool stopping;
	int abort_fd;
	pthread_mutex_t lock;
	pthread_cond_t ended; // with lock
	unsigned running;     // with lock: threads that have not ended
};

/** Opens and starts one. Takes *config, which is left empty; on failure as well. -ENOMEM, -EMFILE,
 * and what the lanes' destinations return. */
MUST_CHECK int exporter_new(struct exporter **ret, struct exporter_config *config,
                            const struct exporters_source *source, struct exporter_stats *stats);

/** Asks it to deliver what is stored, and to end. */
void exporter_ask_to_stop(struct exporter *e);

/** Waits until it has ended, cuts it off at deadline_ns (mono), and frees it. */
void exporter_free(struct exporter *e, uint64_t deadline_ns);
