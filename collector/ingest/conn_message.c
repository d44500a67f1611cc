#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "core/encode.h"
#include "core/event.h"
#include "ingest/conn.h"
#include "ingest/reply.h"
#include "store/store.h"

/* --- answers --- */

struct write {
	uv_write_t req;
	uint8_t bytes[REPLY_MAX];
};

static void on_written(uv_write_t *req, int status)
{
	free(req);
}

/* A client that doesn't read its answers loses them. One that does gets them at once, and so
 * without memory of ours: it waits for them. */
static void send_frame(struct conn *c, const uint8_t *bytes, size_t len)
{
	uv_stream_t *to = (uv_stream_t *)&c->pipe;
	uv_buf_t all = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)len);
	int sent = uv_try_write(to, &all, 1);

	if (sent == (int)len || uv_stream_get_write_queue_size(to) > REPLIES_MAX)
		return;
	struct write *w = malloc(sizeof(*w));
	if (!w)
		return;
	size_t from = sent > 0 ? (size_t)sent : 0;
	memcpy(w->bytes, bytes + from, len - from);
	uv_buf_t rest = uv_buf_init((char *)w->bytes, (unsigned)(len - from));
	if (uv_write(&w->req, to, &rest, 1, on_written) < 0)
		free(w);
}

void conn_flushed(struct conn *c, uint64_t token)
{
	uint8_t bytes[REPLY_MAX];

	send_frame(c, bytes, reply_flushed(bytes, token));
}

void conn_send_error(struct conn *c, const char *code, const char *message)
{
	uint8_t bytes[REPLY_MAX];

	send_frame(c, bytes, reply_error(bytes, code, message, c->frames.count));
}

void conn_tell(struct conn *c, enum refusal why)
{
	static const char *const messages[REFUSAL_COUNT] = {
		[REFUSED_TOO_LONG] = "the frame is longer than ingest.max_frame",
		[REFUSED_MALFORMED] = "the frame is not well-formed msgpack",
		[REFUSED_UNKNOWN_TYPE] = "the first element is no message type of version 1",
		[REFUSED_WRONG_TYPE] = "a field has another type than the protocol says",
		[REFUSED_BAD_UTF8] = "a name or a key is not UTF-8",
		[REFUSED_DUPLICATE_KEY] = "a map has a key twice",
		[REFUSED_TRAILING_BYTES] = "the frame goes on after its array",
		[REFUSED_TOO_DEEP] = "containers are nested deeper than 16",
		[REFUSED_TOO_MANY_KEYS] = "a map has too many keys",
		[REFUSED_BAD_RUN_ID] = "a run id is 16 bytes, not all zero, or a text",
		[REFUSED_BAD_TIME] = "a time is from 0 to 2^63-1",
		[REFUSED_BAD_VERSION] = "this collector speaks version 1",
		[REFUSED_DUPLICATE_START] = "the run has started already",
		[REFUSED_DUPLICATE_END] = "the run has ended already",
		[REFUSED_TIMEOUT] = "the frame was not complete in time",
		[REFUSED_TRUNCATED] = "the connection ended inside a frame",
		[REFUSED_STORE_FULL] = "the store is full of what is not delivered yet",
		[REFUSED_NO_MEMORY] = "no memory is left for it",
	};
	uint64_t bit = 1ull << why;

	if (c->told & bit)
		return;
	c->told |= bit;
	conn_send_error(c, refusal_label(why), messages[why] ? messages[why] : "refused");
}

void conn_refuse(struct conn *c, enum refusal why)
{
	stat_add(&c->in->o.stats->refused[why], 1);
	conn_tell(c, why);
}

/* --- messages --- */

struct source *conn_make_source(struct conn *c, const struct event *hello)
{
	const struct config *config = c->in->o.config;
	size_t count = config->service_attribute_count;
	struct resource_pair *extra = calloc(count + 1, sizeof(*extra));
	struct buf resource;

	if (!extra)
		return NULL;
	for (size_t i = 0; i < count; i++)
		extra[i] = (struct resource_pair){str_of(config->service_attributes[i].key),
		                                  str_of(config->service_attributes[i].value)};
	buf_init(&resource, CAP_RESOURCE);
	struct str service = hello->service.len ? hello->service : str_of(config->service_name);
	encode_resource(&resource, service, hello->resource, hello->sdk, extra, count);
	if (buf_error(&resource)) { // too much of it: the name alone
		buf_clear(&resource);
		encode_resource(&resource, service, (struct str){0}, hello->sdk, NULL, 0);
	}
	free(extra);
	struct peer of = hello->owner > 0 ? peer_above(&c->peer, hello->owner) : c->peer;
	struct source *s = runs_add_source(c->in->runs, of.pid, of.start,
	                                   (struct str){(char *)resource.data, resource.len});
	buf_deinit(&resource);
	if (s)
		s->owned = hello->owner > 0;
	return s;
}

/* What an earlier hello described is kept while runs of that time are open. */
static void forget_idle_sources(struct conn *c)
{
	struct source **at = &c->source->older;

	while (*at) {
		struct source *s = *at;
		if (s->runs > 0) {
			at = &s->older;
			continue;
		}
		*at = s->older;
		runs_drop_source(c->in->runs, s);
	}
}

void conn_drop_sources(struct conn *c)
{
	while (c->source) {
		struct source *s = c->source;
		c->source = s->older;
		runs_drop_source(c->in->runs, s);
	}
}

/* Closes all runs of the connection that are open, but for those that outlive it. */
void conn_close_runs(struct conn *c, const struct closing *why, struct moment at)
{
	for (struct source *s = c->source; s; s = s->older)
		if (!s->owned)
			runs_close_source(c->in->runs, s, why, at);
}

static enum refusal on_hello(struct conn *c, const struct event *hello)
{
	struct source *s = conn_make_source(c, hello);
	if (!s)
		return REFUSED_NO_MEMORY;
	s->older = c->source;
	c->source = s;
	forget_idle_sources(c);
	c->said_pid = hello->pid;
	return REFUSAL_NONE;
}

static enum refusal on_flush(struct conn *c, const struct event *flush)
{
	int rc = pipeline_flush(c->in->pipeline, c, flush->token);

	return rc < 0 ? REFUSED_NO_MEMORY : REFUSAL_NONE;
}

const struct closing conn_closed_by_bye = {
	.status = STATUS_CANCELLED,
	.error_type = {"bye", 3},
};

static void on_bye(struct conn *c, struct moment at)
{
	c->bye = true;
	conn_close_runs(c, &conn_closed_by_bye, at);
}

/* With store.when_full refuse_newest: what is open may go on and end, nothing begins. */
static bool is_turned_away(struct conn *c, const struct event *ev)
{
	bool of_a_run = ev->type == EVENT_START || ev->type == EVENT_END || ev->type == EVENT_POINT;
	uint64_t before;

	if (!of_a_run || !store_is_held(c->in->o.store, &before) || runs_has(c->in->runs, &ev->run))
		return false;
	if (ev->type == EVENT_START)
		c->in->o.turned_away(c->in->o.ctx, before);
	return true;
}

static enum refusal dispatch(struct conn *c, const struct event *ev, struct str body,
                             struct moment at)
{
	struct stats *stats = c->in->o.stats;

	stat_add(&stats->unknown_keys, ev->unknown_keys);
	if (is_turned_away(c, ev))
		return REFUSED_STORE_FULL;
	switch (ev->type) {
	case EVENT_HELLO:
		return on_hello(c, ev);
	case EVENT_START:
		return runs_start(c->in->runs, c->source, ev, at);
	case EVENT_END:
		return runs_end(c->in->runs, c->source, ev, body, at);
	case EVENT_POINT:
		runs_point(c->in->runs, c->source, ev, at);
		return REFUSAL_NONE;
	case EVENT_FLUSH:
		return on_flush(c, ev);
	case EVENT_DROPPED:
		stat_add(&stats->client_dropped, ev->dropped);
		return REFUSAL_NONE;
	case EVENT_BYE:
		on_bye(c, at);
		return REFUSAL_NONE;
	case EVENT_CHILD:
		return conn_on_child(c, ev, at);
	default:
		return REFUSED_UNKNOWN_TYPE;
	}
}

bool conn_on_frame(void *ctx, struct str body, enum refusal why)
{
	const struct feeding *f = ctx;
	struct conn *c = f->conn;
	struct event ev;

	stat_add(&c->in->o.stats->frames_received, 1);
	if (why == REFUSAL_NONE)
		why = event_decode(&ev, (const uint8_t *)body.p, body.len);
	if (why == REFUSAL_NONE)
		why = dispatch(c, &ev, body, f->at);
	if (why == REFUSAL_NONE)
		stat_add(&c->in->o.stats->frames_accepted, 1);
	else
		conn_refuse(c, why);
	// After another version, nothing that follows can be trusted to mean what we read.
	c->failed = why == REFUSED_BAD_VERSION;
	return !c->failed && !pipeline_is_full(c->in->pipeline);
}
