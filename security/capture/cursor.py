"""Bounded reading of the bytes of one block. Captures come from anywhere: every length is checked."""

from __future__ import annotations

TEXT_BYTES_LIMIT = 4_096
"""Of one text in a list; upstream writes at most 1,024."""


class CaptureError(Exception):
    """A capture that cannot be read further: what is wrong, and at which byte of the unpacked file."""

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(f"{problem} at byte {offset}")
        self.offset = offset


class Cursor:
    """A place in the bytes of a block. `start` is the place of its first byte in the file."""

    __slots__ = ("_data", "_start", "at", "end")

    def __init__(self, data: bytes, start: int, at: int = 0, end: int | None = None) -> None:
        self._data = data
        self._start = start
        self.at = at
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return self.end - self.at

    @property
    def offset(self) -> int:
        """The place in the file."""
        return self._start + self.at

    def error(self, problem: str) -> CaptureError:
        """An error at this place."""
        return CaptureError(problem, self.offset)

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes. Raises CaptureError when there are fewer."""
        if size > self.left:
            raise self.error(f"{what} of {size} bytes, but only {self.left} are left")
        data = self._data[self.at : self.at + size]
        self.at += size
        return data

    def unsigned(self, width: int, what: str) -> int:
        """An unsigned number of `width` bytes."""
        return int.from_bytes(self.take(width, what), "little")

    def signed(self, width: int, what: str) -> int:
        """A signed number of `width` bytes."""
        return int.from_bytes(self.take(width, what), "little", signed=True)

    def counted(self, what: str) -> bytes:
        """Bytes with their number in 16 bits before them."""
        return self.take(self.unsigned(2, what), what)

    def text(self, what: str) -> str:
        """A text with its length before it; bytes that are not UTF-8 become surrogates."""
        data = self.counted(what)
        if len(data) > TEXT_BYTES_LIMIT:
            raise self.error(f"{what} of {len(data)} bytes is over the limit of {TEXT_BYTES_LIMIT}")
        return text_of(data)

    def entry(self, size: int, what: str) -> Cursor:
        """A cursor over the next `size` bytes, which this one skips."""
        if size > self.left:
            raise self.error(f"{what} of {size} bytes, but only {self.left} are left")
        inner = Cursor(self._data, self._start, self.at, self.at + size)
        self.at += size
        return inner

    def sized(self, what: str) -> Cursor:
        """A cursor over an entry that begins with its size, which counts itself."""
        size = self.unsigned(4, f"{what} size")
        if size < 4:
            raise self.error(f"{what} of {size} bytes")
        return self.entry(size - 4, what)


def text_of(data: bytes) -> str:
    """A C string: up to the first NUL."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def texts_of(data: bytes) -> tuple[str, ...]:
    """C strings one after another."""
    if not data:
        return ()
    return tuple(data.removesuffix(b"\0").decode("utf-8", "surrogateescape").split("\0"))
