"""Events, rules and webhooks over HTTP, over a real store, event log and rule engine."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer

from security import feed as feed_module
from security.eventlog.log import EventLog
from security.record import EventRecord
from tests.security.records import T0_NS, record
from tests.web.securitysite import SecuritySite, make_site
from web.api import securitysources
from web.app import create_app

RULES = """
- {rule: Audit, desc: d, condition: ka.verb = create, output: o, priority: WARNING, source: k8s_audit}
- rule: Trail
  desc: d
  condition: ct.name exists
  output: "%ct.name"
  priority: INFO
  source: aws_cloudtrail
"""
NOW_S = T0_NS / 1e9 + 100
JSON = {"Content-Type": "application/json"}
EVENTS = "/api/v1/security/events"


@pytest.fixture
def site(tmp_path: Path) -> Any:
    (tmp_path / "rules.yaml").write_text(RULES)
    made = make_site(tmp_path / "data", lambda: NOW_S, str(tmp_path / "rules.yaml"))
    yield made
    made.close()


@pytest.fixture
async def client(site: SecuritySite) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(create_app(site.services), skip_url_asserts=True)) as made:
        yield made


def at(second: int, rule: str = "r", **rest: Any) -> EventRecord:
    return record(rule, time_ns=T0_NS + second * 1_000_000_000, **rest)


async def get(client: TestClient[Any, Any], path: str, **parameters: Any) -> tuple[int, Any]:
    async with client.get(path, params=parameters) as answer:
        return answer.status, await answer.json()


def audit(**changes: Any) -> dict[str, Any]:
    event = {"kind": "Event", "auditID": "1", "verb": "create", "user": {"username": "eve"}}
    return {**event, "stageTimestamp": "2025-11-28T02:01:00.5Z", **changes}


async def test_events_come_newest_first_whole_and_filtered(
    site: SecuritySite, client: TestClient[Any, Any]
) -> None:
    site.deliver(
        at(0, "a"), at(1, "b", priority="Critical", pod="web"), at(2, "c", message="read /etc/shadow")
    )
    _, body = await get(client, EVENTS)
    assert [event["rule"] for event in body["data"]] == ["c", "b", "a"]
    event = body["data"][1]
    assert event["labels"] == {
        "hostname": "node-1",
        "pod": "web",
        "priority": "Critical",
        "rule": "b",
        "source": "syscall",
    }
    assert (event["hostname"], event["message"], event["tags"]) == (
        "node-1",
        "A shell started",
        ["container"],
    )
    assert event["output_fields"]["fd.num"] == 3
    assert event["time"] == "2025-11-28T02:00:01.000000000Z"
    for parameters, rules in (
        ({"match[]": '{priority=~"Crit.*"}'}, "b"),
        ({"match[]": 'vedette_security_events_total{pod=""}'}, "ca"),
        ({"text": "SHADOW"}, "c"),
        ({"start": "2025-11-28T02:00:01Z"}, "cb"),
        ({"end": str(T0_NS / 1e9)}, "a"),
        ({"limit": "1"}, "c"),
        ({"text": "nothing"}, ""),
    ):
        _, body = await get(client, EVENTS, **parameters)
        assert "".join(event["rule"] for event in body["data"]) == rules, parameters
    assert (await get(client, EVENTS, limit="2"))[1]["infos"] == ["results truncated due to limit 2"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("limit", "x", 'invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax'),
        ("limit", "10001", 'invalid parameter "limit": 10001 is more than 10000'),
        ("limit", "-1", 'invalid parameter "limit": limit must be non-negative'),
        ("start", "soon", "invalid parameter \"start\": invalid time value for 'start'"),
        ("end", "-1", 'invalid parameter "end": end timestamp must not be before start time'),
        ("match[]", "{a=", 'invalid parameter "match[]": 1:4: parse error'),
        ("text", "x" * 4097, 'invalid parameter "text": 4097 characters are more than 4096'),
        ("follow", "maybe", 'invalid parameter "follow": unable to parse boolean'),
    ],
)
async def test_wrong_parameters_are_named(
    client: TestClient[Any, Any], name: str, value: str, words: str
) -> None:
    status, body = await get(client, EVENTS, **{"start": "0", name: value})
    assert (status, body["errorType"]) == (400, "bad_data")
    assert body["error"].startswith(words)


async def next_event(stream: Any) -> tuple[str, Any]:
    kind = "message"
    while True:
        line = (await asyncio.wait_for(stream.readline(), 10)).decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            return kind, orjson.loads(line[6:])


async def test_a_follower_gets_the_past_and_then_what_it_wants_as_it_comes(
    site: SecuritySite, client: TestClient[Any, Any]
) -> None:
    site.deliver(*(at(n, str(n)) for n in range(5)))
    parameters = {"follow": "true", "limit": "2", "match[]": '{priority="Warning"}'}
    async with client.get(EVENTS, params=parameters) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert [(await next_event(answer.content))[1]["rule"] for _ in range(2)] == ["3", "4"]
        began = asyncio.get_running_loop().time()
        await asyncio.to_thread(site.deliver, at(5, "no", priority="Notice"), at(6, "yes"))
        assert (await next_event(answer.content))[1]["rule"] == "yes"
        assert asyncio.get_running_loop().time() - began < 1
    for _ in range(300):
        if site.security.feed.subscribers_count == 0:
            break
        await asyncio.sleep(0.01)
    assert site.security.feed.subscribers_count == 0


async def test_a_slow_follower_is_told_how_much_it_lost(
    site: SecuritySite, client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "QUEUE_RECORDS_LIMIT", 3)
    async with client.get(EVENTS, params={"follow": "1", "limit": "0"}) as answer:
        await answer.content.readline()
        # The loop is held, as by a client that does not read.
        site.deliver(*(at(n, str(n)) for n in range(10)))
        assert await next_event(answer.content) == ("lost", {"dropped": 7})
        assert [(await next_event(answer.content))[1]["rule"] for _ in range(3)] == ["7", "8", "9"]
    assert site.security.feed.dropped_count == 7


async def test_more_followers_than_the_limit_are_refused(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "SUBSCRIBERS_LIMIT", 1)
    async with client.get(EVENTS, params={"follow": "1"}):
        status, body = await get(client, EVENTS, follow="1")
    assert (status, body["error"]) == (500, "1 clients follow events, which is the limit")


async def test_an_audit_event_is_judged_stored_counted_and_acknowledged(
    site: SecuritySite, client: TestClient[Any, Any]
) -> None:
    items = [audit(), audit(auditID="2", verb="get"), {"auditID": "3", "verb": "create", "kind": None}]
    body = orjson.dumps({"kind": "EventList", "items": items})
    packed = gzip.compress(body)
    for data, headers in ((body, {}), (packed, {"Content-Encoding": "gzip"})):
        async with client.post("/k8s-audit", data=data, headers={**JSON, **headers}) as answer:
            assert (answer.status, await answer.text()) == (200, "")
    _, found = await get(client, EVENTS)
    assert [event["rule"] for event in found["data"]] == ["Audit"] * 4
    assert site.security.receivers["k8s_audit"].bodies == {"accepted": 2}
    status, answer = await get(
        client, "/api/v1/query", query="vedette_security_events_total{user_name='eve'}", time=str(NOW_S)
    )
    assert (status, answer["data"]["result"][0]["value"][1]) == (200, "2")
    _, rules = await get(client, "/api/v1/security/rules")
    assert {rule["name"]: rule["hits"] for rule in rules["data"]["rules"]} == {"Audit": 4, "Trail": 0}
    assert rules["data"]["lastReload"]["successful"] is True
    async with client.get("/metrics") as answer:
        text = await answer.text()
    assert (
        'falcosecurity_falco_rules_matches_total{priority="4",rule_name="Audit",source="k8s_audit"} 4.0'
        in text
    )
    assert 'vedette_security_source_bodies_total{outcome="accepted",source="k8s_audit"} 2.0' in text


@pytest.mark.parametrize(
    ("method", "data", "kind", "status", "words"),
    [
        ("GET", None, "application/json", 405, "GET method not allowed"),
        ("POST", b"{}", "text/plain", 400, "wrong Content Type"),
        ("POST", b"{", "application/json", 400, "bad request: data not recognized as a k8s audit event"),
        ("POST", b'{"kind":"Pod"}', "application/json", 400, "data not recognized as a k8s audit event"),
        ("POST", b"\x1f\x8bnonsense", "application/json", 400, "bad request: body is not gzip"),
        ("POST", b" " * ((12 << 20) + 1), "application/json", 400, "too large, the limit is 12582912 bytes"),
    ],
)
async def test_what_is_no_audit_body_is_refused_in_falcos_words(
    client: TestClient[Any, Any], method: str, data: bytes | None, kind: str, status: int, words: str
) -> None:
    async with client.request(method, "/k8s-audit", data=data, headers={"Content-Type": kind}) as answer:
        assert answer.status == status
        assert words in await answer.text()


async def test_cloudtrail_records_are_taken(site: SecuritySite, client: TestClient[Any, Any]) -> None:
    body = orjson.dumps({"Records": [{"eventName": "ListBuckets", "eventTime": "2025-11-28T02:00:00Z"}]})
    async with client.post("/cloudtrail", data=body) as answer:
        assert answer.status == 200
    assert (await get(client, EVENTS))[1]["data"][0]["message"] == "ListBuckets"
    site.security.open_to_http = frozenset()
    async with client.post("/cloudtrail", data=body) as answer:
        assert answer.status == 404
        assert "takes no events over HTTP" in await answer.text()


async def test_a_body_whose_events_cannot_be_stored_is_answered_503(
    site: SecuritySite, client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: EventLog, records: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(EventLog, "write", full)
    async with client.post("/k8s-audit", data=orjson.dumps(audit()), headers=JSON) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "no space left" in await answer.text()
    monkeypatch.setattr(securitysources, "BODIES_LIMIT", 0)
    async with client.post("/k8s-audit", data=orjson.dumps(audit()), headers=JSON) as answer:
        assert answer.status == 503
        assert "0 requests are in work" in await answer.text()
