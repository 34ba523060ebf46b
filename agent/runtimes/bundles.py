"""Containers from what OCI runtimes keep on disk: the config.json of containerd, CRI-O, Podman and runc.

Asked after the runtimes' sockets: it works for plain `runc` too, and asks nobody, so that a stuck runtime
stays readable. What it lacks beside the CRI is in docs/agent-metrics.md.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

from agent.hostmetrics.paths import NoDataError, list_names, read_text
from agent.runtimes.engineapi import unix_ns
from agent.runtimes.info import MOUNTS_LIMIT, ContainerInfo, Mount, bounded_labels, parse_image
from agent.runtimes.kubernetes import with_pod_labels, with_sandbox

STATES_LIMIT = 1000
"""State folders of `runc` that are looked through for a control group."""

_BUNDLES = (
    ("containerd", "run/containerd/io.containerd.runtime.v2.task/*/{id}/config.json"),
    ("containerd", "run/containerd/io.containerd.runtime.v1.linux/*/{id}/config.json"),
    ("containerd", "run/k3s/containerd/io.containerd.runtime.v2.task/*/{id}/config.json"),
    (
        "containerd",
        "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/*/{id}/config.json",
    ),
    ("cri-o", "run/containers/storage/*-containers/{id}/userdata/config.json"),
    ("podman", "var/lib/containers/storage/*-containers/{id}/userdata/config.json"),
)
_STATES = ("runc", "crun")
"""Folders below /run."""
_CRI = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})


Model = TypeVar("Model", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore")


class _OciMount(_Section):
    destination: str
    type: str = ""
    source: str = ""
    options: list[str] | None = None


class _Capabilities(_Section):
    bounding: list[str] | None = None


class _Process(_Section):
    capabilities: _Capabilities | None = None


class _Namespace(_Section):
    type: str
    path: str = ""


class _Linux(_Section):
    namespaces: list[_Namespace] | None = None
    masked_paths: list[str] | None = Field(default=None, alias="maskedPaths")
    cgroup_path: str = Field(default="", alias="cgroupsPath")


class OciConfig(_Section):
    """The part of an OCI config.json that is used."""

    annotations: dict[str, str] | None = None
    process: _Process | None = None
    mounts: list[_OciMount] | None = None
    linux: _Linux = Field(default_factory=_Linux)

    @property
    def privileged(self) -> bool:
        """The specification has no such flag; it is what runtimes make of `--privileged`."""
        capabilities = (self.process and self.process.capabilities) or _Capabilities()
        return {"CAP_SYS_ADMIN", "CAP_SYS_MODULE"} <= set(capabilities.bounding or []) and not (
            self.linux.masked_paths
        )


class _RuncConfig(_Section):
    labels: list[str] | None = None


class _RuncState(_Section):
    """The part of runc's state.json that is used."""

    id: str
    created: str = ""
    config: _RuncConfig = Field(default_factory=_RuncConfig)
    cgroup_paths: dict[str, str] | None = None


@dataclass
class OciBundles:
    """Bundles and states below a root folder as a source of containers. One thread at a time."""

    root: Path = Path("/")
    name: str = field(default="oci", init=False)

    def find(self, container_id: str) -> ContainerInfo | None:
        """The container, None when nothing on disk tells of it.

        Raises OSError for files that cannot be read, ValueError for files that make no sense.
        """
        if not container_id or "/" in container_id or container_id.startswith("."):
            return None
        info = self._bundled(container_id) or self._run(container_id)
        if info is None or not info.pod_sandbox_id or info.pod_sandbox_id == info.id:
            return info
        sandbox = self._bundled(info.pod_sandbox_id)
        return info if sandbox is None else with_sandbox(info, sandbox)

    def _bundled(self, container_id: str) -> ContainerInfo | None:
        for runtime, pattern in _BUNDLES:
            wanted = pattern.format(id=glob.escape(container_id))
            for path in glob.iglob(wanted, root_dir=self.root):
                return _described(container_id, runtime, self.root / path)
        return None

    def _run(self, container_id: str) -> ContainerInfo | None:
        """A container that was started with the runtime's own command line."""
        for runtime in _STATES:
            for state in self._states(self.root / "run" / runtime, container_id):
                labels = state.config.labels or []
                bundle = next((t.removeprefix("bundle=") for t in labels if t.startswith("bundle=")), "")
                config = self.root / bundle.lstrip("/") / "config.json"
                if bundle and config.is_file():
                    info = _described(container_id, runtime, config)
                    return replace(info, name=state.id, created_unix_ns=unix_ns(state.created))
        return None

    def _states(self, folder: Path, container_id: str) -> Iterator[_RuncState]:
        """The state of that id first, then those whose control group has that name."""
        names = list_names(str(folder))
        names.sort(key=lambda name: name != container_id)
        for name in names[:STATES_LIMIT]:
            path = folder / name / "state.json"
            if path.is_file():
                state = _read(path, _RuncState)
                paths = (state.cgroup_paths or {}).values()
                if name == container_id or any(container_id in p.rpartition("/")[2] for p in paths):
                    yield state


def _described(container_id: str, runtime: str, path: Path) -> ContainerInfo:
    bundle = _read(path, OciConfig)
    annotations = bundle.annotations or {}
    namespaces = {namespace.type for namespace in bundle.linux.namespaces or []}
    info = ContainerInfo(
        id=container_id,
        runtime=runtime,
        privileged=bundle.privileged,
        host_network="network" not in namespaces,
        host_pid="pid" not in namespaces,
        host_ipc="ipc" not in namespaces,
        mounts=tuple(_mount(m) for m in (bundle.mounts or [])[:MOUNTS_LIMIT] if _is_bind(m)),
        created_unix_ns=path.stat().st_mtime_ns,
    )
    if f"{_CRIO}ContainerType" in annotations:
        return _from_crio(replace(info, runtime="cri-o"), annotations)
    if f"{_CRI}container-type" in annotations:
        return _from_containerd(info, annotations)
    return _from_plain(info, annotations)


def _from_plain(info: ContainerInfo, annotations: Mapping[str, str]) -> ContainerInfo:
    image = annotations.get("org.opencontainers.image.ref.name", "")
    return replace(_with_image(info, image), labels=bounded_labels(annotations))


def _from_containerd(info: ContainerInfo, annotations: Mapping[str, str]) -> ContainerInfo:
    sandbox = annotations[f"{_CRI}container-type"] == "sandbox"
    name = annotations.get(f"{_CRI}container-name", "")
    info = _with_image(info, annotations.get(f"{_CRI}image-name", ""))
    return replace(
        info,
        name=name or annotations.get(f"{_CRI}sandbox-name", ""),
        container_name=name,
        pod_name=annotations.get(f"{_CRI}sandbox-name", ""),
        pod_namespace=annotations.get(f"{_CRI}sandbox-namespace", ""),
        pod_uid=annotations.get(f"{_CRI}sandbox-uid", ""),
        pod_sandbox_id=info.id if sandbox else annotations.get(f"{_CRI}sandbox-id", ""),
        pod_annotations=bounded_labels(_foreign(annotations)),
        is_pod_sandbox=sandbox,
        privileged=None if sandbox else info.privileged,
    )


def _from_crio(info: ContainerInfo, annotations: Mapping[str, str]) -> ContainerInfo:
    labels = _texts(annotations.get(f"{_CRIO}Labels", ""))
    image = annotations.get(f"{_CRIO}ImageName", "") or annotations.get(f"{_CRIO}Image", "")
    info = _with_image(info, image)
    digest = parse_image(annotations.get(f"{_CRIO}ImageRef", "")).digest
    address = annotations.get(f"{_CRIO}IP.0", "")
    sandbox = annotations[f"{_CRIO}ContainerType"] == "sandbox"
    info = replace(
        info,
        name=annotations.get(f"{_CRIO}Name", ""),
        digest=info.digest or digest,
        labels=bounded_labels(labels),
        privileged=annotations.get(f"{_CRIO}PrivilegedRuntime", "") == "true",
        created_unix_ns=unix_ns(annotations.get(f"{_CRIO}Created", "")) or info.created_unix_ns,
        pod_annotations=bounded_labels(_foreign(_texts(annotations.get(f"{_CRIO}Annotations", "")))),
        pod_ip=address if sandbox else "",
        ip=address,
        cni_json=annotations.get(f"{_CRIO}CNIResult", "") if sandbox else "",
    )
    info = with_pod_labels(info, labels)
    return replace(
        info,
        is_pod_sandbox=sandbox,
        pod_sandbox_id=info.id if sandbox else annotations.get(f"{_CRIO}SandboxID", ""),
    )


def _with_image(info: ContainerInfo, reference: str) -> ContainerInfo:
    image = parse_image(reference)
    return replace(info, image=reference, repository=image.repository, tag=image.tag, digest=image.digest)


def _foreign(annotations: Mapping[str, str]) -> dict[str, str]:
    """Annotations that users set, not those of the runtimes."""
    return {name: value for name, value in annotations.items() if not name.startswith("io.kubernetes.")}


def _texts(text: str) -> dict[str, str]:
    found = orjson.loads(text) if text else {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _is_bind(mount: _OciMount) -> bool:
    return mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options or []))


def _mount(mount: _OciMount) -> Mount:
    options = mount.options or []
    propagation = next((option for option in options if option in _PROPAGATION), "")
    return Mount(mount.source, mount.destination, "", "ro" not in options, propagation)


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(read_text(str(path)).encode("utf-8", "surrogateescape"))
    except NoDataError as error:
        raise OSError(str(error)) from error
