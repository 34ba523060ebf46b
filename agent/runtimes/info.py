"""One container as its runtime describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

LABELS_LIMIT = 256
"""Labels or annotations kept of one container."""
TEXT_CHARACTERS_LIMIT = 4096
"""Characters kept of one label's value."""
MOUNTS_LIMIT = 256
NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of a container; empty texts where the runtime does not say."""

    source: str
    destination: str
    mode: str = ""
    read_write: bool = True
    propagation: str = ""

    def __str__(self) -> str:
        """As security rules see it (`container.mounts`): source:destination:mode:rw:propagation."""
        writable = "true" if self.read_write else "false"
        return f"{self.source}:{self.destination}:{self.mode}:{writable}:{self.propagation}"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What is known of a container. Empty text, empty mapping and None stand for what no source told."""

    id: str
    """The whole id, as in the cgroup's path."""
    runtime: str
    """`docker`, `podman`, `containerd`, `cri-o`, `runc` …"""
    name: str = ""
    image: str = ""
    """As it was asked for: repository with tag or digest."""
    image_id: str = ""
    """Without `sha256:`."""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    """With `sha256:`."""
    privileged: bool | None = None
    host_network: bool | None = None
    host_pid: bool | None = None
    host_ipc: bool | None = None
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    ip: str = ""
    created_unix_ns: int = 0
    pod_name: str = ""
    pod_uid: str = ""
    pod_namespace: str = ""
    pod_sandbox_id: str = ""
    """The whole id of the pod's sandbox container; the container's own id for the sandbox itself."""
    pod_labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    pod_annotations: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    pod_ip: str = ""
    container_name: str = ""
    """Name within the pod, empty for the sandbox."""
    cni_json: str = ""
    is_pod_sandbox: bool = False


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image's name in its parts."""

    repository: str
    tag: str
    digest: str


def parse_image(reference: str) -> ImageReference:
    """Repository (registry included), tag and digest of a name such as `docker.io/nginx:1.25@sha256:…`.

    A port in the registry's name is not a tag; a bare `sha256:…` or an image id has no repository.
    """
    name, _, digest = reference.partition("@")
    if name.startswith("sha256:"):
        return ImageReference("", "", name)
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    return ImageReference(head, tag, digest)


def complete_image(reference: str, tags: Sequence[str], digests: Sequence[str]) -> ImageReference:
    """The names of an image that was asked for as `reference`, completed by the names the image has.

    `tags` and `digests` are full references (`registry/name:tag`, `registry/name@sha256:…`).
    """
    asked = parse_image(reference)
    tagged = [parse_image(tag) for tag in tags]
    digested = [parse_image(digest) for digest in digests]
    by_id = _is_id(reference) and all(name.repository != reference for name in tagged)
    if by_id or not asked.repository:
        asked = next(iter(tagged + digested), ImageReference("", "", asked.digest))
    elif not asked.tag and not asked.digest:
        asked = next((name for name in tagged if name.repository == asked.repository), asked)
    same = [name.digest for name in digested if name.repository == asked.repository]
    return replace(asked, digest=asked.digest or next(iter(same), ""))


def _is_id(reference: str) -> bool:
    return 12 <= len(reference) <= 64 and not reference.strip("0123456789abcdef")


def bounded_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The first `LABELS_LIMIT` labels with cut values: whoever starts a container writes them."""
    kept = list(labels.items())[:LABELS_LIMIT]
    return MappingProxyType({name: value[:TEXT_CHARACTERS_LIMIT] for name, value in kept})
