"""Background work on roll-ups: making them, and deleting what they supersede. Called by `tsdb.maintenance`
under its lock."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tsdb.blockmeta import BlockMeta
from tsdb.blockwriter import write_block
from tsdb.errors import CorruptionError, StorageError
from tsdb.rollupplan import NextRollup, next_rollup, sources_of, span_of, superfluous
from tsdb.rollupwrite import RolledUp

if TYPE_CHECKING:
    from tsdb.database import Database

log = logging.getLogger("tsdb.rollup")

ROLLUPS_PER_ROUND_LIMIT = 64


def planned_meta(meta: BlockMeta) -> BlockMeta:
    """As the planner of merges wants it: aligned, though the windows of a roll-up are left-open."""
    if not meta.resolution_ms:
        return meta
    return replace(meta, min_time=meta.min_time - 1, max_time=meta.max_time - 1)


def _metas(db: Database) -> list[BlockMeta]:
    return [stored.meta for stored in db.blocks()]


def roll_up_due(db: Database) -> None:
    """Make the roll-ups that are due, the finest tier first; damaged blocks are left out. Raises
    StorageError, OSError."""
    head = db.head
    head_from_ms = min(head.min_time, head.min_late_time)
    for tier in db.options.tiers:
        for _ in range(ROLLUPS_PER_ROUND_LIMIT):
            metas = [meta for meta in _metas(db) if not db.block_set.is_damaged(meta.ulid)]
            due = next_rollup(metas, tier, db.now_ms(), head_from_ms)
            if due is None:
                break
            try:
                if not _write(db, due):
                    break
            except CorruptionError:
                if not db.block_set.examine(s for s in db.blocks() if s.overlaps(due.lo, due.hi)):
                    raise


def _write(db: Database, due: NextRollup) -> bool:
    """Write one roll-up and swap it in; False where there was nothing to write."""
    began = time.monotonic()
    replaced = {meta.ulid for meta in due.replaced}
    selection = db.querier().select((), due.lo + 1, due.hi)
    rolled = RolledUp(selection, due.resolution_ms, due.lo, due.hi)
    try:
        meta = write_block(
            db.fs,
            db.path,
            due.lo + 1,
            due.hi + 1,
            rolled,
            sources=due.sources,
            parents=tuple(old.desc for old in due.replaced),
            resolution_ms=due.resolution_ms,
        )
    except (StorageError, OSError):
        db.metrics.compactions_failed.inc()
        raise
    if not meta.stats.num_samples:
        return False
    db.block_set.swap([meta], [stored for stored in db.blocks() if stored.meta.ulid in replaced])
    db.metrics.rollup_samples.labels(f"{due.resolution_ms / 1000:g}").inc(rolled.source_sample_count)
    log.info(
        "Rolled up",
        extra={
            "block": meta.ulid,
            "resolution_ms": due.resolution_ms,
            "from_ms": due.lo,
            "to_ms": due.hi,
            "read": rolled.source_sample_count,
            "written": meta.stats.num_samples,
            "replaced": sorted(replaced),
            "seconds": round(time.monotonic() - began, 3),
        },
    )
    return True


def drop_superfluous(db: Database) -> None:
    """Delete blocks of samples, and of tiers, whose own retention is over."""
    options = db.options
    doomed = superfluous(_metas(db), options.tiers, options.full_resolution_ms, db.now_ms())
    if not doomed:
        return
    log.info(
        "Deleting blocks that a coarser tier has, or whose tier's retention is over",
        extra={"blocks": [meta.ulid for meta in doomed]},
    )
    names = {meta.ulid for meta in doomed}
    db.metrics.rollup_blocks_deleted.inc(len(names))
    db.block_set.swap([], [stored for stored in db.blocks() if stored.meta.ulid in names])


def widened(meta: BlockMeta, mint: int, maxt: int) -> tuple[int, int] | None:
    """What a deletion of [mint, maxt] takes from a roll-up: whole windows that touch it; None for nothing."""
    lo, hi = span_of(meta)
    if maxt <= lo or mint > hi:
        return None
    resolution_ms = meta.resolution_ms
    return max(mint, lo + 1), -(-min(maxt, hi) // resolution_ms) * resolution_ms


def is_made_again(db: Database, meta: BlockMeta) -> bool:
    """Whether a roll-up's samples are all there: it may go, and is made again without what is deleted."""
    finer = (m for m in _metas(db) if m.resolution_ms < meta.resolution_ms)
    return sources_of([meta]) <= sources_of(finer)
