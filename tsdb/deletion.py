"""Deleting samples of series, wherever they are: all of it or, where the disk is full, nothing.

What is deleted from blocks is written beside them first, then the log learns of the head's part, and only
then do the files take their names, which needs no space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tsdb.blockset import StoredBlock
from tsdb.labels import Matcher
from tsdb.rollupwork import is_made_again, widened
from tsdb.select import SelectHints
from tsdb.tombstone import BlockTombstone, HeadTombstone
from tsdb.walrecords import PayloadCodec, RecordType, encode_tombstones

if TYPE_CHECKING:
    from tsdb.database import Database

MatcherSets = Sequence[Sequence[Matcher]]


def delete_series(db: Database, matcher_sets: MatcherSets, mint: int, maxt: int) -> None:
    """Delete existing samples in [mint, maxt] of matching series; later ones are seen again. The caller holds
    the lock of the maintenance.

    Raises StorageError, OSError: nothing is deleted then, unless the disk refuses a file its name.
    """
    db.wal.check()
    buried, dropped = _in_blocks(db, matcher_sets, mint, maxt)
    drafts = db.block_set.draft_tombstones(buried)
    try:
        stones = _log(db, matcher_sets, mint, maxt)
    except BaseException:
        db.block_set.discard_drafts(drafts)
        raise
    db.head_tombstones = (*db.head_tombstones, *stones)
    db.block_set.bury(drafts)
    if dropped:
        db.block_set.swap([], dropped)


def _in_blocks(
    db: Database, matcher_sets: MatcherSets, mint: int, maxt: int
) -> tuple[list[tuple[StoredBlock, list[BlockTombstone]]], list[StoredBlock]]:
    """Tombstones of blocks, and the roll-ups that go as a whole."""
    buried: list[tuple[StoredBlock, list[BlockTombstone]]] = []
    dropped = []
    for stored in db.blocks():
        spans = None
        if stored.meta.resolution_ms:
            spans = widened(stored.meta, mint, maxt)
            if spans is not None and is_made_again(db, stored.meta):
                dropped.append(stored)
                continue
        elif stored.overlaps(mint, maxt):
            spans = max(mint, stored.meta.min_time), min(maxt, stored.meta.max_time - 1)
        if spans is not None:
            stones = [BlockTombstone(tuple(matchers), *spans) for matchers in matcher_sets]
            buried.append((stored, stones))
    return buried, dropped


def _log(db: Database, matcher_sets: MatcherSets, mint: int, maxt: int) -> list[HeadTombstone]:
    """The head's tombstones, which the log has when this returns. Raises StorageError, OSError."""
    head, stones, records = db.head, [], []
    with head.lock:
        last = min(maxt, head.max_time)
        for matchers in matcher_sets:
            selection = head.select(matchers, mint, maxt, SelectHints(labels_only=True))
            if len(selection.labels) and last >= mint:
                stone = HeadTombstone(selection.refs, max(mint, head.min_time), last)
                payload = PayloadCodec().pack(encode_tombstones(stone.refs, stone.mint, stone.maxt))
                stones.append(stone)
                records.append((RecordType.TOMBSTONES, *payload))
        if not records:
            return []
        durable = db.wal.log(records)
    try:
        durable.result()
    except BaseException:
        db.wal.withdraw(durable)
        raise
    return stones
