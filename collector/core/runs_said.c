#include <errno.h>
#include <stdlib.h>

#include "base/caps.h"
#include "core/runs_private.h"
#include "core/usage.h"

/* With what is put before it, a page is one page of LMDB's. */
enum { PAGE_BYTES = 3584 };

/* What a run's answer has said so far. Kept whole in memory, within max_said_bytes, since it grows
 * all the time; the store has it in pages, each a value like a run's with no span in it, so that a
 * little more text is a little more to write. */
struct said {
	struct list_node in_said; // runs.said, runs.said_dirty
	struct run_id run;
	struct buf text;
	uint64_t full; // bytes of text that came
	uint64_t tokens;
	size_t sealed;  // bytes of text that are in pages
	unsigned pages; // that the store has, or will have
	size_t takes;   // of runs.open_bytes
	size_t due;     // of runs.put_bytes
};

static unsigned page_of(size_t offset)
{
	return (unsigned)((offset ? offset - 1 : 0) / PAGE_BYTES);
}

/* Keys of one run's pages lie side by side, and are no run's id but by a chance of 1 in 2^96. */
struct run_id runs_said_key(const struct run_id *run, unsigned page)
{
	uint64_t a = id_hash64(3, run->b, sizeof(run->b)), b = id_hash64(4, run->b, sizeof(run->b));
	struct run_id key;

	memcpy(key.b, &a, 8);
	memcpy(key.b + 8, &b, 4);
	for (int i = 0; i < 4; i++)
		key.b[12 + i] = (uint8_t)(page >> (24 - 8 * i));
	return key;
}

/* --- what came --- */

static struct said *said_new(struct runs *r, struct run *run)
{
	struct said *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->run = run->id;
	buf_init(&s->text, r->o.max_value);
	list_append(&r->said, &s->in_said);
	run->said = s;
	return s;
}

static void account_for(struct runs *r, struct said *s)
{
	unsigned pages = page_of(s->text.len) + 1;

	r->open_bytes -= s->takes;
	r->said_bytes -= s->takes;
	s->takes = s->text.len + (size_t)pages * KEEP_OVERHEAD;
	r->open_bytes += s->takes;
	r->said_bytes += s->takes;
	r->put_bytes -= s->due;
	s->due = (size_t)(pages - page_of(s->sealed)) * (PAGE_BYTES + KEEP_OVERHEAD);
	r->put_bytes += s->due;
}

/* Once something is missing, nothing more is kept: the text must have no hole. */
static int add_text(struct runs *r, struct said *s, struct str text, int64_t at)
{
	size_t room = r->o.max_value - s->text.len;
	int rc = 0;

	if (at >= 0 && (uint64_t)at < s->full)
		return 0; // it came before
	if (at >= 0)
		s->full = (uint64_t)at;
	if (s->full == s->text.len) {
		size_t kept = utf8_cut(text.p, text.len, room);
		buf_append(&s->text, text.p, kept);
		rc = buf_error(&s->text);
		s->text.error = 0;
		r->encoder.cut += kept < text.len;
	}
	s->full += text.len;
	return rc;
}

static bool has_room(const struct runs *r, size_t more)
{
	const struct runs_options *o = &r->o;

	more += KEEP_OVERHEAD + PAGE_BYTES;
	return (!o->max_open_bytes || r->open_bytes + more <= o->max_open_bytes) &&
	       (!o->max_said_bytes || r->said_bytes + more <= o->max_said_bytes);
}

int said_add(struct runs *r, struct run *run, const struct event *partial)
{
	struct str text = r->o.content ? partial->text : (struct str){0};
	struct said *s = run->said;
	int rc = 0;

	if (!s)
		s = said_new(r, run);
	if (!s)
		return -ENOMEM;
	if (!has_room(r, text.len)) {
		s->full += text.len;
		return -ENOSPC;
	}
	if (text.len)
		rc = add_text(r, s, text, partial->at);
	if ((uint64_t)partial->tokens > s->tokens)
		s->tokens = (uint64_t)partial->tokens;
	list_remove(&s->in_said);
	list_append(&r->said_dirty, &s->in_said);
	account_for(r, s);
	return rc;
}

static void said_free(struct runs *r, struct said *s)
{
	r->open_bytes -= s->takes;
	r->said_bytes -= s->takes;
	r->put_bytes -= s->due;
	list_remove(&s->in_said);
	buf_deinit(&s->text);
	free(s);
}

void said_drop(struct runs *r, struct run *run)
{
	struct said *s = run->said;

	if (!s)
		return;
	for (unsigned page = 0; page < s->pages; page++) {
		struct run_id key = runs_said_key(&s->run, page);
		r->o.sink.delete_open(r->o.sink.ctx, &key);
	}
	said_free(r, s);
	run->said = NULL;
}

void said_deinit(struct runs *r)
{
	list_move_all(&r->said, &r->said_dirty);
	while (!list_is_empty(&r->said))
		said_free(r, list_first(&r->said, struct said, in_said));
	buf_deinit(&r->told);
}

/* --- what becomes of it --- */

/* A plain text: of a model, it is its one message. */
static void append_output(struct buf *out, const struct buf *text)
{
	const uint32_t len = (uint32_t)text->len;
	const uint8_t head[] = {0xdb, (uint8_t)(len >> 24), (uint8_t)(len >> 16),
	                        (uint8_t)(len >> 8), (uint8_t)len};

	buf_append(out, head, sizeof(head));
	buf_append(out, text->data, text->len);
}

static void append_usage(struct buf *out, uint64_t tokens)
{
	static const char head[] = "\x82\xb3sidelight.estimated\xc3\xadoutput_tokens\xcf";

	buf_append(out, head, sizeof(head) - 1);
	for (int i = 56; i >= 0; i -= 8)
		buf_append_byte(out, (uint8_t)(tokens >> i));
}

static bool tells_all(const struct event *end)
{
	struct usage usage;

	if (!end || end->output.p)
		return end != NULL;
	usage_init(&usage);
	usage_read(&usage, end->usage);
	return usage_is_known(&usage);
}

const struct event *said_complete(struct runs *r, const struct run *run, const struct event *end,
                                  struct event *ret)
{
	const struct said *s = run->said;
	bool output = s && s->text.len, usage = s && s->tokens;

	if ((!output && !usage) || tells_all(end))
		return end;
	buf_clear(&r->told);
	if (output)
		append_output(&r->told, &s->text);
	size_t at = r->told.len;
	if (usage)
		append_usage(&r->told, s->tokens);
	if (buf_error(&r->told))
		return end;
	*ret = end ? *end : (struct event){.type = EVENT_END, .run = run->id};
	if (output)
		ret->output = (struct str){(char *)r->told.data, at};
	if (usage)
		ret->usage = (struct str){(char *)r->told.data + at, r->told.len - at};
	ret->is_partial = output;
	return ret;
}

uint64_t said_cut(const struct run *run)
{
	uint64_t full = run->said->full < INT64_MAX ? run->said->full : INT64_MAX;

	return full > run->said->text.len ? full : 0;
}

/* --- to the store and back --- */

static int put_page(struct runs *r, const struct said *s, unsigned page)
{
	struct run_id key = runs_said_key(&s->run, page);
	size_t at = (size_t)page * PAGE_BYTES, left = s->text.len - at;
	struct said_page p = {
		.run = s->run,
		.number = page,
		.tokens = s->tokens,
		.full = s->full,
		.text = {(char *)s->text.data + at, left < PAGE_BYTES ? left : PAGE_BYTES},
	};

	return keep_put_page(r, &key, &p);
}

static int put_pages(struct runs *r, struct said *s)
{
	unsigned last = page_of(s->text.len);

	for (unsigned page = page_of(s->sealed); page <= last; page++) {
		int rc = put_page(r, s, page);
		if (rc < 0)
			return rc;
		s->pages = page + 1 > s->pages ? page + 1 : s->pages;
	}
	s->sealed = s->text.len;
	return 0;
}

int said_seal(struct runs *r)
{
	struct list_node todo;
	int rc = 0;

	list_init(&todo);
	list_move_all(&todo, &r->said_dirty);
	while (!list_is_empty(&todo)) {
		struct said *s = list_first(&todo, struct said, in_said);
		int put = put_pages(r, s);
		list_remove(&s->in_said);
		list_append(put == 0 ? &r->said : &r->said_dirty, &s->in_said);
		s->due = put == 0 ? 0 : s->due;
		rc = put < 0 ? put : rc;
	}
	return rc;
}

size_t said_due(const struct runs *r)
{
	size_t due = 0;

	for (const struct list_node *n = r->said_dirty.next; n != &r->said_dirty; n = n->next)
		due += container_of(n, struct said, in_said)->due;
	return due;
}

int said_restore(struct runs *r, const struct run_id *key, const struct said_page *p)
{
	struct run *run = table_find(r, &p->run);
	struct said *s = run ? run->said : NULL;
	struct run_id want = runs_said_key(&p->run, p->number);

	if (!run || run->state != RUN_OPEN || memcmp(&want, key, sizeof(want)) != 0)
		return ERR_CORRUPT;
	if (!s)
		s = said_new(r, run);
	if (!s)
		return -ENOMEM;
	s->pages = p->number + 1 > s->pages ? p->number + 1 : s->pages;
	s->full = p->full > s->full ? p->full : s->full;
	s->tokens = p->tokens > s->tokens ? p->tokens : s->tokens;
	if (s->text.len == (size_t)p->number * PAGE_BYTES)
		buf_append(&s->text, p->text.p,
		           utf8_cut(p->text.p, p->text.len, r->o.max_value - s->text.len));
	s->text.error = 0;
	s->sealed = s->text.len;
	account_for(r, s);
	r->put_bytes -= s->due;
	s->due = 0;
	return 0;
}
