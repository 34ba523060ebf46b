"""Background work: the head's old ranges become blocks, blocks are merged, old ones deleted, the log cut.

One thread at a time (a lock); the writers only wait while the head is truncated.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsdb.blockmeta import BlockMeta
from tsdb.blockset import StoredBlock
from tsdb.blockwriter import write_block
from tsdb.checkpoint import checkpoint_numbers, checkpoint_path, write_checkpoint
from tsdb.compact import head_cut, head_ranges, much_is_deleted, plan, ranges
from tsdb.deletion import delete_series
from tsdb.errors import CorruptionError, StorageError
from tsdb.head import NO_HINTS, NO_MAX_TIME, NO_MIN_TIME, NewSeries
from tsdb.labels import Matcher, MatchType
from tsdb.mergeselect import merge_selections
from tsdb.retention import beyond_age, beyond_size
from tsdb.rollupplan import merge_groups
from tsdb.rollupwork import drop_superfluous, planned_meta, roll_up_due
from tsdb.select import SelectHints
from tsdb.tombstone import BlockTombstone, HeadTombstone
from tsdb.wal import segment_name, segment_numbers
from tsdb.walrecords import (
    PayloadCodec,
    RecordType,
    encode_exemplars,
    encode_metadata,
    encode_series,
    encode_tombstones,
    encode_truncated,
)

if TYPE_CHECKING:
    from tsdb.database import Database

log = logging.getLogger("tsdb.maintenance")

CHECKPOINT_SERIES_PER_RECORD = 65_536
SNAPSHOTS = "snapshots"
COMPACTIONS_PER_ROUND_LIMIT = 64


class Maintenance:
    """Any thread may call; calls wait for each other."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lock = threading.RLock()

    def run(self) -> None:
        """One round of all that is due. What fails does not keep the rest from running: retention must
        go on where a full disk or a damaged block stops the merging. Raises the first StorageError or
        OSError."""
        db = self._db
        with self._lock:
            db.metrics.compactions_triggered.inc()
            failures: list[StorageError | OSError] = []
            for step in (
                db.block_set.take_up_new,
                self.compact_head,
                self._move_chunks,
                self.compact_blocks,
                lambda: drop_superfluous(db),
                self.retain,
                self.retain_series,
                lambda: roll_up_due(db),
            ):
                try:
                    step()
                except (StorageError, OSError) as error:
                    failures.append(error)
        for other in failures[1:]:
            log.error("Background work of the store failed", extra={"err": str(other)})
        if failures:
            raise failures[0]

    def _move_chunks(self) -> None:
        db, chunk_log = self._db, self._db.head.chunk_log
        chunk_log.remove_files(db.fs)
        chunk_log.spill(db.fs, db.path, db.options.chunk_memory_bytes)
        chunk_log.release_pages()

    # The head.

    def compact_head(self) -> None:
        """Write every complete range of the head as blocks and truncate head and log."""
        head = self._db.head
        with self._lock:
            while not head.empty:
                settled = max((stored.meta.max_time for stored in self._db.blocks()), default=NO_MAX_TIME)
                # Late samples lie where blocks are already: a long range would be merged with all of them.
                count = 1 if head.min_time < settled else None
                cut = head_cut(head.min_time, head.max_time, self._block_ranges()[:count])
                if cut is None:
                    return
                self.cut_head(cut)

    def cut_head(self, cut: int) -> None:
        """Write everything before `cut` as blocks of aligned ranges, then drop it from head and log."""
        db, head = self._db, self._db.head
        with self._lock:
            began = time.monotonic()
            try:
                metas = []
                for lo, hi in head_ranges(head.min_time, head.min_late_time, cut, head.block_range_ms):
                    meta = self._write_head_range(lo, hi)
                    if meta is not None:
                        metas.append(meta)
            except (StorageError, OSError):
                db.metrics.compactions_failed.inc()
                raise
            db.block_set.swap(metas, [])
            db.metrics.compactions.inc(len(metas))
            db.metrics.compaction_duration.observe(time.monotonic() - began)
            log.info("Head compacted", extra={"cut": cut, "blocks": [meta.ulid for meta in metas]})
            self._truncate(cut)

    def _write_head_range(self, lo: int, hi: int) -> BlockMeta | None:
        db = self._db
        querier = db.querier()
        selection = querier.select_head((), lo, hi - 1, NO_HINTS)
        if not len(selection.labels):
            return None
        meta = write_block(db.fs, db.path, lo, hi, selection)
        if meta.stats.num_samples:
            return meta
        self._discard(meta)
        return None

    def _discard(self, meta: BlockMeta) -> None:
        self._db.fs.remove_tree(self._db.path / meta.ulid)

    def _truncate(self, cut: int) -> None:
        """Drop what is in blocks from the head, write a checkpoint, delete the segments before it."""
        db, head = self._db, self._db.head
        metrics = db.metrics
        began = time.monotonic()
        metrics.truncations.inc()
        codec = PayloadCodec()
        with head.lock:
            packed, compressed = codec.pack(encode_truncated(cut))
            db.wal.log([(RecordType.TRUNCATED, packed, compressed)])
            chunks = head.chunk_count()
            removed = head.truncate(cut)
            metrics.chunks_removed.inc(max(chunks - head.chunk_count(), 0))
            db.head_tombstones = tuple(s for s in db.head_tombstones if s.maxt >= cut)
            number = db.wal.cut()
            series = self._living_series()
            stones = db.head_tombstones
        metrics.series_removed.inc(removed)
        metrics.gc_duration.observe(time.monotonic() - began)
        self._cut_log(cut, number, self._checkpoint_records(cut, series, stones))

    def _cut_log(self, cut: int, number: int, records: Iterator[tuple[int, list[bytes]]]) -> None:
        db = self._db
        metrics, directory = db.metrics, db.path / "wal"
        began = time.monotonic()
        metrics.wal_truncations.inc()
        metrics.checkpoint_creations.inc()
        db.wal.flush()
        try:
            write_checkpoint(db.fs, directory, number, records)
        except (StorageError, OSError):
            metrics.checkpoint_creations_failed.inc()
            metrics.wal_truncations_failed.inc()
            raise
        for old in checkpoint_numbers(db.fs, directory):
            if old < number:
                metrics.checkpoint_deletions.inc()
                db.fs.remove(checkpoint_path(directory, old))
        for segment in segment_numbers(db.fs, directory):
            # The log's own segment may be younger than `number` by now; only older ones are looked at.
            if segment < number and db.newest_t.get(segment, NO_MAX_TIME) < cut:
                db.fs.remove(directory / segment_name(segment))
                db.newest_t.pop(segment, None)
        db.fs.sync_directory(directory)
        metrics.wal_truncate_duration.observe(time.monotonic() - began)

    def _living_series(self) -> list[NewSeries]:
        """Copies of refs and pairs in pieces of a record each; cheap enough for the head's lock."""
        series = self._db.head.series
        slots = np.flatnonzero(series.alive[: series.slots_used]).astype(np.uint32)
        pieces = range(0, len(slots), CHECKPOINT_SERIES_PER_RECORD)
        parts = [slots[at : at + CHECKPOINT_SERIES_PER_RECORD] for at in pieces]
        return [NewSeries(series.refs_of(part), *series.pairs_of(part)) for part in parts]

    def _checkpoint_records(
        self, cut: int, series: Sequence[NewSeries], stones: Sequence[HeadTombstone]
    ) -> Iterator[tuple[int, list[bytes]]]:
        db = self._db
        yield RecordType.TRUNCATED, encode_truncated(cut)
        for part in series:
            yield RecordType.SERIES, encode_series(part, db.symbols)
        metadata = db.metadata()
        if metadata:
            yield RecordType.METADATA, encode_metadata(metadata)
        exemplars = db.exemplar_store.all()
        if exemplars:
            yield RecordType.EXEMPLARS, encode_exemplars(exemplars)
        for stone in stones:
            yield RecordType.TOMBSTONES, encode_tombstones(stone.refs, stone.mint, stone.maxt)

    # Blocks.

    def _block_ranges(self) -> list[int]:
        options = self._db.options
        return ranges(options.block_range_ms, options.retention_ms, options.longest_block_ms)

    def compact_blocks(self) -> None:
        """Merge blocks until the plan is empty. Damaged ones are left out. Raises StorageError, OSError."""
        db = self._db
        with self._lock:
            block_ranges = self._block_ranges()
            for _ in range(COMPACTIONS_PER_ROUND_LIMIT):
                chosen = self._plan(self._undamaged(), block_ranges)
                if not chosen:
                    return
                try:
                    self._merge(chosen)
                except CorruptionError:
                    if not db.block_set.examine(chosen):
                        raise

    def _undamaged(self) -> list[StoredBlock]:
        db = self._db
        return [stored for stored in db.blocks() if not db.block_set.is_damaged(stored.meta.ulid)]

    def _plan(self, blocks: Sequence[StoredBlock], block_ranges: Sequence[int]) -> Sequence[StoredBlock]:
        """The next merge of samples, or of windows of one resolution; else a block with much deleted."""
        stored = {each.meta.ulid: each for each in blocks}
        for group in merge_groups([each.meta for each in blocks], self._db.options.tiers):
            chosen = plan([planned_meta(meta) for meta in group], block_ranges)
            if chosen:
                return [stored[meta.ulid] for meta in chosen]
        for each in blocks[:-1]:
            if each.tombstones and much_is_deleted(each.meta, _series_touched(each), block_ranges):
                return [each]
        return []

    def _merge(self, parts: Sequence[StoredBlock]) -> None:
        """Replace blocks by one."""
        db = self._db
        began = time.monotonic()
        metas = [stored.meta for stored in parts]
        lo, hi = min(meta.min_time for meta in metas), max(meta.max_time for meta in metas)
        covered = sum(meta.max_time - meta.min_time for meta in metas)
        if covered > hi - lo:
            db.metrics.vertical_compactions.inc()
        try:
            selection = merge_selections([s.select((), lo, hi - 1, NO_HINTS) for s in parts])
            written = write_block(
                db.fs,
                db.path,
                lo,
                hi,
                selection,
                level=max(meta.level for meta in metas) + 1,
                sources=tuple(sorted({source for meta in metas for source in meta.sources or (meta.ulid,)})),
                parents=tuple(meta.desc for meta in metas),
                resolution_ms=metas[0].resolution_ms,
            )
        except (StorageError, OSError):
            db.metrics.compactions_failed.inc()
            raise
        if written.stats.num_samples:
            db.block_set.swap([written], parts)
        else:
            self._discard(written)
            db.block_set.swap([], parts)
        db.metrics.compactions.inc()
        db.metrics.compaction_duration.observe(time.monotonic() - began)
        log.info("Blocks merged", extra={"from": [meta.ulid for meta in metas], "to": written.ulid})

    def retain_series(self) -> None:
        """Rewrite blocks without the series whose own retention is over."""
        for rule in self._db.options.series_retention:
            matchers = tuple(Matcher(MatchType.REGEXP, name, value) for name, value in rule.match)
            for stored in self._undamaged():
                meta = stored.meta
                if meta.max_time > self._db.now_ms() - rule.retention_ms:
                    continue
                hints = SelectHints(labels_only=True)
                if not len(stored.select(matchers, meta.min_time, meta.max_time, hints).labels):
                    continue
                stone = BlockTombstone(matchers, meta.min_time, meta.max_time)
                blocks = self._db.block_set
                blocks.bury(blocks.draft_tombstones([(stored, [stone])]))
                self._merge([s for s in self._db.blocks() if s.meta.ulid == meta.ulid])
                log.info("Series beyond their own retention deleted", extra={"block": meta.ulid})

    def retain(self) -> None:
        """Delete blocks that the retention by time or size no longer keeps."""
        db, options = self._db, self._db.options
        with self._lock:
            blocks = {s.meta.ulid: s for s in db.blocks()}
            metas = [s.meta for s in blocks.values()]
            newest = max([meta.max_time for meta in metas], default=NO_MAX_TIME)
            aged = beyond_age(metas, newest, options.retention_ms)
            db.metrics.time_retentions.inc(len(aged))
            kept = [meta for meta in metas if meta not in aged]
            sized: list[BlockMeta] = []
            limit = options.retention_bytes
            if options.retention_disk_percent:
                limit = int(db.fs.disk_bytes(db.path) * options.retention_disk_percent / 100)
            if limit:
                sizes = [db.block_set.size_bytes(blocks[meta.ulid]) for meta in kept]
                other = db.wal_bytes() + db.head.chunk_storage_bytes()
                sized = beyond_size(kept, sizes, other, limit)
                db.metrics.size_retentions.inc(len(sized))
            doomed = [*aged, *sized]
            if doomed:
                log.info("Deleting blocks", extra={"blocks": [meta.ulid for meta in doomed]})
                db.block_set.swap([], [blocks[meta.ulid] for meta in doomed])

    # Administration.

    def delete_series(self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int) -> None:
        """See `tsdb.deletion.delete_series`."""
        with self._lock:
            delete_series(self._db, matcher_sets, mint, maxt)

    def clean_tombstones(self) -> None:
        """Rewrite each block that has tombstones. Raises StorageError, OSError; CorruptionError for damaged
        ones after all others."""
        began = time.monotonic()
        failures: list[CorruptionError] = []
        with self._lock:
            for stored in self._db.blocks():
                if stored.tombstones:
                    try:
                        self._merge([stored])
                    except CorruptionError as error:
                        self._db.block_set.examine([stored])
                        failures.append(error)
        if failures:
            raise failures[0]
        self._db.metrics.tombstone_cleanup.observe(time.monotonic() - began)

    def snapshot(self, skip_head: bool) -> str:
        """Hard-link all blocks and write the head as a block below `snapshots/<name>`; returns the name.

        Of one that fails nothing stays. Raises StorageError, OSError.
        """
        db = self._db
        with self._lock:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(db.now_ms() / 1000))
            name = f"{stamp}-{secrets.token_hex(8)}"
            target = db.path / SNAPSHOTS / name
            try:
                self._write_snapshot(target, skip_head)
            except (StorageError, OSError):
                db.fs.remove_tree(target)
                raise
            return name

    def _write_snapshot(self, target: Path, skip_head: bool) -> None:
        db, fs, head = self._db, self._db.fs, self._db.head
        fs.make_directory(target)
        for stored in db.blocks():
            fs.make_directory(target / stored.path.name)
            for file in fs.list(stored.path):
                fs.link(stored.path / file, target / stored.path.name / file)
        if not skip_head and not head.empty:
            lo, hi = min(head.min_time, head.min_late_time, NO_MIN_TIME), head.max_time + 1
            selection = db.querier().select_head((), lo, hi - 1, NO_HINTS)
            write_block(fs, target, lo, hi, selection)


def _series_touched(stored: StoredBlock) -> int:
    """Series of which a block's tombstones delete something, those of several tombstones counted as often."""
    hints = SelectHints(labels_only=True)
    return sum(
        len(stored.block.select(stone.matchers, stone.mint, stone.maxt, hints).labels)
        for stone in stored.tombstones
    )
