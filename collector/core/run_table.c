#include <errno.h>
#include <stdlib.h>

#include "core/runs_private.h"

enum { SLAB = 256, FIRST_BUCKETS = 1024 };

struct run_slab {
	struct run_slab *next;
	struct run runs[SLAB];
};

struct request_slab {
	struct request_slab *next;
	struct table_request requests[SLAB / 8];
};

static size_t hash_of(const uint8_t id[16])
{
	uint64_t a, b;

	// Ids of version 7 share their first bytes, so both halves are mixed in.
	memcpy(&a, id, sizeof(a));
	memcpy(&b, id + 8, sizeof(b));
	a = (a ^ (b >> 29) ^ b * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	return (size_t)(a ^ a >> 32);
}

int table_init(struct runs *r)
{
	r->bucket_count = FIRST_BUCKETS;
	r->buckets = calloc(r->bucket_count, sizeof(*r->buckets));
	return r->buckets ? 0 : -ENOMEM;
}

void table_deinit(struct runs *r)
{
	while (r->slabs) {
		struct run_slab *slab = r->slabs;
		r->slabs = slab->next;
		free(slab);
	}
	while (r->request_slabs) {
		struct request_slab *slab = r->request_slabs;
		r->request_slabs = slab->next;
		for (int i = 0; i < SLAB / 8; i++)
			request_deinit(&slab->requests[i].sums);
		free(slab);
	}
	free(r->buckets);
}

struct run *table_find(const struct runs *r, const struct run_id *id)
{
	struct run *run = r->buckets[hash_of(id->b) & (r->bucket_count - 1)];

	while (run && memcmp(&run->id, id, sizeof(*id)) != 0)
		run = run->next;
	return run;
}

/* Doubling is put off when there is no memory for it: chains only get longer. */
static void grow(struct runs *r)
{
	size_t count = r->bucket_count * 2;
	struct run **buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		return;
	for (size_t i = 0; i < r->bucket_count; i++) {
		while (r->buckets[i]) {
			struct run *run = r->buckets[i];
			r->buckets[i] = run->next;
			size_t at = hash_of(run->id.b) & (count - 1);
			run->next = buckets[at];
			buckets[at] = run;
		}
	}
	free(r->buckets);
	r->buckets = buckets;
	r->bucket_count = count;
}

static struct run *take_free_run(struct runs *r)
{
	if (!r->free_runs) {
		struct run_slab *slab = malloc(sizeof(*slab));
		if (!slab)
			return NULL;
		slab->next = r->slabs;
		r->slabs = slab;
		for (int i = SLAB - 1; i >= 0; i--) {
			slab->runs[i].next = r->free_runs;
			r->free_runs = &slab->runs[i];
		}
	}
	struct run *run = r->free_runs;
	r->free_runs = run->next;
	return run;
}

struct run *table_insert(struct runs *r, const struct run_id *id)
{
	struct run *run = take_free_run(r);

	if (!run)
		return NULL;
	if (r->count >= r->bucket_count)
		grow(r);
	size_t at = hash_of(id->b) & (r->bucket_count - 1);
	*run = (struct run){.id = *id, .next = r->buckets[at]};
	r->buckets[at] = run;
	r->count++;
	list_append(&r->age, &run->in_age);
	return run;
}

void table_remove(struct runs *r, struct run *run)
{
	struct run **at = &r->buckets[hash_of(run->id.b) & (r->bucket_count - 1)];

	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	r->count--;
	list_remove(&run->in_age);
	list_remove(&run->in_dirty);
	run->next = r->free_runs;
	r->free_runs = run;
}

static struct table_request **trace_bucket(struct runs *r, const uint8_t trace_id[16])
{
	return &r->by_trace[hash_of(trace_id) % TRACE_BUCKETS];
}

static struct table_request **await_bucket(struct runs *r, const struct run_id *id)
{
	return &r->awaiting[hash_of(id->b) % AWAIT_BUCKETS];
}

static struct table_request *take_free_request(struct runs *r)
{
	if (!r->free_requests) {
		struct request_slab *slab = calloc(1, sizeof(*slab));
		if (!slab)
			return NULL;
		slab->next = r->request_slabs;
		r->request_slabs = slab;
		for (int i = SLAB / 8 - 1; i >= 0; i--) {
			request_init(&slab->requests[i].sums);
			slab->requests[i].next_free = r->free_requests;
			r->free_requests = &slab->requests[i];
		}
	}
	struct table_request *q = r->free_requests;
	r->free_requests = q->next_free;
	return q;
}

struct table_request *request_new(struct runs *r, const uint8_t trace_id[16],
                                  const struct run_id *root)
{
	struct table_request *q = take_free_request(r);
	uint8_t root_span[8];

	if (!q)
		return NULL;
	struct request sums = q->sums; // its buffers' room is used again
	*q = (struct table_request){.sums = sums, .root = *root};
	span_id_of(root_span, root);
	memcpy(q->tag, root_span, sizeof(q->tag));
	list_init(&q->members);
	memcpy(q->trace_id, trace_id, sizeof(q->trace_id));
	struct table_request **bucket = trace_bucket(r, trace_id);
	q->next_by_trace = *bucket;
	*bucket = q;
	return q;
}

static void leave_trace(struct runs *r, struct table_request *q)
{
	struct table_request **at = trace_bucket(r, q->trace_id);

	while (*at != q)
		at = &(*at)->next_by_trace;
	*at = q->next_by_trace;
}

void request_release(struct runs *r, struct table_request *q)
{
	request_stop_awaiting(r, q);
	leave_trace(r, q);
	list_remove(&q->in_due);
	request_clear(&q->sums);
	q->next_free = r->free_requests;
	r->free_requests = q;
}

struct table_request *request_by_trace(const struct runs *r, const uint8_t trace_id[16])
{
	struct table_request *q = r->by_trace[hash_of(trace_id) % TRACE_BUCKETS];

	while (q && memcmp(q->trace_id, trace_id, sizeof(q->trace_id)) != 0)
		q = q->next_by_trace;
	return q;
}

struct table_request *request_find(const struct runs *r, const uint8_t trace_id[16],
                                   const uint8_t tag[3])
{
	struct table_request *q = request_by_trace(r, trace_id);

	while (q && (memcmp(q->trace_id, trace_id, sizeof(q->trace_id)) != 0 ||
	             memcmp(q->tag, tag, sizeof(q->tag)) != 0))
		q = q->next_by_trace;
	return q;
}

void request_await(struct runs *r, struct table_request *q, const struct run_id *parent)
{
	struct table_request **bucket = await_bucket(r, parent);

	q->waits_for_parent = true;
	q->awaited = *parent;
	q->next_awaiting = *bucket;
	*bucket = q;
	r->awaiting_count++;
}

void request_stop_awaiting(struct runs *r, struct table_request *q)
{
	if (!q->waits_for_parent)
		return;
	struct table_request **at = await_bucket(r, &q->awaited);
	while (*at != q)
		at = &(*at)->next_awaiting;
	*at = q->next_awaiting;
	q->waits_for_parent = false;
	r->awaiting_count--;
	list_remove(&q->in_due);
}

struct table_request *request_awaiting(const struct runs *r, const struct run_id *parent)
{
	struct table_request *q;

	if (r->awaiting_count == 0)
		return NULL;
	q = r->awaiting[hash_of(parent->b) % AWAIT_BUCKETS];
	while (q && memcmp(&q->awaited, parent, sizeof(*parent)) != 0)
		q = q->next_awaiting;
	return q;
}
