#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/event.h"
#include "sidelight.h"

#define PATIENCE_MS 10000

/* ---- A collector for one test ---- */

/* What one connection said so far, and how much of it was looked at. */
struct heard {
	int fd;
	uint8_t *data;
	size_t len, room, at;
};

struct place {
	char dir[64];
	char path[96];
	int listener;
};

static int listen_at(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_true(strlen(path) < sizeof(addr.sun_path));
	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	strcpy(p->dir, "/tmp/sidelight-test-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/s.sock", p->dir);
	p->listener = listen_at(p->path);
	*state = p;
	return 0;
}

static void stop_listening(struct place *p)
{
	close(p->listener);
	unlink(p->path);
	p->listener = -1;
}

static int remove_place(void **state)
{
	struct place *p = *state;

	if (p->listener >= 0)
		stop_listening(p);
	rmdir(p->dir);
	free(p);
	return 0;
}

static bool is_readable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) == 1;
}

static struct heard accept_one(const struct place *p)
{
	struct heard h = {.fd = -1, .room = 16 << 20};

	assert_true(is_readable(p->listener, PATIENCE_MS));
	h.fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(h.fd >= 0);
	h.data = malloc(h.room);
	assert_non_null(h.data);
	return h;
}

static void hang_up(struct heard *h)
{
	close(h->fd);
	free(h->data);
}

/* Reads what is there now. False at the end of the connection. */
static bool hear(struct heard *h)
{
	assert_true(h->len < h->room);
	ssize_t n = recv(h->fd, h->data + h->len, h->room - h->len, MSG_DONTWAIT);
	if (n > 0)
		h->len += (size_t)n;
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void hear_all(struct heard *h)
{
	while (is_readable(h->fd, 0) && hear(h))
		;
}

static size_t body_length(const uint8_t *p)
{
	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

static bool has_frame(const struct heard *h)
{
	size_t left = h->len - h->at;

	return left >= 4 && left - 4 >= body_length(h->data + h->at);
}

/* The next frame's body; waits for it. */
static struct str next_body(struct heard *h)
{
	while (!has_frame(h)) {
		assert_true(is_readable(h->fd, PATIENCE_MS));
		assert_true(hear(h));
	}
	struct str body = {(const char *)h->data + h->at + 4, body_length(h->data + h->at)};
	h->at += 4 + body.len;
	return body;
}

static struct event next_event(struct heard *h)
{
	struct str body = next_body(h);
	struct event ev;
	enum refusal r = event_decode(&ev, (const uint8_t *)body.p, body.len);

	if (r != REFUSAL_NONE)
		fail_msg("refused: %s", refusal_label(r));
	return ev;
}

static struct event expect(struct heard *h, enum event_type type)
{
	struct event ev = next_event(h);

	assert_int_equal(ev.type, type);
	return ev;
}

static void expect_text(struct str got, const char *want)
{
	if (!str_eq(got, str_of(want)))
		fail_msg("%.*s instead of %s", (int)got.len, got.p, want);
}

static void answer_flush(const struct heard *h, uint64_t token)
{
	uint8_t frame[] = {0, 0, 0, 3, 0x92, 5, (uint8_t)token};

	assert_true(token < 0x80);
	assert_int_equal(send(h->fd, frame, sizeof(frame), MSG_NOSIGNAL), sizeof(frame));
}

static struct sidelight *open_at(const struct place *p)
{
	struct sidelight_options o = {.socket = p->path, .service = "chat-api"};
	struct sidelight *sl = sidelight_open(&o);

	assert_non_null(sl);
	return sl;
}

/* ---- Bytes ---- */

#define MOST_ATTRS 16

/* A message of the vectors as the arguments of a call. */
struct call {
	struct sidelight_run run, parent;
	struct sidelight_attr attrs[MOST_ATTRS], usage[MOST_ATTRS];
	const char *tags[MOST_ATTRS];
	struct sidelight_start_fields start;
	struct sidelight_end_fields end;
	struct sidelight_event_fields event;
};

static bool read_run(const json_t *v, struct sidelight_run *ret)
{
	const char *hex = json_string_value(json_object_get(v, "$bin"));

	return hex && strlen(hex) == 32 && hex_read(ret->id, 16, hex);
}

static bool read_attr(const char *key, const json_t *v, struct sidelight_attr *ret)
{
	const char *real = json_string_value(json_object_get(v, "$float"));
	const char *integer = json_string_value(json_object_get(v, "$int"));

	if (json_is_string(v))
		*ret = sidelight_string(key, json_string_value(v));
	else if (json_is_integer(v))
		*ret = sidelight_int(key, json_integer_value(v));
	else if (json_is_boolean(v))
		*ret = sidelight_bool(key, json_is_true(v));
	else if (real)
		*ret = sidelight_double(key, strtod(real, NULL));
	else if (integer && strtoull(integer, NULL, 10) <= INT64_MAX)
		*ret = sidelight_int(key, strtoll(integer, NULL, 10));
	else
		return false;
	return true;
}

static bool read_attrs(json_t *map, struct sidelight_attr *attrs, size_t *ret_count)
{
	size_t n = 0;
	const char *key;
	json_t *v;

	if (!json_is_object(map) || json_object_size(map) > MOST_ATTRS)
		return false;
	json_object_foreach(map, key, v)
	{
		if (!read_attr(key, v, &attrs[n++]))
			return false;
	}
	*ret_count = n;
	return true;
}

static bool read_tags(const json_t *list, struct call *c)
{
	for (size_t i = 0; i < json_array_size(list) && i < MOST_ATTRS; i++)
		c->tags[i] = json_string_value(json_array_get(list, i));
	c->start.tags = c->tags;
	c->start.tag_count = json_array_size(list);
	return c->start.tag_count > 0;
}

static bool read_text(const char *key, const json_t *v, const char *name, const char **ret)
{
	if (strcmp(key, name) != 0 || !json_is_string(v))
		return false;
	*ret = json_string_value(v);
	return true;
}

static bool read_start_field(struct call *c, const char *key, json_t *v)
{
	struct sidelight_start_fields *s = &c->start;

	if (strcmp(key, "parent") == 0) {
		s->parent = &c->parent;
		return read_run(v, &c->parent);
	}
	if (strcmp(key, "tags") == 0)
		return read_tags(v, c);
	if (strcmp(key, "gather") == 0)
		return (s->gather = json_is_true(v));
	if (strcmp(key, "attrs") == 0) {
		s->attrs = c->attrs;
		return read_attrs(v, c->attrs, &s->attr_count) && s->attr_count > 0;
	}
	return read_text(key, v, "kind", &s->kind) || read_text(key, v, "name", &s->name) ||
	       read_text(key, v, "traceparent", &s->traceparent) ||
	       read_text(key, v, "session", &s->session) || read_text(key, v, "user", &s->user) ||
	       read_text(key, v, "model", &s->model) ||
	       read_text(key, v, "provider", &s->provider) || read_text(key, v, "input", &s->input);
}

static bool read_end_field(struct call *c, const char *key, json_t *v)
{
	struct sidelight_end_fields *e = &c->end;

	if (strcmp(key, "usage") == 0) {
		e->usage = c->usage;
		return read_attrs(v, c->usage, &e->usage_count);
	}
	if (strcmp(key, "attrs") == 0) {
		e->attrs = c->attrs;
		return read_attrs(v, c->attrs, &e->attr_count) && e->attr_count > 0;
	}
	if (strcmp(key, "error") == 0) {
		e->error_type = json_string_value(json_object_get(v, "type"));
		e->error_message = json_string_value(json_object_get(v, "message"));
		e->error_stack = json_string_value(json_object_get(v, "stack"));
		return json_object_size(v) > 0;
	}
	return read_text(key, v, "output", &e->output) || read_text(key, v, "model", &e->model) ||
	       read_text(key, v, "finish", &e->finish);
}

static uint64_t read_time(const json_t *message, const char *key)
{
	const json_t *v = json_object_get(message, key);

	if (json_is_object(v))
		return strtoull(json_string_value(json_object_get(v, "$int")), NULL, 10);
	return (uint64_t)json_integer_value(v);
}

/* False for what this client never says: other values, and fields in another order. */
static bool read_call(const json_t *vector, struct call *c)
{
	const json_t *message = json_object_get(vector, "message");
	const char *type = json_string_value(json_object_get(message, "type"));
	json_t *fields = json_object_get(message, "fields");
	const char *key;
	json_t *v;

	memset(c, 0, sizeof(*c));
	c->start.unix_ns = c->end.unix_ns = c->event.unix_ns = read_time(message, "unix_ns");
	c->start.mono_ns = c->end.mono_ns = c->event.mono_ns = read_time(message, "mono_ns");
	if (!json_is_true(json_object_get(vector, "shortest")) || c->start.unix_ns == 0 ||
	    !read_run(json_object_get(message, "run_id"), &c->run) ||
	    strcmp(json_string_value(json_object_get(vector, "name")), "start-other-order") == 0)
		return false;
	if (strcmp(type, "event") == 0) {
		c->event.name = json_string_value(json_object_get(message, "name"));
		c->event.attrs = c->attrs;
		return read_attrs(fields, c->attrs, &c->event.attr_count);
	}
	json_object_foreach(fields, key, v)
	{
		if (strcmp(type, "start") == 0 ? !read_start_field(c, key, v)
		                               : !read_end_field(c, key, v))
			return false;
	}
	return true;
}

static int make_call(struct sidelight *sl, const json_t *vector, struct call *c)
{
	const json_t *message = json_object_get(vector, "message");
	const char *type = json_string_value(json_object_get(message, "type"));
	struct sidelight_run run;

	if (strcmp(type, "start") == 0) {
		c->start.run = &c->run;
		return sidelight_start(sl, &run, &c->start);
	}
	if (strcmp(type, "end") == 0)
		return sidelight_end(sl, &c->run, &c->end);
	return sidelight_event(sl, &c->run, &c->event);
}

static void assert_frame(struct str body, const json_t *vector)
{
	const char *hex = json_string_value(json_object_get(vector, "frame"));
	uint8_t *want = malloc(strlen(hex) / 2);

	assert_non_null(want);
	assert_true(hex_read(want, strlen(hex) / 2, hex));
	if (body.len + 4 != strlen(hex) / 2 || memcmp(body.p, want + 4, body.len) != 0)
		fail_msg("%s", json_string_value(json_object_get(vector, "name")));
	free(want);
}

static void frames_are_those_of_the_vectors(void **state)
{
	json_t *vectors = json_load_file(SOURCE_ROOT "/proto/vectors/good.json", 0, NULL);
	struct sidelight *sl = open_at(*state);
	struct heard h = {.fd = -1};
	struct call c;
	int same = 0;

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i);
		if (!read_call(vector, &c))
			continue;
		assert_int_equal(make_call(sl, vector, &c), 0);
		if (same++ == 0) {
			h = accept_one(*state);
			expect(&h, EVENT_HELLO);
		}
		assert_frame(next_body(&h), vector);
	}
	assert_true(same >= 20);
	sidelight_close(sl);
	expect(&h, EVENT_BYE);
	hang_up(&h);
	json_decref(vectors);
}

/* Says what a child frame's vector says. False for what this client never does: no wait status has
 * signal 127. */
static bool tell_child(struct sidelight *sl, const json_t *vector)
{
	json_t *fields = json_object_get(json_object_get(vector, "message"), "fields");
	const json_t *exit = json_object_get(fields, "exit"),
		     *signal = json_object_get(fields, "signal");
	long pid = (long)json_integer_value(json_object_get(fields, "pid"));

	if (!json_is_true(json_object_get(vector, "shortest")) ||
	    json_object_size(fields) != 1u + !!exit + !!signal || json_is_null(exit) ||
	    json_is_null(signal) || json_integer_value(signal) == 127)
		return false;
	int r = exit     ? sidelight_exited(sl, pid, W_EXITCODE((int)json_integer_value(exit), 0))
	        : signal ? sidelight_exited(sl, pid, W_EXITCODE(0, (int)json_integer_value(signal)))
	                 : sidelight_watch(sl, pid);
	assert_int_equal(r, 0);
	return true;
}

static void children_are_told_of_as_in_the_vectors(void **state)
{
	json_t *vectors = json_load_file(SOURCE_ROOT "/proto/vectors/good.json", 0, NULL);
	struct sidelight *sl = open_at(*state);
	struct heard h = {.fd = -1};
	int same = 0;

	for (size_t i = 0; i < json_array_size(vectors); i++) {
		const json_t *vector = json_array_get(vectors, i),
			     *message = json_object_get(vector, "message");
		const char *type = json_string_value(json_object_get(message, "type"));
		if (strcmp(type, "child") != 0 || !tell_child(sl, vector))
			continue;
		if (same++ == 0) {
			h = accept_one(*state);
			expect(&h, EVENT_HELLO);
		}
		assert_frame(next_body(&h), vector);
	}
	assert_true(same >= 3);
	sidelight_close(sl);
	hang_up(&h);
	json_decref(vectors);
}

/* As waitpid() says it; a child that has only stopped has not ended, and a core dump is no other
 * signal. */
static void how_a_child_ended_is_read_from_its_status(void **state)
{
	struct sidelight *sl = open_at(*state);

	assert_int_equal(sidelight_watch(sl, 0), -EINVAL);
	assert_int_equal(sidelight_watch(sl, -1), -EINVAL);
	assert_int_equal(sidelight_watch(sl, 1L << 31), -EINVAL);
	assert_int_equal(sidelight_watch(NULL, 5), -EINVAL);
	assert_int_equal(sidelight_exited(sl, 5, W_STOPCODE(SIGTSTP)), -EINVAL);
	assert_int_equal(sidelight_exited(sl, 5, __W_CONTINUED), -EINVAL);
	assert_int_equal(sidelight_exited(sl, 0, W_EXITCODE(0, 0)), -EINVAL);
	assert_int_equal(sidelight_exited(NULL, 5, 0), -EINVAL);
	assert_int_equal(sidelight_exited(sl, 5, W_EXITCODE(0, SIGSEGV) | WCOREFLAG), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_CHILD);
	assert_int_equal(ev.pid, 5);
	assert_int_equal(ev.signal, SIGSEGV);
	assert_int_equal(ev.exit, -1);
	sidelight_close(sl);
	hang_up(&h);
}

static void a_helper_names_the_process_that_its_runs_end_with(void **state)
{
	const struct place *p = *state;
	struct sidelight_options o = {.socket = p->path, .service = "backup.sh", .owner = 4700};
	struct sidelight *sl = sidelight_open(&o);
	struct sidelight_run run;

	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	struct event ev = expect(&h, EVENT_HELLO);
	assert_int_equal(ev.owner, 4700);
	assert_int_equal(ev.pid, getpid());
	sidelight_close(sl);
	hang_up(&h);
	o.owner = -1;
	errno = 0;
	assert_null(sidelight_open(&o));
	assert_int_equal(errno, EINVAL);
}

static void the_hello_says_who_speaks(void **state)
{
	const struct place *p = *state;
	struct sidelight_attr resource[] = {sidelight_string("deployment.environment.name", "prod"),
	                                    sidelight_int("shard", 3)};
	struct sidelight_options o = {.socket = p->path,
	                              .service = "chat-api",
	                              .resource = resource,
	                              .resource_count = 2};
	struct sidelight *sl = sidelight_open(&o);
	struct sidelight_run run;

	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	struct event ev = expect(&h, EVENT_HELLO);
	assert_true(str_is(ev.service, "chat-api"));
	assert_true(str_is(ev.sdk, "c/" SIDELIGHT_VERSION));
	assert_int_equal(ev.pid, getpid());
	assert_int_equal(ev.resource.p[0] & 0xff, 0x82);
	sidelight_close(sl);
	hang_up(&h);
}

static void ids_and_times_are_made_up(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct sidelight_run a, b;

	assert_int_equal(sidelight_start(sl, &a, NULL), 0);
	assert_int_equal(sidelight_start(sl, &b, NULL), 0);
	assert_memory_not_equal(a.id, b.id, 16);
	assert_int_equal(a.id[6] >> 4, 7);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event first = expect(&h, EVENT_START);
	assert_memory_equal(first.run.b, a.id, 16);
	struct event second = expect(&h, EVENT_START);
	assert_true(first.unix_ns > 1600000000000000000ull);
	assert_true(second.mono_ns >= first.mono_ns && first.mono_ns > 0);
	sidelight_close(sl);
	hang_up(&h);
}

/* ---- Payloads ---- */

/* The integer under key in the map under sidelight.cut. */
static int64_t cut_of(struct str attrs, const char *key)
{
	struct mp c = mp_of(attrs);
	struct mp_value head, k, v;

	assert_int_equal(mp_read(&c, &head), REFUSAL_NONE);
	for (uint32_t i = 0; i < head.count; i++) {
		assert_int_equal(mp_read(&c, &k), REFUSAL_NONE);
		if (!str_is(k.s, "sidelight.cut")) {
			assert_int_equal(mp_skip(&c, 16), REFUSAL_NONE);
			continue;
		}
		assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
		for (uint32_t j = 0; j < v.count; j++) {
			struct mp_value name, length;
			assert_int_equal(mp_read(&c, &name), REFUSAL_NONE);
			assert_int_equal(mp_read(&c, &length), REFUSAL_NONE);
			if (str_eq(name.s, str_of(key)))
				return length.i;
		}
	}
	return -1;
}

static struct str text_in(struct str value)
{
	struct mp c = mp_of(value);
	struct mp_value v;

	assert_int_equal(mp_read(&c, &v), REFUSAL_NONE);
	assert_int_equal(v.type, MP_STR);
	return v.s;
}

static void long_values_are_cut_and_say_so(void **state)
{
	static char input[70002], note[70001];
	struct sidelight *sl = open_at(*state);
	struct sidelight_attr attrs[] = {sidelight_string("note", note), sidelight_int("n", 1)};
	struct sidelight_start_fields f = {.input = input, .attrs = attrs, .attr_count = 2};
	struct sidelight_run run;

	// Two-byte characters after one letter: the limit falls inside one.
	input[0] = 'x';
	for (size_t i = 1; i < 70001; i += 2)
		memcpy(input + i, "\xc3\xa9", 2);
	memset(note, 'n', 70000);
	assert_int_equal(sidelight_start(sl, &run, &f), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_START);
	assert_int_equal(text_in(ev.input).len, 65535);
	assert_int_equal(cut_of(ev.attrs, "input"), 70001);
	assert_int_equal(cut_of(ev.attrs, "note"), 70000);
	sidelight_close(sl);
	hang_up(&h);
}

static void bytes_that_are_no_utf8_become_question_marks(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct sidelight_end_fields f = {.error_message =
	                                         "a\xff\xe2\x82 caf\xc3\xa9 \xf0\x9f\x98\x80",
	                                 .model = "\xed\xa0\x80"};
	struct sidelight_run run = {{1}};

	assert_int_equal(sidelight_end(sl, &run, &f), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_END);
	assert_true(str_is(ev.error_message, "a??? caf\xc3\xa9 \xf0\x9f\x98\x80"));
	assert_true(str_is(ev.model, "???"));
	sidelight_close(sl);
	hang_up(&h);
}

static void a_parent_may_stand_where_the_id_goes(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct sidelight_run run = {{1}};
	struct sidelight_start_fields f = {.parent = &run};

	assert_int_equal(sidelight_start(sl, &run, &f), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_START);
	assert_memory_equal(ev.run.b, run.id, 16);
	assert_true(ev.parent.b[0] == 1 && ev.parent.b[15] == 0);
	sidelight_close(sl);
	hang_up(&h);
}

static void wrong_arguments_are_refused(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct sidelight_attr no_key = sidelight_int(NULL, 1),
			      no_text = sidelight_string("k", NULL);
	struct sidelight_start_fields f = {.attrs = &no_key, .attr_count = 1};
	struct sidelight_event_fields nameless = {.name = ""};
	struct sidelight_run run = {{1}}, none = {{0}};

	assert_int_equal(sidelight_start(NULL, &run, NULL), -EINVAL);
	assert_memory_equal(&run, &none, sizeof(run));
	assert_int_equal(sidelight_end(NULL, &run, NULL), -EINVAL);
	assert_int_equal(sidelight_event(NULL, &run, &nameless), -EINVAL);
	assert_int_equal(sidelight_flush(NULL, 0), -EINVAL);
	sidelight_close(NULL);
	run.id[0] = 1;
	assert_int_equal(sidelight_start(sl, &run, &f), -EINVAL);
	assert_memory_equal(&run, &none, sizeof(run));
	f.attrs = &no_text;
	assert_int_equal(sidelight_start(sl, &run, &f), -EINVAL);
	f.attrs = NULL;
	assert_int_equal(sidelight_start(sl, &run, &f), -EINVAL);
	assert_int_equal(sidelight_start(sl, NULL, NULL), -EINVAL);
	assert_int_equal(sidelight_event(sl, &run, &nameless), -EINVAL);
	assert_int_equal(sidelight_dropped(sl), 0);
	sidelight_close(sl);
}

/* ---- The collector is away, slow, or gone ---- */

static void events_wait_for_an_absent_collector(void **state)
{
	struct place *p = *state;
	struct sidelight *sl = open_at(p);
	struct sidelight_run run, sent;

	stop_listening(p);
	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	assert_int_equal(sidelight_flush(sl, 30), -ETIMEDOUT);
	p->listener = listen_at(p->path);
	assert_int_equal(sidelight_end(sl, &run, NULL), 0);
	while (!is_readable(p->listener, 0))
		assert_int_equal(sidelight_flush(sl, 20), -ETIMEDOUT);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_START);
	memcpy(sent.id, ev.run.b, 16);
	assert_memory_equal(sent.id, run.id, 16);
	expect(&h, EVENT_FLUSH);
	expect(&h, EVENT_END);
	sidelight_close(sl);
	hang_up(&h);
}

static void what_is_dropped_is_counted_and_reported(void **state)
{
	const struct place *p = *state;
	struct sidelight_options o = {.socket = p->path, .buffer_bytes = 16384};
	struct sidelight *sl = sidelight_open(&o);
	static char input[3001];
	struct sidelight_start_fields f = {.input = input};
	struct sidelight_run run;
	int kept = 0, seen = 0;

	memset(input, 'i', 3000);
	while (sidelight_start(sl, &run, &f) == 0)
		assert_true(++kept < 100000);
	for (int i = 0; i < 9; i++)
		assert_int_equal(sidelight_start(sl, &run, &f), -ENOBUFS);
	assert_int_equal(sidelight_dropped(sl), 10);

	struct heard h = accept_one(p);
	hear_all(&h);
	assert_int_equal(sidelight_start(sl, &run, &f), 0);
	sidelight_close(sl);
	expect(&h, EVENT_HELLO);
	struct event ev = next_event(&h);
	for (; ev.type == EVENT_START; ev = next_event(&h))
		seen++;
	assert_int_equal(seen, kept);
	assert_int_equal(ev.type, EVENT_DROPPED);
	assert_int_equal(ev.dropped, 10);
	assert_true(str_is(ev.reason, "full"));
	expect(&h, EVENT_START);
	expect(&h, EVENT_BYE);
	hang_up(&h);
}

static void what_the_collector_missed_is_told_when_it_is_back(void **state)
{
	struct place *p = *state;
	struct sidelight_options o = {.socket = p->path, .buffer_bytes = 16384};
	struct sidelight *sl = sidelight_open(&o);
	struct sidelight_run run = {{0}}, before;
	uint64_t kept = 0, seen = 0;

	stop_listening(p);
	while (sidelight_start(sl, &run, NULL) == 0)
		assert_true(++kept < 10000);
	for (int i = 0; i < 99; i++) {
		before = run;
		assert_int_equal(sidelight_start(sl, &run, NULL), -ENOBUFS);
		assert_memory_not_equal(run.id, before.id, 16);
	}
	assert_int_equal(sidelight_dropped(sl), 100);
	p->listener = listen_at(p->path);
	while (!is_readable(p->listener, 0))
		(void)sidelight_flush(sl, 20);
	assert_int_equal(sidelight_end(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	struct event ev = next_event(&h);
	for (; ev.type == EVENT_START; ev = next_event(&h))
		seen++;
	assert_int_equal(seen, kept);
	// A flush that waited for room may have brought the report.
	while (ev.type == EVENT_FLUSH)
		ev = next_event(&h);
	assert_int_equal(ev.type, EVENT_DROPPED);
	assert_int_equal(ev.dropped, 100);
	expect_text(ev.reason, "away");
	sidelight_close(sl);
	hang_up(&h);
}

static void a_frame_larger_than_the_buffer_is_dropped(void **state)
{
	const struct place *p = *state;
	struct sidelight_options o = {.socket = p->path, .buffer_bytes = 16384};
	struct sidelight *sl = sidelight_open(&o);
	static char input[20001];
	struct sidelight_start_fields f = {.input = input};
	struct sidelight_run run;

	memset(input, 'i', 20000);
	assert_int_equal(sidelight_start(sl, &run, &f), -EMSGSIZE);
	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	expect_text(expect(&h, EVENT_DROPPED).reason, "too_long");
	expect(&h, EVENT_START);
	sidelight_close(sl);
	hang_up(&h);
}

/* The number in an event's name. */
static int number_of(struct heard *h)
{
	struct event ev = expect(h, EVENT_START);
	char text[16] = {0};

	assert_true(ev.name.len < sizeof(text));
	memcpy(text, ev.name.p, ev.name.len);
	return atoi(text);
}

static void a_frame_that_broke_off_is_sent_again_whole(void **state)
{
	struct place *p = *state;
	struct sidelight_options o = {.socket = p->path, .buffer_bytes = 8 << 20};
	struct sidelight *sl = sidelight_open(&o);
	static char input[50001];
	char name[16];
	struct sidelight_start_fields f = {.name = name, .input = input};
	struct sidelight_run run;
	enum { FRAMES = 100 };
	int whole = 0;

	// Enough for a full socket, with a frame that is partly in it.
	memset(input, 'i', 50000);
	for (int i = 0; i < FRAMES; i++) {
		snprintf(name, sizeof(name), "%d", i);
		assert_int_equal(sidelight_start(sl, &run, &f), 0);
	}
	struct heard first = accept_one(p);
	hear_all(&first);
	expect(&first, EVENT_HELLO);
	for (; has_frame(&first); whole++)
		assert_int_equal(number_of(&first), whole);
	assert_true(whole > 0 && whole < FRAMES);
	assert_true(first.at < first.len);
	hang_up(&first);

	while (!is_readable(p->listener, 0))
		(void)sidelight_flush(sl, 20);
	struct heard second = accept_one(p);
	expect(&second, EVENT_HELLO);
	for (int i = whole; i < FRAMES; i++) {
		while (!has_frame(&second)) {
			(void)sidelight_flush(sl, 0);
			hear_all(&second);
		}
		assert_int_equal(number_of(&second), i);
	}
	sidelight_close(sl);
	hang_up(&second);
}

/* ---- Flush ---- */

struct flusher {
	struct sidelight *sl;
	int timeout_ms, result;
};

static void *flush_there(void *arg)
{
	struct flusher *f = arg;

	f->result = sidelight_flush(f->sl, f->timeout_ms);
	return NULL;
}

static void a_flush_ends_with_its_answer(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct flusher f = {.sl = sl, .timeout_ms = PATIENCE_MS, .result = 1};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, flush_there, &f), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	struct event ev = expect(&h, EVENT_FLUSH);
	// An error frame on the way is passed over.
	uint8_t error[] = "\0\0\0\x1c\x92\x08\x81\xa7message\xb0words and words.";
	error[3] = (uint8_t)(sizeof(error) - 1 - 4);
	assert_int_equal(send(h.fd, error, sizeof(error) - 1, 0), sizeof(error) - 1);
	answer_flush(&h, ev.token);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(f.result, 0);
	sidelight_close(sl);
	hang_up(&h);
}

static void a_flush_whose_connection_breaks_says_so(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct flusher f = {.sl = sl, .timeout_ms = PATIENCE_MS, .result = 1};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, flush_there, &f), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	expect(&h, EVENT_FLUSH);
	hang_up(&h);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(f.result, -ECONNRESET);
	sidelight_close(sl);
}

static void a_flush_that_nobody_answers_times_out(void **state)
{
	struct sidelight *sl = open_at(*state);

	assert_int_equal(sidelight_flush(sl, 30), -ETIMEDOUT);
	sidelight_close(sl);
}

/* ---- Threads and processes ---- */

static void *start_and_end(void *arg)
{
	struct sidelight_run run;

	for (int i = 0; i < 500; i++) {
		assert_int_equal(sidelight_start(arg, &run, NULL), 0);
		assert_int_equal(sidelight_end(arg, &run, NULL), 0);
	}
	return NULL;
}

/* What a thread did after its cancellation was asked for: every call is a chance to act on it. */
struct cancelled {
	struct sidelight *shared, *own;
	bool has_started, has_flushed, has_closed;
	int cancel_state;
};

static void *call_while_cancelled(void *arg)
{
	struct cancelled *c = arg;
	struct sidelight_run run;

	pthread_cancel(pthread_self());
	c->has_started = sidelight_start(c->shared, &run, NULL) == 0;
	c->has_flushed = sidelight_flush(c->shared, 1) == -ETIMEDOUT;
	sidelight_close(c->own);
	c->has_closed = true;
	// The thread ends by itself: a sanitizer's own end of a thread can't stand the other.
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &c->cancel_state);
	return NULL;
}

static void a_cancelled_thread_leaves_the_lock(void **state)
{
	struct place *p = *state;
	struct cancelled c = {.shared = open_at(p), .own = open_at(p)};
	struct sidelight_run run;
	pthread_t thread;

	assert_int_equal(sidelight_start(c.own, &run, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, call_while_cancelled, &c), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(c.has_started && c.has_flushed && c.has_closed);
	assert_int_equal(c.cancel_state, PTHREAD_CANCEL_ENABLE);

	assert_int_equal(sidelight_start(c.shared, &run, NULL), 0);
	sidelight_close(c.shared);
}

static void threads_share_a_handle(void **state)
{
	struct sidelight *sl = open_at(*state);
	pthread_t threads[2];
	int starts = 0, ends = 0;

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, start_and_end, sl), 0);
	struct heard h = accept_one(*state);
	expect(&h, EVENT_HELLO);
	while (starts + ends < 2000) {
		// The socket may be full by the time the threads are done.
		while (!has_frame(&h)) {
			(void)sidelight_dropped(sl);
			assert_true(is_readable(h.fd, PATIENCE_MS));
			assert_true(hear(&h));
		}
		enum event_type type = next_event(&h).type;
		starts += type == EVENT_START;
		ends += type == EVENT_END;
	}
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(starts, ends);
	assert_int_equal(sidelight_dropped(sl), 0);
	sidelight_close(sl);
	hang_up(&h);
}

static void a_child_speaks_for_itself(void **state)
{
	struct place *p = *state;
	struct sidelight *sl = open_at(p);
	struct sidelight_start_fields f = {.name = "parent"};
	struct sidelight_run run;
	int status;

	// The parent's event still waits when the child is born.
	stop_listening(p);
	assert_int_equal(sidelight_start(sl, &run, &f), 0);
	p->listener = listen_at(p->path);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		f.name = "child";
		int r = sidelight_start(sl, &run, &f);
		sidelight_close(sl);
		_exit(r == 0 ? 0 : 1);
	}
	struct heard h = accept_one(p);
	assert_int_equal(expect(&h, EVENT_HELLO).pid, child);
	expect_text(expect(&h, EVENT_START).name, "child");
	expect(&h, EVENT_BYE);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	hang_up(&h);

	while (!is_readable(p->listener, 0))
		(void)sidelight_flush(sl, 20);
	h = accept_one(p);
	assert_int_equal(expect(&h, EVENT_HELLO).pid, getpid());
	expect_text(expect(&h, EVENT_START).name, "parent");
	sidelight_close(sl);
	hang_up(&h);
}

/* The client's descriptor: the one whose other end listens at the path. */
static int descriptor_to(const struct place *p)
{
	for (int fd = 3; fd < 4096; fd++) {
		struct sockaddr_un addr = {0};
		socklen_t len = sizeof(addr);
		if (getpeername(fd, (struct sockaddr *)&addr, &len) == 0 &&
		    addr.sun_family == AF_UNIX && strcmp(addr.sun_path, p->path) == 0)
			return fd;
	}
	fail_msg("no connection to %s", p->path);
	return -1;
}

/* What the agent opens after it closed all descriptors gets the lowest numbers. */
static void what_closes_descriptors_gets_none_of_our_bytes(void **state)
{
	const struct sidelight_event_fields event = {.name = "while it is closed"};
	const struct place *p = *state;
	struct sidelight *sl = open_at(p);
	struct sidelight_run run;
	int theirs[8][2];
	char byte;

	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	expect(&h, EVENT_START);
	assert_int_equal(close(descriptor_to(p)), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, theirs[i]), 0);
	assert_int_equal(sidelight_event(sl, &run, &event), 0);
	assert_int_equal(sidelight_end(sl, &run, NULL), 0);
	for (int i = 0; i < 100 && !is_readable(p->listener, 0); i++)
		(void)sidelight_flush(sl, 20);
	struct heard again = accept_one(p);
	expect(&again, EVENT_HELLO);
	expect(&again, EVENT_POINT);
	expect(&again, EVENT_END);
	sidelight_close(sl);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(recv(theirs[i / 2][i % 2], &byte, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
	}
	for (int i = 0; i < 16; i++)
		close(theirs[i / 2][i % 2]);
	hang_up(&h);
	hang_up(&again);
}

/* Where even our number is another file's, that file stays open and gets nothing. */
static void a_file_with_our_number_stays_open(void **state)
{
	const struct place *p = *state;
	struct sidelight *sl = open_at(p);
	struct sidelight_run run;
	struct stat st;

	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	int fd = descriptor_to(p);
	FILE *file = tmpfile();
	assert_non_null(file);
	assert_int_equal(dup2(fileno(file), fd), fd);
	assert_int_equal(sidelight_end(sl, &run, NULL), 0);
	sidelight_close(sl);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 0);
	close(fd);
	fclose(file);
	hang_up(&h);
}

static void nothing_is_allocated_after_open(void **state)
{
	struct sidelight *sl = open_at(*state);
	struct sidelight_event_fields point = {.name = "first_token"};
	struct sidelight_run run;

	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	size_t before = mallinfo2().uordblks;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(sidelight_start(sl, &run, NULL), 0);
		assert_int_equal(sidelight_event(sl, &run, &point), 0);
		assert_int_equal(sidelight_end(sl, &run, NULL), 0);
		assert_int_equal(sidelight_watch(sl, 1 + i), 0);
		assert_int_equal(sidelight_exited(sl, 1 + i, 0), 0);
		assert_int_equal(sidelight_flush(sl, 0), -ETIMEDOUT);
	}
	assert_int_equal(mallinfo2().uordblks, before);
	sidelight_close(sl);
}

/* ---- Where the socket is ---- */

static void the_environment_names_the_socket(void **state)
{
	struct place *p = *state;

	assert_int_equal(setenv("SIDELIGHT_SOCKET", p->path, 1), 0);
	struct sidelight *sl = sidelight_open(NULL);
	struct sidelight_run run;
	assert_int_equal(unsetenv("SIDELIGHT_SOCKET"), 0);
	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	struct heard h = accept_one(p);
	expect_text(expect(&h, EVENT_HELLO).service, "test_client_c");
	sidelight_close(sl);
	hang_up(&h);
}

static void the_users_runtime_directory_is_looked_in(void **state)
{
	struct place *p = *state;
	struct sidelight_run run;
	char dir[128], path[160];

	if (access("/run/sidelight/sidelight.sock", F_OK) == 0)
		skip(); // the system's collector comes first
	snprintf(dir, sizeof(dir), "%s/sidelight", p->dir);
	snprintf(path, sizeof(path), "%s/sidelight.sock", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	int before = p->listener;
	p->listener = listen_at(path);
	assert_int_equal(setenv("XDG_RUNTIME_DIR", p->dir, 1), 0);
	struct sidelight *sl = sidelight_open(NULL);
	assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
	assert_int_equal(sidelight_start(sl, &run, NULL), 0);
	// Anybody could have made a directory in /tmp that others can enter.
	assert_int_equal(chmod(dir, 0755), 0);
	struct heard h = accept_one(p);
	expect(&h, EVENT_HELLO);
	sidelight_close(sl);
	hang_up(&h);

	assert_int_equal(setenv("XDG_RUNTIME_DIR", p->dir, 1), 0);
	sl = sidelight_open(NULL);
	assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
	assert_int_equal(sidelight_flush(sl, 20), -ETIMEDOUT);
	assert_false(is_readable(p->listener, 0));
	sidelight_close(sl);
	close(p->listener);
	p->listener = before;
	unlink(path);
	rmdir(dir);
}

static void a_path_that_no_socket_can_have_is_refused(void **state)
{
	char path[200];
	struct sidelight_options o = {.socket = path};

	memset(path, 'p', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	errno = 0;
	assert_null(sidelight_open(&o));
	assert_int_equal(errno, ENAMETOOLONG);
}

static void the_example_tells_a_whole_story(void **state)
{
	static const enum event_type story[] = {EVENT_HELLO, EVENT_START, EVENT_START,
	                                        EVENT_END,   EVENT_END,   EVENT_FLUSH};
	struct place *p = *state;
	char name[] = "example", variable[128];
	char *argv[] = {name, NULL}, *env[] = {variable, NULL};
	uint64_t token = 0;
	pid_t child;
	int status;

	snprintf(variable, sizeof(variable), "SIDELIGHT_SOCKET=%s", p->path);
	assert_int_equal(posix_spawn(&child, getenv("EXAMPLE"), NULL, NULL, argv, env), 0);
	struct heard h = accept_one(p);
	for (size_t i = 0; i < sizeof(story) / sizeof(story[0]); i++)
		token = expect(&h, story[i]).token;
	answer_flush(&h, token);
	expect(&h, EVENT_BYE);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	hang_up(&h);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(frames_are_those_of_the_vectors),
		TEST(children_are_told_of_as_in_the_vectors),
		TEST(how_a_child_ended_is_read_from_its_status),
		TEST(the_hello_says_who_speaks),
		TEST(a_helper_names_the_process_that_its_runs_end_with),
		TEST(ids_and_times_are_made_up),
		TEST(long_values_are_cut_and_say_so),
		TEST(bytes_that_are_no_utf8_become_question_marks),
		TEST(a_parent_may_stand_where_the_id_goes),
		TEST(wrong_arguments_are_refused),
		TEST(events_wait_for_an_absent_collector),
		TEST(what_is_dropped_is_counted_and_reported),
		TEST(what_the_collector_missed_is_told_when_it_is_back),
		TEST(a_frame_larger_than_the_buffer_is_dropped),
		TEST(a_frame_that_broke_off_is_sent_again_whole),
		TEST(a_flush_ends_with_its_answer),
		TEST(a_flush_whose_connection_breaks_says_so),
		TEST(a_flush_that_nobody_answers_times_out),
		TEST(threads_share_a_handle),
		TEST(a_cancelled_thread_leaves_the_lock),
		TEST(a_child_speaks_for_itself),
		TEST(what_closes_descriptors_gets_none_of_our_bytes),
		TEST(a_file_with_our_number_stays_open),
		TEST(nothing_is_allocated_after_open),
		TEST(the_environment_names_the_socket),
		TEST(the_users_runtime_directory_is_looked_in),
		TEST(a_path_that_no_socket_can_have_is_refused),
		TEST(the_example_tells_a_whole_story),
	};

	return cmocka_run_group_tests_name("client_c", tests, NULL, NULL);
}
