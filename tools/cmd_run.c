#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "auto.h"
#include "base/caps.h"
#include "base/clock.h"
#include "child.h"
#include "cmd.h"
#include "config.h"
#include "core/id.h"
#include "doc.h"
#include "private.h"
#include "sidelight.h"
#include "text.h"

enum {
	EXIT_CANNOT_RUN = 126, // env(1)'s codes
	EXIT_NOT_FOUND = 127,
	HEARD_MS = 300, // for the root to be known before what is beneath it: the command waits
	ACK_MS = 2000,
	SETTLE_MS = 3000, // for what the command left open to be judged
	NAP_MS = 20,
	READ_MS = 50, // longer than the collector rests between two reads
};

static const char help[] =
	"usage: sidelight run [--name N] [--auto] [--each] [--quiet] [--] COMMAND...\n"
	"\n"
	"Runs a command, and shows afterwards what happened in it: all that it and what it starts\n"
	"report is one trace. Without a collector it starts one for the command.\n"
	"\n"
	"  --name N         the run's name; else the command's\n"
	"  --auto           Python processes call sidelight.install() by themselves\n"
	"  --each           for a server: each of its requests is a trace of its own\n"
	"  --quiet          print nothing\n"
	"  --socket PATH    the collector's socket ($SIDELIGHT_SOCKET)\n"
	"  --help\n"
	"\n"
	"The exit code, or the signal, is the command's; 127: not found, 126: can't be executed.\n";

struct run {
	const char *name, *socket_flag;
	bool is_auto, each, quiet;
	bool is_deaf; // the collector, who was waited for long enough
	char **argv;
	char *socket; // the collector's; NULL: none
	struct private_dir dir;
	struct private_collector collector;
	struct child child;
	struct sidelight *sl;
	struct sidelight_run root;
	char trace_id[33];
	uint64_t begin_unix_ns, begin_mono_ns, end_unix_ns, end_mono_ns;
};

/* --- the command line --- */

enum { OPT_NAME = 256, OPT_AUTO, OPT_EACH, OPT_QUIET, OPT_SOCKET, OPT_HELP };

static const struct option options[] = {
	{"name", required_argument, NULL, OPT_NAME},
	{"auto", no_argument, NULL, OPT_AUTO},
	{"each", no_argument, NULL, OPT_EACH},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

/* An exit code, or -1 to go on. */
static int read_options(struct run *r, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (option) {
		case OPT_NAME:
			r->name = optarg;
			break;
		case OPT_AUTO:
			r->is_auto = true;
			break;
		case OPT_EACH:
			r->each = true;
			break;
		case OPT_QUIET:
			r->quiet = true;
			break;
		case OPT_SOCKET:
			r->socket_flag = optarg;
			break;
		case OPT_HELP:
			return fputs(help, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_OK
			                                                       : EXIT_FAILED;
		default:
			return EXIT_USAGE;
		}
	}
	r->argv = argv + optind;
	if (*r->argv)
		return -1;
	complain("run what? sidelight run -- COMMAND...");
	return EXIT_USAGE;
}

/* --- before --- */

/* A child may go elsewhere. */
static char *absolute(char *path)
{
	char *dir, *whole = NULL;

	if (!path || *path == '/')
		return path;
	dir = getcwd(NULL, 0);
	if (dir && asprintf(&whole, "%s/%s", dir, path) < 0)
		whole = NULL;
	free(dir);
	free(path);
	return whole;
}

static void start_private(struct run *r)
{
	if (r->dir.path[0] == '\0') {
		if (!r->quiet)
			complain("no directory for a collector: the command runs untraced");
		return;
	}
	int err = private_start(&r->collector, &r->dir, &r->child.before);
	if (err < 0 && !r->quiet)
		complain("no collector could be started, the command runs untraced: %s",
		         r->collector.why);
	else if (r->collector.is_lost && !r->quiet)
		complain("the usual place can't be used, so this is not kept: %s",
		         r->collector.why);
	if (err == 0)
		r->socket = strdup(r->collector.socket);
}

static void find_collector(struct run *r)
{
	r->socket = absolute(config_client_socket(r->socket_flag));
	bool is_there = r->socket && private_reach(r->socket) == 0;

	if ((!is_there || r->is_auto) && private_dir_make(&r->dir) < 0)
		r->dir.path[0] = '\0';
	if (is_there)
		return;
	free(r->socket);
	r->socket = NULL;
	start_private(r);
}

static char *command_line(char *const *argv)
{
	struct buf line;

	buf_init(&line, MIB);
	for (; *argv; argv++) {
		if (line.len > 0)
			buf_append_byte(&line, ' ');
		buf_append_str(&line, *argv);
	}
	buf_append_byte(&line, '\0');
	if (!buf_error(&line))
		return (char *)line.data;
	buf_deinit(&line);
	return NULL;
}

/* What the command is given to say that its runs are ours. */
static void set_traceparent(struct run *r, const char *above)
{
	uint8_t trace_id[16], parent[8], flags;
	struct run_id id;
	char span_hex[17] = {0}, text[64];

	memcpy(id.b, r->root.id, sizeof(id.b));
	if (!above || !traceparent_parse(str_of(above), trace_id, parent, &flags))
		memcpy(trace_id, id.b, sizeof(trace_id));
	span_id_of(parent, &id);
	hex_write(r->trace_id, trace_id, sizeof(trace_id));
	hex_write(span_hex, parent, sizeof(parent));
	snprintf(text, sizeof(text), "00-%s-%s-01", r->trace_id, span_hex);
	(void)setenv("TRACEPARENT", text, 1); // without memory it is not there
}

/* What the command says at once must find its root: so that is told, and heard, before. */
static void open_root(struct run *r)
{
	const char *above = getenv("TRACEPARENT");
	char *line = command_line(r->argv);

	r->begin_unix_ns = clock_unix_ns();
	r->begin_mono_ns = clock_mono_ns();
	struct sidelight_start_fields root = {.kind = "agent",
	                                      .name = r->name,
	                                      .traceparent = above,
	                                      .gather = true,
	                                      .input = line,
	                                      .unix_ns = r->begin_unix_ns,
	                                      .mono_ns = r->begin_mono_ns};

	(void)sidelight_start(r->sl, &r->root, &root);
	free(line);
	set_traceparent(r, above);
	(void)sidelight_flush(r->sl, HEARD_MS);
}

static void set_up(struct run *r)
{
	const char *service = getenv("OTEL_SERVICE_NAME");

	find_collector(r);
	if (r->is_auto && (r->dir.path[0] == '\0' || auto_set_up(r->dir.path) < 0) && !r->quiet)
		complain("--auto could not be set up");
	if (!r->socket)
		return;
	struct sidelight_options o = {.socket = r->socket,
	                              .service = service && *service ? service : r->name};
	r->sl = sidelight_open(&o);
	(void)setenv("SIDELIGHT_SOCKET", r->socket, 1);
	if (r->sl && !r->each)
		open_root(r);
}

/* --- afterwards --- */

static void end_root(struct run *r, const char *type, const char *message,
                     const struct sidelight_attr *attr)
{
	struct sidelight_end_fields end = {.error_type = type,
	                                   .error_message = message,
	                                   .attrs = attr,
	                                   .attr_count = attr ? 1 : 0,
	                                   .unix_ns = r->end_unix_ns,
	                                   .mono_ns = r->end_mono_ns};

	if (!r->each)
		(void)sidelight_end(r->sl, &r->root, &end);
	(void)sidelight_flush(r->sl, r->is_deaf ? 0 : ACK_MS);
}

static void tell_end(struct run *r)
{
	int status = r->child.status;
	char message[64] = "";
	struct sidelight_attr attr;

	(void)sidelight_exited(r->sl, r->child.pid, status);
	if (WIFSIGNALED(status)) {
		const char *name = sigabbrev_np(WTERMSIG(status));
		snprintf(message, sizeof(message), "killed by signal %d (SIG%s)", WTERMSIG(status),
		         name ? name : "?");
		attr = sidelight_int("process.exit.signal", WTERMSIG(status));
		end_root(r, "process_killed", message, &attr);
		return;
	}
	int code = WEXITSTATUS(status);
	attr = sidelight_int("process.exit.code", code);
	snprintf(message, sizeof(message), "exit code %d", code);
	end_root(r, code ? "process_exited" : NULL, code ? message : NULL, &attr);
}

/* --- the report --- */

struct bill {
	int64_t llm_calls, tool_calls, tokens_in, tokens_out;
	char cost[COST_SIZE];
	bool runs; // something that is ours does
};

static struct bill add_up(const json_t *spans, uint64_t begin_ns)
{
	struct bill b = {.tokens_in = -1, .tokens_out = -1};

	for (size_t i = 0; i < json_array_size(spans); i++) {
		struct waterfall_span s = doc_span(json_array_get(spans, i));
		bool is_llm = str_is(s.kind, "llm");
		b.runs |= s.status == STATUS_RUNNING && s.start_ns >= begin_ns;
		b.llm_calls += is_llm;
		b.tool_calls += str_is(s.kind, "tool");
		if (is_llm && s.tokens_in >= 0)
			b.tokens_in = s.tokens_in + (b.tokens_in > 0 ? b.tokens_in : 0);
		if (is_llm && s.tokens_out >= 0)
			b.tokens_out = s.tokens_out + (b.tokens_out > 0 ? b.tokens_out : 0);
	}
	return b;
}

/* The request's own sums know which calls are two views of one. */
static void correct(struct bill *b, const json_t *trace)
{
	struct trace_row row = doc_trace_row(trace);

	if (doc_int(trace, "llm_calls") < 0)
		return;
	b->llm_calls = doc_int(trace, "llm_calls");
	b->tool_calls = doc_int(trace, "tool_call_count");
	b->tokens_in = row.tokens_in;
	b->tokens_out = row.tokens_out;
	doc_cost(b->cost, trace);
}

static int get_bill(struct cmd *c, uint64_t begin_ns, struct bill *ret)
{
	const struct request request = {.endpoint = ENDPOINT_TRACE, .id = c->id};
	struct buf answer;

	buf_init(&answer, CAP_RESPONSE);
	int err = source_get(c->source, &request, &answer);
	json_t *doc =
		err < 0 ? NULL
			: json_loadb((const char *)answer.data, answer.len, JSON_ALLOW_NUL, NULL);
	if (doc) {
		*ret = add_up(json_object_get(doc, "spans"), begin_ns);
		correct(ret, json_object_get(doc, "trace"));
	}
	json_decref(doc);
	buf_deinit(&answer);
	return err;
}

/* What the command left open is judged by how it ended, which takes a moment. */
static int settle(struct cmd *c, uint64_t begin_ns, struct bill *ret)
{
	uint64_t deadline_ns = clock_mono_ns() + SETTLE_MS * NS_PER_MS;

	for (;;) {
		int err = get_bill(c, begin_ns, ret);
		if (err < 0 || !ret->runs || clock_mono_ns() > deadline_ns)
			return err;
		(void)poll(NULL, 0, NAP_MS);
	}
}

static void put_bill(struct cmd *c, const struct bill *b, uint64_t took_ns)
{
	char tokens[TOKENS_SIZE], duration[DURATION_SIZE];

	text_tokens(tokens, &c->term, b->tokens_in, b->tokens_out);
	text_duration(duration, &c->term, took_ns);
	buf_printf(&c->out, "\n%" PRId64 " LLM call%s   %" PRId64 " tool call%s   %s%s%s",
	           b->llm_calls, b->llm_calls == 1 ? "" : "s", b->tool_calls,
	           b->tool_calls == 1 ? "" : "s", *tokens ? "tokens " : "", tokens,
	           *tokens ? "   " : "");
	text_put(&c->out, &c->term, str_of(b->cost), COST_SIZE);
	buf_printf(&c->out, "%s%s\n", *b->cost ? "   " : "", duration);
}

/* On stderr: stdout is the command's. */
static void report(const struct run *r)
{
	struct source_options from = {.socket = r->socket};
	struct cmd c = {.id = r->trace_id};
	struct bill bill = {0};

	if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return;
	term_detect(&c.term);
	if (source_open(&c.source, &from) < 0)
		return;
	buf_init(&c.out, CAP_RESPONSE);
	if (settle(&c, r->begin_unix_ns, &bill) == 0 && cmd_trace(&c) == EXIT_OK) {
		put_bill(&c, &bill, r->end_mono_ns - r->begin_mono_ns);
		(void)cmd_write(&c);
	}
	buf_deinit(&c.out);
	source_close(c.source);
}

/* --- all of it --- */

static int refuse(struct run *r, int err)
{
	bool is_absent = err == -ENOENT || err == -ENOTDIR;

	complain("%s: %s", r->argv[0], strerror(-err));
	r->end_unix_ns = r->end_mono_ns = 0;
	if (r->sl)
		end_root(r, "exec_failed", strerror(-err), NULL);
	return is_absent ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

static void accompany(struct run *r)
{
	if (r->sl)
		(void)sidelight_watch(r->sl, r->child.pid);
	child_wait(&r->child);
	r->end_unix_ns = clock_unix_ns();
	r->end_mono_ns = clock_mono_ns();
	if (!r->sl)
		return;
	// Its root is to end after all else: what was said until now is read by the time that we
	// hear that what we say next has been.
	(void)poll(NULL, 0, READ_MS);
	r->is_deaf = sidelight_flush(r->sl, ACK_MS) < 0;
	tell_end(r);
	if (r->quiet || r->each)
		return;
	if (r->is_deaf)
		complain("the collector does not answer: nothing to show");
	else
		report(r);
}

int cmd_run(int argc, char **argv)
{
	struct run r = {0};

	int code = read_options(&r, argc, argv);
	if (code >= 0)
		return code;
	if (!r.name)
		r.name = basename(r.argv[0]);
	child_hold_signals(&r.child.before);
	r.child.helper = &r.collector.pid;
	set_up(&r);
	int err = child_start(&r.child, r.argv);
	if (err < 0)
		code = refuse(&r, err);
	else
		accompany(&r);
	sidelight_close(r.sl);
	private_stop(&r.collector);
	private_dir_remove(&r.dir);
	free(r.socket);
	return err < 0 ? code : child_end_as(&r.child);
}
