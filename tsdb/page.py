"""One page: up to some 64,000 numbers of several streams, compressed together.

The frame around the codec of `kernels/pageencode` and `kernels/page`; docs/formats/block.md has the bytes.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.errors import CorruptionError
from tsdb.kernels import page as kernels
from tsdb.kernels import pageencode, pagepick

I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
U32Array = npt.NDArray[np.uint32]
U8Array = npt.NDArray[np.uint8]
F64Array = npt.NDArray[np.float64]

PAGE_SAMPLES = 65_536
"""Numbers a page aims at: large enough for one zstd table a plane, small enough to read for one series."""

PAGE_BYTES_LIMIT = 1 << 26
"""Largest decompressed page a reader accepts; a writer's largest is far below."""

PARTS_LIMIT = 64

SPLIT_BYTES = 1 << 14
"""Decompressed size from which headers and planes are compressed apart."""

ZSTD_LEVEL = 3

_REASONS = {
    kernels.TRUNCATED: "sections do not add up to its length",
    kernels.BAD_HEADER: "unknown form, width or exponent",
    kernels.BAD_LENGTH: "a stream has another length than the index says",
    kernels.BAD_PATCH: "patches do not fit their stream",
    kernels.BAD_STREAM: "the index names a stream that is not there",
}

_local = threading.local()


def compressor() -> zstandard.ZstdCompressor:
    """This thread's compressor."""
    found: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if found is None:
        found = _local.compressor = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_checksum=False, write_content_size=True
        )
    return found


def decompressor() -> zstandard.ZstdDecompressor:
    """This thread's decompressor."""
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found


def byte_planes(numbers: npt.NDArray[np.generic]) -> U8Array:
    """The bytes of fixed-size numbers, all lowest ones first."""
    size = numbers.dtype.itemsize
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, size).T.reshape(-1)


class _Streams:
    """Headers and words of E streams before they are laid out."""

    def __init__(self, offsets: I64Array, total: int) -> None:
        count = len(offsets) - 1
        self.offsets = offsets
        self.words = np.empty(total, dtype=np.uint64)
        self.mode = np.zeros(count, dtype=np.uint8)
        self.order = np.zeros(count, dtype=np.uint8)
        self.low = np.zeros(count, dtype=np.uint8)
        self.width = np.zeros(count, dtype=np.uint8)
        self.exponent = np.zeros(count, dtype=np.uint8)
        self.base = np.zeros(count, dtype=np.int64)
        self.slope = np.zeros(count, dtype=np.int64)
        self.gcd = np.zeros(count, dtype=np.uint64)
        self.patch_counts = np.zeros(count, dtype=np.uint32)
        self.patch_index = np.empty(0, dtype=np.uint32)
        self.patch_bits = np.empty(0, dtype=np.uint64)

    def raw(self) -> U8Array:
        """The page before compression."""
        counts = np.diff(self.offsets)
        words = np.maximum(counts - 1, 0)
        size = int((words * self.width).sum() + ((words * self.low + 7) >> 3).sum())
        planes = np.zeros(size + kernels.LOW_PADDING, dtype=np.uint8)
        pageencode.spread_planes(self.offsets, self.words, self.width, self.low, planes)
        prefix = np.array([len(counts), len(self.patch_index)], dtype=np.uint32)
        return np.concatenate(
            [
                prefix.view(np.uint8),
                byte_planes(counts.astype(np.uint32)),
                self.mode | (self.order << 1) | (self.low << 3),
                self.width,
                self.exponent,
                byte_planes(self.base),
                byte_planes(self.slope),
                byte_planes(self.gcd),
                byte_planes(self.patch_counts),
                byte_planes(self.patch_index),
                byte_planes(self.patch_bits),
                planes,
            ]
        )


def pack_floats(offsets: I64Array, bits: U64Array) -> U8Array:
    """The uncompressed page of E float streams, given as bit patterns end to end."""
    streams = _Streams(offsets, len(bits))
    room = len(bits) // 8 + 2 * len(streams.mode)
    index, patch_bits = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint64)
    patches = pageencode.pack_floats(
        offsets, bits, bits.view(np.float64), streams.words.view(np.int64), streams.words, streams.mode,
        streams.order, streams.low, streams.width, streams.exponent, streams.base, streams.slope, streams.gcd,
        streams.patch_counts, index, patch_bits,
    )  # fmt: skip
    streams.patch_index, streams.patch_bits = index[:patches], patch_bits[:patches]
    return streams.raw()


def pack_integers(offsets: I64Array, numbers: I64Array) -> U8Array:
    """The uncompressed page of E integer streams."""
    streams = _Streams(offsets, len(numbers))
    streams.words.view(np.int64)[:] = numbers
    pageencode.pack_integers(
        offsets, streams.words.view(np.int64), streams.words, streams.order, streams.low, streams.width,
        streams.base, streams.slope, streams.gcd,
    )  # fmt: skip
    return streams.raw()


def _part_sizes(raw: U8Array) -> list[int]:
    """Lengths of the parts of a page that are compressed each by itself: headers, planes, low bits.

    Planes have unlike statistics and zstd keeps one entropy table a block, so that one frame over all took
    1 to 8 % more room (docs/blocks.md). Small pages stay whole: a frame costs some 12 bytes.
    """
    if len(raw) < SPLIT_BYTES:
        return [len(raw)]
    streams, patches = (int(n) for n in raw[: kernels.PREFIX_BYTES].view(np.uint32))
    counts = stream_counts(raw, "page to be written")
    widths = raw[kernels.PREFIX_BYTES + 5 * streams :][:streams]
    sizes = [kernels.PREFIX_BYTES + kernels.HEADER_BYTES * streams + kernels.PATCH_BYTES * patches]
    for width in range(1, 9):
        sizes.extend([int(np.maximum(counts[widths == width] - 1, 0).sum())] * width)
    sizes.append(len(raw) - sum(sizes))
    return [size for size in sizes if size]


def compress(raw: U8Array) -> bytes:
    """The page as it is stored: number of parts, their stored lengths, the parts."""
    sizes = _part_sizes(raw)
    ends = np.cumsum(sizes).tolist()
    zstd = compressor()
    parts = [zstd.compress(raw[end - size : end].data) for size, end in zip(sizes, ends, strict=True)]
    return b"".join([struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts)), *parts])


def decompress(stored: bytes | memoryview, where: str) -> U8Array:
    """The page before compression. Raises CorruptionError naming `where`."""
    try:
        (count,) = struct.unpack_from("<I", stored)
        if not 1 <= count <= PARTS_LIMIT:
            raise CorruptionError(f"{where}: page of {count} parts, limit {PARTS_LIMIT}")
        lengths = struct.unpack_from(f"<{count}I", stored, 4)
        at = 4 + 4 * count
        if at + sum(lengths) != len(stored):
            raise CorruptionError(f"{where}: page parts do not add up to {len(stored)} bytes")
        zstd, parts, total = decompressor(), list[bytes](), 0
        for length in lengths:
            part = stored[at : at + length]
            size = zstandard.frame_content_size(part)
            total += size
            if size < 0 or total > PAGE_BYTES_LIMIT:
                raise CorruptionError(
                    f"{where}: page of {total} bytes is over the limit of {PAGE_BYTES_LIMIT}"
                )
            parts.append(zstd.decompress(part))
            at += length
    except (zstandard.ZstdError, struct.error) as error:
        raise CorruptionError(f"{where}: page does not decompress: {error}") from None
    return np.frombuffer(parts[0] if count == 1 else b"".join(parts), dtype=np.uint8)


def encode_floats(offsets: I64Array, bits: U64Array) -> bytes:
    """A stored page of float streams: stream k holds bits[offsets[k]:offsets[k+1]]."""
    return compress(pack_floats(offsets, bits))


def encode_integers(offsets: I64Array, numbers: I64Array) -> bytes:
    """A stored page of integer streams."""
    return compress(pack_integers(offsets, numbers))


def stream_counts(raw: U8Array, where: str) -> I64Array:
    """Numbers in each stream of a decompressed page."""
    out = np.empty(len(raw) // kernels.HEADER_BYTES + 1, dtype=np.int64)
    count = kernels.stream_counts(raw, out)
    if count < 0:
        raise CorruptionError(f"{where}: page of {len(raw)} bytes: {_REASONS[count]}")
    return out[:count]


def decode_into(
    raw: U8Array,
    wanted: I64Array,
    starts: I64Array,
    lengths: I64Array,
    out: U64Array,
    floats: bool,
    where: str | Callable[[], str],
) -> None:
    """Decode streams `wanted` (ascending) to out[starts[k] : starts[k] + lengths[k]].

    `out` gets float bits, or integers as their two's complement. Raises CorruptionError, which names the page
    as `where` does: a text, or what makes one.
    """
    code = kernels.decode_streams(raw, wanted, starts, lengths, floats, out, out.view(np.float64))
    if code:
        named = where if isinstance(where, str) else where()
        raise CorruptionError(f"{named}: page of {len(raw)} bytes: {_REASONS[code]}")


def decode_picked(
    raw: U8Array,
    wanted: I64Array,
    starts: I64Array,
    lengths: I64Array,
    firsts: I64Array,
    counts: I64Array,
    picks: I64Array,
    work: U64Array,
    out: U64Array,
    where: Callable[[], str],
) -> None:
    """Decode of streams `wanted` (ascending), of `lengths` numbers, the numbers picks[firsts[k]:][:counts[k]]
    to out[starts[k]:], as float bits. `work` is overwritten. Raises CorruptionError, which names the page as
    `where` does."""
    code = pagepick.decode_picked(
        raw, wanted, starts, lengths, firsts, counts, picks, work, out, out.view(np.float64)
    )
    if code:
        raise CorruptionError(f"{where()}: page of {len(raw)} bytes: {_REASONS[code]}")
