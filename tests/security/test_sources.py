"""Audit events and CloudTrail records raise exactly the rules they must; bad bodies are refused by name."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from security.engine import RuleEngine
from security.rules.loader import RuleLoader
from security.sources.cloudtrail import CloudTrail
from security.sources.json_events import InvalidEventError, JsonBatches, parse_time
from security.sources.kubernetes_audit import EVENT_BYTES_LIMIT, KubernetesAudit
from tests.security import conformance
from tests.security.expectations import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no reference data at {DATA}")

POD: dict[str, Any] = {
    "kind": "Event",
    "auditID": "a1",
    "stage": "ResponseComplete",
    "verb": "create",
    "requestURI": "/api/v1/namespaces/x/pods?fieldManager=kubectl&dryRun=",
    "stageTimestamp": "2024-01-02T03:04:05.678901Z",
    "user": {"username": "jane", "groups": ["dev", "ops"]},
    "sourceIPs": ["10.0.0.1"],
    "objectRef": {"resource": "pods", "namespace": "x"},
    "responseStatus": {"code": 201},
    "requestObject": {
        "spec": {
            "hostNetwork": True,
            "securityContext": {"runAsUser": 7},
            "containers": [
                {"name": "a", "image": "nginx:1.2", "args": ["-x", "1"], "ports": [{"containerPort": 80}]},
                {
                    "name": "b",
                    "image": "repo/app@sha256:00",
                    "ports": [{"hostPort": 22, "containerPort": 23}],
                    "securityContext": {"privileged": True, "runAsUser": 0},
                },
            ],
            "volumes": [{"name": "v", "hostPath": {"path": "/var/run"}}, {"name": "w", "emptyDir": {}}],
        }
    },
    "responseObject": {"metadata": {"name": "web-1"}},
}
FIELDS = [
    ("ka.user.name", None, "jane"),
    ("ka.user.groups", None, ("dev", "ops")),
    ("ka.user.groups", "1", "ops"),
    ("ka.user.groups", "2", None),
    ("ka.uri.param", "fieldManager", "kubectl"),
    ("ka.uri.param", "dryRun", ""),
    ("ka.uri.param", "other", None),
    ("ka.response.code", None, "201"),
    ("ka.target.pod.name", None, "web-1"),
    ("ka.target.subresource", None, None),
    ("ka.req.pod.host_network", None, "true"),
    ("ka.req.pod.host_pid", None, None),
    ("ka.req.pod.containers.image.repository", None, ("nginx", "repo/app")),
    ("ka.req.pod.containers.image", "1", "repo/app@sha256:00"),
    ("ka.req.pod.containers.args", None, ("-x 1",)),
    ("ka.req.pod.containers.host_port", None, ("80", "22")),
    ("ka.req.pod.containers.privileged", None, ("true",)),
    ("ka.req.pod.containers.eff_run_as_user", None, ("7", "0")),
    ("ka.req.pod.initContainers.image", None, None),
    ("ka.req.pod.volumes.hostpath", None, ("/var/run",)),
    ("ka.req.pod.volumes.volume_type", None, ("hostPath", "emptyDir")),
    ("ka.req.volume.hostpath", "/var*", "true"),
    ("ka.req.volume.hostpath", "/etc", "false"),
    ("ka.req.container.privileged", None, "true"),
    ("ka.req.container.image", None, "nginx:1.2"),
    ("ka.req.role.rules", None, None),
]


@pytest.mark.parametrize(("name", "argument", "expected"), FIELDS)
def test_audit_fields(name: str, argument: str | None, expected: object) -> None:
    assert KubernetesAudit().extract(POD, name, argument) == expected


def test_event_without_audit_id_has_no_audit_field() -> None:
    document = {key: value for key, value in POD.items() if key != "auditID"}
    assert KubernetesAudit().extract(document, "ka.verb", None) is None


def test_time_of_an_event_is_that_of_its_stage() -> None:
    [event] = KubernetesAudit().events(orjson.dumps(POD), 5)
    assert event.time_ns == 1704164645678901000
    [event] = KubernetesAudit().events(b'{"kind":"Event"}', 5)
    assert event.time_ns == 5
    assert parse_time("2024-13-40T99:00:00Z") is None
    assert parse_time("1970-01-01T01:00:00.5+01:00") == 500_000_000


def test_event_list_and_lines_give_all_events() -> None:
    batches = JsonBatches(KubernetesAudit())
    assert len(batches.read(orjson.dumps({"kind": "EventList", "items": [POD, POD]}), 0)) == 2
    assert len(batches.read(orjson.dumps(POD) + b"\n\n" + orjson.dumps(POD) + b"\n", 0)) == 2


BAD_BODIES = [
    b"",
    b"{",
    b"[1]",
    b'{"kind":"EventList"}',
    b'{"kind":"Pod"}',
    b"null",
    b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_body_that_is_no_audit_event_is_refused_and_counted(body: bytes) -> None:
    source = KubernetesAudit()
    with pytest.raises(InvalidEventError, match="data not recognized as a k8s audit event"):
        JsonBatches(source).read(body, 0)
    assert source.refused["body"] == 1


def test_events_and_bodies_over_their_limits_are_refused() -> None:
    source = KubernetesAudit()
    large = {**POD, "annotations": {"x": "y" * EVENT_BYTES_LIMIT}}
    assert len(JsonBatches(source).read(orjson.dumps({"kind": "EventList", "items": [large, POD]}), 0)) == 1
    assert source.refused["event_too_large"] == 1
    with pytest.raises(InvalidEventError, match=r"body of 12582913 bytes is larger than 12582912"):
        list(source.events(gzip.compress(b" " * (64 << 20)), 0))


RECORD: dict[str, Any] = {
    "eventName": "GetObject",
    "eventSource": "s3.amazonaws.com",
    "eventTime": "2020-01-01T00:00:00Z",
    "sourceIPAddress": "1.2.3.4",
    "readOnly": True,
    "userIdentity": {
        "type": "AssumedRole",
        "arn": "arn:aws:sts::1:assumed-role/r/jane",
        "sessionContext": {"sessionIssuer": {"userName": "role"}},
    },
    "requestParameters": {"bucketName": "b", "key": "k"},
    "additionalEventData": {"bytesTransferredIn": 3, "bytesTransferredOut": 4.0},
}
RECORD_FIELDS = [
    ("ct.shortsrc", "s3"),
    ("ct.user", "role"),
    ("ct.originaluser", "jane"),
    ("ct.readonly", "true"),
    ("ct.error", None),
    ("s3.uri", "s3://b/k"),
    ("s3.bytes", 7),
    ("s3.bytes.out", 4),
    ("s3.cnt.get", 1),
    ("s3.cnt.put", None),
    ("ct.info", "role via 1.2.3.4 ← GetObject b/k"),
    ("ct.request.documentname", None),
    ("ct.request", '{"bucketName":"b","key":"k"}'),
]


@pytest.mark.parametrize(("name", "expected"), RECORD_FIELDS)
def test_cloudtrail_fields(name: str, expected: object) -> None:
    assert CloudTrail().extract(RECORD, name, None) == expected


def test_cloudtrail_bodies_in_all_envelopes() -> None:
    source = CloudTrail()
    for body in ({"Records": [RECORD]}, {"detail": RECORD}, RECORD):
        assert len(list(source.events(gzip.compress(orjson.dumps(body)), 0))) == 1
    for bad in (b"{}", b'{"Records":[1]}', b"\x1f\x8bxx", b"nope"):
        with pytest.raises(InvalidEventError):
            list(source.events(bad, 0))


@needs_data
@pytest.mark.parametrize("title", ["Kubernetes audit events", "CloudTrail records"])
def test_reference_events_raise_exactly_the_expected_rules(title: str) -> None:
    cases = list(conformance.PARTS[title]())
    assert len(cases) > 5
    assert [case for case in cases if case[1]] == []


def test_events_that_follow_good_ones_may_be_bad() -> None:
    source = KubernetesAudit()
    body = orjson.dumps({"kind": "EventList", "items": [POD, 7]})
    assert len(JsonBatches(source).read(body, 0)) == 1
    assert source.refused["item"] == 1


def test_json_pointer_and_list_fields_reach_the_rules() -> None:
    loader = RuleLoader()
    result = loader.load_text(
        "r.yaml",
        """
- rule: r
  desc: d
  source: k8s_audit
  condition: >
    jevt.value[/requestObject/spec/containers/1/name] = b and not jevt.value[/requestObject/spec/tls] exists
    and ka.req.pod.containers.image intersects ("nginx:1.2") and not ka.user.groups in (dev)
  output: "%ka.user.groups %ka.user.groups[0] %jevt.value[/user/username] %ka.target.subresource"
  priority: NOTICE
""",
    )
    assert result.successful, result.verbose(loader.contents)
    batches = JsonBatches(KubernetesAudit(), hostname="h")
    [output] = RuleEngine(loader.rules).process(batches.batch(batches.read(orjson.dumps(POD), 0)))
    assert output.message == "(dev,ops) dev jane <NA>"
    assert output.fields == {
        "ka.user.groups": ["dev", "ops"],
        "ka.user.groups[0]": "dev",
        "jevt.value[/user/username]": "jane",
        "ka.target.subresource": None,
    }


def test_items_of_a_list_need_no_kind_and_what_is_no_event_is_skipped_and_counted() -> None:
    source = KubernetesAudit()
    items = [{"auditID": "1", "verb": "get"}, "text", {"kind": "Pod"}, {"kind": "Event", "auditID": "2"}]
    body = orjson.dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": items})
    assert [event.document["auditID"] for event in source.events(body, 0)] == ["1", "2"]
    assert source.refused == {"item": 2}
    lines = b'{"kind":"Event","auditID":"3"}\nnonsense\n{"kind":"Event","auditID":"4"}\n'
    assert [event.document["auditID"] for event in source.events(lines, 0)] == ["3", "4"]
    assert source.refused["line"] == 1
