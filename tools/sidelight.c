/* sidelight - look at what the collector has. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "cmd.h"
#include "http/api.h"

/* --- the subcommands and their options --- */

enum {
	OPT_SOCKET = 256,
	OPT_URL,
	OPT_DATA,
	OPT_JSON,
	OPT_HELP,
	OPT_VERSION,
	OPT_SINCE,
	OPT_LIMIT,
	OPT_STATUS,
	OPT_CONTENT,
	OPT_SPANS,
	OPT_CONFIG,
};

static const struct option options[] = {
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"url", required_argument, NULL, OPT_URL},
	{"data", required_argument, NULL, OPT_DATA},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{"since", required_argument, NULL, OPT_SINCE},
	{"limit", required_argument, NULL, OPT_LIMIT},
	{"status", required_argument, NULL, OPT_STATUS},
	{"content", no_argument, NULL, OPT_CONTENT},
	{"spans", no_argument, NULL, OPT_SPANS},
	{"config", required_argument, NULL, OPT_CONFIG},
	{0},
};

#define BIT(option) (1u << ((option)-OPT_SOCKET))
#define COMMON                                                                                     \
	(BIT(OPT_SOCKET) | BIT(OPT_URL) | BIT(OPT_DATA) | BIT(OPT_JSON) | BIT(OPT_HELP) |          \
	 BIT(OPT_VERSION))
#define TRACES_DEFAULT 20

struct command {
	const char *name;
	int (*run)(struct cmd *c);
	unsigned options; // BIT of each that it takes
	bool takes_id;
	const char *help;
};

static const struct command commands[] = {
	{"traces", cmd_traces, COMMON | BIT(OPT_SINCE) | BIT(OPT_LIMIT) | BIT(OPT_STATUS), false,
         "usage: sidelight traces [--since 1h] [--status STATUS] [--limit N]\n"
         "\n"
         "The latest requests, newest first: when, how long, how many tokens, what was slowest.\n"
         "\n"
         "  --since WHEN     only what runs or ended since: 30s, 5m, 1h, 2d ago, or an RFC 3339 "
         "time\n"
         "  --status STATUS  only ok, error, running or cancelled ones\n"
         "  --limit N        at most N that ended (20), newest first; what runs comes on top\n"},
	{"trace", cmd_trace, COMMON | BIT(OPT_CONTENT), true,
         "usage: sidelight trace ID|last [--content]\n"
         "\n"
         "What happened inside one request: its runs as a tree, with bars to scale.\n"
         "ID is a trace id, or at least 6 digits of its beginning.\n"
         "\n"
         "  --content        also what each run was given and what it answered\n"},
	{"dump", cmd_dump, COMMON | BIT(OPT_SINCE) | BIT(OPT_LIMIT) | BIT(OPT_SPANS), false,
         "usage: sidelight dump [--since 1h] [--spans] [--limit N]\n"
         "\n"
         "Observations, one for each request, as JSON Lines, oldest first.\n"
         "\n"
         "  --since WHEN     only what ended since: 30s, 5m, 1h, 2d ago, or an RFC 3339 time\n"
         "  --spans          every span instead\n"
         "  --limit N        the N newest observations, or the N oldest spans\n"},
	{"ps", cmd_ps, COMMON, false,
         "usage: sidelight ps\n"
         "\n"
         "What runs right now, oldest first.\n"},
	{"check", cmd_check, COMMON | BIT(OPT_CONFIG), false,
         "usage: sidelight check [--config FILE]\n"
         "\n"
         "Tries each exporter for real and says what to do where one fails; how far each is, what "
         "the\n"
         "store holds and what was ever lost. Exit code 1 if an exporter fails.\n"
         "\n"
         "  --config FILE    the configuration, where no collector runs ($SIDELIGHT_CONFIG)\n"},
};

/* Their arguments are not like the others'. */
static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} own_commands[] = {{"emit", cmd_emit}, {"run", cmd_run}};

#define OWN_COUNT (sizeof(own_commands) / sizeof(own_commands[0]))
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const char common_help[] =
	"\n"
	"  --socket PATH    the collector's socket ($SIDELIGHT_SOCKET)\n"
	"  --url URL        ask a collector over TCP instead ($SIDELIGHT_URL)\n"
	"  --data DIR       read this directory when no collector runs ($SIDELIGHT_DATA)\n"
	"  --json           the JSON that the API gives\n"
	"  --help, --version\n";

static const char help[] = "usage: sidelight COMMAND [options]\n"
			   "\n"
			   "Looks inside the agents that a Sidelight collector watches.\n"
			   "\n"
			   "  traces           the latest requests\n"
			   "  trace ID|last    one of them, as a tree with bars to scale\n"
			   "  ps               what runs right now\n"
			   "  dump             observations or spans as JSON Lines\n"
			   "  check            try the exporters; what is stored, sent and lost\n"
			   "  run -- COMMAND   run a command, and show what happened in it\n"
			   "  emit             tell from a script what it does\n"
			   "\n"
			   "sidelight COMMAND --help says more.\n";

/* What the command line says. */
struct args {
	struct source_options source;
	const char *since, *limit, *status;
	bool json, content, spans, help, version;
	unsigned given; // BIT of each
	const char *command, *id;
	int words; // of them and what is too many
};

static void take_option(struct args *a, int option)
{
	switch (option) {
	case OPT_SOCKET:
		a->source.socket = optarg;
		break;
	case OPT_URL:
		a->source.url = optarg;
		break;
	case OPT_DATA:
		a->source.data = optarg;
		break;
	case OPT_CONFIG:
		a->source.config = optarg;
		break;
	case OPT_SINCE:
		a->since = optarg;
		break;
	case OPT_LIMIT:
		a->limit = optarg;
		break;
	case OPT_STATUS:
		a->status = optarg;
		break;
	case OPT_JSON:
		a->json = true;
		break;
	case OPT_CONTENT:
		a->content = true;
		break;
	case OPT_SPANS:
		a->spans = true;
		break;
	case OPT_HELP:
		a->help = true;
		break;
	default:
		a->version = true;
	}
	a->given |= BIT(option);
}

/* --- finding the command --- */

/* Edit distance, of short words. */
static size_t distance(const char *a, const char *b)
{
	size_t row[32];
	size_t n = strlen(b);

	if (n >= sizeof(row) / sizeof(row[0]))
		return SIZE_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

static const struct command *find_command(const char *name)
{
	const char *nearest = NULL;
	size_t nearest_distance = 3;

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		size_t d = distance(name, commands[i].name);
		if (d == 0)
			return &commands[i];
		if (d < nearest_distance) {
			nearest_distance = d;
			nearest = commands[i].name;
		}
	}
	for (size_t i = 0; i < OWN_COUNT; i++) {
		size_t d = distance(name, own_commands[i].name);
		if (d == 0) {
			complain("say it first: sidelight %s ...", name);
			return NULL;
		}
		if (d < nearest_distance) {
			nearest_distance = d;
			nearest = own_commands[i].name;
		}
	}
	if (nearest)
		complain("there is no command %s: did you mean %s?", name, nearest);
	else
		complain("there is no command %s: sidelight --help lists them", name);
	return NULL;
}

static const char *option_name(unsigned bit)
{
	for (size_t i = 0; options[i].name; i++)
		if (BIT(options[i].val) == bit)
			return options[i].name;
	return "?";
}

/* --- what the arguments mean --- */

static bool take_since(struct cmd *c, const char *text)
{
	if (!text || api_since(str_of(text), clock_unix_ns(), &c->since_ns))
		return true;
	complain("--since %s: give 30s, 5m, 1h or 2d, or a time as 2026-11-24T01:02:03Z", text);
	return false;
}

static bool take_limit(struct cmd *c, const char *text)
{
	char *end = NULL;

	if (!text)
		return true;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (*text < '1' || *text > '9' || *end || errno || n > SIZE_MAX) {
		complain("--limit %s: give a number from 1 on", text);
		return false;
	}
	c->limit = (size_t)n;
	return true;
}

static bool take_status(struct cmd *c, const char *text)
{
	if (!text)
		return true;
	for (int i = 0; i < STATUS_COUNT; i++) {
		if (strcmp(text, status_word((enum run_status)i)) == 0) {
			c->statuses = 1u << i;
			return true;
		}
	}
	complain("--status %s: give ok, error, running or cancelled", text);
	return false;
}

#define ID_SIZE 33

/* "last", or hex digits; the dashes of a UUID may stay in. */
static bool take_id(struct cmd *c, const char *text, char id[ID_SIZE])
{
	size_t n = 0;

	if (!text) {
		complain("which trace? Give an id from sidelight traces, or last");
		return false;
	}
	c->id = id;
	if (strcmp(text, "last") == 0) {
		memcpy(id, "last", sizeof("last"));
		return true;
	}
	for (const char *p = text; *p && n < ID_SIZE; p++) {
		bool is_hex = strchr("0123456789abcdefABCDEF", *p) != NULL;
		if (!is_hex && *p != '-')
			n = ID_SIZE;
		else if (is_hex)
			id[n++] = *p;
	}
	if (n < 6 || n >= ID_SIZE) {
		complain("%s is no trace id: give 6 to 32 hex digits, or last", text);
		return false;
	}
	id[n] = '\0';
	return true;
}

static bool take_args(struct cmd *c, const struct args *a, const struct command *command,
                      char id[ID_SIZE])
{
	unsigned foreign = a->given & ~command->options;

	if (foreign) {
		complain("%s takes no --%s: see sidelight %s --help", command->name,
		         option_name(foreign & -foreign), command->name);
		return false;
	}
	if (a->words > (command->takes_id ? 2 : 1)) {
		complain("%s takes no further words: see sidelight %s --help", command->name,
		         command->name);
		return false;
	}
	c->limit = command->run == cmd_traces ? TRACES_DEFAULT : 0;
	c->json = a->json;
	c->content = a->content;
	c->spans = a->spans;
	return take_since(c, a->since) && take_limit(c, a->limit) && take_status(c, a->status) &&
	       (!command->takes_id || take_id(c, a->id, id));
}

/* --- running it --- */

int cmd_write(struct cmd *c)
{
	int err = term_write(&c->out);

	if (err == -EPIPE)
		c->has_seen_enough = true;
	else if (err < 0)
		complain("can't write the output: %s", err_str(err));
	return err < 0 && err != -EPIPE ? EXIT_FAILED : EXIT_OK;
}

int cmd_finish(struct cmd *c, int err)
{
	if (!err)
		return cmd_write(c);
	complain("%s", err_str(err));
	return EXIT_FAILED;
}

static int run(const struct args *a, const struct command *command, const struct term *term)
{
	struct cmd c = {.term = *term};
	char id[ID_SIZE];

	if (!take_args(&c, a, command, id))
		return EXIT_USAGE;
	if (source_open(&c.source, &a->source) < 0)
		return EXIT_FAILED;
	const char *files = source_files(c.source);
	if (files && !c.json && command->run != cmd_dump)
		complain("no collector is running; this is what %s holds", files);
	buf_init(&c.out, CAP_RESPONSE);
	int code = command->run(&c);
	buf_deinit(&c.out);
	source_close(c.source);
	return code;
}

static int print(const char *first, const char *second)
{
	struct cmd c = {0};

	buf_init(&c.out, CAP_RESPONSE);
	buf_append_str(&c.out, first);
	buf_append_str(&c.out, second);
	int code = cmd_write(&c);
	buf_deinit(&c.out);
	return code;
}

static bool read_args(struct args *a, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return false;
		take_option(a, option);
	}
	a->words = argc - optind;
	if (a->words > 0)
		a->command = argv[optind];
	if (a->words > 1)
		a->id = argv[optind + 1];
	return true;
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct term term;

	term_fill();
	term_detect(&term);
	for (size_t i = 0; argc > 1 && i < OWN_COUNT; i++)
		if (strcmp(argv[1], own_commands[i].name) == 0)
			return own_commands[i].run(argc - 1, argv + 1);
	(void)signal(SIGPIPE, SIG_IGN); // can only fail for signals that there are not
	if (!read_args(&args, argc, argv))
		return EXIT_USAGE;
	if (args.version)
		return print("sidelight " SIDELIGHT_VERSION "\n", "");
	if (!args.command && args.help)
		return print(help, common_help);
	if (!args.command) {
		complain("which command? sidelight --help lists them");
		return EXIT_USAGE;
	}
	const struct command *command = find_command(args.command);
	if (!command)
		return EXIT_USAGE;
	if (args.help)
		return print(command->help, common_help);
	return run(&args, command, &term);
}
