"""A BTF file made by hand, so that every offset a test expects is visible in the test."""

from __future__ import annotations

import struct


class BTFBuilder:
    """Collects types and strings; `build` gives the bytes of a file."""

    def __init__(self) -> None:
        self._strings = bytearray(b"\0")
        self._types = bytearray()
        self._count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = len(self._strings)
        self._strings += text.encode() + b"\0"
        return at

    def _add(self, name: str, kind: int, members: int, value: int, tail: bytes = b"", flag: int = 0) -> int:
        info = flag << 31 | kind << 24 | members
        self._types += struct.pack("<III", self.name(name), info, value) + tail
        self._count += 1
        return self._count

    def integer(self, name: str, size: int) -> int:
        return self._add(name, 1, 0, size, struct.pack("<I", size * 8))

    def pointer(self, target: int) -> int:
        return self._add("", 2, 0, target)

    def array(self, element: int, length: int) -> int:
        return self._add("", 3, 0, 0, struct.pack("<III", element, element, length))

    def typedef(self, name: str, target: int) -> int:
        return self._add(name, 8, 0, target)

    def aggregate(
        self,
        name: str,
        size: int,
        members: list[tuple[str, int, int]],
        union: bool = False,
        bits: bool = False,
    ) -> int:
        """Members are (name, type, position); if `bits`, the width is above bit 24 of position."""
        tail = b"".join(struct.pack("<III", self.name(n), t, p) for n, t, p in members)
        return self._add(name, 5 if union else 4, len(members), size, tail, int(bits))

    def build(self) -> bytes:
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings)
        )
        return header + bytes(self._types) + bytes(self._strings)


def small_kernel() -> bytes:
    """Struct `thing` of 32 bytes with a typedef, an array of structs, an anonymous union and a bit field."""
    b = BTFBuilder()
    u32 = b.integer("unsigned int", 4)
    u64 = b.typedef("u64", b.integer("unsigned long", 8))
    pair = b.aggregate("pair", 8, [("first", u32, 0), ("second", u32, 32)])
    pairs = b.array(pair, 2)
    choice = b.aggregate("", 8, [("as_number", u64, 0), ("as_pair", pair, 0)], union=True)
    b.aggregate("thing", 32, [("id", u64, 0), ("pairs", pairs, 64), ("", choice, 192)])
    b.aggregate("flags", 4, [("low", u32, 3 << 24), ("high", u32, 5 << 24 | 3)], bits=True)
    return b.build()
