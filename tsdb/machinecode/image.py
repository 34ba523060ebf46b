"""The image of all kernels: one file with their machine code, laid out and linked to each other.

Layout, little-endian: `MAGIC`; length of the header (u32); header, JSON; relocations inside the image
(offset and place in the image, u64 each); relocations to names outside (offset u64, number of the name u64,
addend i64); the image; BLAKE2b of all before (32 bytes). The image is code and constants, and from
`code_size`, a whole number of pages, on what may be written to.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from tsdb.machinecode.arguments import Parameter, from_plain, to_plain
from tsdb.machinecode.elf import ObjectFile, Section
from tsdb.machinecode.guard import GUARD, WRAPPER
from tsdb.machinecode.wholefile import write_whole

MAGIC = b"VEDETTE-KERNELS\2"
PAGE = 4096
_SEAL_BYTES = 32
_LENGTH = struct.Struct("<I")

U64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel compiled for one signature."""

    kernel: str
    digest: str
    """Of the sources."""
    parameters: tuple[Parameter, ...]
    wrapper: str
    """Symbol of the function that Python calls."""
    environments: Mapping[str, tuple[str, ...]]
    """Symbols of words that hold the address of an environment of numba, and the dtypes that are its
    constants."""
    code: ObjectFile
    guard: ObjectFile
    """Of the function that tests arguments before it goes on to the wrapper."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a kernel is in the image."""

    digest: str
    parameters: tuple[Parameter, ...]
    offset: int
    """Of numba's wrapper, which takes any arguments for good."""
    guard: int
    """Offset of the function that tests arguments and goes on to the wrapper."""


@dataclass(frozen=True, slots=True)
class Image:
    """Code at address 0 with what must be added to it where it is put."""

    identity: Mapping[str, str]
    """Of the machine and of the libraries that the code is for."""
    entries: Mapping[str, list[Entry]]
    code_size: int
    internal: U64Array
    """u64[N, 2]: the word at the first becomes the base plus the second."""
    external: U64Array
    """u64[N, 3]: the word at the first becomes the address of the name of this number, plus the third."""
    names: list[str]
    environments: Mapping[int, tuple[str, ...]]
    """Offsets of words that take the address of an environment, and the dtypes in it."""
    data: bytes


class ImageError(ValueError):
    """The file is no image, is damaged, or cannot be made."""


def link(compiled: Iterable[Compiled], identity: Mapping[str, str]) -> Image:
    """Lay out objects behind each other. Raises ImageError for a name that is defined nowhere it may be."""
    layout = _Layout()
    entries: dict[str, list[Entry]] = {}
    wanted = list(compiled)
    placed = [(layout.place(each.code), layout.place(each.guard)) for each in wanted]
    layout.close_code()
    for each, (places, guard_places) in zip(wanted, placed, strict=True):
        layout.place_writable(each.code, places)
        layout.relocate(each.code, places, each.environments)
        wrapper = _address(each.code, each.wrapper, places)
        layout.relocate(each.guard, guard_places, {}, {WRAPPER: wrapper})
        entry = Entry(each.digest, each.parameters, wrapper, _address(each.guard, GUARD, guard_places))
        entries.setdefault(each.kernel, []).append(entry)
    return Image(
        identity,
        entries,
        layout.code_size,
        np.array(layout.internal, dtype=np.uint64).reshape(-1, 2),
        np.array(layout.external, dtype=np.uint64).reshape(-1, 3),
        layout.names,
        layout.environments,
        bytes(layout.data),
    )


def _address(code: ObjectFile, name: str, places: Mapping[int, int]) -> int:
    for symbol in code.symbols:
        if symbol.name == name and symbol.section is not None and symbol.section in places:
            return places[symbol.section] + symbol.offset
    raise ImageError(f"nothing is called {name}")


class _Layout:
    """An image that grows."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.code_size = 0
        self.internal: list[tuple[int, int]] = []
        self.external: list[tuple[int, int, int]] = []
        self.names: list[str] = []
        self.environments: dict[int, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}

    def place(self, code: ObjectFile) -> dict[int, int]:
        """Put what is not written to behind what is there; offsets by section."""
        return {n: self._put(s) for n, s in code.sections.items() if not s.writable}

    def close_code(self) -> None:
        """What follows is on pages of its own."""
        self.data += bytes(-len(self.data) % PAGE)
        self.code_size = len(self.data)

    def place_writable(self, code: ObjectFile, places: dict[int, int]) -> None:
        """Put what is written to."""
        places.update({n: self._put(s) for n, s in code.sections.items() if s.writable})

    def relocate(
        self,
        code: ObjectFile,
        places: Mapping[int, int],
        environments: Mapping[str, tuple[str, ...]],
        defined: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Note what must be added where; `defined` are places of names that are in another object.

        Objects share no environments: their names are not unique.
        """
        words: dict[str, int] = {}
        for each in code.relocations:
            symbol = code.symbols[each.symbol]
            at = places[each.section] + each.offset
            if symbol.section is not None:
                if symbol.section not in places:
                    raise ImageError(f"{symbol.name or 'a section'} is not loaded")
                self.internal.append((at, places[symbol.section] + symbol.offset + each.addend))
            elif symbol.common_size is not None:
                if symbol.name not in environments or symbol.common_size != 8:
                    raise ImageError(f"unknown common memory {symbol.name}")
                if symbol.name not in words:
                    words[symbol.name] = self._environment(environments[symbol.name])
                self.internal.append((at, words[symbol.name] + each.addend))
            elif symbol.name in defined:
                self.internal.append((at, defined[symbol.name] + each.addend))
            else:
                self.external.append((at, self._number(symbol.name), each.addend & (2**64 - 1)))

    def _put(self, section: Section) -> int:
        self.data += bytes(-len(self.data) % max(section.alignment, 16))
        at = len(self.data)
        self.data += section.data
        return at

    def _environment(self, constants: tuple[str, ...]) -> int:
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.environments[at] = constants
        self.data += bytes(8)
        return at

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


def write_image(image: Image, path: Path) -> None:
    """Write beside the place and rename. Raises OSError."""
    entries = {
        name: [[e.digest, [to_plain(p) for p in e.parameters], e.offset, e.guard] for e in variants]
        for name, variants in image.entries.items()
    }
    header = json.dumps(
        {
            "identity": dict(image.identity),
            "entries": entries,
            "code_size": image.code_size,
            "internal": len(image.internal),
            "external": len(image.external),
            "names": image.names,
            "environments": [[at, *constants] for at, constants in image.environments.items()],
        }
    ).encode()
    body = b"".join(
        (
            MAGIC,
            _LENGTH.pack(len(header)),
            header,
            image.internal.astype("<u8").tobytes(),
            image.external.astype("<u8").tobytes(),
            image.data,
        )
    )
    write_whole(path, body + _seal(body))


def read_image(path: Path) -> Image:
    """Raises OSError, ImageError for what is not whole or not an image."""
    content = path.read_bytes()
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if not body.startswith(MAGIC) or _seal(body) != seal:
        raise ImageError(f"{path} is no whole image of kernels")
    try:
        return _parse(body)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise ImageError(f"{path}: {error}") from error


def _parse(body: bytes) -> Image:
    (length,) = _LENGTH.unpack_from(body, len(MAGIC))
    at = len(MAGIC) + _LENGTH.size
    header: dict[str, Any] = json.loads(body[at : at + length])
    at += length
    internal = np.frombuffer(body, dtype="<u8", count=2 * header["internal"], offset=at).reshape(-1, 2)
    at += internal.nbytes
    external = np.frombuffer(body, dtype="<u8", count=3 * header["external"], offset=at).reshape(-1, 3)
    at += external.nbytes
    entries = {
        name: [Entry(digest, tuple(map(from_plain, plain)), *offsets) for digest, plain, *offsets in variants]
        for name, variants in header["entries"].items()
    }
    environments = {at: tuple(constants) for at, *constants in header["environments"]}
    return Image(
        header["identity"],
        entries,
        header["code_size"],
        internal,
        external,
        header["names"],
        environments,
        body[at:],
    )


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES).digest()
