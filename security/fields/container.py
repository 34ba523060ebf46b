"""Fields of containers and of the pods they belong to."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_CONTAINER = """
container.id CHARBUF | first 12 characters of the id, `host` outside of containers
container.full_id CHARBUF | the whole id
container.name CHARBUF | name
container.image CHARBUF | image with tag
container.image.id CHARBUF | id of the image
container.image.repository CHARBUF | image without tag
container.image.tag CHARBUF | tag of the image
container.image.digest CHARBUF | digest of the image
container.type CHARBUF | runtime
container.privileged BOOL | whether it runs privileged
container.mounts CHARBUF | all mounts as source:destination:mode:writable:propagation
container.mount CHARBUF Aik | one mount by number or source
container.mount.source CHARBUF Aik | source of a mount by number or destination
container.mount.dest CHARBUF Aik | destination of a mount by number or source
container.mount.mode CHARBUF Aik | mode of a mount
container.mount.rdwr CHARBUF Aik | whether a mount is writable
container.mount.propagation CHARBUF Aik | propagation of a mount
container.healthcheck CHARBUF | deprecated, always missing
container.liveness_probe CHARBUF | deprecated, always missing
container.readiness_probe CHARBUF | deprecated, always missing
container.start_ts ABSTIME | start of the container
container.duration RELTIME | nanoseconds since its start
container.ip CHARBUF | address
container.cni.json CHARBUF | network configuration
container.host_pid BOOL | shares the host's process ids
container.host_network BOOL | shares the host's network
container.host_ipc BOOL | shares the host's IPC
container.label CHARBUF AkD | one label
container.labels CHARBUF | all labels
k8s.ns.name CHARBUF | namespace of the pod
k8s.pod.name CHARBUF | name of the pod
k8s.pod.id CHARBUF | uid of the pod
k8s.pod.uid CHARBUF | uid of the pod
k8s.pod.sandbox_id CHARBUF | short id of the pod's sandbox
k8s.pod.full_sandbox_id CHARBUF | whole id of the pod's sandbox
k8s.pod.label CHARBUF AkD | one label of the pod
k8s.pod.labels CHARBUF | all labels of the pod
k8s.pod.ip CHARBUF | address of the pod
k8s.pod.cni.json CHARBUF | network configuration of the pod
k8s.rc.name CHARBUF | deprecated, always missing
k8s.rc.id CHARBUF | deprecated, always missing
k8s.rc.label CHARBUF AkD | deprecated, always missing
k8s.rc.labels CHARBUF | deprecated, always missing
k8s.svc.name CHARBUF | deprecated, always missing
k8s.svc.id CHARBUF | deprecated, always missing
k8s.svc.label CHARBUF AkD | deprecated, always missing
k8s.svc.labels CHARBUF | deprecated, always missing
k8s.ns.id CHARBUF | deprecated, always missing
k8s.ns.label CHARBUF AkD | deprecated, always missing
k8s.ns.labels CHARBUF | deprecated, always missing
k8s.rs.name CHARBUF | deprecated, always missing
k8s.rs.id CHARBUF | deprecated, always missing
k8s.rs.label CHARBUF AkD | deprecated, always missing
k8s.rs.labels CHARBUF | deprecated, always missing
k8s.deployment.name CHARBUF | deprecated, always missing
k8s.deployment.id CHARBUF | deprecated, always missing
k8s.deployment.label CHARBUF AkD | deprecated, always missing
k8s.deployment.labels CHARBUF | deprecated, always missing
"""


def fields() -> list[FieldInfo]:
    """Fields of containers and pods."""
    return rows("container", ("syscall",), _CONTAINER)
