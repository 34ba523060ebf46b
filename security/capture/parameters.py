"""Parameters of an event as text, as `evt.arg` and `evt.args` show them."""

from __future__ import annotations

from security.capture.events import Event
from security.capture.eventtable import ParameterSpec
from security.capture.parametertypes import Value, plain_text
from security.capture.processes import AT_FDCWD
from security.fields.parameters import Parameter, arguments_line, described
from security.fields.paths import absolute_path


def arguments_of(event: Event) -> str:
    """All parameters on one line; those that the capture does not have are left out."""
    rendered = (_rendered(event, item) for item in event.spec.parameters)
    return arguments_line(item for item in rendered if item is not None)


def parameter(event: Event, name: str) -> Parameter | None:
    """A parameter by its name or place, None when the event has none such."""
    items = event.spec.parameters
    if name.isdigit():
        return _rendered(event, items[int(name)]) if int(name) < len(items) else None
    for item in items:
        if item.name == name:
            return _rendered(event, item)
    return None


def resolved_path(event: Event, name: str) -> str | None:
    """A path parameter made absolute."""
    path = event.text(name)
    if path is None:
        return None
    item = next((item for item in event.spec.parameters if item.name == name), None)
    return absolute_path(path, _directory(event, item.directory if item else ""))


def _directory(event: Event, name: str) -> str | None:
    number = event.number(name) if name else None
    thread = event.context.thread if event.context else None
    if number is None or number == AT_FDCWD:
        return thread.cwd or None if thread else None
    found = event.files.get(number)
    return found.name if found else None


def _rendered(event: Event, item: ParameterSpec) -> Parameter | None:
    value = event.values.get(item.name)
    if value is None:
        return None
    raw, resolved = _texts(event, item, value)
    return Parameter(item.name, raw, "" if resolved == raw else resolved)


def _texts(event: Event, item: ParameterSpec, value: Value) -> tuple[str, str]:
    if item.type in ("path", "relpath") and isinstance(value, str):
        return value, resolved_path(event, item.name) or ""
    if item.type == "fd" and isinstance(value, int):
        if value == AT_FDCWD:
            return str(value), "AT_FDCWD"
        found = event.files.get(value)
        if found is not None:
            return described(value, found.character, found.name)
    if item.type == "uid" and isinstance(value, int):
        return str(value), _user(event, value)
    return plain_text(item.type, value)


def _user(event: Event, uid: int) -> str:
    context = event.context
    if context is None:
        return ""
    container = context.thread.container
    found = context.host.user(container.shown_id if container else "", uid)
    return found.name if found else ""
