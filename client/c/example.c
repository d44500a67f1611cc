/* example.c - one request with one LLM call in it. */
#include <sidelight.h>

int main(void)
{
	struct sidelight *sl = sidelight_open(NULL);
	struct sidelight_start_fields agent = {
		.kind = "agent", .name = "weather", .input = "Rain?"};
	struct sidelight_start_fields llm = {
		.kind = "llm", .provider = "openai", .model = "gpt-4o-mini"};
	struct sidelight_run request, call;

	sidelight_start(sl, &request, &agent);
	llm.parent = &request;
	sidelight_start(sl, &call, &llm);

	struct sidelight_attr usage[] = {sidelight_int("prompt_tokens", 12),
	                                 sidelight_int("completion_tokens", 5)};
	struct sidelight_end_fields end = {.output = "No.", .usage = usage, .usage_count = 2};
	sidelight_end(sl, &call, &end);
	sidelight_end(sl, &request, &(struct sidelight_end_fields){.output = "No."});

	int r = sidelight_flush(sl, 1000);
	sidelight_close(sl);
	return r < 0;
}
