"""Makes captures for tests, block by block, in the old and in the new form."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field
from pathlib import Path

from security.capture.eventtable import event_table

_SIGNED = ("errno", "fd", "pid", "int")
_EIGHT = ("errno", "fd", "pid")
Given = int | str | bytes | tuple[str, ...]


def block(kind: int, body: bytes) -> bytes:
    """One block with padding and both lengths."""
    padded = body + bytes(-len(body) % 4)
    length = struct.pack("<I", len(padded) + 12)
    return struct.pack("<I", kind) + length + padded + length


def counted(text: str) -> bytes:
    """A text with its length before it."""
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<H", len(data)) + data


def listed(*texts: str) -> bytes:
    """Texts that end with NUL each, with the length of all before them."""
    data = "".join(f"{text}\0" for text in texts).encode()
    return struct.pack("<H", len(data)) + data


def sized(entry: bytes) -> bytes:
    """An entry with its own size before it."""
    return struct.pack("<I", len(entry) + 4) + entry


def section(minor: int = 2, major: int = 1, magic: int = 0x1A2B3C4D) -> bytes:
    """The header of a capture."""
    return block(0x0A0D0D0A, struct.pack("<IHHQ", magic, major, minor, (1 << 64) - 1))


def thread(
    tid: int,
    comm: str,
    ptid: int = 1,
    *,
    pid: int | None = None,
    arguments: tuple[str, ...] = (),
    cwd: str = "/root",
    uid: int = 0,
    cgroups: tuple[str, ...] = (),
    environment: tuple[str, ...] = (),
    late: bytes = b"",
) -> bytes:
    """A block with one thread in the newest form; `late` are the members that came after `root`."""
    own = tid if pid is None else pid
    entry = struct.pack("<qqqqq", tid, own, ptid, own, own) + counted(comm) + counted(comm)
    entry += counted(f"/usr/bin/{comm}") + listed(*arguments) + counted(cwd)
    entry += struct.pack("<qIII", 1024, 0, uid, 0) + struct.pack("<IIIQQ", 100, 10, 0, 1, 2)
    entry += listed(*environment) + struct.pack("<qq", tid, own) + listed(*cgroups) + counted("/") + late
    return block(0x215, sized(entry))


def descriptors(tid: int, *entries: bytes) -> bytes:
    """A block with the descriptors of a thread."""
    return block(0x218, struct.pack("<q", tid) + b"".join(sized(entry) for entry in entries))


def file_descriptor(number: int, path: str, flags: int = 1) -> bytes:
    """An entry for an open file."""
    return struct.pack("<qQBI", number, 7, 16, flags) + counted(path) + struct.pack("<I", 0x801)


def users(*entries: tuple[int, str]) -> bytes:
    """A block with users."""
    body = b""
    for uid, name in entries:
        texts = counted(name) + counted(f"/home/{name}") + counted("/bin/sh")
        body += sized(struct.pack("<BII", 0, uid, uid) + texts)
    return block(0x220, body)


def address(ip: str, port: int) -> bytes:
    """An IPv4 socket address as a parameter."""
    return b"\x02" + bytes(map(int, ip.split("."))) + struct.pack("<H", port)


def connection(source: str, source_port: int, target: str, port: int) -> bytes:
    """Both ends of an IPv4 connection as a parameter."""
    return address(source, source_port) + address(target, port)[1:]


def _encoded(kind: str, value: Given) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return "".join(f"{text}\0" for text in value).encode()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape") + b"\0"
    width = 8 if kind in _EIGHT or not -(1 << 31) <= value < 1 << 32 else 4
    return value.to_bytes(width, "little", signed=kind in _SIGNED)


def event(
    code: int, tid: int, *values: Given, time_ns: int = 1_000_000_000, old: bool = False, large: bool = False
) -> bytes:
    """An event by its number, with its first parameters."""
    specs = event_table()[code].parameters if code in event_table() else ()
    data = [_encoded(spec.type, value) for spec, value in zip(specs, values, strict=False)]
    data += [value for value in values[len(data) :] if isinstance(value, bytes)]
    lengths = b"".join(struct.pack("<I" if large else "<H", len(item)) for item in data)
    size = (22 if old else 26) + len(lengths) + sum(map(len, data))
    header = struct.pack("<QQIH", time_ns, tid, size, code) + (b"" if old else struct.pack("<I", len(data)))
    kind = 0x204 if old else 0x221 if large else 0x216
    return block(kind, b"\x03\x00" + header + lengths + b"".join(data))


@dataclass
class CaptureFile:
    """Collects blocks and writes them."""

    blocks: list[bytes] = field(default_factory=lambda: [section()])

    def add(self, *blocks: bytes) -> CaptureFile:
        """Append blocks."""
        self.blocks += blocks
        return self

    def write(self, path: Path, *, packed: bool = True) -> str:
        """Write the file and return its path."""
        data = b"".join(self.blocks)
        path.write_bytes(gzip.compress(data) if packed else data)
        return str(path)
