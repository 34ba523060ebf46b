"""Values of `evt.*`, `fs.path.*` and of fields that need more than one part of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from security.capture.effects import OPENS
from security.capture.events import Event
from security.capture.eventtable import EXIT
from security.capture.parameters import arguments_of, parameter, resolved_path
from security.fields.flagnames import error_name
from security.fields.fspaths import FS_PATHS
from security.fields.parameters import escape

Extract = Callable[[Event, str | None], Any]
_READ, _WRITE, _CREATE, _TMPFILE, _CREATED = 1, 2, 1 << 2, 1 << 13, 1 << 14
_EXECUTE = 0o111
_IO = {"read": "r", "write": "w"}
_CATEGORIES = {"read": "io-read", "write": "io-write", "io": "io-other", "ipc": "IPC"}
"""Names of categories where the table has shorter ones."""
_CREAT = "creat"


def _opened(event: Event) -> int:
    """Flags of an opening call, 0 of any other."""
    if event.name not in OPENS:
        return 0
    return event.descriptor.open_flags if event.descriptor else event.number("flags") or 0


def _opens_executable(event: Event, _: str | None) -> bool:
    return bool(_opened(event) & (_CREATE | _TMPFILE)) and bool((event.number("mode") or 0) & _EXECUTE)


def _bit(bit: int) -> Extract:
    """A flag of an open; creat has none, although it writes."""
    return lambda event, _: event.name != _CREAT and bool(_opened(event) & bit)


def _moved(category: str, network: bool | None = None) -> Extract:
    """Bytes moved in one direction, of any descriptor, of sockets or of others."""

    def extract(event: Event, _: str | None) -> int | None:
        kind = event.descriptor is not None and event.descriptor.is_network
        if category not in ("", event.spec.category) or network not in (None, kind):
            return None
        return _transferred(event, None)

    return extract


def _result(event: Event, _: str | None) -> str | None:
    result = event.result
    if result is None:
        return None
    return "SUCCESS" if result >= 0 else error_name(result) or str(result)


def _failed(event: Event, _: str | None) -> bool | None:
    return None if event.result is None else event.result < 0


def _argument(event: Event, argument: str | None) -> str | None:
    found = parameter(event, argument or "")
    return None if found is None else escape(found.text)


def _raw_argument(event: Event, argument: str | None) -> str | None:
    found = parameter(event, argument or "")
    return None if found is None else escape(found.raw)


def _number(event: Event, _: str | None) -> int | None:
    """The descriptor of a call, known or not."""
    if event.descriptor is not None:
        return event.descriptor.number
    number = event.number("fd")
    return number if number is None or number >= 0 else -1


def _path(part: str, raw: bool) -> Extract:
    def extract(event: Event, _: str | None) -> str | None:
        name = FS_PATHS.get(event.name, {}).get(part)
        if name is None or (event.result or 0) < 0:
            return None
        if name == "fd":
            return event.descriptor.name if event.descriptor else None
        return event.text(name) if raw else resolved_path(event, name)

    return extract


def _absolute(event: Event, _: str | None) -> str | None:
    names = (item.name for item in event.spec.parameters if item.type in ("path", "relpath"))
    return next((path for path in (resolved_path(event, name) for name in names) if path), None)


def _duration(of_parent: bool) -> Extract:
    def extract(event: Event, _: str | None) -> int | None:
        context = event.context
        if context is None:
            return None
        thread = context.parent if of_parent else context.main
        return event.time_ns - thread.start_ns if thread is not None and thread.start_ns else None

    return extract


def _container_start(event: Event, _: str | None) -> int | None:
    thread = event.context.thread if event.context else None
    return thread.namespace_start_ns if thread is not None and thread.container is not None else None


def _container_duration(event: Event, _: str | None) -> int | None:
    start = _container_start(event, None)
    return None if start is None else event.time_ns - start


def _in_container(directory: bool) -> Extract:
    def extract(event: Event, _: str | None) -> str | None:
        name = event.descriptor.name if event.descriptor else ""
        if event.context is None or not name:
            return None
        container = event.context.thread.container
        shown = name.rpartition("/")[0] or "/" if directory else name
        return f"{container.shown_id if container else ''}:{shown}"

    return extract


def _transferred(event: Event, _: str | None) -> int | None:
    result = event.result
    return result if event.spec.category in _IO and result is not None and result >= 0 else None


def _data(event: Event, _: str | None) -> bytes | None:
    data = event.values.get("data")
    return data if isinstance(data, bytes) else None


EVENT_FIELDS: dict[str, Extract] = {
    "evt.dir": lambda event, _: "<",
    "evt.type.is": lambda event, argument: int(event.name == argument),
    "syscall.type": lambda event, _: event.name if event.spec.direction == EXIT else None,
    "evt.category": lambda event, _: _CATEGORIES.get(event.spec.category, event.spec.category),
    "evt.cpu": lambda event, _: event.cpu,
    "evt.args": lambda event, _: arguments_of(event),
    "evt.info": lambda event, _: arguments_of(event),
    "evt.arg": _argument,
    "evt.rawarg": _raw_argument,
    "evt.buffer": _data,
    "evt.buflen": _transferred,
    "evt.buflen.in": _moved("read"),
    "evt.buflen.out": _moved("write"),
    "evt.buflen.file": _moved("", network=False),
    "evt.buflen.file.in": _moved("read", network=False),
    "evt.buflen.file.out": _moved("write", network=False),
    "evt.buflen.net": _moved("", network=True),
    "evt.buflen.net.in": _moved("read", network=True),
    "evt.buflen.net.out": _moved("write", network=True),
    "evt.res": _result,
    "evt.rawres": lambda event, _: event.result,
    "evt.failed": _failed,
    "evt.is_io": lambda event, _: event.spec.category in _IO,
    "evt.is_io_read": lambda event, _: event.spec.category == "read",
    "evt.is_io_write": lambda event, _: event.spec.category == "write",
    "evt.io_dir": lambda event, _: _IO.get(event.spec.category),
    "evt.is_wait": lambda event, _: event.spec.category == "wait",
    "evt.count": lambda event, _: 1,
    "evt.count.error": lambda event, _: 1 if _failed(event, None) else None,
    "evt.count.exit": lambda event, _: 1,
    "evt.abspath": _absolute,
    "evt.is_open_read": _bit(_READ),
    "evt.is_open_write": _bit(_WRITE),
    "evt.is_open_exec": _opens_executable,
    "evt.is_open_create": _bit(_CREATED),
    "evt.is_async": lambda event, _: False,
    "fd.num": _number,
    "fd.name_changed": lambda event, _: event.name_changed if event.descriptor else None,
    "fd.uid": lambda event, _: f"{event.tid}{event.descriptor.number}" if event.descriptor else None,
    "fd.containername": _in_container(directory=False),
    "fd.containerdirectory": _in_container(directory=True),
    "proc.duration": _duration(of_parent=False),
    "proc.ppid.duration": _duration(of_parent=True),
    "container.start_ts": _container_start,
    "container.duration": _container_duration,
    **{
        f"fs.path.{part}{'raw' if raw else ''}": _path(part, raw)
        for part in ("name", "source", "target")
        for raw in (False, True)
    },
}
"""By field: the value for an event and an argument, None where it is missing."""
