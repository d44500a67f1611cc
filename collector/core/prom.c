#include "core/prom.h"

#include <stdio.h>

#include "base/clock.h"

static void append_dotless(struct buf *out, const char *name)
{
	for (; *name; name++)
		buf_append_byte(out, (uint8_t)(*name == '.' ? '_' : *name));
}

void prom_name(char ret[PROM_NAME_MAX], const struct metric *metric)
{
	bool is_otlp = metric->unit;
	const char *unit = is_otlp && str_is(str_of(metric->unit), "s") ? "_seconds" : "";
	const char *total = is_otlp && metric->type == METRIC_COUNTER ? "_total" : "";

	snprintf(ret, PROM_NAME_MAX, "%s%s%s", metric->name, unit, total);
	for (char *p = ret; *p; p++)
		if (*p == '.')
			*p = '_';
}

static void begin(struct metric_writer *base, const struct metric *metric)
{
	static const char *const types[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram",
	};
	struct prom_writer *w = (struct prom_writer *)base;

	w->metric = metric;
	prom_name(w->name, metric);
	buf_printf(w->out, "# HELP %s %s\n# TYPE %s %s\n", w->name, metric->help, w->name,
	           types[metric->type]);
}

static void write_escaped(struct buf *out, struct str value)
{
	size_t start = 0;

	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];
		if (c != '\\' && c != '"' && c != '\n')
			continue;
		buf_append(out, value.p + start, i - start);
		char esc[2] = {'\\', c == '\n' ? 'n' : c};
		buf_append(out, esc, sizeof(esc));
		start = i + 1;
	}
	buf_append(out, value.p + start, value.len - start);
}

static void write_label(struct buf *out, bool first, const char *name, struct str value)
{
	buf_append_byte(out, first ? '{' : ',');
	append_dotless(out, name);
	buf_append_str(out, "=\"");
	write_escaped(out, value);
	buf_append_byte(out, '"');
}

/* Up to the value. le: NULL, or the bound of a bucket. */
static void write_head(const struct prom_writer *w, const char *suffix,
                       const struct metric_label *labels, unsigned count, const char *le)
{
	struct buf *out = w->out;

	buf_append_str(out, w->name);
	buf_append_str(out, suffix);
	for (unsigned i = 0; i < count; i++)
		write_label(out, i == 0, labels[i].name,
		            labels[i].value.p ? labels[i].value : STR("true"));
	if (le)
		write_label(out, count == 0, "le", str_of(le));
	buf_append_str(out, count || le ? "} " : " ");
}

static void write_uint(struct buf *out, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	buf_append(out, digits + at, sizeof(digits) - at);
}

static void write_value(struct buf *out, bool is_nano, uint64_t value)
{
	if (is_nano) {
		write_uint(out, value / NS_PER_S);
		buf_printf(out, ".%09u\n", (unsigned)(value % NS_PER_S));
	} else {
		write_uint(out, value);
		buf_append_byte(out, '\n');
	}
}

static void number(struct metric_writer *base, const struct metric_label *labels, unsigned count,
                   uint64_t value)
{
	const struct prom_writer *w = (const struct prom_writer *)base;

	write_head(w, "", labels, count, NULL);
	write_value(w->out, w->metric->is_nano, value);
}

static void histogram(struct metric_writer *base, const struct metric_label *labels, unsigned count,
                      const struct histogram *h)
{
	const struct prom_writer *w = (const struct prom_writer *)base;
	const struct bounds *b = h->bounds;
	uint64_t below = 0;

	for (unsigned i = 0; i <= b->count; i++) {
		below += h->buckets[i];
		write_head(w, "_bucket", labels, count, i < b->count ? b->labels[i] : "+Inf");
		write_value(w->out, false, below);
	}
	write_head(w, "_sum", labels, count, NULL);
	write_value(w->out, w->metric->is_nano, h->sum);
	write_head(w, "_count", labels, count, NULL);
	write_value(w->out, false, below);
}

static void end(struct metric_writer *base)
{
	((struct prom_writer *)base)->metric = NULL;
}

void prom_writer_init(struct prom_writer *w, struct buf *out)
{
	*w = (struct prom_writer){.writer = {begin, number, histogram, end}, .out = out};
}

void stats_write(const struct stats *s, struct buf *out)
{
	struct prom_writer w;

	prom_writer_init(&w, out);
	stats_report(s, &w.writer);
}
