#include "http/http.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/caps.h"
#include "base/clock.h"
#include "http/listen.h"
#include "http/routes.h"

/* libmicrohttpd parses and writes, nothing else. Its own timeout counts idleness only, which a
 * client that sends a byte a second never has, and past its limit of connections it stops
 * accepting. So the connections are accepted and timed here, one thread does everything, and with
 * no connection open nothing ever wakes it. */

#define DEADLINE_NS (10 * NS_PER_S)       // of one connection, which is one request
#define GRACE_NS (1 * NS_PER_S)           // to send the request in, while others wait for a place
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS) // after an error that waiting may cure (no descriptors)

enum { STACK_BYTES = 256 * KIB };

struct conn {
	bool is_open, is_local; // local: over the Unix socket
	bool has_asked;         // its request is complete
	bool is_cut;            // shut down; the library is about to notice
	int fd;                 // the library's
	uint64_t since_ns;
};

struct http {
	struct http_options options; // with strings of our own
	struct MHD_Daemon *mhd;
	int mhd_fd, tcp_fd, local_fd, stop_fd; // -1: none
	uint16_t port;
	pthread_t thread;
	struct conn conns[CAP_HTTP_CONNECTIONS];
	unsigned open;
	struct conn *adding;     // the one that is being handed over
	uint64_t accept_from_ns; // not before
};

/* --- requests --- */

static enum MHD_Result add_pair(void *ctx, enum MHD_ValueKind kind, const char *key,
                                size_t key_size, const char *value, size_t value_size)
{
	struct query *q = ctx;

	if (q->count < MAX_QUERY)
		q->pairs[q->count] = (struct query_pair){{key, key_size}, {value, value_size}};
	q->count++;
	return MHD_YES;
}

/* What a request's headers say that concerns us. */
struct headers {
	unsigned hosts, lengths, encodings;
	const char *host, *length;
	bool is_bad; // a name that others may read as another one
};

static enum MHD_Result read_header(void *ctx, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
	struct headers *h = ctx;

	if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
		h->hosts++;
		h->host = value;
	} else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
		h->lengths++;
		h->length = value;
	} else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
		h->encodings++;
	} else if (name[strcspn(name, " \t")]) {
		h->is_bad = true;
	}
	return MHD_YES;
}

/* A Unix socket's permissions say who may ask; a TCP port is open to any page in a browser. */
static bool check_host(struct answer *a, const struct http *h, const struct headers *headers)
{
	if (headers->hosts != 1 || !headers->host)
		answer_error(a, 400, "bad_request", "a request has one Host header");
	else if (!host_is_allowed(str_of(headers->host), h->options.host))
		answer_error(a, 403, "forbidden_host", "this host is not served here");
	else
		return true;
	return false;
}

/* We read none, and a body whose end two parties see differently is how requests are smuggled. */
static bool has_body(const struct headers *h)
{
	bool has_length = h->lengths > 1 || (h->length && strcmp(h->length, "0") != 0);

	return h->encodings > 0 || has_length;
}

static bool check(struct answer *a, const struct http *h, const struct conn *c,
                  struct MHD_Connection *mc, const char *method)
{
	struct headers headers = {0};

	MHD_get_connection_values(mc, MHD_HEADER_KIND, read_header, &headers);
	if (!c->is_local && !check_host(a, h, &headers))
		return false;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		answer_error(a, 405, "method_not_allowed", "only GET and HEAD are served here");
		a->allow = "GET, HEAD";
	} else if (headers.is_bad) {
		answer_error(a, 400, "bad_request", "a header's name has no space");
	} else if (has_body(&headers)) {
		answer_error(a, 400, "bad_request", "a request has no body");
	} else {
		return true;
	}
	return false;
}

static bool add_headers(struct MHD_Response *response, const struct answer *a)
{
	const char *const headers[][2] = {
		{MHD_HTTP_HEADER_CONTENT_TYPE, a->type},
		{MHD_HTTP_HEADER_CONNECTION, "close"},
		{MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
		{"Content-Security-Policy", "default-src 'none'"},
		{"X-Content-Type-Options", "nosniff"},
		{MHD_HTTP_HEADER_ALLOW, a->allow},
	};

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		if (headers[i][1] &&
		    MHD_add_response_header(response, headers[i][0], headers[i][1]) != MHD_YES)
			return false;
	return true;
}

/* Sends it, and leaves its body to the library. */
static enum MHD_Result send_answer(struct MHD_Connection *mc, struct answer *a)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer_with_free_callback(a->body.len, a->body.data, free);

	if (!response)
		return MHD_NO;
	a->body = (struct buf){.cap = a->body.cap};
	enum MHD_Result queued = MHD_NO;
	if (add_headers(response, a))
		queued = MHD_queue_response(mc, a->status, response);
	MHD_destroy_response(response);
	return queued;
}

/* Called once a request's headers are complete. */
static enum MHD_Result handle(void *ctx, struct MHD_Connection *mc, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request_ctx)
{
	struct http *h = ctx;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct conn *c = info->socket_context;
	struct answer a;
	struct query q = {0};

	c->has_asked = true;
	answer_init(&a);
	if (check(&a, h, c, mc, method)) {
		MHD_get_connection_values_n(mc, MHD_GET_ARGUMENT_KIND, add_pair, &q);
		route(&a, &h->options, path, &q, clock_unix_ns());
		stat_add(&h->options.stats->http_requests, 1);
	} else {
		stat_add(&h->options.stats->http_refused, 1);
	}
	enum MHD_Result sent = send_answer(mc, &a);
	answer_deinit(&a);
	return sent;
}

/* --- connections --- */

static void note_connection(void *ctx, struct MHD_Connection *mc, void **socket_context,
                            enum MHD_ConnectionNotificationCode code)
{
	struct http *h = ctx;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*socket_context = h->adding;
		h->adding->is_open = true;
		h->open++;
		return;
	}
	struct conn *c = *socket_context;
	c->is_open = false;
	h->open--;
}

static struct conn *free_place(struct http *h)
{
	for (unsigned i = 0; i < CAP_HTTP_CONNECTIONS; i++)
		if (!h->conns[i].is_open)
			return &h->conns[i];
	return NULL;
}

/* The oldest that is still sending its request; NULL when there is none. */
static struct conn *oldest_asking(struct http *h)
{
	struct conn *oldest = NULL;

	for (unsigned i = 0; i < CAP_HTTP_CONNECTIONS; i++) {
		struct conn *c = &h->conns[i];
		if (c->is_open && !c->is_cut && !c->has_asked &&
		    (!oldest || c->since_ns < oldest->since_ns))
			oldest = c;
	}
	return oldest;
}

/* The library sees the end of it and closes. The descriptor is still open: it told us of each
 * that is not. */
static void cut(struct conn *c)
{
	shutdown(c->fd, SHUT_RDWR);
	c->is_cut = true;
}

static void cut_overdue(struct http *h, uint64_t now_ns)
{
	for (unsigned i = 0; i < CAP_HTTP_CONNECTIONS; i++) {
		struct conn *c = &h->conns[i];
		if (c->is_open && !c->is_cut && now_ns - c->since_ns >= DEADLINE_NS)
			cut(c);
	}
}

/* Hands an accepted socket to the library, which closes it whatever comes of it. */
static void add_connection(struct http *h, int fd, const struct sockaddr_storage *addr,
                           socklen_t len, uint64_t now_ns)
{
	struct conn *c = free_place(h);

	assert(c); // h->open says so
	*c = (struct conn){.fd = fd, .is_local = addr->ss_family == AF_UNIX, .since_ns = now_ns};
	h->adding = c;
	(void)MHD_add_connection(h->mhd, fd, (const struct sockaddr *)addr, len);
}

static void accept_from(struct http *h, int listener, uint64_t now_ns)
{
	while (h->open < CAP_HTTP_CONNECTIONS) {
		struct sockaddr_storage addr = {0};
		socklen_t len = sizeof(addr);
		int fd = accept4(listener, (struct sockaddr *)&addr, &len,
		                 SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			add_connection(h, fd, &addr, len, now_ns);
			continue;
		}
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			h->accept_from_ns = now_ns + ACCEPT_PAUSE_NS;
		return;
	}
	// Somebody may wait, and the slowest to ask has had its time.
	struct conn *c = oldest_asking(h);
	if (c && now_ns - c->since_ns >= GRACE_NS)
		cut(c);
}

/* --- the thread --- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When the listeners are looked at again; UINT64_MAX: when a connection ends. */
static uint64_t accept_time(struct http *h)
{
	if (h->open < CAP_HTTP_CONNECTIONS)
		return h->accept_from_ns;
	const struct conn *c = oldest_asking(h);
	return c ? c->since_ns + GRACE_NS : UINT64_MAX;
}

/* In ms, rounded up; -1: nothing is due. */
static int time_to_wait(struct http *h, uint64_t now_ns)
{
	uint64_t due_ns = UINT64_MAX;
	MHD_UNSIGNED_LONG_LONG mhd_ms;

	for (unsigned i = 0; i < CAP_HTTP_CONNECTIONS; i++)
		if (h->conns[i].is_open && !h->conns[i].is_cut)
			due_ns = min_u64(due_ns, h->conns[i].since_ns + DEADLINE_NS);
	if (accept_time(h) > now_ns)
		due_ns = min_u64(due_ns, accept_time(h));
	if (MHD_get_timeout(h->mhd, &mhd_ms) == MHD_YES)
		due_ns = min_u64(due_ns, now_ns + mhd_ms * NS_PER_MS);
	if (due_ns == UINT64_MAX)
		return -1;
	return due_ns > now_ns ? (int)((due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

enum { POLL_PAUSE_MS = 100 };
enum { POLL_STOP, POLL_MHD, POLL_TCP, POLL_LOCAL, POLLS };

static void *run(void *ctx)
{
	struct http *h = ctx;
	struct pollfd fds[POLLS] = {[POLL_STOP] = {h->stop_fd, POLLIN, 0},
	                            [POLL_MHD] = {h->mhd_fd, POLLIN, 0},
	                            [POLL_TCP] = {h->tcp_fd, POLLIN, 0},
	                            [POLL_LOCAL] = {h->local_fd, POLLIN, 0}};

	for (;;) {
		uint64_t now_ns = clock_mono_ns();
		short accepts = accept_time(h) <= now_ns ? POLLIN : 0;
		fds[POLL_TCP].events = fds[POLL_LOCAL].events = accepts;
		if (poll(fds, POLLS, time_to_wait(h, now_ns)) < 0 && errno != EINTR)
			poll(NULL, 0, POLL_PAUSE_MS); // out of memory, perhaps: that passes
		if (fds[POLL_STOP].revents)
			break;
		now_ns = clock_mono_ns();
		for (int i = POLL_TCP; i <= POLL_LOCAL; i++)
			if (fds[i].revents & POLLIN)
				accept_from(h, fds[i].fd, now_ns);
		cut_overdue(h, now_ns);
		MHD_run(h->mhd);
	}
	return NULL;
}

static int start_thread(struct http *h)
{
	pthread_attr_t attr;
	sigset_t all, before;

	int err = pthread_attr_init(&attr);
	if (err)
		return -err;
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	// Signals are the loop thread's.
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&h->thread, &attr, run, h);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

static int start_mhd(struct http *h)
{
	h->mhd =
		MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, handle, h,
	                         MHD_OPTION_CONNECTION_LIMIT, CAP_HTTP_CONNECTIONS,
	                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CAP_HTTP_REQUEST,
	                         MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
	                         MHD_OPTION_NOTIFY_CONNECTION, note_connection, h, MHD_OPTION_END);
	if (!h->mhd)
		return -ENOMEM;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -EIO;
	h->mhd_fd = info->epoll_fd;
	return 0;
}

static int listen_all(struct http *h)
{
	const struct http_options *o = &h->options;

	if (o->host) {
		h->tcp_fd = listen_tcp(o->host, o->port, &h->port);
		if (h->tcp_fd < 0)
			return h->tcp_fd;
	}
	h->local_fd = listen_unix(o->socket_path, o->socket_mode, o->socket_group);
	return h->local_fd < 0 ? h->local_fd : 0;
}

static bool copy_text(const char **text)
{
	if (*text)
		*text = strdup(*text);
	return *text != NULL;
}

static int copy_options(struct http *h, const struct http_options *options)
{
	struct http_options *o = &h->options;

	*o = *options;
	bool has_host = o->host, has_group = o->socket_group;
	bool host = copy_text(&o->host), path = copy_text(&o->socket_path),
	     group = copy_text(&o->socket_group);
	return path && host == has_host && group == has_group ? 0 : -ENOMEM;
}

static void destroy(struct http *h)
{
	if (h->mhd)
		MHD_stop_daemon(h->mhd);
	if (h->tcp_fd >= 0)
		close(h->tcp_fd);
	if (h->local_fd >= 0)
		unlisten_unix(h->options.socket_path, h->local_fd);
	if (h->stop_fd >= 0)
		close(h->stop_fd);
	free((char *)h->options.host);
	free((char *)h->options.socket_path);
	free((char *)h->options.socket_group);
	free(h);
}

int http_start(struct http **ret, const struct http_options *options)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->mhd_fd = h->tcp_fd = h->local_fd = -1;
	h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = h->stop_fd < 0 ? -errno : 0;
	if (err == 0)
		err = copy_options(h, options);
	if (err == 0)
		err = start_mhd(h);
	if (err == 0)
		err = listen_all(h);
	if (err == 0)
		err = start_thread(h);
	if (err) {
		destroy(h);
		return err;
	}
	*ret = h;
	return 0;
}

uint16_t http_port(const struct http *h)
{
	return h->port;
}

void http_stop(struct http *h)
{
	if (!h)
		return;
	eventfd_write(h->stop_fd, 1);
	pthread_join(h->thread, NULL);
	destroy(h);
}
