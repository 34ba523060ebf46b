"""Rules are tuned from the events of a running server: over HTTP, and from its store beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from cli.main import cli
from tests.e2e.processes import Api, start_vedette, wait_until

pytestmark = pytest.mark.e2e

RULES = """
- rule: Secret read
  desc: d
  condition: ka.verb = get and ka.target.resource = secrets
  output: Secret read (user=%ka.user.name verb=%ka.verb secret=%ka.target.name resource=%ka.target.resource)
  priority: NOTICE
  source: k8s_audit
"""
STRICTER = RULES.replace("ka.verb = get", "ka.verb = get and ka.user.name = eve")


def audit_event(number: int, user: str) -> dict[str, object]:
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "auditID": str(number),
        "verb": "get",
        "stage": "ResponseComplete",
        "user": {"username": user},
        "objectRef": {"resource": "secrets", "name": "token"},
    }


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["security", *arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
    (folder / "stricter.yaml").write_text(STRICTER, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A server that 25 events of a robot and 3 of others reached."""
    server = start_vedette(folder, f"--security.rules={folder / 'rules.yaml'}")
    try:
        server.wait_ready()
        api = Api(server.port)
        users = ["robot"] * 25 + ["ada", "eve", "bob"]
        for number, user in enumerate(users):
            body = orjson.dumps(audit_event(number, user))
            status, _, text = api.request("POST", "/k8s-audit", body, {"Content-Type": "application/json"})
            assert status == 200, text
        wait_until(
            lambda: len(api.get("/api/v1/security/events", limit=100)[1]["data"]) == len(users),
            10,
            "all events are in the log",
        )
        yield f"http://127.0.0.1:{server.port}"
        api.close()
    finally:
        server.stop()


def test_events_of_a_server_give_exceptions_that_silence_them(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.storedevents._PAGE_EVENTS", 7)
    status, text = run("suggest", "--server", url, "--rules", str(folder / "rules.yaml"))
    assert status == 0
    assert "# 28 stored events, 1 rules with suggestions\n" in text
    assert "ka.user.name = robot" in text
    (folder / "exceptions.yaml").write_text(text, encoding="utf-8")
    rules = (str(folder / "rules.yaml"), str(folder / "exceptions.yaml"))
    status, text = run("replay", *rules, "--server", url, "--since", "1h")
    assert (status, text.splitlines()[1]) == (0, "   Secret read (Notice): 28 stored, 3 again, 25 not")


def test_the_store_of_a_running_server_is_read_beside_it(url: str, folder: Path) -> None:
    status, text = run("replay", str(folder / "stricter.yaml"), "--data", str(folder / "data"))
    assert (status, text.splitlines()[1]) == (0, "   Secret read (Notice): 28 stored, 1 again, 27 not")
