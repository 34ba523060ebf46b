"""Struct layouts of the running kernel, from its own type information (BTF).

Layout of the file: a header (magic 0xeb9f, version, flags, header length, then offset and length of the type
section and of the string section), type records, NUL-terminated strings. Type ids start at 1 in file order;
0 is void. Only little-endian files are read: a kernel's BTF has the byte order of the machine.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.kernels.btf import TRUNCATED, U32, type_starts

VMLINUX = Path("/sys/kernel/btf/vmlinux")
FILE_BYTES_LIMIT = 64 << 20
NESTING_LIMIT = 32
"""Typedefs, qualifiers and anonymous members followed before a file is called circular."""

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT = range(9, 17)
_DECL_TAG, _TYPE_TAG, _ENUM64 = range(17, 20)
_TRANSPARENT = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_FIXED_WORDS = {_INT: 1, _ARRAY: 3, _VAR: 1, _DECL_TAG: 1}
_MEMBER_WORDS = {_STRUCT: 3, _UNION: 3, _ENUM: 2, _FUNC_PROTO: 2, _DATASEC: 3, _ENUM64: 3}
_POINTER_BYTES = 8
_STEP = re.compile(r"([A-Za-z_]\w*)((?:\[\d+\])*)\Z")


class BTFError(ValueError):
    """The file is damaged, or a struct or member is not in it."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member lies from the start of the struct it was asked of."""

    offset_bytes: int
    size_bytes: int
    bit_offset: int
    """Bits past `offset_bytes`; not 0 only for bit fields."""
    bit_size: int
    """0 when the member is not a bit field."""


class BTF:
    """Types of one kernel. Immutable after `parse`; any thread may read."""

    def __init__(self, words: U32, starts: U32, strings: bytes) -> None:
        self._words = words
        self._starts = starts
        self._strings = strings
        infos = words[starts + np.uint32(1)]
        kinds = (infos >> np.uint32(24)) & np.uint32(31)
        self._aggregates = np.flatnonzero((kinds == _STRUCT) | (kinds == _UNION)).astype(np.int64) + 1
        self._aggregate_names = words[starts[self._aggregates - 1]]
        self._found: dict[str, int] = {}

    @classmethod
    def load(cls, path: Path = VMLINUX) -> BTF:
        """Read and index a file; raises `BTFError` when there is none or it cannot be read."""
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_LIMIT + 1)
        except OSError as error:
            raise BTFError(f"no kernel type information: {path}: {error.strerror}") from error
        if len(data) > FILE_BYTES_LIMIT:
            raise BTFError(f"{path} has more than the limit of {FILE_BYTES_LIMIT} bytes")
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> BTF:
        """Index the bytes of a BTF file; raises `BTFError` on damage."""
        if len(data) < _HEADER.size:
            raise BTFError(f"BTF header is cut: {len(data)} of {_HEADER.size} bytes")
        magic, version, _, header_bytes, type_at, type_bytes, string_at, string_bytes = _HEADER.unpack_from(
            data
        )
        if magic != _MAGIC or version != 1:
            raise BTFError(f"not a BTF file of version 1: magic {magic:#x}, version {version}")
        for name, at, size in (("type", type_at, type_bytes), ("string", string_at, string_bytes)):
            if header_bytes + at + size > len(data):
                raise BTFError(f"BTF {name} section ends at {header_bytes + at + size}, file at {len(data)}")
        if type_bytes % 4:
            raise BTFError(f"BTF type section of {type_bytes} bytes is no multiple of 4")
        strings = data[header_bytes + string_at : header_bytes + string_at + string_bytes]
        if not strings.startswith(b"\0") or not strings.endswith(b"\0"):
            raise BTFError("BTF strings neither start nor end with NUL")
        words = np.frombuffer(data, "<u4", type_bytes // 4, header_bytes + type_at).copy()
        starts = np.empty(len(words) // 3, np.uint32)
        fixed, member = np.full((2, 20), -1, np.int8)
        fixed[1:], member[1:] = 0, 0
        for table, entries in ((fixed, _FIXED_WORDS), (member, _MEMBER_WORDS)):
            for kind, count in entries.items():
                table[kind] = count
        count = type_starts(words, fixed, member, starts)
        if count < 0:
            reason = "is cut inside a record" if count == TRUNCATED else "has a type of an unknown kind"
            raise BTFError(f"BTF type section {reason}")
        return cls(words, starts[:count].copy(), strings)

    @property
    def type_count(self) -> int:
        return len(self._starts)

    def size(self, name: str) -> int:
        """Bytes of a struct or union."""
        return self._size(self._aggregate(name), 0)

    def offset(self, name: str, path: str) -> int:
        """Byte offset of a member; raises `BTFError` for bit fields and unknown names."""
        member = self.member(name, path)
        if member.bit_size:
            raise BTFError(f"{name}.{path} is a bit field")
        return member.offset_bytes

    def has(self, name: str, path: str) -> bool:
        """Whether the struct and the member exist."""
        try:
            self.member(name, path)
        except BTFError:
            return False
        return True

    def enumerator(self, name: str) -> int:
        """Value of an enum's constant, unsigned; raises `BTFError` when there is none of that name."""
        at = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if at > 0 and name:
            for hit in np.flatnonzero(self._words == at).tolist():
                start = int(self._starts[int(np.searchsorted(self._starts, hit, "right")) - 1])
                kind = (int(self._words[start + 1]) >> 24) & 31
                if kind == _ENUM and hit >= start + 3 and (hit - start - 3) % 2 == 0:
                    return int(self._words[hit + 1])
        raise BTFError(f"this kernel has no enum constant {name}")

    def member(self, name: str, path: str) -> Member:
        """A member by dotted path, e.g. ``member("upid", "ns")`` or ``member("signal_struct", "pids[2]")``.

        Members of anonymous structs and unions are found as if they stood in the struct around them.
        Pointers are not followed.
        """
        type_id = self._aggregate(name)
        bits, bit_size = 0, 0
        for step in path.split("."):
            match = _STEP.match(step)
            if match is None:
                raise BTFError(f"{step!r} in {name}.{path} is no member name")
            found = self._find(type_id, match.group(1), 0)
            if found is None:
                raise BTFError(f"struct {name} of this kernel has no member {path} (at {step})")
            at, bit_size, type_id = found
            bits += at
            for index in re.findall(r"\d+", match.group(2)):
                type_id, stride, length = self._element(type_id, f"{name}.{path}")
                # A flexible array has length 0 and any index.
                if length and int(index) >= length:
                    raise BTFError(f"{name}.{path}: index {index}, array of {length}")
                bits += int(index) * stride * 8
        return Member(bits // 8, self._size(type_id, 0), bits % 8, bit_size)

    def _aggregate(self, name: str) -> int:
        found = self._found.get(name)
        if found is None:
            found = self._search(name)
            self._found[name] = found
        return found

    def _search(self, name: str) -> int:
        wanted = b"\0" + name.encode() + b"\0"
        at = self._strings.find(wanted)
        while name and at >= 0:
            hits = self._aggregates[self._aggregate_names == at + 1]
            if len(hits):
                return int(hits[0])
            at = self._strings.find(wanted, at + 1)
        raise BTFError(f"this kernel has no struct {name}")

    def _record(self, type_id: int) -> tuple[int, int, int, int]:
        """Word index, kind, member count and the size-or-type word of a type."""
        if not 0 < type_id <= len(self._starts):
            raise BTFError(f"type id {type_id} is not among {len(self._starts)} types")
        start = int(self._starts[type_id - 1])
        info = int(self._words[start + 1])
        return start, (info >> 24) & 31, info & 0xFFFF, int(self._words[start + 2])

    def _resolve(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        for _ in range(NESTING_LIMIT):
            if type_id == 0:
                return 0
            _, kind, _, target = self._record(type_id)
            if kind not in _TRANSPARENT:
                return type_id
            type_id = target
        raise BTFError(f"more than {NESTING_LIMIT} typedefs in a row at type {type_id}")

    def _element(self, type_id: int, asked: str) -> tuple[int, int, int]:
        """Type, bytes and number of an array's elements."""
        resolved = self._resolve(type_id)
        start, kind, _, _ = self._record(resolved)
        if kind != _ARRAY:
            raise BTFError(f"{asked}: index into something that is no array")
        element, length = int(self._words[start + 3]), int(self._words[start + 5])
        return element, self._size(element, 0), length

    def _size(self, type_id: int, depth: int) -> int:
        if depth > NESTING_LIMIT:
            raise BTFError(f"arrays nest deeper than {NESTING_LIMIT} at type {type_id}")
        resolved = self._resolve(type_id)
        if resolved == 0:
            return 0
        start, kind, _, value = self._record(resolved)
        if kind == _PTR:
            return _POINTER_BYTES
        if kind == _ARRAY:
            return self._size(int(self._words[start + 3]), depth + 1) * int(self._words[start + 5])
        if kind in {_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT, _DATASEC}:
            return value
        return 0

    def _find(self, type_id: int, wanted: str, depth: int) -> tuple[int, int, int] | None:
        """Bit offset, bit-field size and type of a member, looking into anonymous members."""
        if depth > NESTING_LIMIT:
            raise BTFError(f"anonymous members nest deeper than {NESTING_LIMIT} at type {type_id}")
        resolved = self._resolve(type_id)
        if resolved == 0:
            return None
        start, kind, count, _ = self._record(resolved)
        if kind not in (_STRUCT, _UNION):
            return None
        bit_fields = int(self._words[start + 1]) >> 31
        anonymous: list[tuple[int, int]] = []
        for at in range(start + 3, start + 3 + 3 * count, 3):
            name_at, member_type, position = (int(word) for word in self._words[at : at + 3])
            bits, bit_size = (position & 0xFFFFFF, position >> 24) if bit_fields else (position, 0)
            if name_at == 0:
                anonymous.append((member_type, bits))
            elif self._name(name_at) == wanted:
                return bits, bit_size, member_type
        for member_type, bits in anonymous:
            found = self._find(member_type, wanted, depth + 1)
            if found is not None:
                return bits + found[0], found[1], found[2]
        return None

    def _name(self, at: int) -> str:
        if at >= len(self._strings):
            raise BTFError(f"name at {at}, strings end at {len(self._strings)}")
        return self._strings[at : self._strings.index(b"\0", at)].decode("utf-8", "replace")
