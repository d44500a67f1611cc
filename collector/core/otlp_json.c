#include "core/otlp_json.h"

#include <math.h>
#include <stdint.h>

#include "base/json.h"
#include "core/pb.h"

/* A value as deep as the wire allows takes 3 messages a level: AnyValue, KeyValueList, KeyValue. */
enum { MAX_DEPTH = 96 };

enum type {
	UNKNOWN,
	MESSAGE,
	STRING,
	HEX,    // bytes, where OTLP differs from protobuf
	BASE64, // bytes
	BOOL,
	NUMBER32, // uint32 and enums
	FIXED32,
	INT64, // as decimal text, like all of 64 bits
	FIXED64,
	SFIXED64,
	DOUBLE,
};

struct message;

enum { KEY_ROOM = 32 };
enum { REPEATED = 1, PRESENT = 2 }; // PRESENT: even with its default value, as in a oneof

struct field {
	enum type type;
	uint8_t flags;
	uint8_t key_len;
	char key[KEY_ROOM]; // with quotes and colon
	const struct message *message;
};

struct message {
	const struct field *fields; // by number
	uint32_t count;
};

#define KEY(name) sizeof("\"" name "\":") - 1, "\"" name "\":"
#define DEFINE(name)                                                                               \
	static const struct message name = {name##_fields,                                         \
	                                    sizeof(name##_fields) / sizeof(name##_fields[0])}

/* --- common.proto, resource.proto --- */

static const struct message any_value;

static const struct field key_value_fields[] = {
	[1] = {STRING, 0, KEY("key")},
	[2] = {MESSAGE, 0, KEY("value"), &any_value},
};
DEFINE(key_value);

static const struct field array_value_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("values"), &any_value},
};
DEFINE(array_value);

static const struct field key_value_list_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("values"), &key_value},
};
DEFINE(key_value_list);

static const struct field any_value_fields[] = {
	[1] = {STRING, PRESENT, KEY("stringValue")},
	[2] = {BOOL, PRESENT, KEY("boolValue")},
	[3] = {INT64, PRESENT, KEY("intValue")},
	[4] = {DOUBLE, PRESENT, KEY("doubleValue")},
	[5] = {MESSAGE, 0, KEY("arrayValue"), &array_value},
	[6] = {MESSAGE, 0, KEY("kvlistValue"), &key_value_list},
	[7] = {BASE64, PRESENT, KEY("bytesValue")},
};
DEFINE(any_value);

static const struct field scope_fields[] = {
	[1] = {STRING, 0, KEY("name")},
	[2] = {STRING, 0, KEY("version")},
	[3] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[4] = {NUMBER32, 0, KEY("droppedAttributesCount")},
};
DEFINE(scope);

static const struct field resource_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[2] = {NUMBER32, 0, KEY("droppedAttributesCount")},
};
DEFINE(resource);

/* --- trace.proto --- */

static const struct field event_fields[] = {
	[1] = {FIXED64, 0, KEY("timeUnixNano")},
	[2] = {STRING, 0, KEY("name")},
	[3] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[4] = {NUMBER32, 0, KEY("droppedAttributesCount")},
};
DEFINE(event);

static const struct field link_fields[] = {
	[1] = {HEX, 0, KEY("traceId")},
	[2] = {HEX, 0, KEY("spanId")},
	[3] = {STRING, 0, KEY("traceState")},
	[4] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[5] = {NUMBER32, 0, KEY("droppedAttributesCount")},
	[6] = {FIXED32, 0, KEY("flags")},
};
DEFINE(link);

static const struct field status_fields[] = {
	[2] = {STRING, 0, KEY("message")},
	[3] = {NUMBER32, 0, KEY("code")},
};
DEFINE(status);

static const struct field span_fields[] = {
	[1] = {HEX, 0, KEY("traceId")},
	[2] = {HEX, 0, KEY("spanId")},
	[3] = {STRING, 0, KEY("traceState")},
	[4] = {HEX, 0, KEY("parentSpanId")},
	[5] = {STRING, 0, KEY("name")},
	[6] = {NUMBER32, 0, KEY("kind")},
	[7] = {FIXED64, 0, KEY("startTimeUnixNano")},
	[8] = {FIXED64, 0, KEY("endTimeUnixNano")},
	[9] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[10] = {NUMBER32, 0, KEY("droppedAttributesCount")},
	[11] = {MESSAGE, REPEATED, KEY("events"), &event},
	[12] = {NUMBER32, 0, KEY("droppedEventsCount")},
	[13] = {MESSAGE, REPEATED, KEY("links"), &link},
	[14] = {NUMBER32, 0, KEY("droppedLinksCount")},
	[15] = {MESSAGE, 0, KEY("status"), &status},
	[16] = {FIXED32, 0, KEY("flags")},
};
DEFINE(span);

static const struct field scope_spans_fields[] = {
	[1] = {MESSAGE, 0, KEY("scope"), &scope},
	[2] = {MESSAGE, REPEATED, KEY("spans"), &span},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(scope_spans);

static const struct field resource_spans_fields[] = {
	[1] = {MESSAGE, 0, KEY("resource"), &resource},
	[2] = {MESSAGE, REPEATED, KEY("scopeSpans"), &scope_spans},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(resource_spans);

static const struct field traces_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("resourceSpans"), &resource_spans}};
DEFINE(traces);

/* --- logs.proto --- */

static const struct field log_record_fields[] = {
	[1] = {FIXED64, 0, KEY("timeUnixNano")},
	[2] = {NUMBER32, 0, KEY("severityNumber")},
	[3] = {STRING, 0, KEY("severityText")},
	[5] = {MESSAGE, 0, KEY("body"), &any_value},
	[6] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[7] = {NUMBER32, 0, KEY("droppedAttributesCount")},
	[8] = {FIXED32, 0, KEY("flags")},
	[9] = {HEX, 0, KEY("traceId")},
	[10] = {HEX, 0, KEY("spanId")},
	[11] = {FIXED64, 0, KEY("observedTimeUnixNano")},
	[12] = {STRING, 0, KEY("eventName")},
};
DEFINE(log_record);

static const struct field scope_logs_fields[] = {
	[1] = {MESSAGE, 0, KEY("scope"), &scope},
	[2] = {MESSAGE, REPEATED, KEY("logRecords"), &log_record},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(scope_logs);

static const struct field resource_logs_fields[] = {
	[1] = {MESSAGE, 0, KEY("resource"), &resource},
	[2] = {MESSAGE, REPEATED, KEY("scopeLogs"), &scope_logs},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(resource_logs);

static const struct field logs_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("resourceLogs"), &resource_logs}};
DEFINE(logs);

/* --- metrics.proto, of it what otlp_metrics.c writes --- */

static const struct field number_point_fields[] = {
	[2] = {FIXED64, 0, KEY("startTimeUnixNano")},
	[3] = {FIXED64, 0, KEY("timeUnixNano")},
	[4] = {DOUBLE, PRESENT, KEY("asDouble")},
	[6] = {SFIXED64, PRESENT, KEY("asInt")},
	[7] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[8] = {NUMBER32, 0, KEY("flags")},
};
DEFINE(number_point);

static const struct field histogram_point_fields[] = {
	[2] = {FIXED64, 0, KEY("startTimeUnixNano")},
	[3] = {FIXED64, 0, KEY("timeUnixNano")},
	[4] = {FIXED64, 0, KEY("count")},
	[5] = {DOUBLE, PRESENT, KEY("sum")},
	[6] = {FIXED64, REPEATED, KEY("bucketCounts")},
	[7] = {DOUBLE, REPEATED, KEY("explicitBounds")},
	[9] = {MESSAGE, REPEATED, KEY("attributes"), &key_value},
	[10] = {NUMBER32, 0, KEY("flags")},
	[11] = {DOUBLE, PRESENT, KEY("min")},
	[12] = {DOUBLE, PRESENT, KEY("max")},
};
DEFINE(histogram_point);

static const struct field gauge_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("dataPoints"), &number_point}};
DEFINE(gauge);

static const struct field sum_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("dataPoints"), &number_point},
	[2] = {NUMBER32, 0, KEY("aggregationTemporality")},
	[3] = {BOOL, 0, KEY("isMonotonic")},
};
DEFINE(sum);

static const struct field histogram_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("dataPoints"), &histogram_point},
	[2] = {NUMBER32, 0, KEY("aggregationTemporality")},
};
DEFINE(histogram);

static const struct field metric_fields[] = {
	[1] = {STRING, 0, KEY("name")},       [2] = {STRING, 0, KEY("description")},
	[3] = {STRING, 0, KEY("unit")},       [5] = {MESSAGE, 0, KEY("gauge"), &gauge},
	[7] = {MESSAGE, 0, KEY("sum"), &sum}, [9] = {MESSAGE, 0, KEY("histogram"), &histogram},
};
DEFINE(metric);

static const struct field scope_metrics_fields[] = {
	[1] = {MESSAGE, 0, KEY("scope"), &scope},
	[2] = {MESSAGE, REPEATED, KEY("metrics"), &metric},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(scope_metrics);

static const struct field resource_metrics_fields[] = {
	[1] = {MESSAGE, 0, KEY("resource"), &resource},
	[2] = {MESSAGE, REPEATED, KEY("scopeMetrics"), &scope_metrics},
	[3] = {STRING, 0, KEY("schemaUrl")},
};
DEFINE(resource_metrics);

static const struct field metrics_fields[] = {
	[1] = {MESSAGE, REPEATED, KEY("resourceMetrics"), &resource_metrics}};
DEFINE(metrics);

/* --- values --- */

static void write_decimal(struct buf *out, bool is_negative, uint64_t v)
{
	buf_append(out, "\"-", is_negative ? 2 : 1);
	buf_append_digits(out, v);
	buf_append_byte(out, '"');
}

/* A number of at most nine decimals, which most are, without printf: n over a power of ten, both
 * exact, divides to the double nearest to the decimal, so it reads back the same. */
static bool write_short_double(struct buf *out, double v)
{
	static const double scales[] = {1, 1e3, 1e6, 1e9};
	double size = fabs(v);

	for (unsigned i = 0; i < 4 && size * scales[i] < 9007199254740992.0; i++) {
		uint64_t scale = (uint64_t)scales[i];
		uint64_t n = (uint64_t)(size * scales[i] + 0.5);
		double back = (double)n / scales[i];
		if (back < size || back > size || (n == 0 && signbit(v)))
			continue;
		if (v < 0)
			buf_append_byte(out, '-');
		buf_append_digits(out, n / scale);
		if (n % scale == 0)
			return true;
		buf_append_byte(out, '.');
		for (n %= scale, scale /= 10; n > 0; n %= scale, scale /= 10) {
			buf_append_byte(out, (uint8_t)('0' + n / scale));
			if (scale == 1)
				break;
		}
		return true;
	}
	return false;
}

static void write_double(struct buf *out, uint64_t bits)
{
	struct json j = {.out = out};
	double v;

	memcpy(&v, &bits, sizeof(v));
	if (isnan(v))
		buf_append_str(out, "\"NaN\"");
	else if (isinf(v))
		buf_append_str(out, v < 0 ? "\"-Infinity\"" : "\"Infinity\"");
	else if (!write_short_double(out, v))
		jsonw_double(&j, v);
}

static void write_scalar(struct buf *out, enum type type, const struct pb_field *f)
{
	struct json j = {.out = out};

	switch (type) {
	case STRING:
		jsonw_str(&j, f->bytes.p ? f->bytes : STR(""));
		break;
	case HEX:
		jsonw_hex(&j, (const uint8_t *)f->bytes.p, f->bytes.len);
		break;
	case BASE64:
		buf_append_byte(out, '"');
		buf_append_base64(out, f->bytes.p, f->bytes.len);
		buf_append_byte(out, '"');
		break;
	case BOOL:
		buf_append_str(out, f->value ? "true" : "false");
		break;
	case NUMBER32:
	case FIXED32:
		buf_append_digits(out, (uint32_t)f->value);
		break;
	case INT64:
	case SFIXED64:
		write_decimal(out, f->value >> 63, f->value >> 63 ? 0 - f->value : f->value);
		break;
	case FIXED64:
		write_decimal(out, false, f->value);
		break;
	case DOUBLE:
		write_double(out, f->value);
		break;
	default:
		break;
	}
}

/* --- messages --- */

/* pb_next(), with the way short that most fields take: a short submessage or text. */
static inline int next_field(struct pb_cursor *c, struct pb_field *f)
{
	const uint8_t *p = c->p;

	if (c->end - p < 2 || (p[0] & 0x87) != PB_BYTES || p[0] < 8 || p[1] >= 0x80 ||
	    p[1] > c->end - p - 2)
		return pb_next(c, f);
	f->number = p[0] >> 3;
	f->wire = PB_BYTES;
	f->value = 0;
	f->bytes = (struct str){(const char *)p + 2, p[1]};
	c->p = p + 2 + p[1];
	return 1;
}

static const uint8_t wire_of[] = {
	[MESSAGE] = PB_BYTES,   [STRING] = PB_BYTES,     [HEX] = PB_BYTES,
	[BASE64] = PB_BYTES,    [BOOL] = PB_VARINT,      [NUMBER32] = PB_VARINT,
	[FIXED32] = PB_FIXED32, [INT64] = PB_VARINT,     [FIXED64] = PB_FIXED64,
	[DOUBLE] = PB_FIXED64,  [SFIXED64] = PB_FIXED64,
};

static int write_message(struct buf *out, const struct message *m, struct str bytes,
                         unsigned depth);

static int write_value(struct buf *out, const struct field *d, const struct pb_field *f,
                       unsigned depth)
{
	if (f->wire != wire_of[d->type])
		return ERR_FORMAT;
	if (d->type == MESSAGE)
		return write_message(out, d->message, f->bytes, depth);
	write_scalar(out, d->type, f);
	return 0;
}

/* The values of a packed field, all of 8 bytes. */
static int write_packed(struct buf *out, const struct field *d, struct str bytes)
{
	struct pb_field f = {.wire = PB_FIXED64};

	if (bytes.len % sizeof(f.value))
		return ERR_FORMAT;
	for (size_t at = 0; at < bytes.len; at += sizeof(f.value)) {
		memcpy(&f.value, bytes.p + at, sizeof(f.value));
		buf_append(out, ",", at > 0);
		write_scalar(out, d->type, &f);
	}
	return 0;
}

/* All values of a repeated field, wherever they stand from the cursor on. */
static int write_array(struct buf *out, const struct field *d, uint32_t number, struct pb_cursor c,
                       unsigned depth)
{
	bool packs = wire_of[d->type] != PB_BYTES;
	struct pb_field f;
	size_t begun;
	int rc;

	buf_append_byte(out, '[');
	begun = out->len;
	while ((rc = next_field(&c, &f)) > 0) {
		if (f.number != number)
			continue;
		buf_append(out, ",", out->len > begun);
		rc = packs && f.wire == PB_BYTES ? write_packed(out, d, f.bytes)
		                                 : write_value(out, d, &f, depth);
		if (rc < 0)
			return rc;
	}
	buf_append_byte(out, ']');
	return rc;
}

static bool is_default(const struct field *d, const struct pb_field *f)
{
	if ((d->flags & PRESENT) || d->type == MESSAGE)
		return false;
	return f->wire == PB_BYTES ? f->bytes.len == 0 : f->value == 0 && !(d->flags & REPEATED);
}

/* Copies the whole room: a copy of known size is several times as fast. */
static void write_key(struct buf *out, const struct field *d)
{
	if (!buf_reserve(out, sizeof(d->key)))
		return;
	memcpy(out->data + out->len, d->key, sizeof(d->key));
	out->len += d->key_len;
}

static int write_message(struct buf *out, const struct message *m, struct str bytes, unsigned depth)
{
	struct pb_cursor c = pb_cursor_of(bytes), at = c;
	uint32_t written = 0; // fields, as bits
	struct pb_field f;
	int rc;

	if (depth == 0)
		return ERR_FORMAT;
	buf_append_byte(out, '{');
	for (; (rc = next_field(&c, &f)) > 0; at = c) {
		const struct field *d = f.number < m->count ? &m->fields[f.number] : NULL;
		if (!d || d->type == UNKNOWN || written >> f.number & 1 || is_default(d, &f))
			continue;
		buf_append(out, ",", written != 0);
		written |= 1u << f.number;
		write_key(out, d);
		rc = d->flags & REPEATED ? write_array(out, d, f.number, at, depth - 1)
		                         : write_value(out, d, &f, depth - 1);
		if (rc < 0)
			return rc;
	}
	buf_append_byte(out, '}');
	return rc;
}

int otlp_json(struct buf *out, enum otlp_signal signal, struct str request)
{
	static const struct message *const messages[SIGNAL_COUNT] = {
		[SIGNAL_TRACES] = &traces,
		[SIGNAL_LOGS] = &logs,
		[SIGNAL_METRICS] = &metrics,
	};

	buf_clear(out);
	int rc = write_message(out, messages[signal], request, MAX_DEPTH);
	return rc < 0 ? rc : buf_error(out);
}
