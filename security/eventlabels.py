"""Which fields of an event become labels of its series: few, and of few values (security-surface.md 10, item
21). Everything else of an event is in the event log only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from security.columns import EventBatch
from security.output import to_text
from security.record import cut_label
from security.rules.index import CompiledRule
from security.rules.items import PRIORITIES

HOST = "host"
"""What `container.id` and `container.name` say for an event outside of containers; no label then."""

_LABEL_FIELDS: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "syscall": (
        ("container_id", ("container.id",)),
        ("container_name", ("container.name",)),
        ("container_image", ("container.image", "container.image.repository")),
        ("k8s_ns_name", ("k8s.ns.name",)),
        ("k8s_pod_name", ("k8s.pod.name",)),
        ("proc_name", ("proc.name",)),
        ("user_name", ("user.name",)),
    ),
    "k8s_audit": (
        ("k8s_ns_name", ("ka.target.namespace",)),
        ("k8s_pod_name", ("ka.target.pod.name",)),
        ("container_image", ("ka.req.pod.containers.image",)),
        ("user_name", ("ka.user.name",)),
    ),
    "aws_cloudtrail": (("user_name", ("ct.user",)),),
}
_JOINED = (("k8s_ns_name", "namespace"), ("k8s_pod_name", "pod"))
"""Kubernetes labels once more under the names that container metrics have, so that `on (pod)` joins."""


def event_labels(
    batch: EventBatch, row: int, rule: CompiledRule, hostname: str
) -> tuple[tuple[str, str], ...]:
    """The label set of one event, sorted by name, without empty values."""
    values = {
        "rule": cut_label(rule.name),
        "priority": PRIORITIES[rule.priority],
        "source": cut_label(rule.source),
        "hostname": cut_label(hostname),
    }
    for label, fields in _LABEL_FIELDS.get(batch.source, ()):
        value = next((found for name in fields if (found := _value(batch, name, row)) is not None), None)
        if value is not None:
            values[label] = cut_label(value)
    for name in ("container_id", "container_name"):
        if values.get(name) == HOST:
            del values[name]
    values |= {joined: values[name] for name, joined in _JOINED if name in values}
    return tuple(sorted((name, value) for name, value in values.items() if value))


def _value(batch: EventBatch, field: str, row: int) -> str | None:
    column = batch.column((field, None))
    value: Any = None if column is None else column.value(row)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else to_text(value)
