#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/routes.h"

struct fixture {
	struct stats stats;
	struct http_options options;
	struct answer answer;
	const char *not_ready; // why, or NULL
};

static void write_metrics(void *ctx, struct buf *out)
{
	buf_append_str(out, "chat_requests_total 1\n");
}

static bool is_ready(void *ctx, char *reason, unsigned size)
{
	const struct fixture *f = ctx;

	if (f->not_ready)
		snprintf(reason, size, "%s", f->not_ready);
	return !f->not_ready;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->options = (struct http_options){.host = "127.0.0.1",
	                                   .stats = &f->stats,
	                                   .write_metrics = write_metrics,
	                                   .is_ready = is_ready,
	                                   .ctx = f};
	answer_init(&f->answer);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	answer_deinit(&f->answer);
	free(f);
	return 0;
}

/* Asks for a path with at most one pair; the body. No store: nothing here comes as far. */
static const char *get(struct fixture *f, const char *path, const char *key, const char *value)
{
	struct query q = {.pairs = {{str_of(key), str_of(value)}}, .count = key ? 1 : 0};

	answer_deinit(&f->answer);
	answer_init(&f->answer);
	route(&f->answer, &f->options, path, &q, 1);
	buf_append_byte(&f->answer.body, 0);
	return (const char *)f->answer.body.data;
}

static void assert_bad(struct fixture *f, const char *key, const char *value)
{
	const char *body = get(f, "/api/traces", key, value);

	if (f->answer.status != 400 || !strstr(body, "\"code\":\"bad_query\"") ||
	    !strstr(body, key))
		fail_msg("%s=%s: %u %s", key, value ? value : "", f->answer.status, body);
}

static void metrics_are_the_requests_and_our_own(void **state)
{
	struct fixture *f = *state;
	const char *body = get(f, "/metrics", "any", "thing");

	assert_int_equal(f->answer.status, 200);
	assert_string_equal(f->answer.type, "text/plain; version=0.0.4; charset=utf-8");
	assert_int_equal(strncmp(body, "chat_requests_total 1\n# HELP sidelight_", 39), 0);
}

static void readiness_says_why_not(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(get(f, "/healthz", NULL, NULL), "ok\n");
	assert_string_equal(get(f, "/readyz", NULL, NULL), "ok\n");
	f->not_ready = "the disk is full";
	assert_string_equal(get(f, "/readyz", NULL, NULL), "the disk is full\n");
	assert_int_equal(f->answer.status, 503);
	assert_string_equal(get(f, "/healthz", NULL, NULL), "ok\n");
	assert_int_equal(f->answer.status, 200);
}

static void paths_are_exact(void **state)
{
	struct fixture *f = *state;
	static const char *const none[] = {
		"/",    "/metrics/", "/metricsx",    "",           "/api/traces/", "/api/spans/1",
		"/api", "metrics",   "/api//traces", "/API/traces"};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		const char *body = get(f, none[i], NULL, NULL);
		if (f->answer.status != 404)
			fail_msg("%s: %u", none[i], f->answer.status);
		assert_non_null(strstr(body, "{\"error\":{\"code\":\"not_found\",\"message\":\""));
	}
}

static void bad_queries_are_refused_by_name(void **state)
{
	struct fixture *f = *state;

	assert_bad(f, "limt", "5");
	assert_bad(f, "limit", "0");
	assert_bad(f, "limit", "1001");
	assert_bad(f, "limit", "5x");
	assert_bad(f, "limit", "");
	assert_bad(f, "limit", NULL);
	assert_bad(f, "limit", "-1");
	assert_bad(f, "limit", "18446744073709551617");
	assert_bad(f, "cursor", "0");
	assert_bad(f, "cursor", "next");
	assert_bad(f, "since", "yesterday");
	assert_bad(f, "status", "bad");
	get(f, "/api/traces/abcdef", "limit", "5"); // one trace has no pages
	assert_int_equal(f->answer.status, 400);
}

static void a_key_twice_and_too_many_are_refused(void **state)
{
	struct fixture *f = *state;
	struct query q = {.pairs = {{STR("limit"), STR("1")}, {STR("limit"), STR("2")}},
	                  .count = 2};

	route(&f->answer, &f->options, "/api/spans", &q, 1);
	assert_int_equal(f->answer.status, 400);
	q.count = 1000;
	route(&f->answer, &f->options, "/api/spans", &q, 1);
	assert_int_equal(f->answer.status, 400);
}

static void an_error_holds_any_text(void **state)
{
	struct fixture *f = *state;
	char key[300];

	memset(key, '"', sizeof(key) - 1);
	key[sizeof(key) - 1] = 0;
	const char *body = get(f, "/api/traces", key, "\xff");
	assert_int_equal(f->answer.status, 400);
	assert_non_null(strstr(body, "\\\"\\\"\\\": there is no such query key here\"}}\n"));
}

static void hosts_of_this_machine_are_allowed(void **state)
{
	static const char *const good[] = {"localhost",   "LocalHost:4320", "127.0.0.1",
	                                   "127.0.0.1:1", "[::1]",          "[::1]:4320",
	                                   "my.box:4320", "localhost:65535"};
	static const char *const bad[] = {"",
	                                  "evil.com",
	                                  "localhost.evil.com",
	                                  "evil.com:4320",
	                                  "localhost:x",
	                                  "localhost:",
	                                  "localhost:65536",
	                                  "127.0.0.1.nip.io",
	                                  "127.0.0.2",
	                                  "::1",
	                                  "[::1",
	                                  "[::1]x",
	                                  "[localhost",
	                                  "localhost ",
	                                  "a@localhost",
	                                  ":4320"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!host_is_allowed(str_of(good[i]), "my.box"))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (host_is_allowed(str_of(bad[i]), "my.box"))
			fail_msg("allowed: %s", bad[i]);
}

static void a_listener_on_every_address_takes_any_host(void **state)
{
	assert_true(host_is_allowed(STR("sidelight:4320"), "0.0.0.0"));
	assert_true(host_is_allowed(STR("sidelight:4320"), "::"));
	assert_false(host_is_allowed(STR(""), "::"));
	assert_false(host_is_allowed(STR("sidelight:4320"), "10.0.0.1"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(metrics_are_the_requests_and_our_own),
		TEST(readiness_says_why_not),
		TEST(paths_are_exact),
		TEST(bad_queries_are_refused_by_name),
		TEST(a_key_twice_and_too_many_are_refused),
		TEST(an_error_holds_any_text),
		cmocka_unit_test(hosts_of_this_machine_are_allowed),
		cmocka_unit_test(a_listener_on_every_address_takes_any_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
