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
#include <sys/wait.h>
#include <unistd.h>

#include "link.h"
#include "message.h"

#define BUFFER_DEFAULT (1024 * 1024)
#define BUFFER_LEAST (16 * 1024)
#define BUFFER_MOST (1024 * 1024 * 1024)
#define VALUE_DEFAULT (64 * 1024)
#define VALUE_LEAST 64
#define FRAME_MOST (4 * 1024 * 1024) // the collector's limit
#define FLUSH_SLICE_MS 20            // another thread may replace the socket that flush waits on

struct sidelight {
	_Atomic pid_t *owner; // whose connection it is, in a page of its own
	bool forgets;         // a child reads 0 there: the kernel wipes it on fork
	pthread_mutex_t lock;
	int cancel_state; // of the thread that holds the lock, as it was before
	struct link link;
	struct message message;         // the one that is being built
	uint8_t hello[LINK_HELLO - 16]; // all but the pid, which a child changes
	size_t hello_len;
	uint64_t random;
	uint64_t token;
	uint64_t dropped, dropped_unsaid;
	bool is_full; // the last event found no room
	const char *drop_reason;
};

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

/* ---- Frames ---- */

/* [6, {count, reason}], before the next event that is not dropped: n bytes. */
static void say_dropped(struct sidelight *sl, size_t n)
{
	uint8_t bytes[64];
	struct message m = {.frame = bytes, .room = sizeof(bytes)};

	if (sl->dropped_unsaid == 0)
		return;
	sl_message_dropped(&m, sl->dropped_unsaid, sl->drop_reason);
	sl_pack_prefix(&m.out);
	if (!sl_link_fits(&sl->link, m.out.len + n))
		return;
	sl_link_append(&sl->link, bytes, m.out.len);
	sl->dropped_unsaid = 0;
}

/* Hands the built frame to the connection. */
static int put_frame(struct sidelight *sl)
{
	struct pack *p = &sl->message.out;

	if (p->full)
		return -EMSGSIZE;
	sl_pack_prefix(p);
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

/* A thread that is cancelled in a system call would keep the lock for ever: no call here is a
 * cancellation point. */
static int forbid_cancel(void)
{
	int state = PTHREAD_CANCEL_ENABLE;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

static void restore_cancel(int state)
{
	(void)pthread_setcancelstate(state, NULL);
}

static int make_hello(struct sidelight *sl, const struct sidelight_options *o)
{
	struct message m = {.room = sizeof(sl->hello), .max_value = sl->message.max_value};

	m.frame = sl->hello;
	sl_message_hello(&m, o);
	sl->hello_len = m.out.len;
	return m.out.full ? -EINVAL : 0;
}

static void sign_hello(struct sidelight *sl, pid_t pid)
{
	struct pack p = {.data = sl->link.hello, .room = LINK_HELLO};

	sl_pack_bytes(&p, sl->hello, sl->hello_len);
	sl_pack_uint(&p, (uint64_t)pid);
	sl_pack_prefix(&p);
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

	struct message *m = &sl->message;
	m->max_value = clamp(o->max_value_bytes, VALUE_DEFAULT, VALUE_LEAST, FRAME_MOST / 4);
	m->room = room < FRAME_MOST ? room : FRAME_MOST;
	pthread_mutex_init(&sl->lock, NULL);
	if (!sl_are_attrs(o->resource, o->resource_count) || o->owner < 0 || o->owner > INT32_MAX)
		return -EINVAL;
	int r = make_hello(sl, o);
	if (r == 0)
		r = sl_link_init(&sl->link, o->socket, room);
	if (r < 0)
		return r;
	m->frame = malloc(m->room);
	if (!m->frame)
		return -ENOMEM;
	seed_random(sl);
	sign_hello(sl, getpid());
	return make_owner(sl);
}

static void destroy(struct sidelight *sl)
{
	sl_link_deinit(&sl->link);
	pthread_mutex_destroy(&sl->lock);
	free(sl->message.frame);
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
	int cancel_state = forbid_cancel();
	int r = init(sl, options ? options : &none);
	restore_cancel(cancel_state);
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
	int cancel_state = forbid_cancel();
	pid_t owner = atomic_load_explicit(sl->owner, memory_order_acquire);

	if (owner <= 0 || (!sl->forgets && owner != getpid()))
		take_over(sl);
	pthread_mutex_lock(&sl->lock);
	sl->cancel_state = cancel_state;
}

static void leave(struct sidelight *sl)
{
	int cancel_state = sl->cancel_state;

	pthread_mutex_unlock(&sl->lock);
	restore_cancel(cancel_state);
}

void sidelight_close(struct sidelight *sl)
{
	if (!sl)
		return;
	int cancel_state = forbid_cancel();
	enter(sl);
	// A process that said nothing has nobody to take leave of.
	if (sl->link.fd >= 0 || !sl_link_is_empty(&sl->link)) {
		sl_message_bye(&sl->message);
		(void)put_frame(sl);
	}
	leave(sl);
	destroy(sl);
	restore_cancel(cancel_state);
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

int sidelight_start(struct sidelight *sl, struct sidelight_run *ret_run,
                    const struct sidelight_start_fields *fields)
{
	static const struct sidelight_start_fields none;
	struct sidelight_run run = {0}; // not yet *ret_run: the parent may be there

	if (!fields)
		fields = &none;
	if (!sl || !ret_run || !sl_are_attrs(fields->attrs, fields->attr_count) ||
	    (fields->tag_count > 0 && !fields->tags)) {
		if (ret_run)
			*ret_run = run;
		return -EINVAL;
	}
	uint64_t unix_ns = fields->unix_ns ? fields->unix_ns : sl_unix_now_ns();
	enter(sl);
	if (fields->run)
		run = *fields->run;
	else
		new_run(sl, unix_ns, &run);
	int r = admit(sl);
	if (r == 0) {
		sl_message_start(&sl->message, &run, unix_ns, fields);
		r = put_event(sl);
	}
	leave(sl);
	*ret_run = run;
	return r;
}

int sidelight_end(struct sidelight *sl, const struct sidelight_run *run,
                  const struct sidelight_end_fields *fields)
{
	static const struct sidelight_end_fields none;

	if (!fields)
		fields = &none;
	if (!sl || !run || !sl_are_attrs(fields->attrs, fields->attr_count) ||
	    !sl_are_attrs(fields->usage, fields->usage_count))
		return -EINVAL;
	enter(sl);
	int r = admit(sl);
	if (r == 0) {
		sl_message_end(&sl->message, run, fields);
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
	    !sl_are_attrs(fields->attrs, fields->attr_count))
		return -EINVAL;
	enter(sl);
	int r = admit(sl);
	if (r == 0) {
		sl_message_event(&sl->message, run, fields);
		r = put_event(sl);
	}
	leave(sl);
	return r;
}

static int put_child(struct sidelight *sl, long pid, struct ending ending)
{
	if (!sl || pid <= 0 || pid > INT32_MAX)
		return -EINVAL;
	enter(sl);
	int r = admit(sl);
	if (r == 0) {
		sl_message_child(&sl->message, pid, ending);
		r = put_event(sl);
	}
	leave(sl);
	return r;
}

int sidelight_watch(struct sidelight *sl, long pid)
{
	return put_child(sl, pid, (struct ending){-1, -1});
}

int sidelight_exited(struct sidelight *sl, long pid, int wait_status)
{
	if (WIFEXITED(wait_status))
		return put_child(sl, pid, (struct ending){WEXITSTATUS(wait_status), -1});
	if (WIFSIGNALED(wait_status))
		return put_child(sl, pid, (struct ending){-1, WTERMSIG(wait_status)});
	return -EINVAL;
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
	f->token = ++sl->token;
	sl_message_flush(&sl->message, f->token);
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

static int flush(struct sidelight *sl, uint64_t deadline_ns)
{
	struct flush f = {0};
	struct pollfd p;

	for (;;) {
		int r = step_flush(sl, &f, &p);
		if (r != -EAGAIN)
			return r;
		uint64_t now = sl_mono_now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
		(void)poll(&p, p.fd >= 0, left_ms < FLUSH_SLICE_MS ? (int)left_ms : FLUSH_SLICE_MS);
	}
}

int sidelight_flush(struct sidelight *sl, int timeout_ms)
{
	if (!sl || timeout_ms < 0)
		return -EINVAL;
	uint64_t deadline_ns = sl_mono_now_ns() + (uint64_t)timeout_ms * 1000000;
	int cancel_state = forbid_cancel();
	int r = flush(sl, deadline_ns);
	restore_cancel(cancel_state);
	return r;
}
