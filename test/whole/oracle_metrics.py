"""OTLP metrics as Prometheus shows them, by the specification of the two formats' compatibility:
written from its text, so that it can disagree with the collector."""

from __future__ import annotations

import re

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from conftest import Metrics

SUFFIXES = {"s": "_seconds", "By": "_bytes"}


def prometheus_name(metric: Metric) -> str:
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", metric.name)
    suffix = SUFFIXES.get(metric.unit, "")
    assert suffix or not metric.unit or re.fullmatch(r"\{\w+\}", metric.unit), metric.unit
    name += suffix if not name.endswith(suffix) else ""
    return name + ("_total" if metric.WhichOneof("data") == "sum" and metric.sum.is_monotonic else "")


def labels_of(point, **more) -> tuple:
    labels = dict(more)
    for pair in point.attributes:
        kind = pair.value.WhichOneof("value")
        assert kind in ("string_value", "bool_value"), pair
        value = getattr(pair.value, kind)
        key = re.sub(r"[^a-zA-Z0-9_]", "_", pair.key)
        assert key not in labels, f"{key} twice"
        labels[key] = value if kind == "string_value" else str(value).lower()
    return tuple(sorted(labels.items()))


def samples_of(metric: Metric):
    """(name, labels, value) as a scrape has them; bounds of buckets are numbers."""
    name, kind = prometheus_name(metric), metric.WhichOneof("data")
    data = getattr(metric, kind)
    for point in data.data_points:
        if kind != "histogram":
            yield name, labels_of(point), getattr(point, point.WhichOneof("value"))
            continue
        assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert sum(point.bucket_counts) == point.count
        below = 0
        for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts):
            below += count
            yield f"{name}_bucket", labels_of(point, le=bound), below
        yield f"{name}_count", labels_of(point), point.count
        yield f"{name}_sum", labels_of(point), point.sum


def check_times(metric: Metric, start_after: int, now: int) -> None:
    """Cumulative, from the daemon's start until now."""
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    if kind != "gauge":
        assert data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    if kind == "sum":
        assert data.is_monotonic
    for point in data.data_points:
        if kind != "gauge":
            assert start_after <= point.start_time_unix_nano <= point.time_unix_nano
        assert point.time_unix_nano <= now


def metrics_in(message) -> list[Metric]:
    return [m for r in message.resource_metrics for s in r.scope_metrics for m in s.metrics]


def otlp_samples(message) -> dict:
    found: dict[tuple, float] = {}
    for metric in metrics_in(message):
        for name, labels, value in samples_of(metric):
            assert (name, labels) not in found, f"{name} {labels} twice"
            found[name, labels] = value
    return found


def scraped_samples(scraped: Metrics) -> dict:
    """A scrape's, with bounds as numbers."""
    return {
        (name, tuple(sorted((k, float(v) if k == "le" else v) for k, v in labels))): value
        for (name, labels), value in scraped.items()
    }


def differences(before: Metrics, message, after: Metrics) -> list[str]:
    """What a report says that lies not between two scrapes around it, and what it lacks. The
    agents' numbers stand still meanwhile, so theirs must be the same."""
    first, said, last = scraped_samples(before), otlp_samples(message), scraped_samples(after)
    lines = []
    for key in first.keys() | said.keys() | last.keys():
        if key not in said or key not in last:
            lines.append(f"{key}: in the report {said.get(key)}, scraped {last.get(key)}")
            continue
        low, high = sorted((first.get(key, 0), last[key]))
        if not low - 1e-9 <= said[key] <= high + 1e-9:
            lines.append(f"{key}: {said[key]} is not between {low} and {high}")
    return sorted(lines)
