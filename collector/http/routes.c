#include "http/routes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/caps.h"
#include "base/json.h"
#include "core/kind.h"
#include "core/prom.h"
#include "http/api.h"

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain; charset=utf-8"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

enum { DEFAULT_LIMIT = 50, MAX_LIMIT = 1000 };

void answer_init(struct answer *a)
{
	*a = (struct answer){.status = 200, .type = TYPE_JSON};
	buf_init(&a->body, CAP_RESPONSE);
}

void answer_deinit(struct answer *a)
{
	buf_deinit(&a->body);
}

void answer_error(struct answer *a, unsigned status, const char *code, const char *fmt, ...)
{
	char message[512];
	struct json j;
	va_list ap;

	va_start(ap, fmt);
	int len = vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	a->status = status;
	a->type = TYPE_JSON;
	buf_clear(&a->body);
	jsonw_init(&j, &a->body);
	jsonw_object(&j);
	jsonw_key(&j, "error");
	jsonw_object(&j);
	jsonw_key(&j, "code");
	jsonw_text(&j, code);
	jsonw_key(&j, "message");
	jsonw_text(&j, len < 0 ? code : message);
	jsonw_object_end(&j);
	jsonw_object_end(&j);
	buf_append_byte(&a->body, '\n');
}

/* --- the query --- */

enum { KEY_SINCE = 1, KEY_LIMIT = 2, KEY_CURSOR = 4, KEY_STATUS = 8 };

static const struct {
	const char *word, *form;
	unsigned key;
} keys[] = {
	{"since", "30s, 5m, 1h, 2d, an RFC 3339 time or unix seconds", KEY_SINCE},
	{"limit", "1 to 1000", KEY_LIMIT},
	{"cursor", "what an answer's \"next\" said", KEY_CURSOR},
	{"status", "ok, error, running or cancelled", KEY_STATUS},
};
enum { KEYS = sizeof(keys) / sizeof(keys[0]) };

static bool parse_uint(struct str s, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.len == 0)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(s.p[i] - '0');
		if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*ret = v;
	return true;
}

static bool parse_status(struct str s, unsigned *ret_statuses)
{
	for (int i = 0; i < STATUS_COUNT; i++) {
		if (str_eq(s, str_of(status_word((enum run_status)i)))) {
			*ret_statuses = 1u << i;
			return true;
		}
	}
	return false;
}

static bool parse_value(struct api_query *q, unsigned key, struct str value, uint64_t now_ns)
{
	uint64_t number = 0;

	switch (key) {
	case KEY_SINCE:
		return api_since(value, now_ns, &q->since_ns);
	case KEY_LIMIT:
		if (!parse_uint(value, &number) || number < 1 || number > MAX_LIMIT)
			return false;
		q->limit = (unsigned)number;
		return true;
	case KEY_CURSOR:
		return parse_uint(value, &q->cursor) && q->cursor > 0;
	default:
		return parse_status(value, &q->statuses);
	}
}

static int find_key(struct str word, unsigned allowed)
{
	for (int i = 0; i < KEYS; i++)
		if (keys[i].key & allowed && str_eq(word, str_of(keys[i].word)))
			return i;
	return -1;
}

static bool refuse_key(struct answer *a, struct str word, const char *why)
{
	int shown = word.len > 64 ? 64 : (int)word.len;

	answer_error(a, 400, "bad_query", "%.*s: %s", shown, word.len ? word.p : "", why);
	return false;
}

/* Fills *ret, or answers what is wrong and returns false. */
static bool read_query(struct answer *a, const struct query *q, unsigned allowed, uint64_t now_ns,
                       struct api_query *ret)
{
	unsigned seen = 0;

	*ret = (struct api_query){.limit = DEFAULT_LIMIT};
	if (q->count > MAX_QUERY) {
		answer_error(a, 400, "bad_query", "there are too many query keys");
		return false;
	}
	for (unsigned i = 0; i < q->count; i++) {
		const struct query_pair *pair = &q->pairs[i];
		int k = find_key(pair->key, allowed);
		if (k < 0)
			return refuse_key(a, pair->key, "there is no such query key here");
		if (seen & keys[k].key)
			return refuse_key(a, pair->key, "it is there twice");
		seen |= keys[k].key;
		if (!parse_value(ret, keys[k].key, pair->value, now_ns))
			return refuse_key(a, pair->key, keys[k].form);
	}
	return true;
}

/* --- the routes --- */

struct call {
	const struct http_options *options;
	struct str rest; // of the path, behind the route's own
	struct api_query query;
	uint64_t now_ns;
};

static void get_metrics(struct answer *a, const struct call *c)
{
	a->type = TYPE_METRICS;
	c->options->write_metrics(c->options->ctx, &a->body);
	stats_write(c->options->stats, &a->body);
	if (buf_error(&a->body))
		answer_error(a, 500, "internal", "%s", err_str(buf_error(&a->body)));
}

static void get_health(struct answer *a, const struct call *c)
{
	a->type = TYPE_TEXT;
	buf_append_str(&a->body, "ok\n");
}

static void get_ready(struct answer *a, const struct call *c)
{
	char reason[256] = "not ready";

	a->type = TYPE_TEXT;
	if (c->options->is_ready(c->options->ctx, reason, sizeof(reason))) {
		buf_append_str(&a->body, "ok\n");
		return;
	}
	a->status = 503;
	buf_printf(&a->body, "%s\n", reason);
}

/* What api.h's functions return, as an answer. */
static void finish(struct answer *a, int err)
{
	if (err == 0)
		err = buf_error(&a->body);
	if (err == 0)
		buf_append_byte(&a->body, '\n');
	else if (err == -ENOSPC)
		answer_error(a, 500, "too_long",
		             "the answer would be longer than %u MiB: give a smaller limit",
		             CAP_RESPONSE / MIB);
	else
		answer_error(a, 500, "internal", "%s", err_str(err));
}

static void get_traces(struct answer *a, const struct call *c)
{
	finish(a, api_traces(c->options->store, &c->query, c->now_ns, &a->body));
}

static void get_trace(struct answer *a, const struct call *c)
{
	int err = api_trace(c->options->store, c->rest, c->now_ns, &a->body);

	if (err == -ENOENT)
		answer_error(a, 404, "not_found", "there is no such trace");
	else if (err == -EINVAL)
		answer_error(a, 400, "bad_id",
		             "a trace is named by its 32 hex digits, at least the first 6 of "
		             "them, or last");
	else if (err == -EEXIST)
		answer_error(a, 409, "ambiguous", "more than one trace begins with this");
	else
		finish(a, err);
}

static void get_observations(struct answer *a, const struct call *c)
{
	finish(a, api_observations(c->options->store, &c->query, &a->body));
}

static void get_spans(struct answer *a, const struct call *c)
{
	finish(a, api_spans(c->options->store, &c->query, &a->body));
}

static void get_check(struct answer *a, const struct call *c)
{
	finish(a, c->options->write_check(c->options->ctx, &a->body));
}

enum {
	PAGE_KEYS = KEY_SINCE | KEY_LIMIT | KEY_CURSOR | KEY_STATUS,
	ANY_KEY = 1 << 8, // not looked at: Prometheus may scrape with parameters of its own
};

static const struct {
	const char *path; // one that ends in / has something behind it
	unsigned keys;
	void (*get)(struct answer *a, const struct call *c);
} routes[] = {
	{"/metrics", ANY_KEY, get_metrics},   {"/healthz", ANY_KEY, get_health},
	{"/readyz", ANY_KEY, get_ready},      {"/api/traces", PAGE_KEYS, get_traces},
	{"/api/traces/", 0, get_trace},       {"/api/observations", PAGE_KEYS, get_observations},
	{"/api/spans", PAGE_KEYS, get_spans}, {"/api/check", 0, get_check},
};
enum { ROUTES = sizeof(routes) / sizeof(routes[0]) };

static bool is_at(const char *route_path, const char *path, struct str *ret_rest)
{
	size_t len = strlen(route_path);

	if (strncmp(path, route_path, len) != 0)
		return false;
	*ret_rest = str_of(path + len);
	return (route_path[len - 1] == '/') == (ret_rest->len > 0);
}

void route(struct answer *a, const struct http_options *o, const char *path, const struct query *q,
           uint64_t now_ns)
{
	struct call c = {.options = o, .now_ns = now_ns};

	for (int i = 0; i < ROUTES; i++) {
		if (!is_at(routes[i].path, path, &c.rest))
			continue;
		if (routes[i].keys == ANY_KEY || read_query(a, q, routes[i].keys, now_ns, &c.query))
			routes[i].get(a, &c);
		return;
	}
	answer_error(a, 404, "not_found", "there is nothing here; see /api/traces, /metrics");
}

/* --- the host --- */

static bool is_port(struct str s)
{
	uint64_t port;

	return s.len == 0 || (s.p[0] == ':' && s.len > 1 && s.len < 7 &&
	                      parse_uint((struct str){s.p + 1, s.len - 1}, &port) && port < 65536);
}

/* The host of a Host header: what is before the port, or between brackets. */
static bool split_host(struct str header, struct str *ret_host)
{
	bool is_bracketed = header.len > 0 && header.p[0] == '[';
	const char *end = memchr(header.p, is_bracketed ? ']' : ':', header.len);

	if (is_bracketed && !end)
		return false;
	if (!end)
		end = header.p + header.len;
	const char *start = header.p + is_bracketed;
	*ret_host = (struct str){start, (size_t)(end - start)};
	const char *port = end + is_bracketed;
	return is_port((struct str){port, (size_t)(header.p + header.len - port)});
}

static bool is_host(struct str host, const char *name)
{
	return host.len == strlen(name) && strncasecmp(host.p, name, host.len) == 0;
}

bool host_is_allowed(struct str host, const char *listen_host)
{
	static const char *const loopback[] = {"localhost", "127.0.0.1", "::1"};
	struct str name;

	if (host.len == 0 || !split_host(host, &name))
		return false;
	for (size_t i = 0; i < sizeof(loopback) / sizeof(loopback[0]); i++)
		if (is_host(name, loopback[i]))
			return true;
	bool is_everywhere = strcmp(listen_host, "0.0.0.0") == 0 || strcmp(listen_host, "::") == 0;
	return is_everywhere || is_host(name, listen_host);
}
