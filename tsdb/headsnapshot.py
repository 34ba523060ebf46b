"""The head as a file, written at a clean stop so that the next start does not replay (docs/formats/head.md).

The file holds the head's arrays as they are, with symbol ids of its own table of strings. It says up to which
WAL segment it goes; segments stay until they are truncated as usual, so a damaged snapshot only costs a
replay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tsdb.arena import reserve
from tsdb.chunks import SEGMENT_BYTES
from tsdb.columns import Exemplar, HistogramColumns, Metadata
from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.exemplar import ExemplarStore
from tsdb.fs import FileSystem
from tsdb.head import Head, NewSeries
from tsdb.kernels import append as k
from tsdb.metadata import MetadataStore
from tsdb.sectionfile import SectionFile, SectionWriter
from tsdb.tombstone import HeadTombstone
from tsdb.wal import VERSION as WAL_VERSION
from tsdb.walrecords import (
    decode_exemplars,
    decode_histograms,
    decode_metadata,
    decode_series,
    encode_exemplars,
    encode_histograms,
    encode_metadata,
    encode_series,
)

log = logging.getLogger("tsdb.snapshot")

FILE_NAME = "head.snapshot"
KIND = 100
SECTION_STATE, SECTION_SERIES, SECTION_EXEMPLARS, SECTION_METADATA, SECTION_HISTOGRAMS = 1, 2, 3, 4, 5
_FIRST_ARRAY, _FIRST_STARTS, _FIRST_SEGMENT = 16, 32, 64
_SEGMENTS_LIMIT = 190
"""3 GiB of sealed chunks; a larger head is replayed. A section file has at most 256 sections."""


@dataclass(frozen=True, slots=True)
class LoadedSnapshot:
    """Where in the log the snapshot was taken: all of segments up to `segment` is in it."""

    segment: int
    sequence: int
    newest_t: dict[int, int]
    tombstones: list[HeadTombstone]


def _arrays(head: Head) -> list[tuple[npt.NDArray[Any], int]]:
    """Arrays that are saved as they are, each with the number of leading elements that count."""
    counters, slots = head.counters, head.series.slots_used
    slabs = int(counters[k.SLAB_END])
    return [
        (head.series.generation, slots),
        (head.rows, slots),
        (head.slabs, slabs * k.SLAB_BYTES),
        (head.slab_next, slabs),
        (head.slab_free, int(counters[k.SLAB_FREE])),
        (head.sealed, int(counters[k.SEALED_END])),
        (head.late, int(counters[k.LATE_END])),
        (head.counters, k.COUNTER_WORDS),
    ]


def _start_arrays(head: Head) -> list[tuple[npt.NDArray[Any], int]]:
    """Arrays of start timestamps, saved where any was stored, as `_arrays` gives them."""
    starts, slots = head.starts, head.series.slots_used
    return [
        (starts.newest, slots),
        (starts.last, slots),
        (starts.changes, starts.end),
        (starts.late, int(head.counters[k.LATE_END])),
    ]


class _OtherLayoutError(CorruptionError):
    """Written by a release whose arrays have other rows: sound, but of no use here."""


def _layout() -> list[int]:
    """Sizes that the arrays' bytes depend on; a snapshot of other ones is replayed instead."""
    sizes = [k.ROW_WORDS, k.SEALED_WORDS, k.LATE_WORDS, k.SLAB_BYTES, SEGMENT_BYTES]
    # Rows hold the state of the log's coder, and so do closed chunks; the last number counts the forms that
    # those have.
    return [*sizes, WAL_VERSION, 2]


def write_snapshot(
    fs: FileSystem,
    root: Path,
    head: Head,
    *,
    segment: int,
    sequence: int,
    newest_t: dict[int, int],
    tombstones: Sequence[HeadTombstone],
    exemplars: Sequence[Exemplar],
    metadata: Sequence[Metadata],
) -> None:
    """Write the snapshot; it appears whole or not at all. Nothing may be appended meanwhile."""
    if len(head.chunk_log.segments) > _SEGMENTS_LIMIT:
        log.info("The head is too large for a snapshot", extra={"segments": len(head.chunk_log.segments)})
        return
    temporary = root / f"{FILE_NAME}.tmp"
    fs.remove(temporary)
    writer = SectionWriter(fs, temporary, KIND)
    series, log_segments = head.series, head.chunk_log
    state = {
        "layout": _layout(),
        "segment": segment,
        "sequence": sequence,
        "newest_t": sorted(newest_t.items()),
        "tombstones": [[stone.refs.tolist(), stone.mint, stone.maxt] for stone in tombstones],
        "min_valid_t": head.min_valid_t,
        "slots_used": series.slots_used,
        "segments": sorted(log_segments.segments),
        "current_segment": log_segments.current_index,
        "starts_end": head.starts.end if head.starts.used else 0,
    }
    writer.add(SECTION_STATE, orjson.dumps(state))
    slots = np.flatnonzero(series.alive[: series.slots_used]).astype(np.uint32)
    offsets, ids = series.pairs_of(slots)
    new = NewSeries(series.refs_of(slots), offsets, ids)
    writer.add(SECTION_SERIES, b"".join(encode_series(new, head.symbols)))
    writer.add(SECTION_EXEMPLARS, b"".join(encode_exemplars(exemplars)))
    writer.add(SECTION_METADATA, b"".join(encode_metadata(metadata)))
    stored = head.histograms
    if len(stored):
        entries = np.arange(1, stored.end)
        batch = stored.batch(entries, np.zeros(1, dtype=np.int64))
        refs = series.refs_of(stored.slots[entries])
        writer.add(SECTION_HISTOGRAMS, b"".join(encode_histograms(HistogramColumns(refs, batch))))
    for i, (array, count) in enumerate(_arrays(head)):
        writer.add(_FIRST_ARRAY + i, array[:count].tobytes())
    if head.starts.used:
        for i, (array, count) in enumerate(_start_arrays(head)):
            writer.add(_FIRST_STARTS + i, array[:count].tobytes())
    for i, index in enumerate(sorted(log_segments.segments)):
        used = int(head.counters[k.SEGMENT_USED]) if index == log_segments.current_index else SEGMENT_BYTES
        writer.add(_FIRST_SEGMENT + i, log_segments.segments[index][:used].tobytes())
    writer.finish()
    fs.rename(temporary, root / FILE_NAME)


def has_snapshot(fs: FileSystem, root: Path) -> bool:
    """Whether there is a snapshot, damaged or not."""
    return fs.exists(root / FILE_NAME)


def load_snapshot(
    fs: FileSystem, root: Path, head: Head, exemplars: ExemplarStore, metadata: MetadataStore
) -> LoadedSnapshot | None:
    """Fill an empty head from the snapshot; None where there is none or it is damaged (it is set aside).

    Raises UnknownVersionError for one written by a newer program.
    """
    path = root / FILE_NAME
    fs.remove(root / f"{FILE_NAME}.tmp")
    if not fs.exists(path):
        return None
    try:
        sections = SectionFile(fs, path, KIND)
        state = orjson.loads(sections.section(SECTION_STATE).tobytes())
        if state["layout"] != _layout():
            raise _OtherLayoutError(f"arrays are laid out as {state['layout']}, here as {_layout()}")
        new = decode_series(sections.section(SECTION_SERIES), head.symbols)
        loaded_exemplars = decode_exemplars(sections.section(SECTION_EXEMPLARS))
        loaded_metadata = decode_metadata(sections.section(SECTION_METADATA))
        arrays = [sections.section(_FIRST_ARRAY + i) for i in range(len(_arrays(head)))]
        chunks = [sections.section(_FIRST_SEGMENT + i) for i in range(len(state["segments"]))]
        starts = [sections.section(_FIRST_STARTS + i) for i in range(4 if state.get("starts_end") else 0)]
        histograms = None
        if int(state.get("histograms", 0)) or _has(sections, SECTION_HISTOGRAMS):
            histograms = decode_histograms(sections.section(SECTION_HISTOGRAMS))
    except UnknownVersionError:
        raise
    except (CorruptionError, KeyError, ValueError) as error:
        if isinstance(error, _OtherLayoutError):
            log.info("The head's snapshot is another release's; replaying instead", extra={"err": str(error)})
        else:
            log.warning("The head's snapshot is damaged; replaying instead", extra={"err": str(error)})
        fs.rename(path, root / f"{FILE_NAME}.damaged")
        return None
    _fill(head, state, new, arrays, chunks)
    if starts:
        with head.lock:
            head.starts.used, head.starts.end = True, state["starts_end"]
            for (target, _), raw in zip(_start_arrays(head), starts, strict=True):
                _restore(target, raw)
    if histograms is not None:
        slots, _ = head.series.slots_of(histograms.refs)
        head.histograms.append(slots, histograms.batch)
    exemplars.add(loaded_exemplars)
    metadata.update(loaded_metadata)
    stones = [HeadTombstone(np.array(r, dtype=np.uint32), a, b) for r, a, b in state["tombstones"]]
    return LoadedSnapshot(state["segment"], state["sequence"], dict(state["newest_t"]), stones)


def _has(sections: SectionFile, section: int) -> bool:
    try:
        sections.raw(section)
    except CorruptionError:
        return False
    return True


def _restore(target: npt.NDArray[Any], raw: npt.NDArray[np.uint8]) -> None:
    values = np.frombuffer(raw.tobytes(), dtype=target.dtype).reshape(-1, *target.shape[1:])
    target[: len(values)] = values


def _fill(
    head: Head,
    state: dict[str, Any],
    new: NewSeries,
    arrays: list[npt.NDArray[np.uint8]],
    chunks: list[npt.NDArray[np.uint8]],
) -> None:
    with head.lock:
        head.install(new)
        for (target, _), raw in zip(_arrays(head), arrays, strict=True):
            _restore(target, raw)
        # The range of blocks is a setting of this run.
        head.counters[[k.BLOCK_RANGE, k.RANGE_END]] = head.block_range_ms, 0
        head.series.slots_used = state["slots_used"]
        head.min_valid_t = state["min_valid_t"]
        segments = {}
        for index, raw in zip(state["segments"], chunks, strict=True):
            segments[index] = reserve(np.uint8, SEGMENT_BYTES)
            segments[index][: len(raw)] = raw
        head.chunk_log.restore(segments, state["current_segment"])


def remove_snapshot(fs: FileSystem, root: Path) -> None:
    """Delete the snapshot: from now on the log knows more."""
    fs.remove(root / FILE_NAME)
