#include "runs_fixture.h"

#include <pb_decode.h>
#include <pb_encode.h>

#include "core/pb.h"
#include "trace.pb.h"

enum { TRACE_ID = 1, SPAN_ID, PARENT = 4, NAME, KIND, START, END, ATTRIBUTES, EVENTS = 11 };
enum { STATUS = 15, FLAGS };

static size_t encoded(const Span *span, uint8_t *out, size_t size)
{
	pb_ostream_t stream = pb_ostream_from_buffer(out, size);

	if (!pb_encode(&stream, Span_fields, span))
		fail_msg("nanopb: %s", PB_GET_ERROR(&stream));
	return stream.bytes_written;
}

static void add_attribute(Span *span, struct buf *out, const char *key, const AnyValue *value)
{
	KeyValue *kv = &span->attributes[span->attributes_count++];
	struct str name = str_of(key);

	snprintf(kv->key, sizeof(kv->key), "%s", key);
	kv->has_value = true;
	kv->value = *value;
	if (value->which_value == AnyValue_string_value_tag)
		pb_attr_str(out, ATTRIBUTES, name, str_of(value->value.string_value));
	else if (value->which_value == AnyValue_int_value_tag)
		pb_attr_int(out, ATTRIBUTES, name, value->value.int_value);
	else if (value->which_value == AnyValue_double_value_tag)
		pb_attr_double(out, ATTRIBUTES, name, value->value.double_value);
	else
		pb_attr_bool(out, ATTRIBUTES, name, value->value.bool_value);
}

static void add_text(Span *span, struct buf *out, const char *key, size_t len)
{
	AnyValue v = {.which_value = AnyValue_string_value_tag};

	memset(v.value.string_value, 'x', len);
	add_attribute(span, out, key, &v);
}

static void test_spans_are_what_nanopb_writes_byte_for_byte(void **state)
{
	static const size_t lengths[] = {0, 1, 99, 123, 124, 125, 126, 127, 128, 129, 260};
	uint8_t want[8192];
	struct buf out;

	(void)state;
	buf_init(&out, MIB);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		size_t n = lengths[i];
		Span span = {.kind = 3,
		             .start_time_unix_nano = T0,
		             .end_time_unix_nano = UINT64_MAX,
		             .has_status = true,
		             .flags = 0x101};
		buf_clear(&out);
		memset(span.trace_id, 0xab, 16);
		memset(span.span_id, 0xcd, 8);
		memset(span.parent_span_id.bytes, 0xef, 8);
		span.parent_span_id.size = 8;
		memset(span.name, 'n', n + 1);
		pb_bytes(&out, TRACE_ID, span.trace_id, 16);
		pb_bytes(&out, SPAN_ID, span.span_id, 8);
		pb_bytes(&out, PARENT, span.parent_span_id.bytes, 8);
		pb_str(&out, NAME, str_of(span.name));
		pb_uint(&out, KIND, span.kind);
		pb_fixed64(&out, START, span.start_time_unix_nano);
		pb_fixed64(&out, END, span.end_time_unix_nano);
		add_text(&span, &out, "text", n);
		add_attribute(&span, &out, "int",
		              &(AnyValue){.which_value = AnyValue_int_value_tag,
		                          .value.int_value = -1 - (int64_t)n});
		add_attribute(&span, &out, "most",
		              &(AnyValue){.which_value = AnyValue_int_value_tag,
		                          .value.int_value = INT64_MAX});
		add_attribute(&span, &out, "double",
		              &(AnyValue){.which_value = AnyValue_double_value_tag,
		                          .value.double_value = -0.0});
		add_attribute(&span, &out, "bool",
		              &(AnyValue){.which_value = AnyValue_bool_value_tag,
		                          .value.bool_value = true});
		Event *event = &span.events[span.events_count++];
		event->time_unix_nano = 7;
		memset(event->name, 'e', n < 60 ? n + 1 : 60);
		size_t begun = pb_begin(&out, EVENTS);
		pb_fixed64(&out, 1, 7);
		pb_str(&out, 2, str_of(event->name));
		pb_end(&out, begun);
		span.status.code = 2;
		begun = pb_begin(&out, STATUS);
		pb_uint(&out, 3, 2);
		pb_end(&out, begun);
		pb_fixed32(&out, FLAGS, span.flags);
		size_t len = encoded(&span, want, sizeof(want));
		assert_int_equal(buf_error(&out), 0);
		assert_int_equal(out.len, len);
		assert_memory_equal(out.data, want, len);
	}
	buf_deinit(&out);
}

static const char *text_of_attribute(const Span *span, const char *key)
{
	for (int i = 0; i < span->attributes_count; i++)
		if (strcmp(span->attributes[i].key, key) == 0 &&
		    span->attributes[i].value.which_value == AnyValue_string_value_tag)
			return span->attributes[i].value.value.string_value;
	return "(none)";
}

static void decode_with_nanopb(Span *ret, struct bytes base, struct bytes content)
{
	uint8_t whole[8192];

	assert_true(base.len + content.len <= sizeof(whole));
	memcpy(whole, base.p, base.len);
	memcpy(whole + base.len, content.p, content.len);
	pb_istream_t stream = pb_istream_from_buffer(whole, base.len + content.len);
	if (!pb_decode(&stream, Span_fields, ret))
		fail_msg("nanopb: %s", PB_GET_ERROR(&stream));
}

static void test_nanopb_reads_a_stored_span_with_and_without_content(void **state)
{
	struct world *w = *state;
	Span span = Span_init_zero;

	start(w, "a", "'kind':'tool','name':'search','input':'question'");
	point(w, "a", "retry", "'n':1");
	end(w, "a", "'output':'answer','error':{'type':'E','message':'m'}");
	const struct saved_span *s = &w->spans[0];
	decode_with_nanopb(&span, s->base, s->content);
	assert_memory_equal(span.trace_id, s->trace_id, 16);
	assert_memory_equal(span.span_id, s->span_id, 8);
	assert_string_equal(span.name, "execute_tool search");
	assert_int_equal(span.kind, 1);
	assert_true(span.start_time_unix_nano == s->start_ns);
	assert_int_equal(span.events_count, 1);
	assert_string_equal(span.events[0].name, "retry");
	assert_int_equal(span.status.code, 2);
	assert_string_equal(span.status.message, "m");
	assert_string_equal(text_of_attribute(&span, "gen_ai.tool.call.result"), "answer");
	decode_with_nanopb(&span, s->base, (struct bytes){(char *)(uintptr_t) "", 0});
	assert_string_equal(text_of_attribute(&span, "gen_ai.tool.call.result"), "(none)");
	assert_string_equal(text_of_attribute(&span, "gen_ai.tool.name"), "search");
}

static void test_the_reader_stays_within_its_bounds(void **state)
{
	struct world *w = *state;

	start(w, "a", "'kind':'tool','name':'search'");
	end(w, "a", NULL);
	for (size_t len = 0; len < w->spans[0].base.len; len++) {
		struct bytes cut = copy_of((struct str){w->spans[0].base.p, len});
		struct pb_cursor c = pb_cursor_of(str_of_bytes(cut));
		struct pb_field f;
		int rc;
		while ((rc = pb_next(&c, &f)) == 1)
			continue;
		assert_true(rc == 0 || rc == ERR_FORMAT);
		free(cut.p);
	}
}

static void test_what_is_no_protobuf(void **state)
{
	static const struct str bad[] = {
		{"\x80", 1},                                          // a tag cut short
		{"\x00", 1},                                          // field 0
		{"\x0b", 1},                                          // a group
		{"\x0a\x02x", 3},                                     // bytes cut short
		{"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, // a length past any memory
		{"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, // eleven bytes of varint
		{"\x09zzzzzzz", 8},                                       // fixed64 cut short
		{"\x0dzzz", 4},                                           // fixed32 cut short
	};
	struct pb_field f;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pb_cursor c = pb_cursor_of(bad[i]);
		assert_int_equal(pb_next(&c, &f), ERR_FORMAT);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_spans_are_what_nanopb_writes_byte_for_byte),
		T(test_nanopb_reads_a_stored_span_with_and_without_content),
		T(test_the_reader_stays_within_its_bounds),
		T(test_what_is_no_protobuf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
