#include "core/otlp.h"

#include "core/pb.h"

enum {
	REQUEST_RESOURCE_SPANS = 1,
	RESOURCE_SPANS_RESOURCE = 1,
	RESOURCE_SPANS_SCOPE_SPANS = 2,
	SCOPE_SPANS_SCOPE = 1,
	SCOPE_SPANS_SPANS = 2,
	SCOPE_NAME = 1,
	SCOPE_VERSION = 2,
	RESPONSE_PARTIAL_SUCCESS = 1,
	PARTIAL_REJECTED = 1,
	PARTIAL_MESSAGE = 2,
	STATUS_MESSAGE = 2,
};

static const struct str scope_name = {"sidelight", sizeof("sidelight") - 1};
static const struct str scope_version = {SIDELIGHT_VERSION, sizeof(SIDELIGHT_VERSION) - 1};

/* Of a length-delimited field: all fields here have tags of one byte. */
static size_t field_size(size_t len)
{
	return 1 + pb_varint_size(len) + len;
}

static void put_length(struct buf *out, uint32_t field, size_t len)
{
	pb_varint(out, field << 3 | PB_BYTES);
	pb_varint(out, len);
}

static size_t span_len(const struct span_record *span, bool content)
{
	return (size_t)span->base.len + (content ? span->content.len : 0);
}

static size_t scope_len(void)
{
	return field_size(scope_name.len) + field_size(scope_version.len);
}

/* Spans that follow each other with one resource, and the size of their fields together. */
struct group {
	size_t count;
	size_t bytes;
};

static size_t scope_spans_len(const struct group *g)
{
	return field_size(scope_len()) + g->bytes;
}

static size_t resource_spans_len(const struct group *g, struct str resource)
{
	return (resource.len ? field_size(resource.len) : 0) + field_size(scope_spans_len(g));
}

static bool same_resource(struct str a, struct str b)
{
	return (a.p == b.p && a.len == b.len) || str_eq(a, b);
}

/* used: bytes and spans of the request so far. */
static struct group gather(const struct span_record *spans, size_t count,
                           const struct otlp_limits *limits, size_t used_spans, size_t used_bytes)
{
	struct group g = {0};
	struct str resource = spans[0].resource;

	while (g.count < count && same_resource(spans[g.count].resource, resource)) {
		struct group next = {
			g.count + 1,
			g.bytes + field_size(span_len(&spans[g.count], limits->content)),
		};
		bool fits = used_spans + next.count <= limits->spans &&
		            used_bytes + field_size(resource_spans_len(&next, resource)) <=
		                    limits->bytes;
		if (!fits && used_spans + g.count > 0)
			break;
		g = next;
	}
	return g;
}

static void put_group(struct buf *out, const struct span_record *spans, const struct group *g,
                      bool content)
{
	struct str resource = spans[0].resource;

	put_length(out, REQUEST_RESOURCE_SPANS, resource_spans_len(g, resource));
	if (resource.len)
		pb_str(out, RESOURCE_SPANS_RESOURCE, resource);
	put_length(out, RESOURCE_SPANS_SCOPE_SPANS, scope_spans_len(g));
	put_length(out, SCOPE_SPANS_SCOPE, scope_len());
	pb_str(out, SCOPE_NAME, scope_name);
	pb_str(out, SCOPE_VERSION, scope_version);
	for (size_t i = 0; i < g->count; i++) {
		put_length(out, SCOPE_SPANS_SPANS, span_len(&spans[i], content));
		buf_append(out, spans[i].base.p, spans[i].base.len);
		if (content)
			buf_append(out, spans[i].content.p, spans[i].content.len);
	}
}

size_t otlp_request(struct buf *out, const struct span_record *spans, size_t count,
                    const struct otlp_limits *limits)
{
	size_t done = 0;

	buf_clear(out);
	while (done < count) {
		struct group g = gather(spans + done, count - done, limits, done, out->len);
		if (g.count == 0)
			break;
		put_group(out, spans + done, &g, limits->content);
		done += g.count;
	}
	return done;
}

static int read_partial(struct otlp_answer *ret, struct str bytes)
{
	struct pb_cursor c = pb_cursor_of(bytes);
	struct pb_field f;
	int r;

	while ((r = pb_next(&c, &f)) > 0) {
		if (f.number == PARTIAL_REJECTED && f.wire == PB_VARINT)
			ret->rejected = f.value > INT64_MAX ? 0 : f.value;
		else if (f.number == PARTIAL_MESSAGE && f.wire == PB_BYTES)
			ret->message = f.bytes;
	}
	return r;
}

int otlp_answer(struct otlp_answer *ret, struct str body)
{
	struct pb_cursor c = pb_cursor_of(body);
	struct otlp_answer answer = {0};
	struct pb_field f;
	int r;

	while ((r = pb_next(&c, &f)) > 0) {
		if (f.number != RESPONSE_PARTIAL_SUCCESS || f.wire != PB_BYTES)
			continue;
		r = read_partial(&answer, f.bytes);
		if (r < 0)
			return r;
	}
	if (r == 0)
		*ret = answer;
	return r;
}

struct str otlp_status_message(struct str body)
{
	struct pb_cursor c = pb_cursor_of(body);
	struct str message = {0};
	struct pb_field f;
	int r;

	while ((r = pb_next(&c, &f)) > 0)
		if (f.number == STATUS_MESSAGE && f.wire == PB_BYTES)
			message = f.bytes;
	return r == 0 && utf8_is_valid(message.p, message.len) ? message : (struct str){0};
}
