"""The store as one object: open, append, query, background work, close."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from tsdb.allocator import release_free_memory
from tsdb.appender import HeadAppender
from tsdb.blockcache import BlockCache
from tsdb.blockset import BlockList, BlockSet
from tsdb.chunks import clear_directory
from tsdb.columns import Exemplar, Metadata
from tsdb.datadirectory import WAL_DIRECTORY, refuse_foreign
from tsdb.errors import ClosedError, StorageError
from tsdb.exemplar import ExemplarStore, SeriesExemplars
from tsdb.fs import DirectoryLock, FileSystem
from tsdb.head import NO_MAX_TIME, NO_MIN_TIME, Head
from tsdb.headsnapshot import has_snapshot, load_snapshot, remove_snapshot, write_snapshot
from tsdb.labels import Matcher
from tsdb.limits import StorageOptions
from tsdb.maintenance import Maintenance
from tsdb.metadata import MetadataStore
from tsdb.metrics import StorageMetrics
from tsdb.postings import Cardinality
from tsdb.querier import StoreQuerier
from tsdb.replay import Replayer, ReplayProgress
from tsdb.select import SelectHints
from tsdb.series import SERIES_LIMIT, SeriesTable
from tsdb.symbols import SymbolTable
from tsdb.tombstone import HeadTombstone
from tsdb.wal import Wal

log = logging.getLogger("tsdb")

LOCK_FILE = "lock"
MAINTENANCE_INTERVAL_S = 60.0
HEAD_SERIES_LIMITS = (SERIES_LIMIT, 2_000_000, 250_000, 30_000)
"""Series of a head, tried in turn where address space is short; the first needs 60 GB of it, the last 0.1."""
_SEED_BITS = 64


@dataclass(frozen=True, slots=True)
class HeadStats:
    """Figures of the head for `/api/v1/status/tsdb`."""

    series_count: int
    label_pair_count: int
    chunk_count: int
    min_time_ms: int
    max_time_ms: int


class Database:
    """Made by `open_database`. Any thread."""

    def __init__(
        self,
        path: Path,
        options: StorageOptions,
        registry: CollectorRegistry,
        clock: Callable[[], float],
        fs: FileSystem,
        progress: ReplayProgress,
        settled: Callable[[], StorageOptions] | None,
    ) -> None:
        """See `open_database`."""
        self.path, self.options, self.fs = path, options, fs
        self._settled = settled
        self._clock = clock
        self._progress = progress
        self.metrics = StorageMetrics(registry)
        self.symbols = SymbolTable()
        self.exemplar_store = ExemplarStore(options.limits.exemplars, options.out_of_order_window_ms)
        self._metadata = MetadataStore(options.limits.metadata_entries)
        self.head = self._make_head()
        self._lock = self._take_lock()
        try:
            self.block_set = BlockSet(
                fs, path, self.symbols, self.metrics, BlockCache(options.cache_bytes), options.decoded_bytes
            )
            self._recover()
        except BaseException:
            self._release_lock()
            raise
        self.maintenance = Maintenance(self)
        self.metrics.watch(self)
        self._closed = False
        self._close_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if options.background:
            self._thread = threading.Thread(target=self._run, name="tsdb-maintenance", daemon=True)
            self._thread.start()

    # Opening.

    def _make_head(self) -> Head:
        """A head as large as the address space allows. Raises MemoryError."""
        seeds = (secrets.randbits(_SEED_BITS), secrets.randbits(_SEED_BITS))
        for limit in HEAD_SERIES_LIMITS:
            try:
                return Head(
                    self.symbols,
                    seeds,
                    late_window_ms=self.options.out_of_order_window_ms,
                    block_range_ms=self.options.block_range_ms,
                    series_limit=limit,
                )
            except MemoryError as error:
                log.warning(
                    "Little address space: the head takes fewer series",
                    extra={"refused_limit": limit, "err": str(error)},
                )
        raise MemoryError(f"no address space for a head of {HEAD_SERIES_LIMITS[-1]} series")

    def _take_lock(self) -> DirectoryLock | None:
        if not self.options.lock_file:
            return None
        return self.fs.lock(self.path / LOCK_FILE)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _recover(self) -> None:
        began = time.monotonic()
        fs, wal_directory = self.fs, self.path / WAL_DIRECTORY
        fs.make_directory(wal_directory)
        clear_directory(fs, self.path)
        if has_snapshot(fs, self.path):
            self._settle()
        snapshot = load_snapshot(fs, self.path, self.head, self.exemplar_store, self._metadata)
        replayer = Replayer(
            fs,
            self.path,
            self.head,
            self._settled_exemplars,
            self._metadata,
            self.metrics,
            self._progress,
        )
        result = replayer.run(snapshot.segment if snapshot is not None else 0)
        self._settle()
        self.head_tombstones: tuple[HeadTombstone, ...] = tuple(replayer.tombstones)
        self.newest_t = result.newest_t
        if snapshot is not None:
            self.newest_t.update(snapshot.newest_t)
            self.head_tombstones = (*snapshot.tombstones, *self.head_tombstones)
            result.sequence = max(result.sequence, snapshot.sequence)
        self.block_set.load()
        self.wal = Wal(
            fs,
            wal_directory,
            segment=result.last_segment + 1,
            sequence=result.sequence,
            sync=self.options.wal_sync,
            clock=time.monotonic,
            observer=self.metrics,
            segment_bytes=self.options.wal_segment_bytes,
        )
        remove_snapshot(fs, self.path)
        self._appender = HeadAppender(
            self.head,
            self.wal,
            self.options.limits,
            self.exemplar_store,
            self._metadata,
            self.metrics,
            self.now_ms,
            self.newest_t,
            start_timestamps=self.options.start_timestamps,
        )
        duration = time.monotonic() - began
        self.metrics.clean_start.set(snapshot is not None)
        self.metrics.replay_duration.set(duration)
        log.info(
            "Store opened",
            extra={
                "seconds": round(duration, 3),
                "samples_replayed": result.sample_count,
                "samples_of_unknown_series": result.unknown_series_count,
                "damages": result.corruption_count,
                "series": self.head.series.series_count,
                "blocks": len(self.block_set.blocks),
                "snapshot": snapshot is not None,
            },
        )

    def _settle(self) -> None:
        """Take over the options that were not known when the opening began."""
        if self._settled is None:
            return
        options, self._settled = self._settled(), None
        self.options = options
        self.head.late_window_ms = options.out_of_order_window_ms
        self.exemplar_store.configure(options.limits.exemplars, options.out_of_order_window_ms)

    def _settled_exemplars(self) -> ExemplarStore:
        self._settle()
        return self.exemplar_store

    # Writing.

    def now_ms(self) -> int:
        """The clock in ms."""
        return int(self._clock() * 1000)

    def appender(self) -> HeadAppender:
        """The way in; one object for all callers."""
        return self._appender

    @property
    def series_table(self) -> SeriesTable:
        """Refs and aliases of the head's series."""
        return self.head.series

    # Reading.

    def gather_for(self, expected: Callable[[], int]) -> None:
        """Let the log's groups wait, for two milliseconds at most, for requests that are being read.

        `expected`, which any thread may call, says how many requests are in the house.
        """
        self.wal.expected = expected

    def querier(self) -> StoreQuerier:
        """A view over all time. Raises ClosedError."""
        if self._closed:
            raise ClosedError("the database is closed")
        return StoreQuerier(
            self.head,
            self.blocks,
            lambda: self.head_tombstones,
            self.block_set.joins,
            self.block_set.decoded,
            self.metrics,
        )

    def blocks(self) -> BlockList:
        """The blocks as of now, ascending by time."""
        return self.block_set.blocks

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> list[SeriesExemplars]:
        """Exemplars in [mint, maxt] of the series that satisfy any of the sets."""
        found: dict[int, SeriesExemplars] = {}
        for matchers in matcher_sets:
            hints = SelectHints(labels_only=True)
            selection = self.head.select(matchers, NO_MAX_TIME, NO_MIN_TIME, hints)
            rows = {int(ref): row for row, ref in enumerate(selection.refs.tolist())}
            for ref, exemplars in self.exemplar_store.select(set(rows), mint, maxt).items():
                ordered: list[Exemplar] = sorted(exemplars, key=lambda exemplar: exemplar.t_ms)
                found[ref] = SeriesExemplars(selection.labels.row(rows[ref]), ordered)
        return sorted(found.values(), key=lambda series: series.labels)

    def metadata(self) -> list[Metadata]:
        """Metadata of remote-written families."""
        return self._metadata.all()

    # Settings.

    def reconfigure(self, options: StorageOptions) -> None:
        """Take over what a reload of the configuration may change: retentions, roll-ups, the out-of-order
        window, limits. Retentions are applied by the next round of background work; a smaller limit of series
        refuses new ones, those that live stay."""
        with self.head.lock:
            self.options = replace(
                self.options,
                retention_ms=options.retention_ms,
                retention_bytes=options.retention_bytes,
                retention_disk_percent=options.retention_disk_percent,
                out_of_order_window_ms=options.out_of_order_window_ms,
                tiers=options.tiers,
                full_resolution_ms=options.full_resolution_ms,
                series_retention=options.series_retention,
                limits=options.limits,
            )
            self._appender.limits = options.limits
            self.head.late_window_ms = options.out_of_order_window_ms
        self.exemplar_store.configure(options.limits.exemplars, options.out_of_order_window_ms)

    # Figures.

    def head_stats(self) -> HeadStats:
        """Series, chunks and times of the head."""
        head = self.head
        return HeadStats(
            head.series.series_count,
            head.postings.cardinality(1).label_pair_count,
            head.chunk_count(),
            head.min_time,
            head.max_time,
        )

    def cardinality(self, limit: int = 10) -> Cardinality:
        """The head's largest metrics, labels and pairs."""
        return self.head.postings.cardinality(limit)

    def block_metas(self) -> list[Mapping[str, Any]]:
        """meta.json of each block."""
        return [orjson.loads(stored.meta.to_json()) for stored in self.blocks()]

    def min_time(self) -> int:
        """Oldest time stored, NO_MIN_TIME for an empty store."""
        return min([self.head.min_time, *(stored.meta.min_time for stored in self.blocks())])

    def block_bytes(self) -> int:
        """Bytes of all blocks."""
        return sum(self.block_set.size_bytes(stored) for stored in self.blocks())

    def wal_bytes(self) -> int:
        """Bytes of the log."""
        return self.fs.size(self.path / WAL_DIRECTORY)

    def symbol_bytes(self) -> int:
        """Bytes of the symbol table's own arrays, texts not counted."""
        return self.symbols.memory_bytes()

    # Administration.

    def delete_series(self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int) -> None:
        """Delete the samples in [mint, maxt] of matching series. Raises StorageError."""
        self.maintenance.delete_series(matcher_sets, mint, maxt)

    def clean_tombstones(self) -> None:
        """Rewrite blocks without what is deleted. Raises StorageError."""
        self.maintenance.clean_tombstones()

    def snapshot(self, *, skip_head: bool = False) -> str:
        """Copy of the blocks (hard links) and of the head (a block) under `snapshots/`; returns its name."""
        return self.maintenance.snapshot(skip_head)

    # Background work and the end.

    def _run(self) -> None:
        while not self._stop.wait(MAINTENANCE_INTERVAL_S):
            try:
                self.maintenance.run()
            except (StorageError, OSError) as error:
                log.error("Background work of the store failed", extra={"err": str(error)})
            except Exception:
                log.exception("Background work of the store failed")
            release_free_memory()

    def close(self) -> None:
        """Flush the log, write the head's snapshot, release the directory. May be called twice."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self.head.lock:
            self._appender.closed = True
        intact = self._flush_log()
        if intact and self.options.snapshot_on_close:
            try:
                write_snapshot(
                    self.fs,
                    self.path,
                    self.head,
                    segment=self.wal.segment,
                    sequence=self.wal.sequence,
                    newest_t=self.newest_t,
                    tombstones=self.head_tombstones,
                    exemplars=self.exemplar_store.all(),
                    metadata=self._metadata.all(),
                )
            except (StorageError, OSError) as error:
                log.warning("No head snapshot was written; the next start replays", extra={"err": str(error)})
        self._release_lock()

    def _flush_log(self) -> bool:
        try:
            self.wal.flush()
        except (StorageError, OSError) as error:
            log.error("The write-ahead log could not be flushed", extra={"err": str(error)})
            return False
        finally:
            self.wal.close()
        return True


def open_database(
    path: str | Path,
    options: StorageOptions | None = None,
    registry: CollectorRegistry | None = None,
    clock: Callable[[], float] = time.time,
    *,
    fs: FileSystem | None = None,
    progress: ReplayProgress | None = None,
    settled: Callable[[], StorageOptions] | None = None,
) -> Database:
    """Open or create a store in a directory; blocks until the log is replayed.

    `clock` gives Unix seconds. `progress` is filled while the replay runs. `settled` is called once, may
    wait, and gives the options that count; no segment is begun and no snapshot removed before that. `options`
    must then be right in `block_range_ms`, `lock_file`, `cache_bytes`, `decoded_bytes` and
    `limits.metadata_entries` only.
    Raises LockedError for a directory in use, UnknownVersionError for files of a newer format, StorageError
    where it is not writable or holds something else than a store, and what `settled` raises.
    """
    root = Path(path)
    files = fs if fs is not None else FileSystem()
    try:
        files.make_directory(root)
    except OSError as error:
        raise StorageError(f"data directory {root} cannot be created: {error.strerror}") from error
    refuse_foreign(files, root)
    return Database(
        root,
        options if options is not None else StorageOptions(),
        registry if registry is not None else CollectorRegistry(),
        clock,
        files,
        progress if progress is not None else ReplayProgress(),
        settled,
    )
