"""`fd.*` of any descriptor, and the paths of calls that have none (`fs.path.*`).

A file that a call opens has the name the program gave, made absolute: symbolic links are not followed, as in
Falco. Descriptors of other calls have the name the kernel knows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.descriptors import kind_character
from agent.fields.containers import HOST
from agent.fields.event import OPEN_CALLS
from agent.fields.view import Loader, View, numbers_where
from agent.probe.layout import ACTIONS, ADDRESS, CWD, DIR1, DIR2, FD_PATH, PATH1, PATH2, RESULT, SOCKET
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, Dictionary, ListColumn
from security.fields.connections import TYPE_NAMES
from security.fields.fspaths import FS_PATHS

_CREATES = frozenset(name for name, action in ACTIONS.items() if action.fd == RESULT)
_USES = frozenset(name for name, action in ACTIONS.items() if action.fd not in (0, RESULT))
_DUPLICATES = frozenset(("dup", "dup2", "dup3"))
_NAME: ColumnKey = ("fd.name", None)
_CHARACTER: ColumnKey = ("fd.typechar", None)


def _calls(part: str, *parameters: str) -> frozenset[str]:
    """Calls whose `name`, `source` or `target` is one of these parameters."""
    return frozenset(call for call, found in FS_PATHS.items() if found.get(part) in parameters)


_DESCRIPTOR_PATHS = _calls("name", "fd")
_PATHS = frozenset(call for call, found in FS_PATHS.items() if "name" in found) - _DESCRIPTOR_PATHS
_RENAMES = _calls("source", "oldpath")
_SYMLINKS = _calls("source", "linkpath")
_LINKS = _SYMLINKS | _calls("source", "newpath")
_MOUNT = _calls("source", "dev")


def descriptor_numbers(view: View) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number of each event's descriptor, -1 where the call that makes it failed; which events have one."""
    results = view.header["result"].astype(np.int64)
    made, used = view.rows_of(_CREATES | _DUPLICATES), view.rows_of(_USES - _DUPLICATES)
    first = view.header["args"][:, 0].astype(np.uint32).view(np.int32).astype(np.int64)
    # finit_module, too, has its descriptor first; every call of `_USES` does.
    return np.where(made, np.maximum(results, -1), first), made | used


def has_descriptor(view: View) -> NDArray[np.bool_]:
    """Whether the kernel found a descriptor, which a call that failed to make one has not."""
    failed = view.rows_of(_CREATES) & (view.header["result"] < 0)
    return view.has_descriptor & ~failed


def _number(view: View, key: ColumnKey) -> AnyColumn:
    numbers, present = descriptor_numbers(view)
    return numbers_where(numbers, present)


def name(view: View) -> Column:
    """`fd.name`."""
    opens = view.rows_of(OPEN_CALLS)
    events = view.events

    def opened(row: int) -> str | None:
        path = events.path(row, 1)
        if path is None:
            found = events.descriptor(row)
            path = None if found is None else found.name
        return path

    def looked_up(row: int) -> str | None:
        found = events.descriptor(row)
        return None if found is None else found.name

    given = view.of_bytes(_NAME, (PATH1, DIR1, CWD), opened, present=opens)
    others = has_descriptor(view) & ~opens
    if not others.any():
        return given
    slots = (FD_PATH, SOCKET, ADDRESS)
    pseudo = view.descriptors["pseudo"].astype(np.int64)
    found = view.of_bytes(_NAME, slots, looked_up, (view.events.codes, pseudo), present=others)
    return Column(np.where(opens, given.codes, found.codes), found.dictionary)


def _name(view: View, key: ColumnKey) -> AnyColumn:
    return view.column(_NAME, lambda: name(view))


def _raw_name(view: View, key: ColumnKey) -> AnyColumn:
    return view.of_bytes(
        key, (PATH1,), lambda row: _given(view, row, PATH1), present=view.rows_of(OPEN_CALLS)
    )


def _as_passed(view: View, key: ColumnKey, slot: int, present: NDArray[np.bool_]) -> Column:
    return view.of_bytes(key, (slot,), lambda row: _given(view, row, slot), present=present)


def _given(view: View, row: int, slot: int) -> str | None:
    raw = view.events.batch.field(row, slot)
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def characters(view: View) -> Column:
    """`fd.typechar`: one character, that of a file for an open that failed."""
    vocabulary = view.known.lasting.vocabulary(_CHARACTER)
    found = has_descriptor(view)
    modes = (view.descriptors["mode"] >> 12) & 15
    table = np.array([vocabulary.code(kind_character(kind << 12)) for kind in range(16)], np.int32)
    codes = np.where(found, table[modes], MISSING_CODE)
    codes[view.rows_of(OPEN_CALLS) & ~found] = vocabulary.code("f")
    special = found & ((view.descriptors["pseudo"] != 0) | (view.events.batch.length[:, SOCKET] >= 0))

    def looked_up(row: int) -> str | None:
        descriptor = view.events.descriptor(row)
        return None if descriptor is None else descriptor.type_character

    if special.any():
        # Names of anonymous inodes and families of sockets; addresses and ports do not matter.
        numbers: tuple[NDArray[np.int64], ...] = (modes.astype(np.int64), *_families(view))
        looked = view.of_bytes(
            _CHARACTER,
            (FD_PATH,),
            looked_up,
            numbers,
            present=special,
        )
        codes = np.where(special, looked.codes, codes)
    return Column(codes.astype(np.int32), vocabulary.dictionary)


def _families(view: View) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Families of sockets, and which carry IPv4 in IPv6; zeros for other descriptors."""
    if not view.has_socket:
        return np.zeros(len(view), np.int64), np.zeros(len(view), np.int64)
    return view.sockets.family.astype(np.int64), view.sockets.mapped.astype(np.int64)


def _character(view: View, key: ColumnKey) -> AnyColumn:
    return view.column(_CHARACTER, lambda: characters(view))


def _type(view: View, key: ColumnKey) -> AnyColumn:
    column = view.column(_CHARACTER, lambda: characters(view))
    column = Column(np.where(has_descriptor(view), column.codes, MISSING_CODE), column.dictionary)
    return _mapped(view, key, column, lambda character, _: TYPE_NAMES.get(character))


def _mapped(
    view: View,
    key: ColumnKey,
    column: Column,
    make: Callable[[str, bool], str | None],
    truth: NDArray[np.bool_] | None = None,
) -> Column:
    """A text that follows from another column's text and a truth about the event."""
    values = column.dictionary.values
    memo = view.known.lasting.memo(f"code of {key[0]}", key)
    if view.known.sources.get(key[0]) is not column.dictionary:
        view.known.sources[key[0]] = column.dictionary
        memo.clear()
    numbers = np.where(column.codes < 0, MISSING_CODE, 2 * column.codes + (0 if truth is None else truth))
    return memo.column(numbers.astype(np.int32), lambda number: make(values[number >> 1], bool(number & 1)))


def _is_directory(view: View) -> NDArray[np.bool_]:
    return np.asarray(has_descriptor(view) & ((view.descriptors["mode"] >> 12) & 15 == 4))


def _files(view: View) -> NDArray[np.bool_]:
    """Descriptors of files and directories."""
    column = view.column(_CHARACTER, lambda: characters(view))
    wanted = np.array([value in ("f", "d") for value in column.dictionary.values] + [False], np.bool_)
    return np.asarray(wanted[column.codes])


def parent_directory(path: str) -> str:
    """What stands before the last slash; the root for a name without one."""
    return path[: path.rfind("/")] or "/" if "/" in path else "/"


def _directory(view: View, key: ColumnKey) -> AnyColumn:
    names = view.column(_NAME, lambda: name(view))
    whole = _is_directory(view)
    plain = Column(np.where(_files(view), names.codes, MISSING_CODE), names.dictionary)
    return _mapped(
        view, key, plain, lambda path, is_whole: path if is_whole else parent_directory(path), whole
    )


def _filename(view: View, key: ColumnKey) -> AnyColumn:
    names = view.column(_NAME, lambda: name(view))
    files = _files(view) & ~_is_directory(view)
    plain = Column(np.where(files, names.codes, MISSING_CODE), names.dictionary)
    return _mapped(view, key, plain, lambda path, _: path.rpartition("/")[2])


def _with_container(view: View, key: ColumnKey) -> AnyColumn:
    """Container and name, or container and directory."""
    inner = _name(view, _NAME) if key[0] == "fd.containername" else _directory(view, ("fd.directory", None))

    def text(row: int) -> str | None:
        found = inner.value(row)
        path = view.known.containers[int(view.containers[row])]
        return None if found is None else f"{path.shown_id if path else HOST}:{found}"

    return view.of_rows(key, text)


def _identity(view: View, key: ColumnKey) -> AnyColumn:
    numbers, present = descriptor_numbers(view)
    return view.of_rows(key, lambda row: f"{view.header['tid'][row]}{numbers[row]}", present & (numbers >= 0))


def _device(pick: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Loader:
    return lambda view, key: numbers_where(
        pick(view.descriptors["device"].astype(np.int64)), has_descriptor(view)
    )


def user_device(device: NDArray[np.int64]) -> NDArray[np.int64]:
    """Device numbers as programs see them: the kernel keeps 20 bits of minor below the major."""
    major, minor = device >> 20, device & 0xFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~np.int64(0xFF)) << 12


def _inode(view: View, key: ColumnKey) -> AnyColumn:
    return numbers_where(view.descriptors["inode"].astype(np.int64), has_descriptor(view))


def _layer(layer: int) -> Loader:
    return lambda view, key: numbers_where(view.descriptors["upper"] == layer, has_descriptor(view))


def _types(view: View, key: ColumnKey) -> AnyColumn:
    """One descriptor an event is all that is looked up."""
    column = _type(view, ("fd.type", None))
    assert isinstance(column, Column)
    if key[1] is not None:
        return column if key[1] == "0" else Column(np.full(len(view), MISSING_CODE, np.int32), Dictionary())
    present = column.codes >= 0
    offsets = np.concatenate([[0], np.cumsum(present)]).astype(np.int64)
    return ListColumn(column.codes[present], offsets, present, column.dictionary)


# Paths of calls without a descriptor.


def _absolute(view: View, key: ColumnKey, which: int, present: NDArray[np.bool_]) -> Column:
    slots = (PATH1, DIR1, CWD) if which == 1 else (PATH2, DIR2, CWD)
    succeeded = view.header["result"] >= 0
    return view.of_bytes(key, slots, lambda row: view.events.path(row, which), present=present & succeeded)


def _as_given(view: View, key: ColumnKey, which: int, present: NDArray[np.bool_]) -> Column:
    return _as_passed(view, key, PATH1 if which == 1 else PATH2, present & (view.header["result"] >= 0))


def _path_name(view: View, key: ColumnKey) -> AnyColumn:
    column = _absolute(view, key, 1, view.rows_of(_PATHS))
    described = view.rows_of(_DESCRIPTOR_PATHS) & (view.header["result"] >= 0)
    if described.any():
        names = view.column(_NAME, lambda: name(view))
        vocabulary = view.known.lasting.vocabulary(key)
        for row in np.flatnonzero(described).tolist():
            column.codes[row] = vocabulary.code(names.value(row))
    return column


def _ends(view: View, key: ColumnKey, source: bool) -> AnyColumn:
    """Renames go from the first path to the second; a link comes from its new name and leads to the old."""
    make = _as_given if key[0].endswith("raw") else _absolute
    renames, links, mounts = view.rows_of(_RENAMES), view.rows_of(_LINKS), view.rows_of(_MOUNT)
    first, second = (1, 2) if source else (2, 1)
    column = make(view, key, first, renames | (mounts if not source else np.zeros_like(mounts)))
    codes = np.where(links, make(view, key, second, links).codes, column.codes)
    if source:
        codes = np.where(mounts, _as_given(view, key, 1, mounts).codes, codes)
    elif view.rows_of(_SYMLINKS).any():
        # The target of a symbolic link is a text, whatever it leads to.
        symlinks = view.rows_of(_SYMLINKS)
        codes = np.where(symlinks, _as_given(view, key, 1, symlinks).codes, codes)
    return Column(codes.astype(np.int32), column.dictionary)


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    return {
        "fd.num": _number,
        "fd.name": _name,
        "fd.nameraw": _raw_name,
        "fd.type": _type,
        "fd.typechar": _character,
        "fd.directory": _directory,
        "fd.filename": _filename,
        "fd.containername": _with_container,
        "fd.containerdirectory": _with_container,
        "fd.uid": _identity,
        "fd.dev": _device(user_device),
        "fd.dev.major": _device(lambda device: device >> 20),
        "fd.dev.minor": _device(lambda device: device & 0xFFFFF),
        "fd.ino": _inode,
        "fd.types": _types,
        "fd.is_upper_layer": _layer(1),
        "fd.is_lower_layer": _layer(2),
        "fs.path.name": _path_name,
        "fs.path.nameraw": lambda view, key: _as_given(view, key, 1, view.rows_of(_PATHS)),
        "fs.path.source": lambda view, key: _ends(view, key, True),
        "fs.path.sourceraw": lambda view, key: _ends(view, key, True),
        "fs.path.target": lambda view, key: _ends(view, key, False),
        "fs.path.targetraw": lambda view, key: _ends(view, key, False),
    }
