/* The OTEL_* variables of OpenTelemetry's specification. Where it has an SDK warn and go on, this
 * is a fault: a daemon can refuse to start, and a guess would send to the wrong place. */
#include "config_parts.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "base/clock.h"

enum { VARIABLE_MAX = 64, SIGNALS_MAX = 3 };

/* What can be said of each signal and of all at once. */
enum what {
	ENDPOINT,
	PROTOCOL,
	HEADERS,
	COMPRESSION,
	TIMEOUT,
	CERTIFICATE,
	CLIENT_CERTIFICATE,
	CLIENT_KEY,
	INSECURE,
};

static const char *const what_names[] = {
	[ENDPOINT] = "ENDPOINT",
	[PROTOCOL] = "PROTOCOL",
	[HEADERS] = "HEADERS",
	[COMPRESSION] = "COMPRESSION",
	[TIMEOUT] = "TIMEOUT",
	[CERTIFICATE] = "CERTIFICATE",
	[CLIENT_CERTIFICATE] = "CLIENT_CERTIFICATE",
	[CLIENT_KEY] = "CLIENT_KEY",
	[INSECURE] = "INSECURE",
};

/* In the order of their exporters. The names are kept apart, so that a variable more does not
 * rename an exporter: its place in the store goes by the name. */
static const struct signal_names {
	enum otlp_signal signal;
	const char *part, *exporter; // of variables; the name
} signals[SIGNALS_MAX] = {
	{SIGNAL_TRACES, "TRACES", "otlp"},
	{SIGNAL_METRICS, "METRICS", "otlp-metrics"},
	{SIGNAL_LOGS, "LOGS", "otlp-logs"},
};

struct otel {
	struct config *config;
	struct faults *faults;
	unsigned said; // bit: enum what of a general variable whose fault was told already
};

/* A variable and what it says. */
struct setting {
	enum what what;
	char name[VARIABLE_MAX];
	const char *text; // NULL: unset
	bool own;         // of one signal, not of all
};

enum choice { CHOICE_NONE, CHOICE_OTLP, CHOICE_CONSOLE };

/* The signal's own variable, else the general one. One that was at fault before is not looked at
 * again: its fault stands for all signals. */
static struct setting find(const struct otel *o, const struct signal_names *s, enum what what)
{
	struct setting ret = {.what = what, .own = true};

	snprintf(ret.name, sizeof(ret.name), "OTEL_EXPORTER_OTLP_%s_%s", s->part, what_names[what]);
	ret.text = env_text(ret.name);
	if (ret.text)
		return ret;
	ret.own = false;
	snprintf(ret.name, sizeof(ret.name), "OTEL_EXPORTER_OTLP_%s", what_names[what]);
	ret.text = o->said & 1u << what ? NULL : env_text(ret.name);
	return ret;
}

static void complain(struct otel *o, const struct setting *s, const char *wrong, const char *rule)
{
	char quoted[CONFIG_QUOTE_MAX];
	struct place at = {.path = s->name};

	fault_quote(quoted, s->text);
	fault(o->faults, &at, "'%s' %s, must be %s", quoted, wrong, rule);
	if (!s->own)
		o->said |= 1u << s->what;
}

/* Sets an exporter's key; says what is wrong with the variable otherwise. */
static void set(struct otel *o, const struct setting *s, const char *section, const char *name,
                const char *text, struct exporter_config *e)
{
	char rule[CONFIG_RULE_MAX];
	const struct key *k = key_find(section, name);
	const char *wrong;
	int rc = value_parse(k, text, e, &wrong);

	if (rc == -ENOMEM)
		o->faults->no_memory = true;
	if (rc != -EINVAL)
		return;
	value_rule(k, rule);
	complain(o, s, wrong, rule);
}

/* Words are the same in either case. */
static void set_word(struct otel *o, const struct setting *s, const char *name,
                     struct exporter_config *e)
{
	char lower[CONFIG_QUOTE_MAX];

	if (!s->text)
		return;
	snprintf(lower, sizeof(lower), "%s", s->text);
	for (char *p = lower; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	set(o, s, "exporters[]", name, lower, e);
}

/* Digits of milliseconds. */
static void set_ms(struct otel *o, const struct setting *s, const char *name,
                   struct exporter_config *e)
{
	char duration[CONFIG_QUOTE_MAX], rule[CONFIG_RULE_MAX];
	const struct key *k = key_find("exporters[]", name);
	const char *wrong = "is not a whole number";
	int rc = -EINVAL;

	if (!s->text)
		return;
	if (s->text[strspn(s->text, "0123456789")] == '\0' &&
	    snprintf(duration, sizeof(duration), "%sms", s->text) < (int)sizeof(duration))
		rc = value_parse(k, duration, e, &wrong);
	if (rc == 0)
		return;
	snprintf(rule, sizeof(rule), "milliseconds from %llu to %llu",
	         (unsigned long long)k->min / NS_PER_MS, (unsigned long long)k->max / NS_PER_MS);
	complain(o, s, wrong, rule);
}

/* "true" or "false", in either case; unset is false. */
static bool is_true(struct otel *o, const struct setting *s)
{
	if (!s->text || strcasecmp(s->text, "false") == 0)
		return false;
	if (strcasecmp(s->text, "true") == 0)
		return true;
	complain(o, s, "is not a boolean", "true or false");
	return false;
}

/* gRPC's endpoints may come without a scheme, and are secure then. */
static void set_grpc_endpoint(struct otel *o, const struct signal_names *names,
                              const struct setting *s, struct exporter_config *e)
{
	const struct setting insecure = find(o, names, INSECURE);
	const char *scheme = "";
	char *url;

	if (!strstr(s->text, "://"))
		scheme = is_true(o, &insecure) ? "http://" : "https://";
	if (asprintf(&url, "%s%s", scheme, s->text) < 0) {
		o->faults->no_memory = true;
		return;
	}
	set(o, s, "exporters[]", "endpoint", url, e);
	if (e->endpoint && url_has_path(e->endpoint))
		complain(o, s, "has a path", "without one for grpc");
	free(url);
}

static void set_endpoint(struct otel *o, const struct signal_names *names, const struct setting *s,
                         struct exporter_config *e)
{
	if (!s->text)
		return;
	if (e->protocol == OTLP_GRPC) {
		set_grpc_endpoint(o, names, s, e);
		return;
	}
	set(o, s, "exporters[]", "endpoint", s->text, e);
	// a signal's own endpoint is used as it is; the path of a Unix socket is not the request's
	e->endpoint_is_whole = s->own && e->endpoint && !url_socket(e->endpoint);
}

static void set_headers(struct otel *o, const struct setting *s, struct exporter_config *e)
{
	struct place at = {.path = s->name};
	size_t faults = o->faults->count;

	if (!s->text)
		return;
	config_read_list(s->text, LIST_HEADERS, &at, o->faults, &e->headers, &e->header_count);
	if (o->faults->count == faults && e->protocol == OTLP_GRPC && !headers_fit_grpc(e))
		fault(o->faults, &at, "has a value that gRPC can't carry, must be printable ASCII");
	if (o->faults->count > faults && !s->own)
		o->said |= 1u << HEADERS;
}

/* A file for an endpoint without TLS would be a mistake, and data sent in the clear; not so one
 * that is for all signals where this one has its own endpoint. */
static void set_file(struct otel *o, const struct setting *s, const struct setting *endpoint,
                     const char *name, struct exporter_config *e)
{
	if (!s->text)
		return;
	if (url_is_https(e->endpoint))
		set(o, s, "exporters[].tls", name, s->text, e);
	else if (s->own || !endpoint->own)
		complain(o, s, "is for an https:// endpoint only", "left out");
}

static void set_tls(struct otel *o, const struct signal_names *names,
                    const struct setting *endpoint, struct exporter_config *e)
{
	const struct setting ca = find(o, names, CERTIFICATE);
	const struct setting cert = find(o, names, CLIENT_CERTIFICATE);
	const struct setting key = find(o, names, CLIENT_KEY);
	size_t faults = o->faults->count;

	set_file(o, &ca, endpoint, "ca_file", e);
	set_file(o, &cert, endpoint, "cert_file", e);
	set_file(o, &key, endpoint, "key_file", e);
	if (o->faults->count > faults)
		return;
	if (e->tls.cert_file && !e->tls.key_file)
		complain(o, &cert, "has no CLIENT_KEY beside it", "both or none");
	if (e->tls.key_file && !e->tls.cert_file)
		complain(o, &key, "has no CLIENT_CERTIFICATE beside it", "both or none");
}

static void set_interval(struct otel *o, struct exporter_config *e)
{
	struct setting s = {.name = "OTEL_METRIC_EXPORT_INTERVAL", .own = true};

	s.text = env_text(s.name);
	set_ms(o, &s, "metrics_interval", e);
}

static void read_otlp(struct otel *o, const struct signal_names *names, struct exporter_config *e)
{
	const struct setting endpoint = find(o, names, ENDPOINT);
	const struct setting protocol = find(o, names, PROTOCOL);
	const struct setting headers = find(o, names, HEADERS);
	const struct setting compression = find(o, names, COMPRESSION);
	const struct setting timeout = find(o, names, TIMEOUT);
	size_t faults = o->faults->count;

	e->type = EXPORTER_OTLP;
	e->signals = 1u << names->signal;
	set_word(o, &protocol, "protocol", e);
	set_word(o, &compression, "compression", e);
	set_ms(o, &timeout, "timeout", e);
	set_headers(o, &headers, e);
	if (names->signal == SIGNAL_METRICS)
		set_interval(o, e);
	if (o->faults->count == faults) // else it is not known what the endpoint may be
		set_endpoint(o, names, &endpoint, e);
	if (exporter_finish(e) != 0)
		o->faults->no_memory = true;
	else if (o->faults->count == faults)
		set_tls(o, names, &endpoint, e);
}

/* What a signal goes to: what its variable says, else to an endpoint if there is one. */
static enum choice choose(struct otel *o, const struct signal_names *names)
{
	struct setting s = {.own = true};

	snprintf(s.name, sizeof(s.name), "OTEL_%s_EXPORTER", names->part);
	s.text = env_text(s.name);
	if (!s.text)
		return find(o, names, ENDPOINT).text ? CHOICE_OTLP : CHOICE_NONE;
	if (strcasecmp(s.text, "otlp") == 0)
		return CHOICE_OTLP;
	if (strcasecmp(s.text, "none") == 0)
		return CHOICE_NONE;
	if (names->signal != SIGNAL_TRACES) {
		complain(o, &s, "is not supported for this signal", "otlp or none");
		return CHOICE_NONE;
	}
	if (strcasecmp(s.text, "console") == 0)
		return CHOICE_CONSOLE;
	complain(o, &s, "is not known", "otlp, console or none");
	return CHOICE_NONE;
}

static void add_exporter(struct otel *o, const struct signal_names *names, enum choice choice)
{
	struct config *c = o->config;
	struct exporter_config *e = &c->exporters[c->exporter_count++];

	e->name = strdup(choice == CHOICE_CONSOLE ? "console" : names->exporter);
	if (keys_default(true, e) != 0 || !e->name) {
		o->faults->no_memory = true;
		return;
	}
	if (choice == CHOICE_OTLP) {
		read_otlp(o, names, e);
		return;
	}
	e->type = EXPORTER_CONSOLE;
	e->content = true;
}

const char *config_otel_asks(void)
{
	static const char *const names[] = {"OTEL_EXPORTER_OTLP_ENDPOINT",
	                                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
	                                    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
	                                    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
	                                    "OTEL_TRACES_EXPORTER",
	                                    "OTEL_METRICS_EXPORTER",
	                                    "OTEL_LOGS_EXPORTER"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (env_text(names[i]))
			return names[i];
	}
	return NULL;
}

void config_read_otel_exporters(struct config *c, struct faults *f)
{
	struct otel o = {c, f, 0};
	struct setting disabled = {.name = "OTEL_SDK_DISABLED", .own = true};

	disabled.text = env_text(disabled.name);
	if (!config_otel_asks() || is_true(&o, &disabled))
		return;
	c->exporters = calloc(SIGNALS_MAX, sizeof(*c->exporters));
	if (!c->exporters) {
		f->no_memory = true;
		return;
	}
	for (size_t i = 0; i < SIGNALS_MAX; i++) {
		enum choice choice = choose(&o, &signals[i]);
		if (choice != CHOICE_NONE)
			add_exporter(&o, &signals[i], choice);
	}
}
