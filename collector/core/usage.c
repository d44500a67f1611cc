#include "core/usage.h"

#include "base/caps.h"
#include "core/mp.h"
#include "core/value.h"

/* Where a count goes. Parts that some providers leave out of their totals have slots of their
 * own until the whole map has been seen. */
enum slot {
	NONE,
	INPUT,
	INPUT_MAYBE_BARE, // without the cached part if the cache keys stand beside it
	OUTPUT,
	CANDIDATES, // Gemini's output, without its thoughts
	TOTAL,
	CACHE_READ,
	CACHE_READ_APART, // names used by those who leave it out of the input
	CACHE_WRITE,
	CACHE_WRITE_APART,
	CACHE_WRITE_5M, // the write again, by lifetime
	CACHE_WRITE_1H,
	REASONING,
	THOUGHTS, // Gemini's reasoning, beside its output
	DETAILS,  // a map of further counts
	SLOTS
};

/* OpenAI (chat, responses), Anthropic, Gemini and Vertex, Bedrock, Cohere, DeepSeek, Ollama, and
 * LangChain's two forms in Python and JavaScript; the names as their API references give them. */
#define NAME(text, slot)                                                                           \
	{                                                                                          \
		{text, sizeof(text) - 1}, slot                                                     \
	}
static const struct {
	struct str key;
	enum slot slot;
} table[] = {
	NAME("input_tokens", INPUT_MAYBE_BARE),
	NAME("inputTokens", INPUT_MAYBE_BARE),
	NAME("prompt_tokens", INPUT),
	NAME("prompt", INPUT),
	NAME("promptTokens", INPUT),
	NAME("prompt_token_count", INPUT),
	NAME("promptTokenCount", INPUT),
	NAME("input_token_count", INPUT),
	NAME("inputTokenCount", INPUT),
	NAME("prompt_eval_count", INPUT),
	NAME("output_tokens", OUTPUT),
	NAME("outputTokens", OUTPUT),
	NAME("completion_tokens", OUTPUT),
	NAME("completion", OUTPUT),
	NAME("completionTokens", OUTPUT),
	NAME("output_token_count", OUTPUT),
	NAME("outputTokenCount", OUTPUT),
	NAME("generated_token_count", OUTPUT),
	NAME("eval_count", OUTPUT),
	NAME("candidates_token_count", CANDIDATES),
	NAME("candidatesTokenCount", CANDIDATES),
	NAME("total_tokens", TOTAL),
	NAME("totalTokens", TOTAL),
	NAME("total_token_count", TOTAL),
	NAME("totalTokenCount", TOTAL),
	NAME("cache_read", CACHE_READ),
	NAME("cached_tokens", CACHE_READ),
	NAME("cachedTokens", CACHE_READ),
	NAME("cached_input_tokens", CACHE_READ),
	NAME("cachedInputTokens", CACHE_READ),
	NAME("input_cached_tokens", CACHE_READ),
	NAME("cached_content_token_count", CACHE_READ),
	NAME("cachedContentTokenCount", CACHE_READ),
	NAME("prompt_cache_hit_tokens", CACHE_READ),
	NAME("cache_read_input_tokens", CACHE_READ_APART),
	NAME("cacheReadInputTokens", CACHE_READ_APART),
	NAME("cache_creation", CACHE_WRITE), // a count, or a map by lifetime
	NAME("cache_write", CACHE_WRITE),
	NAME("cache_write_tokens", CACHE_WRITE),
	NAME("cache_creation_input_tokens", CACHE_WRITE_APART),
	NAME("cacheWriteInputTokens", CACHE_WRITE_APART),
	NAME("ephemeral_5m_input_tokens", CACHE_WRITE_5M),
	NAME("ephemeral_1h_input_tokens", CACHE_WRITE_1H),
	NAME("reasoning", REASONING),
	NAME("reasoning_tokens", REASONING),
	NAME("reasoningTokens", REASONING),
	NAME("reasoning_output_tokens", REASONING),
	NAME("thoughts_token_count", THOUGHTS),
	NAME("thoughtsTokenCount", THOUGHTS),
	NAME("input_token_details", DETAILS),
	NAME("output_token_details", DETAILS),
	NAME("input_tokens_details", DETAILS),
	NAME("output_tokens_details", DETAILS),
	NAME("prompt_tokens_details", DETAILS),
	NAME("completion_tokens_details", DETAILS),
	NAME("prompt_details", DETAILS),
	NAME("completion_details", DETAILS),
	NAME("billed_units", DETAILS),
	NAME("token_usage", DETAILS),
	NAME("tokenUsage", DETAILS),
	NAME("usage_metadata", DETAILS),
	NAME("usageMetadata", DETAILS),
	NAME("usage", DETAILS),
};

void usage_init(struct usage *u)
{
	*u = (struct usage){USAGE_UNKNOWN, USAGE_UNKNOWN, USAGE_UNKNOWN,
	                    USAGE_UNKNOWN, USAGE_UNKNOWN, USAGE_UNKNOWN};
}

bool usage_is_known(const struct usage *u)
{
	return u->input >= 0 || u->output >= 0 || u->total >= 0;
}

static enum slot slot_of(struct str key)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (str_eq(key, table[i].key))
			return table[i].slot;
	return NONE;
}

/* A count, or the sum of a list of them (Bedrock's streams); unknown for anything else. */
static int64_t read_count(struct mp *c)
{
	const int64_t most = (int64_t)1 << 53;
	struct mp_value v;

	if (mp_read(c, &v) != REFUSAL_NONE)
		return USAGE_UNKNOWN;
	if (v.type == MP_DOUBLE && v.d >= 0 && v.d < (double)most)
		return (int64_t)v.d;
	if (v.type == MP_ARRAY) {
		int64_t sum = 0;
		for (uint32_t i = 0; i < v.count && i < 4096; i++) {
			struct mp_value part;
			if (mp_read(c, &part) != REFUSAL_NONE || part.type != MP_INT ||
			    part.i < 0 || part.i > most - sum)
				return USAGE_UNKNOWN;
			sum += part.i;
		}
		return v.count ? sum : USAGE_UNKNOWN;
	}
	return v.type == MP_INT && v.i >= 0 && v.i <= most ? v.i : USAGE_UNKNOWN;
}

static bool is_map(struct mp c)
{
	struct mp_value v;

	return mp_read(&c, &v) == REFUSAL_NONE && v.type == MP_MAP;
}

static void collect(struct mp *c, int64_t counts[SLOTS], unsigned depth)
{
	struct mp_value map;

	if (mp_read(c, &map) != REFUSAL_NONE || map.type != MP_MAP)
		return;
	for (uint32_t i = 0; i < map.count && c->p < c->end; i++) {
		struct str key = value_key(c);
		enum slot slot = key.p ? slot_of(key) : NONE;
		struct mp value = *c;
		if (mp_skip(c, CAP_DEPTH) != REFUSAL_NONE)
			return;
		if (slot == NONE)
			continue;
		if (is_map(value)) {
			if (depth > 0)
				collect(&value, counts, depth - 1);
			continue;
		}
		int64_t count = slot == DETAILS ? USAGE_UNKNOWN : read_count(&value);
		if (count > counts[slot])
			counts[slot] = count;
	}
}

static int64_t known(int64_t count)
{
	return count > 0 ? count : 0;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t cache_written(const int64_t counts[SLOTS])
{
	int64_t whole = larger(counts[CACHE_WRITE], counts[CACHE_WRITE_APART]);
	int64_t by_lifetime = known(counts[CACHE_WRITE_5M]) + known(counts[CACHE_WRITE_1H]);

	// The write and its split by lifetime are the same tokens, said twice.
	return by_lifetime > 0 ? larger(whole, by_lifetime) : whole;
}

void usage_read(struct usage *ret, struct str map)
{
	int64_t counts[SLOTS];
	struct mp c = mp_of(map);

	usage_init(ret);
	if (!map.p)
		return;
	for (int i = 0; i < SLOTS; i++)
		counts[i] = USAGE_UNKNOWN;
	collect(&c, counts, 2);

	ret->cache_read = larger(counts[CACHE_READ], counts[CACHE_READ_APART]);
	ret->cache_write = cache_written(counts);
	ret->reasoning = larger(counts[REASONING], counts[THOUGHTS]);
	ret->input = counts[INPUT];
	if (ret->input < 0) {
		ret->input = counts[INPUT_MAYBE_BARE];
		bool bare = counts[CACHE_READ_APART] >= 0 || counts[CACHE_WRITE_APART] >= 0;
		if (ret->input >= 0 && bare) // Anthropic and Bedrock
			ret->input += known(ret->cache_read) + known(ret->cache_write);
	}
	ret->output = counts[OUTPUT];
	if (ret->output < 0 && larger(counts[CANDIDATES], counts[THOUGHTS]) >= 0)
		ret->output = known(counts[CANDIDATES]) + known(ret->reasoning);
	int64_t sum = known(ret->input) + known(ret->output);
	if (ret->input >= 0 || ret->output >= 0 || counts[TOTAL] >= 0)
		ret->total = larger(counts[TOTAL], sum);
}

static void add_count(int64_t *sum, int64_t count)
{
	if (count >= 0)
		*sum = known(*sum) + count;
}

void usage_add(struct usage *sum, const struct usage *u)
{
	add_count(&sum->input, u->input);
	add_count(&sum->output, u->output);
	add_count(&sum->total, u->total);
	add_count(&sum->cache_read, u->cache_read);
	add_count(&sum->cache_write, u->cache_write);
	add_count(&sum->reasoning, u->reasoning);
}
