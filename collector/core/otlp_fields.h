/* otlp_fields.h - field numbers of the OTLP messages that are written and read directly.
 *
 * From opentelemetry/proto/{trace,common,resource}/v1 of opentelemetry-proto 1.11; a test holds
 * them against nanopb's code for proto/trace.proto.
 */
#pragma once

enum {
	SPAN_TRACE_ID = 1,
	SPAN_SPAN_ID = 2,
	SPAN_PARENT_SPAN_ID = 4,
	SPAN_NAME = 5,
	SPAN_KIND = 6,
	SPAN_START = 7,
	SPAN_END = 8,
	SPAN_ATTRIBUTES = 9,
	SPAN_EVENTS = 11,
	SPAN_STATUS = 15,
	SPAN_FLAGS = 16,
};
enum { SPAN_STATUS_MESSAGE = 2, SPAN_STATUS_CODE = 3 };
enum { EVENT_TIME = 1, EVENT_NAME = 2, EVENT_ATTRIBUTES = 3 };

enum { KEYVALUE_KEY = 1, KEYVALUE_VALUE = 2 };
enum {
	ANY_STRING = 1,
	ANY_BOOL = 2,
	ANY_INT = 3,
	ANY_DOUBLE = 4,
	ANY_ARRAY = 5,
	ANY_KVLIST = 6,
	ANY_BYTES = 7,
};
enum { LIST_VALUES = 1 }; // of ArrayValue and KeyValueList

enum { RESOURCE_ATTRIBUTES = 1 };
