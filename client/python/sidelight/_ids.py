"""The ids that the collector makes of run ids and of a traceparent: docs/protocol.md, Ids."""

from __future__ import annotations

from typing import Optional, Union

_MASK = (1 << 64) - 1
_LOWER_HEX = frozenset("0123456789abcdef")
_HEX = frozenset("0123456789abcdefABCDEF-")


def hash64(seed: int, data: bytes) -> int:
    h = 14695981039346656037 ^ seed
    for byte in data:
        h = (h ^ byte) * 1099511628211 & _MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor & _MASK
    return (h ^ h >> 33) or 1


def span_id(run_id: bytes) -> str:
    return f"{hash64(0, run_id):016x}"


def run_bytes(run_id: Union[bytes, str]) -> bytes:
    """The 16 bytes of a run id, which may be a text."""
    if isinstance(run_id, bytes):
        return run_id
    if [len(group) for group in run_id.split("-")] == [8, 4, 4, 4, 12] and _HEX.issuperset(run_id):
        return bytes.fromhex(run_id.replace("-", ""))
    raw = run_id.encode("utf-8", "replace")
    return b"".join(hash64(seed, raw).to_bytes(8, "big") for seed in (1, 2))


def trace_of(traceparent: object) -> Optional[str]:
    """The trace id of a W3C traceparent; None if it isn't one."""
    if type(traceparent) is not str:
        return None
    parts = traceparent.split("-")
    if [len(part) for part in parts[:4]] != [2, 32, 16, 2] or not _LOWER_HEX.issuperset("".join(parts[:4])):
        return None
    version, trace, parent = parts[:3]
    if version == "ff" or (version == "00" and len(parts) != 4):
        return None
    return trace if trace.strip("0") and parent.strip("0") else None
