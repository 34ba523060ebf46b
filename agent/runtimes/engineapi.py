"""Containers from the HTTP interface of Docker, which Podman has too, over its Unix socket."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from agent.runtimes.info import (
    MOUNTS_LIMIT,
    ContainerInfo,
    ImageReference,
    Mount,
    bounded_labels,
    complete_image,
)
from agent.runtimes.kubernetes import with_pod_labels, with_sandbox

BODY_BYTES_LIMIT = 4 << 20
TIMEOUT_SECONDS = 5.0
IMAGES_LIMIT = 512
"""Images whose names are kept; the one unused for longest goes first."""


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore")


class _MountPoint(_Section):
    source: str = Field(default="", alias="Source")
    destination: str = Field(default="", alias="Destination")
    mode: str = Field(default="", alias="Mode")
    read_write: bool = Field(default=True, alias="RW")
    propagation: str = Field(default="", alias="Propagation")


class _Config(_Section):
    image: str = Field(default="", alias="Image")
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _HostConfig(_Section):
    privileged: bool = Field(default=False, alias="Privileged")
    network_mode: str = Field(default="", alias="NetworkMode")
    pid_mode: str = Field(default="", alias="PidMode")
    ipc_mode: str = Field(default="", alias="IpcMode")


class _Network(_Section):
    address: str = Field(default="", alias="IPAddress")


class _NetworkSettings(_Section):
    address: str = Field(default="", alias="IPAddress")
    networks: dict[str, _Network] | None = Field(default=None, alias="Networks")


class _Container(_Section):
    """The part of GET /containers/ID/json that is used."""

    id: str = Field(alias="Id")
    name: str = Field(default="", alias="Name")
    created: str = Field(default="", alias="Created")
    image_id: str = Field(default="", alias="Image")
    config: _Config = Field(default_factory=_Config, alias="Config")
    host: _HostConfig = Field(default_factory=_HostConfig, alias="HostConfig")
    mounts: list[_MountPoint] | None = Field(default=None, alias="Mounts")
    network: _NetworkSettings = Field(default_factory=_NetworkSettings, alias="NetworkSettings")

    @property
    def address(self) -> str:
        found = (network.address for network in (self.network.networks or {}).values())
        return self.network.address or next((address for address in found if address), "")


class _Image(_Section):
    """The part of GET /images/ID/json that is used."""

    tags: list[str] | None = Field(default=None, alias="RepoTags")
    digests: list[str] | None = Field(default=None, alias="RepoDigests")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class EngineApi:
    """One engine's socket as a source of containers. One thread at a time."""

    def __init__(self, name: str, path: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """`name` is the runtime (`docker`, `podman`), `path` that of its socket."""
        self.name = name
        self._path = path
        self._timeout = timeout_seconds
        self._images: OrderedDict[str, ImageReference] = OrderedDict()

    def find(self, container_id: str) -> ContainerInfo | None:
        """The container, None when the engine does not know it or has no socket.

        Raises OSError when the engine does not answer, ValueError for an answer that makes no sense.
        """
        container = self._inspect(container_id)
        if container is None:
            return None
        info = self._info(container)
        labels = container.config.labels or {}
        info = with_pod_labels(info, labels)
        shared = container.host.network_mode.removeprefix("container:")
        sandbox_id = info.pod_sandbox_id or (shared if shared != container.host.network_mode else "")
        if not sandbox_id or sandbox_id == info.id:
            return replace(info, pod_ip=info.ip) if info.is_pod_sandbox else info
        other = self._inspect(sandbox_id)
        if other is None:
            return info
        sandbox = with_pod_labels(self._info(other), other.config.labels or {})
        return with_sandbox(info, sandbox) if info.pod_name else replace(info, ip=info.ip or sandbox.ip)

    def _info(self, container: _Container) -> ContainerInfo:
        image = self._image(container)
        return ContainerInfo(
            id=container.id,
            runtime=self.name,
            name=container.name.removeprefix("/"),
            image=container.config.image,
            image_id=container.image_id.removeprefix("sha256:"),
            repository=image.repository,
            tag=image.tag,
            digest=image.digest,
            privileged=container.host.privileged,
            host_network=container.host.network_mode == "host",
            host_pid=container.host.pid_mode == "host",
            host_ipc=container.host.ipc_mode == "host",
            mounts=tuple(
                Mount(m.source, m.destination, m.mode, m.read_write, m.propagation)
                for m in (container.mounts or [])[:MOUNTS_LIMIT]
            ),
            labels=bounded_labels(container.config.labels or {}),
            ip=container.address,
            created_unix_ns=unix_ns(container.created),
        )

    def _image(self, container: _Container) -> ImageReference:
        """Names as asked for; what is missing there comes from the image itself."""
        key = f"{container.image_id} {container.config.image}"
        if key not in self._images:
            answer = self._get(f"/images/{urllib.parse.quote(container.image_id, safe=':')}/json")
            image = _Image() if answer is None else _Image.model_validate(answer)
            self._images[key] = complete_image(container.config.image, image.tags or [], image.digests or [])
            if len(self._images) > IMAGES_LIMIT:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    def _inspect(self, container_id: str) -> _Container | None:
        answer = self._get(f"/containers/{urllib.parse.quote(container_id, safe='')}/json")
        return None if answer is None else _Container.model_validate(answer)

    def _get(self, target: str) -> Any:
        """A JSON answer; None for 404 and where there is no socket."""
        connection = _UnixConnection(self._path, self._timeout)
        try:
            connection.request("GET", target, headers={"Host": "localhost", "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read(BODY_BYTES_LIMIT + 1)
        except FileNotFoundError:
            return None
        except http.client.HTTPException as error:
            raise OSError(f"{self._path}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise OSError(f"{self._path}: GET {target}: status {answer.status}")
        if len(body) > BODY_BYTES_LIMIT:
            raise ValueError(f"{self._path}: GET {target}: answer exceeds {BODY_BYTES_LIMIT} bytes")
        return orjson.loads(body)


def unix_ns(text: str) -> int:
    """Nanoseconds of an RFC 3339 time with up to nine digits of fraction, 0 when it is none."""
    whole, point, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if point else ""
    zone = rest[len(digits) :]
    try:
        moment = datetime.fromisoformat(whole + (zone if point else ""))
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return int(moment.timestamp()) * 1_000_000_000 + int((digits + "0" * 9)[:9])
