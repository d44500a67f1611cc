#include "message.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "link.h"

#define NAME_MOST 1024  // bytes of a name, a model, a key; the collector's limit
#define ATTRS_MOST 1023 // the collector's limit, and one for the cuts

enum { HELLO, START, END, POINT, FLUSH, FLUSHED, DROPPED, BYE, CHILD = 9 };

uint64_t sl_unix_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- Fields ---- */

/* The message's own map, whose head is written once the number of its keys is known: 15 at most. */
struct fields {
	size_t head;
	uint8_t count;
};

static struct fields begin_fields(struct message *m)
{
	struct fields f = {.head = m->out.len};

	sl_pack_map(&m->out, 0);
	return f;
}

static void end_fields(struct message *m, const struct fields *f)
{
	if (!m->out.full)
		m->out.data[f->head] = (uint8_t)(0x80 | f->count);
}

static void put_text(struct message *m, const char *text, size_t most)
{
	sl_pack_text(&m->out, text, sl_text_cut(text, strlen(text), most));
}

static void put_key(struct message *m, struct fields *f, const char *key)
{
	put_text(m, key, NAME_MOST);
	f->count++;
}

static void put_name(struct message *m, struct fields *f, const char *key, const char *name)
{
	if (!name)
		return;
	put_key(m, f, key);
	put_text(m, name, NAME_MOST);
}

/* A text of any length: what is over the limit is cut, and remembered under its key. */
static void put_value(struct message *m, const char *key, const char *text)
{
	size_t len = strlen(text);

	if (len > m->max_value && m->cut_count < MESSAGE_CUTS)
		m->cuts[m->cut_count++] = (struct cut){key, len};
	sl_pack_text(&m->out, text, sl_text_cut(text, len, m->max_value));
}

static void put_attr(struct message *m, const struct sidelight_attr *a)
{
	put_text(m, a->key, NAME_MOST);
	switch (a->type) {
	case SIDELIGHT_STRING:
		put_value(m, a->key, a->value.s);
		break;
	case SIDELIGHT_INT:
		sl_pack_int(&m->out, a->value.i);
		break;
	case SIDELIGHT_DOUBLE:
		sl_pack_double(&m->out, a->value.d);
		break;
	case SIDELIGHT_BOOL:
		sl_pack_bool(&m->out, a->value.i != 0);
		break;
	}
}

bool sl_are_attrs(const struct sidelight_attr *attrs, size_t count)
{
	if (count > ATTRS_MOST || (count > 0 && !attrs))
		return false;
	for (size_t i = 0; i < count; i++)
		if (!attrs[i].key || (unsigned)attrs[i].type > SIDELIGHT_BOOL ||
		    (attrs[i].type == SIDELIGHT_STRING && !attrs[i].value.s))
			return false;
	return true;
}

static bool any_is_long(const struct message *m, const struct sidelight_attr *attrs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (attrs[i].type == SIDELIGHT_STRING && strlen(attrs[i].value.s) > m->max_value)
			return true;
	return false;
}

/* sidelight.cut: what was cut, with its full length. */
static void put_cuts(struct message *m)
{
	put_text(m, "sidelight.cut", NAME_MOST);
	sl_pack_map(&m->out, m->cut_count);
	for (size_t i = 0; i < m->cut_count; i++) {
		put_text(m, m->cuts[i].key, NAME_MOST);
		sl_pack_uint(&m->out, m->cuts[i].bytes);
	}
}

static void put_attr_map(struct message *m, const struct sidelight_attr *attrs, size_t count)
{
	bool cuts = m->cut_count > 0 || any_is_long(m, attrs, count);

	sl_pack_map(&m->out, count + cuts);
	for (size_t i = 0; i < count; i++)
		put_attr(m, &attrs[i]);
	if (cuts)
		put_cuts(m);
}

static void put_attrs(struct message *m, struct fields *f, const struct sidelight_attr *attrs,
                      size_t count)
{
	if (count == 0 && m->cut_count == 0)
		return;
	put_key(m, f, "attrs");
	put_attr_map(m, attrs, count);
}

static void put_tags(struct message *m, struct fields *f, const char *const *tags, size_t count)
{
	if (count == 0)
		return;
	put_key(m, f, "tags");
	sl_pack_array(&m->out, count);
	for (size_t i = 0; i < count; i++)
		put_text(m, tags[i] ? tags[i] : "", NAME_MOST);
}

static void put_usage(struct message *m, struct fields *f, const struct sidelight_attr *usage,
                      size_t count)
{
	if (count == 0)
		return;
	put_key(m, f, "usage");
	sl_pack_map(&m->out, count);
	for (size_t i = 0; i < count; i++)
		put_attr(m, &usage[i]);
}

static void put_error(struct message *m, struct fields *f, const struct sidelight_end_fields *in)
{
	if (!in->error_type && !in->error_message && !in->error_stack)
		return;
	put_key(m, f, "error");
	struct fields error = begin_fields(m);
	put_name(m, &error, "type", in->error_type);
	if (in->error_message) {
		put_key(m, &error, "message");
		put_value(m, "error.message", in->error_message);
	}
	if (in->error_stack) {
		put_key(m, &error, "stack");
		put_value(m, "error.stack", in->error_stack);
	}
	end_fields(m, &error);
}

/* ---- Messages ---- */

static void begin_message(struct message *m, uint64_t type, size_t elements)
{
	m->out = (struct pack){.room = m->room};
	m->out.data = m->frame;
	m->cut_count = 0;
	sl_pack_bytes(&m->out, "\0\0\0\0", 4); // the length prefix
	sl_pack_array(&m->out, elements);
	sl_pack_uint(&m->out, type);
}

void sl_pack_prefix(struct pack *p)
{
	size_t body = p->len - 4;

	for (int i = 0; i < 4; i++)
		p->data[i] = (uint8_t)(body >> (24 - 8 * i));
}

static void begin_run_message(struct message *m, uint64_t type, size_t elements,
                              const struct sidelight_run *run, uint64_t unix_ns, uint64_t mono_ns)
{
	begin_message(m, type, elements);
	sl_pack_bin(&m->out, run->id, sizeof(run->id));
	sl_pack_uint(&m->out, unix_ns ? unix_ns : sl_unix_now_ns());
	sl_pack_uint(&m->out, mono_ns ? mono_ns : sl_mono_now_ns());
}

void sl_message_hello(struct message *m, const struct sidelight_options *o)
{
	begin_message(m, HELLO, 2);
	struct fields f = begin_fields(m);
	put_key(m, &f, "v");
	sl_pack_uint(&m->out, 1);
	put_name(m, &f, "service", o->service ? o->service : program_invocation_short_name);
	if (o->resource_count > 0) {
		put_key(m, &f, "resource");
		put_attr_map(m, o->resource, o->resource_count);
	}
	put_name(m, &f, "sdk", "c/" SIDELIGHT_VERSION);
	if (o->owner > 0) {
		put_key(m, &f, "owner");
		sl_pack_uint(&m->out, (uint64_t)o->owner);
	}
	put_key(m, &f, "pid");
	end_fields(m, &f);
}

void sl_message_start(struct message *m, const struct sidelight_run *run, uint64_t unix_ns,
                      const struct sidelight_start_fields *in)
{
	begin_run_message(m, START, 5, run, unix_ns, in->mono_ns);
	struct fields f = begin_fields(m);
	put_name(m, &f, "kind", in->kind);
	put_name(m, &f, "name", in->name);
	if (in->parent) {
		put_key(m, &f, "parent");
		sl_pack_bin(&m->out, in->parent->id, sizeof(in->parent->id));
	}
	put_name(m, &f, "traceparent", in->traceparent);
	if (in->gather) {
		put_key(m, &f, "gather");
		sl_pack_bool(&m->out, true);
	}
	put_name(m, &f, "session", in->session);
	put_name(m, &f, "user", in->user);
	put_name(m, &f, "model", in->model);
	put_name(m, &f, "provider", in->provider);
	if (in->input) {
		put_key(m, &f, "input");
		put_value(m, "input", in->input);
	}
	put_tags(m, &f, in->tags, in->tag_count);
	put_attrs(m, &f, in->attrs, in->attr_count);
	end_fields(m, &f);
}

void sl_message_end(struct message *m, const struct sidelight_run *run,
                    const struct sidelight_end_fields *in)
{
	begin_run_message(m, END, 5, run, in->unix_ns, in->mono_ns);
	struct fields f = begin_fields(m);
	if (in->output) {
		put_key(m, &f, "output");
		put_value(m, "output", in->output);
	}
	put_usage(m, &f, in->usage, in->usage_count);
	put_name(m, &f, "model", in->model);
	put_name(m, &f, "finish", in->finish);
	put_error(m, &f, in);
	put_attrs(m, &f, in->attrs, in->attr_count);
	end_fields(m, &f);
}

void sl_message_event(struct message *m, const struct sidelight_run *run,
                      const struct sidelight_event_fields *in)
{
	begin_run_message(m, POINT, 6, run, in->unix_ns, in->mono_ns);
	put_text(m, in->name, NAME_MOST);
	put_attr_map(m, in->attrs, in->attr_count);
}

void sl_message_flush(struct message *m, uint64_t token)
{
	begin_message(m, FLUSH, 2);
	sl_pack_uint(&m->out, token);
}

void sl_message_dropped(struct message *m, uint64_t count, const char *reason)
{
	begin_message(m, DROPPED, 2);
	struct fields f = begin_fields(m);
	put_key(m, &f, "count");
	sl_pack_uint(&m->out, count);
	put_name(m, &f, "reason", reason);
	end_fields(m, &f);
}

void sl_message_bye(struct message *m)
{
	begin_message(m, BYE, 2);
	sl_pack_map(&m->out, 0);
}

void sl_message_child(struct message *m, long pid, struct ending ending)
{
	begin_message(m, CHILD, 2);
	struct fields f = begin_fields(m);
	put_key(m, &f, "pid");
	sl_pack_uint(&m->out, (uint64_t)pid);
	if (ending.exit >= 0) {
		put_key(m, &f, "exit");
		sl_pack_uint(&m->out, (uint64_t)ending.exit);
	}
	if (ending.signal >= 0) {
		put_key(m, &f, "signal");
		sl_pack_uint(&m->out, (uint64_t)ending.signal);
	}
	end_fields(m, &f);
}
