#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/caps.h"
#include "base/clock.h"
#include "doc.h"
#include "page.h"

#define PAGE_LIMIT 1000u

/* What the pages bring, until there is enough of it. */
struct list {
	const struct cmd *c;
	struct buf json; // the items, as they came
	json_t **items;  // the same, read
	size_t count, room;
	size_t finished; // of them: the limit is theirs, what runs comes on top
	int error;
};

static bool keep(struct list *l, json_t *run)
{
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		json_t **items = realloc(l->items, room * sizeof(json_t *));
		if (!items)
			return false;
		l->items = items;
		l->room = room;
	}
	l->items[l->count++] = run;
	return true;
}

static bool add_item(void *ctx, struct str item)
{
	struct list *l = ctx;
	json_t *run = json_loadb(item.p, item.len, JSON_ALLOW_NUL, NULL);

	if (!run) {
		l->error = ERR_FORMAT;
		return false;
	}
	if (l->count > 0)
		buf_append_byte(&l->json, ',');
	buf_append(&l->json, item.p, item.len);
	if (!keep(l, run)) {
		json_decref(run);
		l->error = -ENOMEM;
		return false;
	}
	l->finished += doc_status(run) != STATUS_RUNNING;
	return true;
}

static int gather(struct cmd *c, struct list *l, uint64_t *ret_next)
{
	struct request r = {
		.endpoint = ENDPOINT_TRACES, .since_ns = c->since_ns, .statuses = c->statuses};
	struct buf answer;
	int err = 0;

	buf_init(&answer, CAP_RESPONSE);
	do {
		size_t missing = c->limit - l->finished;
		r.limit = missing < PAGE_LIMIT ? (unsigned)missing : PAGE_LIMIT;
		err = source_get(c->source, &r, &answer);
		if (err < 0)
			break;
		struct str doc = {(const char *)answer.data, answer.len};
		err = page_each(doc, "traces", add_item, l, &r.cursor);
		if (err < 0 || l->error < 0) {
			err = l->error ? l->error : err;
			complain("the answer is not the JSON it should be: %s", err_str(err));
		}
	} while (!err && r.cursor > 0 && l->finished < c->limit);
	buf_deinit(&answer);
	*ret_next = r.cursor;
	return err;
}

static int render(struct cmd *c, const struct list *l)
{
	struct trace_row *rows = calloc(l->count + 1, sizeof(*rows));

	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < l->count; i++)
		rows[i] = doc_trace_row(l->items[i]);
	int err = table(&c->out, &c->term, rows, l->count, clock_unix_ns());
	free(rows);
	return err;
}

static void write_json(struct cmd *c, const struct list *l, uint64_t next)
{
	buf_append_str(&c->out, "{\"traces\":[");
	buf_append(&c->out, l->json.data, l->json.len);
	// After a filter the last page may hold more than was shown: there is no place to go on
	// from.
	if (next > 0 && !c->statuses)
		buf_printf(&c->out, "],\"next\":%" PRIu64 "}\n", next);
	else
		buf_append_str(&c->out, "],\"next\":null}\n");
}

static int show(struct cmd *c, const struct list *l, uint64_t next)
{
	int err = buf_error(&l->json);

	if (!err && c->json)
		write_json(c, l, next);
	else if (!err && l->count > 0)
		err = render(c, l);
	int code = cmd_finish(c, err);
	if (code == EXIT_OK && l->count == 0) {
		complain(c->since_ns || c->statuses ? "no such traces" : "there are no traces yet");
		return EXIT_NOTHING;
	}
	return code;
}

int cmd_traces(struct cmd *c)
{
	struct list l = {.c = c};
	uint64_t next;
	int code = EXIT_FAILED;

	buf_init(&l.json, CAP_RESPONSE);
	if (gather(c, &l, &next) == 0)
		code = show(c, &l, next);
	for (size_t i = 0; i < l.count; i++)
		json_decref(l.items[i]);
	free(l.items);
	buf_deinit(&l.json);
	return code;
}
