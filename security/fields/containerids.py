"""Container ids in the paths of control groups (security-surface 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHOWN_ID_CHARACTERS = 12

_HEX64 = r"(?P<id>[0-9a-f]{64})"
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (runtime, re.compile(pattern))
    for runtime, pattern in (
        ("docker", rf"/docker-{_HEX64}\.scope$"),
        ("docker", rf"/docker/{_HEX64}$"),
        ("cri-o", rf"/crio-{_HEX64}(\.scope)?$"),
        ("containerd", rf"/cri-containerd-{_HEX64}\.scope$"),
        ("containerd", rf"(/|:)cri-containerd:{_HEX64}$"),
        ("containerd", rf"/nerdctl-{_HEX64}\.scope$"),
        ("podman", rf"/libpod-(payload-)?{_HEX64}(\.scope)?(/container)?$"),
        ("docker", rf"/{_HEX64}$"),
        ("lxc", r"/lxc(\.payload)?[./](?P<id>[\w.-]+)$"),
        ("libvirt", r"/machine-lxc\\x2d\d*(\\x2d)?(?P<id>.+)\.scope$"),
        ("libvirt", r"/(?P<id>[^/]+)\.libvirt-lxc$"),
        ("bpm", r"/bpm-(?P<id>[\w.-]+)(\.scope)?$"),
        ("containerd", r"^/(default|moby|buildkit|k8s\.io)/(?P<id>[\w][\w.-]{0,75})$"),
    )
)
_SYSTEMD = re.compile(r"\.(service|slice|mount|socket|swap|automount|device)$")
_POD = re.compile(r"pod(?P<uid>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class ContainerPath:
    """What a cgroup's path says: the whole id, the runtime, and the uid of the pod or nothing."""

    id: str
    runtime: str
    pod_uid: str = ""

    @property
    def shown_id(self) -> str:
        """The id as it is shown: its first twelve characters when it is a hash."""
        return self.id[:SHOWN_ID_CHARACTERS] if len(self.id) == 64 else self.id


def container_of(path: str) -> ContainerPath | None:
    """The container whose cgroup `path` is, None for any other cgroup and for those inside a container."""
    if _SYSTEMD.search(path):
        return None
    for runtime, pattern in _PATTERNS:
        if match := pattern.search(path):
            pod = _POD.search(path)
            return ContainerPath(match["id"], runtime, pod["uid"].replace("_", "-") if pod else "")
    return None
