#include "core/usage.h"

#include "base/caps.h"
#include "core/mp.h"
#include "core/value.h"

/* Where a value goes. Parts that some providers leave out of their totals have places of their
 * own until the whole map has been seen. */
enum slot {
	NONE,
	INPUT,
	INPUT_MAYBE_BARE, // with some, without the cached part
	TOOL_USE,         // Gemini's, beside its input
	OUTPUT,
	CANDIDATES, // Gemini's output, without its thoughts
	TOTAL,
	CACHE_READ,
	CACHE_READ_APART, // names used by those who leave it out of the input
	CACHE_WRITE,      // a count, or a map by lifetime
	CACHE_WRITE_APART,
	CACHE_WRITE_5M, // the write again, by lifetime
	CACHE_WRITE_1H,
	REASONING,
	THOUGHTS, // Gemini's reasoning, beside its output
	AUDIO_IN,
	AUDIO_OUT,
	COUNTS, // what follows is no count

	AUDIO, // of the side whose details it stands in
	DETAILS_IN,
	DETAILS_OUT,   // counts in a map, or {modality, tokenCount} in a list
	DETAILS_CACHE, // a list of {ttl, inputTokens}
	FORM,          // the whole usage, maybe once more
	FORM_UNBILLED, // the same before what is not billed was taken off
	ESTIMATED,
};

/* OpenAI (chat, responses), Azure, Anthropic, Bedrock, Gemini and Vertex, Mistral, Cohere, Ollama,
 * Groq, DeepSeek, OpenRouter, xAI, the Vercel AI SDK, and LangChain's two forms in Python and
 * JavaScript. Who uses which, and where it is documented: proto/vectors/usage.json. In the order
 * of compare(). */
#define NAME(text, slot)                                                                           \
	{                                                                                          \
		{text, sizeof(text) - 1}, slot                                                     \
	}
static const struct {
	struct str key;
	enum slot slot;
} table[] = {
	NAME("audio", AUDIO),
	NAME("usage", FORM),
	NAME("prompt", INPUT),
	NAME("tokens", FORM_UNBILLED),
	NAME("reasoning", REASONING),
	NAME("cache_read", CACHE_READ),
	NAME("completion", OUTPUT),
	NAME("eval_count", OUTPUT),
	NAME("tokenUsage", FORM),
	NAME("audioTokens", AUDIO),
	NAME("billedUnits", FORM),
	NAME("cache_write", CACHE_WRITE),
	NAME("inputTokens", INPUT_MAYBE_BARE),
	NAME("token_usage", FORM),
	NAME("totalTokens", TOTAL),
	NAME("audio_tokens", AUDIO),
	NAME("billed_units", FORM),
	NAME("cacheDetails", DETAILS_CACHE),
	NAME("cachedTokens", CACHE_READ),
	NAME("input_tokens", INPUT_MAYBE_BARE),
	NAME("outputTokens", OUTPUT),
	NAME("promptTokens", INPUT),
	NAME("total_tokens", TOTAL),
	NAME("cached_tokens", CACHE_READ),
	NAME("output_tokens", OUTPUT),
	NAME("prompt_tokens", INPUT),
	NAME("usageMetadata", FORM),
	NAME("cache_creation", CACHE_WRITE),
	NAME("prompt_details", DETAILS_IN),
	NAME("usage_metadata", FORM),
	NAME("cacheReadTokens", CACHE_READ),
	NAME("inputTokenCount", INPUT),
	NAME("reasoningTokens", REASONING),
	NAME("thinking_tokens", REASONING),
	NAME("totalTokenCount", TOTAL),
	NAME("cacheWriteTokens", CACHE_WRITE),
	NAME("completionTokens", OUTPUT),
	NAME("outputTokenCount", OUTPUT),
	NAME("promptTokenCount", INPUT),
	NAME("reasoning_tokens", REASONING),
	NAME("cachedInputTokens", CACHE_READ),
	NAME("completion_tokens", OUTPUT),
	NAME("inputTokenDetails", DETAILS_IN),
	NAME("input_token_count", INPUT),
	NAME("prompt_eval_count", INPUT),
	NAME("total_token_count", TOTAL),
	NAME("cache_write_tokens", CACHE_WRITE),
	NAME("completion_details", DETAILS_OUT),
	NAME("inputTokensDetails", DETAILS_IN),
	NAME("outputTokenDetails", DETAILS_OUT),
	NAME("output_token_count", OUTPUT),
	NAME("prompt_token_count", INPUT),
	NAME("responseTokenCount", CANDIDATES),
	NAME("thoughtsTokenCount", THOUGHTS),
	NAME("cached_input_tokens", CACHE_READ),
	NAME("input_cached_tokens", CACHE_READ),
	NAME("input_token_details", DETAILS_IN),
	NAME("outputTokensDetails", DETAILS_OUT),
	NAME("promptTokensDetails", DETAILS_IN),
	NAME("sidelight.estimated", ESTIMATED),
	NAME("cacheReadInputTokens", CACHE_READ_APART),
	NAME("candidatesTokenCount", CANDIDATES),
	NAME("input_tokens_details", DETAILS_IN),
	NAME("output_token_details", DETAILS_OUT),
	NAME("response_token_count", CANDIDATES),
	NAME("thoughts_token_count", THOUGHTS),
	NAME("cacheWriteInputTokens", CACHE_WRITE_APART),
	NAME("generated_token_count", OUTPUT),
	NAME("output_tokens_details", DETAILS_OUT),
	NAME("prompt_tokens_details", DETAILS_IN),
	NAME("responseTokensDetails", DETAILS_OUT),
	NAME("candidates_token_count", CANDIDATES),
	NAME("ephemeral1hInputTokens", CACHE_WRITE_1H),
	NAME("ephemeral5mInputTokens", CACHE_WRITE_5M),
	NAME("cache_read_input_tokens", CACHE_READ_APART),
	NAME("cachedContentTokenCount", CACHE_READ),
	NAME("candidatesTokensDetails", DETAILS_OUT),
	NAME("completionTokensDetails", DETAILS_OUT),
	NAME("prompt_cache_hit_tokens", CACHE_READ),
	NAME("reasoning_output_tokens", REASONING),
	NAME("response_tokens_details", DETAILS_OUT),
	NAME("toolUsePromptTokenCount", TOOL_USE),
	NAME("cacheCreationInputTokens", CACHE_WRITE_APART),
	NAME("prompt_eval_cached_count", CACHE_READ),
	NAME("candidates_tokens_details", DETAILS_OUT),
	NAME("completion_tokens_details", DETAILS_OUT),
	NAME("ephemeral_1h_input_tokens", CACHE_WRITE_1H),
	NAME("ephemeral_5m_input_tokens", CACHE_WRITE_5M),
	NAME("cached_content_token_count", CACHE_READ),
	NAME("cache_creation_input_tokens", CACHE_WRITE_APART),
	NAME("tool_use_prompt_token_count", TOOL_USE),
};

/* By length, then by bytes. */
static int compare(struct str a, struct str b)
{
	if (a.len != b.len)
		return a.len < b.len ? -1 : 1;
	return memcmp(a.p, b.p, a.len);
}

static enum slot slot_of(struct str key)
{
	size_t low = 0, high = sizeof(table) / sizeof(table[0]);

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = compare(key, table[middle].key);
		if (order == 0)
			return table[middle].slot;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NONE;
}

/* One way of telling it. */
struct form {
	int64_t counts[COUNTS];
	bool estimated;
};

void usage_init(struct usage *u)
{
	*u = (struct usage){
#define X(count) .count = USAGE_UNKNOWN,
		USAGE_COUNTS(X)
#undef X
	};
}

bool usage_is_known(const struct usage *u)
{
	return u->input >= 0 || u->output >= 0 || u->total >= 0;
}

static int64_t known(int64_t count)
{
	return count > 0 ? count : 0;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

int64_t usage_sum(const struct usage *u)
{
	return known(u->input) + known(u->output);
}

/* --- reading --- */

enum { LISTED_MAX = 4096 };
static const int64_t count_max = (int64_t)1 << 53;

static int64_t sum_of(struct mp *c, uint32_t count)
{
	struct mp_value part;
	int64_t sum = 0;

	for (uint32_t i = 0; i < count && i < LISTED_MAX; i++) {
		if (mp_read(c, &part) != REFUSAL_NONE || part.type != MP_INT || part.i < 0 ||
		    part.i > count_max - sum)
			return USAGE_UNKNOWN;
		sum += part.i;
	}
	return count ? sum : USAGE_UNKNOWN;
}

/* A count, or the sum of a list of them (Bedrock's streams), whose elements follow in c; unknown
 * for anything else. */
static int64_t count_of(const struct mp_value *v, struct mp *c)
{
	if (v->type == MP_INT)
		return v->i >= 0 && v->i <= count_max ? v->i : USAGE_UNKNOWN;
	if (v->type == MP_DOUBLE)
		return v->d >= 0 && v->d < (double)count_max ? (int64_t)v->d : USAGE_UNKNOWN;
	return v->type == MP_ARRAY ? sum_of(c, v->count) : USAGE_UNKNOWN;
}

static int64_t read_count(struct mp *c)
{
	struct mp_value v;

	return mp_read(c, &v) == REFUSAL_NONE ? count_of(&v, c) : USAGE_UNKNOWN;
}

static void put(struct form *f, enum slot slot, int64_t count)
{
	if (slot > NONE && slot < COUNTS)
		f->counts[slot] = larger(f->counts[slot], count);
}

/* What a list calls its parts. */
static enum slot slot_of_word(struct str word, enum slot list)
{
	if (list == DETAILS_IN && str_is(word, "AUDIO"))
		return AUDIO_IN;
	if (list == DETAILS_OUT && str_is(word, "AUDIO"))
		return AUDIO_OUT;
	if (list == DETAILS_CACHE && str_is(word, "5m"))
		return CACHE_WRITE_5M;
	if (list == DETAILS_CACHE && str_is(word, "1h"))
		return CACHE_WRITE_1H;
	return NONE;
}

/* One of a list: {modality, tokenCount} or {ttl, inputTokens}. */
static void read_listed(struct mp *c, enum slot list, struct form *f)
{
	struct str word = {0};
	int64_t count = USAGE_UNKNOWN;
	struct mp_value v;

	if (mp_read(c, &v) != REFUSAL_NONE || v.type != MP_MAP)
		return;
	for (uint32_t i = v.count; i > 0; i--) {
		struct str key = value_key(c);
		struct mp value = *c;
		if (mp_skip(c, CAP_DEPTH) != REFUSAL_NONE)
			return;
		if (str_is(key, "modality") || str_is(key, "ttl")) {
			if (mp_read(&value, &v) == REFUSAL_NONE && v.type == MP_STR)
				word = v.s;
		} else if (str_is(key, "tokenCount") || str_is(key, "token_count") ||
		           str_is(key, "inputTokens")) {
			count = read_count(&value);
		}
	}
	put(f, slot_of_word(word, list), count);
}

static void read_list(struct mp *c, uint32_t count, enum slot list, struct form *f)
{
	for (uint32_t i = 0; i < count; i++) {
		struct mp value = *c;
		if (mp_skip(c, CAP_DEPTH) != REFUSAL_NONE)
			return;
		read_listed(&value, list, f);
	}
}

/* Gives each entry of a map whose key is known to fn. */
typedef void entry_fn(void *ctx, enum slot slot, struct mp value);

static void each_entry(struct mp c, entry_fn *fn, void *ctx)
{
	struct mp_value map;

	if (mp_read(&c, &map) != REFUSAL_NONE || map.type != MP_MAP)
		return;
	for (uint32_t i = 0; i < map.count && c.p < c.end; i++) {
		struct str key = value_key(&c);
		enum slot slot = key.p ? slot_of(key) : NONE;
		struct mp value = c;
		if (mp_skip(&c, CAP_DEPTH) != REFUSAL_NONE)
			return;
		if (slot != NONE)
			fn(ctx, slot, value);
	}
}

struct details {
	struct form *form;
	enum slot side;
};

static void read_detail(void *ctx, enum slot slot, struct mp value)
{
	const struct details *d = ctx;

	if (slot == AUDIO)
		slot = d->side == DETAILS_OUT ? AUDIO_OUT : AUDIO_IN;
	put(d->form, slot, read_count(&value));
}

static void read_own(struct form *f, enum slot slot, struct mp value)
{
	struct mp c = value;
	struct mp_value v;

	if (mp_read(&c, &v) != REFUSAL_NONE)
		return;
	bool is_list = v.type == MP_ARRAY && slot >= DETAILS_IN && slot <= DETAILS_CACHE;

	if (is_list)
		read_list(&c, v.count, slot, f);
	else if (v.type == MP_MAP)
		each_entry(value, read_detail, &(struct details){f, slot});
	else if (slot == ESTIMATED)
		f->estimated = f->estimated || (v.type == MP_BOOL && v.b);
	else
		put(f, slot, count_of(&v, &c));
}

/* --- one form --- */

static int64_t cache_written(const int64_t counts[COUNTS])
{
	int64_t whole = larger(counts[CACHE_WRITE], counts[CACHE_WRITE_APART]);
	int64_t by_lifetime = known(counts[CACHE_WRITE_5M]) + known(counts[CACHE_WRITE_1H]);

	if (counts[CACHE_WRITE_5M] < 0 && counts[CACHE_WRITE_1H] < 0)
		return whole;
	return larger(whole, by_lifetime); // the same tokens, said twice
}

/* Whether an input came without what is cached: it is named as Anthropic and Bedrock do, or is
 * too small to hold it, or the total says so. */
static bool is_bare(const int64_t counts[COUNTS], int64_t cached)
{
	int64_t input = counts[INPUT_MAYBE_BARE];
	bool apart = counts[CACHE_READ_APART] >= 0 || counts[CACHE_WRITE_APART] >= 0;
	bool within = counts[CACHE_READ] >= 0 || counts[CACHE_WRITE] >= 0;

	if (apart && !within)
		return true;
	return cached > input ||
	       (cached > 0 && counts[TOTAL] == input + known(counts[OUTPUT]) + cached);
}

static int64_t input_of(const int64_t counts[COUNTS], int64_t cached)
{
	int64_t input = counts[INPUT_MAYBE_BARE];

	if (counts[INPUT] >= 0)
		return counts[INPUT] + known(counts[TOOL_USE]);
	return input >= 0 && is_bare(counts, cached) ? input + cached : input;
}

static int64_t output_of(const int64_t counts[COUNTS], int64_t input, int64_t reasoning)
{
	int64_t output = counts[OUTPUT];

	if (output < 0 && larger(counts[CANDIDATES], counts[THOUGHTS]) >= 0)
		return known(counts[CANDIDATES]) + known(reasoning);
	// xAI leaves it out: the total says so, or the output is too small to hold it.
	bool apart = reasoning > output ||
	             (reasoning > 0 && counts[TOTAL] == known(input) + output + reasoning);
	return output >= 0 && apart ? output + reasoning : output;
}

static void settle(struct usage *ret, const struct form *f)
{
	const int64_t *counts = f->counts;

	*ret = (struct usage){
		.total = counts[TOTAL],
		.cache_read = larger(counts[CACHE_READ], counts[CACHE_READ_APART]),
		.cache_write = cache_written(counts),
		.cache_write_5m = counts[CACHE_WRITE_5M],
		.cache_write_1h = counts[CACHE_WRITE_1H],
		.reasoning = larger(counts[REASONING], counts[THOUGHTS]),
		.audio_input = counts[AUDIO_IN],
		.audio_output = counts[AUDIO_OUT],
		.estimated = f->estimated,
	};
	ret->input = input_of(counts, known(ret->cache_read) + known(ret->cache_write));
	ret->output = output_of(counts, ret->input, ret->reasoning);
}

/* --- all of them --- */

static int64_t first_known(int64_t a, int64_t b)
{
	return a >= 0 ? a : b;
}

/* What one form lacks another may have; what both say is the same. */
static void fill(struct usage *u, const struct usage *other)
{
#define X(count) u->count = first_known(u->count, other->count);
	USAGE_COUNTS(X)
#undef X
	u->estimated = u->estimated || other->estimated;
}

struct reading {
	struct form own;
	struct usage inner;
	struct mp unbilled; // p NULL: none
	unsigned depth;     // how much deeper forms are looked for
};

static void read_form(struct usage *ret, struct mp map, unsigned depth);

static void read_any(void *ctx, enum slot slot, struct mp value)
{
	struct reading *reading = ctx;
	struct usage inner;

	if (slot == FORM_UNBILLED) {
		reading->unbilled = value;
	} else if (slot != FORM) {
		read_own(&reading->own, slot, value);
	} else if (reading->depth > 0) {
		read_form(&inner, value, reading->depth - 1);
		fill(&reading->inner, &inner);
	}
}

static void read_form(struct usage *ret, struct mp map, unsigned depth)
{
	struct reading reading = {.depth = depth};
	struct usage unbilled;

	for (int i = 0; i < COUNTS; i++)
		reading.own.counts[i] = USAGE_UNKNOWN;
	usage_init(&reading.inner);
	each_entry(map, read_any, &reading);
	settle(ret, &reading.own);
	fill(ret, &reading.inner);
	if (reading.unbilled.p && depth > 0) {
		read_form(&unbilled, reading.unbilled, depth - 1);
		fill(ret, &unbilled);
	}
}

void usage_read(struct usage *ret, struct str map)
{
	usage_init(ret);
	if (!map.p)
		return;
	read_form(ret, mp_of(map), 2);
	if (usage_is_known(ret))
		ret->total = larger(ret->total, usage_sum(ret));
	else
		ret->estimated = false;
}

static void add_count(int64_t *sum, int64_t count)
{
	if (count >= 0)
		*sum = known(*sum) + count;
}

void usage_add(struct usage *sum, const struct usage *u)
{
#define X(count) add_count(&sum->count, u->count);
	USAGE_COUNTS(X)
#undef X
	sum->estimated = sum->estimated || u->estimated;
}
