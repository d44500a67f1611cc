#include "source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/caps.h"
#include "base/clock.h"
#include "base/str.h"
#include "config.h"
#include "export/check.h"
#include "fetch.h"
#include "http/api.h"
#include "store/store.h"
#include "term.h"

struct source {
	struct fetch *fetch; // or
	struct store *store;
	const char *config;
	char *place; // URL, socket or directory, for messages
	struct buf path;
};

static const char *const paths[] = {
	[ENDPOINT_TRACES] = "/api/traces",
	[ENDPOINT_TRACE] = "/api/traces/",
	[ENDPOINT_OBSERVATIONS] = "/api/observations",
	[ENDPOINT_SPANS] = "/api/spans",
	[ENDPOINT_CHECK] = "/api/check",
};

/* --- finding one --- */

static int open_url(struct source *s, const char *url)
{
	s->place = strdup(url);
	return s->place ? fetch_open(&s->fetch, url, NULL) : -ENOMEM;
}

static bool is_nobody_there(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -ENOTDIR;
}

/* Asks for something small, to know that somebody listens. */
static int probe_socket(struct source *s)
{
	struct buf answer;
	long status;

	buf_init(&answer, 64 * KIB);
	int err = fetch_get(s->fetch, "/healthz", &answer, &status);
	if (err < 0 && !is_nobody_there(err))
		complain("no answer from the collector at %s: %s", s->place,
		         err == -EACCES ? "no permission: be its user, or in its socket's group"
		                        : fetch_error(s->fetch));
	buf_deinit(&answer);
	return err;
}

/* -ENOENT or -ECONNREFUSED when no collector runs there. */
static int open_socket(struct source *s, const char *flag)
{
	char *socket = config_client_socket(flag);

	s->place = socket ? config_api_socket(socket) : NULL;
	free(socket);
	if (!s->place)
		return -ENOMEM;
	if (strlen(s->place) >= sizeof((struct sockaddr_un){0}.sun_path)) {
		complain("%s: the path is too long for a socket", s->place);
		return -ENAMETOOLONG;
	}
	int err = fetch_open(&s->fetch, "http://localhost", s->place);
	if (!err)
		err = probe_socket(s);
	return err;
}

static void complain_of_store(int err, const char *dir, const char *quarantine)
{
	switch (err) {
	case -ENOENT:
		complain("no collector is running, and there is no data in %s: start sidelightd, "
		         "or say"
		         " where to look with --socket, --data or --url",
		         dir);
		break;
	case ERR_BUSY:
		complain("%s: a collector has it open: ask that one, with --socket", dir);
		break;
	case ERR_CORRUPT:
		complain("%s: the store is corrupt%s%s; starting sidelightd puts it aside and "
		         "begins a"
		         " new one",
		         dir, quarantine ? ": " : "", quarantine ? quarantine : "");
		break;
	default:
		complain("%s: can't read the store: %s", dir, err_str(err));
	}
}

static int open_files(struct source *s, const char *flag)
{
	struct store_options options = {.bytes = 0, .read_only = true};
	char *quarantine = NULL;
	char *dir = config_client_data_dir(flag);

	if (!dir)
		return -ENOMEM;
	free(s->place);
	s->place = dir;
	options.dir = dir;
	int err = store_open(&s->store, &options, &quarantine);
	if (err < 0)
		complain_of_store(err, dir, quarantine);
	free(quarantine);
	return err;
}

static bool is_set(const char *variable)
{
	const char *value = getenv(variable);

	return value && *value;
}

/* Whether the user named a socket, and nowhere as near a directory to fall back on. */
static bool means_socket_only(const struct source_options *o)
{
	if (o->data)
		return false;
	return o->socket || (is_set("SIDELIGHT_SOCKET") && !is_set("SIDELIGHT_DATA"));
}

static int find(struct source *s, const struct source_options *o)
{
	const char *url = o->url ? o->url : getenv("SIDELIGHT_URL");

	// What is given by hand goes before what the environment says.
	if (o->url || (url && *url && !o->socket && !o->data))
		return open_url(s, url);
	// A directory given alone is meant: the collector at the usual socket may have another one.
	if (o->data && !o->socket)
		return open_files(s, o->data);
	int err = open_socket(s, o->socket);
	if (!is_nobody_there(err))
		return err;
	if (means_socket_only(o)) {
		complain("no collector answers at %s: start sidelightd there, or read its files"
		         " with --data",
		         s->place);
		return err;
	}
	fetch_close(s->fetch);
	s->fetch = NULL;
	return open_files(s, o->data);
}

int source_open(struct source **ret, const struct source_options *options)
{
	struct source *s = calloc(1, sizeof(*s));
	int err = -ENOMEM;

	if (s) {
		buf_init(&s->path, 4 * KIB);
		s->config = options->config;
		err = find(s, options);
	}
	if (err == -ENOMEM)
		complain("out of memory");
	if (err < 0) {
		source_close(s);
		return err;
	}
	*ret = s;
	return 0;
}

void source_close(struct source *s)
{
	if (!s)
		return;
	fetch_close(s->fetch);
	store_close(s->store);
	buf_deinit(&s->path);
	free(s->place);
	free(s);
}

const char *source_files(const struct source *s)
{
	return s->store ? s->place : NULL;
}

/* --- asking it --- */

static int write_path(struct source *s, const struct request *r)
{
	char since[TIME_TEXT_SIZE];

	buf_clear(&s->path);
	buf_append_str(&s->path, paths[r->endpoint]);
	if (r->endpoint == ENDPOINT_TRACE) {
		buf_append_str(&s->path, r->id);
	} else if (r->endpoint != ENDPOINT_CHECK) {
		buf_printf(&s->path, "?limit=%u", r->limit);
		if (r->cursor > 0)
			buf_printf(&s->path, "&cursor=%" PRIu64, r->cursor);
		if (r->since_ns > 0) {
			time_text(since, r->since_ns);
			buf_printf(&s->path, "&since=%s", since);
		}
		for (int i = 0; i < STATUS_COUNT; i++)
			if (r->statuses & 1u << i)
				buf_printf(&s->path, "&status=%s", status_word((enum run_status)i));
	}
	buf_append_byte(&s->path, '\0');
	return buf_error(&s->path);
}

static int from_status(struct source *s, enum endpoint endpoint, long status, const struct buf *out)
{
	int shown = out->len < 200 ? (int)out->len : 200;

	if (status == 200)
		return 0;
	if (status == 404 && endpoint == ENDPOINT_TRACE)
		return -ENOENT;
	if (status == 409 && endpoint == ENDPOINT_TRACE)
		return -EEXIST;
	complain("%s answered %ld to %s: %.*s", s->place, status, (const char *)s->path.data, shown,
	         (const char *)out->data);
	return -EPROTO;
}

static int get_by_http(struct source *s, const struct request *r, struct buf *out)
{
	long status = 0;
	int err = write_path(s, r);

	if (!err)
		err = fetch_get(s->fetch, (const char *)s->path.data, out, &status);
	if (!err)
		return from_status(s, r->endpoint, status, out);
	complain("no answer from the collector at %s: %s", s->place, fetch_error(s->fetch));
	return err == -ENOENT ? -EIO : err;
}

/* Tries the exporters that a collector would have, as configured for us. */
static int check_here(struct source *s, struct buf *out)
{
	struct config_flags flags = {.config = s->config, .data = s->place};
	const struct exporter_config *list[CAP_EXPORTERS];
	struct config config;
	struct check *check;

	int err = config_load(&config, &flags, stderr);
	if (err < 0)
		return err;
	for (size_t i = 0; i < config.exporter_count; i++)
		list[i] = &config.exporters[i];
	err = check_start(&check, list, config.exporter_count);
	if (err == 0) {
		check_wait(check);
		err = check_write(check, s->store, "", out);
		check_free(check);
	}
	config_free(&config);
	return err;
}

static int get_from_store(struct source *s, const struct request *r, struct buf *out)
{
	struct api_query q = {.since_ns = r->since_ns,
	                      .limit = r->limit,
	                      .cursor = r->cursor,
	                      .statuses = r->statuses};

	switch (r->endpoint) {
	case ENDPOINT_TRACES:
		return api_traces(s->store, &q, clock_unix_ns(), out);
	case ENDPOINT_TRACE:
		return api_trace(s->store, str_of(r->id), clock_unix_ns(), out);
	case ENDPOINT_OBSERVATIONS:
		return api_observations(s->store, &q, out);
	case ENDPOINT_SPANS:
		return api_spans(s->store, &q, out);
	case ENDPOINT_CHECK:
		return check_here(s, out);
	}
	return -EINVAL;
}

int source_get(struct source *s, const struct request *r, struct buf *out)
{
	if (s->fetch)
		return get_by_http(s, r, out);
	buf_clear(out);
	int err = get_from_store(s, r, out);
	bool is_about_id = r->endpoint == ENDPOINT_TRACE && (err == -ENOENT || err == -EEXIST);
	if (err < 0 && !is_about_id)
		complain("%s: can't read the store: %s", s->place, err_str(err));
	return err;
}
