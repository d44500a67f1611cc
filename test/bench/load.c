/* load - sends a collector the events of many agents, one frame a write, as fast as it takes them.
 *
 *   load SOCKET [--events N] [--connections C] [--rate R] [--traces K] [--flush] [--raw]
 *   load --reader SOCKET
 *
 * --rate: events a second, evenly spaced; else as fast as they are taken.
 * --traces: requests that each connection has under way at a time.
 * --flush: waits until every connection's events are acknowledged as durable.
 * --raw: no hello, flush or bye, for a peer that only reads.
 * --reader: is that peer; ends when all its connections have ended. The floor of what a collector
 *   can cost, as its reads are all it does.
 *
 * Prints one line of key=value pairs.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"

enum {
	CONNECTIONS_MAX = 1024,
	TRACES_MAX = 64,
	READ_MAX = 64 * 1024,
	ANSWER_SECONDS = 120,
	BURST = 32,
};

/* A request under way. */
struct trace {
	const struct shape *shape; // NULL: none
	unsigned int next;
	uint8_t runs[TRACE_RUNS_MAX][16];
};

struct conn {
	int fd;
	struct trace *traces;
	unsigned int turn;
	uint8_t tail[FRAME_MAX]; // what a short write left
	size_t tail_len;
	bool blocked;
	bool done;
};

struct load {
	const char *path;
	uint64_t events;
	unsigned int connections;
	unsigned int traces;
	double rate;
	bool flush;
	bool raw;
	bool reader;

	struct shape *shapes;
	struct conn conns[CONNECTIONS_MAX];
	uint64_t planned;
	uint64_t sent;
	uint64_t full; // writes that found no room
	uint64_t ids;
	uint64_t id_seed;
	uint64_t error_frames;
};

static uint64_t clock_ns(clockid_t which)
{
	struct timespec ts;
	clock_gettime(which, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static double seconds_since(uint64_t start_ns)
{
	return (double)(clock_ns(CLOCK_MONOTONIC) - start_ns) / 1e9;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		fail(path);
	}
	memcpy(a.sun_path, path, strlen(path));
	return a;
}

/* Run ids as random as a UUID's, from a counter. */
static void new_id(struct load *l, uint8_t id[16])
{
	for (unsigned int half = 0; half < 2; half++) {
		uint64_t x = l->id_seed + ++l->ids * 0x9e3779b97f4a7c15U;
		x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
		x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
		x ^= x >> 31;
		memcpy(id + half * sizeof(x), &x, sizeof(x));
	}
}

static bool begin_trace(struct load *l, struct trace *t)
{
	if (l->planned >= l->events)
		return false;
	t->shape = &l->shapes[l->ids / 2 % TRACE_SHAPES];
	t->next = 0;
	for (unsigned int i = 0; i < t->shape->count / 2; i++)
		new_id(l, t->runs[i]);
	l->planned += t->shape->count;
	return true;
}

/* The next trace in turn that has an event; NULL when this connection has sent all it will. */
static struct trace *next_trace(struct load *l, struct conn *c)
{
	for (unsigned int i = 0; i < l->traces; i++) {
		struct trace *t = &c->traces[c->turn++ % l->traces];
		if (t->shape && t->next == t->shape->count)
			t->shape = NULL;
		if (t->shape || begin_trace(l, t))
			return t;
	}
	return NULL;
}

/* Writes all of it, or keeps what did not fit. False: no room, nothing was taken. */
static bool write_frame(struct load *l, struct conn *c, const uint8_t *bytes, size_t len)
{
	ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		fail("send");
	if (n < 0) {
		l->full++;
		c->blocked = true;
		return false;
	}
	if ((size_t)n < len) {
		c->tail_len = len - (size_t)n;
		memcpy(c->tail, bytes + n, c->tail_len);
		c->blocked = true;
	}
	return true;
}

static bool write_tail(struct load *l, struct conn *c)
{
	if (c->tail_len == 0)
		return true;
	uint8_t tail[FRAME_MAX];
	size_t len = c->tail_len;
	memcpy(tail, c->tail, len);
	c->tail_len = 0;
	if (!write_frame(l, c, tail, len))
		c->tail_len = len;
	return c->tail_len == 0;
}

/* Sends one event. False: the connection takes none now, or has no more. */
static bool send_event(struct load *l, struct conn *c)
{
	struct trace *t = next_trace(l, c);
	if (!t) {
		c->done = true;
		return false;
	}
	const struct step *s = &t->shape->steps[t->next];
	frame_patch(s->frame, t->runs[s->run], t->runs[0], clock_ns(CLOCK_REALTIME),
	            clock_ns(CLOCK_MONOTONIC));
	if (!write_frame(l, c, s->frame->bytes, s->frame->len)) {
		c->turn--;
		return false;
	}
	t->next++;
	l->sent++;
	return !c->blocked;
}

/* Sleeps until a connection that was full takes bytes again. */
static void wait_for_room(struct load *l)
{
	struct pollfd fds[CONNECTIONS_MAX];
	for (unsigned int i = 0; i < l->connections; i++) {
		bool waits = l->conns[i].blocked && !l->conns[i].done;
		fds[i] = (struct pollfd){.fd = waits ? l->conns[i].fd : -1, .events = POLLOUT};
	}
	if (poll(fds, l->connections, ANSWER_SECONDS * 1000) == 0) {
		fprintf(stderr, "load: nothing was read for %d s\n", ANSWER_SECONDS);
		exit(1);
	}
	for (unsigned int i = 0; i < l->connections; i++) {
		if (fds[i].revents)
			l->conns[i].blocked = false;
	}
}

/* Up to BURST events of each connection that takes them; counts those with more to send. */
static void send_round(struct load *l, unsigned int *ret_ready, unsigned int *ret_blocked)
{
	*ret_ready = 0;
	*ret_blocked = 0;
	for (unsigned int i = 0; i < l->connections; i++) {
		struct conn *c = &l->conns[i];
		if (!c->done && !c->blocked && write_tail(l, c)) {
			for (unsigned int n = 0; n < BURST && send_event(l, c); n++)
				;
		}
		*ret_ready += !c->done && !c->blocked;
		*ret_blocked += !c->done && c->blocked;
	}
}

static void send_all(struct load *l)
{
	unsigned int ready = 0;
	unsigned int blocked = 0;
	do {
		send_round(l, &ready, &blocked);
		if (ready == 0 && blocked > 0)
			wait_for_room(l);
	} while (ready > 0 || blocked > 0);
}

/* An event every 1/rate s; one that finds no room goes as soon as there is. */
static void send_paced(struct load *l)
{
	uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
	for (unsigned int i = 0; l->sent < l->events; i = (i + 1) % l->connections) {
		struct conn *c = &l->conns[i];
		uint64_t due_ns = start_ns + (uint64_t)((double)l->sent * 1e9 / l->rate);
		struct timespec due = {(time_t)(due_ns / 1000000000U),
		                       (long)(due_ns % 1000000000U)};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		while (!c->done && (!write_tail(l, c) || (!send_event(l, c) && c->blocked)))
			wait_for_room(l);
	}
}

static void send_blocking(struct conn *c, const uint8_t *bytes, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = send(c->fd, bytes + at, len - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			fail("send");
		at += n > 0 ? (size_t)n : 0;
	}
}

static void receive(struct conn *c, uint8_t *bytes, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = recv(c->fd, bytes + at, len - at, 0);
		if (n == 0)
			errno = ECONNRESET;
		if (n == 0 || (n < 0 && errno != EINTR))
			fail("no answer to the flush");
		at += n > 0 ? (size_t)n : 0;
	}
}

/* Reads answers up to the flushed frame; what comes before it is errors, shown and counted. */
static void await_flushed(struct load *l, struct conn *c)
{
	for (;;) {
		uint8_t head[4];
		uint8_t body[FRAME_MAX];
		receive(c, head, sizeof(head));
		size_t len = (size_t)head[2] << 8 | head[3];
		assert(head[0] == 0 && head[1] == 0 && len >= 2 && len <= sizeof(body));
		receive(c, body, len);
		if (body[1] == 5)
			return;
		l->error_frames++;
		fprintf(stderr, "load: the collector says %.*s\n", (int)len, (const char *)body);
	}
}

static void flush_all(struct load *l)
{
	uint8_t frame[FRAME_MAX];
	for (unsigned int i = 0; i < l->connections; i++)
		send_blocking(&l->conns[i], frame, frames_flush(frame, i + 1));
	for (unsigned int i = 0; i < l->connections; i++)
		await_flushed(l, &l->conns[i]);
}

static void connect_all(struct load *l)
{
	struct sockaddr_un a = address(l->path);
	struct timeval limit = {.tv_sec = ANSWER_SECONDS};
	uint8_t hello[FRAME_MAX];
	size_t len = frames_hello(hello);
	for (unsigned int i = 0; i < l->connections; i++) {
		struct conn *c = &l->conns[i];
		c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
			fail(l->path);
		setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		c->traces = calloc(l->traces, sizeof(*c->traces));
		if (!c->traces)
			fail("calloc");
		if (!l->raw)
			send_blocking(c, hello, len);
	}
}

static void close_all(struct load *l)
{
	uint8_t bye[FRAME_MAX];
	size_t len = frames_bye(bye);
	for (unsigned int i = 0; i < l->connections; i++) {
		if (!l->raw)
			send_blocking(&l->conns[i], bye, len);
		close(l->conns[i].fd);
		free(l->conns[i].traces);
	}
}

static double cpu_seconds(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void run(struct load *l)
{
	double bytes;
	double keys;
	l->shapes = frames_init();
	frames_means(&bytes, &keys);
	l->id_seed = clock_ns(CLOCK_REALTIME) ^ (uint64_t)getpid() << 32;
	connect_all(l);
	uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
	if (l->rate > 0)
		send_paced(l);
	else
		send_all(l);
	double sent_s = seconds_since(start_ns);
	if (l->flush && !l->raw)
		flush_all(l);
	double durable_s = seconds_since(start_ns);
	close_all(l);
	printf("events=%llu connections=%u frame_bytes=%.0f frame_keys=%.1f seconds=%.3f "
	       "durable_seconds=%.3f events_per_second=%.0f cpu_seconds=%.3f full=%llu "
	       "error_frames=%llu start_ns=%llu\n",
	       (unsigned long long)l->sent, l->connections, bytes, keys, sent_s, durable_s,
	       (double)l->sent / durable_s, cpu_seconds(), (unsigned long long)l->full,
	       (unsigned long long)l->error_frames, (unsigned long long)start_ns);
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 128) < 0)
		fail(path);
	return fd;
}

/* Reads what is there; closes the slot at the end of its connection. */
static size_t read_slot(struct pollfd *slot)
{
	static uint8_t bytes[READ_MAX];
	ssize_t n = recv(slot->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n > 0)
		return (size_t)n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	close(slot->fd);
	slot->fd = -1;
	return 0;
}

static void be_reader(const char *path)
{
	static struct pollfd fds[CONNECTIONS_MAX + 1];
	unsigned int count = 1;
	unsigned int open = 0;
	uint64_t bytes = 0;
	uint64_t reads = 0;
	fds[0] = (struct pollfd){.fd = listen_at(path), .events = POLLIN};
	do {
		if (poll(fds, count, ANSWER_SECONDS * 1000) == 0)
			break;
		if (fds[0].revents && count <= CONNECTIONS_MAX) {
			fds[count++] = (struct pollfd){accept(fds[0].fd, NULL, NULL), POLLIN, 0};
		}
		open = 0;
		for (unsigned int i = 1; i < count; i++) {
			if (fds[i].fd >= 0 && fds[i].revents) {
				bytes += read_slot(&fds[i]);
				reads++;
			}
			open += fds[i].fd >= 0;
		}
	} while (open > 0 || count == 1);
	unlink(path);
	printf("bytes=%llu reads=%llu cpu_seconds=%.3f\n", (unsigned long long)bytes,
	       (unsigned long long)reads, cpu_seconds());
}

static double number(const char *text, double low, double high)
{
	char *end;
	double v = strtod(text, &end);
	if (*end || end == text || !(v >= low && v <= high)) {
		fprintf(stderr, "load: '%s' is no number from %.0f to %.0f\n", text, low, high);
		exit(2);
	}
	return v;
}

static void parse(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
		{"events", required_argument, NULL, 'e'},
		{"connections", required_argument, NULL, 'c'},
		{"traces", required_argument, NULL, 't'},
		{"rate", required_argument, NULL, 'r'},
		{"flush", no_argument, NULL, 'f'},
		{"raw", no_argument, NULL, 'w'},
		{"reader", no_argument, NULL, 'd'},
		{0},
	};
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 'e':
			l->events = (uint64_t)number(optarg, 1, 1e12);
			break;
		case 'c':
			l->connections = (unsigned int)number(optarg, 1, CONNECTIONS_MAX);
			break;
		case 't':
			l->traces = (unsigned int)number(optarg, 1, TRACES_MAX);
			break;
		case 'r':
			l->rate = number(optarg, 0.001, 1e9);
			break;
		case 'f':
			l->flush = true;
			break;
		case 'w':
			l->raw = true;
			break;
		case 'd':
			l->reader = true;
			break;
		default:
			exit(2);
		}
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "usage: load SOCKET [options], or load --reader SOCKET\n");
		exit(2);
	}
	l->path = argv[optind];
}

int main(int argc, char **argv)
{
	static struct load l = {.events = 1000000, .connections = 1, .traces = 4};
	parse(&l, argc, argv);
	if (l.reader)
		be_reader(l.path);
	else
		run(&l);
	return l.error_frames > 0;
}
