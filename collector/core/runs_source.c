#include <stdlib.h>

#include "base/caps.h"
#include "core/runs_private.h"

void source_free(struct source *s)
{
	list_remove(&s->in_table);
	list_remove(&s->in_closing);
	buf_deinit(&s->resource);
	free(s);
}

struct source *runs_add_source(struct runs *r, int64_t pid, uint64_t pid_start, struct str resource)
{
	struct source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	buf_init(&s->resource, CAP_RESOURCE);
	buf_append(&s->resource, resource.p, resource.len);
	if (buf_error(&s->resource)) {
		free(s);
		return NULL;
	}
	s->id = ++r->last_source_id;
	s->pid = pid;
	s->pid_start = pid_start;
	s->connected = true;
	list_init(&s->members);
	list_append(&r->sources, &s->in_table);
	return s;
}

void runs_drop_source(struct runs *r, struct source *s)
{
	s->connected = false;
	if (s->runs == 0)
		source_free(s);
}

void source_attach(struct source *s, struct run *run)
{
	run->source = s;
	s->runs++;
	list_append(&s->members, &run->in_source);
}

void source_release(struct source *s)
{
	if (--s->runs == 0 && !s->connected)
		source_free(s);
}

void source_detach(struct runs *r, struct run *run)
{
	struct source *s = run->source;

	list_remove(&run->in_source);
	run->source = NULL;
	source_release(s);
}

void runs_each_orphaned(struct runs *r, source_fn *fn, void *ctx)
{
	struct list_node *node = r->sources.next, *next;

	// All are held meanwhile: what fn does to one may end the last run of another.
	for (; node != &r->sources; node = node->next)
		container_of(node, struct source, in_table)->runs++;
	for (node = r->sources.next; node != &r->sources; node = next) {
		struct source *s = container_of(node, struct source, in_table);
		if (!s->connected)
			fn(ctx, s);
		next = node->next;
		source_release(s);
	}
}

static void move_runs(struct source *from, struct source *to)
{
	for (struct list_node *n = from->members.next; n != &from->members; n = n->next)
		container_of(n, struct run, in_source)->source = to;
	to->runs += from->runs;
	from->runs = 0;
	list_move_all(&to->members, &from->members);
}

/* One process, described alike: a connection doesn't take what another one of it began. */
static bool is_same_peer(const struct source *a, const struct source *b)
{
	struct str of_a = {(const char *)a->resource.data, a->resource.len};
	struct str of_b = {(const char *)b->resource.data, b->resource.len};

	return a->pid == b->pid && a->pid_start == b->pid_start && str_eq(of_a, of_b);
}

void runs_adopt(struct runs *r, struct source *s)
{
	struct list_node *node = r->sources.next, *next;

	if (s->pid == 0)
		return;
	for (; node != &r->sources; node = next) {
		next = node->next;
		struct source *old = container_of(node, struct source, in_table);
		if (old->connected || old->closing || !is_same_peer(old, s))
			continue;
		move_runs(old, s);
		source_free(old);
	}
}
