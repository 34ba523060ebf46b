"""Containers and users that a capture tells of by events of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from security.capture.events import Event
from security.capture.host import ENTRIES_LIMIT, User
from security.capture.state import CONTAINERS_LIMIT, State
from security.capture.threads import Thread
from security.fields.containerids import SHOWN_ID_CHARACTERS

DESCRIPTION_BYTES_LIMIT = 262_144


def _container(state: State, event: Event, thread: Thread) -> None:
    text = event.text("json")
    if text:
        _add_document(state, text.encode("utf-8", "replace"))
    else:
        _add(state, {name: event.text(name) for name in ("id", "name", "image")})


def _async(state: State, event: Event, thread: Thread) -> None:
    data = event.values.get("data")
    if event.text("name") == "container" and isinstance(data, bytes):
        _add_document(state, data.rstrip(b"\0"))


def _add_document(state: State, data: bytes) -> None:
    """Take over the description in a JSON text. One that is none, or too long, loses only itself."""
    if len(data) > DESCRIPTION_BYTES_LIMIT:
        state.left_out += 1
        return
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    inner = found.get("container") if isinstance(found, dict) else None
    if isinstance(inner, dict):
        _add(state, inner)


def _add(state: State, description: dict[str, Any]) -> None:
    identity = description.get("id")
    if not isinstance(identity, str) or not identity:
        return
    if len(state.containers) >= CONTAINERS_LIMIT:
        state.left_out += 1
        return
    state.containers[identity[:SHOWN_ID_CHARACTERS]] = description
    state.containers_changed()


def _user(state: State, event: Event, thread: Thread) -> None:
    uid, name = event.number("uid"), event.text("name")
    place = event.text("container_id") or ""
    if uid is not None and name and len(state.host.users) < ENTRIES_LIMIT:
        state.host.users[place, uid] = User(name, event.text("home") or "", event.text("shell") or "")
        state.containers_changed()


def _group(state: State, event: Event, thread: Thread) -> None:
    gid, name = event.number("gid"), event.text("name")
    if gid is not None and name and len(state.host.groups) < ENTRIES_LIMIT:
        state.host.groups[event.text("container_id") or "", gid] = name
        state.containers_changed()


HANDLERS: Mapping[str, Callable[[State, Event, Thread], None]] = {
    "container": _container,
    "asyncevent": _async,
    "useradded": _user,
    "groupadded": _group,
}
