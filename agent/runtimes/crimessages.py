"""Messages of the Container Runtime Interface, `runtime.v1`: the fields that are used, by their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ingest.remotewrite.protobuf import length_delimited, varint_field
from ingest.remotewrite.wire import Value, as_bytes, as_varint, read_fields, signed

RUNTIME = "/runtime.v1.RuntimeService/"
IMAGE = "/runtime.v1.ImageService/"
NODE = 2
"""Namespace mode of a pod that shares the host's."""
MAP_ENTRIES_LIMIT = 4096

Field = Callable[[int, Value, int], None]
"""Takes wire type, value and offset of one field."""


@dataclass(slots=True)
class CriContainer:
    """One entry of ListContainers."""

    id: str = ""
    pod_sandbox_id: str = ""


@dataclass(slots=True)
class CriMount:
    """A mount; `propagation` is 0 private, 1 from the host, 2 both ways."""

    container_path: str = ""
    host_path: str = ""
    readonly: bool = False
    propagation: int = 0


@dataclass(slots=True)
class CriStatus:
    """ContainerStatus with the runtime's own texts beside it."""

    id: str = ""
    name: str = ""
    created_at: int = 0
    image: str = ""
    image_ref: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    mounts: list[CriMount] = field(default_factory=list)
    info: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class CriSandbox:
    """PodSandboxStatus with the runtime's own texts beside it; modes are those of its namespaces."""

    id: str = ""
    name: str = ""
    uid: str = ""
    namespace: str = ""
    created_at: int = 0
    ip: str = ""
    network: int = 0
    pid: int = 0
    ipc: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class CriImage:
    """An image of ImageStatus."""

    id: str = ""
    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


# Requests.


def list_containers(container_id: str) -> bytes:
    """ListContainersRequest for one id."""
    return length_delimited(1, length_delimited(1, container_id.encode()))


def status_of(an_id: str) -> bytes:
    """ContainerStatusRequest and PodSandboxStatusRequest, verbose: `privileged` is only there."""
    return length_delimited(1, an_id.encode()) + varint_field(2, 1)


def image_status(reference: str) -> bytes:
    """ImageStatusRequest."""
    return length_delimited(1, length_delimited(1, reference.encode()))


# Answers. All raise MalformedMessageError, a ValueError.


def read_list(data: bytes) -> list[CriContainer]:
    """ListContainersResponse."""
    found: list[CriContainer] = []

    def container(view: memoryview) -> None:
        entry = CriContainer()
        _read(view, {1: _text(entry, "id"), 2: _text(entry, "pod_sandbox_id")})
        found.append(entry)

    _read(memoryview(data), {1: _message(container)})
    return found


def read_status(data: bytes) -> CriStatus:
    """ContainerStatusResponse."""
    status = CriStatus()

    def mount(view: memoryview) -> None:
        entry = CriMount()
        _read(
            view,
            {
                1: _text(entry, "container_path"),
                2: _text(entry, "host_path"),
                3: _number(entry, "readonly", bool),
                5: _number(entry, "propagation", int),
            },
        )
        status.mounts.append(entry)

    fields = {
        1: _text(status, "id"),
        2: _inside({1: _text(status, "name")}),
        4: _number(status, "created_at", signed),
        8: _inside({1: _text(status, "image")}),
        9: _text(status, "image_ref"),
        12: _entry(status.labels),
        13: _entry(status.annotations),
        14: _message(mount),
    }
    _read(memoryview(data), {1: _inside(fields), 2: _entry(status.info)})
    return status


def read_sandbox(data: bytes) -> CriSandbox:
    """PodSandboxStatusResponse."""
    sandbox = CriSandbox()
    metadata = {1: _text(sandbox, "name"), 2: _text(sandbox, "uid"), 3: _text(sandbox, "namespace")}
    modes = {
        1: _number(sandbox, "network", int),
        2: _number(sandbox, "pid", int),
        3: _number(sandbox, "ipc", int),
    }
    fields = {
        1: _text(sandbox, "id"),
        2: _inside(metadata),
        4: _number(sandbox, "created_at", signed),
        5: _inside({1: _text(sandbox, "ip")}),
        6: _inside({1: _inside({2: _inside(modes)})}),
        7: _entry(sandbox.labels),
        8: _entry(sandbox.annotations),
    }
    _read(memoryview(data), {1: _inside(fields), 2: _entry(sandbox.info)})
    return sandbox


def read_image(data: bytes) -> CriImage:
    """ImageStatusResponse; an image without id is one that the runtime does not have."""
    image = CriImage()
    fields = {1: _text(image, "id"), 2: _texts(image.tags), 3: _texts(image.digests)}
    _read(memoryview(data), {1: _inside(fields)})
    return image


# Fields.


def _read(view: memoryview, fields: dict[int, Field]) -> None:
    for number, wire, value, at in read_fields(view):
        take = fields.get(number)
        if take is not None:
            take(wire, value, at)


def _string(value: Value, at: int) -> str:
    return bytes(as_bytes(value, at)).decode("utf-8", "replace")


def _text(target: object, name: str) -> Field:
    return lambda wire, value, at: setattr(target, name, _string(value, at))


def _texts(target: list[str]) -> Field:
    return lambda wire, value, at: target.append(_string(value, at))


def _number(target: object, name: str, convert: Callable[[int], int]) -> Field:
    return lambda wire, value, at: setattr(target, name, convert(as_varint(wire, value, at)))


def _message(read: Callable[[memoryview], None]) -> Field:
    return lambda wire, value, at: read(as_bytes(value, at))


def _inside(fields: dict[int, Field]) -> Field:
    return _message(lambda view: _read(view, fields))


def _entry(target: dict[str, str]) -> Field:
    def take(wire: int, value: Value, at: int) -> None:
        key = text = ""
        for number, _, content, place in read_fields(as_bytes(value, at)):
            if number == 1:
                key = _string(content, place)
            elif number == 2:
                text = _string(content, place)
        if len(target) < MAP_ENTRIES_LIMIT:
            target[key] = text

    return take
