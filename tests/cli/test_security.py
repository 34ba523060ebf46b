"""`vedette security` on files."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from cli.main import cli

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
    status, text = run("replay", "--rules", rules, "--summary", str(events))
    assert (status, text) == (0, "Events: 3, detected: 3\n   Change: 3\n")
    status, text = run("replay", "--rules", rules, "--json", str(events))
    assert orjson.loads(text.splitlines()[0])["output_fields"]["ka.user.name"] == "jane"
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    status, text = run("replay", "--rules", rules, str(tmp_path / "bad.json"))
    assert status == 1
    assert "data not recognized as a k8s audit event" in text
