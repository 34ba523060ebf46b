"""Control group layouts (v1, v2, hybrid) and the containers in them (security-surface 4.2).

A hybrid machine has v1 hierarchies with the controllers and a v2 tree that may have none. One container can
have different paths in different hierarchies, so all are walked and the parts joined by the container's id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.hostmetrics.paths import list_names, read_optional
from security.fields.containerids import ContainerPath, container_of

CGROUP_COUNT_LIMIT = 20_000
"""Directories that one walk of a hierarchy looks at."""
CGROUP_DEPTH_LIMIT = 16
CONTROLLERS = ("cpu", "cpuacct", "memory", "blkio", "pids", "io")
UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree: its root directory and the controllers in it. `key` tells it from the others."""

    key: str
    root: str
    controllers: tuple[str, ...]
    unified: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The hierarchies of the machine; the unified one, if any, is the last."""

    hierarchies: tuple[Hierarchy, ...]

    @property
    def name(self) -> str:
        """`v1`, `v2`, `hybrid` or `none`."""
        kinds = {hierarchy.unified for hierarchy in self.hierarchies}
        return {0: "none", 2: "hybrid"}.get(len(kinds), "v2" if True in kinds else "v1")

    def root_directories(self) -> dict[str, str]:
        """The root cgroup's directories by hierarchy."""
        return {hierarchy.key: hierarchy.root for hierarchy in self.hierarchies}


def detect_layout(sys: str = "/sys") -> Layout:
    """The layout below `sys`/fs/cgroup."""
    base = f"{sys}/fs/cgroup"
    if (controllers := read_optional(f"{base}/cgroup.controllers")) is not None:
        return Layout((Hierarchy(UNIFIED, base, tuple(controllers.split()), True),))
    sharing: dict[str, list[str]] = {}
    for name in list_names(base):
        for controller in name.split(","):
            if controller in CONTROLLERS or name == "systemd":
                held = sharing.setdefault(os.path.realpath(f"{base}/{name}"), [])
                held += [controller] if controller not in held else []
    found = [Hierarchy(names[0], root, tuple(names)) for root, names in sharing.items()]
    controllers = read_optional(f"{base}/{UNIFIED}/cgroup.controllers")
    if controllers is not None:
        found.append(Hierarchy(UNIFIED, f"{base}/{UNIFIED}", tuple(controllers.split()), True))
    return Layout(tuple(found))


def walk(root: str) -> Iterator[str]:
    """Paths below a hierarchy's root, `/` for itself, parents first, within the limits."""
    left = CGROUP_COUNT_LIMIT
    waiting = [("/", 0)]
    while waiting and left:
        path, depth = waiting.pop()
        left -= 1
        yield path
        if depth >= CGROUP_DEPTH_LIMIT:
            continue
        try:
            with os.scandir(root + path) as entries:
                names = sorted((e.name for e in entries if e.is_dir(follow_symlinks=False)), reverse=True)
        except OSError:
            continue
        prefix = path if path == "/" else f"{path}/"
        waiting += [(prefix + name, depth + 1) for name in names]


@dataclass(slots=True)
class ContainerGroup:
    """One container's cgroups: its directory by the key of the hierarchy.

    `inner` are the directories of cgroups inside it, in the hierarchy found first.
    """

    identity: ContainerPath
    path: str
    directories: dict[str, str] = field(default_factory=dict)
    inner: list[str] = field(default_factory=list)


def find_containers(layout: Layout, limit: int) -> tuple[dict[str, ContainerGroup], int]:
    """Containers by id, at most `limit`, and how many more there were."""
    found: dict[str, ContainerGroup] = {}
    left_out: set[str] = set()
    for hierarchy in layout.hierarchies:
        key, root = hierarchy.key, hierarchy.root
        inside: list[tuple[str, ContainerGroup]] = []
        for path in walk(root):
            group = next((g for prefix, g in inside if path.startswith(prefix)), None)
            identity = container_of(path)
            if group is not None and (identity is None or identity.id == group.identity.id):
                if next(iter(group.directories)) == key:
                    group.inner.append(root + path)
                continue
            if identity is None:
                continue
            group = found.get(identity.id)
            if group is None:
                if len(found) >= limit:
                    left_out.add(identity.id)
                    continue
                group = found[identity.id] = ContainerGroup(identity, path)
            group.directories.setdefault(key, root + path)
            inside = [entry for entry in inside if path.startswith(entry[0])]
            inside.append((f"{path}/", group))
    return found, len(left_out)
