/* The exporters' loop over a store and a destination that do as they are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "export/check.h"
#include "export/export.h"
#include "export/otlp_wire.h"
#include "export/sink.h"
#include "store/cursor.h"
#include "store/store.h"

enum { MAX_SPANS = 20000, MAX_SCRIPT = 8, CHUNK = 1000, EXPORTERS = 2 };

/* --- a store: spans with the numbers from `oldest` to `next` --- */

struct store {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t oldest, next;
	struct cursor places[EXPORTERS];
	uint64_t cursors[EXPORTERS]; // the places' sequence numbers
	unsigned opened;
	int read_errors;  // so many reads fail
	uint64_t damaged; // so many spans at the end of a chunk can't be read
};

static struct store store = {.lock = PTHREAD_MUTEX_INITIALIZER,
                             .changed = PTHREAD_COND_INITIALIZER};

static uint64_t at_least(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static int fake_index(const char *name)
{
	return strcmp(name, "second") == 0;
}

int store_read(struct store *s, enum which_log which, uint64_t from_seq, size_t max_bytes,
               struct buf *out, struct store_chunk *ret)
{
	pthread_mutex_lock(&s->lock);
	int err = s->read_errors > 0 ? ERR_CORRUPT : 0;
	s->read_errors -= err != 0;
	buf_clear(out);
	uint64_t first = at_least(from_seq, s->oldest);
	uint64_t count = s->next > first ? s->next - first : 0;
	count = count > CHUNK ? CHUNK : count;
	if (!err) {
		uint64_t bad = s->damaged < count ? s->damaged : count;
		*ret = (struct store_chunk){first, first + count, first - from_seq + bad,
		                            count - bad};
		buf_extend(out, count == CHUNK ? max_bytes : count);
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

int chunk_each(const struct buf *chunk, const struct store_chunk *range, store_span_fn *fn,
               void *ctx)
{
	for (uint64_t i = 0; i < range->count; i++)
		if (!fn(ctx, &(struct span_record){.seq = range->first_seq + i}))
			break;
	return 0;
}

int cursor_open(struct store *s, const char *name, enum which_log which, bool from_beginning,
                struct cursor *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->places[fake_index(name)];
	s->opened++;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void cursor_close(struct store *s, const char *name)
{
}

void store_bounds(struct store *s, enum which_log which, uint64_t *ret_first, uint64_t *ret_next)
{
	pthread_mutex_lock(&s->lock);
	*ret_first = s->oldest;
	*ret_next = s->next;
	pthread_mutex_unlock(&s->lock);
}

void cursor_note(struct store *s, const char *name, const struct cursor *c)
{
	struct cursor *place = &s->places[fake_index(name)];

	pthread_mutex_lock(&s->lock);
	assert_true(c->seq >= place->seq);
	assert_int_equal(c->delivered + c->rejected + c->evicted, c->seq - 1);
	*place = *c;
	s->cursors[fake_index(name)] = c->seq;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* --- a destination that follows a script, then delivers all it gets --- */

struct fake_sink {
	struct sink sink;
	const struct sink_host *host;
	struct outcome_report script[MAX_SCRIPT];
	uint64_t scripted, tries;
	bool hangs;
	uint64_t seen[MAX_SPANS]; // tries of each span that ended in DELIVERED
	uint64_t last;            // the span that was delivered last
	bool in_order;
};

static struct fake_sink sinks[EXPORTERS];

static void hang(const struct fake_sink *f)
{
	struct pollfd p = {.fd = f->host->abort_fd, .events = POLLIN};

	while (poll(&p, 1, -1) < 0)
		;
}

static void fake_send(struct sink *sink, const struct span_record *spans, size_t count,
                      struct outcome_report *ret)
{
	struct fake_sink *f = (struct fake_sink *)sink;

	pthread_mutex_lock(&store.lock);
	*ret = (struct outcome_report){.outcome = OUTCOME_DELIVERED, .taken = count, .hint = ""};
	if (f->tries < f->scripted)
		*ret = f->script[f->tries];
	if (ret->taken == 0 || ret->taken > count)
		ret->taken = count;
	f->tries++;
	for (size_t i = 0; ret->outcome == OUTCOME_DELIVERED && i < ret->taken && !f->hangs; i++) {
		f->in_order = f->in_order && spans[i].seq == f->last + 1;
		f->last = spans[i].seq;
		f->seen[spans[i].seq]++;
	}
	pthread_cond_broadcast(&store.changed);
	pthread_mutex_unlock(&store.lock);
	if (f->hangs) {
		hang(f);
		ret->outcome = OUTCOME_ABORTED;
	}
}

static void fake_rest(struct sink *sink)
{
}

static const struct sink_ops fake_ops = {
	.send = fake_send,
	.rest = fake_rest,
	.close = fake_rest,
	.pace_ns = NS_PER_MS,
};

int otlp_sink_open(struct sink **ret, const struct exporter_config *config, enum otlp_signal signal,
                   const struct sink_host *host)
{
	struct fake_sink *f = &sinks[fake_index(config->name)];

	f->host = host;
	*ret = &f->sink;
	return 0;
}

int console_open(struct sink **ret, const struct exporter_config *config,
                 const struct sink_host *host)
{
	return -ENOENT;
}

/* --- a backend for metrics: fails once, then takes all --- */

static struct {
	uint64_t reports, points;
} metrics_backend;

int otlp_wire_open(struct otlp_wire **ret, const struct exporter_config *c, enum otlp_signal signal,
                   const struct sink_host *host)
{
	assert_int_equal(signal, SIGNAL_METRICS);
	return 0;
}

void otlp_wire_close(struct otlp_wire *w)
{
}

void otlp_wire_rest(struct otlp_wire *w)
{
}

void otlp_wire_send(struct otlp_wire *w, struct str request, struct outcome_report *ret)
{
	pthread_mutex_lock(&store.lock);
	ret->outcome = metrics_backend.reports++ ? OUTCOME_DELIVERED : OUTCOME_RETRY;
	if (ret->outcome == OUTCOME_DELIVERED)
		metrics_backend.points += ret->taken;
	pthread_cond_broadcast(&store.changed);
	pthread_mutex_unlock(&store.lock);
}

static size_t write_metrics(void *ctx, struct buf *out)
{
	buf_append_str(out, "metrics");
	return 3;
}

/* --- no tries on the side --- */

int check_start(struct check **ret, const struct exporter_config *const *list, size_t count)
{
	return -ENOTSUP;
}

bool check_is_done(struct check *c, uint64_t *ret_when_ns)
{
	return true;
}

void check_free(struct check *c)
{
}

int check_write(struct check *c, struct store *s, const char *held_back, struct buf *out)
{
	return 0;
}

/* --- the tests' own --- */

static char first_name[] = "first", second_name[] = "second";
static struct exporter_config configs[EXPORTERS];
static size_t config_count;
static struct stats *stats;
static struct exporters *exporters;

static int setup(void **state)
{
	log_set_level(LOG_ERROR + 1);
	store.oldest = store.next = 1;
	store.opened = 0;
	store.read_errors = 0;
	store.damaged = 0;
	memset(sinks, 0, sizeof(sinks));
	memset(&metrics_backend, 0, sizeof(metrics_backend));
	for (int i = 0; i < EXPORTERS; i++) {
		store.cursors[i] = 1;
		store.places[i] = (struct cursor){.seq = 1};
		sinks[i].sink.ops = &fake_ops;
		sinks[i].in_order = true;
		configs[i] = (struct exporter_config){
			.name = i ? second_name : first_name,
			.type = EXPORTER_OTLP,
			.signals = 1u << SIGNAL_TRACES,
			.interval_ns = NS_PER_MS,
		};
	}
	config_count = 1;
	stats = calloc(1, sizeof(*stats));
	exporters = NULL;
	return stats ? 0 : -1;
}

static int teardown(void **state)
{
	exporters_stop(exporters, 0);
	free(stats);
	return 0;
}

/* Makes the exporters those of configs. */
static struct exporters_change change(void)
{
	struct exporter_config list[EXPORTERS];
	struct exporters_change c;

	for (size_t i = 0; i < config_count; i++) {
		list[i] = configs[i];
		list[i].endpoint = strdup("http://localhost");
		list[i].name = strdup(configs[i].name);
	}
	assert_int_equal(exporters_change(exporters, list, config_count, &c), 0);
	return c;
}

static void start(void)
{
	struct exporters_source source = {&store, stats, write_metrics, NULL};

	assert_int_equal(exporters_new(&exporters, &source), 0);
	change();
}

static void stop(uint64_t grace_ns)
{
	exporters_stop(exporters, grace_ns);
	exporters = NULL;
}

static void script(unsigned i, struct outcome_report r)
{
	r.hint = "";
	sinks[i].script[sinks[i].scripted++] = r;
}

static void add_spans(uint64_t n)
{
	pthread_mutex_lock(&store.lock);
	store.next += n;
	pthread_mutex_unlock(&store.lock);
	if (exporters)
		exporters_notify(exporters);
}

static void wait_until(uint64_t *value, uint64_t least)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	int err = 0;
	pthread_mutex_lock(&store.lock);
	while (*value < least && !err)
		err = pthread_cond_timedwait(&store.changed, &store.lock, &limit);
	pthread_mutex_unlock(&store.lock);
	assert_int_equal(err, 0);
}

/* After stop(): delivered + rejected + evicted + pending is what was stored. */
static void assert_ledger(unsigned i, uint64_t delivered, uint64_t rejected, uint64_t evicted)
{
	const struct lane_stats *e = &stats->exporters[i].lanes[SIGNAL_TRACES];

	assert_int_equal(stat_get(&e->delivered), delivered);
	assert_int_equal(stat_get(&e->rejected), rejected);
	assert_int_equal(stat_get(&e->evicted), evicted);
	assert_int_equal(stat_get(&e->pending), store.next - 1 - delivered - rejected - evicted);
}

static void what_is_stored_is_delivered_once_and_in_order(void **state)
{
	add_spans(3 * CHUNK + 7);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_true(sinks[0].in_order);
	assert_int_equal(sinks[0].last, 3 * CHUNK + 7);
	assert_ledger(0, 3 * CHUNK + 7, 0, 0);
}

static void new_spans_wake_a_sleeping_exporter(void **state)
{
	start();
	for (uint64_t i = 0; i < 5; i++) {
		add_spans(10);
		wait_until(&store.cursors[0], store.next);
	}
	stop(NS_PER_S);
	assert_true(sinks[0].in_order);
	assert_ledger(0, 50, 0, 0);
}

static void a_failed_try_is_made_again_with_the_same_spans(void **state)
{
	script(0, (struct outcome_report){.outcome = OUTCOME_RETRY, .message = "no"});
	script(0, (struct outcome_report){.outcome = OUTCOME_RETRY, .message = "no"});
	add_spans(100);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_int_equal(sinks[0].tries, 3);
	assert_true(sinks[0].in_order);
	assert_int_equal(stat_get(&stats->exporters[0].lanes[SIGNAL_TRACES].failures), 2);
	assert_ledger(0, 100, 0, 0);
}

static void refused_spans_are_counted_by_reason_and_passed_over(void **state)
{
	script(0, (struct outcome_report){
			  .outcome = OUTCOME_REFUSED, .reason = REJECTED_HTTP_400, .taken = 30});
	add_spans(100);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_int_equal(
		stat_get(&stats->exporters[0].lanes[SIGNAL_TRACES].rejected_by[REJECTED_HTTP_400]),
		30);
	assert_ledger(0, 70, 30, 0);
}

static void a_partial_success_is_not_sent_again(void **state)
{
	script(0, (struct outcome_report){.outcome = OUTCOME_DELIVERED,
	                                  .reason = REJECTED_PARTIAL_SUCCESS,
	                                  .refused = 4});
	add_spans(10);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_int_equal(sinks[0].tries, 1);
	assert_int_equal(stat_get(&stats->exporters[0]
	                                   .lanes[SIGNAL_TRACES]
	                                   .rejected_by[REJECTED_PARTIAL_SUCCESS]),
	                 4);
	assert_ledger(0, 6, 4, 0);
}

static void what_a_try_leaves_goes_into_the_next_one(void **state)
{
	for (size_t i = 0; i < 4; i++)
		script(0, (struct outcome_report){.outcome = OUTCOME_DELIVERED, .taken = i + 1});
	script(0, (struct outcome_report){.outcome = OUTCOME_SMALLER});
	add_spans(100);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_int_equal(sinks[0].tries, 6);
	assert_true(sinks[0].in_order);
	assert_ledger(0, 100, 0, 0);
}

static void what_retention_took_is_counted_as_evicted(void **state)
{
	add_spans(100);
	store.oldest = 41;
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_ledger(0, 60, 0, 40);
}

static void evictions_are_counted_while_a_backend_is_down(void **state)
{
	for (int i = 0; i < 4; i++)
		script(0, (struct outcome_report){.outcome = OUTCOME_RETRY, .message = "down"});
	add_spans(2 * CHUNK);
	start();
	wait_until(&sinks[0].tries, 1);
	pthread_mutex_lock(&store.lock);
	store.oldest = 1 + CHUNK + CHUNK / 2;
	pthread_mutex_unlock(&store.lock);
	// The chunk being tried is in memory and still to be delivered; half of the rest is lost.
	wait_until(&sinks[0].tries, 3);
	assert_int_equal(stat_get(&stats->exporters[0].lanes[SIGNAL_TRACES].evicted), CHUNK / 2);
	assert_int_equal(stat_get(&stats->exporters[0].lanes[SIGNAL_TRACES].pending),
	                 CHUNK + CHUNK / 2);
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_ledger(0, CHUNK + CHUNK / 2, 0, CHUNK / 2);
}

static void what_a_predecessor_counted_as_evicted_is_not_counted_again(void **state)
{
	sinks[0].hangs = true;
	add_spans(3 * CHUNK);
	start();
	wait_until(&sinks[0].tries, 1);
	pthread_mutex_lock(&store.lock);
	store.oldest = 1 + CHUNK + CHUNK / 2; // the chunk in its hands, and some that it counts
	pthread_mutex_unlock(&store.lock);
	sinks[0].host->tick(sinks[0].host->ctx);
	configs[0].content = true;
	assert_int_equal(change().started, 1);
	wait_until(&sinks[0].tries, 2);
	stop(0);
	assert_ledger(0, 0, 0, CHUNK + CHUNK / 2);
	assert_int_equal(store.places[0].evicted, CHUNK + CHUNK / 2);
}

static void all_of_it_may_be_evicted(void **state)
{
	add_spans(100);
	store.oldest = store.next;
	start();
	add_spans(1);
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_ledger(0, 1, 0, 100);
}

static void damaged_spans_count_as_lost_wherever_they_are(void **state)
{
	add_spans(100);
	store.damaged = 5;
	store.oldest = 11;
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_ledger(0, 85, 0, 15);
}

static void a_store_that_can_not_be_read_is_tried_again(void **state)
{
	store.read_errors = 1;
	add_spans(10);
	start();
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_ledger(0, 10, 0, 0);
}

static void stopping_delivers_what_is_stored(void **state)
{
	add_spans(5 * CHUNK);
	start();
	stop(20 * NS_PER_S);
	assert_ledger(0, 5 * CHUNK, 0, 0);
}

static void stopping_ends_a_hanging_try_after_the_grace(void **state)
{
	sinks[0].hangs = true;
	add_spans(10);
	start();
	wait_until(&sinks[0].tries, 1);
	uint64_t before = clock_mono_ns();
	stop(100 * NS_PER_MS);
	assert_in_range(clock_mono_ns() - before, 100 * NS_PER_MS, 5 * NS_PER_S);
	assert_int_equal(store.cursors[0], 1);
	assert_ledger(0, 0, 0, 0);
}

static void stopping_does_not_wait_for_a_backend_that_is_down(void **state)
{
	for (int i = 0; i < MAX_SCRIPT; i++)
		script(0, (struct outcome_report){.outcome = OUTCOME_RETRY, .message = "down"});
	add_spans(10);
	start();
	wait_until(&sinks[0].tries, 2);
	uint64_t before = clock_mono_ns();
	stop(60 * NS_PER_S);
	assert_true(clock_mono_ns() - before < 10 * NS_PER_S);
	assert_int_equal(store.cursors[0], 1);
	assert_ledger(0, 0, 0, 0);
}

/* Else they are sent again after the next start. */
static void what_went_before_a_backend_went_down_is_settled(void **state)
{
	script(0, (struct outcome_report){.outcome = OUTCOME_DELIVERED, .taken = 5});
	for (int i = 1; i < MAX_SCRIPT; i++)
		script(0, (struct outcome_report){.outcome = OUTCOME_RETRY, .message = "down"});
	add_spans(10);
	start();
	wait_until(&sinks[0].tries, 2);
	stop(60 * NS_PER_S);
	assert_int_equal(store.cursors[0], 6);
	assert_ledger(0, 5, 0, 0);
}

static void a_server_that_asked_us_to_stay_away_gets_no_last_try(void **state)
{
	script(0, (struct outcome_report){.outcome = OUTCOME_RETRY,
	                                  .message = "later",
	                                  .retry_after_ns = 300 * NS_PER_S});
	add_spans(10);
	start();
	wait_until(&sinks[0].tries, 1);
	stop(60 * NS_PER_S);
	assert_int_equal(sinks[0].tries, 1);
	assert_ledger(0, 0, 0, 0);
}

static void a_hanging_exporter_holds_up_no_other(void **state)
{
	config_count = 2;
	sinks[0].hangs = true;
	add_spans(10);
	start();
	wait_until(&sinks[0].tries, 1);
	for (int i = 0; i < 3; i++) {
		add_spans(10);
		wait_until(&store.cursors[1], store.next);
	}
	stop(0);
	assert_ledger(0, 0, 0, 0);
	assert_ledger(1, 40, 0, 0);
}

static void metrics_are_reported_until_a_backend_takes_them(void **state)
{
	configs[0].signals = 1u << SIGNAL_METRICS;
	start();
	wait_until(&metrics_backend.points, 6);
	stop(NS_PER_S);
	const struct lane_stats *lane = &stats->exporters[0].lanes[SIGNAL_METRICS];
	assert_int_equal(stat_get(&lane->failures), 1);
	assert_int_equal(stat_get(&lane->delivered), metrics_backend.points);
	assert_int_equal(stat_get(&lane->requests), metrics_backend.reports);
}

static void a_change_leaves_alone_what_stays_the_same(void **state)
{
	start();
	add_spans(10);
	wait_until(&store.cursors[0], store.next);
	config_count = 2;
	struct exporters_change c = change();
	assert_int_equal(c.kept, 1);
	assert_int_equal(c.started, 1);
	assert_int_equal(c.stopped, 0);
	assert_int_equal(store.opened, 2);
	wait_until(&store.cursors[1], store.next);
	config_count = 1;
	c = change();
	assert_int_equal(c.kept, 1);
	assert_int_equal(c.stopped, 1);
	assert_false(stats->exporters[1].active);
	stop(NS_PER_S);
	assert_ledger(0, 10, 0, 0);
}

static void a_changed_exporter_goes_on_from_its_cursor(void **state)
{
	start();
	add_spans(10);
	wait_until(&store.cursors[0], store.next);
	configs[0].content = true;
	struct exporters_change c = change();
	assert_int_equal(c.started, 1);
	assert_int_equal(c.stopped, 1);
	add_spans(10);
	wait_until(&store.cursors[0], store.next);
	stop(NS_PER_S);
	assert_true(sinks[0].in_order);
	assert_ledger(0, 20, 0, 0);
}

static void refused_starts_are_counted_where_the_store_is_held(void **state)
{
	config_count = 2;
	sinks[0].hangs = true;
	add_spans(10);
	start();
	wait_until(&store.cursors[1], store.next);
	exporters_count_refused(exporters, 5, 3);
	stop(0);
	assert_int_equal(stat_get(&stats->exporters[0].lanes[SIGNAL_TRACES].refused), 3);
	assert_int_equal(stat_get(&stats->exporters[1].lanes[SIGNAL_TRACES].refused), 0);
	assert_int_equal(store.places[0].refused, 3); // though nothing moved
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		test(what_is_stored_is_delivered_once_and_in_order),
		test(new_spans_wake_a_sleeping_exporter),
		test(metrics_are_reported_until_a_backend_takes_them),
		test(a_change_leaves_alone_what_stays_the_same),
		test(a_changed_exporter_goes_on_from_its_cursor),
		test(refused_starts_are_counted_where_the_store_is_held),
		test(a_failed_try_is_made_again_with_the_same_spans),
		test(refused_spans_are_counted_by_reason_and_passed_over),
		test(a_partial_success_is_not_sent_again),
		test(what_a_try_leaves_goes_into_the_next_one),
		test(what_retention_took_is_counted_as_evicted),
		test(evictions_are_counted_while_a_backend_is_down),
		test(what_a_predecessor_counted_as_evicted_is_not_counted_again),
		test(all_of_it_may_be_evicted),
		test(damaged_spans_count_as_lost_wherever_they_are),
		test(a_store_that_can_not_be_read_is_tried_again),
		test(stopping_delivers_what_is_stored),
		test(stopping_ends_a_hanging_try_after_the_grace),
		test(stopping_does_not_wait_for_a_backend_that_is_down),
		test(what_went_before_a_backend_went_down_is_settled),
		test(a_server_that_asked_us_to_stay_away_gets_no_last_try),
		test(a_hanging_exporter_holds_up_no_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
