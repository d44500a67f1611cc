#include "cmd.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/caps.h"
#include "base/clock.h"
#include "doc.h"
#include "page.h"
#include "text.h"

enum { TRACES_MAX = 1000, GAP = 2, NAME_MAX_COLUMNS = 40, ID_DIGITS = 16 };
enum column { AGE, KIND, NAME, MODEL, TRACE, SERVICE, COLUMNS };

static const char *const headings[COLUMNS] = {"AGE", "KIND", "NAME", "MODEL", "TRACE", "SERVICE"};

/* One that runs. Its text is its JSON's. */
struct row {
	json_t *json;
	struct waterfall_span span;
	struct str trace, service;
	char age[DURATION_SIZE];
};

struct ps {
	struct cmd *c;
	struct buf json; // the rows, as they came
	json_t **traces; // the running ones
	struct row *rows;
	size_t trace_count, count, room;
	int error;
};

/* --- what runs --- */

static bool add_trace(void *ctx, struct str item)
{
	struct ps *p = ctx;
	json_t *trace = json_loadb(item.p, item.len, JSON_ALLOW_NUL, NULL);

	if (!trace)
		p->error = ERR_FORMAT;
	else if (p->trace_count < TRACES_MAX)
		p->traces[p->trace_count++] = trace;
	return trace != NULL;
}

static struct row *new_row(struct ps *p)
{
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 64;
		struct row *rows = realloc(p->rows, room * sizeof(*rows));
		if (!rows)
			return NULL;
		p->rows = rows;
		p->room = room;
	}
	return &p->rows[p->count++];
}

static bool add_span(void *ctx, struct str item)
{
	struct ps *p = ctx;
	json_t *span = json_loadb(item.p, item.len, JSON_ALLOW_NUL, NULL);

	if (!span) {
		p->error = ERR_FORMAT;
		return false;
	}
	if (doc_status(span) != STATUS_RUNNING) {
		json_decref(span);
		return true;
	}
	struct row *row = new_row(p);
	if (!row) {
		json_decref(span);
		p->error = -ENOMEM;
		return false;
	}
	if (p->count > 1)
		buf_append_byte(&p->json, ',');
	buf_append(&p->json, item.p, item.len);
	*row = (struct row){.json = span,
	                    .span = doc_span(span),
	                    .trace = doc_str(span, "trace_id"),
	                    .service = doc_str(span, "service")};
	return true;
}

/* Asks, and hands out the list's items. */
static int each(struct ps *p, const struct request *r, const char *list, page_item_fn *fn)
{
	struct buf answer;
	uint64_t next;

	buf_init(&answer, CAP_RESPONSE);
	int err = source_get(p->c->source, r, &answer);
	if (err == 0) {
		err = page_each((struct str){(const char *)answer.data, answer.len}, list, fn, p,
		                &next);
		err = p->error ? p->error : err;
		if (err < 0)
			complain("the answer is not the JSON it should be: %s", err_str(err));
	}
	buf_deinit(&answer);
	return err;
}

static int gather(struct ps *p)
{
	const struct request running = {
		.endpoint = ENDPOINT_TRACES, .statuses = 1u << STATUS_RUNNING, .limit = TRACES_MAX};

	p->traces = calloc(TRACES_MAX, sizeof(*p->traces));
	int err = p->traces ? each(p, &running, "traces", add_trace) : -ENOMEM;
	for (size_t i = 0; err == 0 && i < p->trace_count; i++) {
		struct request one = {
			.endpoint = ENDPOINT_TRACE,
			.id = json_string_value(json_object_get(p->traces[i], "trace_id"))};
		err = one.id ? each(p, &one, "spans", add_span) : ERR_FORMAT;
		err = err == -ENOENT ? 0 : err; // gone since
	}
	return err;
}

static int by_start(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return (x->span.start_ns > y->span.start_ns) - (x->span.start_ns < y->span.start_ns);
}

/* --- as a table --- */

static struct str cell(const struct row *r, enum column column)
{
	switch (column) {
	case AGE:
		return str_of(r->age);
	case KIND:
		return r->span.kind;
	case NAME:
		return text_bare_name(r->span.kind, r->span.name);
	case MODEL:
		return r->span.model;
	case TRACE:
		return (struct str){r->trace.p,
		                    r->trace.len < ID_DIGITS ? r->trace.len : ID_DIGITS};
	default:
		return r->service;
	}
}

/* r NULL: the headings. */
static void put_row(struct cmd *c, const struct row *r, const size_t widths[COLUMNS])
{
	size_t blanks = 0;

	for (enum column i = 0; i < COLUMNS; i++) {
		struct str s = r ? cell(r, i) : str_of(headings[i]);
		size_t taken = text_columns(&c->term, s);
		taken = taken < widths[i] ? taken : widths[i];
		if (taken > 0) {
			text_blanks(&c->out, blanks + (i == AGE ? widths[i] - taken : 0));
			text_put(&c->out, &c->term, s, widths[i]);
			blanks = GAP + (i == AGE ? 0 : widths[i] - taken);
		} else {
			blanks += widths[i] + GAP; // held back, so that none end a line
		}
	}
	buf_append_byte(&c->out, '\n');
}

static void render(struct ps *p)
{
	uint64_t now_ns = clock_unix_ns();
	size_t widths[COLUMNS];

	for (enum column i = 0; i < COLUMNS; i++)
		widths[i] = strlen(headings[i]);
	for (size_t n = 0; n < p->count; n++) {
		struct row *r = &p->rows[n];
		uint64_t start_ns = r->span.start_ns;
		text_duration(r->age, &p->c->term, now_ns > start_ns ? now_ns - start_ns : 0);
		for (enum column i = 0; i < COLUMNS; i++) {
			size_t columns = text_columns(&p->c->term, cell(r, i));
			columns = columns < NAME_MAX_COLUMNS ? columns : NAME_MAX_COLUMNS;
			widths[i] = columns > widths[i] ? columns : widths[i];
		}
	}
	put_row(p->c, NULL, widths);
	for (size_t n = 0; n < p->count; n++)
		put_row(p->c, &p->rows[n], widths);
}

static int show(struct ps *p)
{
	int err = buf_error(&p->json);

	if (!err && p->c->json) {
		buf_append_str(&p->c->out, "{\"spans\":[");
		buf_append(&p->c->out, p->json.data, p->json.len);
		buf_append_str(&p->c->out, "]}\n");
	} else if (!err && p->count > 0) {
		qsort(p->rows, p->count, sizeof(*p->rows), by_start);
		render(p);
	}
	if (p->trace_count == TRACES_MAX)
		complain("only the newest %d requests are looked at", TRACES_MAX);
	int code = cmd_finish(p->c, err);
	if (code == EXIT_OK && p->count == 0) {
		complain("nothing runs");
		return EXIT_NOTHING;
	}
	return code;
}

int cmd_ps(struct cmd *c)
{
	struct ps p = {.c = c};

	buf_init(&p.json, CAP_RESPONSE);
	int code = gather(&p) == 0 ? show(&p) : EXIT_FAILED;
	for (size_t i = 0; i < p.count; i++)
		json_decref(p.rows[i].json);
	for (size_t i = 0; i < p.trace_count; i++)
		json_decref(p.traces[i]);
	free(p.rows);
	free(p.traces);
	buf_deinit(&p.json);
	return code;
}
