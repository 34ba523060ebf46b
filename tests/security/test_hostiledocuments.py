"""Documents of any shape pass every field of their source: a value, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.engine import RuleEngine
from security.fields.table import field_table
from security.rules.loader import RuleLoader
from security.sources.cloudtrail import CloudTrail
from security.sources.json_events import JsonBatches, JsonEvent, JsonSource, pointer
from security.sources.kubernetes_audit import KubernetesAudit
from tests.security.expectations import RULES

_KEYS = st.sampled_from(
    (
        *(
            "requestObject",
            "responseObject",
            "spec",
            "containers",
            "initContainers",
            "securityContext",
            "privileged",
        ),
        *(
            "image",
            "ports",
            "hostPort",
            "args",
            "volumes",
            "hostPath",
            "path",
            "subjects",
            "kind",
            "name",
            "rules",
        ),
        *(
            "verbs",
            "resources",
            "user",
            "username",
            "groups",
            "objectRef",
            "resource",
            "annotations",
            "auditID",
        ),
        *(
            "requestURI",
            "capabilities",
            "add",
            "userIdentity",
            "type",
            "sessionContext",
            "sessionIssuer",
            "arn",
        ),
        *("requestParameters", "responseElements", "instancesSet", "items", "imageId", "additionalEventData"),
        *("bytesTransferredIn", "tagSpecificationSet", "tags", "key", "eventName", "readOnly", "bucketName"),
    )
)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ("", "pods", "User", "a:b@c", "http://[x", "/a?b=c&d", "AssumedRole", "Root", "x/y/z", "é")
    ),
)
_documents = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=30,
)
_events = st.dictionaries(_KEYS, _documents, max_size=8).map(
    lambda d: {"auditID": "1", "eventName": "x", **d}
)


@pytest.mark.parametrize("source", [KubernetesAudit(), CloudTrail()], ids=lambda source: source.name)
@settings(max_examples=60, deadline=None)
@given(document=_events)
def test_every_field_of_any_document_is_a_value_or_nothing(
    source: JsonSource, document: dict[str, Any]
) -> None:
    for info in field_table(source.name).fields.values():
        if info.family not in ("ka", "ct"):
            continue
        arguments = ["0", "7"] if "i" in info.flags else ["/x", "a*"]
        for argument in [
            *([] if info.argument_required else [None]),
            *(arguments if info.argument_allowed else []),
        ]:
            value = source.extract(document, info.name, argument)
            if info.is_list and argument is None:
                assert value is None or (type(value) is tuple and all(type(part) is str for part in value))
            else:
                assert value is None or type(value) is (int if info.type == "UINT64" else str)


@pytest.mark.skipif(not RULES.is_dir(), reason=f"no reference data at {RULES}")
@settings(max_examples=20, deadline=None)
@given(documents=st.lists(_events, min_size=1, max_size=5))
def test_official_rules_run_over_any_documents(documents: list[dict[str, Any]]) -> None:
    for source, engine in _engines():
        batch = JsonBatches(source).batch([JsonEvent(document, 1) for document in documents])
        assert len(engine.process(batch)) <= len(documents)


_ENGINES: list[tuple[JsonSource, RuleEngine]] = []


def _engines() -> list[tuple[JsonSource, RuleEngine]]:
    if not _ENGINES:
        for source, name in (
            (KubernetesAudit(), "k8s_audit_rules.yaml"),
            (CloudTrail(), "aws_cloudtrail_rules.yaml"),
        ):
            loader = RuleLoader()
            loader.load_file(str(RULES / name))
            _ENGINES.append((source, RuleEngine(loader.rules)))
    return _ENGINES


POINTERS = [
    ("", True, {"a": {"b/c": [1, None]}, "": 2}),
    ("/a/b~1c/0", True, 1),
    ("/a/b~1c/1", True, None),
    ("/a/b~1c/2", False, None),
    ("/a/b~1c/x", False, None),
    ("a/b~1c/0", True, 1),
    ("/a" * 200, False, None),
    ("/a/b~1c/99999999999999999999", False, None),
]


@pytest.mark.parametrize(("path", "found", "value"), POINTERS)
def test_json_pointers(path: str, found: bool, value: object) -> None:
    assert pointer({"a": {"b/c": [1, None]}, "": 2}, path) == (found, value)
