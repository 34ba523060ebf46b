"""Which blocks go: by age against the newest data, then by the size of the whole store, oldest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Aged(Protocol):
    """What has a newest time in ms: a block, or a part of another log that lives by the same rules."""

    @property
    def max_time(self) -> int: ...


AnyAged = TypeVar("AnyAged", bound=Aged)


def beyond_age(metas: Sequence[AnyAged], newest_t: int, retention_ms: int) -> list[AnyAged]:
    """Blocks whose end is older than the newest data by more than the retention; 0 keeps all."""
    if retention_ms <= 0:
        return []
    return [meta for meta in metas if meta.max_time <= newest_t - retention_ms]


def beyond_size(
    metas: Sequence[AnyAged], sizes: Sequence[int], other_bytes: int, limit_bytes: int
) -> list[AnyAged]:
    """Oldest blocks to drop until the rest with `other_bytes` (log, head) fits the limit; 0 keeps all."""
    if limit_bytes <= 0:
        return []
    total = other_bytes + sum(sizes)
    doomed = []
    for meta, size in sorted(zip(metas, sizes, strict=True), key=lambda pair: pair[0].max_time):
        if total <= limit_bytes:
            break
        doomed.append(meta)
        total -= size
    return doomed
