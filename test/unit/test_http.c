#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http/http.h"
#include "http/listen.h"

struct fixture {
	char dir[64], path[80];
	struct stats stats;
	struct http_options options;
};

static void write_metrics(void *ctx, struct buf *out)
{
	buf_append_str(out, "ours 1\n");
}

static bool is_ready(void *ctx, char *reason, unsigned size)
{
	return true;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/test-http-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/x-api.sock", f->dir);
	f->options = (struct http_options){.host = "127.0.0.1",
	                                   .socket_path = f->path,
	                                   .socket_mode = 0640,
	                                   .stats = &f->stats,
	                                   .write_metrics = write_metrics,
	                                   .is_ready = is_ready};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0); // nothing else was left there
	free(f);
	return 0;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int connect_tcp(uint16_t port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
	                           .sin_port = htons(port),
	                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* Sends a request and reads until the server closes. */
static void ask(int fd, const char *request, char *ret, size_t size)
{
	size_t len = 0;
	ssize_t n;

	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	while ((n = recv(fd, ret + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	ret[len] = 0;
	close(fd);
}

static void both_listeners_answer_and_close(void **state)
{
	struct fixture *f = *state;
	struct http *h;
	char text[65536];

	assert_int_equal(http_start(&h, &f->options), 0);
	assert_int_not_equal(http_port(h), 0);
	ask(connect_tcp(http_port(h)), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", text,
	    sizeof(text));
	assert_int_equal(strncmp(text, "HTTP/1.1 200 OK\r\n", 17), 0);
	assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
	assert_non_null(strstr(text, "\r\nX-Content-Type-Options: nosniff\r\n"));
	assert_non_null(strstr(text, "\r\n\r\nok\n"));
	// On the Unix socket the permissions decide, not the name.
	ask(connect_unix(f->path), "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n", text,
	    sizeof(text));
	assert_non_null(strstr(text, "\r\n\r\nours 1\n"));
	assert_int_equal(stat_get(&f->stats.http_requests), 2);
	assert_int_equal(stat_get(&f->stats.http_refused), 0);
	http_stop(h);
	assert_int_equal(access(f->path, F_OK), -1);
}

static void refusals_are_counted(void **state)
{
	struct fixture *f = *state;
	struct http *h;
	char text[4096];

	assert_int_equal(http_start(&h, &f->options), 0);
	ask(connect_tcp(http_port(h)), "GET / HTTP/1.1\r\nHost: evil.com\r\n\r\n", text,
	    sizeof(text));
	assert_int_equal(strncmp(text, "HTTP/1.1 403 ", 13), 0);
	ask(connect_unix(f->path), "PUT /metrics HTTP/1.1\r\nHost: x\r\n\r\n", text, sizeof(text));
	assert_int_equal(strncmp(text, "HTTP/1.1 405 ", 13), 0);
	assert_non_null(strstr(text, "\r\nAllow: GET, HEAD\r\n"));
	ask(connect_unix(f->path),
	    "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", text,
	    sizeof(text));
	assert_int_equal(strncmp(text, "HTTP/1.1 400 ", 13), 0);
	assert_int_equal(stat_get(&f->stats.http_refused), 3);
	http_stop(h);
}

static void it_stops_while_clients_are_connected(void **state)
{
	struct fixture *f = *state;
	struct http *h;
	char byte;

	assert_int_equal(http_start(&h, &f->options), 0);
	int silent = connect_unix(f->path), half = connect_tcp(http_port(h));
	assert_int_equal(send(half, "GET /", 5, MSG_NOSIGNAL), 5);
	http_stop(h);
	assert_true(recv(silent, &byte, 1, 0) <= 0);
	assert_true(recv(half, &byte, 1, 0) <= 0);
	close(silent);
	close(half);
}

static void tcp_can_be_off(void **state)
{
	struct fixture *f = *state;
	struct http *h;
	char text[4096];

	f->options.host = NULL;
	assert_int_equal(http_start(&h, &f->options), 0);
	assert_int_equal(http_port(h), 0);
	ask(connect_unix(f->path), "HEAD /healthz HTTP/1.0\r\n\r\n", text, sizeof(text));
	assert_non_null(strstr(text, " 200 OK\r\n"));
	assert_non_null(strstr(text, "\r\nContent-Length: 3\r\n"));
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n"); // no body
	http_stop(h);
}

static void a_taken_port_is_said(void **state)
{
	struct fixture *f = *state;
	struct http *h, *second = NULL;

	assert_int_equal(http_start(&h, &f->options), 0);
	struct http_options again = f->options;
	char path[sizeof(f->path) + 2];
	snprintf(path, sizeof(path), "%s2", f->path);
	again.socket_path = path;
	again.port = http_port(h);
	assert_int_equal(http_start(&second, &again), -EADDRINUSE);
	assert_null(second);
	http_stop(h);
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 0777;
}

static void the_socket_has_its_mode_whatever_the_umask(void **state)
{
	struct fixture *f = *state;
	mode_t before = umask(0);
	int fd = listen_unix(f->path, 0600, NULL);

	assert_true(fd >= 0);
	assert_int_equal(mode_of(f->path), 0600);
	unlisten_unix(f->path, fd);
	umask(0777);
	fd = listen_unix(f->path, 0666, NULL);
	umask(before);
	assert_true(fd >= 0);
	assert_int_equal(mode_of(f->path), 0666);
	unlisten_unix(f->path, fd);
	assert_int_equal(listen_unix(f->path, 0600, "no-such-group"), -ESRCH);
}

static void a_dead_socket_is_replaced_a_live_one_is_not(void **state)
{
	struct fixture *f = *state;
	int dead = listen_unix(f->path, 0600, NULL);

	assert_true(dead >= 0);
	assert_int_equal(listen_unix(f->path, 0600, NULL), -EADDRINUSE);
	close(dead); // as a kill does: the path stays
	int fd = listen_unix(f->path, 0600, NULL);
	assert_true(fd >= 0);
	close(connect_unix(f->path));
	unlisten_unix(f->path, fd);
}

static void a_foreign_file_is_never_removed(void **state)
{
	struct fixture *f = *state;
	int file = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(file >= 0);
	close(file);
	assert_int_equal(listen_unix(f->path, 0600, NULL), -EEXIST);
	assert_int_equal(access(f->path, F_OK), 0);
}

static void the_successors_socket_is_left_alone(void **state)
{
	struct fixture *f = *state;
	int first = listen_unix(f->path, 0600, NULL);

	assert_true(first >= 0);
	unlink(f->path);
	int second = listen_unix(f->path, 0600, NULL);
	assert_true(second >= 0);
	unlisten_unix(f->path, first);
	close(connect_unix(f->path));
	unlisten_unix(f->path, second);
}

static void bad_addresses_are_refused(void **state)
{
	char path[200];
	uint16_t port;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(listen_unix(path, 0600, NULL), -ENAMETOOLONG);
	assert_int_equal(listen_unix("", 0600, NULL), -EINVAL);
	assert_int_equal(listen_unix("/no/such/directory/x.sock", 0600, NULL), -ENOENT);
	assert_int_equal(listen_tcp("256.0.0.1 ", 0, &port), -EINVAL);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(both_listeners_answer_and_close),
		TEST(refusals_are_counted),
		TEST(it_stops_while_clients_are_connected),
		TEST(tcp_can_be_off),
		TEST(a_taken_port_is_said),
		TEST(the_socket_has_its_mode_whatever_the_umask),
		TEST(a_dead_socket_is_replaced_a_live_one_is_not),
		TEST(a_foreign_file_is_never_removed),
		TEST(the_successors_socket_is_left_alone),
		cmocka_unit_test(bad_addresses_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
