"""What events do to the state of a capture: processes, and which descriptor an event is about.

`apply` is called with every event in order; the event then holds what rules may ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from security.capture import containers, processes, sockets
from security.capture.descriptors import Descriptor
from security.capture.events import Event
from security.capture.processes import directory_of
from security.capture.state import State
from security.capture.threads import Thread
from security.fields.paths import absolute_path

Handler = Callable[[State, Event, Thread], None]
OPENS = frozenset({"open", "openat", "openat2", "creat", "open_by_handle_at"})
_O_DIRECTORY, _O_CREAT, _O_WRONLY, _O_TRUNC = 1 << 10, 1 << 2, 1 << 1, 1 << 8
_DUPLICATE_COMMANDS = (1, 26)
"""F_DUPFD and F_DUPFD_CLOEXEC in the numbering of captures."""
_NEW_CHARACTERS = {
    "eventfd": "e",
    "eventfd2": "e",
    "signalfd": "s",
    "signalfd4": "s",
    "timerfd_create": "t",
    "inotify_init": "i",
    "inotify_init1": "i",
    "epoll_create": "l",
    "epoll_create1": "l",
    "userfaultfd": "r",
    "io_uring_setup": "m",
    "bpf": "b",
    "memfd_create": "M",
    "pidfd_open": "P",
}


def apply(state: State, event: Event) -> None:
    """Take an event over into the state, and say in the event who did it to what."""
    thread = state.thread(event.tid)
    files = state.files(thread)
    for name in event.spec.descriptors:
        number = event.number(name)
        if number is not None and number in files:
            event.files[number] = files[number]
    event.descriptor = event.files.get(event.number("fd") or 0) if "fd" in event.values else None
    handler = _HANDLERS.get(event.name)
    if handler is not None:
        handler(state, event, thread)
    if event.is_hidden:
        return
    if event.descriptor is not None and event.descriptor.number >= 0:
        event.files[event.descriptor.number] = event.descriptor
    event.context = state.context(event.tid)
    if event.name == "procexit":
        processes.end(state, event)


def _open(state: State, event: Event, thread: Thread) -> None:
    path = event.text("path" if event.name == "open_by_handle_at" else "name")
    number, flags = event.number("fd"), event.number("flags") or 0
    event.descriptor = None
    if path is None or number is None:
        return
    if event.name == "creat":
        flags |= _O_CREAT | _O_WRONLY | _O_TRUNC
    directory = directory_of(state, event, thread, "dirfd") if "dirfd" in event.values else thread.cwd or None
    event.descriptor = Descriptor(
        "d" if flags & _O_DIRECTORY else "f",
        absolute_path(path, directory),
        event.number("ino") or None,
        event.number("dev"),
        flags,
        number=number if number >= 0 else -1,
        raw_name=path,
    )
    if number >= 0:
        state.open(thread, event.descriptor)


def _close(state: State, event: Event, thread: Thread) -> None:
    number = event.number("fd")
    if number is not None and (event.number("res") or 0) >= 0:
        state.close(thread, number)


def _duplicate(state: State, event: Event, thread: Thread) -> None:
    number, old = event.result, event.number("oldfd")
    if event.name == "fcntl":
        if event.number("cmd") not in _DUPLICATE_COMMANDS:
            return
        old = event.number("fd")
    source = None if old is None else state.files(thread).get(old)
    event.descriptor = source
    if number is not None and number >= 0 and source is not None:
        event.descriptor = replace(source, number=number)
        state.open(thread, event.descriptor)


def _pipe(state: State, event: Event, thread: Thread) -> None:
    for name in ("fd1", "fd2"):
        number = event.number(name)
        if event.number("res") == 0 and number is not None:
            state.open(thread, Descriptor("p", inode=event.number("ino"), number=number))


def _new(state: State, event: Event, thread: Thread) -> None:
    number = event.result
    if number is None or number < 0:
        return
    name = event.text("name") or ""
    event.descriptor = Descriptor(_NEW_CHARACTERS[event.name], name, number=number)
    state.open(thread, event.descriptor)


_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(OPENS, _open),
    "close": _close,
    **dict.fromkeys(("dup", "dup2", "dup3", "fcntl"), _duplicate),
    **dict.fromkeys(("pipe", "pipe2"), _pipe),
    **dict.fromkeys(_NEW_CHARACTERS, _new),
    **sockets.HANDLERS,
    **processes.HANDLERS,
    **containers.HANDLERS,
}
