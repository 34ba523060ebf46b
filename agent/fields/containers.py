"""`container.*` and `k8s.*`: the id from the control group, the rest from the runtime, which may be late."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Hashable

import numpy as np

from agent.fields.view import HOST_NUMBER, Loader, View, booleans, numbers_where
from agent.runtimes.info import ContainerInfo, Mount
from security.columns import AnyColumn, ColumnKey, NumberColumn
from security.fields.containerids import SHOWN_ID_CHARACTERS

HOST = "host"
"""What the id and the name of a container are outside of containers."""


def _shown(identity: str) -> str:
    return identity[:SHOWN_ID_CHARACTERS]


TEXTS: dict[str, Callable[[ContainerInfo], str]] = {
    "container.name": lambda info: info.name,
    "container.image": lambda info: info.image,
    "container.image.id": lambda info: info.image_id,
    "container.image.repository": lambda info: info.repository,
    "container.image.tag": lambda info: info.tag,
    "container.image.digest": lambda info: info.digest,
    "container.ip": lambda info: info.ip,
    "container.cni.json": lambda info: info.cni_json,
    "container.mounts": lambda info: ",".join(map(str, info.mounts)),
    "container.labels": lambda info: _labels(info.labels.items()),
    "k8s.ns.name": lambda info: info.pod_namespace,
    "k8s.pod.name": lambda info: info.pod_name,
    "k8s.pod.id": lambda info: info.pod_uid,
    "k8s.pod.uid": lambda info: info.pod_uid,
    "k8s.pod.sandbox_id": lambda info: _shown(info.pod_sandbox_id),
    "k8s.pod.full_sandbox_id": lambda info: info.pod_sandbox_id,
    "k8s.pod.ip": lambda info: info.pod_ip,
    "k8s.pod.cni.json": lambda info: info.cni_json,
    "k8s.pod.labels": lambda info: _labels(info.pod_labels.items()),
}
TRUTHS: dict[str, Callable[[ContainerInfo], bool | None]] = {
    "container.privileged": lambda info: info.privileged,
    "container.host_pid": lambda info: info.host_pid,
    "container.host_network": lambda info: info.host_network,
    "container.host_ipc": lambda info: info.host_ipc,
}
_HOST_TEXTS = ("container.id", "container.full_id", "container.name", "container.type")
MOUNT_PARTS: dict[str, tuple[Callable[[Mount], str], Callable[[Mount], str]]] = {
    "container.mount": (str, lambda mount: mount.source),
    "container.mount.source": (lambda mount: mount.source, lambda mount: mount.destination),
    "container.mount.dest": (lambda mount: mount.destination, lambda mount: mount.source),
    "container.mount.mode": (lambda mount: mount.mode, lambda mount: mount.destination),
    "container.mount.rdwr": (
        lambda mount: "true" if mount.read_write else "false",
        lambda mount: mount.destination,
    ),
    "container.mount.propagation": (lambda mount: mount.propagation, lambda mount: mount.destination),
}
"""What is shown, and what a key is compared with."""


def _labels(items: object) -> str:
    assert hasattr(items, "__iter__")
    return ", ".join(f"{name}:{value}" for name, value in items)


def _of_container(view: View, key: ColumnKey, make: Callable[[ContainerInfo], Hashable]) -> AnyColumn:
    """A value that the runtime tells; asked anew in each batch, since it may come late."""

    def value(row: int) -> Hashable:
        path = view.known.containers[int(view.containers[row])]
        if path is None:
            return HOST if key[0] in _HOST_TEXTS else None
        info = view.known.container_info(path.id)
        # An empty text is something that no source told, which is a missing value.
        return None if info is None else make(info) or None

    return view.of_groups(key, view.containers.astype(np.int64), value)


def _id(view: View, key: ColumnKey) -> AnyColumn:
    def text(row: int) -> str:
        path = view.known.containers[int(view.containers[row])]
        if path is None:
            return HOST
        return {"container.id": path.shown_id, "container.full_id": path.id}.get(key[0], path.runtime)

    return view.of_groups(key, view.containers.astype(np.int64), text)


def _pod_uid(view: View, key: ColumnKey) -> AnyColumn:
    """Known from the control group already, where the runtime has not told it."""

    def text(row: int) -> str | None:
        path = view.known.containers[int(view.containers[row])]
        if path is None:
            return None
        info = view.known.container_info(path.id)
        return (info.pod_uid if info else "") or path.pod_uid or None

    return view.of_groups(key, view.containers.astype(np.int64), text)


def _text(make: Callable[[ContainerInfo], str]) -> Loader:
    return lambda view, key: _of_container(view, key, make)


def _truth(make: Callable[[ContainerInfo], bool | None]) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        known: dict[int, bool | None] = {HOST_NUMBER: None}
        for number in np.unique(view.containers).tolist():
            path = view.known.containers[number]
            info = None if path is None else view.known.container_info(path.id)
            known[number] = None if info is None else make(info)
        values = np.zeros(max(known) + 1, np.int8)
        for number, value in known.items():
            values[number] = -1 if value is None else value
        found = values[view.containers]
        return booleans(numbers_where(found > 0, found >= 0))

    return load


def _mount(parts: tuple[Callable[[Mount], str], Callable[[Mount], str]]) -> Loader:
    """One mount by number, or the first one whose other side matches a pattern."""
    shown, compared = parts

    def load(view: View, key: ColumnKey) -> AnyColumn:
        argument = key[1] or ""

        def text(info: ContainerInfo) -> str | None:
            if argument.isdigit():
                place = int(argument)
                return shown(info.mounts[place]) if place < len(info.mounts) else None
            found = (item for item in info.mounts if fnmatch.fnmatchcase(compared(item), argument))
            return next((shown(item) for item in found), None)

        return _of_container(view, key, text)

    return load


def _label(view: View, key: ColumnKey) -> AnyColumn:
    name = key[1] or ""
    if key[0] == "k8s.pod.label":
        return _of_container(view, key, lambda info: info.pod_labels.get(name))
    return _of_container(view, key, lambda info: info.labels.get(name))


def _start(view: View, key: ColumnKey) -> NumberColumn:
    """Start of the first process of the pid namespace."""
    boot = view.events.boot_unix_ns

    def start(process: object) -> int | None:
        began = int(getattr(process, "namespace_start_ns", 0))
        return began + boot if began else None

    return view.number_of_state(("container.start_ts", None), start)


def _duration(view: View, key: ColumnKey) -> AnyColumn:
    start = _start(view, key)
    return NumberColumn(view.events.time_unix_ns - start.values, start.present)


def loaders() -> dict[str, Loader]:
    """Loaders by field; those that Falco keeps as always missing have none."""
    found: dict[str, Loader] = {name: _text(make) for name, make in TEXTS.items()}
    found |= {name: _truth(make) for name, make in TRUTHS.items()}
    found |= {name: _mount(parts) for name, parts in MOUNT_PARTS.items()}
    return found | {
        "container.id": _id,
        "container.full_id": _id,
        "container.type": _id,
        "container.label": _label,
        "k8s.pod.label": _label,
        "k8s.pod.id": _pod_uid,
        "k8s.pod.uid": _pod_uid,
        "container.start_ts": _start,
        "container.duration": _duration,
    }
