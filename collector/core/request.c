#include "core/request.h"

#include <errno.h>

#include "base/caps.h"
#include "core/otlp_fields.h"

enum { SPENDS_MAX = 64, KEPT_ROOM = 4096 };

void request_init(struct request *q)
{
	*q = (struct request){0};
	usage_init(&q->usage);
	q->cost = COST_UNKNOWN;
	buf_init(&q->spends, SPENDS_MAX * sizeof(struct spend));
	buf_init(&q->tools, CAP_TOOL_CALLS);
	buf_init(&q->tool_names, CAP_TOOL_CALLS);
	buf_init(&q->root, CAP_FRAME);
	buf_init(&q->content, 4 * CAP_FRAME);
	buf_init(&q->resource, CAP_RESOURCE);
}

void request_deinit(struct request *q)
{
	buf_deinit(&q->spends);
	buf_deinit(&q->tools);
	buf_deinit(&q->tool_names);
	buf_deinit(&q->root);
	buf_deinit(&q->content);
	buf_deinit(&q->resource);
}

static void clear_or_free(struct buf *b)
{
	if (b->room > KEPT_ROOM)
		buf_deinit(b);
	buf_clear(b);
}

void request_clear(struct request *q)
{
	struct request fresh = {
		.spends = q->spends,
		.tools = q->tools,
		.tool_names = q->tool_names,
		.root = q->root,
		.content = q->content,
		.resource = q->resource,
		.cost = COST_UNKNOWN,
	};

	clear_or_free(&fresh.spends);
	clear_or_free(&fresh.tools);
	clear_or_free(&fresh.tool_names);
	clear_or_free(&fresh.root);
	clear_or_free(&fresh.content);
	clear_or_free(&fresh.resource);
	usage_init(&fresh.usage);
	*q = fresh;
}

static struct str or (struct str a, struct str b)
{
	return a.len ? a : b;
}

/* Keeps a text in a fixed room, cut at a character. */
static void keep(char *room, size_t size, struct str text)
{
	size_t len = text.p ? utf8_cut(text.p, text.len, size - 1) : 0;

	if (len)
		memcpy(room, text.p, len);
	room[len] = '\0';
}

/* The entry of a model; the last one takes all that come past the bound. */
static struct spend *find_spend(struct request *q, const char *provider, const char *model)
{
	struct spend *list = (struct spend *)(void *)q->spends.data;
	size_t count = q->spends.len / sizeof(*list);

	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].provider, provider) == 0 && strcmp(list[i].model, model) == 0)
			return &list[i];
	if (count == SPENDS_MAX)
		return &list[count - 1];
	struct spend *added = (struct spend *)(void *)buf_extend(&q->spends, sizeof(*added));
	if (!added)
		return NULL;
	*added = (struct spend){.cost = COST_UNKNOWN};
	keep(added->provider, sizeof(added->provider), str_of(provider));
	keep(added->model, sizeof(added->model), str_of(model));
	usage_init(&added->usage);
	return added;
}

static bool is_call(const struct account *a)
{
	return a->kind == KIND_LLM && !a->wraps;
}

static int add_usage(struct request *q, const struct account *a, const struct price_list *prices)
{
	bool is_silent = is_call(a) && !usage_is_known(&a->usage);
	char provider[64], model[128];

	if (!usage_is_known(&a->usage) && !is_silent)
		return 0;
	q->llm_calls_without_usage += is_silent;
	keep(provider, sizeof(provider), a->provider);
	keep(model, sizeof(model), or (a->model, a->response_model));
	usage_add(&q->usage, &a->usage);
	int64_t cost = price_cost(prices, a->provider, a->model, a->response_model, &a->usage);
	cost_add(&q->cost, cost);
	q->calls_without_cost += cost < 0;
	struct spend *spend = find_spend(q, provider, model);
	if (!spend)
		return -ENOMEM;
	spend->calls_without_usage += is_silent;
	usage_add(&spend->usage, &a->usage);
	cost_add(&spend->cost, cost);
	return 0;
}

static void add_llm(struct request *q, const struct account *a)
{
	q->llm_calls++;
	if (a->end_ns < q->last_llm_end_ns)
		return;
	q->last_llm_end_ns = a->end_ns;
	keep(q->last_provider, sizeof(q->last_provider), a->provider);
	keep(q->last_model, sizeof(q->last_model), or (a->model, a->response_model));
}

static void error_json(struct json *j, struct str type, struct str message)
{
	if (!type.p && !message.p) {
		jsonw_null(j);
		return;
	}
	jsonw_object(j);
	jsonw_key(j, "type");
	jsonw_str(j, type);
	jsonw_key(j, "message");
	jsonw_str(j, message);
	jsonw_object_end(j);
}

/* The list is cut where it grows too long; the count goes on. */
static int add_tool(struct request *q, const struct account *a)
{
	struct str name = or (a->what, a->name);
	size_t len = q->tools.len, names_len = q->tool_names.len;
	struct json j = {.out = &q->tools, .comma = len > 0};

	q->tool_calls++;
	jsonw_object(&j);
	jsonw_key(&j, "name");
	jsonw_str(&j, name);
	jsonw_key(&j, "input");
	jsonw_str(&j, a->input);
	jsonw_key(&j, "output");
	jsonw_str(&j, a->output);
	jsonw_key(&j, "latency_ms");
	jsonw_ms(&j, a->duration_ns);
	jsonw_key(&j, "error");
	error_json(&j, a->error_type, a->error_message);
	jsonw_object_end(&j);
	buf_append(&q->tool_names, name.p, strnlen(name.p, name.len)); // a NUL would part it in two
	buf_append_byte(&q->tool_names, 0);
	int rc = buf_error(&q->tools) ? buf_error(&q->tools) : buf_error(&q->tool_names);
	if (buf_error(&q->tools)) {
		q->tools.len = len;
		q->tools.error = 0;
	}
	if (buf_error(&q->tool_names)) {
		q->tool_names.len = names_len;
		q->tool_names.error = 0;
	}
	return rc == -ENOMEM ? rc : 0;
}

static void add_slowest(struct request *q, const struct account *a)
{
	if (a->duration_ns < q->slowest_ns)
		return;
	q->slowest_ns = a->duration_ns;
	q->slowest_kind = a->kind;
	memcpy(q->slowest_id, a->span_id, sizeof(q->slowest_id));
	bool own = a->kind == KIND_TOOL && a->what.len;
	keep(q->slowest_name, sizeof(q->slowest_name), own ? a->what : a->name);
}

static bool is_leaf(const struct account *a)
{
	return a->kind != KIND_AGENT && a->kind != KIND_CHAIN && a->kind != KIND_OTHER && !a->wraps;
}

int request_add(struct request *q, const struct account *a, const struct price_list *prices)
{
	int rc = add_usage(q, a, prices);

	q->spans++;
	if (is_call(a))
		add_llm(q, a);
	if (a->kind == KIND_TOOL && add_tool(q, a) < 0)
		rc = -ENOMEM;
	if (is_leaf(a))
		add_slowest(q, a);
	return rc;
}

/* Attributes of the root that the observation names by themselves. */
struct root_words {
	struct str session, user, prompt_key, prompt_version, policy_mode, tags;
};

static bool find_word(void *ctx, struct str key, struct str any)
{
	struct root_words *w = ctx;

	if (str_is(key, "gen_ai.conversation.id") || str_is(key, "session_id"))
		account_text(any, &w->session);
	else if (str_is(key, "user.id"))
		account_text(any, &w->user);
	else if (str_is(key, "prompt.key") || str_is(key, "gen_ai.prompt.name"))
		w->prompt_key = any;
	else if (str_is(key, "prompt.version") || str_is(key, "gen_ai.prompt.version"))
		w->prompt_version = any;
	else if (str_is(key, "policy_mode"))
		w->policy_mode = any;
	else if (str_is(key, "sidelight.tags"))
		w->tags = any;
	return true;
}

static void any_member(struct json *j, const char *key, struct str any)
{
	jsonw_key(j, key);
	if (any.p)
		any_value_json(j, any);
	else
		jsonw_null(j);
}

static void identity_json(struct json *j, const struct span_view *view, enum run_kind kind)
{
	jsonw_key(j, "trace_id");
	jsonw_hex(j, view->trace_id, sizeof(view->trace_id));
	jsonw_key(j, "span_id");
	jsonw_hex(j, view->span_id, sizeof(view->span_id));
	jsonw_key(j, "parent_span_id");
	if (view->has_parent)
		jsonw_hex(j, view->parent_id, sizeof(view->parent_id));
	else
		jsonw_null(j);
	jsonw_key(j, "name");
	jsonw_str(j, view->name);
	jsonw_key(j, "kind");
	jsonw_text(j, kind_word(kind));
	jsonw_key(j, "start_time");
	jsonw_time(j, view->start_ns);
	jsonw_key(j, "end_time");
	jsonw_time(j, view->end_ns);
	jsonw_key(j, "latency_ms");
	jsonw_ms(j, view->end_ns > view->start_ns ? view->end_ns - view->start_ns : 0);
}

static void status_json(struct json *j, const struct span_view *view, enum run_status status)
{
	jsonw_key(j, "status");
	jsonw_object(j);
	jsonw_key(j, "code");
	jsonw_text(j, status_word(status));
	jsonw_key(j, "message");
	jsonw_str(j, view->status_message.p ? view->status_message : STR(""));
	jsonw_object_end(j);
}

static void words_json(struct json *j, const struct span_record *root)
{
	struct root_words w = {0};

	span_attributes(root, false, find_word, &w);
	jsonw_key(j, "session_id");
	jsonw_str(j, w.session);
	jsonw_key(j, "user_id");
	jsonw_str(j, w.user);
	any_member(j, "prompt_key", w.prompt_key);
	any_member(j, "prompt_version", w.prompt_version);
	any_member(j, "policy_mode", w.policy_mode);
	jsonw_key(j, "tags");
	if (w.tags.p)
		any_value_json(j, w.tags);
	else
		jsonw_raw(j, "[]", 2);
}

void root_json_members(struct json *j, struct str root, enum run_kind kind, enum run_status status)
{
	struct span_record rec = {.base = root};
	struct account a = {0};
	struct span_view view;

	if (span_view(&view, &rec) < 0)
		return;
	identity_json(j, &view, kind);
	status_json(j, &view, status);
	jsonw_key(j, "attributes");
	jsonw_object(j);
	attributes_json_members(j, root, SPAN_ATTRIBUTES);
	jsonw_object_end(j);
	words_json(j, &rec);
	jsonw_key(j, "error");
	account_scan(&a, root);
	if (status == STATUS_ERROR)
		error_json(j, a.error_type, a.error_message);
	else
		jsonw_null(j);
}

int request_set_root(struct request *q, const struct span_record *root, const struct account *a,
                     const struct root_text *text)
{
	struct json j;

	q->has_root = true;
	q->kind = a->kind;
	q->status = a->status;
	q->start_ns = a->end_ns - a->duration_ns;
	q->duration_ns = a->duration_ns;
	memcpy(q->span_id, a->span_id, sizeof(q->span_id));
	keep(q->provider, sizeof(q->provider), a->provider);
	keep(q->model, sizeof(q->model), or (a->model, a->response_model));
	keep(q->service, sizeof(q->service), resource_service_name(root->resource));
	buf_clear(&q->root);
	buf_append(&q->root, root->base.p, root->base.len);
	buf_clear(&q->resource);
	buf_append(&q->resource, root->resource.p, root->resource.len);
	buf_clear(&q->content);
	jsonw_init(&j, &q->content);
	jsonw_key(&j, "user_message");
	jsonw_str(&j, text->user_message);
	jsonw_key(&j, "agent_response");
	jsonw_str(&j, text->agent_response);
	return buf_error(&q->root) ? buf_error(&q->root) : buf_error(&q->content);
}

static void count_json(struct json *j, const char *key, int64_t count)
{
	jsonw_key(j, key);
	if (count < 0)
		jsonw_null(j);
	else
		jsonw_int(j, count);
}

static void slowest_json(struct json *j, const struct request *q)
{
	jsonw_key(j, "slowest");
	if (q->slowest_ns == 0) {
		jsonw_null(j);
		return;
	}
	jsonw_object(j);
	jsonw_key(j, "name");
	jsonw_text(j, q->slowest_name);
	jsonw_key(j, "kind");
	jsonw_text(j, kind_word(q->slowest_kind));
	jsonw_key(j, "span_id");
	jsonw_hex(j, q->slowest_id, sizeof(q->slowest_id));
	jsonw_key(j, "latency_ms");
	jsonw_ms(j, q->slowest_ns);
	jsonw_object_end(j);
}

static void cost_json(struct json *j, const struct request *q, const struct price_list *prices)
{
	bool is_known = q->cost >= 0;

	jsonw_key(j, "cost");
	if (is_known)
		jsonw_double(j, (double)q->cost / 1e9);
	else
		jsonw_null(j);
	jsonw_key(j, "currency");
	jsonw_text(j, is_known ? prices->currency : NULL);
	count_json(j, "calls_without_cost", q->calls_without_cost);
}

static const char *own_or_last(const char *own, const char *last)
{
	if (own[0])
		return own;
	return last[0] ? last : NULL;
}

void request_observe(const struct request *q, const struct price_list *prices, uint64_t created_ns,
                     struct buf *meta, struct buf *content)
{
	struct json j = {.out = meta};

	jsonw_key(&j, "service");
	jsonw_text(&j, q->service[0] ? q->service : NULL);
	jsonw_key(&j, "provider");
	jsonw_text(&j, own_or_last(q->provider, q->last_provider));
	jsonw_key(&j, "model");
	jsonw_text(&j, own_or_last(q->model, q->last_model));
	count_json(&j, "prompt_tokens", q->usage.input);
	count_json(&j, "completion_tokens", q->usage.output);
	count_json(&j, "total_tokens", q->usage.total);
	count_json(&j, "cached_tokens", q->usage.cache_read);
	count_json(&j, "reasoning_tokens", q->usage.reasoning);
	jsonw_key(&j, "tokens_estimated");
	jsonw_bool(&j, q->usage.estimated);
	cost_json(&j, q, prices);
	count_json(&j, "llm_calls", q->llm_calls);
	count_json(&j, "llm_calls_without_usage", q->llm_calls_without_usage);
	count_json(&j, "tool_call_count", q->tool_calls);
	count_json(&j, "span_count", q->spans);
	slowest_json(&j, q);
	jsonw_key(&j, "created_at");
	jsonw_time(&j, created_ns);

	j = (struct json){.out = content};
	jsonw_raw(&j, q->content.data, q->content.len);
	jsonw_key(&j, "tool_calls");
	jsonw_array(&j);
	jsonw_raw(&j, q->tools.data, q->tools.len);
	jsonw_array_end(&j);
}

static uint64_t known(int64_t count)
{
	return count > 0 ? (uint64_t)count : 0;
}

static void count_spend(const struct spend *s, struct metrics *m)
{
	struct str provider = str_of(s->provider), model = str_of(s->model);

	if (s->calls_without_usage > 0)
		metrics_calls_without_usage(m, provider, model, s->calls_without_usage);
	if (usage_is_known(&s->usage))
		metrics_tokens(m, provider, model, known(s->usage.input), known(s->usage.output),
		               known(s->usage.total));
	if (s->cost >= 0)
		metrics_cost(m, provider, model, (uint64_t)s->cost);
}

void request_count(const struct request *q, struct metrics *m)
{
	const struct spend *spends = (const struct spend *)(const void *)q->spends.data;
	const char *name = (const char *)q->tool_names.data;
	const char *end = name + q->tool_names.len;

	metrics_request(m, str_of(own_or_last(q->provider, q->last_provider)),
	                str_of(own_or_last(q->model, q->last_model)), q->duration_ns);
	for (size_t i = 0; i < q->spends.len / sizeof(*spends); i++)
		count_spend(&spends[i], m);
	for (; name < end; name += strlen(name) + 1)
		metrics_tool_call(m, str_of(name));
}
