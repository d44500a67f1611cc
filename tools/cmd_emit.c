#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "cmd.h"
#include "config.h"
#include "emit_values.h"
#include "owner.h"
#include "private.h"
#include "sidelight.h"

enum { ACK_MS = 2000, SERVICE_SIZE = 64, VALUE_MAX = 2 * 1024 * 1024 };

static const char help[] =
	"usage: sidelight emit start [--kind K] [--name N] [...]     prints the run's id\n"
	"       sidelight emit end ID [--output TEXT] [--error MESSAGE] [...]\n"
	"       sidelight emit event ID NAME [--attr KEY=VALUE]\n"
	"       sidelight emit span --name N --start WHEN --duration D [...]   both at once\n"
	"\n"
	"Tells the collector what a script does. A run that was started and not ended is closed "
	"as\n"
	"lost when the script has ended.\n"
	"\n"
	"start, span:\n"
	"  --kind KIND         agent chain llm tool retriever embedding other\n"
	"  --name NAME\n"
	"  --parent ID         of an earlier start; else $TRACEPARENT says\n"
	"  --id ID             an id of your own: a UUID or any text\n"
	"  --input TEXT        -: what stdin says\n"
	"  --model M, --provider P, --session S, --user U, --tag T\n"
	"  --start WHEN        5m ago, an RFC 3339 time or unix seconds; else now\n"
	"end, span:\n"
	"  --output TEXT       -: what stdin says\n"
	"  --error MESSAGE, --error-type TYPE\n"
	"  --usage KEY=COUNT   input_tokens=12: in the provider's words\n"
	"  --finish REASON\n"
	"  --duration D        of a span: 350ms, 1.5s, 2m\n"
	"all:\n"
	"  --attr KEY=VALUE    text; KEY:=VALUE a number, true or false\n"
	"  --service NAME      else $OTEL_SERVICE_NAME, else the script's\n"
	"  --owner PID         the process that the runs end with; else the script\n"
	"  --socket PATH       the collector's socket ($SIDELIGHT_SOCKET)\n"
	"  --quiet             say nothing when there is no collector\n"
	"\n"
	"Exit code: 0 stored, 1 not, 2 usage.\n";

struct emit {
	struct sidelight_start_fields start;
	struct sidelight_end_fields end;
	struct sidelight_event_fields event;
	struct sidelight_run run, parent;
	struct emit_pairs attrs, usage;
	const char *tags[EMIT_PAIRS_MAX];
	const char *socket, *service;
	long owner;
	uint64_t start_ns, duration_ns; // unix; 0: not said
	bool has_run, has_duration, quiet;
	char service_of_owner[SERVICE_SIZE];
	struct buf input; // stdin's
};

/* "-" is what stdin says. */
static bool take_text(struct emit *e, const char **ret, const char *text)
{
	uint8_t *at;
	size_t n;

	*ret = text;
	if (strcmp(text, "-") != 0)
		return true;
	do {
		at = buf_extend(&e->input, 64 * KIB);
		n = at ? fread(at, 1, 64 * KIB, stdin) : 0;
		if (at)
			e->input.len -= 64 * KIB - n;
	} while (n > 0);
	buf_append_byte(&e->input, '\0');
	*ret = (const char *)e->input.data;
	if (buf_error(&e->input))
		complain("what stdin says is too long");
	return !buf_error(&e->input);
}

/* --- the command line --- */

enum {
	OPT_KIND = 256,
	OPT_NAME,
	OPT_PARENT,
	OPT_ID,
	OPT_INPUT,
	OPT_MODEL,
	OPT_PROVIDER,
	OPT_SESSION,
	OPT_USER,
	OPT_TAG,
	OPT_START,
	OPT_OUTPUT,
	OPT_ERROR,
	OPT_ERROR_TYPE,
	OPT_USAGE,
	OPT_FINISH,
	OPT_DURATION,
	OPT_ATTR,
	OPT_SERVICE,
	OPT_OWNER,
	OPT_SOCKET,
	OPT_QUIET,
	OPT_HELP,
};

static const struct option options[] = {
	{"kind", required_argument, NULL, OPT_KIND},
	{"name", required_argument, NULL, OPT_NAME},
	{"parent", required_argument, NULL, OPT_PARENT},
	{"id", required_argument, NULL, OPT_ID},
	{"input", required_argument, NULL, OPT_INPUT},
	{"model", required_argument, NULL, OPT_MODEL},
	{"provider", required_argument, NULL, OPT_PROVIDER},
	{"session", required_argument, NULL, OPT_SESSION},
	{"user", required_argument, NULL, OPT_USER},
	{"tag", required_argument, NULL, OPT_TAG},
	{"start", required_argument, NULL, OPT_START},
	{"output", required_argument, NULL, OPT_OUTPUT},
	{"error", required_argument, NULL, OPT_ERROR},
	{"error-type", required_argument, NULL, OPT_ERROR_TYPE},
	{"usage", required_argument, NULL, OPT_USAGE},
	{"finish", required_argument, NULL, OPT_FINISH},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"attr", required_argument, NULL, OPT_ATTR},
	{"service", required_argument, NULL, OPT_SERVICE},
	{"owner", required_argument, NULL, OPT_OWNER},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

#define BIT(option) (1u << ((option)-OPT_KIND))
#define COMMON                                                                                     \
	(BIT(OPT_ATTR) | BIT(OPT_SERVICE) | BIT(OPT_OWNER) | BIT(OPT_SOCKET) | BIT(OPT_QUIET) |    \
	 BIT(OPT_HELP))
#define OF_START                                                                                   \
	(BIT(OPT_KIND) | BIT(OPT_NAME) | BIT(OPT_PARENT) | BIT(OPT_ID) | BIT(OPT_INPUT) |          \
	 BIT(OPT_MODEL) | BIT(OPT_PROVIDER) | BIT(OPT_SESSION) | BIT(OPT_USER) | BIT(OPT_TAG) |    \
	 BIT(OPT_START))
#define OF_END                                                                                     \
	(BIT(OPT_OUTPUT) | BIT(OPT_ERROR) | BIT(OPT_ERROR_TYPE) | BIT(OPT_USAGE) | BIT(OPT_FINISH))

static bool take_owner(struct emit *e, const char *text)
{
	char *end;

	errno = 0;
	e->owner = strtol(text, &end, 10);
	bool ok = *text >= '1' && *text <= '9' && !*end && !errno && e->owner <= INT32_MAX;
	if (!ok) {
		complain("--owner %s: give a process id", text);
	} else if (kill((pid_t)e->owner, 0) < 0 && errno == ESRCH) {
		complain("--owner %s: no such process", text);
		ok = false;
	}
	return ok;
}

static bool take_tag(struct emit *e, const char *text)
{
	if (e->start.tag_count == EMIT_PAIRS_MAX) {
		complain("--tag: %d are the most", EMIT_PAIRS_MAX);
		return false;
	}
	e->start.tags = e->tags;
	e->tags[e->start.tag_count++] = text;
	return true;
}

static bool take_error(struct emit *e, const char *message)
{
	e->end.error_message = message;
	if (!e->end.error_type)
		e->end.error_type = "Error";
	return true;
}

/* Where an option's text goes as it is; NULL: it is more than that. */
static const char **place_of(struct emit *e, int option)
{
	switch (option) {
	case OPT_KIND:
		return &e->start.kind;
	case OPT_NAME:
		return &e->start.name;
	case OPT_MODEL:
		return &e->start.model;
	case OPT_PROVIDER:
		return &e->start.provider;
	case OPT_SESSION:
		return &e->start.session;
	case OPT_USER:
		return &e->start.user;
	case OPT_ERROR_TYPE:
		return &e->end.error_type;
	case OPT_FINISH:
		return &e->end.finish;
	case OPT_SERVICE:
		return &e->service;
	case OPT_SOCKET:
		return &e->socket;
	default:
		return NULL;
	}
}

static bool take_option(struct emit *e, int option, char *text)
{
	const char **place = place_of(e, option);

	if (place) {
		*place = text;
		return true;
	}
	switch (option) {
	case OPT_PARENT:
		e->start.parent = &e->parent;
		return emit_run(text, &e->parent);
	case OPT_ID:
		e->has_run = true;
		return emit_run(text, &e->run);
	case OPT_INPUT:
		return take_text(e, &e->start.input, text);
	case OPT_OUTPUT:
		return take_text(e, &e->end.output, text);
	case OPT_TAG:
		return take_tag(e, text);
	case OPT_START:
		return emit_time(text, &e->start_ns);
	case OPT_DURATION:
		e->has_duration = true;
		return emit_duration(text, &e->duration_ns);
	case OPT_ERROR:
		return take_error(e, text);
	case OPT_USAGE:
		return emit_pair(&e->usage, "usage", text, true);
	case OPT_ATTR:
		return emit_pair(&e->attrs, "attr", text, false);
	case OPT_OWNER:
		return take_owner(e, text);
	default:
		e->quiet = true;
		return true;
	}
}

/* --- what is said --- */

/* What our monotonic clock showed then, so that an end that tells its own time gives the duration;
 * 0 of 0. */
static uint64_t mono_at(uint64_t unix_ns)
{
	uint64_t now = clock_unix_ns(), mono = clock_mono_ns();

	if (unix_ns == 0)
		return 0;
	if (unix_ns >= now)
		return mono + (unix_ns - now);
	return mono > now - unix_ns ? mono - (now - unix_ns) : 1; // 1: before the machine's start
}

static int say_start(struct emit *e, struct sidelight *sl)
{
	struct sidelight_run run = e->run;

	e->start.unix_ns = e->start_ns;
	e->start.mono_ns = mono_at(e->start_ns);
	e->start.run = e->has_run ? &run : NULL;
	e->start.attrs = e->attrs.list;
	e->start.attr_count = e->attrs.count;
	if (!e->start.parent)
		e->start.traceparent = getenv("TRACEPARENT");
	return sidelight_start(sl, &e->run, &e->start);
}

static int say_end(struct emit *e, struct sidelight *sl)
{
	e->end.usage = e->usage.list;
	e->end.usage_count = e->usage.count;
	e->end.model = e->start.model;
	e->end.attrs = e->attrs.list;
	e->end.attr_count = e->attrs.count;
	return sidelight_end(sl, &e->run, &e->end);
}

static int say_event(struct emit *e, struct sidelight *sl)
{
	e->event.attrs = e->attrs.list;
	e->event.attr_count = e->attrs.count;
	return sidelight_event(sl, &e->run, &e->event);
}

static int say_span(struct emit *e, struct sidelight *sl)
{
	uint64_t now = clock_unix_ns();

	if (e->start_ns == 0)
		e->start_ns = now > e->duration_ns ? now - e->duration_ns : 1;
	int r = say_start(e, sl);
	if (r < 0)
		return r;
	uint64_t took = e->duration_ns;
	if (!e->has_duration && now > e->start_ns)
		took = now - e->start_ns;
	e->end.unix_ns = e->start_ns + took;
	e->end.mono_ns = e->start.mono_ns + took;
	e->attrs.count = 0; // said already
	return say_end(e, sl);
}

struct verb {
	const char *name;
	int (*say)(struct emit *e, struct sidelight *sl);
	unsigned options;
	int words; // an id, and a name
	bool makes_run;
};

static const struct verb verbs[] = {
	{"start", say_start, COMMON | OF_START, 0, true},
	{"end", say_end, COMMON | OF_END | BIT(OPT_MODEL), 1, false},
	{"event", say_event, COMMON, 2, false},
	{"span", say_span, COMMON | OF_START | OF_END | BIT(OPT_DURATION), 0, true},
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; name && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(name, verbs[i].name) == 0)
			return &verbs[i];
	complain("emit what? start, end, event or span: see sidelight emit --help");
	return NULL;
}

static int print_help(void)
{
	return fputs(help, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

static bool take_words(struct emit *e, const struct verb *verb, int count, char **words)
{
	if (count != verb->words) {
		complain("emit %s takes %s", verb->name,
		         verb->words == 0   ? "no further words"
		         : verb->words == 1 ? "the run's id"
		                            : "the run's id and the event's name");
		return false;
	}
	if (count > 1 && !*words[1]) {
		complain("an event has a name");
		return false;
	}
	e->event.name = count > 1 ? words[1] : NULL;
	return count == 0 || emit_run(words[0], &e->run);
}

/* An exit code, or -1 to go on. */
static int read_args(struct emit *e, int argc, char **argv, const struct verb **ret_verb)
{
	unsigned given = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == OPT_HELP)
			return print_help();
		if (option == '?' || !take_option(e, option, optarg))
			return EXIT_USAGE;
		given |= BIT(option);
	}
	const struct verb *verb = *ret_verb = find_verb(argv[optind]);
	if (!verb)
		return EXIT_USAGE;
	for (size_t i = 0; options[i].name; i++)
		if (given & ~verb->options & BIT(options[i].val)) {
			complain("emit %s takes no --%s", verb->name, options[i].name);
			return EXIT_USAGE;
		}
	return take_words(e, verb, argc - optind - 1, argv + optind + 1) ? -1 : EXIT_USAGE;
}

/* In a UUID's form, which the protocol reads as these bytes. */
static bool print_run(const struct sidelight_run *run)
{
	static const size_t groups[] = {4, 2, 2, 2, 6};
	const uint8_t *at = run->id;
	char text[40], *to = text;

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		hex_write(to, at, groups[i]);
		at += groups[i];
		to += 2 * groups[i];
		*to++ = i < 4 ? '-' : '\0';
	}
	return puts(text) >= 0 && fflush(stdout) == 0;
}

static struct sidelight *open_client(struct emit *e, const char *socket)
{
	const char *service = getenv("OTEL_SERVICE_NAME");

	if (!e->owner)
		e->owner = owner_find();
	owner_name(e->owner, e->service_of_owner, sizeof(e->service_of_owner));
	if (!e->service)
		e->service = service && *service ? service : e->service_of_owner;
	struct sidelight_options o = {.socket = socket,
	                              .service = e->service,
	                              .owner = e->owner,
	                              .buffer_bytes = 16 * MIB};
	return sidelight_open(&o);
}

static int tell(struct emit *e, const struct verb *verb)
{
	char *socket = config_client_socket(e->socket);
	struct sidelight *sl = socket ? open_client(e, socket) : NULL;

	int err = sl ? verb->say(e, sl) : -errno;
	if (err == 0)
		err = private_reach(socket); // without waiting for one
	if (err == 0)
		err = sidelight_flush(sl, ACK_MS);
	if (err < 0 && !e->quiet)
		complain("not stored: %s: %s", socket ? socket : "", strerror(-err));
	sidelight_close(sl);
	free(socket);
	// A script that goes on without a collector has an id to go on with.
	bool is_said = !verb->makes_run || print_run(&e->run);
	return err == 0 && is_said ? EXIT_OK : EXIT_FAILED;
}

int cmd_emit(int argc, char **argv)
{
	const struct verb *verb;
	struct emit e = {0};

	buf_init(&e.input, VALUE_MAX);
	int code = read_args(&e, argc, argv, &verb);
	if (code < 0)
		code = tell(&e, verb);
	buf_deinit(&e.input);
	return code;
}
