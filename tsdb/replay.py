"""Rebuild the head from checkpoint and segments at the start.

Records are read ahead by a thread (tsdb/walreader.py) and stored by kernels, each series' samples in the
order they were written, so that its row goes through the same states as before. Damage is cut off or set
aside, counted and logged, never dropped in silence.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.checkpoint import checkpoint_numbers, checkpoint_path, remove_leftovers
from tsdb.errors import CorruptionError, DiskFullError
from tsdb.exemplar import ExemplarStore
from tsdb.fs import FileSystem
from tsdb.head import NO_MAX_TIME, NO_MIN_TIME, Head
from tsdb.kernels.append import UNKNOWN_SERIES
from tsdb.kernels.rowtouch import touch_rows, touch_series
from tsdb.kernels.walcodec import replay_samples
from tsdb.metadata import MetadataStore
from tsdb.metrics import StorageMetrics
from tsdb.replaybundle import BundleStore
from tsdb.tombstone import HeadTombstone
from tsdb.wal import SegmentRead, segment_name, segment_numbers
from tsdb.walreader import read_ahead
from tsdb.walrecords import (
    RecordType,
    SamplesPayload,
    decode_exemplars,
    decode_histograms,
    decode_metadata,
    decode_series,
    decode_starts,
    decode_tombstones,
    decode_truncated,
    series_refs,
)
from tsdb.walrepair import cut_segment, quarantine_path
from tsdb.walwindow import BUNDLE_SERIES, Bundle, ReadRecord, WindowOrder, read_refs_and_times

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

log = logging.getLogger("tsdb.replay")

BUNDLES_AT_ONCE = 2
"""Threads that store runs, beside the one that reads: where there are more processors, reading is what all
wait for."""
SWITCH_INTERVAL_S = 0.0005
"""A thread that comes out of a kernel waits so long for the one that reads or imports to let Python go; by
default it is 5 ms, as long as storing a whole bundle takes."""

EXEMPLAR_BYTES_HELD = 1 << 24
"""Payloads that wait for `exemplars`, which may be known last."""


@dataclass(slots=True)
class ReplayProgress:
    """Segments to read and the one being read; all 0 when there is nothing to replay."""

    first: int = 0
    last: int = 0
    current: int = 0
    storing: threading.Event = field(default_factory=threading.Event)
    """Set when samples are being stored, which needs the interpreter now and then only; or there are none."""


@dataclass(slots=True)
class ReplayResult:
    """What the replay found."""

    last_segment: int = 0
    sequence: int = 0
    sample_count: int = 0
    unknown_series_count: int = 0
    corruption_count: int = 0
    newest_t: dict[int, int] = field(default_factory=dict)
    """Newest sample time of each segment."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Samples as `Head.store` takes them; `kept` of them are stored."""

    refs: U32Array
    t_ms: I64Array
    bits: U64Array
    codes: U8Array
    kept: int


class Replayer:
    """Used once, by one thread, before the store takes anything."""

    def __init__(
        self,
        fs: FileSystem,
        root: Path,
        head: Head,
        exemplars: Callable[[], ExemplarStore],
        metadata: MetadataStore,
        metrics: StorageMetrics,
        progress: ReplayProgress,
    ) -> None:
        """`exemplars` is asked for when there are some, and may wait."""
        self._fs, self._root, self._head = fs, root, head
        self._directory = root / "wal"
        self._exemplars, self._metadata, self._metrics = exemplars, metadata, metrics
        self._progress = progress
        self._held_exemplars: list[U8Array] = []
        self._result = ReplayResult()
        self._announced: deque[U8Array] = deque()
        """Series records whose labels are not installed yet."""
        self._starts: I64Array | None = None
        """Start timestamps of the next samples record."""
        self._orphans = reserve(np.uint64, 2 * head.series.slot_capacity).reshape(-1, 2)
        """Newest value and state of the log's coder of series that are not known."""
        self._lock = threading.Lock()
        self._stores: queue.SimpleQueue[BundleStore] = queue.SimpleQueue()
        for _ in range(BUNDLES_AT_ONCE):
            self._stores.put(BundleStore(head, self._lock))
        self._order = WindowOrder(head.series.slot_capacity)
        self._segment = 0
        self._oldest = NO_MAX_TIME
        self._checkpoint = 0
        self.tombstones: list[HeadTombstone] = []
        self._apply: dict[int, Callable[[U8Array], None]] = {
            RecordType.SERIES: self._series,
            RecordType.HISTOGRAMS: self._histograms,
            RecordType.EXEMPLARS: self._add_exemplars,
            RecordType.METADATA: self._add_metadata,
            RecordType.TOMBSTONES: self._tombstones,
            RecordType.TRUNCATED: self._truncated,
            RecordType.STARTS: self._note_starts,
        }

    def run(self, after_segment: int = 0) -> ReplayResult:
        """Replay the newest checkpoint and all segments above `after_segment` (a snapshot has the others)."""
        fs, directory = self._fs, self._directory
        remove_leftovers(fs, directory)
        numbers = segment_numbers(fs, directory)
        checkpoints = checkpoint_numbers(fs, directory)
        self._result.last_segment = max([*numbers, *checkpoints, after_segment], default=0)
        wanted = [number for number in numbers if number > after_segment]
        if wanted:
            self._progress.first, self._progress.last = wanted[0], wanted[-1]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            with ThreadPoolExecutor(BUNDLES_AT_ONCE, "wal-replay") as self._pool:
                if not after_segment and checkpoints:
                    self._read_checkpoint(checkpoints[-1])
                for number in wanted:
                    self._progress.current = number
                    self._read_segment(number, last=number == wanted[-1])
                self._install_announced()
        finally:
            sys.setswitchinterval(interval)
        self._release_exemplars()
        self._head.finish_replay()
        return self._result

    def _read_checkpoint(self, number: int) -> None:
        state = SegmentRead()
        data = self._fs.map_file(checkpoint_path(self._directory, number))
        self._checkpoint = number
        for record in read_ahead(data, number, state, self._order):
            self._apply_record(record)
        if state.damage:
            self._count_damage(f"checkpoint {number}", state, len(data))
            target = self._quarantine_path(checkpoint_path(self._directory, number).name)
            self._fs.rename(checkpoint_path(self._directory, number), target)

    def _read_segment(self, number: int, last: bool) -> None:
        path = self._directory / segment_name(number)
        data = self._fs.map_file(path)
        state = SegmentRead()
        self._segment = number
        self._result.newest_t[number] = NO_MAX_TIME
        for record in read_ahead(data, number, state, self._order):
            self._apply_record(record)
        self._result.sequence = max(self._result.sequence, state.sequence)
        if not state.damage:
            return
        self._count_damage(f"segment {number}", state, len(data))
        # What was cut off stays readable for a human; the good part stays the segment.
        aside = self._quarantine_path(f"wal-{segment_name(number)}" + (".tail" if last else ""))
        try:
            cut_segment(self._fs, path, data, state.good_bytes, aside, last=last)
        except DiskFullError as error:
            self._fs.remove(aside)
            log.warning("No space to set damage aside: the segment stays as it is", extra={"err": str(error)})

    def _quarantine_path(self, name: str) -> Path:
        self._metrics.quarantined.labels("wal").inc()
        return quarantine_path(self._fs, self._root, name)

    def _count_damage(self, what: str, state: SegmentRead, size: int) -> None:
        self._result.corruption_count += 1
        self._metrics.wal_corruptions.inc()
        log.warning(
            "Damage in the write-ahead log: the part before it is kept, the rest is set aside",
            extra={"file": what, "damage": state.damage, "good_bytes": state.good_bytes, "bytes": size},
        )

    def _apply_record(self, record: ReadRecord) -> None:
        if record.error is not None:
            raise record.error
        if record.samples:
            self._store_all(record.samples, late=record.kind == RecordType.LATE_SAMPLES)
            return
        if record.kind != RecordType.SERIES:
            self._install_announced()
        apply = self._apply.get(record.kind)
        if apply is None:
            raise CorruptionError(f"WAL record {record.sequence} has unknown type {record.kind}")
        apply(record.payload)

    @property
    def _covered(self) -> bool:
        """Whether the checkpoint was made after the segment being read."""
        return 0 < self._segment < self._checkpoint

    def _series(self, data: U8Array) -> None:
        # Samples need no labels, which take Python a while: they are installed while samples are stored.
        if self._head.announce(series_refs(data)):
            self._announced.append(data)
            return
        self._install_announced()
        self._head.install(decode_series(data, self._head.symbols))

    def _install_announced(self, until: Callable[[], bool] = lambda: False) -> None:
        """Install announced series until there is something else to do."""
        while self._announced and not until():
            self._head.install_announced(decode_series(self._announced.popleft(), self._head.symbols))

    def _store_all(self, bundles: Sequence[Bundle], late: bool) -> None:
        """Store bundles, several at once, as runs; one by one what cannot be stored so."""
        left: Sequence[Bundle] = bundles
        if not late and self._starts is None and not self._head.starts.used:
            storing = [self._pool.submit(self._store_runs, bundle) for bundle in bundles]
            self._progress.storing.set()
            self._install_announced(until=storing[-1].done)
            left = [bundle for each in storing if (bundle := each.result()) is not None]
        if not left:
            return
        decoding = self._pool.submit(self._decode, left[0].parts, late)
        for following in (*left[1:], None):
            decoded = decoding.result()
            if following is not None:
                decoding = self._pool.submit(self._decode, following.parts, late)
            self._store(decoded)

    def _store_runs(self, bundle: Bundle) -> Bundle | None:
        """Store a bundle as runs of its series; the bundle itself where that cannot be."""
        store = self._stores.get()
        try:
            done = store.take(bundle, self._segment, self._oldest if self._covered else NO_MAX_TIME)
        finally:
            self._stores.put(store)
        if done is None:
            return bundle
        count, newest_t = done
        with self._lock:
            self._result.sample_count += count
            newest = self._result.newest_t
            newest[self._segment] = max(newest.get(self._segment, NO_MAX_TIME), newest_t)
        return None

    def _decode(self, parts: Sequence[SamplesPayload], late: bool) -> _Decoded:
        """Values against the rows of their series, which are moved on."""
        head = self._head
        refs, t_ms = read_refs_and_times(parts)
        coded = np.concatenate([part.coded for part in parts]) if len(parts) > 1 else parts[0].coded
        sizes = np.array([(part.count, len(part.coded)) for part in parts], dtype=np.int64)
        bits, codes = np.empty(len(refs), dtype=np.uint64), np.empty(len(refs), dtype=np.uint8)
        touch_rows(refs[:BUNDLE_SERIES], head.rows)
        kept = replay_samples(
            coded,
            sizes,
            late,
            self._segment,
            self._oldest if self._covered else NO_MAX_TIME,
            head.series.slots_used,
            head.series.alive,
            head.series.generation,
            head.rows,
            self._orphans,
            refs,
            t_ms,
            bits,
            codes,
        )
        if kept < 0:
            raise CorruptionError("samples record does not decode although its checksum is right")
        return _Decoded(refs, t_ms, bits, codes, kept)

    def _store(self, decoded: _Decoded) -> None:
        codes, count = decoded.codes, len(decoded.codes)
        starts, self._starts = self._starts, None
        if starts is not None and len(starts) != count:
            raise CorruptionError(f"{len(starts)} start timestamps for a record of {count} samples")
        head = self._head
        touch_series(decoded.refs[:BUNDLE_SERIES], head.rows, head.slabs, head.slab_next)
        self._head.store(decoded.refs, decoded.t_ms, decoded.bits, codes, starts)
        self._result.sample_count += decoded.kept
        if decoded.kept < count:
            self._result.unknown_series_count += int(np.count_nonzero(codes == UNKNOWN_SERIES))
        if count:
            newest = self._result.newest_t
            newest[self._segment] = max(newest.get(self._segment, NO_MAX_TIME), int(decoded.t_ms.max()))

    def _note_starts(self, data: U8Array) -> None:
        self._starts = decode_starts(data)

    def _histograms(self, data: U8Array) -> None:
        columns = decode_histograms(data)
        rules = self._head.rules(0, 0, histograms=True, replay=True)
        codes, _ = self._head.admit_histograms(columns, rules)
        if self._covered:
            codes[columns.batch.t_ms < self._oldest] = UNKNOWN_SERIES
        self._head.store_histograms(columns, codes)
        self._result.sample_count += len(codes)
        newest = self._result.newest_t
        if len(codes):
            newest_t = int(columns.batch.t_ms.max())
            newest[self._segment] = max(newest.get(self._segment, NO_MAX_TIME), newest_t)

    def _add_exemplars(self, data: U8Array) -> None:
        # They concern nothing else, so that they may come later than what follows them in the log.
        self._held_exemplars.append(data)
        if sum(map(len, self._held_exemplars)) > EXEMPLAR_BYTES_HELD:
            self._release_exemplars()

    def _release_exemplars(self) -> None:
        held, self._held_exemplars = self._held_exemplars, []
        for data in held:
            self._exemplars().add(decode_exemplars(data))

    def _add_metadata(self, data: U8Array) -> None:
        self._metadata.update(decode_metadata(data))

    def _tombstones(self, data: U8Array) -> None:
        refs, mint, maxt = decode_tombstones(data)
        self.tombstones.append(HeadTombstone(refs, mint, maxt))

    def _truncated(self, data: U8Array) -> None:
        oldest = decode_truncated(data)
        self.tombstones = [stone for stone in self.tombstones if stone.maxt >= oldest]
        if self._segment == 0:
            self._oldest = oldest
            self._head.min_valid_t = oldest
        elif not self._covered:
            if self._head.max_time != NO_MAX_TIME and oldest < NO_MIN_TIME:
                self._head.truncate(oldest)
            self._head.min_valid_t = max(self._head.min_valid_t, oldest)
