/* otlp_load - sends an OTLP/HTTP receiver spans, so that a peer can be measured beside us.
 *
 *   otlp_load PORT [--spans N] [--batch K] [--connections C]
 *
 * K spans a request, one request under way on each connection; a request that is answered with 429
 * or 503 is sent again. The spans are those that the collector makes of load's traces, in size and
 * number of attributes. Prints one line of key=value pairs.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	SPAN_ROOM = 1024,
	HEAD_ROOM = 256,
	ANSWER_MAX = 4096,
	CONNECTIONS_MAX = 64,
	PATIENCE_S = 60,
	RETRY_NS = 1000000,
};

/* opentelemetry/proto/trace/v1/trace.proto, common/v1/common.proto */
enum { RESOURCE_SPANS = 1, SCOPE_SPANS = 2, SPANS = 2 };
enum { TRACE_ID = 1, SPAN_ID = 2, NAME = 5, START = 7, END = 8, ATTRIBUTES = 9 };
enum { KEY = 1, VALUE = 2, ANY_STRING = 1 };
enum { FIXED64 = 1, BYTES = 2 };

struct bytes {
	uint8_t *data;
	size_t len;
};

struct request {
	struct bytes all; // head and body
	size_t first;     // the first span's content
	size_t stride;
	unsigned int batch;
};

static const char *const attributes[][2] = {
	{"gen_ai.operation.name", "chat"},
	{"gen_ai.provider.name", "openai"},
	{"gen_ai.request.model", "gpt-4o-mini"},
	{"gen_ai.response.model", "gpt-4o-mini-2024-07-18"},
	{"gen_ai.conversation.id", "conversation-7f3a9c"},
	{"gen_ai.response.finish_reasons", "stop"},
	{"gen_ai.usage.input_tokens", "412"},
	{"gen_ai.usage.output_tokens", "58"},
	{"langgraph_node", "agent"},
	{"langgraph_step", "3"},
	{"ls_model_type", "chat"},
	{"system_fingerprint", "fp_9f31c0d2ab"},
	{"user.id", "user-4711"},
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void put(struct bytes *b, const void *data, size_t len)
{
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void put_varint(struct bytes *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		b->data[b->len++] = (uint8_t)(v | 0x80);
	b->data[b->len++] = (uint8_t)v;
}

static void put_field(struct bytes *b, unsigned int field, const void *data, size_t len)
{
	put_varint(b, field << 3 | BYTES);
	put_varint(b, len);
	put(b, data, len);
}

static void put_attribute(struct bytes *b, const char *key, const char *value)
{
	uint8_t any_room[SPAN_ROOM];
	uint8_t room[SPAN_ROOM];
	struct bytes any = {any_room, 0};
	struct bytes kv = {room, 0};
	put_field(&any, ANY_STRING, value, strlen(value));
	put_field(&kv, KEY, key, strlen(key));
	put_field(&kv, VALUE, any.data, any.len);
	put_field(b, ATTRIBUTES, kv.data, kv.len);
}

/* The ids come first, where patch_ids() finds them. */
static void put_span(struct bytes *b)
{
	uint64_t now = (uint64_t)time(NULL) * 1000000000U;
	put_field(b, TRACE_ID, (uint8_t[16]){0}, 16);
	put_field(b, SPAN_ID, (uint8_t[8]){0}, 8);
	put_field(b, NAME, "chat gpt-4o-mini", 16);
	put_varint(b, START << 3 | FIXED64);
	put(b, &now, sizeof(now));
	put_varint(b, END << 3 | FIXED64);
	put(b, &now, sizeof(now));
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
		put_attribute(b, attributes[i][0], attributes[i][1]);
}

static void patch_ids(struct request *r, uint64_t *id)
{
	for (unsigned int i = 0; i < r->batch; i++) {
		uint8_t *span = r->all.data + r->first + i * r->stride;
		++*id;
		memcpy(span + 2, id, sizeof(*id));
		memcpy(span + 2 + 16 + 2, id, sizeof(*id));
	}
}

/* One message around another: a field's tag and length before what comes at the end. */
static struct bytes wrap(unsigned int field, struct bytes inner)
{
	struct bytes b = {malloc(inner.len + HEAD_ROOM), 0};
	if (!b.data)
		fail("malloc");
	put_field(&b, field, inner.data, inner.len);
	free(inner.data);
	return b;
}

static struct request build(unsigned int batch)
{
	struct bytes spans = {malloc((size_t)batch * SPAN_ROOM), 0};
	uint8_t room[SPAN_ROOM];
	struct bytes span = {room, 0};
	if (!spans.data)
		fail("malloc");
	put_span(&span);
	for (unsigned int i = 0; i < batch; i++)
		put_field(&spans, SPANS, span.data, span.len);
	size_t stride = spans.len / batch;
	size_t spans_len = spans.len;
	struct bytes body = wrap(RESOURCE_SPANS, wrap(SCOPE_SPANS, spans));
	char head[HEAD_ROOM];
	int head_len = snprintf(head, sizeof(head),
	                        "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
	                        "application/x-protobuf\r\nContent-Length: %zu\r\n\r\n",
	                        body.len);
	struct bytes all = {malloc((size_t)head_len + body.len), 0};
	if (!all.data)
		fail("malloc");
	put(&all, head, (size_t)head_len);
	put(&all, body.data, body.len);
	free(body.data);
	return (struct request){all, all.len - spans_len + stride - span.len, stride, batch};
}

static int dial(unsigned int port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct timeval limit = {.tv_sec = PATIENCE_S};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void send_request(int fd, const struct bytes *all)
{
	for (size_t at = 0; at < all->len;) {
		ssize_t n = send(fd, all->data + at, all->len - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			fail("send");
		at += n > 0 ? (size_t)n : 0;
	}
}

/* Reads an answer with a Content-Length; returns its status. */
static int read_answer(int fd)
{
	char text[ANSWER_MAX + 1];
	size_t len = 0;
	for (;;) {
		ssize_t n = recv(fd, text + len, ANSWER_MAX - len, 0);
		if (n <= 0)
			fail("no answer");
		len += (size_t)n;
		text[len] = 0;
		const char *end = strstr(text, "\r\n\r\n");
		const char *length = strcasestr(text, "\r\nContent-Length:");
		size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
		if (end && len >= (size_t)(end - text) + 4 + body)
			return (int)strtol(text + strlen("HTTP/1.1 "), NULL, 10);
	}
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

/* A request on every connection, then its answers. Returns how many were taken. */
static unsigned int round_trip(struct request *r, const int *fds, unsigned int count, uint64_t *id)
{
	unsigned int taken = 0;
	for (unsigned int i = 0; i < count; i++) {
		patch_ids(r, id);
		send_request(fds[i], &r->all);
	}
	for (unsigned int i = 0; i < count; i++) {
		int status = read_answer(fds[i]);
		if (status != 200 && status != 429 && status != 503) {
			fprintf(stderr, "otlp_load: answered with %d\n", status);
			exit(1);
		}
		taken += status == 200;
	}
	if (taken < count)
		nanosleep(&(struct timespec){0, RETRY_NS}, NULL);
	return taken;
}

static void run(unsigned int port, uint64_t spans, unsigned int batch, unsigned int connections)
{
	struct request r = build(batch);
	int fds[CONNECTIONS_MAX];
	uint64_t sent = 0;
	uint64_t again = 0;
	uint64_t id = now_ns();
	for (unsigned int i = 0; i < connections; i++)
		fds[i] = dial(port);
	uint64_t start = now_ns();
	while (sent < spans) {
		unsigned int taken = round_trip(&r, fds, connections, &id);
		sent += (uint64_t)taken * batch;
		again += connections - taken;
	}
	double seconds = (double)(now_ns() - start) / 1e9;
	for (unsigned int i = 0; i < connections; i++)
		close(fds[i]);
	free(r.all.data);
	printf("spans=%llu batch=%u span_bytes=%zu seconds=%.3f again=%llu start_ns=%llu\n",
	       (unsigned long long)sent, batch, r.stride, seconds, (unsigned long long)again,
	       (unsigned long long)start);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"spans", required_argument, NULL, 's'},
		{"batch", required_argument, NULL, 'b'},
		{"connections", required_argument, NULL, 'c'},
		{0},
	};
	unsigned long values[] = {100000, 1, 8};
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == '?')
			return 2;
		values[o == 's' ? 0 : o == 'b' ? 1 : 2] = strtoul(optarg, NULL, 10);
	}
	unsigned long port = optind + 1 == argc ? strtoul(argv[optind], NULL, 10) : 0;
	if (port < 1 || port > 65535 || values[0] < 1 || values[1] < 1 || values[1] > 100000 ||
	    values[2] < 1 || values[2] > CONNECTIONS_MAX) {
		fprintf(stderr,
		        "usage: otlp_load PORT [--spans N] [--batch K] [--connections C]\n");
		return 2;
	}
	run((unsigned int)port, values[0], (unsigned int)values[1], (unsigned int)values[2]);
	return 0;
}
