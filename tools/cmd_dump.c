#include "cmd.h"

#include <errno.h>
#include <stdlib.h>

#include "base/caps.h"
#include "page.h"

/* Records with their prompts are large: this many of them stay far below CAP_RESPONSE. */
#define PAGE_LIMIT 200u

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static int get_page(struct cmd *c, const struct request *r, struct buf *answer, page_item_fn *fn,
                    void *ctx, uint64_t *ret_next)
{
	const char *key = r->endpoint == ENDPOINT_SPANS ? "spans" : "observations";
	int err = source_get(c->source, r, answer);

	if (err < 0)
		return err;
	err = page_each((struct str){(const char *)answer->data, answer->len}, key, fn, ctx,
	                ret_next);
	if (err < 0)
		complain("the answer is not the JSON it should be");
	return err;
}

/* --- spans come in the order that we want --- */

struct lines {
	struct buf *out;
	size_t count, limit; // limit 0: all
};

static bool add_line(void *ctx, struct str item)
{
	struct lines *l = ctx;

	buf_append(l->out, item.p, item.len);
	buf_append_byte(l->out, '\n');
	return ++l->count != l->limit;
}

static int dump_spans(struct cmd *c, struct buf *answer, size_t *ret_count)
{
	struct request r = {.endpoint = ENDPOINT_SPANS, .since_ns = c->since_ns};
	struct lines l = {.out = &c->out, .limit = c->limit};
	int code;

	do {
		size_t missing = c->limit ? c->limit - l.count : PAGE_LIMIT;
		r.limit = (unsigned)least(missing, PAGE_LIMIT);
		if (get_page(c, &r, answer, add_line, &l, &r.cursor) < 0)
			return EXIT_FAILED;
		code = cmd_write(c);
	} while (code == EXIT_OK && !c->has_seen_enough && r.cursor > 0 && l.count != c->limit);
	*ret_count = l.count;
	return code;
}

/* --- observations come newest first: note where the pages begin, then go back over them --- */

struct places {
	struct place {
		uint64_t cursor;
		unsigned limit;
	} * at;
	size_t count, room;
};

static int add_place(struct places *p, uint64_t cursor, unsigned limit)
{
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 64;
		struct place *at = realloc(p->at, room * sizeof(*at));
		if (!at)
			return -ENOMEM;
		p->at = at;
		p->room = room;
	}
	p->at[p->count++] = (struct place){cursor, limit};
	return 0;
}

static bool count_item(void *ctx, struct str item)
{
	size_t *n = ctx;

	++*n;
	return true;
}

/* The newest page stays in first, since by the second time newer ones have come before it. */
static int find_places(struct cmd *c, struct places *p, struct buf *first, struct buf *answer,
                       size_t *ret_count)
{
	struct request r = {.endpoint = ENDPOINT_OBSERVATIONS, .since_ns = c->since_ns};
	size_t count = 0;

	do {
		size_t missing = c->limit ? c->limit - count : PAGE_LIMIT;
		r.limit = (unsigned)least(missing, PAGE_LIMIT);
		if (add_place(p, r.cursor, r.limit) < 0) {
			complain("out of memory");
			return -ENOMEM;
		}
		int err = get_page(c, &r, p->count == 1 ? first : answer, count_item, &count,
		                   &r.cursor);
		if (err < 0)
			return err;
	} while (r.cursor > 0 && (c->limit == 0 || count < c->limit));
	*ret_count = count;
	return 0;
}

struct slices {
	struct str at[PAGE_LIMIT];
	size_t count;
};

static bool add_slice(void *ctx, struct str item)
{
	struct slices *s = ctx;

	if (s->count == PAGE_LIMIT)
		return false;
	s->at[s->count++] = item;
	return true;
}

static int write_backwards(struct cmd *c, const struct slices *s)
{
	for (size_t i = s->count; i-- > 0;) {
		buf_append(&c->out, s->at[i].p, s->at[i].len);
		buf_append_byte(&c->out, '\n');
	}
	return cmd_write(c);
}

static int write_places(struct cmd *c, const struct places *p, struct buf *first,
                        struct buf *answer)
{
	struct request r = {.endpoint = ENDPOINT_OBSERVATIONS, .since_ns = c->since_ns};
	struct slices s;
	uint64_t next;
	int code = EXIT_OK;

	for (size_t i = p->count; i-- > 1 && code == EXIT_OK && !c->has_seen_enough;) {
		s.count = 0;
		r.cursor = p->at[i].cursor;
		r.limit = p->at[i].limit;
		if (get_page(c, &r, answer, add_slice, &s, &next) < 0)
			return EXIT_FAILED;
		code = write_backwards(c, &s);
	}
	if (code != EXIT_OK || c->has_seen_enough)
		return code;
	s.count = 0;
	struct str doc = {(const char *)first->data, first->len};
	if (page_each(doc, "observations", add_slice, &s, &next) < 0)
		return EXIT_FAILED;
	return write_backwards(c, &s);
}

static int dump_observations(struct cmd *c, struct buf *answer, size_t *ret_count)
{
	struct places places = {0};
	struct buf first;
	int code = EXIT_FAILED;

	buf_init(&first, CAP_RESPONSE);
	if (find_places(c, &places, &first, answer, ret_count) == 0)
		code = write_places(c, &places, &first, answer);
	buf_deinit(&first);
	free(places.at);
	return code;
}

int cmd_dump(struct cmd *c)
{
	size_t count = 0;
	struct buf answer;

	buf_init(&answer, CAP_RESPONSE);
	int code =
		c->spans ? dump_spans(c, &answer, &count) : dump_observations(c, &answer, &count);
	buf_deinit(&answer);
	if (code != EXIT_OK || count > 0)
		return code;
	complain(c->since_ns ? "nothing has ended since" : "nothing has ended yet");
	return EXIT_NOTHING;
}
