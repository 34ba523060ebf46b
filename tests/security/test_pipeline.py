"""The pipeline delivers every record to every sink in order, and says what it could not take."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from security.activerules import ActiveRules
from security.pipeline import Pipeline, QueueFullError
from security.record import EventRecord
from security.sources.json_events import JsonBatches
from security.sources.kubernetes_audit import KubernetesAudit
from tests.security.randomrules import batch_of
from tests.security.records import record
from tests.security.test_starterrules import opened

SHADOW = "Password file read"


class ListSink:
    """Keeps what it is given; waits for `gate`."""

    def __init__(self, name: str = "list", error: Exception | None = None) -> None:
        self.name, self.error = name, error
        self.records: list[EventRecord] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stored: Future[None] | None = None
        self.closed = False
        self.ticks = 0

    def write(self, records: Sequence[EventRecord]) -> Future[None] | None:
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.records += records
        return self.stored

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.closed = True


def starter_rules() -> ActiveRules:
    rules = ActiveRules()
    rules.reload(())
    return rules


def test_a_batch_becomes_records_with_labels_that_reach_the_sinks() -> None:
    sink = ListSink()
    pipeline = Pipeline(starter_rules(), [sink], hostname="node-1")
    pipeline.start()
    box = {"container.id": "0123456789ab", "container.name": "web", "container.image.repository": "nginx"}
    events = [
        opened("/etc/passwd", "cat"),
        opened("/etc/shadow", "cat", **{"user.name": "root"}),
        opened("/etc/shadow", "x" * 300, **box, **{"k8s.pod.name": "p", "k8s.ns.name": "n"}),
    ]
    found = pipeline.process(batch_of(events))
    pipeline.close()
    assert [r.output.rule for r in found] == [SHADOW, SHADOW]
    assert sink.records == found
    assert sink.closed
    base = {"rule": SHADOW, "priority": "Warning", "source": "syscall", "hostname": "host"}
    assert dict(found[0].labels) == {**base, "proc_name": "cat", "user_name": "root"}
    assert dict(found[1].labels) == {
        **base,
        "proc_name": "x" * 128,
        "container_id": "0123456789ab",
        "container_name": "web",
        "container_image": "nginx",
        "k8s_pod_name": "p",
        "pod": "p",
        "k8s_ns_name": "n",
        "namespace": "n",
    }
    assert pipeline.events_count == {"syscall": 3}


def test_audit_events_have_the_labels_of_their_target(tmp_path: object) -> None:
    rules = ActiveRules()
    path = f"{tmp_path}/r.yaml"
    rule = "- {rule: r, desc: d, condition: ka.verb = create, output: o, priority: INFO, source: k8s_audit}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(rule)
    rules.reload([path])
    assert rules.problems == []
    body = (
        b'{"kind":"Event","auditID":"1","verb":"create","user":{"username":"eve"},'
        b'"objectRef":{"resource":"pods","namespace":"prod"},"responseObject":{"metadata":{"name":"web-1"}}}'
    )
    batches = JsonBatches(KubernetesAudit())
    [found] = Pipeline(rules, hostname="api").match(batches.batch(batches.read(body, 5_000_000)))
    assert dict(found.labels) == {
        "rule": "r",
        "priority": "Informational",
        "source": "k8s_audit",
        "hostname": "api",
        "k8s_ns_name": "prod",
        "namespace": "prod",
        "k8s_pod_name": "web-1",
        "pod": "web-1",
        "user_name": "eve",
    }
    assert found.time_ms == 5


def test_a_full_queue_refuses_and_counts_and_goes_on() -> None:
    sink = ListSink()
    sink.gate.clear()
    pipeline = Pipeline(ActiveRules(), [sink], queue_records_limit=3)
    first = pipeline.deliver([record("a"), record("b")])
    refused = pipeline.deliver([record("c"), record("d")])
    with pytest.raises(QueueFullError, match="limit of 3 records"):
        refused.result(0)
    assert (pipeline.dropped_count, pipeline.queued_count) == (2, 2)
    last = pipeline.deliver([record("e")])
    pipeline.start()
    sink.gate.set()
    first.result(5)
    last.result(5)
    pipeline.close()
    assert [r.output.rule for r in sink.records] == ["a", "b", "e"]
    with pytest.raises(QueueFullError, match="closed"):
        pipeline.deliver([record("f")]).result(0)


def test_a_failing_sink_is_counted_and_the_others_get_their_records() -> None:
    broken, good = ListSink("broken", ValueError("no")), ListSink("good")
    pipeline = Pipeline(ActiveRules(), [broken, good])
    pipeline.start()
    with pytest.raises(ValueError, match="no"):
        pipeline.deliver([record()]).result(5)
    pipeline.close()
    assert len(good.records) == 1
    assert pipeline.sink_failures_count == {"broken": 1}
    assert good.closed


def test_a_delivery_is_done_only_when_every_sink_has_it_on_disk() -> None:
    one, two = ListSink("one"), ListSink("two")
    one.stored, two.stored = Future(), Future()
    pipeline = Pipeline(ActiveRules(), [one, two])
    pipeline.start()
    done = pipeline.deliver([record()])
    one.stored.set_result(None)
    with pytest.raises(TimeoutError):
        done.result(0.05)
    two.stored.set_exception(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        done.result(5)
    pipeline.close()
