#include "export/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "core/stats_report.h"
#include "export/otlp_wire.h"
#include "store/cursor.h"
#include "store/store.h"

/* One exporter and signal. */
struct trial {
	const struct exporter_config *config;
	enum otlp_signal signal;
	bool done; // with lock
	int error; // it could not even be opened
	struct probe probe;
};

enum { AT_ONCE = 8 }; // a backend that hangs takes its whole timeout

struct check {
	pthread_t threads[AT_ONCE];
	unsigned started; // threads
	int abort_fd;
	pthread_mutex_t lock;
	bool aborted;   // with lock, as what follows
	size_t begun;   // tries
	unsigned ended; // threads
	uint64_t done_ns;
	size_t count;
	size_t config_count;
	struct exporter_config *configs;
	struct trial tries[];
};

/* --- trying --- */

static void no_tick(void *ctx)
{
	// Nothing waits for us.
}

static void try_one(struct check *c, struct trial *t)
{
	struct sink_host host = {.abort_fd = c->abort_fd, .tick = no_tick};
	struct probe probe = {{0}};
	struct otlp_wire *wire;

	int err = otlp_wire_open(&wire, t->config, t->signal, &host);
	if (err == 0) {
		otlp_wire_probe(wire, &probe);
		otlp_wire_close(wire);
	}
	pthread_mutex_lock(&c->lock);
	t->error = err;
	t->probe = probe;
	t->done = true;
	pthread_mutex_unlock(&c->lock);
}

/* The next one that nobody has begun; NULL: there is none. */
static struct trial *take_one(struct check *c)
{
	pthread_mutex_lock(&c->lock);
	struct trial *t = c->begun < c->count && !c->aborted ? &c->tries[c->begun++] : NULL;
	pthread_mutex_unlock(&c->lock);
	return t;
}

static void *run(void *arg)
{
	struct check *c = arg;
	struct trial *t;

	while ((t = take_one(c)) != NULL)
		try_one(c, t);
	pthread_mutex_lock(&c->lock);
	if (++c->ended == c->started)
		c->done_ns = clock_mono_ns();
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* One thread is enough: fewer than wanted only take longer. */
static int start_threads(struct check *c)
{
	int err = 0;

	// None counts itself out before all have been counted.
	pthread_mutex_lock(&c->lock);
	do
		err = pthread_create(&c->threads[c->started], NULL, run, c);
	while (err == 0 && ++c->started < AT_ONCE && c->started < c->count);
	pthread_mutex_unlock(&c->lock);
	return c->started > 0 ? 0 : -err;
}

static int copy_configs(struct check *c, const struct exporter_config *const *list, size_t count)
{
	c->configs = calloc(count + 1, sizeof(*c->configs));
	if (!c->configs)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		int err = exporter_config_copy(&c->configs[i], list[i]);
		if (err)
			return err;
		c->config_count++;
	}
	return 0;
}

static void list_tries(struct check *c)
{
	for (size_t i = 0; i < c->config_count * SIGNAL_COUNT; i++) {
		const struct exporter_config *config = &c->configs[i / SIGNAL_COUNT];
		enum otlp_signal signal = (enum otlp_signal)(i % SIGNAL_COUNT);
		if (config->type == EXPORTER_OTLP && config->signals & 1u << signal)
			c->tries[c->count++] = (struct trial){.config = config, .signal = signal};
	}
}

static void free_parts(struct check *c)
{
	for (size_t i = 0; i < c->config_count; i++)
		exporter_config_deinit(&c->configs[i]);
	free(c->configs);
	if (c->abort_fd >= 0)
		close(c->abort_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int check_start(struct check **ret, const struct exporter_config *const *list, size_t count)
{
	struct check *c = calloc(1, sizeof(*c) + count * SIGNAL_COUNT * sizeof(c->tries[0]));

	if (!c)
		return -ENOMEM;
	pthread_mutex_init(&c->lock, NULL);
	c->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = c->abort_fd < 0 ? -errno : copy_configs(c, list, count);
	if (!err) {
		list_tries(c);
		err = start_threads(c);
	}
	if (err) {
		free_parts(c);
		return err;
	}
	*ret = c;
	return 0;
}

bool check_is_done(struct check *c, uint64_t *ret_when_ns)
{
	pthread_mutex_lock(&c->lock);
	bool done = c->done_ns > 0;
	*ret_when_ns = c->done_ns;
	pthread_mutex_unlock(&c->lock);
	return done;
}

void check_wait(struct check *c)
{
	for (unsigned i = 0; i < c->started; i++)
		pthread_join(c->threads[i], NULL);
	c->started = 0;
}

void check_free(struct check *c)
{
	uint64_t one = 1;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->aborted = true;
	pthread_mutex_unlock(&c->lock);
	ssize_t n = write(c->abort_fd, &one, sizeof(one));
	(void)n; // an eventfd that nobody has written takes this
	check_wait(c);
	free_parts(c);
}

/* --- in words --- */

static void write_stage(struct json *j, const char *stage, const struct probe_step *step)
{
	if (!step->done)
		return;
	jsonw_object(j);
	jsonw_key(j, "stage");
	jsonw_text(j, stage);
	jsonw_key(j, "ok");
	jsonw_bool(j, step->ok);
	jsonw_key(j, "took_ms");
	jsonw_ms(j, step->took_ns);
	jsonw_key(j, "message");
	jsonw_text(j, step->message);
	jsonw_key(j, "hint");
	jsonw_text(j, step->hint[0] ? step->hint : NULL);
	jsonw_object_end(j);
}

/* What could not be opened has one stage, which failed. */
static void write_stages(struct json *j, const struct trial *t)
{
	static const char *const names[PROBE_STAGES] = {"resolve", "connect", "tls", "request"};
	struct probe_step config = {.done = true, .hint = "check the exporter's tls files"};

	if (t->error) {
		(void)snprintf(config.message, sizeof(config.message), "can't begin: %s",
		               err_str(t->error));
		write_stage(j, "config", &config);
		return;
	}
	for (unsigned i = 0; i < PROBE_STAGES; i++)
		write_stage(j, names[i], &t->probe.steps[i]);
}

static void write_try(struct json *j, const struct trial *t)
{
	jsonw_object(j);
	jsonw_key(j, "signal");
	jsonw_text(j, signal_word(t->signal));
	jsonw_key(j, "address");
	jsonw_text(j, t->probe.address[0] ? t->probe.address : t->config->endpoint);
	jsonw_key(j, "ok");
	if (t->done)
		jsonw_bool(j, !t->error && t->probe.steps[PROBE_REQUEST].ok);
	else
		jsonw_null(j);
	jsonw_key(j, "stages");
	jsonw_array(j);
	if (t->done)
		write_stages(j, t);
	jsonw_array_end(j);
	jsonw_object_end(j);
}

static void write_exporter(struct json *j, const struct check *c,
                           const struct exporter_config *config)
{
	jsonw_object(j);
	jsonw_key(j, "name");
	jsonw_text(j, config->name);
	jsonw_key(j, "type");
	jsonw_text(j, config->type == EXPORTER_CONSOLE ? "console" : "otlp");
	jsonw_key(j, "tries");
	jsonw_array(j);
	for (size_t i = 0; i < c->count; i++)
		if (c->tries[i].config == config)
			write_try(j, &c->tries[i]);
	jsonw_array_end(j);
	jsonw_object_end(j);
}

static void write_exporters(struct json *j, struct check *c)
{
	pthread_mutex_lock(&c->lock);
	jsonw_key(j, "running");
	jsonw_bool(j, c->done_ns == 0);
	jsonw_key(j, "exporters");
	jsonw_array(j);
	for (size_t i = 0; i < c->config_count; i++)
		write_exporter(j, c, &c->configs[i]);
	jsonw_array_end(j);
	pthread_mutex_unlock(&c->lock);
}

struct cursors {
	struct json *j;
	struct store *s;
};

/* What retention took before a cursor got there is not in the cursor before it moves on. */
static void count_ahead(struct store *s, const char *name, const struct cursor *c,
                        uint64_t *ret_evicted, uint64_t *ret_pending)
{
	const char *slash = strchr(name, '/');
	enum which_log which = slash ? STORE_OBSERVATIONS : STORE_SPANS;
	uint64_t first, next;

	store_bounds(s, which, &first, &next);
	uint64_t from = c->seq > first ? c->seq : first;
	*ret_evicted = from - c->seq;
	*ret_pending = next > from ? next - from : 0;
}

static bool write_cursor(void *ctx, const char *name, const struct cursor *c)
{
	struct cursors *all = ctx;
	struct json *j = all->j;
	uint64_t evicted, pending;

	count_ahead(all->s, name, c, &evicted, &pending);
	const struct {
		const char *key;
		uint64_t count;
	} counts[] = {
		{"delivered", c->delivered},
		{"rejected", c->rejected},
		{"evicted", c->evicted + evicted},
		{"refused", c->refused},
		{"pending", pending},
	};

	jsonw_object(j);
	jsonw_key(j, "name");
	jsonw_text(j, name);
	jsonw_key(j, "since");
	jsonw_time(j, c->since_ns);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		jsonw_key(j, counts[i].key);
		jsonw_uint(j, counts[i].count);
	}
	jsonw_key(j, "rejected_by");
	jsonw_object(j);
	for (unsigned r = 0; r < REJECTION_COUNT; r++) {
		if (c->rejected_by[r] == 0)
			continue;
		jsonw_key(j, rejection_label((enum rejection)r));
		jsonw_uint(j, c->rejected_by[r]);
	}
	jsonw_object_end(j);
	jsonw_object_end(j);
	return true;
}

static void write_store(struct json *j, struct store *s, const char *held_back)
{
	static const char *const keys[STORE_LOGS] = {"spans", "observations"};
	uint64_t used, limit, first, next;

	store_size(s, &used, &limit);
	jsonw_key(j, "store");
	jsonw_object(j);
	jsonw_key(j, "bytes");
	jsonw_uint(j, used);
	jsonw_key(j, "limit_bytes");
	jsonw_uint(j, limit);
	for (unsigned i = 0; i < STORE_LOGS; i++) {
		store_bounds(s, (enum which_log)i, &first, &next);
		jsonw_key(j, keys[i]);
		jsonw_uint(j, next - first);
	}
	jsonw_key(j, "held_back");
	jsonw_text(j, held_back[0] ? held_back : NULL);
	jsonw_object_end(j);
}

static void write_loss(void *ctx, const char *reason, uint64_t count)
{
	struct json *j = ctx;

	jsonw_key(j, reason);
	jsonw_uint(j, count);
}

int check_write(struct check *c, struct store *s, const char *held_back, struct buf *out)
{
	struct json j;
	struct cursors cursors = {&j, s};

	jsonw_init(&j, out);
	jsonw_object(&j);
	write_exporters(&j, c);
	jsonw_key(&j, "cursors");
	jsonw_array(&j);
	int err = cursor_each(s, write_cursor, &cursors);
	jsonw_array_end(&j);
	write_store(&j, s, held_back);
	jsonw_key(&j, "lost");
	jsonw_object(&j);
	store_losses(s, write_loss, &j);
	jsonw_object_end(&j);
	jsonw_object_end(&j);
	return err ? err : buf_error(out);
}
