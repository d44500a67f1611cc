#include "store/batch.h"

#include <errno.h>
#include <string.h>

#include "base/caps.h"

enum {
	/* The loop stops reading at CAP_BATCH; what it may still have to close then, held runs
	 * whose parent came late among them, is bounded by the run table. */
	PART_CAP = 24 * CAP_BATCH,
	/* LMDB puts 16 bytes before a long value: with them a full block is whole pages. */
	BLOCK_LIMIT = CAP_BLOCK - 16,
};

static void writer_init(struct block_writer *w, enum block_type type)
{
	*w = (struct block_writer){.type = type};
	buf_init(&w->bytes, PART_CAP);
	buf_init(&w->marks, PART_CAP);
}

static void writer_deinit(struct block_writer *w)
{
	buf_deinit(&w->bytes);
	buf_deinit(&w->marks);
}

/* Empties b; keeps its room but for what only an uncommonly large record can have needed. */
static void buf_reset(struct buf *b)
{
	if (b->room > 2 * CAP_BATCH)
		buf_deinit(b);
	buf_clear(b);
}

static void writer_clear(struct block_writer *w)
{
	buf_reset(&w->bytes);
	buf_reset(&w->marks);
	w->open = false;
	w->count = 0;
	w->blocks = 0;
}

void batch_init(struct batch *b)
{
	writer_init(&b->spans, BLOCK_SPANS);
	writer_init(&b->observations, BLOCK_OBSERVATIONS);
	buf_init(&b->opens, PART_CAP);
}

void batch_deinit(struct batch *b)
{
	writer_deinit(&b->spans);
	writer_deinit(&b->observations);
	buf_deinit(&b->opens);
}

void batch_clear(struct batch *b)
{
	writer_clear(&b->spans);
	writer_clear(&b->observations);
	buf_reset(&b->opens);
	b->events = 0;
}

bool batch_is_empty(const struct batch *b)
{
	return batch_bytes(b) == 0;
}

size_t batch_bytes(const struct batch *b)
{
	return b->spans.bytes.len + b->observations.bytes.len + b->opens.len;
}

/* Room for n bytes, or the error; the buffer itself stays usable. */
static int reserve(struct buf *b, size_t n)
{
	if (buf_reserve(b, n))
		return 0;
	int error = b->error;
	b->error = 0;
	return error;
}

/* --- records --- */

/* The number that the block's heads use for a resource; 0 when the block doesn't have it yet. */
static uint16_t find_resource(const struct block_writer *w, uint64_t id)
{
	if (!w->open)
		return 0;
	for (unsigned i = w->resources; i > 0; i--) {
		if (w->resource_ids[i - 1] == id)
			return (uint16_t)i;
	}
	return 0;
}

static void begin_block(struct block_writer *w)
{
	w->block = w->bytes.len;
	w->header = (struct block_header){
		.magic = {'S', 'L', 'B', '1'},
		.version = BLOCK_VERSION,
		.type = (uint16_t)w->type,
		.length = sizeof(struct block_header),
		.start_ns = UINT64_MAX,
	};
	buf_append(&w->bytes, &w->header, sizeof(w->header));
	w->open = true;
	w->resources = 0;
	w->blocks++;
}

static uint16_t add_resource(struct block_writer *w, uint64_t id, struct str resource)
{
	struct record_head h = {.base_len = (uint32_t)resource.len, .flags = RECORD_RESOURCE};

	buf_append(&w->bytes, &h, sizeof(h));
	buf_append(&w->bytes, resource.p, resource.len);
	w->resource_ids[w->resources++] = id;
	return (uint16_t)w->resources;
}

static size_t slices_len(const struct str *slices, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len += slices[i].len;
	return len;
}

static void append_slices(struct buf *b, const struct str *slices, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		buf_append(b, slices[i].p, slices[i].len);
}

/* Writes the header anew with the record that was just appended. */
static void count_record(struct block_writer *w, const struct record_parts *parts)
{
	struct block_header *h = &w->header;

	h->count++;
	h->length = (uint32_t)(w->bytes.len - w->block);
	if (parts->start_ns < h->start_ns)
		h->start_ns = parts->start_ns;
	if (parts->end_ns > h->end_ns)
		h->end_ns = parts->end_ns;
	memcpy(w->bytes.data + w->block, h, sizeof(*h));
	w->count++;
}

static void add_mark(struct block_writer *w, const uint8_t trace_id[16])
{
	uint32_t fingerprint = trace_fingerprint(trace_id);
	const void *mark = w->type == BLOCK_OBSERVATIONS ? (const void *)trace_id : &fingerprint;

	buf_append(&w->marks, mark, mark_bytes(w->type));
}

int batch_add_record(struct block_writer *w, struct record_parts *parts, uint64_t resource_id,
                     struct str resource)
{
	size_t base = slices_len(parts->base, parts->base_count);
	size_t content = slices_len(parts->content, parts->content_count);
	size_t record = sizeof(parts->head) + base + content;
	size_t with_resource = sizeof(parts->head) + resource.len;
	uint16_t known = resource_id ? find_resource(w, resource_id) : 0;
	bool is_new = resource_id && !known;

	/* Before anything is written there is room for all of it, so that nothing fails halfway. */
	if (base > PART_CAP || content > PART_CAP || resource.len > PART_CAP)
		return -ENOSPC;
	int rc = reserve(&w->bytes, sizeof(w->header) + with_resource + record);
	if (rc == 0)
		rc = reserve(&w->marks, mark_bytes(w->type));
	if (rc != 0)
		return rc;

	size_t need = record + (is_new ? with_resource : 0);
	if (!w->open || w->header.length + need > BLOCK_LIMIT ||
	    (is_new && w->resources == BLOCK_RESOURCES)) {
		begin_block(w);
		is_new = resource_id != 0;
	}
	parts->head.base_len = (uint32_t)base;
	parts->head.content_len = (uint32_t)content;
	parts->head.resource = is_new ? add_resource(w, resource_id, resource) : known;
	buf_append(&w->bytes, &parts->head, sizeof(parts->head));
	append_slices(&w->bytes, parts->base, parts->base_count);
	append_slices(&w->bytes, parts->content, parts->content_count);
	count_record(w, parts);
	add_mark(w, parts->trace_id);
	return 0;
}

/* --- open runs --- */

int batch_put_open(struct batch *b, const struct run_id *run, const struct open_head *head,
                   struct str base, struct str content, struct str resource, struct str state)
{
	struct str parts[] = {base, content, resource, state};
	size_t len = sizeof(*head) + slices_len(parts, 4);
	struct open_change change = {.run = *run, .len = (uint32_t)len};
	struct open_head h = *head;

	for (unsigned i = 0; i < 4; i++) {
		if (parts[i].len > PART_CAP)
			return -ENOSPC;
	}
	int rc = reserve(&b->opens, sizeof(change) + len);
	if (rc != 0)
		return rc;
	h.record.base_len = (uint32_t)base.len;
	h.record.content_len = (uint32_t)content.len;
	h.resource_len = (uint32_t)resource.len;
	h.state_len = (uint32_t)state.len;
	buf_append(&b->opens, &change, sizeof(change));
	buf_append(&b->opens, &h, sizeof(h));
	append_slices(&b->opens, parts, 4);
	return 0;
}

int batch_delete_open(struct batch *b, const struct run_id *run)
{
	struct open_change change = {.run = *run, .len = OPEN_DELETE};
	int rc = reserve(&b->opens, sizeof(change));

	if (rc == 0)
		buf_append(&b->opens, &change, sizeof(change));
	return rc;
}

static struct str take(const char **p, size_t n)
{
	struct str got = {*p, n};

	*p += n;
	return got;
}

int open_parse(struct open_parts *ret, struct str value)
{
	struct open_head h;

	if (value.len < sizeof(h))
		return ERR_CORRUPT;
	memcpy(&h, value.p, sizeof(h));
	uint64_t need = sizeof(h) + (uint64_t)h.record.base_len + h.record.content_len +
	                h.resource_len + h.state_len;
	if (need != value.len)
		return ERR_CORRUPT;
	const char *p = value.p + sizeof(h);
	ret->head = h;
	ret->base = take(&p, h.record.base_len);
	ret->content = take(&p, h.record.content_len);
	ret->resource = take(&p, h.resource_len);
	ret->state = take(&p, h.state_len);
	return 0;
}
