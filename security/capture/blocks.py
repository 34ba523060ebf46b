"""The block layer of a capture: a section header, then blocks of type, length, body and the length again.

The file may be packed by gzip. It is read as a stream: one block is in memory at a time.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

from security.capture.cursor import CaptureError, Cursor

SECTION = 0x0A0D0D0A
MACHINE = frozenset({0x201, 0x8002ABCD})
INTERFACES = frozenset({0x205, 0x219, 0x8011ABCD})
USERS = frozenset({0x206, 0x220, 0x8012ABCD})
# The place in the row is the version of the list.
PROCESSES = {
    0x202: 1,
    0x8000ABCD: 1,
    0x207: 2,
    0x8013ABCD: 2,
    0x209: 3,
    0x8014ABCD: 3,
    **{0x20C + version: version for version in range(4, 10)},
}
DESCRIPTORS = frozenset({0x203, 0x218, 0x8001ABCD})
SIZED = frozenset({0x215, 0x218, 0x219, 0x220})
"""Lists whose entries begin with their size."""
EVENTS = {
    # block type: (has flags, counts its parameters, has lengths of 32 bits)
    0x204: (False, False, False),
    0x8010ABCD: (False, False, False),
    0x208: (True, False, False),
    0x216: (False, True, False),
    0x217: (True, True, False),
    0x221: (False, True, True),
    0x222: (True, True, True),
}

LIST_BYTES_LIMIT = 256 << 20
"""Of a block with a list: a host with 30,000 threads has about 100 MiB of them."""
EVENT_BYTES_LIMIT = 16 << 20
CAPTURE_BYTES_LIMIT = 64 << 30
"""Of a whole capture, unpacked."""
MAGIC = 0x1A2B3C4D
MAJOR_VERSION = 1
_HEADER_BYTES = 8
_TRAILER_BYTES = 4
_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `offset` is where its body begins in the unpacked file."""

    type: int
    offset: int
    body: bytes


def open_capture(path: str) -> BufferedIOBase:
    """A capture's bytes, unpacked on the way. Raises OSError."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    packed = file.read(2) == _GZIP
    file.seek(0)
    if not packed:
        return file
    # A gzip stream that is given a file would leave it open; given the path it closes its own.
    file.close()
    return gzip.GzipFile(path)


def read_blocks(stream: BufferedIOBase) -> Iterator[Block]:
    """The blocks of a capture in order, without the section header.

    Raises CaptureError at the first byte that makes no sense; what came before has been given.
    """
    reader = _Reader(stream)
    first = reader.block()
    if first is None:
        raise CaptureError("empty file, not a capture", 0)
    check_section(first)
    while (block := reader.block()) is not None:
        if block.type == SECTION:
            check_section(block)
        else:
            yield block


def check_section(block: Block) -> None:
    """Raises CaptureError for a section that this reader does not know."""
    cursor = Cursor(block.body, block.offset)
    if block.type != SECTION:
        raise CaptureError(f"block type {block.type:#x} instead of a section header, not a capture", 0)
    magic = cursor.unsigned(4, "byte order")
    if magic != MAGIC:
        raise cursor.error(f"byte order {magic:#010x} instead of {MAGIC:#010x}")
    major, minor = cursor.unsigned(2, "version"), cursor.unsigned(2, "version")
    if major > MAJOR_VERSION:
        raise cursor.error(f"capture version {major}.{minor} is newer than {MAJOR_VERSION}")


class _Reader:
    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._offset = 0

    def _read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end. In pieces: a length that lies takes no memory."""
        if self._offset + size > CAPTURE_BYTES_LIMIT:
            raise CaptureError(f"capture is over the limit of {CAPTURE_BYTES_LIMIT} bytes", self._offset)
        pieces = []
        left = size
        while left:
            try:
                # What is before a fault must not get lost: read1 gives it first.
                piece = self._stream.read1(min(left, _PIECE_BYTES))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise CaptureError(f"cannot unpack: {error}", self._offset) from None
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
            self._offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def block(self) -> Block | None:
        start = self._offset
        header = self._read(_HEADER_BYTES)
        if not header:
            return None
        if len(header) < _HEADER_BYTES:
            raise CaptureError("cut off in a block header", start)
        kind, length = int.from_bytes(header[:4], "little"), int.from_bytes(header[4:], "little")
        size = length - _HEADER_BYTES - _TRAILER_BYTES
        limit = EVENT_BYTES_LIMIT if kind in EVENTS else LIST_BYTES_LIMIT
        if size < 0:
            raise CaptureError(f"block length {length} is less than its header", start)
        if size > limit:
            raise CaptureError(f"block of {size} bytes is over the limit of {limit}", start)
        body = self._read(size)
        trailer = self._read(_TRAILER_BYTES)
        if len(body) < size or len(trailer) < _TRAILER_BYTES:
            raise CaptureError(f"cut off in a block of {length} bytes", start)
        again = int.from_bytes(trailer, "little")
        if again != length:
            raise CaptureError(f"block lengths {length} and {again} differ", start)
        return Block(kind, start + _HEADER_BYTES, body)
