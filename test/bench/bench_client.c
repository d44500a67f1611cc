/* bench_client.c - what one call of the C client costs, above a bare send() of the same bytes.
 *
 * A child drains the socket. Prints nanoseconds a call: median and 99th percentile, with a reader
 * that is always there, and with one that rests 2 ms between reads as the daemon does. And how many
 * bytes more are allocated after all calls than after the first.
 */
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sidelight.h"

enum { CALLS = 50000 };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct figures {
	long long p50, p99;
};

static struct figures report(const char *what, uint64_t *ns)
{
	qsort(ns, CALLS, sizeof(*ns), by_size);
	struct figures f = {(long long)ns[CALLS / 2], (long long)ns[CALLS / 100 * 99]};
	printf("%-24s p50 %6lld ns  p99 %6lld ns\n", what, f.p50, f.p99);
	return f;
}

static void drain(int listener, int rest_ms)
{
	static char bytes[1 << 18];
	int fd = accept(listener, NULL, NULL);

	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		if (rest_ms > 0)
			(void)poll(NULL, 0, rest_ms);
	_exit(0);
}

static pid_t start_reader(const struct sockaddr_un *addr, int rest_ms)
{
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	unlink(addr->sun_path);
	if (bind(listener, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ||
	    listen(listener, 4) < 0) {
		perror(addr->sun_path);
		exit(1);
	}
	pid_t child = fork();
	if (child == 0)
		drain(listener, rest_ms);
	close(listener);
	return child;
}

/* Calls come in bursts of 50, so that a resting reader keeps up. */
static void pause_now_and_then(int i)
{
	if (i % 50 == 49)
		(void)poll(NULL, 0, 2);
}

static void measure_client(const struct sockaddr_un *addr, uint64_t *ns)
{
	struct sidelight_options o = {.socket = addr->sun_path, .service = "bench"};
	struct sidelight *sl = sidelight_open(&o);
	struct sidelight_attr attrs[] = {sidelight_double("gen_ai.request.temperature", 0.7),
	                                 sidelight_string("app.route", "/chat")};
	struct sidelight_start_fields f = {
		.kind = "llm",
		.name = "ChatOpenAI",
		.session = "conv-8841",
		.user = "u-17",
		.model = "gpt-4o-mini",
		.provider = "openai",
		.input = "What is the weather in Paris tomorrow, and should I take an umbrella?",
		.attrs = attrs,
		.attr_count = 2,
	};
	struct sidelight_run run;
	size_t allocated = 0;

	for (int i = 0; i < CALLS; i++) {
		uint64_t before = now_ns();
		(void)sidelight_start(sl, &run, &f);
		ns[i] = now_ns() - before;
		pause_now_and_then(i);
		allocated = i == 0 ? mallinfo2().uordblks : allocated;
	}
	printf("  allocated meanwhile      %zu bytes\n", mallinfo2().uordblks - allocated);
	if (sidelight_dropped(sl) > 0)
		printf("dropped %llu\n", (unsigned long long)sidelight_dropped(sl));
	sidelight_close(sl);
}

static void measure_send(const struct sockaddr_un *addr, uint64_t *ns)
{
	static const char frame[280];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		perror(addr->sun_path);
	for (int i = 0; i < CALLS; i++) {
		uint64_t before = now_ns();
		(void)send(fd, frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT);
		ns[i] = now_ns() - before;
		pause_now_and_then(i);
	}
	close(fd);
}

static void run_with(const struct sockaddr_un *addr, int rest_ms, uint64_t *ns)
{
	pid_t child = start_reader(addr, rest_ms);

	printf("reader rests %d ms\n", rest_ms);
	measure_send(addr, ns);
	waitpid(child, NULL, 0);
	struct figures bare = report("  bare send()", ns);
	child = start_reader(addr, rest_ms);
	measure_client(addr, ns);
	waitpid(child, NULL, 0);
	struct figures ours = report("  sidelight_start()", ns);
	printf("  above the bare one       p50 %6lld ns  p99 %6lld ns\n", ours.p50 - bare.p50,
	       ours.p99 - bare.p99);
}

int main(void)
{
	static uint64_t ns[CALLS];
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/sidelight-bench-XXXXXX";

	if (!mkdtemp(dir))
		return 1;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s.sock", dir);
	run_with(&addr, 0, ns);
	run_with(&addr, 2, ns);
	unlink(addr.sun_path);
	rmdir(dir);
	return 0;
}
