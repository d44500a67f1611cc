/* sink - an OTLP/HTTP backend that takes everything and keeps nothing.
 *
 *   sink COUNTS
 *
 * Listens on a free port of 127.0.0.1, prints "port=N", answers each POST with an empty 200, and
 * keeps three 64-bit counts in the mapped file COUNTS for others to read at any time: requests,
 * body bytes, and spans. Bodies need a Content-Length; they are held whole, up to BODY_MAX, and
 * unpacked where they are gzip, so that their spans can be counted. Ends when it is told to by a
 * signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libdeflate.h>

enum {
	CONNECTIONS_MAX = 64,
	HEAD_MAX = 16 * 1024,
	BODY_MAX = 64 * 1024 * 1024,
	RESOURCE_SPANS = 1,
	SCOPE_SPANS = 2,
	SPANS = 2,
};

struct counts {
	uint64_t requests;
	uint64_t bytes;
	uint64_t spans;
};

struct conn {
	char *bytes; // a head and its body
	size_t len;
	size_t cap;
};

static struct pollfd fds[CONNECTIONS_MAX + 1];
static struct conn conns[CONNECTIONS_MAX + 1];
static struct counts *counts;
static struct libdeflate_decompressor *unpacker;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, uint64_t *ret_v)
{
	*ret_v = 0;
	for (unsigned int shift = 0; at < end && shift < 64; shift += 7) {
		*ret_v |= (uint64_t)(*at & 0x7f) << shift;
		if (!(*at++ & 0x80))
			return at;
	}
	return NULL;
}

/* Counts the spans of a message: the fields at the end of a path of field numbers. Whatever is
 * not length-delimited is no part of these messages and ends the count. */
static uint64_t count_fields(const uint8_t *at, const uint8_t *end, const uint8_t *path)
{
	uint64_t found = 0;
	while (at < end) {
		uint64_t tag;
		uint64_t len;
		at = read_varint(at, end, &tag);
		at = at ? read_varint(at, end, &len) : NULL;
		if (!at || (tag & 7) != 2 || len > (uint64_t)(end - at))
			return found;
		if (tag >> 3 == path[0])
			found += path[1] ? count_fields(at, at + len, path + 1) : 1;
		at += len;
	}
	return found;
}

static void add(uint64_t *count, uint64_t n)
{
	__atomic_fetch_add(count, n, __ATOMIC_RELAXED);
}

static uint64_t count_spans(const uint8_t *body, size_t len)
{
	static const uint8_t path[] = {RESOURCE_SPANS, SCOPE_SPANS, SPANS, 0};
	return count_fields(body, body + len, path);
}

static void take_body(const char *body, size_t len, bool gzip)
{
	static uint8_t plain[BODY_MAX];
	const uint8_t *bytes = (const uint8_t *)body;
	add(&counts->requests, 1);
	add(&counts->bytes, len);
	if (gzip && libdeflate_gzip_decompress(unpacker, body, len, plain, sizeof(plain), &len))
		return;
	add(&counts->spans, count_spans(gzip ? plain : bytes, len));
}

/* A header's value in a head that ends with an empty line; NULL: it has none of that name. */
static const char *header(const char *head, const char *end, const char *name)
{
	for (const char *line = head; line < end; line = strstr(line, "\r\n") + 2) {
		size_t len = strlen(name);
		if (strncasecmp(line, name, len) == 0 && line[len] == ':')
			return line + len + 1 + strspn(line + len + 1, " ");
	}
	return NULL;
}

static bool reserve(struct conn *c, size_t cap)
{
	if (cap <= c->cap)
		return true;
	char *bytes = realloc(c->bytes, cap);
	if (!bytes)
		return false;
	c->bytes = bytes;
	c->cap = cap;
	return true;
}

/* Answers the request at the front if it is whole. 0: more is needed; -1: not to be served. */
static int serve_one(struct conn *c, int fd)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n"
				     "Content-Length: 0\r\n\r\n";
	c->bytes[c->len] = 0;
	const char *end = memmem(c->bytes, c->len, "\r\n\r\n", 4);
	if (!end)
		return c->len < HEAD_MAX ? 0 : -1;
	const char *header_length = header(c->bytes, end, "Content-Length");
	const char *encoding = header(c->bytes, end, "Content-Encoding");
	bool gzip = encoding && strncmp(encoding, "gzip", 4) == 0;
	long length = header_length ? strtol(header_length, NULL, 10) : -1;
	size_t head = (size_t)(end - c->bytes) + 4;
	if (length < 0 || length > BODY_MAX || !reserve(c, head + (size_t)length + HEAD_MAX))
		return -1;
	size_t all = head + (size_t)length;
	if (c->len < all)
		return 0;
	take_body(c->bytes + head, (size_t)length, gzip);
	memmove(c->bytes, c->bytes + all, c->len - all);
	c->len -= all;
	if (send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0)
		return -1;
	return 1;
}

static int read_some(struct conn *c, int fd)
{
	ssize_t n = recv(fd, c->bytes + c->len, c->cap - c->len - 1, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		return -1;
	c->len += n > 0 ? (size_t)n : 0;
	int rc = 1;
	while (rc == 1 && c->len > 0)
		rc = serve_one(c, fd);
	return rc;
}

static void close_slot(unsigned int i)
{
	close(fds[i].fd);
	free(conns[i].bytes);
	fds[i].fd = -1;
	conns[i] = (struct conn){0};
}

static void accept_one(void)
{
	int fd = accept(fds[0].fd, NULL, NULL);
	unsigned int i = 1;
	while (i <= CONNECTIONS_MAX && fds[i].fd >= 0)
		i++;
	if (fd < 0 || i > CONNECTIONS_MAX || !reserve(&conns[i], 4 * (size_t)HEAD_MAX)) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static int listen_anywhere(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		fail("listen");
	printf("port=%u\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static void map_counts(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*counts)) < 0)
		fail(path);
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		fail(path);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: sink COUNTS\n");
		return 2;
	}
	map_counts(argv[1]);
	unpacker = libdeflate_alloc_decompressor();
	if (!unpacker)
		fail("libdeflate");
	for (unsigned int i = 1; i <= CONNECTIONS_MAX; i++)
		fds[i].fd = -1;
	fds[0] = (struct pollfd){.fd = listen_anywhere(), .events = POLLIN};
	while (poll(fds, CONNECTIONS_MAX + 1, -1) >= 0) {
		if (fds[0].revents)
			accept_one();
		for (unsigned int i = 1; i <= CONNECTIONS_MAX; i++) {
			if (fds[i].fd >= 0 && fds[i].revents && read_some(&conns[i], fds[i].fd) < 0)
				close_slot(i);
		}
	}
	return 1;
}
