"""Types of parameters in captures: from bytes to values, from values to text.

A value is a number, a text, a tuple of texts, bytes, or an address. Bytes that do not fit a type are a
missing value, as is an empty number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from security.capture.cursor import text_of, texts_of
from security.fields import flagnames
from security.fields.connections import Endpoint, address_text
from security.fields.parameters import printable

_INET, _INET6, _UNIX = 2, 10, 1
_FAMILY_BYTES = {_INET: 4, _INET6: 16}


@dataclass(frozen=True, slots=True)
class Connection:
    """Two ends of a socket, source first; one end for an address; or the path of a unix socket."""

    source: Endpoint | None = None
    destination: Endpoint | None = None
    path: str = ""
    family: int = 0

    def __str__(self) -> str:
        if self.source is None:
            return self.path
        return str(self.source) if self.destination is None else f"{self.source}->{self.destination}"


Value = int | str | bytes | tuple[str, ...] | Connection


def _signed(data: bytes) -> int | None:
    return int.from_bytes(data, "little", signed=True) if 0 < len(data) <= 8 else None


def _unsigned(data: bytes) -> int | None:
    return int.from_bytes(data, "little") if 0 < len(data) <= 8 else None


def _dynamic(data: bytes) -> int | None:
    """A value whose kind stands in its first byte."""
    return _signed(data[1:])


def _endpoint(data: bytes, at: int, width: int) -> Endpoint:
    address = address_text(data[at : at + width])
    return Endpoint(address, int.from_bytes(data[at + width : at + width + 2], "little"))


def _address(data: bytes) -> Connection | None:
    if not data:
        return None
    width = _FAMILY_BYTES.get(data[0])
    if width is not None:
        return Connection(_endpoint(data, 1, width), family=data[0]) if len(data) >= width + 3 else None
    return Connection(path=text_of(data[1:]), family=data[0]) if data[0] == _UNIX else None


def _tuple(data: bytes) -> Connection | None:
    if not data:
        return None
    width = _FAMILY_BYTES.get(data[0])
    if width is not None:
        if len(data) < 2 * width + 5:
            return None
        return Connection(_endpoint(data, 1, width), _endpoint(data, width + 3, width), family=data[0])
    return Connection(path=text_of(data[17:]), family=data[0]) if data[0] == _UNIX else None


def _text(data: bytes) -> str | None:
    return text_of(data) if data else None


Decoder = Callable[[bytes], Value | None]
_SIGNED = ("errno", "fd", "pid", "int")
_UNSIGNED = (
    *("uint", "hex", "oct", "mode", "uid", "gid", "open", "clone", "at", "exec"),
    *("memfd", "rename", "family", "ptrace", "bpf"),
)
DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(_SIGNED, _signed),
    **dict.fromkeys(_UNSIGNED, _unsigned),
    **dict.fromkeys(("text", "path", "relpath"), _text),
    "dynamic": _dynamic,
    "list": texts_of,
    "bytes": bytes,
    "addr": _address,
    "tuple": _tuple,
}

BITS = {
    "open": flagnames.OPEN_BITS,
    "mode": flagnames.MODE_BITS,
    "clone": flagnames.CAPTURE_CLONE_BITS,
    "at": flagnames.AT_BITS,
    "exec": flagnames.EXECUTION_BITS,
    "memfd": flagnames.MEMFD_BITS,
    "rename": flagnames.RENAME_BITS,
}
NAMES = {
    "family": flagnames.FAMILIES,
    "ptrace": flagnames.CAPTURE_PTRACE_REQUESTS,
    "bpf": flagnames.BPF_COMMANDS,
}


def plain_text(kind: str, value: Value) -> tuple[str, str]:
    """Raw text of a value, and resolved text where it says more and needs nothing but the value."""
    if isinstance(value, bytes):
        return printable(value), ""
    if isinstance(value, tuple):
        return " ".join(value), ""
    if not isinstance(value, int):
        return str(value), ""
    if kind == "hex":
        return f"{value:X}", ""
    if kind in ("oct", "mode"):
        raw = f"0{value & 0o7777:o}" if value or kind == "mode" else "0"
        return raw, flagnames.bit_names(value, flagnames.MODE_BITS) if kind == "mode" else ""
    if kind in BITS:
        return str(value), flagnames.bit_names(value, BITS[kind])
    if kind in NAMES:
        return str(value), NAMES[kind].get(value, "")
    return str(value), flagnames.error_name(value) if kind in ("errno", "fd") else ""
