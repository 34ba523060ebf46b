"""Containers from a runtime's CRI socket: containerd and CRI-O, also inside k3s, MicroK8s and k0s."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import orjson

from agent.runtimes.bundles import OciConfig
from agent.runtimes.crimessages import (
    IMAGE,
    NODE,
    RUNTIME,
    CriImage,
    CriMount,
    CriSandbox,
    CriStatus,
    image_status,
    list_containers,
    read_image,
    read_list,
    read_sandbox,
    read_status,
    status_of,
)
from agent.runtimes.grpc import NOT_FOUND, UNIMPLEMENTED, CallError, UnaryChannel
from agent.runtimes.info import (
    MOUNTS_LIMIT,
    ContainerInfo,
    ImageReference,
    Mount,
    bounded_labels,
    complete_image,
    parse_image,
)
from agent.runtimes.kubernetes import with_pod_labels, with_sandbox

TIMEOUT_SECONDS = 5.0
IMAGES_LIMIT = 512
"""Images whose names are kept; the one unused for longest goes first."""
_PROPAGATION = ("private", "rslave", "rshared")


class CriSocket:
    """One runtime's socket as a source of containers. One thread at a time.

    Each look-up is a connection of its own: a restart of the runtime needs nothing here.
    """

    def __init__(self, name: str, path: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """`name` is the runtime (`containerd`, `cri-o`), `path` that of its socket."""
        self.name = name
        self._path = path
        self._timeout = timeout_seconds
        self._images: OrderedDict[str, CriImage] = OrderedDict()

    def find(self, container_id: str) -> ContainerInfo | None:
        """The container or pod sandbox; None when the runtime does not know it, has no socket or no CRI.

        Raises OSError when the runtime does not answer, ValueError for an answer that makes no sense.
        """
        try:
            with UnaryChannel(self._path, self._timeout) as channel:
                return self._find(channel, container_id)
        except FileNotFoundError:
            return None
        except CallError as error:
            # Docker's containerd has its CRI turned off.
            if error.status in (NOT_FOUND, UNIMPLEMENTED):
                return None
            raise

    def _find(self, channel: UnaryChannel, container_id: str) -> ContainerInfo | None:
        listed = read_list(channel.call(f"{RUNTIME}ListContainers", list_containers(container_id)))
        entry = next((each for each in listed if each.id == container_id), None)
        if entry is None:
            sandbox = self._sandbox(channel, container_id)
            # A runtime may take an id's beginning for the id.
            return sandbox if sandbox.id == container_id else None
        status = read_status(channel.call(f"{RUNTIME}ContainerStatus", status_of(container_id)))
        info = self._container(channel, status)
        try:
            sandbox = self._sandbox(channel, entry.pod_sandbox_id)
        except CallError as error:
            if error.status != NOT_FOUND:
                raise
            return replace(info, pod_sandbox_id=entry.pod_sandbox_id)
        info = replace(
            info,
            pod_name=sandbox.pod_name,
            pod_namespace=sandbox.pod_namespace,
            pod_sandbox_id=sandbox.id,
            is_pod_sandbox=False,
            host_network=sandbox.host_network,
            host_pid=sandbox.host_pid,
            host_ipc=sandbox.host_ipc,
        )
        return with_sandbox(info, sandbox)

    def _container(self, channel: UnaryChannel, status: CriStatus) -> ContainerInfo:
        image, names = self._image(channel, status)
        config = _own_config(status.info)
        info = ContainerInfo(
            id=status.id,
            runtime=self.name,
            name=status.name,
            image=status.image,
            image_id=image.id.removeprefix("sha256:"),
            repository=names.repository,
            tag=names.tag,
            digest=names.digest,
            privileged=_privileged(config),
            mounts=tuple(map(_mount, status.mounts[:MOUNTS_LIMIT])),
            labels=bounded_labels(status.labels),
            created_unix_ns=status.created_at,
        )
        return replace(with_pod_labels(info, status.labels), container_name=status.name)

    def _sandbox(self, channel: UnaryChannel, sandbox_id: str) -> ContainerInfo:
        answer = channel.call(f"{RUNTIME}PodSandboxStatus", status_of(sandbox_id))
        return _sandbox_info(self.name, read_sandbox(answer))

    def _image(self, channel: UnaryChannel, status: CriStatus) -> tuple[CriImage, ImageReference]:
        """The image, and its names as asked for, completed by those the image has."""
        reference = status.image_ref or status.image
        image = self._images.get(reference)
        if image is None:
            image = read_image(channel.call(f"{IMAGE}ImageStatus", image_status(reference)))
            if image.id:
                self._images[reference] = image
            if len(self._images) > IMAGES_LIMIT:
                self._images.popitem(last=False)
        else:
            self._images.move_to_end(reference)
        names = complete_image(status.image, image.tags, image.digests)
        if not names.digest:
            names = replace(names, digest=parse_image(status.image_ref).digest if not image.id else "")
        return image, names


def _sandbox_info(runtime: str, sandbox: CriSandbox) -> ContainerInfo:
    config = _own_config(sandbox.info)
    result = config.get("cniResult")
    address = "" if sandbox.network == NODE else sandbox.ip
    return ContainerInfo(
        id=sandbox.id,
        runtime=runtime,
        name=sandbox.name,
        host_network=sandbox.network == NODE,
        host_pid=sandbox.pid == NODE,
        host_ipc=sandbox.ipc == NODE,
        labels=bounded_labels(sandbox.labels),
        ip=address,
        created_unix_ns=sandbox.created_at,
        pod_name=sandbox.name,
        pod_uid=sandbox.uid,
        pod_namespace=sandbox.namespace,
        pod_sandbox_id=sandbox.id,
        pod_labels=bounded_labels(
            {name: value for name, value in sandbox.labels.items() if not name.startswith("io.kubernetes.")}
        ),
        pod_annotations=bounded_labels(sandbox.annotations),
        pod_ip=address,
        cni_json=orjson.dumps(result).decode() if result else "",
        is_pod_sandbox=True,
    )


def _own_config(info: dict[str, str]) -> dict[str, Any]:
    """What the runtime says beyond the interface: JSON under the key `info`. Raises ValueError."""
    found = orjson.loads(info["info"]) if info.get("info") else {}
    return found if isinstance(found, dict) else {}


def _privileged(config: dict[str, Any]) -> bool | None:
    """Said by CRI-O; of containerd's it is the container's own configuration, or what became of it."""
    said: Any = config.get("privileged")
    for name in ("config", "linux", "security_context", "privileged"):
        if said is None and name == "config":
            said = config
        said = said.get(name) if isinstance(said, dict) else said
    if isinstance(said, bool):
        return said
    specification = config.get("runtimeSpec")
    return OciConfig.model_validate(specification).privileged if isinstance(specification, dict) else None


def _mount(mount: CriMount) -> Mount:
    propagation = _PROPAGATION[mount.propagation] if mount.propagation < len(_PROPAGATION) else ""
    return Mount(mount.host_path, mount.container_path, "", not mount.readonly, propagation)
