#include "core/series.h"

#include <stdlib.h>

_Static_assert((SERIES_SLOTS & (SERIES_SLOTS - 1)) == 0, "slots are masked");

void series_deinit(struct series_table *t)
{
	for (unsigned i = 0; i < t->count; i++)
		free(t->list[i]);
	t->count = 0;
}

/* --- label values --- */

/* A label's value as it is shown: bounded, and of bytes that no scraper refuses. */
static struct str clean(struct str s, const char *unknown, char room[CAP_LABEL])
{
	s.len = utf8_cut(s.p, s.len, CAP_LABEL);
	if (s.len == 0)
		return str_of(unknown);
	if (utf8_is_valid(s.p, s.len) && !memchr(s.p, 0, s.len))
		return s;
	for (size_t i = 0; i < s.len; i++)
		room[i] = s.p[i] > 0 && s.p[i] < 0x7f ? s.p[i] : '?';
	return (struct str){room, s.len};
}

static uint64_t mix(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}

/* Eight bytes at a time: this runs for every span. */
static uint64_t hash_text(uint64_t h, struct str s)
{
	uint64_t word = 0;
	size_t i = 0;

	for (; s.len - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, s.p + i, sizeof(word));
		h = mix(h, word);
	}
	word = 0;
	if (i < s.len)
		memcpy(&word, s.p + i, s.len - i);
	return mix(h, word ^ (uint64_t)s.len << 56); // the border between two
}

static uint64_t hash_values(const struct series_table *t, const struct str *values)
{
	uint64_t h = 0;

	for (unsigned i = 0; i < t->labels; i++)
		h = hash_text(h, values[i]);
	return h;
}

/* --- rows --- */

static const char *text_of(const struct series_table *t, const struct series *s)
{
	return (const char *)(s->row + t->width);
}

void series_labels(const struct series_table *t, const struct series *s, struct str *ret)
{
	const char *p = text_of(t, s);

	for (unsigned i = 0; i < t->labels; i++) {
		ret[i] = (struct str){p, s->lens[i]};
		p += s->lens[i];
	}
}

static bool has_labels(const struct series_table *t, const struct series *s,
                       const struct str *values)
{
	const char *p = text_of(t, s);

	for (unsigned i = 0; i < t->labels; i++) {
		if (!str_eq((struct str){p, s->lens[i]}, values[i]))
			return false;
		p += s->lens[i];
	}
	return true;
}

/* The slot of a label set, or the free one where it would go. */
static size_t find(const struct series_table *t, const struct str *values, uint64_t hash)
{
	size_t slot = hash & (SERIES_SLOTS - 1);

	for (; t->slots[slot]; slot = (slot + 1) & (SERIES_SLOTS - 1)) {
		const struct series *s = t->list[t->slots[slot] - 1];
		if (s->hash == hash && has_labels(t, s, values))
			break;
	}
	return slot;
}

static size_t size_of(const struct series_table *t, const struct str *values)
{
	size_t size = sizeof(struct series) + t->width * sizeof(uint64_t);

	for (unsigned i = 0; i < t->labels; i++)
		size += values[i].len;
	return size;
}

static struct series *new_series(const struct series_table *t, const struct str *values,
                                 uint64_t hash)
{
	struct series *s = calloc(1, size_of(t, values));

	if (!s)
		return NULL;
	s->hash = hash;
	char *p = (char *)(s->row + t->width);
	for (unsigned i = 0; i < t->labels; i++) {
		s->lens[i] = (uint16_t)values[i].len;
		if (values[i].len)
			memcpy(p, values[i].p, values[i].len);
		p += values[i].len;
	}
	return s;
}

/* The numbers of what does not get a row of its own. */
static uint64_t *overflow(struct series_table *t)
{
	t->has_overflow = true;
	return t->overflow;
}

/* Somebody's own name for the last row would be a second series of the same labels. */
static bool is_other(const struct series_table *t, const struct str *values)
{
	if (!t->other)
		return false;
	for (unsigned i = 0; i < t->labels; i++)
		if (!str_eq(values[i], str_of(t->other)))
			return false;
	return true;
}

static uint64_t *add(struct series_table *t, const struct str *values)
{
	char rooms[LABELS_MAX][CAP_LABEL];
	struct str cleaned[LABELS_MAX];

	for (unsigned i = 0; i < t->labels; i++)
		cleaned[i] = clean(values[i], t->unknown, rooms[i]);
	uint64_t hash = hash_values(t, cleaned);
	size_t slot = find(t, cleaned, hash);
	if (t->slots[slot])
		return t->list[t->slots[slot] - 1]->row;
	struct series *s = NULL;
	if (t->count < t->max && !is_other(t, cleaned))
		s = new_series(t, cleaned, hash);
	if (!s)
		return overflow(t);
	t->list[t->count++] = s;
	t->slots[slot] = (uint16_t)t->count;
	return s->row;
}

uint64_t *series_row(struct series_table *t, const struct str *values)
{
	// As they came: what is in the table is clean, so nothing else is found by it.
	size_t slot = find(t, values, hash_values(t, values));

	return t->slots[slot] ? t->list[t->slots[slot] - 1]->row : add(t, values);
}

/* --- copies --- */

/* Of one series in the room of a copy, where each begins aligned. */
static size_t copied_size(const struct series_table *t, const struct series *s)
{
	struct str values[LABELS_MAX];

	series_labels(t, s, values);
	return (size_of(t, values) + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
}

size_t series_size(const struct series_table *t)
{
	size_t size = 0;

	for (unsigned i = 0; i < t->count; i++)
		size += copied_size(t, t->list[i]);
	return size;
}

void series_copy(struct series_table *ret, const struct series_table *t, void *room)
{
	char *p = room;
	struct str values[LABELS_MAX];

	*ret = *t;
	for (unsigned i = 0; i < t->count; i++) {
		const struct series *s = t->list[i];
		series_labels(t, s, values);
		memcpy(p, s, size_of(t, values));
		ret->list[i] = (struct series *)(void *)p;
		p += copied_size(t, s);
	}
}
