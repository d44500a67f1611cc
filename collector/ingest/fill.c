#include "ingest/fill.h"

#include <string.h>

#include "core/id.h"
#include "core/observation.h"

int fill_span(struct batch *b, const struct finished_span *span)
{
	struct record_parts parts = {
		.head = span->head,
		.base = &span->base,
		.base_count = 1,
		.content = &span->content,
		.content_count = 1,
		.start_ns = span->start_ns,
		.end_ns = span->end_ns,
	};
	struct str resource = {(char *)span->source->resource.data, span->source->resource.len};

	memcpy(parts.trace_id, span->trace_id, sizeof(parts.trace_id));
	return batch_add_record(&b->spans, &parts, span->source->id, resource);
}

int fill_observation(struct batch *b, const struct observation *o)
{
	struct observation_head head = {
		.start_ns = o->start_ns,
		.created_ns = o->created_ns,
		.root_len = (uint32_t)o->root.len,
	};
	struct str base[3] = {{(char *)&head, sizeof(head)}, o->root, o->meta};
	struct record_parts parts = {
		.head = {.kind = (uint8_t)o->kind, .status = (uint8_t)o->status},
		.base = base,
		.base_count = 3,
		.content = &o->content,
		.content_count = 1,
		.start_ns = o->start_ns,
		.end_ns = o->created_ns,
	};

	memcpy(head.trace_id, o->trace_id, sizeof(head.trace_id));
	memcpy(head.span_id, o->span_id, sizeof(head.span_id));
	memcpy(parts.trace_id, o->trace_id, sizeof(parts.trace_id));
	uint64_t resource_id = id_hash64(0, o->resource.p, o->resource.len);
	return batch_add_record(&b->observations, &parts, resource_id, o->resource);
}

int fill_event(struct batch *b, const struct orphan_event *e)
{
	struct observation_head head = {
		.start_ns = e->time_ns,
		.created_ns = e->received_ns,
		.root_len = (uint32_t)e->span.len,
	};
	struct str base[2] = {{(char *)&head, sizeof(head)}, e->span};
	// Without a trace id of its own in the directory: it is nobody's observation.
	struct record_parts parts = {
		.head = {.kind = KIND_OTHER, .flags = RECORD_EVENT},
		.base = base,
		.base_count = 2,
		.start_ns = e->time_ns,
		.end_ns = e->received_ns,
	};
	struct str resource = {(char *)e->source->resource.data, e->source->resource.len};

	memcpy(head.trace_id, e->trace_id, sizeof(head.trace_id));
	memcpy(head.span_id, e->span_id, sizeof(head.span_id));
	uint64_t resource_id = id_hash64(0, resource.p, resource.len);
	int rc = batch_add_record(&b->observations, &parts, resource_id, resource);
	b->events += rc == 0;
	return rc;
}
