#include "core/metrics.h"

#include <stdlib.h>

#include "core/prom.h"

enum { SLOTS = sizeof(((struct series_table *)0)->slots) / sizeof(uint16_t) };
_Static_assert(SLOTS >= 2 * CAP_SERIES, "probing stays short");
_Static_assert((SLOTS & (SLOTS - 1)) == 0, "slots are masked");

#define X(ns, label) (ns),
static const uint64_t bounds_ns[] = {DURATION_BUCKETS(X)};
#undef X
enum {
	BOUNDS = sizeof(bounds_ns) / sizeof(bounds_ns[0]),
	BUCKETS = BOUNDS + 1,
	DURATION_SUM = BUCKETS,
};
_Static_assert(DURATION_SUM + 1 == SERIES_VALUES, "the histogram fits");

enum { PROMPT, COMPLETION, TOTAL, TOKEN_TYPES };

#define UNKNOWN STR("unknown")
#define OTHER STR("__other__")

void metrics_init(struct metrics *m)
{
	*m = (struct metrics){
		.requests.max = CAP_SERIES,
		.tokens.max = CAP_SERIES / TOKEN_TYPES, // each is that many label sets
		.tool_calls.max = CAP_SERIES,
	};
}

static void clear_table(struct series_table *t)
{
	for (unsigned i = 0; i < t->count; i++)
		free(t->list[i]);
}

void metrics_deinit(struct metrics *m)
{
	clear_table(&m->requests);
	clear_table(&m->tokens);
	clear_table(&m->tool_calls);
	metrics_init(m);
}

/* A label's value as it is shown: bounded, never empty, and of bytes that no scraper refuses. */
static struct str clean_label(struct str s, char room[CAP_LABEL])
{
	if (s.len == 0)
		return UNKNOWN;
	s.len = utf8_cut(s.p, s.len, CAP_LABEL);
	if (utf8_is_valid(s.p, s.len) && !memchr(s.p, 0, s.len))
		return s;
	if (s.len == 0 || s.len > CAP_LABEL)
		return UNKNOWN;
	for (size_t i = 0; i < s.len; i++)
		room[i] = s.p[i] > 0 && s.p[i] < 0x7f ? s.p[i] : '?';
	return (struct str){room, s.len};
}

static uint64_t hash_labels(struct str first, struct str second)
{
	uint64_t h = 14695981039346656037ull; // FNV-1a

	for (size_t i = 0; i < first.len; i++)
		h = (h ^ (uint8_t)first.p[i]) * 1099511628211ull;
	h = (h ^ 0xff) * 1099511628211ull; // a byte that no UTF-8 has
	for (size_t i = 0; i < second.len; i++)
		h = (h ^ (uint8_t)second.p[i]) * 1099511628211ull;
	return h ^ h >> 32;
}

static struct str first_label(const struct series *s)
{
	return (struct str){s->text, s->first_len};
}

static struct str second_label(const struct series *s)
{
	return (struct str){s->text + s->first_len, s->second_len};
}

static struct series *new_series(uint64_t hash, struct str first, struct str second)
{
	struct series *s = calloc(1, sizeof(*s) + first.len + second.len);

	if (!s)
		return NULL;
	s->hash = hash;
	s->first_len = (uint16_t)first.len;
	s->second_len = (uint16_t)second.len;
	memcpy(s->text, first.p, first.len);
	if (second.len)
		memcpy(s->text + first.len, second.p, second.len);
	return s;
}

/* The values of what does not get a series of its own. */
static uint64_t *other(struct series_table *t)
{
	t->has_overflow = true;
	return t->overflow;
}

/* The values of a label set. second is empty in a metric with one label. */
static uint64_t *find(struct series_table *t, struct str first, struct str second)
{
	uint64_t hash = hash_labels(first, second);
	size_t slot = hash & (SLOTS - 1);

	for (; t->slots[slot]; slot = (slot + 1) & (SLOTS - 1)) {
		struct series *s = t->list[t->slots[slot] - 1];
		if (s->hash == hash && str_eq(first_label(s), first) &&
		    str_eq(second_label(s), second))
			return s->values;
	}
	// Somebody's own __other__ would be a second series of the same labels.
	bool is_other = str_eq(first, OTHER) && (second.len == 0 || str_eq(second, OTHER));
	if (t->count == t->max || is_other)
		return other(t);
	struct series *s = new_series(hash, first, second);
	if (!s)
		return other(t);
	t->list[t->count++] = s;
	t->slots[slot] = (uint16_t)t->count;
	return s->values;
}

static uint64_t *find_model(struct series_table *t, struct str provider, struct str model)
{
	char rooms[2][CAP_LABEL];

	return find(t, clean_label(provider, rooms[0]), clean_label(model, rooms[1]));
}

void metrics_request(struct metrics *m, struct str provider, struct str model, uint64_t duration_ns)
{
	uint64_t *values = find_model(&m->requests, provider, model);
	unsigned bucket = 0;

	while (bucket < BOUNDS && duration_ns > bounds_ns[bucket])
		bucket++;
	values[bucket]++;
	values[DURATION_SUM] += duration_ns;
}

void metrics_tokens(struct metrics *m, struct str provider, struct str model, uint64_t prompt,
                    uint64_t completion, uint64_t total)
{
	uint64_t *values = find_model(&m->tokens, provider, model);

	values[PROMPT] += prompt;
	values[COMPLETION] += completion;
	values[TOTAL] += total;
}

void metrics_tool_call(struct metrics *m, struct str tool_name)
{
	char room[CAP_LABEL];

	find(&m->tool_calls, clean_label(tool_name, room), (struct str){0})[0]++;
}

/* --- text --- */

enum metric_id {
#define X(id, name, type, labels, help) METRIC_##id,
	METRICS_TABLE(X)
#undef X
};

static const char *begin_family(struct buf *out, enum metric_id id)
{
	static const struct {
		const char *name, *type, *help;
	} table[] = {
#define X(id, name, type, labels, help) {name, type, help},
		METRICS_TABLE(X)
#undef X
	};

	prom_family(out, table[id].name, table[id].type, table[id].help);
	return table[id].name;
}

typedef void series_fn(struct buf *out, const char *name, struct str first, struct str second,
                       const uint64_t *values);

static void each_series(struct buf *out, enum metric_id id, const struct series_table *t,
                        series_fn *fn)
{
	const char *name = begin_family(out, id);

	for (unsigned i = 0; i < t->count; i++) {
		const struct series *s = t->list[i];
		fn(out, name, first_label(s), second_label(s), s->values);
	}
	if (t->has_overflow)
		fn(out, name, OTHER, OTHER, t->overflow);
}

static uint64_t count_requests(const uint64_t *values)
{
	uint64_t count = 0;

	for (int i = 0; i < BUCKETS; i++)
		count += values[i];
	return count;
}

static void write_requests(struct buf *out, const char *name, struct str provider, struct str model,
                           const uint64_t *values)
{
	struct prom_label labels[] = {{"provider", provider}, {"model", model}};

	prom_uint(out, name, "", labels, 2, count_requests(values));
}

static void write_duration(struct buf *out, const char *name, struct str provider, struct str model,
                           const uint64_t *values)
{
#define X(ns, label) label,
	static const char *const bounds[] = {DURATION_BUCKETS(X) "+Inf"};
#undef X
	struct prom_label labels[] = {{"provider", provider}, {"model", model}, {"le", {0}}};
	uint64_t count = 0;

	for (int i = 0; i < BUCKETS; i++) {
		count += values[i];
		labels[2].value = str_of(bounds[i]);
		prom_uint(out, name, "_bucket", labels, 3, count);
	}
	prom_seconds(out, name, "_sum", labels, 2, values[DURATION_SUM]);
	prom_uint(out, name, "_count", labels, 2, count);
}

static void write_tokens(struct buf *out, const char *name, struct str provider, struct str model,
                         const uint64_t *values)
{
	static const char *const types[TOKEN_TYPES] = {"prompt_tokens", "completion_tokens",
	                                               "total_tokens"};

	for (int i = 0; i < TOKEN_TYPES; i++) {
		struct prom_label labels[] = {
			{"token_type", str_of(types[i])}, {"provider", provider}, {"model", model}};
		prom_uint(out, name, "", labels, 3, values[i]);
	}
}

static void write_tool_calls(struct buf *out, const char *name, struct str tool_name,
                             struct str none, const uint64_t *values)
{
	struct prom_label label = {"tool_name", tool_name};

	prom_uint(out, name, "", &label, 1, values[0]);
}

void metrics_write(const struct metrics *m, struct buf *out)
{
	each_series(out, METRIC_REQUESTS, &m->requests, write_requests);
	each_series(out, METRIC_DURATION, &m->requests, write_duration);
	each_series(out, METRIC_TOKENS, &m->tokens, write_tokens);
	each_series(out, METRIC_TOOL_CALLS, &m->tool_calls, write_tool_calls);
}
