/* Log requests, read back field by field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/encode.h"
#include "core/observation.h"
#include "core/otlp_fields.h"
#include "core/otlp_logs.h"
#include "core/pb.h"

/* A record of the observations log. */
struct record {
	struct buf base;
	struct span_record rec;
};

static const struct span_ids ids = {.trace_id = {1, 2, 3}, .span_id = {4, 5, 6}};

static void make(struct record *r, uint8_t flags, struct buf *root, const char *meta,
                 const char *content)
{
	struct observation_head head = {.start_ns = 1000, .created_ns = 9000};

	memcpy(head.trace_id, ids.trace_id, sizeof(head.trace_id));
	memcpy(head.span_id, ids.span_id, sizeof(head.span_id));
	head.root_len = (uint32_t)root->len;
	buf_init(&r->base, 65536);
	buf_append(&r->base, &head, sizeof(head));
	buf_append(&r->base, root->data, root->len);
	buf_append_str(&r->base, meta);
	r->rec = (struct span_record){
		.head = {.status = STATUS_ERROR, .flags = flags},
		.base = {(char *)r->base.data, r->base.len},
		.content = str_of(content),
		.resource = STR("\x0a\x00"),
	};
	buf_deinit(root);
}

static void make_observation(struct record *r)
{
	struct buf root;

	buf_init(&root, 4096);
	encode_prefix(&root, &ids, 1000);
	pb_str(&root, SPAN_NAME, STR("invoke_agent a"));
	pb_fixed64(&root, SPAN_END, 1000 + 2500000000u);
	pb_attr_int(&root, SPAN_ATTRIBUTES, STR("gen_ai.usage.input_tokens"), 7);
	make(r, 0, &root,
	     "\"provider\":\"openai\",\"model\":null,\"prompt_tokens\":7,\"completion_tokens\":9,"
	     "\"tokens_estimated\":true,\"llm_calls\":2,\"llm_calls_without_usage\":1,"
	     "\"cost\":0.5,\"currency\":\"EUR\",\"calls_without_cost\":1",
	     "\"user_message\":\"hi \\\"you\\\"\",\"agent_response\":null,\"tool_calls\":[]");
}

static void make_event(struct record *r)
{
	struct buf root;

	buf_init(&root, 4096);
	size_t event = pb_begin(&root, SPAN_EVENTS);
	pb_fixed64(&root, EVENT_TIME, 77);
	pb_str(&root, EVENT_NAME, STR("retry"));
	pb_attr_int(&root, EVENT_ATTRIBUTES, STR("n"), 3);
	pb_end(&root, event);
	make(r, RECORD_EVENT, &root, "", "");
}

/* --- reading back --- */

static struct str field(struct str message, uint32_t number)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct pb_field f;
	struct str found = {0};
	int rc;

	while ((rc = pb_next(&c, &f)) > 0)
		if (f.number == number && f.wire == PB_BYTES)
			found = f.bytes;
	assert_int_equal(rc, 0);
	return found;
}

static uint64_t number(struct str message, uint32_t which)
{
	struct pb_cursor c = pb_cursor_of(message);
	struct pb_field f;
	uint64_t found = 0;

	while (pb_next(&c, &f) > 0)
		if (f.number == which)
			found = f.value;
	return found;
}

/* The value of an attribute, encoded; how many of the name there are must be one or none. */
static struct str attribute(struct str record, const char *name)
{
	struct pb_cursor c = pb_cursor_of(record);
	struct pb_field f;
	struct str found = {0};

	while (pb_next(&c, &f) > 0) {
		if (f.number != 6 || !str_eq(field(f.bytes, KEYVALUE_KEY), str_of(name)))
			continue;
		assert_null(found.p);
		found = field(f.bytes, KEYVALUE_VALUE);
	}
	return found;
}

static struct str text_attribute(struct str record, const char *name)
{
	return field(attribute(record, name), ANY_STRING);
}

static struct str first_record(const struct buf *request)
{
	struct str group = field((struct str){(char *)request->data, request->len}, 1);

	return field(field(group, 2), 2);
}

static void assert_text(struct str s, const char *expected)
{
	assert_int_equal(s.len, strlen(expected));
	assert_memory_equal(s.p, expected, s.len);
}

static const struct otlp_limits plain = {100, 1000000, false}, full = {100, 1000000, true};

static void an_observation_becomes_a_log_event(void **state)
{
	struct record r;
	struct buf out;

	make_observation(&r);
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, &r.rec, 1, &plain), 1);
	struct str log = first_record(&out);
	assert_int_equal(number(log, 1), 1000 + 2500000000u);
	assert_int_equal(number(log, 2), 17);
	assert_text(field(log, 3), "ERROR");
	assert_memory_equal(field(log, 9).p, ids.trace_id, 16);
	assert_memory_equal(field(log, 10).p, ids.span_id, 8);
	assert_int_equal(number(log, 11), 9000);
	assert_text(field(log, 12), "sidelight.observation");
	assert_text(field(field(log, 5), ANY_STRING), "invoke_agent a");
	assert_int_equal(number(attribute(log, "gen_ai.usage.input_tokens"), ANY_INT), 7);
	assert_int_equal(number(attribute(log, "gen_ai.usage.output_tokens"), ANY_INT), 9);
	assert_int_equal(number(attribute(log, "sidelight.llm_calls"), ANY_INT), 2);
	assert_int_equal(number(attribute(log, "sidelight.llm_calls_without_usage"), ANY_INT), 1);
	assert_int_equal(number(attribute(log, "sidelight.usage.estimated"), ANY_BOOL), 1);
	assert_int_equal(number(attribute(log, "sidelight.calls_without_cost"), ANY_INT), 1);
	assert_text(text_attribute(log, "sidelight.currency"), "EUR");
	uint64_t half = number(attribute(log, "sidelight.cost"), ANY_DOUBLE);
	assert_memory_equal(&half, &(double){0.5}, sizeof(half));
	assert_text(text_attribute(log, "gen_ai.provider.name"), "openai");
	assert_text(text_attribute(log, "sidelight.status"), "error");
	assert_null(attribute(log, "gen_ai.request.model").p);
	assert_null(attribute(log, "sidelight.user_message").p);
	buf_deinit(&out);
	buf_deinit(&r.base);
}

/* A cancelled root's span has said so, and where it failed; OTLP wants each key once. */
static void what_the_root_says_is_not_said_again(void **state)
{
	struct record r;
	struct buf root, out;

	buf_init(&root, 4096);
	encode_prefix(&root, &ids, 1000);
	pb_fixed64(&root, SPAN_END, 2000);
	pb_attr_str(&root, SPAN_ATTRIBUTES, STR("sidelight.status"), STR("cancelled"));
	pb_attr_str(&root, SPAN_ATTRIBUTES, STR("gen_ai.provider.name"), STR("openai"));
	pb_attr_double(&root, SPAN_ATTRIBUTES, STR("sidelight.duration"), 7);
	make(&r, 0, &root, "\"provider\":\"other\"", "");
	r.rec.head.status = STATUS_CANCELLED;
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, &r.rec, 1, &plain), 1);
	struct str log = first_record(&out);
	assert_text(text_attribute(log, "sidelight.status"), "cancelled");
	assert_text(text_attribute(log, "gen_ai.provider.name"), "openai");
	assert_non_null(attribute(log, "sidelight.duration").p);
	assert_int_equal(number(log, 2), 9);
	buf_deinit(&out);
	buf_deinit(&r.base);
}

/* Whatever a damaged or foreign span says of its times. */
static void a_root_that_ended_before_it_began_took_no_time(void **state)
{
	struct record r;
	struct buf root, out;
	double seconds;

	buf_init(&root, 4096);
	encode_prefix(&root, &ids, 1000);
	pb_fixed64(&root, SPAN_END, 10);
	make(&r, 0, &root, "", "");
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, &r.rec, 1, &plain), 1);
	uint64_t bits = number(attribute(first_record(&out), "sidelight.duration"), ANY_DOUBLE);
	memcpy(&seconds, &bits, sizeof(seconds));
	assert_true(seconds >= 0 && seconds < 1e-9);
	buf_deinit(&out);
	buf_deinit(&r.base);
}

static void content_goes_along_only_when_asked_for(void **state)
{
	struct record r;
	struct buf out;

	make_observation(&r);
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, &r.rec, 1, &full), 1);
	struct str log = first_record(&out);
	assert_text(text_attribute(log, "sidelight.user_message"), "hi \"you\"");
	assert_null(attribute(log, "sidelight.agent_response").p);
	assert_null(attribute(log, "sidelight.tool_call_list").p);
	buf_deinit(&out);
	buf_deinit(&r.base);
}

static void an_event_without_a_span_keeps_its_name_and_attributes(void **state)
{
	struct record r;
	struct buf out;

	make_event(&r);
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, &r.rec, 1, &plain), 1);
	struct str log = first_record(&out);
	assert_int_equal(number(log, 1), 77);
	assert_int_equal(number(log, 2), 9);
	assert_text(field(log, 12), "retry");
	assert_int_equal(number(attribute(log, "n"), ANY_INT), 3);
	assert_memory_equal(field(log, 9).p, ids.trace_id, 16);
	buf_deinit(&out);
	buf_deinit(&r.base);
}

static void requests_keep_to_their_limits(void **state)
{
	struct span_record records[10];
	struct record r, other;
	struct buf out;

	make_observation(&r);
	make_event(&other);
	other.rec.resource = STR("\x10\x01");
	for (int i = 0; i < 10; i++)
		records[i] = i % 4 == 3 ? other.rec : r.rec;
	buf_init(&out, 65536);
	assert_int_equal(otlp_log_request(&out, records, 10, &full), 10);
	size_t all = out.len;
	struct otlp_limits limits = {4, 1000000, true};
	assert_int_equal(otlp_log_request(&out, records, 10, &limits), 4);
	limits = (struct otlp_limits){100, 1, true};
	assert_int_equal(otlp_log_request(&out, records, 10, &limits), 1);
	for (size_t bytes = 1; bytes < all; bytes += 13) {
		limits.bytes = bytes;
		size_t n = otlp_log_request(&out, records, 10, &limits);
		assert_true(n == 1 || out.len <= bytes + 32); // so less than all 10
		assert_true(n < 10 || bytes + 32 >= all);
		assert_true(first_record(&out).len > 0);
	}
	buf_deinit(&out);
	buf_deinit(&r.base);
	buf_deinit(&other.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_observation_becomes_a_log_event),
		cmocka_unit_test(what_the_root_says_is_not_said_again),
		cmocka_unit_test(a_root_that_ended_before_it_began_took_no_time),
		cmocka_unit_test(content_goes_along_only_when_asked_for),
		cmocka_unit_test(an_event_without_a_span_keeps_its_name_and_attributes),
		cmocka_unit_test(requests_keep_to_their_limits),
	};

	return cmocka_run_group_tests_name("otlp_logs", tests, NULL, NULL);
}
