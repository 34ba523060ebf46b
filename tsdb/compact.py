"""Planning of compactions: which blocks are merged next, and which ranges of the head become blocks.

Ranges grow by three from the smallest block (2 h, 6 h, 18 h, ...) up to a tenth of the retention, at most 31
days, as in Prometheus. Blocks of one aligned range are merged when the range is complete; overlapping blocks
are merged at once; a block with many deletions is rewritten alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsdb.blockmeta import BlockMeta

RANGE_FACTOR = 3
RANGE_LIMIT_MS = 31 * 24 * 3600 * 1000
RETENTION_DIVISOR = 10
COMPACTABLE_SPAN = 1.5
"""The head is cut when it spans this many block ranges, so that samples a little late still find it."""
DELETED_SHARE = 0.05
"""Share of series with deleted samples above which a long block is rewritten."""


def ranges(block_range_ms: int, retention_ms: int, longest_ms: int = 0) -> list[int]:
    """Block ranges from the smallest up, none above `longest_ms` where that is set."""
    longest = longest_ms if longest_ms else _longest(retention_ms)
    found = [block_range_ms]
    while found[-1] * RANGE_FACTOR <= longest:
        found.append(found[-1] * RANGE_FACTOR)
    return found


def _longest(retention_ms: int) -> int:
    return min(RANGE_LIMIT_MS, retention_ms // RETENTION_DIVISOR) if retention_ms else RANGE_LIMIT_MS


def head_cut(min_time: int, max_time: int, block_ranges: Sequence[int]) -> int | None:
    """End of the range to cut next from the head, None while it spans too little.

    It is the longest range around the head's oldest sample of which all is due. Mostly that is one of the
    smallest; a head that has fallen behind (a replay, an import at speed) has several due, and what goes into
    a block of six hours at once is not written again a moment later.
    """
    shortest = block_ranges[0]
    if max_time - min_time <= shortest * COMPACTABLE_SPAN:
        return None
    ends = [(min_time // size + 1) * size for size in block_ranges]
    # A range is due when the newest sample is half a range beyond its end.
    return max(end for end in ends if end == ends[0] or max_time - end > shortest * (COMPACTABLE_SPAN - 1))


def aligned_ranges(mint: int, end: int, range_ms: int) -> list[tuple[int, int]]:
    """Aligned [from, to) ranges that cover [mint, end)."""
    first = mint // range_ms * range_ms
    return [(at, min(at + range_ms, end)) for at in range(first, end, range_ms)]


def head_ranges(min_time: int, min_late_time: int, cut: int, range_ms: int) -> list[tuple[int, int]]:
    """Ranges [from, to) of the blocks for what the head has before `cut`.

    The one around its oldest sample in order ends with `cut`; late samples before it have smallest ranges, so
    that as little as possible of the blocks there are is merged with them.
    """
    first = min(min_time, cut - 1) // range_ms * range_ms
    return [*aligned_ranges(min(min_late_time, first), first, range_ms), (first, cut)]


def overlapping(metas: Sequence[BlockMeta]) -> list[BlockMeta]:
    """The first run of blocks (ascending by time) that overlap each other; empty if none do."""
    ordered = sorted(metas, key=lambda meta: (meta.min_time, meta.max_time))
    run: list[BlockMeta] = []
    end = 0
    for meta in ordered:
        if run and meta.min_time < end:
            run.append(meta)
            end = max(end, meta.max_time)
        elif len(run) > 1:
            break
        else:
            run, end = [meta], meta.max_time
    return run if len(run) > 1 else []


def much_is_deleted(meta: BlockMeta, series_touched: int, block_ranges: Sequence[int]) -> bool:
    """Whether a block is to be rewritten alone: more than a twentieth of its series have deleted samples, or
    all of them where the block is short and will be merged soon (Prometheus: LeveledCompactor.plan)."""
    if meta.max_time - meta.min_time < block_ranges[len(block_ranges) // 2]:
        return series_touched >= meta.stats.num_series
    return series_touched > DELETED_SHARE * (meta.stats.num_series + 1)


def plan(metas: Sequence[BlockMeta], block_ranges: Sequence[int]) -> list[BlockMeta]:
    """Blocks to merge into one next; empty when there is nothing to do."""
    overlaps = overlapping(metas)
    if overlaps:
        return overlaps
    ordered = sorted(metas, key=lambda meta: meta.min_time)
    # The newest block may still get neighbours in its range.
    candidates = ordered[:-1]
    newest_start = ordered[-1].min_time if ordered else 0
    for range_ms in block_ranges[1:]:
        groups: dict[int, list[BlockMeta]] = {}
        for meta in candidates:
            start = meta.min_time // range_ms * range_ms
            if meta.max_time <= start + range_ms:
                groups.setdefault(start, []).append(meta)
        for start in sorted(groups):
            group = groups[start]
            covered = group[-1].max_time - group[0].min_time
            complete = covered == range_ms or start + range_ms <= newest_start
            if len(group) > 1 and complete:
                return group
    return []
