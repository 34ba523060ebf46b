"""Reading a relocatable object file as LLVM writes it for numba: 64 bits, little-endian, x86-64.

Only what kernels need is understood: sections that are loaded, symbols, and relocations that store a whole
64-bit address. Anything else is refused, and the kernel is then loaded by numba. Names and numbers are those
of the System V ABI (gABI chapter 4; x86-64 psABI section 4.4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MACHINE_X86_64 = 62
_RELOCATABLE = 1
_SECTION_TABLE, _RELOCATIONS, _NO_BITS = 2, 4, 8
_WRITE, _ALLOCATED = 1, 2
_UNDEFINED, _ABSOLUTE, _COMMON = 0, 0xFFF1, 0xFFF2
_ADDRESS_64 = 1
_SECTION = 3
_UNWINDING = ".eh_frame"
"""Kernels throw nothing through their frames, so nobody reads it."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")


class UnknownObjectError(ValueError):
    """The object has something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the program that is loaded."""

    data: bytes
    alignment: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Symbol:
    """Where a name is: in a section, a word of common memory of its own, or outside (both None)."""

    name: str
    section: int | None
    offset: int
    common_size: int | None


@dataclass(frozen=True, slots=True)
class Relocation:
    """The 64-bit word at `offset` of a section becomes the symbol's address plus `addend`."""

    section: int
    offset: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """What is loaded of an object; sections by their number in the file."""

    sections: dict[int, Section]
    symbols: list[Symbol]
    relocations: list[Relocation]


def read_object(data: bytes) -> ObjectFile:
    """Raises UnknownObjectError."""
    try:
        return _read(data)
    except (struct.error, IndexError) as error:
        raise UnknownObjectError(f"damaged object file: {error}") from error


def _read(data: bytes) -> ObjectFile:
    header = _HEADER.unpack_from(data)
    ident, kind, machine, table_at = header[0], header[1], header[2], header[6]
    entry_size, count, names_at = header[11:]
    if ident[:6] != b"\x7fELF\x02\x01" or (kind, machine) != (_RELOCATABLE, MACHINE_X86_64):
        raise UnknownObjectError("no relocatable object for x86-64")
    headers = [_SECTION_HEADER.unpack_from(data, table_at + i * entry_size) for i in range(count)]
    names = [_text(data, headers[names_at][4] + header[0]) for header in headers]
    sections: dict[int, Section] = {}
    for number, (_, kind, flags, _, at, size, _, _, alignment, _) in enumerate(headers):
        if flags & _ALLOCATED and size and names[number] != _UNWINDING:
            body = bytes(size) if kind == _NO_BITS else data[at : at + size]
            sections[number] = Section(body, max(alignment, 1), bool(flags & _WRITE))
    symbols: list[Symbol] = []
    for _, kind, _, _, at, size, link, _, _, _ in headers:
        if kind == _SECTION_TABLE:
            texts = headers[link][4]
            symbols = [_symbol(data, at + i, texts) for i in range(0, size, _SYMBOL.size)]
    relocations: list[Relocation] = []
    for _, kind, _, _, at, size, _, target, _, _ in headers:
        if kind == _RELOCATIONS and target in sections:
            relocations += [_relocation(data, at + i, target) for i in range(0, size, _RELOCATION.size)]
    return ObjectFile(sections, symbols, relocations)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _symbol(data: bytes, at: int, texts: int) -> Symbol:
    name_at, info, _, section, value, size = _SYMBOL.unpack_from(data, at)
    name = "" if info & 0xF == _SECTION else _text(data, texts + name_at)
    if section == _COMMON:
        return Symbol(name, None, 0, size)
    if section in (_UNDEFINED, _ABSOLUTE):
        return Symbol(name, None, value, None)
    return Symbol(name, section, value, None)


def _relocation(data: bytes, at: int, target: int) -> Relocation:
    offset, info, addend = _RELOCATION.unpack_from(data, at)
    if info & 0xFFFFFFFF != _ADDRESS_64:
        raise UnknownObjectError(f"relocation of type {info & 0xFFFFFFFF}")
    return Relocation(target, offset, info >> 32, addend)
