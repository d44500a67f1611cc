#include "daemon.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <uv.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/clock.h"
#include "base/log.h"
#include "base/stats.h"
#include "export/export.h"
#include "http/http.h"
#include "ingest/ingest.h"
#include "ingest/pipeline.h"
#include "store/store.h"

#define EXPORT_GRACE_NS (5 * NS_PER_S)

struct daemon {
	struct config *config; // borrowed
	const struct config_flags *flags;
	uv_loop_t loop;
	uv_signal_t term, interrupt, hangup;
	struct stats stats;
	struct store *store;
	struct ingest *ingest;
	struct exporters *exporters;
	struct http *http;
	bool failed; // the disk did, while we ran

	// SIGHUP
	uv_thread_t changer;
	uv_async_t changed;
	struct config fresh; // while changing
	bool changing, change_again;
};

static void change(struct daemon *d);

static void notify(const char *state)
{
#ifdef HAVE_SYSTEMD
	sd_notify(0, state);
#endif
}

/* A large frame's memory goes back to the kernel: glibc would raise its threshold after the first
 * one and keep the next ones. */
static void keep_heap_small(void)
{
#ifdef M_MMAP_THRESHOLD
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
	mallopt(M_TRIM_THRESHOLD, 256 * 1024);
#endif
}

/* --- signals --- */

static void on_stop(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;

	log_info("%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
	uv_stop(&d->loop);
}

/* --- SIGHUP: other exporters --- */

/* A section that can't be changed while running is compared as it is printed. */
static char *print_without_exporters(const struct config *c)
{
	struct config shown = *c;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	shown.exporter_count = 0;
	config_print(&shown, out);
	return fclose(out) == 0 ? text : NULL;
}

static bool needs_restart(const struct config *before, const struct config *after)
{
	char *old = print_without_exporters(before);
	char *new = print_without_exporters(after);
	bool differs = (old && new &&strcmp(old, new) != 0) ||
	               !price_list_equal(&before->prices, &after->prices);

	free(old);
	free(new);
	return differs;
}

static void say_change(const struct exporters_change *c, int rc)
{
	if (rc == -ENOSPC)
		log_error("exporter %s: could not be started: too many names since the start; "
		          "restart sidelightd",
		          c->failed);
	else if (rc < 0)
		log_error("exporter %s: could not be started: %s", c->failed, err_str(rc));
	log_info("SIGHUP: exporters: %u go on as they are, %u started, %u stopped", c->kept,
	         c->started, c->stopped);
}

/* A thread of its own, since stopping an exporter waits for its threads; not libuv's pool, which
 * aborts where it finds no memory. */
static void change_exporters(void *ctx)
{
	struct daemon *d = ctx;
	struct exporters_change change;

	int rc = exporters_change(d->exporters, d->fresh.exporters, d->fresh.exporter_count,
	                          &change);
	say_change(&change, rc);
	uv_async_send(&d->changed);
}

static void on_changed(uv_async_t *async)
{
	struct daemon *d = async->data;

	uv_thread_join(&d->changer);
	config_free(&d->fresh);
	d->changing = false;
	if (d->change_again)
		change(d);
}

/* A pipe has been read, and another open would hold up the loop; an empty file is one that somebody
 * is writing. */
static bool can_read_again(const char *path)
{
	struct stat st;

	if (!path || stat(path, &st) < 0) // there is none, or reading tells what is wrong
		return true;
	if (S_ISREG(st.st_mode) && st.st_size > 0)
		return true;
	log_error("SIGHUP: %s is %s; nothing was changed", path,
	          S_ISREG(st.st_mode) ? "empty" : "no file that can be read again");
	return false;
}

static void change(struct daemon *d)
{
	d->change_again = d->changing;
	if (d->changing || !can_read_again(d->config->file))
		return;
	if (config_load(&d->fresh, d->flags, stderr) < 0) {
		log_error("SIGHUP: the configuration has errors; nothing was changed");
		return;
	}
	if (needs_restart(d->config, &d->fresh))
		log_warn("SIGHUP: more than exporters has changed; restart sidelightd to use it");
	d->changing = uv_thread_create(&d->changer, change_exporters, d) == 0;
	if (d->changing)
		return;
	log_error("SIGHUP: out of memory; nothing was changed");
	config_free(&d->fresh);
}

static void on_hangup(uv_signal_t *handle, int number)
{
	change(handle->data);
}

static void finish_change(struct daemon *d)
{
	d->change_again = false;
	while (d->changing)
		uv_run(&d->loop, UV_RUN_ONCE);
}

static void catch_signals(struct daemon *d)
{
	uv_signal_t *handles[] = {&d->term, &d->interrupt, &d->hangup};

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ,
	       SIG_IGN); // a write past RLIMIT_FSIZE fails as on a full disk, and is waited out
	for (int i = 0; i < 3; i++) {
		uv_signal_init(&d->loop, handles[i]);
		handles[i]->data = d;
	}
	uv_async_init(&d->loop, &d->changed, on_changed);
	d->changed.data = d;
	uv_signal_start(&d->term, on_stop, SIGTERM);
	uv_signal_start(&d->interrupt, on_stop, SIGINT);
	uv_signal_start(&d->hangup, on_hangup, SIGHUP);
}

static void release_signals(struct daemon *d)
{
	uv_close((uv_handle_t *)&d->term, NULL);
	uv_close((uv_handle_t *)&d->interrupt, NULL);
	uv_close((uv_handle_t *)&d->hangup, NULL);
	uv_close((uv_handle_t *)&d->changed, NULL);
	uv_run(&d->loop, UV_RUN_DEFAULT);
}

/* --- start, each with words for what can go wrong --- */

static void say_store_error(const char *dir, int rc)
{
	const char *hint = "";
	char busy[160];

	snprintf(busy, sizeof(busy),
	         "; another sidelightd, pid %ld, runs on it: stop that one, or give --data "
	         "another directory",
	         store_holder(dir));
	if (rc == ERR_BUSY)
		hint = busy;
	else if (rc == ERR_NETWORK_FS)
		hint = "; choose a directory on a local disk";
	else if (rc == ERR_VERSION)
		hint = "; use that version, or give --data another directory";
	else if (rc == -EACCES || rc == -EPERM || rc == -EROFS)
		hint = "; give --data a directory that can be written";
	else if (rc == -ENOSPC)
		hint = "; make room, or set a smaller store.size";
	log_error("store %s: %s%s", dir, err_str(rc), hint);
}

static int open_store(struct daemon *d)
{
	struct store_options options = {
		.dir = d->config->data_dir,
		.bytes = d->config->store_bytes,
		.retention_ns = d->config->retention_ns,
		.keep_undelivered = d->config->when_full == WHEN_FULL_REFUSE_NEWEST,
		.stats = &d->stats,
	};
	char *quarantine = NULL;

	int rc = store_open(&d->store, &options, &quarantine);
	if (rc < 0)
		say_store_error(options.dir, rc);
	else if (quarantine)
		log_error("the store was corrupt: it was moved to %s, and a new one begun",
		          quarantine);
	if (rc == 0 && !store_is_preallocated(d->store))
		log_warn("store %s: store.size could not be reserved; a disk that others fill will "
		         "hold events back",
		         options.dir);
	free(quarantine);
	return rc;
}

static void on_committed(void *ctx)
{
	struct daemon *d = ctx;

	if (d->exporters)
		exporters_notify(d->exporters);
}

static void on_turned_away(void *ctx, uint64_t before_seq)
{
	struct daemon *d = ctx;

	if (d->exporters)
		exporters_count_refused(d->exporters, before_seq, 1);
}

static void on_failed(void *ctx)
{
	struct daemon *d = ctx;

	log_error("the disk failed to keep what was written: ending; a restart checks the store");
	d->failed = true;
	uv_stop(&d->loop);
}

static int start_ingest(struct daemon *d)
{
	struct ingest_options options = {
		.config = d->config,
		.stats = &d->stats,
		.store = d->store,
		.loop = &d->loop,
		.ctx = d,
		.committed = on_committed,
		.turned_away = on_turned_away,
		.failed = on_failed,
	};
	const char *hint = "";

	int rc = ingest_start(&d->ingest, &options);
	if (rc == ERR_BUSY)
		hint = "; another sidelightd answers there: stop it, or give --socket another path";
	else if (rc == -ENOTSOCK)
		hint = "; something that is no socket stands there and is left alone";
	else if (rc == -ESRCH)
		hint = "; there is no such group as ingest.group";
	else if (rc == -ENOENT)
		hint = "; make its directory first";
	if (rc < 0)
		log_error("socket %s: %s%s", d->config->socket, err_str(rc), hint);
	return rc;
}

static void write_metrics(void *ctx, struct buf *out)
{
	struct daemon *d = ctx;

	pipeline_write_metrics(ingest_pipeline(d->ingest), out);
}

static bool is_ready(void *ctx, char *reason, unsigned size)
{
	struct daemon *d = ctx;

	return pipeline_is_ready(ingest_pipeline(d->ingest), reason, size);
}

static int write_check(void *ctx, struct buf *out)
{
	struct daemon *d = ctx;
	char held_back[256];

	(void)is_ready(ctx, held_back, sizeof(held_back));
	return exporters_check(d->exporters, held_back, out);
}

static int start_http(struct daemon *d)
{
	const struct config *c = d->config;
	struct http_options options = {
		.host = c->http_enabled ? c->http_host : NULL,
		.port = c->http_port,
		.socket_path = c->api_socket,
		.socket_mode = c->mode,
		.socket_group = c->group,
		.store = d->store,
		.stats = &d->stats,
		.write_metrics = write_metrics,
		.is_ready = is_ready,
		.write_check = write_check,
		.ctx = d,
	};

	int rc = http_start(&d->http, &options);
	if (rc == -EADDRINUSE)
		log_error("http %s:%u: the port is taken; give --http 127.0.0.1:0 for any free one",
		          c->http_host, c->http_port);
	else if (rc == -EEXIST || rc == -ENOTSOCK)
		log_error("http %s: something that is no socket of ours stands there and is left "
		          "alone",
		          c->api_socket);
	else if (rc < 0)
		log_error("http %s and %s: %s", c->http_enabled ? c->http_host : "off",
		          c->api_socket, err_str(rc));
	return rc;
}

static size_t write_otlp_metrics(void *ctx, struct buf *out)
{
	struct daemon *d = ctx;

	return pipeline_write_otlp_metrics(ingest_pipeline(d->ingest), out);
}

/* None yet: but whoever asks for them finds them. */
static int make_exporters(struct daemon *d)
{
	struct exporters_source source = {d->store, &d->stats, write_otlp_metrics, d};

	int rc = exporters_new(&d->exporters, &source);
	if (rc < 0)
		log_error("%s", err_str(rc));
	return rc;
}

static int start_exporters(struct daemon *d)
{
	struct exporters_change change;

	int rc = exporters_change(d->exporters, d->config->exporters, d->config->exporter_count,
	                          &change);
	if (rc < 0)
		log_error("exporter %s: %s", change.failed, err_str(rc));
	return rc;
}

static int open_door(struct daemon *d)
{
	int rc = ingest_open_door(d->ingest);

	if (rc < 0) {
		log_error("socket %s: %s", d->config->socket, err_str(rc));
		return rc;
	}
	char http[64] = "off";
	if (d->config->http_enabled)
		snprintf(http, sizeof(http),
		         strchr(d->config->http_host, ':') ? "[%s]:%u" : "%s:%u",
		         d->config->http_host, http_port(d->http));
	fprintf(stderr, "ready socket=%s http=%s data=%s\n", d->config->socket, http,
	        d->config->data_dir);
	notify("READY=1");
	return 0;
}

static int start(struct daemon *d)
{
	int (*const steps[])(struct daemon *) = {
		open_store, start_ingest, make_exporters, start_http, start_exporters, open_door,
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		int rc = steps[i](d);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The HTTP server reads what ingest owns, so it goes first; the exporters deliver what ingest's
 * last commit brings, and the last numbers, so they go between its end and its freeing. */
static void stop(struct daemon *d)
{
	notify("STOPPING=1");
	finish_change(d);
	http_stop(d->http);
	ingest_stop(d->ingest);
	exporters_stop(d->exporters, EXPORT_GRACE_NS);
	ingest_free(d->ingest);
	store_close(d->store);
}

int daemon_run(struct config *config, const struct config_flags *flags)
{
	struct daemon *d = calloc(1, sizeof(*d));

	if (!d || uv_loop_init(&d->loop) < 0) {
		log_error("out of memory");
		free(d);
		return 1;
	}
	d->config = config;
	d->flags = flags;
	keep_heap_small();
	prctl(PR_SET_DUMPABLE, 0); // prompts and tokens are in our memory
	catch_signals(d);
	int rc = start(d);
	if (rc == 0)
		uv_run(&d->loop, UV_RUN_DEFAULT);
	stop(d);
	release_signals(d);
	uv_loop_close(&d->loop);
	bool failed = rc < 0 || d->failed;
	free(d);
	return failed ? 1 : 0;
}
