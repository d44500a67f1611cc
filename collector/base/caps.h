/* caps.h - every cap of the program, in one list.
 *
 * What is over a cap is refused or dropped, and counted. Those that a user may want to change
 * are only defaults here; config.h says which.
 */
#pragma once

#define KIB 1024u
#define MIB (1024u * 1024u)

#define CAP_FRAME (4u * MIB)              // a frame's body; ingest.max_frame
#define CAP_SKIPPABLE_FRAME (1024u * MIB) // a longer prefix ends the connection
#define CAP_DEPTH 16u                     // nested msgpack containers
#define CAP_TOP_KEYS 64u                  // keys of a message's own map
#define CAP_NAME 1024u                    // a run's name, model, provider, session or user, bytes
#define CAP_ATTRS 1024u                   // keys of an attribute map
#define CAP_RUN_ID 1024u                  // a run id's text, bytes
#define CAP_ATTR_KEY 256u                 // an attribute's key, bytes
#define CAP_RESOURCE (16u * KIB)          // an encoded resource
#define CAP_VALUE (64u * KIB)             // one captured value; capture.max_value
#define CAP_EVENTS_PER_RUN 128u           // span events, as OTEL_SPAN_EVENT_COUNT_LIMIT
#define CAP_CONNECTIONS 1024u             // ingest.max_connections
#define CAP_OPEN_RUNS 100000u             // the oldest is given up first
#define CAP_SAID (64u * MIB)              // what the answers of open runs have said so far
#define CAP_CLOSED_RUNS 32768u            // remembered against late duplicates
#define CAP_BATCH (4u * MIB)              // bytes gathered for one commit before reading stops
#define CAP_BLOCK (64u * KIB)             // a block of the log is closed at this size
#define CAP_TOOL_CALLS (256u * KIB)       // the tool_calls of one observation, as JSON
#define CAP_HTTP_CONNECTIONS 64u          // more wait
#define CAP_HTTP_REQUEST (16u * KIB)      // a request's line and headers
#define CAP_RESPONSE (256u * MIB)         // one answer of the HTTP API
#define CAP_EXPORTERS 16u
#define CAP_PRICES 1024u
#define CAP_EXPORTER_NAMES 64u                // ever configured while running
#define CAP_CURSORS (2u * CAP_EXPORTER_NAMES) // one a log
#define CAP_LOSSES 48u                        // reasons
#define CAP_EXPORT_CHUNK (1u * MIB)           // read from the log at a time, by each exporter
#define CAP_EXPORT_REQUEST (3584u * KIB) // of more than one span: gRPC servers refuse over 4 MiB
#define CAP_EXPORT_SPANS 8192u           // of one request
#define CAP_EXPORT_BODY (64u * MIB)      // a request with one giant span (OTLP's own limit)
#define CAP_EXPORT_RESPONSE (4u * MIB)   // a backend's answer (OTLP's own limit)
#define CAP_LABEL 256u                   // a metric label's value, bytes
#define CAP_SERIES 2000u // label sets of one metric (the OpenTelemetry SDKs' default)
