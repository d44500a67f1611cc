#include "config_parts.h"

#include <yaml.h>

/* What libyaml could not read. A bad byte has an offset; all else has a mark. */
static void syntax_fault(const yaml_parser_t *p, const char *text, size_t len, struct faults *f)
{
	struct place at = {p->problem_mark.line + 1, p->problem_mark.column + 1, ""};

	// its loader fails without an error or a problem when it gets no memory
	if (p->error == YAML_MEMORY_ERROR || !p->problem) {
		f->no_memory = true;
		return;
	}
	if (p->error == YAML_READER_ERROR) {
		size_t end = p->problem_offset < len ? p->problem_offset : len;
		at = (struct place){1, 1, ""};
		for (size_t i = 0; i < end; i++) {
			at.line += text[i] == '\n';
			at.column = text[i] == '\n' ? 1 : at.column + 1;
		}
	}
	fault(f, &at, "is not YAML: %s", p->problem);
}

/* Features whose absence keeps a configuration what it looks like. */
static void check_plain(const yaml_event_t *e, struct faults *f)
{
	struct place at = {e->start_mark.line + 1, e->start_mark.column + 1, ""};
	const yaml_char_t *anchor = NULL, *tag = NULL;

	switch (e->type) {
	case YAML_ALIAS_EVENT:
		fault(f, &at, "an alias is not supported, must be written out");
		return;
	case YAML_SCALAR_EVENT:
		anchor = e->data.scalar.anchor;
		tag = e->data.scalar.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = e->data.sequence_start.anchor;
		tag = e->data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = e->data.mapping_start.anchor;
		tag = e->data.mapping_start.tag;
		break;
	default:
		return;
	}
	if (anchor)
		fault(f, &at, "an anchor is not supported, must be left out");
	if (tag)
		fault(f, &at, "a tag is not supported, must be left out");
}

struct shape {
	int depth, documents;
};

/* Whether the file is still one document of bounded depth. */
static bool check_shape(const yaml_event_t *e, struct shape *s, struct faults *f)
{
	struct place at = {e->start_mark.line + 1, e->start_mark.column + 1, ""};

	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (++s->documents > 1) {
			fault(f, &at, "a second document is not supported, must be one");
			return false;
		}
		return true;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		if (++s->depth > CONFIG_DEPTH_MAX) {
			fault(f, &at, "is nested too deep, must be at most %d levels",
			      CONFIG_DEPTH_MAX);
			return false;
		}
		return true;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		s->depth--;
		return true;
	default:
		return true;
	}
}

static bool start(yaml_parser_t *p, const char *text, size_t len, struct faults *f)
{
	if (!yaml_parser_initialize(p)) {
		f->no_memory = true;
		return false;
	}
	yaml_parser_set_input_string(p, (const unsigned char *)text, len);
	yaml_parser_set_encoding(p, YAML_UTF8_ENCODING);
	return true;
}

/* Reads the events first: the document API below no longer tells an alias from what it stands for,
 * and has no bounds. Returns whether the document can be read. */
static bool check_events(const char *text, size_t len, struct faults *f)
{
	struct shape shape = {0};
	bool more = true, ok = true;
	yaml_parser_t p;
	yaml_event_t e;

	if (!start(&p, text, len, f))
		return false;
	while (more && ok) {
		if (!yaml_parser_parse(&p, &e)) {
			syntax_fault(&p, text, len, f);
			ok = false;
			break;
		}
		check_plain(&e, f);
		ok = check_shape(&e, &shape, f);
		more = e.type != YAML_STREAM_END_EVENT;
		yaml_event_delete(&e);
	}
	yaml_parser_delete(&p);
	return ok;
}

void config_read(struct config *c, const char *text, size_t len, config_document_fn *fn,
                 struct faults *f)
{
	yaml_document_t doc;
	yaml_parser_t p;
	size_t before = f->count;

	if (!check_events(text, len, f) || !start(&p, text, len, f))
		return;
	if (yaml_parser_load(&p, &doc)) {
		fn(c, &doc, f);
		yaml_document_delete(&doc);
	} else if (f->count == before || !p.problem) {
		syntax_fault(&p, text, len, f); // else an alias without an anchor, said already
	}
	yaml_parser_delete(&p);
}
