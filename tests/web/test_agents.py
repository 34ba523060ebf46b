"""The channel of agents: over real HTTP between both ends, and each end against one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.channel import registry as registry_module
from agent.channel.client import ChannelClient, ChannelMetrics
from agent.channel.protocol import FRAME_EVENTS_LIMIT, PushedFile, Report, ReportAnswer
from agent.channel.pushedfiles import PushedFiles, PushError, content_hash, read_pushed_files, set_hash
from agent.channel.registry import AgentRegistry
from agent.channel.spool import EventSpool
from agent.channel.stagedfiles import StagedFiles
from ingest.config.httpclient import HTTPClientConfig
from ingest.diskqueue import DiskQueue
from ingest.httpclient import Answer, HTTPClient, RequestError
from security.output import EventOutput
from security.record import EventRecord
from tests.web.conftest import SiteFactory
from tsdb.errors import DiskFullError, UnknownVersionError

EPOCH = "0123456789abcdef" * 2
AGENT = "web-1-00ff00ff"


def record(number: int) -> EventRecord:
    output = EventOutput(
        "Shell", "syscall", 5, ("shell",), 10**18 + number, f"event {number}", {"proc.pid": number}
    )
    return EventRecord(output, (("rule", "Shell"),), "web-1")


def body(*numbers: int) -> bytes:
    return b"\n".join(record(number).to_wire() for number in numbers)


class Log:
    """Where events are delivered. `fail` is raised by the result of the next deliveries."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.fail: list[Exception] = []

    def deliver(self, records: Sequence[EventRecord]) -> Future[None]:
        done: Future[None] = Future()
        if self.fail:
            done.set_exception(self.fail.pop(0))
        else:
            self.messages += [each.output.message for each in records]
            done.set_result(None)
        return done


class Ends:
    """A server with a registry, and an agent's parts on the other end."""

    def __init__(self, site: Any, agents: AgentRegistry, log: Log, folder: Path, token: str = "") -> None:
        self.site, self.agents, self.log = site, agents, log
        self.url = str(site.client.make_url("")).rstrip("/")
        authorization = {"credentials": token} if token else None
        config = HTTPClientConfig.model_validate({"authorization": authorization} if authorization else {})
        self.http = HTTPClient(config, "Vedette/test")
        self.registry = CollectorRegistry()
        self.metrics = ChannelMetrics(self.registry)
        self.queue = DiskQueue(folder / "events", 1 << 20)
        self.spool = EventSpool(self.queue, self.metrics.dropped.labels("disk").inc)
        self.applied: list[list[tuple[str, bytes]]] = []
        self.files = StagedFiles(folder / "pushed", self.apply)
        self.channel = ChannelClient(
            AGENT, self.url, self.http, self.queue, self.files, self.report, self.metrics, jitter=lambda: 0.0
        )

    async def apply(self, files: Sequence[tuple[PushedFile, Path]]) -> None:
        contents = [(file.name, path.read_bytes()) for file, path in files]
        if any(content == b"bad" for _, content in contents):
            raise ValueError("rules/00-a.yaml:1: not a list")
        self.applied.append(contents)

    def report(self) -> Report:
        return Report(
            agent=AGENT,
            epoch=self.queue.epoch,
            hostname="web-1",
            version="1.0",
            started_ms=1,
            queued_events=self.queue.record_count,
            files=self.files.status,
        )

    async def send_all(self) -> None:
        await self.channel.start()
        async with asyncio.timeout(20):
            while self.queue.record_count:
                await asyncio.sleep(0.005)
        await self.channel.stop()

    async def close(self) -> None:
        await self.http.close()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"vedette_agent_{name}", labels) or 0.0


@pytest.fixture
async def make_ends(make_site: SiteFactory, tmp_path: Path) -> Any:
    made: list[Ends] = []

    async def make(token: str = "", agent_token: str | None = None) -> Ends:
        log = Log()
        agents = AgentRegistry(log.deliver, tmp_path / "agents", CollectorRegistry())
        site = await make_site(agents=agents, agent_token=token)
        ends = Ends(site, agents, log, tmp_path, token if agent_token is None else agent_token)
        made.append(ends)
        return ends

    yield make
    for ends in made:
        await ends.close()


async def post(
    ends: Ends, sequence: int | str, content: bytes, epoch: str = EPOCH, agent: str = AGENT, **headers: str
) -> tuple[int, Any]:
    given = {"X-Vedette-Epoch": epoch, "X-Vedette-Sequence": str(sequence), **headers}
    status, answer = await ends.site.post(f"/api/v1/agents/{agent}/events", data=content, headers=given)
    return status, answer


async def test_events_arrive_in_order_and_are_acknowledged(make_ends: Any) -> None:
    ends = await make_ends()
    ends.spool.write([record(n) for n in range(3)])
    ends.spool.write([record(3)])
    await ends.send_all()
    assert ends.log.messages == [f"event {n}" for n in range(4)]
    assert (ends.metric("events_sent_total"), ends.metric("events_queued")) == (4, 0)


async def test_events_that_the_server_could_not_store_are_sent_again(make_ends: Any) -> None:
    ends = await make_ends()
    ends.log.fail = [OSError("disk is full"), OSError("disk is full")]
    ends.spool.write([record(1)])
    ends.spool.write([record(2)])
    await ends.send_all()
    assert ends.log.messages == ["event 1", "event 2"]
    assert ends.metric("events_retries_total") == 2


async def test_a_repeated_request_is_stored_once_also_by_a_restarted_server(
    make_ends: Any, tmp_path: Path
) -> None:
    ends = await make_ends()
    assert await post(ends, 1, body(1)) == (200, {"acknowledged": 1, "refused": 0, "error": ""})
    assert await post(ends, 1, body(1)) == (200, {"acknowledged": 1, "refused": 0, "error": ""})
    ends.site.services.agents = AgentRegistry(ends.log.deliver, tmp_path / "agents", CollectorRegistry())
    assert (await post(ends, 1, body(1)))[1]["acknowledged"] == 1
    assert (await post(ends, 5, body(5)))[1]["acknowledged"] == 5
    assert ends.log.messages == ["event 1", "event 5"]
    another = "f" * 32
    assert (await post(ends, 1, body(6), epoch=another))[1]["acknowledged"] == 1
    assert ends.log.messages[-1] == "event 6"


async def test_requests_of_one_agent_at_once_are_stored_once(make_ends: Any) -> None:
    ends = await make_ends()
    answers = await asyncio.gather(*(post(ends, 1, body(1)) for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    assert ends.log.messages == ["event 1"]


async def test_invalid_events_are_counted_and_the_others_stored(make_ends: Any) -> None:
    ends = await make_ends()
    status, answer = await post(ends, 1, body(1) + b'\n{"v":1}\nnonsense\n' + body(2))
    assert (status, answer["refused"]) == (200, 2)
    assert answer["error"].startswith("invalid record: rule")
    assert ends.log.messages == ["event 1", "event 2"]


@pytest.mark.parametrize(
    ("agent", "epoch", "sequence", "text"),
    [
        ("a b", EPOCH, 1, "agent: "),
        ("..", EPOCH, 1, ""),
        ("a", "short", 1, "epoch: "),
        ("a", EPOCH, 0, "sequence: "),
        ("a", EPOCH, "x", "sequence: "),
        ("a", EPOCH, 1 << 62, "sequence: "),
    ],
)
async def test_a_wrong_envelope_is_refused(
    make_ends: Any, agent: str, epoch: str, sequence: int | str, text: str
) -> None:
    ends = await make_ends()
    status, answer = await post(ends, sequence, body(1), epoch, agent)
    assert status in (400, 404, 405)
    assert text in str(answer)
    assert ends.log.messages == []


async def test_too_many_events_too_many_bytes_and_too_fast_are_refused_with_the_limit(
    make_ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = await make_ends()
    status, text = await post(ends, 1, b"\n" * FRAME_EVENTS_LIMIT)
    assert (status, text.strip()) == (413, "5001 events in one request, the limit is 5000")
    status, _ = await post(ends, 1, b"x" * (5 << 20))
    assert status == 413
    monkeypatch.setattr(registry_module, "EVENTS_BURST_LIMIT", 3.0)
    status, text = await post(ends, 1, body(1, 2, 3, 4))
    assert (status, text.strip()) == (429, "more than 20000 events a second, which is the limit")
    assert ends.log.messages == []


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        ("", {}, 200),
        ("", {"X-Forwarded-For": "10.0.0.1"}, 403),
        ("secret", {}, 401),
        ("secret", {"Authorization": "Bearer wrong"}, 401),
        ("secret", {"Authorization": "Basic secret"}, 401),
        ("secret", {"Authorization": "Bearer geheim\xfc"}, 401),
        ("secret", {"Authorization": "Bearer secret", "X-Forwarded-For": "10.0.0.1"}, 200),
    ],
)
async def test_who_may_send(make_ends: Any, token: str, headers: dict[str, str], status: int) -> None:
    ends = await make_ends(token)
    found, text = await post(ends, 1, body(1), **headers)
    assert found == status, text
    assert bool(ends.log.messages) == (status == 200)
    reported, _ = await ends.site.post(
        f"/api/v1/agents/{AGENT}/report", data=ends.report().model_dump_json(), headers=headers
    )
    fetched, _ = await ends.site.get(f"/api/v1/agents/files/{'0' * 64}", headers=headers)
    assert (reported, fetched) == (status, 404 if status == 200 else status)


async def test_the_agent_sends_its_token(make_ends: Any) -> None:
    ends = await make_ends("secret")
    ends.spool.write([record(1)])
    await ends.send_all()
    assert ends.log.messages == ["event 1"]


async def test_agents_are_listed_with_what_they_report(make_ends: Any) -> None:
    ends = await make_ends()
    ends.spool.write([record(1)])
    await ends.channel.report_once()
    _, answer = await ends.site.get("/api/v1/agents")
    (row,) = answer["data"]
    assert (row["agent"], row["hostname"], row["version"], row["queued_events"]) == (AGENT, "web-1", "1.0", 1)
    assert (row["address"], row["up_to_date"]) == ("127.0.0.1", True)
    assert ends.metric("connected") == 1


async def test_the_number_of_agents_is_bounded(make_ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "AGENTS_COUNT_LIMIT", 2)
    ends = await make_ends()
    statuses = [(await post(ends, 1, body(1), agent=f"agent-{n}"))[0] for n in range(3)]
    assert statuses == [200, 200, 429]


def pushed(*files: tuple[str, bytes]) -> PushedFiles:
    notes = tuple(PushedFile(name=name, sha256=content_hash(c), size=len(c)) for name, c in files)
    return PushedFiles(notes, {content_hash(content): content for _, content in files})


async def test_files_are_pushed_by_hash_and_a_bad_set_changes_nothing(make_ends: Any) -> None:
    ends = await make_ends()
    good = pushed(("agent.yml", b"agent: {}"), ("rules/00-a.yaml", b"[]"))
    ends.agents.pushed = good
    await ends.channel.report_once()
    assert ends.applied == [[("agent.yml", b"agent: {}"), ("rules/00-a.yaml", b"[]")]]
    assert ends.files.status.set == good.hash
    await ends.channel.report_once()
    assert len(ends.applied) == 1
    bad = ends.agents.pushed = pushed(("rules/00-a.yaml", b"bad"))
    await ends.channel.report_once()
    await ends.channel.report_once()
    status = ends.files.status
    assert (status.set, status.rejected) == (good.hash, bad.hash)
    assert status.error == "rules/00-a.yaml:1: not a list"
    _, answer = await ends.site.get("/api/v1/agents")
    assert answer["data"][0]["files"]["error"] == "rules/00-a.yaml:1: not a list"
    assert not answer["data"][0]["up_to_date"]
    ends.agents.pushed = PushedFiles()
    await ends.channel.report_once()
    assert ends.applied[-1] == []
    assert ends.files.status.set == ""


async def test_a_full_disk_does_not_end_the_reports(make_ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = await make_ends()
    ends.agents.pushed = pushed(("rules/00-a.yaml", b"[]"))

    def full(answer: ReportAnswer) -> None:
        raise DiskFullError("no space left on device")

    monkeypatch.setattr(ends.files, "_make_current", full)
    await ends.channel.report_once()
    assert len(ends.applied) == 1
    assert ends.files.status.set == ends.agents.pushed.hash


async def test_the_set_of_the_last_time_runs_before_the_server_is_reached(
    make_ends: Any, tmp_path: Path
) -> None:
    ends = await make_ends()
    ends.agents.pushed = pushed(("rules/00-a.yaml", b"[]"))
    await ends.channel.report_once()
    again: list[list[str]] = []

    async def apply(files: Sequence[tuple[PushedFile, Path]]) -> None:
        again.append([file.name for file, _ in files])

    files = StagedFiles(tmp_path / "pushed", apply)
    await files.resume()
    assert again == [["rules/00-a.yaml"]]
    assert files.status.set == ends.agents.pushed.hash
    (content,) = (tmp_path / "pushed" / "files").iterdir()
    content.write_bytes(b"{}")
    damaged = StagedFiles(tmp_path / "pushed", apply)
    await damaged.resume()
    assert (len(again), damaged.status.set) == (1, "")


def test_pushed_files_are_read_in_order_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (tmp_path / "rules" / name).write_text("[]")
    (tmp_path / "own.yaml").write_text("- list: x")
    (tmp_path / "agent.yml").write_text("agent: {}")
    found = read_pushed_files(
        str(tmp_path / "agent.yml"), [str(tmp_path / "rules"), str(tmp_path / "own.yaml")]
    )
    names = [file.name for file in found.files]
    assert names == ["agent.yml", "rules/00-a.yml", "rules/01-b.yaml", "rules/02-own.yaml"]
    (tmp_path / "rules" / "a b.yaml").write_text("[]")
    with pytest.raises(PushError, match=r"may have letters, digits"):
        read_pushed_files("", [str(tmp_path / "rules")])
    (tmp_path / "large.yaml").write_bytes(b"x" * (5 << 20))
    with pytest.raises(PushError, match=r"larger than the limit of 4194304 bytes"):
        read_pushed_files("", [str(tmp_path / "large.yaml")])


def test_a_position_of_a_newer_server_is_refused_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    log = Log()
    (tmp_path / AGENT).write_text(json.dumps([1, AGENT, EPOCH, 7, 12345]))
    agents = AgentRegistry(log.deliver, tmp_path, CollectorRegistry())
    assert agents._arrivals.sequence(AGENT, EPOCH) == 0
    (tmp_path / AGENT).write_text(json.dumps([9, AGENT, EPOCH, 7, 12345]))
    with pytest.raises(UnknownVersionError, match="format version 9, known is 1"):
        AgentRegistry(log.deliver, tmp_path, CollectorRegistry())


class Liar:
    """A server that answers anything."""

    def __init__(self, answers: list[Answer | Exception]) -> None:
        self.answers, self.sequences = answers, list[str]()

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float, body_bytes_limit: int
    ) -> Answer:
        if url.endswith("/events"):
            self.sequences.append(headers["X-Vedette-Sequence"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get(
        self, url: str, headers: Mapping[str, str], timeout_seconds: float, body_bytes_limit: int
    ) -> Answer:
        return Answer(200, "OK", {}, b"other content")


def said(status: int, text: object) -> Answer:
    return Answer(status, "", {}, text if isinstance(text, bytes) else json.dumps(text).encode())


async def channel_to(
    liar: Liar, folder: Path
) -> tuple[ChannelClient, DiskQueue, CollectorRegistry, StagedFiles]:
    registry, queue = CollectorRegistry(), DiskQueue(folder / "events", 1 << 20)

    async def apply(files: Sequence[tuple[PushedFile, Path]]) -> None:
        raise AssertionError("applied what it should not")

    class Quick:
        def now_ms(self) -> int:
            return 0

        def monotonic(self) -> float:
            return time.monotonic()

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0.001 if seconds < 9 else seconds)

    def report() -> Report:
        return Report(agent=AGENT, epoch=queue.epoch, hostname="h", version="1", started_ms=0)

    files = StagedFiles(folder / "pushed", apply)
    metrics = ChannelMetrics(registry)
    channel = ChannelClient(
        AGENT, "http://liar", liar, queue, files, report, metrics, clock=Quick(), jitter=lambda: 1.0
    )
    EventSpool(queue, lambda n: None).write([record(1)])
    EventSpool(queue, lambda n: None).write([record(2)])
    return channel, queue, registry, files


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "lie",
    [
        said(200, b"garbage"),
        said(200, {"acknowledged": 0}),
        said(200, {"acknowledged": -1}),
        said(200, {"acknowledged": "1"}),
        said(200, [[]]),
        said(500, "x"),
        said(302, ""),
        RequestError("connection reset"),
    ],
)
async def test_events_stay_until_they_are_acknowledged(tmp_path: Path, lie: Answer | Exception) -> None:
    liar = Liar([lie, lie, lie, lie, lie, said(200, {"acknowledged": 99})])
    channel, queue, registry, _ = await channel_to(liar, tmp_path)
    await channel._lane.start()
    await until(lambda: queue.record_count == 0)
    await channel.stop()
    assert liar.sequences == ["1"] * 6 + ["2"]
    assert registry.get_sample_value("vedette_agent_events_sent_total") == 2


async def test_what_the_server_blames_on_the_request_is_given_up_and_counted(tmp_path: Path) -> None:
    channel, queue, registry, _ = await channel_to(
        Liar([said(400, "no"), said(200, {"acknowledged": 2})]), tmp_path
    )
    await channel._lane.start()
    await until(lambda: queue.record_count == 0)
    await channel.stop()
    assert registry.get_sample_value("vedette_agent_events_dropped_total", {"reason": "refused"}) == 1
    assert registry.get_sample_value("vedette_agent_events_sent_total") == 1


NOTE = {"name": "rules/00-a.yaml", "sha256": content_hash(b"content"), "size": 7}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"acknowledged": 0, "set": "0" * 64, "files": [NOTE]}, "hash of the set"),
        (
            {"acknowledged": 0, "set": set_hash([PushedFile(**NOTE)]), "files": [NOTE]},  # type: ignore[arg-type]
            "does not match its hash",
        ),
        ({"acknowledged": 0, "set": "x"}, ""),
        ({"acknowledged": 0, "set": "0" * 64, "files": [{**NOTE, "name": "../../etc/passwd"}]}, ""),
        ({"acknowledged": 0, "set": "0" * 64, "files": [NOTE] * 1000}, ""),
        (b"\xff", ""),
    ],
)
async def test_garbage_that_is_pushed_is_not_applied(tmp_path: Path, answer: object, text: str) -> None:
    channel, _, registry, files = await channel_to(Liar([said(200, answer)]), tmp_path)
    await channel.report_once()
    assert text in files.status.error
    assert files.status.set == files.status.rejected == ""
    assert not (tmp_path / "pushed" / "current").exists()
    outcome = "taken" if text else "failed"
    assert registry.get_sample_value("vedette_agent_reports_total", {"outcome": outcome}) == 1


def test_an_empty_answer_asks_for_nothing() -> None:
    assert ReportAnswer(acknowledged=0).files == []
