"""`evt.arg`, `evt.rawarg` and `evt.args`: parameters of events, rendered once for each distinct input.

`agent.events.Renderer` makes the texts; here stands what each kind of parameter depends on.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from agent.events import EXECUTIONS, OF_FAILED_EXECUTION
from agent.eventtypes import ParameterSpec, parameter_table
from agent.fields.view import Loader, View
from agent.probe.layout import ADDRESS, CWD, DATA, DIR1, DIR2, EXTRA, FD, FD_PATH, PATH1, SOCKET
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey

_DESCRIPTOR = (FD, FD_PATH, SOCKET, ADDRESS)
_BY_ARGUMENT = frozenset(
    (
        *("number", "uint", "hexadecimal", "octal", "mode", "family", "ptrace", "bpf", "clone"),
        *("namespaces", "memfd", "at", "rename"),
    )
)
_BY_BYTES: dict[str, tuple[int, ...]] = {
    "addresses": _DESCRIPTOR,
    "received": _DESCRIPTOR,
    "queue": (FD, SOCKET),
    "percent": (FD, SOCKET),
    "addr": (ADDRESS,),
    "data": (DATA,),
    "zero": (),
}
_SPECS = parameter_table()
Numbers = tuple[NDArray[np.int64], ...]


def _inputs(view: View, spec: ParameterSpec) -> tuple[tuple[int, ...], Numbers] | None:
    """Slots and numbers that a parameter depends on; None when each event has to be rendered by itself."""
    results = view.header["result"].astype(np.int64)
    if spec.kind in ("res", "result"):
        return (), (results,)
    if spec.kind in _BY_BYTES:
        return _BY_BYTES[spec.kind], ()
    if spec.kind == "new":
        return _DESCRIPTOR, (results,)
    if spec.kind in ("dev", "ino"):
        return (FD, FD_PATH), (np.sign(results),)
    if spec.kind == "how":
        return (EXTRA,), (_layers(view, results),)
    if spec.kind in ("path", "given"):
        place = int(spec.which) - 1
        return ((PATH1 + place, DIR1 + place, CWD) if spec.kind == "path" else (PATH1 + place,)), ()
    if not spec.which.isdigit():
        return None
    argument = view.header["args"][:, int(spec.which)].astype(np.int64)
    if spec.kind in _BY_ARGUMENT:
        return (), (argument,)
    if spec.kind == "fd":
        return _DESCRIPTOR, (argument,)
    if spec.kind == "directory":
        return (DIR1, DIR2), (argument,)
    if spec.kind == "opening":
        return (), (argument, _layers(view, results))
    if spec.kind == "user":
        return (), (argument, view.containers.astype(np.int64))
    return None


def _layers(view: View, results: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(results >= 0, view.descriptors["upper"].astype(np.int64), 0)


def _spec(name: str, wanted: str) -> ParameterSpec | None:
    specs = _SPECS.get(name, ())
    if wanted.isdigit():
        return specs[int(wanted)] if int(wanted) < len(specs) else None
    return next((spec for spec in specs if spec.name == wanted), None)


def _column(view: View, key: ColumnKey, raw: bool) -> AnyColumn:
    vocabulary = view.known.lasting.vocabulary(key)
    codes = np.full(len(view), MISSING_CODE, np.int32)
    for name in set(view.type_names.values()):
        spec = _spec(name, key[1] or "")
        if spec is None:
            continue
        wanted = view.rows_of(frozenset((name,)))
        if name in EXECUTIONS and spec.kind not in OF_FAILED_EXECUTION:
            wanted &= view.header["result"] >= 0
        places = np.flatnonzero(wanted)
        if not len(places):
            continue
        part = view if len(places) == len(view) else view.take(places)
        codes[places] = _rendered(part, key, spec, raw).codes
    return Column(codes, vocabulary.dictionary)


def _rendered(view: View, key: ColumnKey, spec: ParameterSpec, raw: bool) -> Column:
    """A parameter of events that all have it."""

    def make(row: int) -> Hashable:
        found = view.events.render(row, spec)
        return found.raw if raw else found.text

    inputs = _inputs(view, spec)
    if inputs is None:
        return view.of_rows(key, make)
    slots, numbers = inputs
    # The type of the event is a part of what a text depends on: it says which kind of parameter it is.
    return view.of_bytes(key, slots, make, (view.events.codes, *numbers))


def _argument(view: View, key: ColumnKey) -> AnyColumn:
    return _column(view, key, raw=False)


def _raw_argument(view: View, key: ColumnKey) -> AnyColumn:
    return _column(view, key, raw=True)


def _all(view: View, key: ColumnKey) -> AnyColumn:
    return view.of_rows(key, view.events.arguments)


def _absolute_path(view: View, key: ColumnKey) -> AnyColumn:
    """The path of a call with a directory and a name."""
    second = key[1] in ("dst", "newpath", "2")
    return view.of_rows(key, lambda row: view.events.path(row, 2 if second else 1))


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    return {
        "evt.arg": _argument,
        "evt.rawarg": _raw_argument,
        "evt.args": _all,
        "evt.info": _all,
        "evt.abspath": _absolute_path,
    }
