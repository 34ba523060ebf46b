"""Fields of Kubernetes audit events; all are strings (security-surface.md 7.2)."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_AUDIT = """
ka.auditid CHARBUF | id of the request
ka.stage CHARBUF | stage of the request
ka.auth.decision CHARBUF | decision of the authorizer
ka.auth.reason CHARBUF | its reason
ka.auth.openshift.decision CHARBUF | decision of OpenShift's authentication
ka.auth.openshift.username CHARBUF | its user
ka.validations.admission.policy.failure CHARBUF | failure of an admission policy
ka.security.pod.violations CHARBUF | violations of pod security
ka.user.name CHARBUF | user
ka.user.groups CHARBUF Lai | groups of the user
ka.impuser.name CHARBUF | user that is impersonated
ka.verb CHARBUF | verb
ka.uri CHARBUF | URI of the request
ka.uri.param CHARBUF Ak | one query parameter of the URI
ka.target.name CHARBUF | name of the object
ka.target.namespace CHARBUF | namespace of the object
ka.target.resource CHARBUF | resource of the object
ka.target.subresource CHARBUF | subresource of the object
ka.target.pod.name CHARBUF | name of the pod that is made
ka.req.binding.subjects CHARBUF Lai | subjects of a binding
ka.req.binding.subjects.user_names CHARBUF Lai | users among them
ka.req.binding.subjects.serviceaccount_names CHARBUF Lai | service accounts among them
ka.req.binding.subjects.serviceaccount_ns_names CHARBUF Lai | the same with namespaces
ka.req.binding.subjects.group_names CHARBUF Lai | groups among them
ka.req.binding.subject.has_name CHARBUF Ak | deprecated, always true
ka.req.binding.role CHARBUF | role of a binding
ka.req.binding.subject.name CHARBUF ai | deprecated
ka.req.configmap.name CHARBUF | name of a config map
ka.req.configmap.obj CHARBUF | data of a config map as JSON
ka.req.container.image CHARBUF ai | deprecated: image of the first container
ka.req.container.image.repository CHARBUF ai | deprecated: image of the first container without tag
ka.req.container.host_ipc CHARBUF | deprecated: hostIPC of the pod
ka.req.container.host_network CHARBUF | deprecated: hostNetwork of the pod
ka.req.container.host_pid CHARBUF | deprecated: hostPID of the pod
ka.req.container.privileged CHARBUF | deprecated: whether any container is privileged
ka.req.pod.host_ipc CHARBUF | hostIPC of the pod
ka.req.pod.host_network CHARBUF | hostNetwork of the pod
ka.req.pod.host_pid CHARBUF | hostPID of the pod
ka.req.pod.run_as_user CHARBUF | runAsUser of the pod
ka.req.pod.run_as_group CHARBUF | runAsGroup of the pod
ka.req.pod.fs_group CHARBUF | fsGroup of the pod
ka.req.pod.supplemental_groups CHARBUF Lai | supplemental groups of the pod
ka.req.pod.containers.eff_run_as_user CHARBUF Lai | user of each container, else the pod's, else 0
ka.req.pod.containers.eff_run_as_group CHARBUF Lai | group of each container, else the pod's, else 0
ka.req.pod.volumes.hostpath CHARBUF Lai | host paths of volumes
ka.req.pod.volumes.flexvolume_driver CHARBUF Lai | drivers of flex volumes
ka.req.pod.volumes.volume_type CHARBUF Lai | types of volumes
ka.req.volume.hostpath CHARBUF Ak | deprecated: whether a volume has this host path; a final * is a prefix
ka.req.role.rules CHARBUF Lai | rules of a role
ka.req.role.rules.apiGroups CHARBUF Lai | their API groups
ka.req.role.rules.nonResourceURLs CHARBUF Lai | their URLs
ka.req.role.rules.verbs CHARBUF Lai | their verbs
ka.req.role.rules.resources CHARBUF Lai | their resources
ka.req.service.type CHARBUF | type of a service
ka.req.service.ports CHARBUF Lai | ports of a service
ka.resp.name CHARBUF | name of the answered object
ka.response.code CHARBUF | status of the answer
ka.response.reason CHARBUF | its reason
ka.useragent CHARBUF | user agent
ka.sourceips CHARBUF Lai | addresses of the client
ka.cluster.name CHARBUF | name of the cluster
"""
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
_OF_CONTAINERS = {
    "name": "names",
    "image": "images",
    "image.repository": "images without tag",
    "args": "arguments",
    "command": "commands",
    "host_port": "host ports",
    "privileged": "privileged",
    "allow_privilege_escalation": "allowPrivilegeEscalation",
    "read_only_fs": "readOnlyRootFilesystem",
    "run_as_user": "runAsUser",
    "run_as_group": "runAsGroup",
    "proc_mount": "procMount",
    "add_capabilities": "added capabilities",
}
_JSON = """
json.value CHARBUF Ak | value at a JSON pointer of the raw event
json.obj CHARBUF | the whole event as JSON
json.rawtime CHARBUF | time of the event in nanoseconds
jevt.value CHARBUF Ak | value at a JSON pointer of the raw event
jevt.obj CHARBUF | the whole event as JSON
jevt.rawtime CHARBUF | time of the event in nanoseconds
jevt.time CHARBUF | time of day of the event
jevt.time.iso8601 CHARBUF | date and time of the event
"""


def fields() -> list[FieldInfo]:
    """Fields of audit events, and those of any JSON source."""
    lists = "\n".join(
        f"ka.req.pod.{group}.{name} CHARBUF Lai | {what} of {group}"
        for group in _CONTAINER_LISTS
        for name, what in _OF_CONTAINERS.items()
    )
    sources = ("k8s_audit", "aws_cloudtrail", "gcp_auditlog", "github", "okta")
    return rows("ka", ("k8s_audit",), f"{_AUDIT}{lists}") + rows("json", sources, _JSON)
