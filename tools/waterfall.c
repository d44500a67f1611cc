#include "waterfall.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "text.h"
#include "tree.h"

enum {
	DURATION_WIDTH = 7,
	BAR_MIN = 12,
	LABEL_MIN = 14,
	REMARK_MAX = 40,
	GAP = 2,
	INDENT = 3,       // columns of one level
	ERROR_MAX = 1000, // bytes of an error's message; the JSON has all of it
};

struct layout {
	const struct term *term;
	const struct waterfall_span *spans;
	struct tree tree;
	size_t label, bar, remark; // widths in columns
	unsigned levels;           // of indentation, at most
	uint64_t from_ns, to_ns;
	size_t slowest; // the leaf that took longest; TREE_NONE: there is only one span
};

static uint64_t duration_ns(const struct waterfall_span *s)
{
	return s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0;
}

static const char *kind_colour(struct str kind)
{
	switch (kind_of(kind)) {
	case KIND_LLM:
	case KIND_EMBEDDING:
		return "36";
	case KIND_TOOL:
	case KIND_RETRIEVER:
		return "34";
	default:
		return "2";
	}
}

static const char *colour_of(const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];

	if (s->status == STATUS_ERROR)
		return "31";
	if (i == l->slowest)
		return "1;33";
	return kind_colour(s->kind);
}

/* --- the label: branches, kind, name --- */

/* Columns before the label of a node at this depth. */
static size_t indent(const struct layout *l, unsigned depth)
{
	return INDENT * (size_t)(depth > l->levels ? l->levels : depth);
}

struct branches {
	const char *pass, *tee, *corner, *none, *clipped;
};

static const struct branches *branches(const struct term *t)
{
	static const struct branches drawn = {"│  ", "├─ ", "└─ ", "   ", "…  "};
	static const struct branches ascii = {"|  ", "|- ", "`- ", "   ", ".. "};

	return t->utf8 ? &drawn : &ascii;
}

static size_t ancestor_at(const struct layout *l, size_t i, unsigned depth)
{
	while (l->tree.nodes[i].depth > depth)
		i = l->tree.nodes[i].parent;
	return i;
}

/* The lines that pass by on the levels above depth, clipped to the innermost ones. */
static void put_passing(struct buf *out, const struct layout *l, size_t i, unsigned depth)
{
	const struct branches *b = branches(l->term);
	unsigned own = l->tree.nodes[i].depth;
	unsigned from = own > l->levels ? own - l->levels + 1 : 1;

	for (unsigned d = from; d < depth; d++) {
		bool last = tree_is_last(&l->tree, ancestor_at(l, i, d));
		if (d == from && from > 1)
			buf_append_str(out, b->clipped);
		else
			buf_append_str(out, last ? b->none : b->pass);
	}
}

static void put_branch(struct buf *out, const struct layout *l, size_t i)
{
	const struct branches *b = branches(l->term);
	unsigned depth = l->tree.nodes[i].depth;

	if (depth == 0)
		return;
	text_colour(out, l->term, "2");
	put_passing(out, l, i, depth);
	buf_append_str(out, tree_is_last(&l->tree, i) ? b->corner : b->tee);
	text_plain(out, l->term);
}

/* What says the kind is left out where it would say nothing. */
static struct str kind_shown(const struct waterfall_span *s)
{
	return kind_of(s->kind) == KIND_OTHER ? STR("") : s->kind;
}

static struct str name_shown(const struct waterfall_span *s)
{
	if (kind_of(s->kind) == KIND_LLM && s->model.len > 0)
		return s->model;
	return text_bare_name(s->kind, s->name);
}

static size_t label_columns(const struct layout *l, size_t i)
{
	struct str kind = kind_shown(&l->spans[i]);

	return indent(l, l->tree.nodes[i].depth) + (kind.len > 0 ? kind.len + 1 : 0) +
	       text_columns(l->term, name_shown(&l->spans[i]));
}

static void put_label(struct buf *out, const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];
	struct str kind = kind_shown(s);
	size_t room = l->label - indent(l, l->tree.nodes[i].depth);

	put_branch(out, l, i);
	if (kind.len > 0) {
		text_colour(out, l->term, kind_colour(s->kind));
		room -= text_put(out, l->term, kind, room);
		text_plain(out, l->term);
	}
	if (kind.len > 0 && room > 0) {
		buf_append_byte(out, ' ');
		room--;
	}
	bool stands_out = s->status == STATUS_ERROR || i == l->slowest;
	if (stands_out)
		text_colour(out, l->term, colour_of(l, i));
	text_put_left(out, l->term, name_shown(s), room);
	if (stands_out)
		text_plain(out, l->term);
}

/* --- the bar --- */

/* A cell that is covered from eighth lo to eighth hi. Blocks grow from the left in eighths; from
 * the right Unicode has a half and an eighth. */
static const char *solid_cell(unsigned lo, unsigned hi)
{
	static const char *const left[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};

	if (lo == 0)
		return left[hi];
	if (hi < 8 && lo < 4)
		return left[hi - lo];
	if (lo <= 1)
		return left[8];
	return lo <= 6 && hi - lo > 1 ? "▐" : "▕";
}

static const char *cell(const struct term *t, enum run_status status, unsigned lo, unsigned hi)
{
	switch (status) {
	case STATUS_RUNNING:
		return t->utf8 ? "▒" : "~";
	case STATUS_CANCELLED:
		return t->utf8 ? "░" : "-";
	case STATUS_ERROR:
		return t->utf8 ? solid_cell(lo, hi) : "x";
	default:
		return t->utf8 ? solid_cell(lo, hi) : "#";
	}
}

/* Where a time lies on the bar's scale, in eighths of a column. */
static uint64_t eighth_at(const struct layout *l, uint64_t ns)
{
	double span = (double)(l->to_ns - l->from_ns);
	double at = (double)(ns - l->from_ns);
	double eighths = (double)(l->bar * 8);

	return l->to_ns > l->from_ns ? (uint64_t)(at / span * eighths + 0.5) : 0;
}

/* Cells that can't be split are drawn when half covered; the first one of a very short bar always.
 */
static bool is_drawn(const struct layout *l, enum run_status status, unsigned covered, bool is_only)
{
	bool splits = l->term->utf8 && (status == STATUS_OK || status == STATUS_ERROR);

	return covered >= 4 || is_only || (splits && covered > 0);
}

/* Returns the columns taken: what would be blank to the right is left out. */
static size_t put_bar(struct buf *out, const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];
	uint64_t total = l->bar * 8;
	uint64_t from = eighth_at(l, s->start_ns);
	uint64_t to = eighth_at(l, s->start_ns + duration_ns(s));
	uint64_t at;

	// However short, it is to be seen.
	if (from >= total)
		from = total - 1;
	if (to <= from)
		to = from + 1;
	text_blanks(out, from / 8);
	text_colour(out, l->term, colour_of(l, i));
	for (at = from / 8 * 8; at < to; at += 8) {
		unsigned lo = from > at ? (unsigned)(from - at) : 0;
		unsigned hi = to - at < 8 ? (unsigned)(to - at) : 8;
		bool is_only = at <= from && to - from < 8;
		bool drawn = is_drawn(l, s->status, hi - lo, is_only);
		if (!drawn && to <= at + 8)
			break;
		buf_append_str(out, drawn ? cell(l->term, s->status, lo, hi) : " ");
	}
	text_plain(out, l->term);
	return at / 8;
}

/* --- the remark: how it stands, tokens, the slowest --- */

#define REMARK_SIZE 160

static void remark_text(char out[REMARK_SIZE], const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];
	char tokens[TOKENS_SIZE], age[DURATION_SIZE];
	const char *slowest = l->term->utf8 ? "◀ slowest" : "< slowest";

	text_tokens(tokens, l->term, s->tokens_in, s->tokens_out);
	text_duration(age, l->term, duration_ns(s));
	if (i != l->slowest)
		slowest = "";
	if (s->status == STATUS_RUNNING)
		snprintf(out, REMARK_SIZE, "running %s  %s", age, tokens);
	else if (s->status == STATUS_OK)
		snprintf(out, REMARK_SIZE, "%s%s%s", tokens, *tokens && *slowest ? "  " : "",
		         slowest);
	else
		snprintf(out, REMARK_SIZE, "%s  %s%s%s", status_word(s->status), tokens,
		         *tokens && *slowest ? "  " : "", slowest);
	size_t len = strlen(out);
	while (len > 0 && out[len - 1] == ' ')
		out[--len] = '\0';
}

static void put_remark(struct buf *out, const struct layout *l, size_t i, size_t bar_columns)
{
	char remark[REMARK_SIZE];
	bool is_plain = l->spans[i].status == STATUS_OK && i != l->slowest;

	remark_text(remark, l, i);
	if (!remark[0])
		return;
	text_blanks(out, l->bar - bar_columns + GAP);
	text_colour(out, l->term, is_plain ? "2" : colour_of(l, i));
	text_put(out, l->term, str_of(remark), l->remark);
	text_plain(out, l->term);
}

/* --- what stands beneath a span --- */

static void put_margin(struct buf *out, const struct layout *l, size_t i)
{
	const struct branches *b = branches(l->term);
	unsigned depth = l->tree.nodes[i].depth;

	text_colour(out, l->term, "2");
	if (depth > 0) {
		put_passing(out, l, i, depth);
		buf_append_str(out, tree_is_last(&l->tree, i) ? b->none : b->pass);
	}
	buf_append_str(out, tree_is_leaf(&l->tree, i) ? b->none : b->pass);
	text_plain(out, l->term);
}

/* Appends one text as lines that begin with the branches passing by. colour NULL: the usual one. */
static void put_lines(struct buf *out, const struct layout *l, size_t i, struct str text,
                      const char *colour)
{
	size_t taken = indent(l, l->tree.nodes[i].depth) + INDENT;
	size_t room = l->term->width > taken + LABEL_MIN ? l->term->width - taken : LABEL_MIN;

	while (text.len > 0) {
		size_t n = text_line(l->term, text, room);
		struct str line = {text.p, n};
		while (line.len > 0 &&
		       (line.p[line.len - 1] == ' ' || line.p[line.len - 1] == '\n'))
			line.len--;
		put_margin(out, l, i);
		if (colour)
			text_colour(out, l->term, colour);
		text_put(out, l->term, line, room);
		if (colour)
			text_plain(out, l->term);
		buf_append_byte(out, '\n');
		text.p += n;
		text.len -= n;
	}
}

static void put_error(struct buf *out, const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];
	size_t shown = utf8_cut(s->error_message.p, s->error_message.len, ERROR_MAX);
	struct buf text;

	buf_init(&text, s->error_type.len + shown + sizeof(":  ..."));
	buf_append(&text, s->error_type.p, s->error_type.len);
	if (s->error_type.len > 0 && s->error_message.len > 0)
		buf_append(&text, ": ", 2);
	buf_append(&text, s->error_message.p, shown);
	if (shown < s->error_message.len)
		buf_append_str(&text, " ...");
	put_lines(out, l, i, (struct str){(const char *)text.data, text.len},
	          s->status == STATUS_ERROR ? "31" : "2");
	if (buf_error(&text) && !buf_error(out))
		out->error = buf_error(&text);
	buf_deinit(&text);
}

/* --- all of it --- */

static void find_range(struct layout *l)
{
	const struct waterfall_span *spans = l->spans;

	l->from_ns = spans[0].start_ns;
	l->to_ns = spans[0].start_ns;
	for (size_t i = 0; i < l->tree.count; i++) {
		uint64_t end = spans[i].start_ns + duration_ns(&spans[i]);
		if (spans[i].start_ns < l->from_ns)
			l->from_ns = spans[i].start_ns;
		if (end > l->to_ns)
			l->to_ns = end;
	}
}

static void find_slowest(struct layout *l)
{
	uint64_t longest = 0;

	l->slowest = TREE_NONE;
	for (size_t i = 0; l->tree.count > 1 && i < l->tree.count; i++) {
		if (!tree_is_leaf(&l->tree, i) || duration_ns(&l->spans[i]) <= longest)
			continue;
		longest = duration_ns(&l->spans[i]);
		l->slowest = i;
	}
}

static size_t widest(const struct layout *l, size_t (*columns)(const struct layout *, size_t))
{
	size_t width = 0;

	for (size_t i = 0; i < l->tree.count; i++) {
		size_t n = columns(l, i);
		if (n > width)
			width = n;
	}
	return width;
}

static size_t remark_columns(const struct layout *l, size_t i)
{
	char remark[REMARK_SIZE];

	remark_text(remark, l, i);
	return text_columns(l->term, str_of(remark));
}

static size_t clamp(size_t n, size_t min, size_t max)
{
	return n < min ? min : n > max ? max : n;
}

/* Labels and bars share what durations and remarks leave; labels get up to a half. */
static void share_out(struct layout *l)
{
	size_t width = l->term->width;

	l->remark = clamp(widest(l, remark_columns), 0,
	                  width / 3 < REMARK_MAX ? width / 3 : REMARK_MAX);
	size_t fixed = DURATION_WIDTH + 2 * GAP + (l->remark > 0 ? l->remark + GAP : 0);
	size_t rest = width > fixed + LABEL_MIN + BAR_MIN ? width - fixed : LABEL_MIN + BAR_MIN;
	size_t most = rest / 2 > rest - BAR_MIN ? rest - BAR_MIN : rest / 2;
	if (most < LABEL_MIN)
		most = LABEL_MIN;
	l->levels = (unsigned)((most - LABEL_MIN / 2) / INDENT / 2 + 1);
	l->label = clamp(widest(l, label_columns), LABEL_MIN, most);
	l->bar = rest - l->label;
}

static void put_span(struct buf *out, const struct layout *l, size_t i)
{
	const struct waterfall_span *s = &l->spans[i];
	char duration[DURATION_SIZE] = "";

	put_label(out, l, i);
	text_blanks(out, GAP);
	if (s->status != STATUS_RUNNING)
		text_duration(duration, l->term, duration_ns(s));
	text_put_right(out, l->term, str_of(duration), DURATION_WIDTH);
	text_blanks(out, GAP);
	size_t bar_columns = put_bar(out, l, i);
	put_remark(out, l, i, bar_columns);
	buf_append_byte(out, '\n');
	put_error(out, l, i);
	put_lines(out, l, i, s->notes, NULL);
}

int waterfall(struct buf *out, const struct term *t, const struct waterfall_span *spans, size_t n)
{
	struct layout l = {.term = t, .spans = spans};

	if (n == 0)
		return 0;
	if (tree_init(&l.tree, spans, n) < 0)
		return -ENOMEM;
	find_range(&l);
	find_slowest(&l);
	share_out(&l);
	for (size_t i = 0; i < n; i++)
		put_span(out, &l, l.tree.order[i]);
	tree_deinit(&l.tree);
	return 0;
}
