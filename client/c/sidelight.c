#include "sidelight.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "pack.h"

#define BUFFER_DEFAULT (1024 * 1024)
#define BUFFER_LEAST (16 * 1024)
#define BUFFER_MOST (1024 * 1024 * 1024)
#define VALUE_DEFAULT (64 * 1024)
#define VALUE_LEAST 64
#define FRAME_MOST (4 * 1024 * 1024) // the collector's limit
#define NAME_MOST 1024               // bytes of a name, a model, a key; the collector's limit
#define ATTRS_MOST 1023              // the collector's limit, and one for the cuts
#define CUTS_MOST 32
#define FLUSH_SLICE_MS 20 // another thread may replace the socket that flush waits on

enum { HELLO, START, END, POINT, FLUSH, FLUSHED, DROPPED, BYE };

/* A text that was cut, and what it measured. */
struct cut {
	const char *key;
	uint64_t bytes;
};

struct sidelight {
	_Atomic pid_t *owner; // whose connection it is, in a page of its own
	bool forgets;         // a child reads 0 there: the kernel wipes it on fork
	pthread_mutex_t lock;
	struct link link;
	uint8_t *frame; // where frames are built
	size_t frame_room;
	struct pack out;
	struct cut cuts[CUTS_MOST];
	size_t cut_count;
	size_t max_value;
	uint8_t hello[LINK_HELLO - 16]; // all but the pid, which a child changes
	size_t hello_len;
	uint64_t random;
	uint64_t token;
	uint64_t dropped, dropped_unsaid;
	bool is_full; // the last event found no room
	const char *drop_reason;
};

static uint64_t unix_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64, seeded by the kernel in each process. */
static uint64_t next_random(struct sidelight *sl)
{
	uint64_t z = sl->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void seed_random(struct sidelight *sl)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed))
		seed = sl_mono_now_ns() ^ (uint64_t)getpid() << 32 ^ (uint64_t)(uintptr_t)sl;
	sl->random = seed;
}

/* ---- Fields ---- */

/* The message's own map, whose head is written once the number of its keys is known: 15 at most. */
struct fields {
	size_t head;
	uint8_t count;
};

static struct fields begin_fields(struct sidelight *sl)
{
	struct fields f = {.head = sl->out.len};

	sl_pack_map(&sl->out, 0);
	return f;
}

static void end_fields(struct sidelight *sl, const struct fields *f)
{
	if (!sl->out.full)
		sl->out.data[f->head] = (uint8_t)(0x80 | f->count);
}

static void put_text(struct sidelight *sl, const char *text, size_t most)
{
	sl_pack_text(&sl->out, text, sl_text_cut(text, strlen(text), most));
}

static void put_key(struct sidelight *sl, struct fields *f, const char *key)
{
	put_text(sl, key, NAME_MOST);
	f->count++;
}

static void put_name(struct sidelight *sl, struct fields *f, const char *key, const char *name)
{
	if (!name)
		return;
	put_key(sl, f, key);
	put_text(sl, name, NAME_MOST);
}

/* A text of any length: what is over the limit is cut, and remembered under its key. */
static void put_value(struct sidelight *sl, const char *key, const char *text)
{
	size_t len = strlen(text);

	if (len > sl->max_value && sl->cut_count < CUTS_MOST)
		sl->cuts[sl->cut_count++] = (struct cut){key, len};
	sl_pack_text(&sl->out, text, sl_text_cut(text, len, sl->max_value));
}

static void put_attr(struct sidelight *sl, const struct sidelight_attr *a)
{
	put_text(sl, a->key, NAME_MOST);
	switch (a->type) {
	case SIDELIGHT_STRING:
		put_value(sl, a->key, a->value.s);
		break;
	case SIDELIGHT_INT:
		sl_pack_int(&sl->out, a->value.i);
		break;
	case SIDELIGHT_DOUBLE:
		sl_pack_double(&sl->out, a->value.d);
		break;
	case SIDELIGHT_BOOL:
		sl_pack_bool(&sl->out, a->value.i != 0);
		break;
	}
}

static bool are_attrs(const struct sidelight_attr *attrs, size_t count)
{
	if (count > ATTRS_MOST || (count > 0 && !attrs))
		return false;
	for (size_t i = 0; i < count; i++)
		if (!attrs[i].key || (unsigned)attrs[i].type > SIDELIGHT_BOOL ||
		    (attrs[i].type == SIDELIGHT_STRING && !attrs[i].value.s))
			return false;
	return true;
}

static bool any_is_long(const struct sidelight *sl, const struct sidelight_attr *attrs,
                        size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (attrs[i].type == SIDELIGHT_STRING && strlen(attrs[i].value.s) > sl->max_value)
			return true;
	return false;
}

/* sidelight.cut: what was cut, with its full length. */
static void put_cuts(struct sidelight *sl)
{
	put_text(sl, "sidelight.cut", NAME_MOST);
	sl_pack_map(&sl->out, sl->cut_count);
	for (size_t i = 0; i < sl->cut_count; i++) {
		put_text(sl, sl->cuts[i].key, NAME_MOST);
		sl_pack_uint(&sl->out, sl->cuts[i].bytes);
	}
}

static void put_attr_map(struct sidelight *sl, const struct sidelight_attr *attrs, size_t count)
{
	bool cuts = sl->cut_count > 0 || any_is_long(sl, attrs, count);

	sl_pack_map(&sl->out, count + cuts);
	for (size_t i = 0; i < count; i++)
		put_attr(sl, &attrs[i]);
	if (cuts)
		put_cuts(sl);
}

static void put_attrs(struct sidelight *sl, struct fields *f, const struct sidelight_attr *attrs,
                      size_t count)
{
	if (count == 0 && sl->cut_count == 0)
		return;
	put_key(sl, f, "attrs");
	put_attr_map(sl, attrs, count);
}

static void put_tags(struct sidelight *sl, struct fields *f, const char *const *tags, size_t count)
{
	if (count == 0)
		return;
	put_key(sl, f, "tags");
	sl_pack_array(&sl->out, count);
	for (size_t i = 0; i < count; i++)
		put_text(sl, tags[i] ? tags[i] : "", NAME_MOST);
}

static void put_usage(struct sidelight *sl, struct fields *f, const struct sidelight_attr *usage,
                      size_t count)
{
	if (count == 0)
		return;
	put_key(sl, f, "usage");
	sl_pack_map(&sl->out, count);
	for (size_t i = 0; i < count; i++)
		put_attr(sl, &usage[i]);
}

static void put_error(struct sidelight *sl, struct fields *f, const struct sidelight_end_fields *in)
{
	if (!in->error_type && !in->error_message && !in->error_stack)
		return;
	put_key(sl, f, "error");
	struct fields error = begin_fields(sl);
	put_name(sl, &error, "type", in->error_type);
	if (in->error_message) {
		put_key(sl, &error, "message");
		put_value(sl, "error.message", in->error_message);
	}
	if (in->error_stack) {
		put_key(sl, &error, "stack");
		put_value(sl, "error.stack", in->error_stack);
	}
	end_fields(sl, &error);
}

/* ---- Frames ---- */

static void pack_into(struct pack *p, uint8_t *data, size_t room)
{
	*p = (struct pack){.room = room};
	p->data = data;
	sl_pack_bytes(p, "\0\0\0\0", 4); // the length prefix
}

static void finish_frame(struct pack *p)
{
	size_t body = p->len - 4;

	for (int i = 0; i < 4; i++)
		p->data[i] = (uint8_t)(body >> (24 - 8 * i));
}

static void begin_frame(struct sidelight *sl, uint64_t type, size_t elements)
{
	pack_into(&sl->out, sl->frame, sl->frame_room);
	sl->cut_count = 0;
	sl_pack_array(&sl->out, elements);
	sl_pack_uint(&sl->out, type);
}

static void begin_run_frame(struct sidelight *sl, uint64_t type, size_t elements,
                            const struct sidelight_run *run, uint64_t unix_ns, uint64_t mono_ns)
{
	begin_frame(sl, type, elements);
	sl_pack_bin(&sl->out, run->id, sizeof(run->id));
	sl_pack_uint(&sl->out, unix_ns ? unix_ns : unix_now_ns());
	sl_pack_uint(&sl->out, mono_ns ? mono_ns : sl_mono_now_ns());
}

/* [6, {count, reason}], before the next event that is not dropped: n bytes. */
static void say_dropped(struct sidelight *sl, size_t n)
{
	uint8_t bytes[64];
	struct pack p;

	if (sl->dropped_unsaid == 0)
		return;
	pack_into(&p, bytes, sizeof(bytes));
	sl_pack_array(&p, 2);
	sl_pack_uint(&p, DROPPED);
	sl_pack_map(&p, 2);
	sl_pack_text(&p, "count", 5);
	sl_pack_uint(&p, sl->dropped_unsaid);
	sl_pack_text(&p, "reason", 6);
	sl_pack_text(&p, sl->drop_reason, strlen(sl->drop_reason));
	finish_frame(&p);
	if (!sl_link_fits(&sl->link, p.len + n))
		return;
	sl_link_append(&sl->link, p.data, p.len);
	sl->dropped_unsaid = 0;
}

/* Hands the built frame to the connection. */
static int put_frame(struct sidelight *sl)
{
	const struct pack *p = &sl->out;

	if (p->full)
		return -EMSGSIZE;
	finish_frame(&sl->out);
	if (!sl_link_fits(&sl->link, p->len))
		sl_link_pump(&sl->link);
	say_dropped(sl, p->len);
	if (!sl_link_fits(&sl->link, p->len))
		return -ENOBUFS;
	sl_link_append(&sl->link, p->data, p->len);
	sl_link_pump(&sl->link);
	return 0;
}

static int drop(struct sidelight *sl, const char *reason, int error)
{
	sl->dropped++;
	sl->dropped_unsaid++;
	sl->drop_reason = reason;
	return error;
}

/* Whether an event is worth building. After one that found no room while the collector is away,
 * the next are dropped unbuilt until it is time to look for the collector again. */
static int admit(struct sidelight *sl)
{
	if (sl->is_full && sl_link_is_away(&sl->link))
		return drop(sl, "away", -ENOBUFS);
	return 0;
}

/* Sends the built event, or counts it. */
static int put_event(struct sidelight *sl)
{
	int r = put_frame(sl);

	sl->is_full = r == -ENOBUFS;
	if (r == -EMSGSIZE)
		return drop(sl, "too_long", r);
	return r < 0 ? drop(sl, sl->link.fd < 0 ? "away" : "full", r) : 0;
}

/* ---- Open, fork, close ---- */

static int build_hello(struct sidelight *sl, const struct sidelight_options *o)
{
	const char *service = o->service ? o->service : program_invocation_short_name;
	struct fields f;

	pack_into(&sl->out, sl->hello, sizeof(sl->hello));
	sl_pack_array(&sl->out, 2);
	sl_pack_uint(&sl->out, HELLO);
	f = begin_fields(sl);
	put_key(sl, &f, "v");
	sl_pack_uint(&sl->out, 1);
	put_name(sl, &f, "service", service);
	if (o->resource_count > 0) {
		put_key(sl, &f, "resource");
		put_attr_map(sl, o->resource, o->resource_count);
	}
	put_name(sl, &f, "sdk", "c/" SIDELIGHT_VERSION);
	put_key(sl, &f, "pid");
	end_fields(sl, &f);
	sl->hello_len = sl->out.len;
	return sl->out.full ? -EINVAL : 0;
}

static void sign_hello(struct sidelight *sl, pid_t pid)
{
	struct pack p = {.data = sl->link.hello, .room = LINK_HELLO};

	sl_pack_bytes(&p, sl->hello, sl->hello_len);
	sl_pack_uint(&p, (uint64_t)pid);
	finish_frame(&p);
	sl->link.hello_len = p.len;
}

static size_t clamp(size_t n, size_t if_zero, size_t least, size_t most)
{
	if (n == 0)
		return if_zero;
	return n < least ? least : n > most ? most : n;
}

/* A page that forgets over a fork tells parent and child apart without a system call; where the
 * kernel has none, each call asks for its process id. */
static int make_owner(struct sidelight *sl)
{
	void *page = mmap(NULL, sizeof(*sl->owner), PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	sl->forgets = madvise(page, sizeof(*sl->owner), MADV_WIPEONFORK) == 0;
	sl->owner = page;
	atomic_store(sl->owner, getpid());
	return 0;
}

static int init(struct sidelight *sl, const struct sidelight_options *o)
{
	size_t room = clamp(o->buffer_bytes, BUFFER_DEFAULT, BUFFER_LEAST, BUFFER_MOST);

	sl->max_value = clamp(o->max_value_bytes, VALUE_DEFAULT, VALUE_LEAST, FRAME_MOST / 4);
	sl->frame_room = room < FRAME_MOST ? room : FRAME_MOST;
	pthread_mutex_init(&sl->lock, NULL);
	if (!are_attrs(o->resource, o->resource_count))
		return -EINVAL;
	int r = build_hello(sl, o);
	if (r == 0)
		r = sl_link_init(&sl->link, o->socket, room);
	if (r < 0)
		return r;
	sl->frame = malloc(sl->frame_room);
	if (!sl->frame)
		return -ENOMEM;
	seed_random(sl);
	sign_hello(sl, getpid());
	return make_owner(sl);
}

static void destroy(struct sidelight *sl)
{
	sl_link_deinit(&sl->link);
	pthread_mutex_destroy(&sl->lock);
	free(sl->frame);
	if (sl->owner)
		munmap((void *)sl->owner, sizeof(*sl->owner));
	free(sl);
}

struct sidelight *sidelight_open(const struct sidelight_options *options)
{
	static const struct sidelight_options none;
	struct sidelight *sl = calloc(1, sizeof(*sl));

	if (!sl)
		return NULL;
	sl->link.fd = -1;
	int r = init(sl, options ? options : &none);
	if (r < 0) {
		destroy(sl);
		errno = -r;
		return NULL;
	}
	return sl;
}

enum { TAKING_OVER = -1 };

/* In a child: the connection and what waits are its parent's, and the lock may have been held by
 * a thread that is not here. One thread of the child takes over, others wait for it. */
static void take_over(struct sidelight *sl)
{
	pid_t pid = getpid();
	pid_t owner = atomic_load(sl->owner);

	while (owner != pid) {
		if (owner == TAKING_OVER ||
		    !atomic_compare_exchange_strong(sl->owner, &owner, TAKING_OVER)) {
			sched_yield();
			owner = atomic_load(sl->owner);
			continue;
		}
		pthread_mutex_init(&sl->lock, NULL);
		sl_link_abandon(&sl->link);
		sl->dropped = 0;
		sl->dropped_unsaid = 0;
		sl->is_full = false;
		seed_random(sl);
		sign_hello(sl, pid);
		atomic_store(sl->owner, pid);
		return;
	}
}

static void enter(struct sidelight *sl)
{
	pid_t owner = atomic_load_explicit(sl->owner, memory_order_acquire);

	if (owner <= 0 || (!sl->forgets && owner != getpid()))
		take_over(sl);
	pthread_mutex_lock(&sl->lock);
}

static void leave(struct sidelight *sl)
{
	pthread_mutex_unlock(&sl->lock);
}

void sidelight_close(struct sidelight *sl)
{
	if (!sl)
		return;
	enter(sl);
	// A process that said nothing has nobody to take leave of.
	if (sl->link.fd >= 0 || !sl_link_is_empty(&sl->link)) {
		begin_frame(sl, BYE, 2);
		sl_pack_map(&sl->out, 0);
		(void)put_frame(sl);
	}
	leave(sl);
	destroy(sl);
}

/* ---- Runs ---- */

/* A UUID of version 7: ordered by time, and random enough to be a trace id. */
static void new_run(struct sidelight *sl, uint64_t unix_ns, struct sidelight_run *ret_run)
{
	uint64_t ms = unix_ns / 1000000;
	uint64_t a = next_random(sl), b = next_random(sl);

	for (int i = 0; i < 6; i++)
		ret_run->id[i] = (uint8_t)(ms >> (40 - 8 * i));
	memcpy(ret_run->id + 6, &a, 2);
	memcpy(ret_run->id + 8, &b, 8);
	ret_run->id[6] = (uint8_t)(0x70 | (ret_run->id[6] & 0x0f));
	ret_run->id[8] = (uint8_t)(0x80 | (ret_run->id[8] & 0x3f));
}

static void build_start(struct sidelight *sl, const struct sidelight_run *run, uint64_t unix_ns,
                        const struct sidelight_start_fields *in)
{
	begin_run_frame(sl, START, 5, run, unix_ns, in->mono_ns);
	struct fields f = begin_fields(sl);
	put_name(sl, &f, "kind", in->kind);
	put_name(sl, &f, "name", in->name);
	if (in->parent) {
		put_key(sl, &f, "parent");
		sl_pack_bin(&sl->out, in->parent->id, sizeof(in->parent->id));
	}
	put_name(sl, &f, "traceparent", in->traceparent);
	put_name(sl, &f, "session", in->session);
	put_name(sl, &f, "user", in->user);
	put_name(sl, &f, "model", in->model);
	put_name(sl, &f, "provider", in->provider);
	if (in->input) {
		put_key(sl, &f, "input");
		put_value(sl, "input", in->input);
	}
	put_tags(sl, &f, in->tags, in->tag_count);
	put_attrs(sl, &f, in->attrs, in->attr_count);
	end_fields(sl, &f);
}

int sidelight_start(struct sidelight *sl, struct sidelight_run *ret_run,
                    const struct sidelight_start_fields *fields)
{
	static const struct sidelight_start_fields none;

	if (!fields)
		fields = &none;
	if (!sl || !ret_run || !are_attrs(fields->attrs, fields->attr_count) ||
	    (fields->tag_count > 0 && !fields->tags))
		return -EINVAL;
	uint64_t unix_ns = fields->unix_ns ? fields->unix_ns : unix_now_ns();
	enter(sl);
	if (fields->run)
		*ret_run = *fields->run;
	else
		new_run(sl, unix_ns, ret_run);
	int r = admit(sl);
	if (r == 0) {
		build_start(sl, ret_run, unix_ns, fields);
		r = put_event(sl);
	}
	leave(sl);
	return r;
}

static void build_end(struct sidelight *sl, const struct sidelight_run *run,
                      const struct sidelight_end_fields *in)
{
	begin_run_frame(sl, END, 5, run, in->unix_ns, in->mono_ns);
	struct fields f = begin_fields(sl);
	if (in->output) {
		put_key(sl, &f, "output");
		put_value(sl, "output", in->output);
	}
	put_usage(sl, &f, in->usage, in->usage_count);
	put_name(sl, &f, "model", in->model);
	put_name(sl, &f, "finish", in->finish);
	put_error(sl, &f, in);
	put_attrs(sl, &f, in->attrs, in->attr_count);
	end_fields(sl, &f);
}

int sidelight_end(struct sidelight *sl, const struct sidelight_run *run,
                  const struct sidelight_end_fields *fields)
{
	static const struct sidelight_end_fields none;

	if (!fields)
		fields = &none;
	if (!sl || !run || !are_attrs(fields->attrs, fields->attr_count) ||
	    !are_attrs(fields->usage, fields->usage_count))
		return -EINVAL;
	enter(sl);
	int r = admit(sl);
	if (r == 0) {
		build_end(sl, run, fields);
		r = put_event(sl);
	}
	leave(sl);
	return r;
}

int sidelight_event(struct sidelight *sl, const struct sidelight_run *run,
                    const struct sidelight_event_fields *fields)
{
	// The attributes are the message's own map, whose keys the collector limits to 64.
	if (!sl || !run || !fields || !fields->name || !*fields->name || fields->attr_count > 63 ||
	    !are_attrs(fields->attrs, fields->attr_count))
		return -EINVAL;
	enter(sl);
	int r = admit(sl);
	if (r == 0) {
		begin_run_frame(sl, POINT, 6, run, fields->unix_ns, fields->mono_ns);
		put_text(sl, fields->name, NAME_MOST);
		put_attr_map(sl, fields->attrs, fields->attr_count);
		r = put_event(sl);
	}
	leave(sl);
	return r;
}

uint64_t sidelight_dropped(struct sidelight *sl)
{
	if (!sl)
		return 0;
	enter(sl);
	uint64_t n = sl->dropped;
	leave(sl);
	return n;
}

/* ---- Flush ---- */

/* A flush on its way: its token, and where its frame ends in all that was ever appended. */
struct flush {
	uint64_t token, position;
	bool is_sent;
};

static void begin_flush(struct sidelight *sl, struct flush *f)
{
	begin_frame(sl, FLUSH, 2);
	f->token = ++sl->token;
	sl_pack_uint(&sl->out, f->token);
	f->is_sent = put_frame(sl) == 0;
	f->position = sl->link.tail;
}

/* 0 once it was answered, -EAGAIN while it may be; then what to wait for. */
static int step_flush(struct sidelight *sl, struct flush *f, struct pollfd *ret_poll)
{
	int r = -EAGAIN;

	enter(sl);
	if (!f->is_sent)
		begin_flush(sl, f);
	sl_link_pump(&sl->link);
	sl_link_read(&sl->link);
	if (f->is_sent && sl->link.flushed >= f->token)
		r = 0;
	else if (f->is_sent && sl->link.lost_before >= f->position)
		r = -ECONNRESET;
	ret_poll->fd = sl->link.fd;
	ret_poll->events = (short)(POLLIN | (sl_link_is_empty(&sl->link) ? 0 : POLLOUT));
	leave(sl);
	return r;
}

int sidelight_flush(struct sidelight *sl, int timeout_ms)
{
	struct flush f = {0};
	struct pollfd p;

	if (!sl || timeout_ms < 0)
		return -EINVAL;
	uint64_t deadline = sl_mono_now_ns() + (uint64_t)timeout_ms * 1000000;
	for (;;) {
		int r = step_flush(sl, &f, &p);
		if (r != -EAGAIN)
			return r;
		uint64_t now = sl_mono_now_ns();
		if (now >= deadline)
			return -ETIMEDOUT;
		uint64_t left_ms = (deadline - now) / 1000000 + 1;
		(void)poll(&p, p.fd >= 0, left_ms < FLUSH_SLICE_MS ? (int)left_ms : FLUSH_SLICE_MS);
	}
}
