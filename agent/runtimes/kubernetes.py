"""The pod a container belongs to, from the labels and annotations that kubelets and runtimes set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.runtimes.info import ContainerInfo, bounded_labels

_ANNOTATION = "annotation."
"""What cri-dockerd puts before an annotation to keep it as a label."""


def with_pod_labels(info: ContainerInfo, labels: Mapping[str, str]) -> ContainerInfo:
    """`info` with the pod that a kubelet's labels name; as it is without such labels."""
    if "io.kubernetes.pod.name" not in labels:
        return info
    kind = labels.get("io.kubernetes.docker.type", "")
    container = labels.get("io.kubernetes.container.name", "")
    sandbox = kind == "podsandbox" or (not kind and container in ("", "POD"))
    annotations = {
        name.removeprefix(_ANNOTATION): value
        for name, value in labels.items()
        if name.startswith(_ANNOTATION) and not name.startswith(f"{_ANNOTATION}io.kubernetes.")
    }
    return replace(
        info,
        pod_name=labels["io.kubernetes.pod.name"],
        pod_namespace=labels.get("io.kubernetes.pod.namespace", ""),
        pod_uid=labels.get("io.kubernetes.pod.uid", ""),
        pod_sandbox_id=info.id if sandbox else labels.get("io.kubernetes.sandbox.id", ""),
        container_name="" if sandbox else container,
        is_pod_sandbox=sandbox,
        pod_annotations=bounded_labels({**info.pod_annotations, **annotations}),
        pod_labels=bounded_labels(_own_labels(labels)) if sandbox else info.pod_labels,
    )


def with_sandbox(info: ContainerInfo, sandbox: ContainerInfo) -> ContainerInfo:
    """`info` with what only the pod's sandbox knows: labels, annotations, address."""
    return replace(
        info,
        pod_labels=sandbox.pod_labels or sandbox.labels,
        pod_annotations=info.pod_annotations or sandbox.pod_annotations,
        pod_ip=sandbox.pod_ip or sandbox.ip,
        pod_uid=info.pod_uid or sandbox.pod_uid,
        ip=info.ip or sandbox.pod_ip or sandbox.ip,
        cni_json=info.cni_json or sandbox.cni_json,
    )


def _own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in labels.items() if not name.startswith(("io.kubernetes.", _ANNOTATION))
    }
