#include "table.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "text.h"

enum column { TIME, TRACE, NAME, MODEL, STATUS, DURATION, TOKENS, SLOWEST, TOOK, COLUMNS };

enum {
	GAP = 2,
	FLEX_MIN = 8, // columns that a cut name keeps
	ID_MIN = 8,
	TIME_SIZE = 24,
};

static const struct {
	const char *heading;
	bool is_flexible, is_right;
} columns[COLUMNS] = {
	[TIME] = {"TIME", false, true},      [TRACE] = {"TRACE", false, false},
	[NAME] = {"NAME", true, false},      [MODEL] = {"MODEL", true, false},
	[STATUS] = {"STATUS", false, false}, [DURATION] = {"TOOK", false, true},
	[TOKENS] = {"TOKENS", false, true},  [SLOWEST] = {"SLOWEST", true, false},
	[TOOK] = {"", false, true},
};

struct cells {
	struct str of[COLUMNS];
	char time[TIME_SIZE], duration[DURATION_SIZE], tokens[TOKENS_SIZE], took[DURATION_SIZE];
};

static void local_time(char out[TIME_SIZE], uint64_t unix_ns, uint64_t now_ns)
{
	time_t at = (time_t)(unix_ns / NS_PER_S), now = (time_t)(now_ns / NS_PER_S);
	struct tm tm, today;

	out[0] = '\0';
	if (unix_ns == 0 || !localtime_r(&at, &tm) || !localtime_r(&now, &today))
		return;
	bool is_today = tm.tm_year == today.tm_year && tm.tm_yday == today.tm_yday;
	if (strftime(out, TIME_SIZE, is_today ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm) == 0)
		out[0] = '\0'; // a year of five digits
}

static size_t shared_prefix(struct str a, struct str b)
{
	size_t n = 0;

	while (n < a.len && n < b.len && a.p[n] == b.p[n])
		n++;
	return n;
}

static int compare_ids(const void *a, const void *b)
{
	const struct str *x = a, *y = b;
	size_t n = x->len < y->len ? x->len : y->len;

	return n ? memcmp(x->p, y->p, n) : 0;
}

/* Ids that begin with a time, as UUIDv7, need more digits to be told apart. */
static int id_width(const struct trace_row *rows, size_t n, size_t *ret)
{
	struct str *ids = calloc(n ? n : 1, sizeof(*ids));
	size_t width = ID_MIN;

	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		ids[i] = rows[i].id;
	qsort(ids, n, sizeof(*ids), compare_ids);
	for (size_t i = 1; i < n; i++) {
		size_t shared = shared_prefix(ids[i - 1], ids[i]);
		if (shared < ids[i].len && shared + 1 > width)
			width = shared + 1;
	}
	free(ids);
	*ret = width;
	return 0;
}

static void fill(struct cells *c, const struct term *t, const struct trace_row *r,
                 size_t id_columns, uint64_t now_ns)
{
	local_time(c->time, r->start_ns, now_ns);
	text_duration(c->duration, t, r->duration_ns);
	text_tokens(c->tokens, t, r->tokens_in, r->tokens_out);
	c->took[0] = '\0';
	if (r->slowest.p)
		text_duration(c->took, t, r->slowest_ns);
	c->of[TIME] = str_of(c->time);
	c->of[TRACE] = (struct str){r->id.p, r->id.len < id_columns ? r->id.len : id_columns};
	c->of[NAME] = r->name;
	c->of[MODEL] = r->model;
	c->of[STATUS] = str_of(status_word(r->status));
	c->of[DURATION] = str_of(c->duration);
	c->of[TOKENS] = str_of(c->tokens);
	c->of[SLOWEST] = r->slowest;
	c->of[TOOK] = str_of(c->took);
}

static size_t total(const size_t widths[COLUMNS])
{
	size_t sum = 0;

	for (int i = 0; i < COLUMNS; i++)
		sum += widths[i] > 0 ? widths[i] + GAP : 0;
	return sum > 0 ? sum - GAP : 0;
}

/* The widest flexible column gives one, again and again. */
static void narrow(size_t widths[COLUMNS], size_t room)
{
	while (total(widths) > room) {
		int widest = -1;
		for (int i = 0; i < COLUMNS; i++)
			if (columns[i].is_flexible && widths[i] > FLEX_MIN &&
			    (widest < 0 || widths[i] > widths[widest]))
				widest = i;
		if (widest < 0)
			break;
		widths[widest]--;
	}
}

static void fit(size_t widths[COLUMNS], size_t room)
{
	static const struct {
		enum column first, last;
	} dispensable[] = {{MODEL, MODEL}, {TOKENS, TOKENS}, {SLOWEST, TOOK}};
	size_t natural[COLUMNS];

	memcpy(natural, widths, sizeof(natural));
	narrow(widths, room);
	for (size_t i = 0; i < sizeof(dispensable) / sizeof(dispensable[0]); i++) {
		if (total(widths) <= room)
			return;
		for (enum column c = dispensable[i].first; c <= dispensable[i].last; c++)
			natural[c] = 0;
		memcpy(widths, natural, sizeof(natural));
		narrow(widths, room);
	}
}

static const char *status_colour(enum run_status status)
{
	switch (status) {
	case STATUS_ERROR:
		return "31";
	case STATUS_RUNNING:
		return "36";
	case STATUS_CANCELLED:
		return "33";
	default:
		return "32";
	}
}

static void put_row(struct buf *out, const struct term *t, const struct cells *c,
                    const size_t widths[COLUMNS], const char *colour)
{
	size_t blanks = 0;

	for (int i = 0; i < COLUMNS; i++) {
		const char *own = i == STATUS ? colour : i == TIME || i == TRACE ? "2" : NULL;
		if (widths[i] == 0)
			continue;
		size_t taken = text_columns(t, c->of[i]);
		taken = taken < widths[i] ? taken : widths[i];
		size_t rest = widths[i] - taken;
		// Blanks are held back, so that none end a line.
		if (taken > 0) {
			text_blanks(out, blanks + (columns[i].is_right ? rest : 0));
			if (own)
				text_colour(out, t, own);
			taken = text_put(out, t, c->of[i], widths[i]);
			if (own)
				text_plain(out, t);
			blanks = columns[i].is_right ? GAP : widths[i] - taken + GAP;
		} else {
			blanks += widths[i] + GAP;
		}
	}
	buf_append_byte(out, '\n');
}

int table(struct buf *out, const struct term *t, const struct trace_row *rows, size_t n,
          uint64_t now_ns)
{
	struct cells *cells = calloc(n + 1, sizeof(*cells));
	size_t widths[COLUMNS] = {0}, id_columns = 0;

	if (!cells || id_width(rows, n, &id_columns) < 0) {
		free(cells);
		return -ENOMEM;
	}
	for (int c = 0; c < COLUMNS; c++)
		cells[0].of[c] = str_of(columns[c].heading);
	for (size_t i = 0; i < n; i++)
		fill(&cells[i + 1], t, &rows[i], id_columns, now_ns);
	for (size_t i = 0; i <= n; i++) {
		for (int c = 0; c < COLUMNS; c++) {
			size_t w = text_columns(t, cells[i].of[c]);
			if (w > widths[c])
				widths[c] = w;
		}
	}
	fit(widths, t->width);
	for (size_t i = 0; i <= n; i++)
		put_row(out, t, &cells[i], widths, i == 0 ? "" : status_colour(rows[i - 1].status));
	free(cells);
	return 0;
}
