"""Kubernetes audit events: bodies of the webhook, files of one JSON object a line (security-surface.md 7.1,
7.2). All fields are texts; what an event does not have is missing, an element without the key is skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from security.sources.json_events import (
    InvalidEventError,
    JsonEvent,
    as_text,
    decode,
    decompress,
    parse_time,
    text_at,
)

EVENT_BYTES_LIMIT = 256 << 10
WEBHOOK_BYTES_LIMIT = 12 << 20
_NOT_AUDIT = "data not recognized as a k8s audit event"
_TIMES = ("stageTimestamp", "requestReceivedTimestamp", "timestamp")

Document = dict[str, Any]

_PLAIN: dict[str, tuple[str, ...]] = {
    "ka.auditid": ("auditID",),
    "ka.stage": ("stage",),
    "ka.verb": ("verb",),
    "ka.uri": ("requestURI",),
    "ka.useragent": ("userAgent",),
    "ka.user.name": ("user", "username"),
    "ka.impuser.name": ("impersonatedUser", "username"),
    "ka.auth.decision": ("annotations", "authorization.k8s.io/decision"),
    "ka.auth.reason": ("annotations", "authorization.k8s.io/reason"),
    "ka.auth.openshift.decision": ("annotations", "authentication.openshift.io/decision"),
    "ka.auth.openshift.username": ("annotations", "authentication.openshift.io/username"),
    "ka.validations.admission.policy.failure": (
        *("annotations", "validation.policy.admission.k8s.io/validation_failure"),
    ),
    "ka.security.pod.violations": ("annotations", "pod-security.kubernetes.io/audit-violations"),
    "ka.cluster.name": ("annotations", "cluster_name"),
    "ka.target.name": ("objectRef", "name"),
    "ka.target.namespace": ("objectRef", "namespace"),
    "ka.target.resource": ("objectRef", "resource"),
    "ka.target.subresource": ("objectRef", "subresource"),
    "ka.req.binding.role": ("requestObject", "roleRef", "name"),
    "ka.req.configmap.name": ("objectRef", "name"),
    "ka.req.configmap.obj": ("requestObject", "data"),
    "ka.req.pod.host_ipc": ("requestObject", "spec", "hostIPC"),
    "ka.req.pod.host_network": ("requestObject", "spec", "hostNetwork"),
    "ka.req.pod.host_pid": ("requestObject", "spec", "hostPID"),
    "ka.req.container.host_ipc": ("requestObject", "spec", "hostIPC"),
    "ka.req.container.host_network": ("requestObject", "spec", "hostNetwork"),
    "ka.req.container.host_pid": ("requestObject", "spec", "hostPID"),
    "ka.req.pod.run_as_user": ("requestObject", "spec", "securityContext", "runAsUser"),
    "ka.req.pod.run_as_group": ("requestObject", "spec", "securityContext", "runAsGroup"),
    "ka.req.pod.fs_group": ("requestObject", "spec", "securityContext", "fsGroup"),
    "ka.req.service.type": ("requestObject", "spec", "type"),
    "ka.resp.name": ("responseObject", "metadata", "name"),
    "ka.response.code": ("responseStatus", "code"),
    "ka.response.reason": ("responseStatus", "reason"),
}
_LISTS: dict[str, tuple[str, ...]] = {
    "ka.user.groups": ("user", "groups"),
    "ka.sourceips": ("sourceIPs",),
    "ka.req.binding.subjects": ("requestObject", "subjects"),
    "ka.req.role.rules": ("requestObject", "rules"),
    "ka.req.service.ports": ("requestObject", "spec", "ports"),
    "ka.req.pod.supplemental_groups": (*("requestObject", "spec", "securityContext", "supplementalGroups"),),
}
# Flattened lists inside of a list: where the outer list is, and the key of the inner one.
_INNER_LISTS: dict[str, tuple[tuple[str, ...], str]] = {
    f"ka.req.role.rules.{key}": (("requestObject", "rules"), key)
    for key in ("apiGroups", "nonResourceURLs", "verbs", "resources")
}
_SUBJECTS = {
    "ka.req.binding.subjects.user_names": "User",
    "ka.req.binding.subjects.group_names": "Group",
    "ka.req.binding.subjects.serviceaccount_names": "ServiceAccount",
    "ka.req.binding.subjects.serviceaccount_ns_names": "ServiceAccount",
}


def repository(image: str) -> str:
    """An image without tag and digest."""
    return image.split(":", 1)[0].split("@", 1)[0]


def _joined(value: Any) -> str | None:
    return " ".join(as_text(part) for part in value) if isinstance(value, list) else None


def _ports(container: Document) -> list[str]:
    found = []
    for port in _items(container.get("ports")):
        number = port.get("hostPort", port.get("containerPort"))
        if number is not None:
            found.append(as_text(number))
    return found


def _one(value: str | None) -> list[str]:
    return [] if value is None else [value]


_OF_CONTAINER: dict[str, Callable[[Document], list[str]]] = {
    "name": lambda c: _one(text_at(c, "name")),
    "image": lambda c: _one(text_at(c, "image")),
    "image.repository": lambda c: [repository(image) for image in _one(text_at(c, "image"))],
    "args": lambda c: _one(_joined(c.get("args"))),
    "command": lambda c: _one(_joined(c.get("command"))),
    "host_port": _ports,
    "privileged": lambda c: _one(text_at(c, "securityContext", "privileged")),
    "allow_privilege_escalation": lambda c: _one(text_at(c, "securityContext", "allowPrivilegeEscalation")),
    "read_only_fs": lambda c: _one(text_at(c, "securityContext", "readOnlyRootFilesystem")),
    "run_as_user": lambda c: _one(text_at(c, "securityContext", "runAsUser")),
    "run_as_group": lambda c: _one(text_at(c, "securityContext", "runAsGroup")),
    "proc_mount": lambda c: _one(text_at(c, "securityContext", "procMount")),
    "add_capabilities": lambda c: _added(c),
}
_OF_VOLUME: dict[str, Callable[[Document], list[str]]] = {
    "hostpath": lambda v: _one(text_at(v, "hostPath", "path")),
    "flexvolume_driver": lambda v: _one(text_at(v, "flexVolume", "driver")),
    "volume_type": lambda v: [key for key in v if key != "name"],
}


def _added(container: Document) -> list[str]:
    added = _at(container, ("securityContext", "capabilities", "add"))
    return [as_text(part) for part in added] if isinstance(added, list) else []


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _items(value: Any) -> list[Document]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class KubernetesAudit:
    """The source `k8s_audit`."""

    name = "k8s_audit"
    plugin = "k8saudit"

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def events(self, body: bytes, now_ns: int) -> Iterator[JsonEvent]:
        """Events of a webhook body (one event or an EventList) or of a text with one object a line.

        Raises InvalidEventError for a body over WEBHOOK_BYTES_LIMIT and for one that holds no audit event.
        Among others, lines and items that are none and events over EVENT_BYTES_LIMIT are counted and skipped.
        """
        body = decompress(body, WEBHOOK_BYTES_LIMIT)
        try:
            yield from self._of_document(orjson.loads(body), now_ns)
            return
        except orjson.JSONDecodeError:
            lines = [line for line in body.splitlines() if line.strip()]
        found = False
        for line in lines if len(lines) > 1 else ():
            try:
                for event in self._of_document(decode(line, _NOT_AUDIT), now_ns):
                    found = True
                    yield event
            except InvalidEventError:
                self.refused["line"] += 1
        if not found:
            raise InvalidEventError(_NOT_AUDIT)

    def _of_document(self, document: Any, now_ns: int) -> Iterator[JsonEvent]:
        kinds: tuple[str | None, ...]
        items: Any
        if isinstance(document, list):
            kinds, items = ("Event",), document
        elif isinstance(document, dict) and document.get("kind") == "EventList":
            # Items of a list that an API server sends have no kind of their own.
            kinds, items = ("Event", None), document.get("items")
            if not isinstance(items, list):
                raise InvalidEventError(_NOT_AUDIT)
        else:
            kinds, items = ("Event",), [document]
        unknown = 0
        for item in items:
            if not isinstance(item, dict) or item.get("kind") not in kinds:
                unknown += 1
                self.refused["item"] += 1
            elif len(orjson.dumps(item)) > EVENT_BYTES_LIMIT:
                self.refused["event_too_large"] += 1
            else:
                yield JsonEvent(item, _time(item, now_ns))
        if items and unknown == len(items):
            raise InvalidEventError(_NOT_AUDIT)

    def extract(self, document: Document, name: str, argument: str | None) -> Any:
        """One field of an event."""
        if name == "evt.plugininfo":
            parts = (text_at(document, "user", "username"), text_at(document, "verb"))
            return " ".join(part for part in (*parts, text_at(document, "requestURI")) if part)
        if not name.startswith("ka.") or text_at(document, "auditID") is None:
            return None
        if name in _PLAIN:
            return text_at(document, *_PLAIN[name])
        values = _list_field(document, name)
        if values is not None:
            if argument is None:
                return values
            return values[int(argument)] if int(argument) < len(values) else None
        return _special(document, name, argument)


def _time(document: Document, now_ns: int) -> int:
    for key in _TIMES:
        time_ns = parse_time(document.get(key))
        if time_ns is not None:
            return time_ns
    return now_ns


def _list_field(document: Document, name: str) -> tuple[str, ...] | None:
    if name in _LISTS:
        value = _at(document, _LISTS[name])
        return tuple(as_text(part) for part in value) if isinstance(value, list) else None
    if name in _INNER_LISTS:
        path, key = _INNER_LISTS[name]
        outer = _at(document, path)
        if not isinstance(outer, list):
            return None
        return tuple(
            as_text(part)
            for item in _items(outer)
            for part in (item[key] if isinstance(item.get(key), list) else ())
        )
    if name in _SUBJECTS:
        return _subjects(document, name)
    if name.startswith("ka.req.pod."):
        return _of_pod(_at(document, ("requestObject", "spec")), name.removeprefix("ka.req.pod."))
    return None


def _subjects(document: Document, name: str) -> tuple[str, ...] | None:
    subjects = _at(document, ("requestObject", "subjects"))
    if not isinstance(subjects, list):
        return None
    found = []
    for subject in _items(subjects):
        if subject.get("kind") == _SUBJECTS[name]:
            text = text_at(subject, "name") or ""
            namespace = f"{text_at(subject, 'namespace') or ''}:" if name.endswith("ns_names") else ""
            found.append(namespace + text)
    return tuple(found)


def _of_pod(spec: Any, name: str) -> tuple[str, ...] | None:
    group, _, key = name.partition(".")
    elements = spec.get(group) if isinstance(spec, dict) else None
    if not isinstance(elements, list):
        return None
    if group == "volumes":
        return tuple(text for volume in _items(elements) for text in _OF_VOLUME[key](volume))
    if key in ("eff_run_as_user", "eff_run_as_group"):
        own = "runAsUser" if key.endswith("user") else "runAsGroup"
        default = text_at(spec, "securityContext", own) or "0"
        return tuple(text_at(c, "securityContext", own) or default for c in _items(elements))
    return tuple(text for container in _items(elements) for text in _OF_CONTAINER[key](container))


def _special(document: Document, name: str, argument: str | None) -> str | None:
    spec = _at(document, ("requestObject", "spec"))
    if name == "ka.uri.param":
        try:
            values = parse_qs(urlsplit(text_at(document, "requestURI") or "").query, keep_blank_values=True)
        except ValueError:
            return None
        return values[argument][0] if argument in values else None
    if name == "ka.target.pod.name":
        target = document.get("objectRef")
        if text_at(target, "resource") == "pods" and text_at(target, "subresource") is None:
            return text_at(document, "responseObject", "metadata", "name")
        return None
    if name == "ka.req.binding.subject.has_name":
        return "true"
    if name == "ka.req.container.privileged":
        flags = _of_pod(spec, "containers.privileged")
        return None if flags is None else as_text("true" in flags)
    if name.startswith("ka.req.container.image"):
        images = _of_pod(spec, "containers." + name.removeprefix("ka.req.container."))
        index = int(argument or 0)
        return images[index] if images is not None and index < len(images) else None
    if name == "ka.req.volume.hostpath" and argument is not None:
        paths = _of_pod(spec, "volumes.hostpath")
        if paths is None:
            return None
        prefix = argument.removesuffix("*")
        found = any(p == argument or (prefix != argument and p.startswith(prefix)) for p in paths)
        return as_text(found)
    if name == "ka.req.binding.subject.name":
        subjects = _items(_at(document, ("requestObject", "subjects")))
        index = int(argument or 0)
        return text_at(subjects[index], "name") if index < len(subjects) else None
    return None
