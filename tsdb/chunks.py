"""Sealed chunks of the head: an append-only log of chunk bytes in segments.

A chunk's position is `segment << SEGMENT_SHIFT | offset`. Bytes never change once a chunk is sealed, so
readers need no lock; a reader holds the segments it reads, and dropping a segment frees it when the last
reader is done.
"""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import LimitError
from tsdb.fs import FileSystem
from tsdb.kernels.headread import OPEN_CHUNK, gather_bytes, place_chunks
from tsdb.kernels.xor import READ_PADDING
from tsdb.scratch import scratch

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]

SEGMENT_SHIFT = 24
SEGMENT_BYTES = 1 << SEGMENT_SHIFT
_ENDLESS = (1 << 63) - 1
"""16 MiB: 50,000 chunks of node-exporter data."""

SEGMENTS_LIMIT = 1 << 15
"""From the oldest segment to the newest, 512 GiB: half of what a chunk's row can name (POSITION_REACH), so
that no batch of samples gets there in one step."""

DIRECTORY = "chunks_head"


class ChunkLog:
    """One writer under the head's lock, many readers of what was sealed before they captured.

    A segment is memory while it is written. Full ones beyond a budget are copied to files by `spill` and
    served from the mapping of those, so that their pages are the system's to keep or drop. The files are only
    a swap space: the log and the head's snapshot are the truth, and `clear_directory` removes what an earlier
    run left.
    """

    def __init__(self) -> None:
        self.segments: dict[int, U8Array] = {}
        self.current_index = -1
        self._oldest_index = 0
        self.current: U8Array = np.empty(0, dtype=np.uint8)
        self._files: dict[int, Path] = {}
        self._lock = threading.Lock()
        self.rotate()

    @property
    def base(self) -> int:
        """Position of the current segment's first byte."""
        return self.current_index << SEGMENT_SHIFT

    @property
    def has_files(self) -> bool:
        """Whether reading a segment may have to wait for a disk."""
        return bool(self._files)

    def check_room(self) -> None:
        """Raise LimitError where the log is as long as it may be."""
        if self.current_index - self._oldest_index >= SEGMENTS_LIMIT:
            size = SEGMENTS_LIMIT * SEGMENT_BYTES
            raise LimitError(f"closed chunks of the head fill {size} bytes, which is the limit")

    def rotate(self) -> None:
        """Begin a segment."""
        fresh = reserve(np.uint8, SEGMENT_BYTES)
        with self._lock:
            self.current_index += 1
            self.current = fresh
            self.segments[self.current_index] = fresh

    def spill(self, fs: FileSystem, root: Path, memory_bytes: int) -> int:
        """Move full segments beyond `memory_bytes` to files below `root`; return how many. Raises
        DiskFullError, OSError.

        The oldest stay in memory: they are dropped first, and a segment is then written at most once. Of n
        times as much as the budget only an n-th of the budget stays, since keeping little of much saves
        little writing.
        """
        with self._lock:
            complete = self.segments.keys() - {self.current_index}
            limit = memory_bytes // SEGMENT_BYTES
            kept = limit * limit // max(limit, len(complete), 1)
            unwritten = sorted(complete - self._files.keys())
            full = {index: self.segments[index] for index in unwritten[kept:]}
        for index, data in full.items():
            path = root / DIRECTORY / f"{index:08d}"
            fs.make_directory(path.parent)
            fs.write_file(path, [data])
            mapped = fs.map_file(path)
            with self._lock:
                if index in self.segments:
                    self.segments[index] = mapped
                    self._files[index] = path
                else:
                    fs.remove(path)
        return len(full)

    def release_pages(self) -> None:
        """Unmap what was read from the files; it stays in the system's cache, and is mapped again when
        read."""
        with self._lock:
            read = [self.segments[index] for index in self._files if index in self.segments]
        for data in read:
            base: object = data.base
            mapped = base.obj if isinstance(base, memoryview) else base
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)

    def drop_before(self, position: int) -> None:
        """Let go of segments whose chunks are all older than the chunk at a position."""
        with self._lock:
            first = min(position >> SEGMENT_SHIFT, self.current_index)
            for index in [i for i in self.segments if i < first]:
                del self.segments[index]
            self._oldest_index = max(self._oldest_index, first)

    def remove_files(self, fs: FileSystem) -> None:
        """Delete the files of segments that were let go; mappings last until the last reader is done."""
        with self._lock:
            doomed = [self._files.pop(index) for index in list(self._files) if index not in self.segments]
        for path in doomed:
            fs.remove(path)

    def restore(self, segments: dict[int, U8Array], current_index: int) -> None:
        """Take over segments of a snapshot; the current one has `SEGMENT_BYTES`."""
        with self._lock:
            self.segments = segments
            self.current_index = current_index
            self._oldest_index = min(segments)
            self.current = segments[current_index]

    def view(self) -> dict[int, U8Array]:
        """The segments as of now, for one reader."""
        with self._lock:
            return dict(self.segments)


def clear_directory(fs: FileSystem, root: Path) -> None:
    """Remove segment files of an earlier run."""
    for name in fs.list(root / DIRECTORY):
        fs.remove(root / DIRECTORY / name)


def gather(
    segments: dict[int, U8Array], chunks: I64Array, open_bytes: U8Array
) -> tuple[U8Array, I64Array, I64Array]:
    """Bytes of chunks i64[C, 2] (position, length), padded for the decoder; starts and lengths. `open_bytes`
    end with READ_PADDING bytes, and are given back where no chunk is closed."""
    starts, lengths = np.empty((2, len(chunks)), dtype=np.int64)
    found = np.empty(3, dtype=np.int64)
    place_chunks(chunks, starts, lengths, found)
    size, first, last = found.tolist()
    if last < 0:
        return open_bytes, starts, lengths
    buffer = scratch(size + READ_PADDING, np.uint8)
    buffer[-READ_PADDING:] = 0
    gather_bytes(open_bytes, chunks, starts, OPEN_CHUNK, _ENDLESS, buffer)
    # Each segment is asked for its own: few chunks in many segments do not come up in one read.
    for source in range(first >> SEGMENT_SHIFT, (last >> SEGMENT_SHIFT) + 1):
        if source in segments:
            origin = source << SEGMENT_SHIFT
            gather_bytes(segments[source], chunks, starts, origin, origin + SEGMENT_BYTES, buffer)
    return buffer, starts, lengths
