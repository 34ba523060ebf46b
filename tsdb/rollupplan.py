"""Which roll-ups stand in for samples, which are made next, and which blocks they make superfluous.

Blocks are compared by `sources`: a merge keeps them, so a roll-up is complete for a block whose sources it
has, however both were merged since, and late samples are noticed by a source that no roll-up has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tsdb.blockmeta import BlockMeta
from tsdb.rollup import RANGE_DIVISIBLE_MS, Tier

Span = tuple[int, int]
"""(lo, hi]: after lo, up to hi, ms."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """The part (lo, hi] of a roll-up block that a query reads in place of samples."""

    meta: BlockMeta
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class NextRollup:
    """The windows of (lo, hi] are to be made; they replace the blocks `replaced`."""

    resolution_ms: int
    lo: int
    hi: int
    sources: tuple[str, ...]
    replaced: tuple[BlockMeta, ...]


def span_of(meta: BlockMeta) -> Span:
    """The (lo, hi] of a roll-up block."""
    return meta.min_time - 1, meta.max_time - 1


def sources_of(metas: Iterable[BlockMeta]) -> set[str]:
    """All first-level blocks that went into the given ones."""
    return {source for meta in metas for source in (meta.sources or (meta.ulid,))}


class Coverage:
    """Which roll-ups of a list of blocks are complete, gone or current; made once a list, read by queries."""

    def __init__(self, metas: Sequence[BlockMeta]) -> None:
        self.full = [meta for meta in metas if not meta.resolution_ms]
        self.rollups = [meta for meta in metas if meta.resolution_ms]
        self._gone: set[str] = set()
        self._current: set[str] = set()
        if not self.rollups:
            return
        stored = sources_of(self.full)
        known: dict[int, set[str]] = {}
        for meta in self.rollups:
            known.setdefault(meta.resolution_ms, set()).update(sources_of([meta]))
        unknown = {
            resolution: [meta for meta in self.full if not sources_of([meta]) <= sources]
            for resolution, sources in known.items()
        }
        for meta in self.rollups:
            lo, hi = span_of(meta)
            if not sources_of([meta]) <= stored:
                self._gone.add(meta.ulid)
            if all(o.min_time >= hi or o.max_time <= lo + 1 for o in unknown[meta.resolution_ms]):
                self._current.add(meta.ulid)

    def is_gone(self, meta: BlockMeta) -> bool:
        """Whether samples of the roll-up's range are not there any more."""
        return meta.ulid in self._gone

    def is_current(self, meta: BlockMeta) -> bool:
        """Whether every block of samples in the roll-up's range is known to its tier."""
        return meta.ulid in self._current


def stand_ins(coverage: Coverage, head_from_ms: int, mint: int, maxt: int, border_ms: int) -> list[StandIn]:
    """Disjoint parts, ascending, with windows that may end in [mint, maxt].

    Roll-ups whose samples are gone are used always, the finest first; the others where their resolution
    divides `border_ms` (answers are exact then), the coarsest first, and no late samples lie in their range.
    """
    exact: list[BlockMeta] = []
    needed: list[BlockMeta] = []
    for meta in coverage.rollups:
        if meta.min_time > maxt or meta.max_time <= mint:
            continue
        divides = border_ms > 0 and border_ms % meta.resolution_ms == 0
        if divides and span_of(meta)[1] <= head_from_ms and coverage.is_current(meta):
            exact.append(meta)
        elif coverage.is_gone(meta):
            needed.append(meta)
    exact.sort(key=lambda meta: -meta.resolution_ms)
    needed.sort(key=lambda meta: meta.resolution_ms)
    parts: list[StandIn] = []
    for meta in (*exact, *needed):
        parts += [StandIn(meta, lo, hi) for lo, hi in _less(span_of(meta), parts)]
    return sorted(parts, key=lambda part: part.lo)


def _less(span: Span, taken: Sequence[StandIn]) -> list[Span]:
    """What of a range is not taken yet."""
    rest = [span]
    for part in taken:
        rest = [
            piece
            for lo, hi in rest
            for piece in ((lo, min(hi, part.lo)), (max(lo, part.hi), hi))
            if piece[0] < piece[1]
        ]
    return rest


def spans_to_read(meta: BlockMeta, parts: Sequence[StandIn], mint: int, maxt: int) -> list[Span]:
    """Ranges, both ends inclusive, in which a block of samples is read: those in [mint, maxt] where no
    windows hold its samples.

    A block that went into none of the windows holds late samples: it is read beside them, but for a sample at
    the very end of windows that end where the block begins.
    """
    own = sources_of([meta])
    span = max(mint, meta.min_time) - 1, min(maxt, meta.max_time - 1)
    if span[0] >= span[1]:
        return []
    hiding = [p for p in parts if p.hi == meta.min_time or own & sources_of([p.meta])]
    return [(lo + 1, hi) for lo, hi in _less(span, hiding)]


def merge_groups(metas: Sequence[BlockMeta], tiers: Sequence[Tier]) -> list[list[BlockMeta]]:
    """Blocks that may be merged with each other, samples first.

    What a tier has is not merged with what it does not have yet, so that nothing is rolled up twice. Roll-ups
    whose samples are gone stay apart from others, because a block stands in as a whole. Late samples behind
    such a roll-up stay alone: merged with others they could not be told from what went into it.
    """
    stored = sources_of(meta for meta in metas if not meta.resolution_ms)
    gone = [meta for meta in metas if meta.resolution_ms and not sources_of([meta]) <= stored]
    known = {
        tier.resolution_ms: sources_of(m for m in metas if m.resolution_ms == tier.resolution_ms)
        for tier in tiers
    }
    groups: dict[tuple[int, bool, tuple[bool, ...]], list[BlockMeta]] = {}
    for meta in metas:
        if not meta.resolution_ms and any(
            span_of(other)[0] < meta.max_time
            and meta.min_time <= span_of(other)[1]
            and not sources_of([meta]) & sources_of([other])
            for other in gone
        ):
            continue
        own = sources_of([meta])
        had = tuple(own <= known[resolution] for resolution in known if resolution > meta.resolution_ms)
        groups.setdefault((meta.resolution_ms, meta in gone, had), []).append(meta)
    return [groups[key] for key in sorted(groups)]


def next_rollup(metas: Sequence[BlockMeta], tier: Tier, now_ms: int, head_from_ms: int) -> NextRollup | None:
    """The oldest range of a tier to be rolled up (again), of samples and of finer roll-ups."""
    own = [meta for meta in metas if meta.resolution_ms == tier.resolution_ms]
    inputs = [meta for meta in metas if meta.resolution_ms < tier.resolution_ms]
    known, stored = sources_of(own), sources_of(inputs)
    for meta in sorted(inputs, key=lambda meta: meta.min_time):
        if sources_of([meta]) <= known:
            continue
        lo, hi = _aligned(meta, [*inputs, *own])
        touched = [other for other in own if span_of(other)[0] < hi and span_of(other)[1] > lo]
        # What cannot be made again from its samples stays; the late block is read beside it.
        if not sources_of(touched) <= stored:
            continue
        lo = min([lo, *(span_of(other)[0] for other in touched)])
        hi = max([hi, *(span_of(other)[1] for other in touched)])
        if hi > now_ms - tier.after_ms or hi > head_from_ms:
            continue
        within = [other for other in inputs if other.min_time < hi and other.max_time > lo + 1]
        return NextRollup(
            tier.resolution_ms, lo, hi, tuple(sorted(sources_of([*within, *touched]))), tuple(touched)
        )
    return None


def _aligned(meta: BlockMeta, others: Sequence[BlockMeta]) -> Span:
    """The (lo, hi] for a block, at multiples of the smallest block's range.

    A sample at exactly lo belongs to the window that ends there; where no block lies before, that window is
    made as well.
    """
    step = RANGE_DIVISIBLE_MS
    if meta.resolution_ms:
        return span_of(meta)
    lo, hi = meta.min_time // step * step, -(-meta.max_time // step) * step
    if meta.min_time == lo and not any(o.min_time < lo and o.max_time >= lo for o in others if o is not meta):
        lo -= step
    return lo, hi


def superfluous(
    metas: Sequence[BlockMeta], tiers: Sequence[Tier], full_resolution_ms: int, now_ms: int
) -> list[BlockMeta]:
    """Blocks beyond the retention of their resolution (0 keeps them as long as the store keeps anything)
    whose samples are in the next coarser tier, where there is one."""
    doomed = []
    levels = [(0, full_resolution_ms), *((tier.resolution_ms, tier.retention_ms) for tier in tiers)]
    for level, (resolution_ms, retention_ms) in enumerate(levels):
        if retention_ms <= 0:
            continue
        last = level + 1 == len(levels)
        coarser = sources_of(
            meta for meta in metas if not last and meta.resolution_ms == levels[level + 1][0]
        )
        doomed += [
            meta
            for meta in metas
            if meta.resolution_ms == resolution_ms
            and meta.max_time <= now_ms - retention_ms
            and (last or sources_of([meta]) <= coarser)
        ]
    return doomed
