"""Values of `container.*` and `k8s.*`: from cgroups, and from what the capture tells about containers."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

from security.capture.processfields import Extract
from security.capture.state import Context

HOST = "host"
_POD_LABELS = {
    "k8s.ns.name": "io.kubernetes.pod.namespace",
    "k8s.pod.name": "io.kubernetes.pod.name",
    "k8s.pod.id": "io.kubernetes.pod.uid",
    "k8s.pod.uid": "io.kubernetes.pod.uid",
}
_MOUNT_MEMBERS = {
    "source": "Source",
    "dest": "Destination",
    "mode": "Mode",
    "rdwr": "RW",
    "propagation": "Propagation",
}


def _identity(context: Context, _: str | None) -> str:
    container = context.thread.container
    return HOST if container is None else container.shown_id


def _full(context: Context, _: str | None) -> str | None:
    container = context.thread.container
    return HOST if container is None else container.id


def _kind(context: Context, _: str | None) -> str | None:
    container = context.thread.container
    return HOST if container is None else container.runtime


def _member(*names: str) -> Extract:
    """The first of some members of the description that is a text."""

    def extract(context: Context, _: str | None) -> str | None:
        description = context.container or {}
        found = (description.get(name) for name in names)
        return next((value for value in found if isinstance(value, str) and value), None)

    return extract


def _name(context: Context, _: str | None) -> str | None:
    return HOST if context.thread.container is None else _member("name")(context, None)


def _image_part(tag: bool) -> Extract:
    known = _member("imagetag" if tag else "imagerepo")

    def extract(context: Context, _: str | None) -> str | None:
        found: str | None = known(context, None)
        image: str | None = _member("image")(context, None)
        if found is not None or image is None:
            return found
        # A colon before a slash belongs to the port of the registry.
        repository, colon, version = image.partition("@")[0].rpartition(":")
        if not colon or "/" in version:
            return None if tag else image.partition("@")[0]
        return version if tag else repository

    return extract


def _flag(name: str) -> Extract:
    def extract(context: Context, _: str | None) -> bool | None:
        value = (context.container or {}).get(name)
        return value if isinstance(value, bool) else None

    return extract


def _labels(context: Context) -> dict[str, Any]:
    labels = (context.container or {}).get("labels")
    return labels if isinstance(labels, dict) else {}


def _label(context: Context, argument: str | None) -> str | None:
    value = _labels(context).get(argument or "")
    return value if isinstance(value, str) else None


def _all_labels(context: Context, _: str | None) -> str | None:
    return ", ".join(f"{name}:{value}" for name, value in _labels(context).items()) or None


def _pod(label: str) -> Extract:
    return lambda context, _: _label(context, label)


def _mounts(context: Context) -> list[dict[str, Any]]:
    found = (context.container or {}).get("Mounts")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _shown(mount: dict[str, Any]) -> str:
    parts = (mount.get(member) for member in _MOUNT_MEMBERS.values())
    return ":".join(str(part).lower() if isinstance(part, bool) else str(part or "") for part in parts)


def _all_mounts(context: Context, _: str | None) -> str | None:
    return ",".join(_shown(mount) for mount in _mounts(context)) or None


def _mount(key: str) -> Callable[[Context, str | None], dict[str, Any] | None]:
    """A mount by its number, or the first whose member matches a pattern."""

    def find(context: Context, argument: str | None) -> dict[str, Any] | None:
        mounts = _mounts(context)
        if argument is None:
            return None
        if argument.isdigit():
            return mounts[int(argument)] if int(argument) < len(mounts) else None
        return next(
            (mount for mount in mounts if fnmatch.fnmatchcase(str(mount.get(key)), argument)),
            None,
        )

    return find


def _mount_member(name: str) -> Extract:
    find = _mount("Destination" if name == "source" else "Source")
    member = _MOUNT_MEMBERS[name]

    def extract(context: Context, argument: str | None) -> str | None:
        mount = find(context, argument)
        value = None if mount is None else mount.get(member)
        return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else None

    return extract


def _whole_mount(context: Context, argument: str | None) -> str | None:
    mount = _mount("Source")(context, argument)
    return None if mount is None else _shown(mount)


CONTAINER_FIELDS: dict[str, Extract] = {
    "container.id": _identity,
    "container.full_id": _full,
    "container.type": _kind,
    "container.name": _name,
    "container.image": _member("image"),
    "container.image.id": _member("imageid"),
    "container.image.digest": _member("imagedigest"),
    "container.image.repository": _image_part(tag=False),
    "container.image.tag": _image_part(tag=True),
    "container.ip": _member("ip"),
    "container.cni.json": _member("cni_json"),
    "container.privileged": _flag("privileged"),
    "container.host_pid": _flag("host_pid"),
    "container.host_network": _flag("host_network"),
    "container.host_ipc": _flag("host_ipc"),
    "container.label": _label,
    "container.labels": _all_labels,
    "container.mounts": _all_mounts,
    "container.mount": _whole_mount,
    **{f"container.mount.{name}": _mount_member(name) for name in _MOUNT_MEMBERS},
    **{name: _pod(label) for name, label in _POD_LABELS.items()},
}
"""By field: the value for a context and an argument, None where it is missing."""
