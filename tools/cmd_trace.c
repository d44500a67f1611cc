#include "cmd.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/caps.h"
#include "base/clock.h"
#include "content.h"
#include "doc.h"
#include "text.h"

#define FIELD_MAX 40u // columns of one of a header's fields

/* --- the lines above the tree --- */

static void put_field(struct cmd *c, const char *label, struct str value)
{
	if (value.len == 0)
		return;
	buf_append_str(&c->out, "   ");
	if (*label) {
		text_colour(&c->out, &c->term, "2");
		buf_append_str(&c->out, label);
		text_plain(&c->out, &c->term);
		buf_append_byte(&c->out, ' ');
	}
	text_put(&c->out, &c->term, value, FIELD_MAX);
}

static void put_status(struct cmd *c, const struct trace_row *row)
{
	char duration[DURATION_SIZE];
	const char *colour = row->status == STATUS_OK      ? "32"
	                     : row->status == STATUS_ERROR ? "31"
	                                                   : "33";

	buf_append_str(&c->out, "   ");
	text_colour(&c->out, &c->term, colour);
	buf_append_str(&c->out, status_word(row->status));
	text_plain(&c->out, &c->term);
	text_duration(duration, &c->term, row->duration_ns);
	put_field(c, "", str_of(duration));
}

/* A trace that has no observation yet sums up its calls itself. */
static void sum_tokens(struct trace_row *row, const struct waterfall_span *spans, size_t n)
{
	bool is_known = row->tokens_in >= 0 || row->tokens_out >= 0;

	for (size_t i = 0; !is_known && i < n; i++) {
		if (spans[i].tokens_in >= 0)
			row->tokens_in =
				spans[i].tokens_in + (row->tokens_in > 0 ? row->tokens_in : 0);
		if (spans[i].tokens_out >= 0)
			row->tokens_out =
				spans[i].tokens_out + (row->tokens_out > 0 ? row->tokens_out : 0);
	}
}

static void put_header(struct cmd *c, const json_t *trace, const struct waterfall_span *spans,
                       size_t n)
{
	struct trace_row row = doc_trace_row(trace);
	char tokens[TOKENS_SIZE], cost[COST_SIZE], start[TIME_TEXT_SIZE];

	sum_tokens(&row, spans, n);
	text_tokens(tokens, &c->term, row.tokens_in, row.tokens_out);
	doc_cost(cost, trace);
	time_text(start, row.start_ns);
	memcpy(start + strlen("2026-11-24T01:02:03.123"), "Z", sizeof("Z"));

	text_colour(&c->out, &c->term, "1");
	text_put(&c->out, &c->term, row.name, FIELD_MAX);
	text_plain(&c->out, &c->term);
	put_status(c, &row);
	put_field(c, "tokens", str_of(tokens));
	put_field(c, "", str_of(cost));
	put_field(c, "model", row.model);
	buf_append_str(&c->out, "\ntrace ");
	text_put(&c->out, &c->term, row.id, c->term.width);
	put_field(c, "start", str_of(start));
	buf_append_byte(&c->out, '\n');
	size_t before = c->out.len;
	put_field(c, "service", doc_str(trace, "service"));
	put_field(c, "session", doc_str(trace, "session_id"));
	put_field(c, "user", doc_str(trace, "user_id"));
	put_field(c, "prompt", doc_str(trace, "prompt_key"));
	if (c->out.len > before && !buf_error(&c->out)) {
		// The first field stands at the edge.
		memmove(c->out.data + before, c->out.data + before + 3, c->out.len - before - 3);
		c->out.len -= 3;
		buf_append_byte(&c->out, '\n');
	}
	buf_append_byte(&c->out, '\n');
}

/* --- the tree --- */

/* Reads list into spans and their notes; a note's text lives in its own buffer. */
static int read_spans(const struct cmd *c, const json_t *list, struct waterfall_span *spans,
                      struct buf *notes)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *span = json_array_get(list, i);
		spans[i] = doc_span(span);
		buf_init(&notes[i], CAP_RESPONSE);
		if (c->content)
			content_text(&notes[i], span);
		if (buf_error(&notes[i]))
			return buf_error(&notes[i]);
		spans[i].notes = (struct str){(const char *)notes[i].data, notes[i].len};
	}
	return 0;
}

static int render(struct cmd *c, const json_t *doc)
{
	const json_t *list = json_object_get(doc, "spans");
	size_t n = json_array_size(list);
	struct waterfall_span *spans = calloc(n + 1, sizeof(*spans));
	struct buf *notes = calloc(n + 1, sizeof(*notes));
	int err = -ENOMEM;

	if (spans && notes)
		err = read_spans(c, list, spans, notes);
	if (!err) {
		put_header(c, json_object_get(doc, "trace"), spans, n);
		err = waterfall(&c->out, &c->term, spans, n);
	}
	for (size_t i = 0; notes && i < n; i++)
		buf_deinit(&notes[i]);
	free(notes);
	free(spans);
	return err;
}

static int show(struct cmd *c, const struct buf *answer)
{
	json_error_t where;
	json_t *doc = json_loadb((const char *)answer->data, answer->len, JSON_ALLOW_NUL, &where);

	if (!doc) {
		complain("the answer is not the JSON it should be: %s", where.text);
		return EXIT_FAILED;
	}
	int err = render(c, doc);
	json_decref(doc);
	return cmd_finish(c, err);
}

static int explain(const struct cmd *c, int err)
{
	if (err == -ENOENT && strcmp(c->id, "last") == 0)
		complain("there are no traces yet");
	else if (err == -ENOENT)
		complain("there is no trace %s: sidelight traces lists those there are", c->id);
	else if (err == -EEXIST)
		complain("more than one trace begins with %s: give more digits", c->id);
	return err == -ENOENT ? EXIT_NOTHING : EXIT_FAILED;
}

int cmd_trace(struct cmd *c)
{
	const struct request r = {.endpoint = ENDPOINT_TRACE, .id = c->id};
	struct buf answer;
	int code;

	buf_init(&answer, CAP_RESPONSE);
	int err = source_get(c->source, &r, &answer);
	if (err < 0) {
		code = explain(c, err);
	} else if (c->json) {
		buf_append(&c->out, answer.data, answer.len);
		if (answer.len > 0 && answer.data[answer.len - 1] != '\n')
			buf_append_byte(&c->out, '\n');
		code = cmd_finish(c, 0);
	} else {
		code = show(c, &answer);
	}
	buf_deinit(&answer);
	return code;
}
