/* runs_fixture.h - a run table in a world of its own: a sink that keeps what comes out as the
 * store would, and clocks that the test moves.
 *
 * Events are written as JSON with single quotes, and go through the decoder. What the sink takes
 * is pending until settle(); a crash() loses what is pending, and a new table is restored from the
 * rest, in the way of ingest/restore.c.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "core/closed.h"
#include "core/request.h"
#include "core/runs.h"

#define MS 1000000ull
#define SECOND 1000000000ull
#define T0 1700000000000000000ull
#define M0 (5000 * SECOND)

struct bytes {
	char *p;
	size_t len;
};

struct saved_span {
	struct record_head head;
	struct bytes base, content, resource;
	uint8_t trace_id[16], span_id[8];
	uint64_t start_ns, end_ns;
};

struct saved_observation {
	uint8_t trace_id[16], span_id[8];
	enum run_status status;
	struct bytes json;
};

struct change {
	struct change *next;
	struct run_id run;
	bool is_delete;
	struct bytes value;
};

enum { DURABLE_BUCKETS = 4096 };

struct world {
	struct runs *r;
	struct runs_options o;
	struct stats stats;
	struct metrics metrics;
	struct moment now;
	struct source *s; // a connection
	// what came out; the first durable_* of them outlive a crash, those up to sealed_* are on
	// their way
	struct saved_span *spans;
	size_t span_count, span_room, durable_spans, sealed_spans;
	struct saved_observation *observations;
	unsigned event_count;
	uint8_t event_trace_id[16], event_span_id[8]; // the last one's
	size_t observation_count, observation_room, durable_observations, sealed_observations;
	struct change *filling, **filling_end; // in order
	struct change *sealed;
	struct change *durable[DURABLE_BUCKETS];
	bool no_spans, no_opens; // the sink refuses them
	bool forgets;            // keeps no spans: for long runs
};

static inline struct bytes copy_of(struct str s)
{
	struct bytes b = {malloc(s.len ? s.len : 1), s.len};

	assert_non_null(b.p);
	if (s.len)
		memcpy(b.p, s.p, s.len);
	return b;
}

static inline struct str str_of_bytes(struct bytes b)
{
	return (struct str){b.p, b.len};
}

/* --- the sink --- */

static inline int world_span(void *ctx, const struct finished_span *span)
{
	struct world *w = ctx;
	struct span_record rec = {.head = span->head, .base = span->base, .content = span->content};
	struct span_view view;

	if (w->no_spans)
		return -ENOSPC;
	assert_int_equal(span_view(&view, &rec), 0);
	assert_memory_equal(view.trace_id, span->trace_id, 16);
	assert_true(view.start_ns == span->start_ns && view.end_ns == span->end_ns);
	assert_true(span->end_ns >= span->start_ns);
	assert_int_equal(span->head.base_len, span->base.len);
	assert_int_equal(span->head.content_len, span->content.len);
	if (w->span_count == w->span_room) {
		w->span_room = w->span_room ? 2 * w->span_room : 64;
		w->spans = realloc(w->spans, w->span_room * sizeof(*w->spans));
		assert_non_null(w->spans);
	}
	struct saved_span *saved = &w->spans[w->span_count++];
	*saved = (struct saved_span){
		.head = span->head, .start_ns = span->start_ns, .end_ns = span->end_ns};
	memcpy(saved->trace_id, span->trace_id, 16);
	memcpy(saved->span_id, view.span_id, 8);
	struct str none = {0};
	saved->base = copy_of(w->forgets ? none : span->base);
	saved->content = copy_of(w->forgets ? none : span->content);
	saved->resource = copy_of((struct str){(char *)span->source->resource.data,
	                                       w->forgets ? 0 : span->source->resource.len});
	return 0;
}

static inline int world_event(void *ctx, const struct orphan_event *e)
{
	struct world *w = ctx;

	w->event_count++;
	memcpy(w->event_trace_id, e->trace_id, sizeof(w->event_trace_id));
	memcpy(w->event_span_id, e->span_id, sizeof(w->event_span_id));
	return 0;
}

static inline int world_observation(void *ctx, const struct observation *o)
{
	struct world *w = ctx;
	struct buf text;
	struct json j;

	if (w->observation_count == w->observation_room) {
		w->observation_room = w->observation_room ? 2 * w->observation_room : 64;
		w->observations =
			realloc(w->observations, w->observation_room * sizeof(*w->observations));
		assert_non_null(w->observations);
	}
	struct saved_observation *saved = &w->observations[w->observation_count++];
	saved->status = o->status;
	memcpy(saved->trace_id, o->trace_id, 16);
	memcpy(saved->span_id, o->span_id, 8);
	buf_init(&text, 16 * MIB);
	jsonw_init(&j, &text);
	jsonw_object(&j);
	root_json_members(&j, o->root, o->kind, o->status);
	jsonw_raw(&j, o->meta.p, o->meta.len);
	jsonw_raw(&j, o->content.p, o->content.len);
	jsonw_object_end(&j);
	assert_int_equal(buf_error(&text), 0);
	saved->json = copy_of((struct str){(char *)text.data, text.len});
	buf_deinit(&text);
	return 0;
}

static inline void world_change(struct world *w, const struct run_id *run, bool is_delete,
                                struct bytes value)
{
	struct change *c = malloc(sizeof(*c));

	assert_non_null(c);
	*c = (struct change){.run = *run, .is_delete = is_delete, .value = value};
	*w->filling_end = c;
	w->filling_end = &c->next;
}

static inline int world_put(void *ctx, const struct run_id *run, const struct open_head *head,
                            struct str base, struct str content, struct str resource,
                            struct str state)
{
	struct world *w = ctx;
	struct open_head filled = *head;
	struct bytes value;

	if (w->no_opens)
		return -ENOSPC;
	filled.record.base_len = (uint32_t)base.len;
	filled.record.content_len = (uint32_t)content.len;
	filled.resource_len = (uint32_t)resource.len;
	filled.state_len = (uint32_t)state.len;
	const struct str parts[] = {
		{(char *)&filled, sizeof(filled)}, base, content, resource, state};
	value = (struct bytes){
		malloc(sizeof(filled) + base.len + content.len + resource.len + state.len), 0};
	assert_non_null(value.p);
	for (int i = 0; i < 5; i++) {
		if (parts[i].len)
			memcpy(value.p + value.len, parts[i].p, parts[i].len);
		value.len += parts[i].len;
	}
	world_change(w, run, false, value);
	return 0;
}

static inline int world_delete(void *ctx, const struct run_id *run)
{
	world_change(ctx, run, true, (struct bytes){0});
	return 0;
}

static inline struct change **durable_at(struct world *w, const struct run_id *run)
{
	struct change **at = &w->durable[id_hash64(7, run->b, 16) % DURABLE_BUCKETS];

	while (*at && memcmp(&(*at)->run, run, sizeof(*run)) != 0)
		at = &(*at)->next;
	return at;
}

static inline int world_get(void *ctx, const struct run_id *run, struct buf *out)
{
	struct change *found = *durable_at(ctx, run);

	if (!found)
		return -ENOENT;
	buf_clear(out);
	buf_append(out, found->value.p, found->value.len);
	return buf_error(out);
}

/* --- commits --- */

static inline void apply(struct world *w, struct change *c)
{
	struct change **at = durable_at(w, &c->run);
	struct change *old = *at;

	if (old) {
		*at = old->next;
		free(old->value.p);
		free(old);
	}
	if (c->is_delete) {
		free(c);
		return;
	}
	at = durable_at(w, &c->run);
	c->next = *at;
	*at = c;
}

static inline int seal(struct world *w)
{
	int rc = runs_seal(w->r);

	assert_null(w->sealed);
	w->sealed = w->filling;
	w->sealed_spans = w->span_count;
	w->sealed_observations = w->observation_count;
	w->filling = NULL;
	w->filling_end = &w->filling;
	return rc;
}

static inline void settle(struct world *w)
{
	while (w->sealed) {
		struct change *c = w->sealed;
		w->sealed = c->next;
		apply(w, c);
	}
	w->durable_spans = w->sealed_spans;
	w->durable_observations = w->sealed_observations;
	runs_committed(w->r);
}

static inline void commit(struct world *w)
{
	assert_int_equal(seal(w), 0);
	settle(w);
}

static inline unsigned durable_count(const struct world *w)
{
	unsigned count = 0;

	for (int i = 0; i < DURABLE_BUCKETS; i++)
		for (const struct change *c = w->durable[i]; c; c = c->next)
			count++;
	return count;
}

/* --- the world --- */

static inline void resource_of(struct buf *out, const char *service)
{
	buf_init(out, KIB);
	encode_resource(out, str_of(service), (struct str){0}, (struct str){0}, NULL, 0);
	assert_int_equal(buf_error(out), 0);
}

static inline struct source *connect_as(struct world *w, int64_t pid, const char *service)
{
	struct buf resource;

	resource_of(&resource, service);
	struct source *s = runs_add_source(w->r, pid, pid ? 1 : 0,
	                                   (struct str){(char *)resource.data, resource.len});
	assert_non_null(s);
	buf_deinit(&resource);
	return s;
}

static inline void world_init(struct world *w, enum convention convention)
{
	*w = (struct world){.now = {T0, M0}};
	w->filling_end = &w->filling;
	metrics_init(&w->metrics);
	w->o = (struct runs_options){
		.convention = convention,
		.content = true,
		.max_value = 1024,
		.max_frame = 64 * KIB,
		.max_open = 1000,
		.stats = &w->stats,
		.metrics = &w->metrics,
		.sink = {w, world_span, world_observation, world_event, world_put, world_delete,
	                 world_get},
	};
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	w->s = connect_as(w, 100, "agent");
}

static inline void free_changes(struct change *c)
{
	while (c) {
		struct change *next = c->next;
		free(c->value.p);
		free(c);
		c = next;
	}
}

static inline void drop_spans_from(struct world *w, size_t first)
{
	for (size_t i = first; i < w->span_count; i++) {
		free(w->spans[i].base.p);
		free(w->spans[i].content.p);
		free(w->spans[i].resource.p);
	}
	w->span_count = first;
}

static inline void drop_observations_from(struct world *w, size_t first)
{
	for (size_t i = first; i < w->observation_count; i++)
		free(w->observations[i].json.p);
	w->observation_count = first;
}

static inline void world_deinit(struct world *w)
{
	runs_free(w->r);
	metrics_deinit(&w->metrics);
	drop_spans_from(w, 0);
	drop_observations_from(w, 0);
	free(w->spans);
	free(w->observations);
	free_changes(w->filling);
	free_changes(w->sealed);
	for (int i = 0; i < DURABLE_BUCKETS; i++)
		free_changes(w->durable[i]);
}

static inline int setup(void **state)
{
	struct world *w = malloc(sizeof(*w));

	assert_non_null(w);
	world_init(w, CONVENTION_GENAI);
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	world_deinit(*state);
	free(*state);
	return 0;
}

/* --- after a crash --- */

static inline struct span_record record_of_span(const struct saved_span *s)
{
	return (struct span_record){
		.head = s->head,
		.base = str_of_bytes(s->base),
		.content = str_of_bytes(s->content),
		.resource = str_of_bytes(s->resource),
	};
}

static inline int by_id(const void *a, const void *b)
{
	return memcmp(&(*(struct change *const *)a)->run, &(*(struct change *const *)b)->run, 16);
}

/* As LMDB keeps them: ordered by run id. */
static inline void restore_opens(struct world *w)
{
	size_t count = durable_count(w), n = 0;
	struct change **list = calloc(count + 1, sizeof(struct change *));

	assert_non_null(list);
	for (int i = 0; i < DURABLE_BUCKETS; i++)
		for (struct change *c = w->durable[i]; c; c = c->next)
			list[n++] = c;
	qsort(list, count, sizeof(struct change *), by_id);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(
			runs_restore(w->r, &list[i]->run, str_of_bytes(list[i]->value), w->now), 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(
			runs_restore_said(w->r, &list[i]->run, str_of_bytes(list[i]->value)), 0);
	free(list);
}

static inline void restore(struct world *w)
{
	assert_int_equal(runs_new(&w->r, &w->o), 0);
	restore_opens(w);
	for (size_t i = 0; i < w->span_count; i++) {
		struct span_record rec = record_of_span(&w->spans[i]);
		if (runs_wants(w->r, w->spans[i].trace_id))
			runs_refold(w->r, &rec);
		runs_remember(w->r, &rec, w->now);
	}
	w->s = connect_as(w, 100, "agent");
	runs_adopt(w->r, w->s);
}

/* The collector is killed: what was not committed is lost. */
static inline void crash(struct world *w)
{
	runs_free(w->r);
	metrics_deinit(&w->metrics);
	metrics_init(&w->metrics);
	drop_spans_from(w, w->durable_spans);
	drop_observations_from(w, w->durable_observations);
	free_changes(w->filling);
	free_changes(w->sealed);
	w->sealed = w->filling = NULL;
	w->filling_end = &w->filling;
	restore(w);
}

/* It is ended and started again: nothing is lost. */
static inline void restart(struct world *w)
{
	commit(w);
	crash(w);
}

/* --- events --- */

static inline void pack(msgpack_packer *pk, const json_t *v)
{
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_object(v)) {
		msgpack_pack_map(pk, json_object_size(v));
		json_object_foreach((json_t *)(uintptr_t)v, key, member)
		{
			msgpack_pack_str(pk, strlen(key));
			msgpack_pack_str_body(pk, key, strlen(key));
			pack(pk, member);
		}
	} else if (json_is_array(v)) {
		msgpack_pack_array(pk, json_array_size(v));
		json_array_foreach(v, i, member) pack(pk, member);
	} else if (json_is_string(v)) {
		msgpack_pack_str(pk, json_string_length(v));
		msgpack_pack_str_body(pk, json_string_value(v), json_string_length(v));
	} else if (json_is_integer(v)) {
		msgpack_pack_int64(pk, json_integer_value(v));
	} else if (json_is_real(v)) {
		msgpack_pack_double(pk, json_real_value(v));
	} else if (json_is_boolean(v)) {
		json_is_true(v) ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	} else {
		msgpack_pack_nil(pk);
	}
}

/* As msgpack; the caller frees it. */
static inline struct bytes packed_json(const json_t *v)
{
	msgpack_sbuffer out;
	msgpack_packer pk;

	msgpack_sbuffer_init(&out);
	msgpack_packer_init(&pk, &out, msgpack_sbuffer_write);
	pack(&pk, v);
	struct bytes b = copy_of((struct str){out.data, out.size});
	msgpack_sbuffer_destroy(&out);
	return b;
}

/* The same of JSON whose quotes may be single. */
static inline struct bytes packed(const char *text)
{
	json_error_t error;
	char *json = strdup(text);

	assert_non_null(json);
	for (char *p = json; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json_t *v = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (!v)
		fail_msg("%s: %s", error.text, json);
	free(json);
	struct bytes b = packed_json(v);
	json_decref(v);
	return b;
}

static inline enum refusal feed_at(struct world *w, struct source *s, int type, const char *id,
                                   struct moment client, const char *name, const char *fields)
{
	char *text = NULL;
	struct event ev;

	assert_true(asprintf(&text, "[%d,'%s',%" PRIu64 ",%" PRIu64 ",%s%s%s{%s}]", type, id,
	                     client.unix_ns, client.mono_ns, name ? "'" : "", name ? name : "",
	                     name ? "'," : "", fields ? fields : "") > 0);
	struct bytes body = packed(text);
	free(text);
	enum refusal rc = event_decode(&ev, (uint8_t *)body.p, body.len);
	assert_int_equal(rc, REFUSAL_NONE);
	if (type == EVENT_START)
		rc = runs_start(w->r, s, &ev, w->now);
	else if (type == EVENT_END)
		rc = runs_end(w->r, s, &ev, str_of_bytes(body), w->now);
	else
		runs_point(w->r, s, &ev, w->now);
	free(body.p);
	return rc;
}

static inline enum refusal start(struct world *w, const char *id, const char *fields)
{
	return feed_at(w, w->s, EVENT_START, id, w->now, NULL, fields);
}

static inline enum refusal end(struct world *w, const char *id, const char *fields)
{
	return feed_at(w, w->s, EVENT_END, id, w->now, NULL, fields);
}

static inline void point(struct world *w, const char *id, const char *name, const char *fields)
{
	feed_at(w, w->s, EVENT_POINT, id, w->now, name, fields);
}

static inline void pass(struct world *w, uint64_t ns)
{
	w->now.unix_ns += ns;
	w->now.mono_ns += ns;
}

static inline void tick_after(struct world *w, uint64_t ns)
{
	pass(w, ns);
	runs_tick(w->r, w->now);
}

/* --- what came out --- */

static inline void ids_of(const char *text, struct run_id *run, uint8_t span_id[8])
{
	run_id_of_text(run, str_of(text));
	span_id_of(span_id, run);
}

/* Fails when there are two. NULL: none. */
static inline const struct saved_span *find_span(const struct world *w, const char *id)
{
	const struct saved_span *found = NULL;
	struct run_id run;
	uint8_t span_id[8];

	ids_of(id, &run, span_id);
	for (size_t i = 0; i < w->span_count; i++) {
		if (memcmp(w->spans[i].span_id, span_id, 8) != 0)
			continue;
		assert_null(found);
		found = &w->spans[i];
	}
	return found;
}

/* As the API shows it, content and all; no attribute may be there twice. The caller frees it. */
static inline json_t *span_of(const struct world *w, const char *id)
{
	const struct saved_span *s = find_span(w, id);
	json_error_t error;
	struct buf text;
	struct json j;

	if (!s)
		fail_msg("no span of %s", id);
	struct span_record rec = record_of_span(s);
	buf_init(&text, 16 * MIB);
	jsonw_init(&j, &text);
	span_json(&j, &rec, true, w->now.unix_ns);
	json_t *v = json_loadb((char *)text.data, text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
	                       &error);
	if (!v)
		fail_msg("%s: %.*s", error.text, (int)text.len, (char *)text.data);
	buf_deinit(&text);
	return v;
}

static inline json_t *observation_at(const struct world *w, size_t i)
{
	json_error_t error;

	assert_true(i < w->observation_count);
	json_t *v = json_loadb(w->observations[i].json.p, w->observations[i].json.len,
	                       JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (!v)
		fail_msg("%s: %.*s", error.text, (int)w->observations[i].json.len,
		         w->observations[i].json.p);
	return v;
}

/* A member by its path, the names parted by '/'. */
static inline const json_t *member(const json_t *v, const char *path)
{
	char name[128];

	while (v && *path) {
		size_t len = strcspn(path, "/");
		snprintf(name, sizeof(name), "%.*s", (int)len, path);
		v = json_is_array(v) ? json_array_get(v, (size_t)strtoul(name, NULL, 10))
		                     : json_object_get(v, name);
		path += path[len] ? len + 1 : len;
	}
	return v;
}

static inline const char *text_at(const json_t *v, const char *path)
{
	const char *text = json_string_value(member(v, path));

	return text ? text : "(none)";
}

/* -1: no such count. */
static inline long long count_at(const json_t *v, const char *path)
{
	const json_t *m = member(v, path);

	return json_is_integer(m) ? json_integer_value(m) : -1;
}

static inline void assert_same_trace(const struct world *w, const char *a, const char *b)
{
	assert_non_null(find_span(w, a));
	assert_non_null(find_span(w, b));
	assert_memory_equal(find_span(w, a)->trace_id, find_span(w, b)->trace_id, 16);
}

static inline void assert_trace_of_run(const struct world *w, const char *span, const char *run)
{
	struct run_id id;
	uint8_t span_id[8];

	ids_of(run, &id, span_id);
	assert_non_null(find_span(w, span));
	assert_memory_equal(find_span(w, span)->trace_id, id.b, 16);
}

static inline bool has_metric(const struct world *w, const char *line)
{
	struct buf text;

	buf_init(&text, MIB);
	metrics_write(&w->metrics, &text);
	buf_append_byte(&text, 0);
	bool has = strstr((char *)text.data, line) != NULL;
	buf_deinit(&text);
	return has;
}

static inline void assert_metric(const struct world *w, const char *line)
{
	if (!has_metric(w, line))
		fail_msg("no %s", line);
}

/* Nothing is open, in memory or in the store. */
static inline void assert_nothing_left(struct world *w)
{
	assert_int_equal(runs_open_count(w->r), 0);
	assert_true(runs_deadline(w->r) == UINT64_MAX);
	commit(w);
	assert_int_equal(durable_count(w), 0);
	assert_int_equal(runs_bytes(w->r), 0);
}
