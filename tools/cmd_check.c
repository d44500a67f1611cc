#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>

#include "base/caps.h"
#include "base/clock.h"
#include "doc.h"
#include "text.h"

enum { POLL_MS = 100, LABEL_WIDTH = 9 };

#define PATIENCE_NS (120 * NS_PER_S) // for all exporters together

/* --- asking --- */

static json_t *get_once(struct cmd *c, struct buf *answer)
{
	struct request r = {.endpoint = ENDPOINT_CHECK, .limit = 1};

	if (source_get(c->source, &r, answer) < 0)
		return NULL;
	json_t *doc = json_loadb((const char *)answer->data, answer->len, 0, NULL);
	if (!doc)
		complain("the answer is not the JSON it should be");
	return doc;
}

/* A collector tries its exporters while we ask again and again. */
static json_t *get(struct cmd *c, struct buf *answer)
{
	uint64_t until = clock_mono_ns() + PATIENCE_NS;
	json_t *doc = get_once(c, answer);

	while (doc && json_is_true(json_object_get(doc, "running")) && clock_mono_ns() < until) {
		json_decref(doc);
		(void)poll(NULL, 0, POLL_MS); // cannot fail in a way that matters
		doc = get_once(c, answer);
	}
	return doc;
}

/* --- showing --- */

static void put(struct cmd *c, struct str s)
{
	text_put(&c->out, &c->term, s, SIZE_MAX);
}

static void label(struct cmd *c, const char *word)
{
	text_put_left(&c->out, &c->term, str_of(word), LABEL_WIDTH);
}

static void put_verdict(struct cmd *c, bool ok)
{
	text_colour(&c->out, &c->term, ok ? "32" : "31;1");
	buf_append_str(&c->out, ok ? "ok" : "FAILED");
	text_plain(&c->out, &c->term);
}

static void show_stage(struct cmd *c, const json_t *stage)
{
	bool ok = json_is_true(json_object_get(stage, "ok"));
	struct str hint = doc_str(stage, "hint");

	text_blanks(&c->out, 4);
	text_put_left(&c->out, &c->term, doc_str(stage, "stage"), 9);
	put_verdict(c, ok);
	buf_append_str(&c->out, "  ");
	put(c, doc_str(stage, "message"));
	if (ok)
		buf_printf(&c->out, " (%.1f ms)",
		           json_number_value(json_object_get(stage, "took_ms")));
	buf_append_byte(&c->out, '\n');
	if (hint.len == 0)
		return;
	text_blanks(&c->out, 13);
	buf_append_str(&c->out, "-> ");
	put(c, hint);
	buf_append_byte(&c->out, '\n');
}

static void show_try(struct cmd *c, const json_t *t)
{
	const json_t *stages = json_object_get(t, "stages");

	text_blanks(&c->out, 2);
	text_put_left(&c->out, &c->term, doc_str(t, "signal"), LABEL_WIDTH);
	put(c, doc_str(t, "address"));
	buf_append_byte(&c->out, '\n');
	for (size_t i = 0; i < json_array_size(stages); i++)
		show_stage(c, json_array_get(stages, i));
}

static void show_exporter(struct cmd *c, const json_t *exporter)
{
	const json_t *tries = json_object_get(exporter, "tries");

	label(c, "exporter");
	put(c, doc_str(exporter, "name"));
	buf_append_str(&c->out, " (");
	put(c, doc_str(exporter, "type"));
	buf_append_str(&c->out, ")\n");
	for (size_t i = 0; i < json_array_size(tries); i++)
		show_try(c, json_array_get(tries, i));
}

static void show_count(struct cmd *c, const json_t *object, const char *key)
{
	int64_t n = doc_int(object, key);

	if (n > 0)
		buf_printf(&c->out, ", %" PRId64 " %s", n, key);
}

static void show_reasons(struct cmd *c, const json_t *counts, const char *before)
{
	const char *separator = before;
	const char *reason;
	const json_t *n;

	for (void *at = json_object_iter((json_t *)(uintptr_t)counts); at;
	     at = json_object_iter_next((json_t *)(uintptr_t)counts, at)) {
		reason = json_object_iter_key(at);
		n = json_object_iter_value(at);
		buf_append_str(&c->out, separator);
		put(c, str_of(reason));
		buf_printf(&c->out, " %" PRId64, (int64_t)json_integer_value(n));
		separator = ", ";
	}
}

static void show_cursor(struct cmd *c, const json_t *cursor)
{
	struct str since = doc_str(cursor, "since");
	const json_t *reasons = json_object_get(cursor, "rejected_by");

	label(c, "progress");
	put(c, doc_str(cursor, "name"));
	buf_printf(&c->out, ": %" PRId64 " delivered, %" PRId64 " to go",
	           doc_int(cursor, "delivered"), doc_int(cursor, "pending"));
	show_count(c, cursor, "rejected");
	if (json_object_size(reasons) > 0) {
		show_reasons(c, reasons, " (");
		buf_append_byte(&c->out, ')');
	}
	show_count(c, cursor, "evicted");
	show_count(c, cursor, "refused");
	if (since.len >= sizeof("2026-11-24T01:02:03") - 1) {
		buf_append_str(&c->out, ", since ");
		put(c, (struct str){since.p, 10});
		buf_append_byte(&c->out, ' ');
		put(c, (struct str){since.p + 11, 8});
	}
	buf_append_byte(&c->out, '\n');
}

static const char *plural(int64_t n)
{
	return n == 1 ? "" : "s";
}

static void show_store(struct cmd *c, const json_t *store)
{
	int64_t limit = doc_int(store, "limit_bytes");
	int64_t spans = doc_int(store, "spans"), requests = doc_int(store, "observations");
	struct str held_back = doc_str(store, "held_back");

	label(c, "store");
	buf_printf(&c->out, "%.1f MiB", (double)doc_int(store, "bytes") / MIB);
	if (limit > 0)
		buf_printf(&c->out, " of %.0f MiB", (double)limit / MIB);
	buf_printf(&c->out, ", %" PRId64 " span%s, %" PRId64 " request%s\n", spans, plural(spans),
	           requests, plural(requests));
	if (held_back.len == 0)
		return;
	text_blanks(&c->out, LABEL_WIDTH);
	put_verdict(c, false);
	buf_append_str(&c->out, "  ");
	put(c, held_back);
	buf_append_byte(&c->out, '\n');
}

static void show_lost(struct cmd *c, const json_t *lost)
{
	label(c, "lost");
	if (json_object_size(lost) == 0)
		buf_append_str(&c->out, "nothing, since this store was made");
	show_reasons(c, lost, "");
	buf_append_byte(&c->out, '\n');
}

static void show(struct cmd *c, const json_t *doc)
{
	const json_t *exporters = json_object_get(doc, "exporters");
	const json_t *cursors = json_object_get(doc, "cursors");

	for (size_t i = 0; i < json_array_size(exporters); i++)
		show_exporter(c, json_array_get(exporters, i));
	if (json_array_size(exporters) == 0)
		buf_append_str(&c->out, "exporter none is configured\n");
	for (size_t i = 0; i < json_array_size(cursors); i++)
		show_cursor(c, json_array_get(cursors, i));
	show_store(c, json_object_get(doc, "store"));
	show_lost(c, json_object_get(doc, "lost"));
}

static bool all_work(const json_t *doc)
{
	const json_t *exporters = json_object_get(doc, "exporters");

	if (doc_str(json_object_get(doc, "store"), "held_back").len > 0)
		return false;
	for (size_t i = 0; i < json_array_size(exporters); i++) {
		const json_t *tries = json_object_get(json_array_get(exporters, i), "tries");
		for (size_t k = 0; k < json_array_size(tries); k++)
			if (!json_is_true(json_object_get(json_array_get(tries, k), "ok")))
				return false;
	}
	return true;
}

int cmd_check(struct cmd *c)
{
	struct buf answer;

	buf_init(&answer, CAP_RESPONSE);
	json_t *doc = get(c, &answer);
	int code = EXIT_FAILED;
	if (doc && c->json)
		buf_append(&c->out, answer.data, answer.len);
	if (doc && !c->json)
		show(c, doc);
	if (doc)
		code = cmd_finish(c, buf_error(&c->out));
	if (doc && code == EXIT_OK && !all_work(doc))
		code = EXIT_FAILED;
	json_decref(doc);
	buf_deinit(&answer);
	return code;
}
