"""Files of events are followed over growth, rotation and restarts, each event once."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson

from security.activerules import ActiveRules
from security.pipeline import Pipeline
from security.sources.cloudtrail import CloudTrail
from security.sources.kubernetes_audit import KubernetesAudit
from security.sources.receiver import BodyReceiver
from security.sources.tail import FileFollower
from tests.security.test_pipeline import ListSink

RULES = """
- {rule: Audit, desc: d, condition: ka.verb exists, output: "%ka.auditid", priority: INFO, source: k8s_audit}
- {rule: Trail, desc: d, condition: ct.name exists, output: "%ct.id", priority: INFO, source: aws_cloudtrail}
"""


class Site:
    """A pipeline that collects, and a follower that is made anew at each restart."""

    def __init__(self, folder: Path, pattern: str, whole: bool) -> None:
        (folder / "rules.yaml").write_text(RULES)
        rules = ActiveRules()
        rules.reload([str(folder / "rules.yaml")])
        assert rules.problems == []
        self.sink = ListSink()
        self.pipeline = Pipeline(rules, [self.sink])
        self.pipeline.start()
        self.source = CloudTrail() if whole else KubernetesAudit()
        self.folder, self.pattern, self.whole = folder, pattern, whole
        self.restart()

    def restart(self) -> None:
        receiver = BodyReceiver(self.source, self.pipeline)
        positions = self.folder / "positions.json"
        self.follower = FileFollower(receiver, [self.pattern], positions, whole_files=self.whole)

    def seen(self) -> list[str]:
        self.follower.poll()
        return [record.output.message for record in self.sink.records]


def audit(*numbers: int) -> bytes:
    return b"".join(
        orjson.dumps({"kind": "Event", "auditID": str(n), "verb": "get"}) + b"\n" for n in numbers
    )


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_an_audit_log_is_followed_over_growth_rotation_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    append(path, audit(1, 2))
    site = Site(tmp_path, str(path), whole=False)
    assert site.seen() == []
    append(path, audit(3))
    assert site.seen() == ["3"]
    append(path, audit(4)[:10])
    assert site.seen() == ["3"]
    append(path, audit(4)[10:] + b"nonsense\n\n" + audit(5))
    assert site.seen() == ["3", "4", "5"]
    assert site.source.refused["line"] == 1
    site.restart()
    append(path, audit(6))
    assert site.seen()[3:] == ["6"]
    path.rename(tmp_path / "audit.log.1")
    append(path, audit(7))
    assert site.seen()[4:] == ["7"]
    path.write_bytes(audit(8)[:0])
    site.follower.poll()
    append(path, audit(8))
    assert site.seen()[5:] == ["8"]
    append(path, b"only nonsense\n")
    site.follower.poll()
    assert site.follower.counts["skipped"] == 1
    append(path, audit(9))
    assert site.seen()[6:] == ["9"]
    site.pipeline.close()


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path) -> None:
    import security.sources.tail as tail

    before, tail.PIECE_BYTES = tail.PIECE_BYTES, 200
    try:
        path = tmp_path / "audit.log"
        site = Site(tmp_path, str(tmp_path / "*.log"), whole=False)
        assert site.seen() == []
        append(path, b"x" * 500 + b"\n" + audit(1, 2, 3, 4, 5))
        assert site.seen() == ["1", "2", "3", "4", "5"]
        assert site.follower.counts["skipped"] >= 2
        site.pipeline.close()
    finally:
        tail.PIECE_BYTES = before


def test_cloudtrail_files_are_read_once_each_also_in_folders_and_compressed(tmp_path: Path) -> None:
    folder = tmp_path / "AWSLogs" / "eu-central-1"
    folder.mkdir(parents=True)

    def body(*numbers: int) -> bytes:
        return orjson.dumps({"Records": [{"eventName": "X", "eventID": f"e{n}"} for n in numbers]})

    (folder / "a.json.gz").write_bytes(gzip.compress(body(1, 2)))
    site = Site(tmp_path, str(tmp_path / "AWSLogs"), whole=True)
    assert site.seen() == ["e1", "e2"]
    (folder / "b.json").write_bytes(body(3))
    (folder / "c.json").write_bytes(b"{}")
    assert site.seen() == ["e1", "e2", "e3"]
    assert site.follower.counts["skipped"] == 1
    site.restart()
    assert site.seen() == ["e1", "e2", "e3"]
    site.pipeline.close()


def test_events_that_the_pipeline_refuses_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    site = Site(tmp_path, str(path), whole=False)
    site.follower.poll()
    append(path, audit(1))
    site.sink.error = OSError("disk full")
    assert site.seen() == []
    assert site.follower.counts["failures"] == 1
    site.sink.error = None
    assert site.seen() == ["1"]
    site.pipeline.close()
