#include "frames.h"

#include <assert.h>
#include <string.h>

static void put(struct frame *f, const void *bytes, size_t len)
{
	assert(f->len + len <= sizeof(f->bytes));
	memcpy(f->bytes + f->len, bytes, len);
	f->len += len;
}

static void put_byte(struct frame *f, unsigned int byte)
{
	put(f, &(uint8_t){(uint8_t)byte}, 1);
}

static void store_be(uint8_t *at, uint64_t v, size_t width)
{
	for (size_t i = 0; i < width; i++)
		at[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
}

static void put_be(struct frame *f, uint64_t v, size_t width)
{
	uint8_t bytes[8];
	store_be(bytes, v, width);
	put(f, bytes, width);
}

static void put_str(struct frame *f, const char *text)
{
	size_t len = strlen(text);
	if (len < 32) {
		put_byte(f, 0xa0 | (unsigned int)len);
	} else if (len < 256) {
		put_byte(f, 0xd9);
		put_be(f, len, 1);
	} else {
		put_byte(f, 0xda);
		put_be(f, len, 2);
	}
	put(f, text, len);
}

static void put_uint(struct frame *f, uint64_t v)
{
	if (v < 128) {
		put_byte(f, (unsigned int)v);
	} else {
		put_byte(f, 0xcd);
		put_be(f, v, 2);
	}
}

static void put_map(struct frame *f, unsigned int count)
{
	assert(count < 16);
	put_byte(f, 0x80 | count);
	f->keys += count;
}

static void put_array(struct frame *f, unsigned int count)
{
	assert(count < 16);
	put_byte(f, 0x90 | count);
}

static void put_pair(struct frame *f, const char *key, const char *value)
{
	put_str(f, key);
	put_str(f, value);
}

static void put_count(struct frame *f, const char *key, uint64_t value)
{
	put_str(f, key);
	put_uint(f, value);
}

static void put_message(struct frame *f, const char *role, const char *content)
{
	put_map(f, 2);
	put_pair(f, "role", role);
	put_pair(f, "content", content);
}

static void begin(struct frame *f, unsigned int type, unsigned int elements)
{
	*f = (struct frame){.len = 4};
	put_array(f, elements);
	put_byte(f, type);
}

static void finish(struct frame *f)
{
	store_be(f->bytes, f->len - 4, 4);
}

static size_t put_run_id(struct frame *f)
{
	put_byte(f, 0xc4);
	put_byte(f, 16);
	put(f, (uint8_t[16]){0}, 16);
	return f->len - 16;
}

static size_t put_time(struct frame *f)
{
	put_byte(f, 0xcf);
	put_be(f, 0, 8);
	return f->len - 8;
}

static void begin_run(struct frame *f, unsigned int type)
{
	begin(f, type, 5);
	f->run_at = put_run_id(f);
	f->unix_at = put_time(f);
	f->mono_at = put_time(f);
}

static void put_parent(struct frame *f)
{
	put_str(f, "parent");
	f->parent_at = put_run_id(f);
}

static void agent_start(struct frame *f)
{
	begin_run(f, 1);
	put_map(f, 7);
	put_pair(f, "kind", "agent");
	put_pair(f, "name", "travel_agent");
	put_pair(f, "session", "conversation-7f3a9c");
	put_pair(f, "user", "user-4711");
	put_pair(f, "input",
	         "What will the weather be like in Lisbon on the day of the conference, and "
	         "how many days are left until then? Answer in one sentence, please.");
	put_str(f, "tags");
	put_array(f, 2);
	put_str(f, "production");
	put_str(f, "eu-west-1");
	put_str(f, "attrs");
	put_map(f, 4);
	put_pair(f, "langgraph.version", "1.0.3");
	put_pair(f, "thread_id", "7f3a9c");
	put_count(f, "recursion_limit", 25);
	put_pair(f, "app.release", "2026.11.2");
	finish(f);
}

static void agent_end(struct frame *f)
{
	begin_run(f, 2);
	put_map(f, 3);
	put_str(f, "output");
	put_map(f, 1);
	put_str(f, "messages");
	put_array(f, 2);
	put_message(f, "user",
	            "What will the weather be like in Lisbon on the day of the conference?");
	put_message(
		f, "assistant",
		"In Lisbon it will be sunny with 19 degrees, and there are 23 days left until the "
		"conference begins.");
	put_pair(f, "finish", "stop");
	put_str(f, "attrs");
	put_map(f, 4);
	put_count(f, "steps", 5);
	put_count(f, "messages", 6);
	put_pair(f, "langgraph.node", "__end__");
	put_pair(f, "app.route", "/v1/chat");
	finish(f);
}

static void llm_start(struct frame *f, const char *model, const char *provider)
{
	begin_run(f, 1);
	put_map(f, 7);
	put_pair(f, "kind", "llm");
	put_pair(f, "name", "ChatOpenAI");
	put_parent(f);
	put_pair(f, "model", model);
	put_pair(f, "provider", provider);
	put_str(f, "input");
	put_array(f, 2);
	put_message(
		f, "system",
		"You are a helpful travel assistant. Use the tools that you are given to find out "
		"about weather and dates, never guess, and answer briefly.");
	put_message(f, "user",
	            "What will the weather be like in Lisbon on the day of the conference, and how "
	            "many days are left until then? Answer in one sentence, please.");
	put_str(f, "attrs");
	put_map(f, 3);
	put_pair(f, "langgraph_node", "agent");
	put_count(f, "langgraph_step", 3);
	put_pair(f, "ls_model_type", "chat");
	finish(f);
}

static void llm_end(struct frame *f, const char *model)
{
	begin_run(f, 2);
	put_map(f, 5);
	put_str(f, "output");
	put_array(f, 1);
	put_message(
		f, "assistant",
		"In Lisbon it will be sunny with 19 degrees and a light breeze from the Atlantic, "
		"and there are 23 days left until the conference begins.");
	put_str(f, "usage");
	put_map(f, 4);
	put_count(f, "prompt_tokens", 412);
	put_count(f, "completion_tokens", 58);
	put_count(f, "total_tokens", 470);
	put_count(f, "cached_tokens", 128);
	put_pair(f, "model", model);
	put_pair(f, "finish", "stop");
	put_str(f, "attrs");
	put_map(f, 1);
	put_pair(f, "system_fingerprint", "fp_9f31c0d2ab");
	finish(f);
}

static void tool_start(struct frame *f, const char *name, const char *input)
{
	begin_run(f, 1);
	put_map(f, 6);
	put_pair(f, "kind", "tool");
	put_pair(f, "name", name);
	put_parent(f);
	put_pair(f, "input", input);
	put_str(f, "tags");
	put_array(f, 1);
	put_str(f, "seq:step:2");
	put_str(f, "attrs");
	put_map(f, 5);
	put_pair(f, "langgraph_node", "tools");
	put_count(f, "langgraph_step", 4);
	put_pair(f, "tool_call_id", "call_R9sXv2LkQ0bTn6HyWc1Ed8Uf");
	put_pair(f, "langgraph_checkpoint_ns", "tools:4f1d2c7a-90be-4d33-8a51-6ce07b1f2e94");
	put_pair(f, "description", "Look it up in the service that the travel desk operates.");
	finish(f);
}

static void tool_end(struct frame *f, const char *name)
{
	begin_run(f, 2);
	put_map(f, 2);
	put_str(f, "output");
	put_map(f, 5);
	put_pair(f, "type", "tool");
	put_pair(f, "name", name);
	put_pair(f, "tool_call_id", "call_R9sXv2LkQ0bTn6HyWc1Ed8Uf");
	put_pair(f, "content",
	         "{\"place\": \"Lisbon\", \"date\": \"2026-12-17\", \"sky\": \"sunny\", "
	         "\"high\": 19, \"low\": 11, \"wind\": \"NW 12 km/h\"}");
	put_pair(f, "status", "success");
	put_str(f, "attrs");
	put_map(f, 4);
	put_pair(f, "http.host", "weather.travel-desk.internal");
	put_count(f, "http.status", 200);
	put_pair(f, "cache", "miss");
	put_pair(f, "region", "eu-west-1");
	finish(f);
}

/* Frames of an agent, two models and two tools; each pair is a start and its end. */
static struct frame agent[2];
static struct frame llm[2][2];
static struct frame tool[2][2];
static struct shape shapes[TRACE_SHAPES];

static void add_run(struct shape *s, struct frame pair[2], unsigned int run)
{
	s->steps[s->count++] = (struct step){&pair[0], run};
	s->steps[s->count++] = (struct step){&pair[1], run};
}

/* The root's start, its children one after the other, the root's end. */
static void build(struct shape *s, unsigned int children, unsigned int model)
{
	s->steps[s->count++] = (struct step){&agent[0], 0};
	for (unsigned int i = 0; i < children; i++)
		add_run(s, i % 2 == 0 ? llm[model] : tool[i / 2 % 2], i + 1);
	s->steps[s->count++] = (struct step){&agent[1], 0};
}

struct shape *frames_init(void)
{
	agent_start(&agent[0]);
	agent_end(&agent[1]);
	llm_start(&llm[0][0], "gpt-4o-mini", "openai");
	llm_end(&llm[0][1], "gpt-4o-mini-2024-07-18");
	llm_start(&llm[1][0], "claude-sonnet-4", "anthropic");
	llm_end(&llm[1][1], "claude-sonnet-4-20250514");
	tool_start(&tool[0][0], "weather", "{\"place\": \"Lisbon\", \"date\": \"2026-12-17\"}");
	tool_end(&tool[0][1], "weather");
	tool_start(&tool[1][0], "days_until", "{\"date\": \"2026-12-17\"}");
	tool_end(&tool[1][1], "days_until");
	build(&shapes[0], 4, 0);
	build(&shapes[1], 5, 1);
	return shapes;
}

void frames_means(double *ret_bytes, double *ret_keys)
{
	double bytes = 0;
	double keys = 0;
	double count = 0;
	for (unsigned int s = 0; s < TRACE_SHAPES; s++) {
		for (unsigned int i = 0; i < shapes[s].count; i++) {
			bytes += (double)shapes[s].steps[i].frame->len;
			keys += shapes[s].steps[i].frame->keys;
			count++;
		}
	}
	*ret_bytes = bytes / count;
	*ret_keys = keys / count;
}

size_t frames_hello(uint8_t *out)
{
	struct frame f;
	begin(&f, 0, 2);
	put_map(&f, 3);
	put_count(&f, "v", 1);
	put_pair(&f, "service", "bench");
	put_pair(&f, "sdk", "bench/1");
	finish(&f);
	memcpy(out, f.bytes, f.len);
	return f.len;
}

size_t frames_flush(uint8_t *out, uint64_t token)
{
	struct frame f;
	begin(&f, 4, 2);
	put_byte(&f, 0xcf);
	put_be(&f, token, 8);
	finish(&f);
	memcpy(out, f.bytes, f.len);
	return f.len;
}

size_t frames_bye(uint8_t *out)
{
	struct frame f;
	begin(&f, 7, 2);
	put_map(&f, 0);
	finish(&f);
	memcpy(out, f.bytes, f.len);
	return f.len;
}

void frame_patch(struct frame *f, const uint8_t run[16], const uint8_t root[16], uint64_t unix_ns,
                 uint64_t mono_ns)
{
	memcpy(f->bytes + f->run_at, run, 16);
	if (f->parent_at)
		memcpy(f->bytes + f->parent_at, root, 16);
	memcpy(f->bytes + f->unix_at, &(uint64_t){__builtin_bswap64(unix_ns)}, 8);
	memcpy(f->bytes + f->mono_at, &(uint64_t){__builtin_bswap64(mono_ns)}, 8);
}
