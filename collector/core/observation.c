#include "core/observation.h"

#include <string.h>

int observation_parse(struct observation_record *ret, const struct span_record *rec)
{
	struct observation_head h;

	if (rec->base.len < sizeof(h))
		return ERR_FORMAT;
	memcpy(&h, rec->base.p, sizeof(h));
	size_t meta_at = sizeof(h) + (size_t)h.root_len;
	if (meta_at > rec->base.len)
		return ERR_FORMAT;
	*ret = (struct observation_record){
		.seq = rec->seq,
		.start_ns = h.start_ns,
		.created_ns = h.created_ns,
		.kind = rec->head.kind,
		.status = rec->head.status,
		.root = {rec->base.p + sizeof(h), h.root_len},
		.meta = {rec->base.p + meta_at, rec->base.len - meta_at},
		.content = rec->content,
	};
	memcpy(ret->trace_id, h.trace_id, sizeof(ret->trace_id));
	memcpy(ret->span_id, h.span_id, sizeof(ret->span_id));
	return 0;
}
