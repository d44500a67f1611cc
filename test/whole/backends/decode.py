"""Bodies of OTLP requests to the official messages, strictly."""

from __future__ import annotations

import base64
import json
import re

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

SIGNALS = ("traces", "metrics", "logs")
_REQUEST = {
    "traces": trace_service_pb2.ExportTraceServiceRequest,
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "logs": logs_service_pb2.ExportLogsServiceRequest,
}
_RESPONSE = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
}
_REJECTED = {
    "traces": "rejected_spans",
    "metrics": "rejected_data_points",
    "logs": "rejected_log_records",
}
_PATHS = {
    f"/opentelemetry.proto.collector.{package}.v1.{service}Service/Export": signal
    for signal, package, service in (
        ("traces", "trace", "Trace"),
        ("metrics", "metrics", "Metrics"),
        ("logs", "logs", "Logs"),
    )
} | {f"/v1/{signal}": signal for signal in SIGNALS}

HEX_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
WHOLE_NUMBERS = {  # 64 bits: decimal strings in JSON
    "startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano",
    "intValue", "asInt", "count", "zeroCount",
}  # fmt: skip
ENUMS = {"kind", "code", "severityNumber", "aggregationTemporality"}


def signal_of(path: str) -> str:
    """Of a path, whatever stands before OTLP's own part of it."""
    for end, signal in _PATHS.items():
        if path.endswith(end):
            return signal
    raise ValueError(f"no OTLP path: {path}")


def response(signal: str = "traces", rejected: int | None = None, message: str = "") -> bytes:
    """An answer; with `rejected` or a message, one with partial_success."""
    one = _RESPONSE[signal]()
    if rejected is not None or message:
        setattr(one.partial_success, _REJECTED[signal], rejected or 0)
        one.partial_success.error_message = message
    return one.SerializeToString()


def response_json(signal: str = "traces", rejected: int | None = None, message: str = "") -> bytes:
    one = _RESPONSE[signal].FromString(response(signal, rejected, message))
    return json_format.MessageToJson(one, indent=None).encode()


def from_protobuf(signal: str, body: bytes):
    message = _REQUEST[signal]()
    message.ParseFromString(body)
    return message


def _no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key twice: {keys}")
    return dict(pairs)


def _no_constant(word):
    raise ValueError(f"{word} is no JSON")


def _whole(word: str):
    return -0.0 if word == "-0" else int(word)  # Python's integers have no such zero


def _check_member(key: str, value) -> object:
    """OTLP/JSON's own rules for one member; the value in proto3 JSON's words."""
    if "_" in key:
        raise ValueError(f"{key}: not in lowerCamelCase")
    if key in HEX_IDS:
        if not re.fullmatch(f"[0-9a-f]{{{2 * HEX_IDS[key]}}}", value):
            raise ValueError(f"{key}: {value!r} is not that many hex digits")
        return base64.b64encode(bytes.fromhex(value)).decode()
    if key in WHOLE_NUMBERS and not (isinstance(value, str) and re.fullmatch(r"-?\d+", value)):
        raise ValueError(f"{key}: {value!r} is no decimal string")
    if key in ENUMS and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{key}: {value!r} is no number")
    if key == "bucketCounts" and not all(isinstance(v, str) for v in value):
        raise ValueError(f"{key}: {value!r} are no decimal strings")
    if key == "bytesValue" and base64.b64encode(base64.b64decode(value)).decode() != value:
        raise ValueError(f"{key}: {value!r} is no base64")
    return value


def _to_proto3(value):
    if isinstance(value, dict):
        return {key: _to_proto3(_check_member(key, v)) for key, v in value.items()}
    if isinstance(value, list):
        return [_to_proto3(v) for v in value]
    return value


def from_json(signal: str, body: bytes):
    """Refuses what no proto3 JSON or OTLP/JSON reader has to take: unknown names, enum names,
    64-bit numbers that are no strings, ids that are not hex."""
    tree = json.loads(
        body.decode(),
        object_pairs_hook=_no_duplicates,
        parse_constant=_no_constant,
        parse_int=_whole,
    )
    return json_format.ParseDict(_to_proto3(tree), _REQUEST[signal]())


def items(signal: str, message) -> list:
    """The spans, log records or data points of a request."""
    if signal == "traces":
        return [s for r in message.resource_spans for g in r.scope_spans for s in g.spans]
    if signal == "logs":
        return [s for r in message.resource_logs for g in r.scope_logs for s in g.log_records]
    return [
        point
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]
