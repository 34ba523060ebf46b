"""`vedette security` on files."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from cli.main import cli
from security.eventlog.log import EventLog, EventLogOptions
from security.output import EventOutput, OutputOptions
from security.record import EventRecord
from tests.security.capturebuilder import CaptureFile, event, thread

RULES = """
- required_engine_version: 0.57.0
- list: verbs
  items: [create, delete]
- macro: changes
  condition: ka.verb in (verbs)
- rule: Change
  desc: something changes
  condition: changes and ka.target.resource = pods
  output: Change (user=%ka.user.name)
  priority: NOTICE
  source: k8s_audit
  tags: [k8s]
"""
EVENT = {
    "kind": "Event",
    "auditID": "1",
    "verb": "create",
    "user": {"username": "jane"},
    "objectRef": {"resource": "pods"},
    "stageTimestamp": "2024-01-02T03:04:05Z",
}


@pytest.fixture
def rules(tmp_path: Path) -> str:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["security", *arguments])
    return result.exit_code, result.output


def test_check_tells_state_and_exit_status(rules: str, tmp_path: Path) -> None:
    assert run("check", rules) == (0, f"{rules}: Ok\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("- rule: x\n", encoding="utf-8")
    status, text = run("check", rules, str(bad))
    assert status == 1
    assert f"{bad}: Invalid\n1 Errors:\n" in text
    assert run("check", str(tmp_path / "absent"))[0] == 1


def test_check_gives_the_json_of_falco(rules: str) -> None:
    status, text = run("check", "--json", rules)
    assert (status, orjson.loads(text)) == (
        0,
        {"falco_load_results": [{"errors": [], "name": rules, "successful": True, "warnings": []}]},
    )


def test_describe_gives_rules_macros_and_lists(rules: str) -> None:
    status, text = run("describe", rules)
    description = orjson.loads(text)
    assert status == 0
    assert description["required_engine_version"] == "0.57.0"
    [rule] = description["rules"]
    assert rule["info"]["name"] == "Change"
    assert rule["details"]["macros"] == ["changes"]
    assert rule["details"]["condition_fields"] == ["ka.target.resource", "ka.verb"]
    assert rule["details"]["plugins"] == ["k8saudit"]
    assert description["macros"][0]["details"]["lists"] == ["verbs"]
    assert description["lists"][0]["details"]["items_compiled"] == ["create", "delete"]
    assert run("describe", "--rule", "Nobody", rules)[0] == 1


def test_fields_lists_the_catalogue() -> None:
    status, text = run("fields", "--source", "k8s_audit", "ka.req.role")
    assert status == 0
    assert [line.split()[0] for line in text.splitlines()][:2] == [
        "ka.req.role.rules[…]",
        "ka.req.role.rules.apiGroups[…]",
    ]
    names = {row["name"] for row in orjson.loads(run("fields", "--json")[1])}
    assert {"proc.name", "ct.user", "ka.verb", "evt.num", "container.id", "fd.sip"} <= names
    assert run("fields", "--source", "mars")[0] == 1


def test_replay_prints_what_would_have_fired(rules: str, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join([orjson.dumps(EVENT)] * 3))
    status, text = run("replay", rules, "--summary", "--audit", str(events))
    assert (status, text) == (0, "Events: 3, detected: 3\nNotice: 3\n   Change: 3\n")
    status, text = run("replay", rules, "--json", "--audit", str(events))
    assert orjson.loads(text.splitlines()[0])["output_fields"]["ka.user.name"] == "jane"
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    status, text = run("replay", rules, "--audit", str(tmp_path / "bad.json"))
    assert status == 1
    assert "data not recognized as a k8s audit event" in text


CAPTURE_RULES = """
- rule: Opened
  desc: d
  condition: evt.type=openat and fd.name startswith /etc/
  output: Opened (file=%fd.name command=%proc.cmdline)
  priority: WARNING
"""


def capture_of(path: Path, *blocks: bytes) -> str:
    shell = thread(7, "bash", arguments=("-i",))
    return CaptureFile().add(shell, *blocks).write(path)


def test_replay_runs_rules_over_captures(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(CAPTURE_RULES, encoding="utf-8")
    rules = str(tmp_path / "rules.yaml")
    opened = event(307, 7, 3, -100, "/etc/shadow", 1, 0)
    whole = capture_of(tmp_path / "whole.scap", opened, event(5, 7, 0, 3), event(4001, 7))
    status, text = run("replay", rules, "--capture", whole)
    assert status == 0
    assert "Warning Opened (file=/etc/shadow command=bash -i)\n" in text
    assert "Events: 2, detected: 1\nWarning: 1\n   Opened: 1\n" in text
    assert "whole.scap: 1 events of unknown types left out\n" in text
    line = orjson.loads(run("replay", rules, "--json", "--capture", whole)[1].splitlines()[0])
    assert line["output_fields"]["fd.name"] == "/etc/shadow"

    cut = Path(capture_of(tmp_path / "cut.scap", opened, opened))
    cut.write_bytes(gzip.decompress(cut.read_bytes())[:-3])
    status, text = run("replay", rules, "--summary", "--capture", str(cut))
    assert status == 1
    assert "cut.scap: cut off in a block" in text
    assert "Events: 1, detected: 1\n" in text
    assert run("replay", rules)[0] == 2
    assert run("replay", rules, "--capture", str(tmp_path / "absent"))[0] == 1


def raised(number: int, **fields: str) -> EventRecord:
    stored = {name.replace("__", "."): value for name, value in fields.items()}
    output = EventOutput("Opened", "syscall", 4, (), time.time_ns() - number, "m", stored)
    return EventRecord(output, (("rule", "Opened"),), "host")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose event log is open, with noise of a known shape, some of it in a part."""
    log = EventLog(tmp_path / "data", EventLogOptions(background=False))
    noise = [
        raised(
            at, evt__type="openat", proc__name="backup", proc__pname="cron", fd__name=f"/etc/ssl/keys/{at}"
        )
        for at in range(30)
    ]
    log.write(noise).result()
    log.flush()
    other = raised(99, evt__type="openat", proc__name="vi", proc__pname="bash", fd__name="/etc/shadow")
    log.write([other]).result()
    return tmp_path / "data"


def test_stored_events_are_replayed_and_give_exceptions(store: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(CAPTURE_RULES, encoding="utf-8")
    rules = str(tmp_path / "rules.yaml")
    status, text = run("replay", rules, "--data", str(store))
    assert (status, text) == (
        0,
        "Stored events: 31, raised again: 31, not to be told: 0\n"
        "   Opened (Warning): 31 stored, 31 again, 0 not\n",
    )
    status, text = run("suggest", "--data", str(store), "--rules", rules)
    assert status == 0
    assert "# 31 stored events, 1 rules with suggestions\n" in text
    assert "# 30 of 31 events (97 %)\n" in text
    (tmp_path / "exceptions.yaml").write_text(text, encoding="utf-8")
    status, text = run("replay", rules, str(tmp_path / "exceptions.yaml"), "--data", str(store))
    assert "Opened (Warning): 31 stored, 1 again, 30 not\n" in text
    assert run("suggest", "--data", str(store), "--rule", "Nothing")[1] == (
        "# 31 stored events, 0 rules with suggestions\n"
    )
    assert not list(store.glob("quarantine*"))


def test_stored_events_come_from_files_in_the_form_of_falco(tmp_path: Path) -> None:
    lines = [raised(at, proc__name="a", proc__pname="b", fd__name="/x") for at in range(12)]
    falco = [record.output.json_line(OutputOptions()) for record in lines]
    (tmp_path / "falco.json").write_text("\n".join(falco), encoding="utf-8")
    status, text = run("suggest", "--events", str(tmp_path / "falco.json"))
    assert status == 0
    assert "# 12 of 12 events (100 %)\n#   100 %: proc.name = a and proc.pname = b and fd.name = /x\n" in text
    (tmp_path / "bad.json").write_text("{}\n", encoding="utf-8")
    assert run("suggest", "--events", str(tmp_path / "bad.json"))[0] == 1
    assert run("suggest")[0] == 2
    assert run("suggest", "--data", str(tmp_path))[0] == 1
    assert run("suggest", "--server", "http://127.0.0.1:1")[0] == 1


def test_a_store_is_read_page_by_page(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.eventlog.query.LIMIT_MAX", 7)
    assert run("suggest", "--data", str(store), "--rule", "x")[1].startswith("# 31 stored events")
