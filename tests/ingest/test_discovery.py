"""Discovery: static groups, watched files, HTTP answers, DNS records, and updates to the pools."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest.clock import SystemClock
from ingest.config.discovery import DNSSDConfig
from ingest.config.document import parse_config
from ingest.config.scrape import ScrapeConfig
from ingest.discovery.dns import DNSDiscovery
from ingest.discovery.dnsquery import DNSError, Record, Resolver, lookup, parse_answer, system_resolver
from ingest.discovery.file import read_file
from ingest.discovery.group import DiscoveryError, read_groups
from ingest.discovery.registry import DiscoveryRegistry, Groups
from ingest.metrics import DiscoveryMetrics
from ingest.relabel import Relabeler
from ingest.scrape.target import DiscoveredGroup, build_targets
from tests.e2e.processes import lasting_port
from tests.ingest.scrapebench import MovedClock, until

PORT, NAMES_PORT, SILENT_PORT = lasting_port(), lasting_port(), lasting_port()


class Bench:
    """A registry that remembers what it was told."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.registry = CollectorRegistry()
        self.updates: list[dict[str, list[DiscoveredGroup]]] = []
        self.discovery = DiscoveryRegistry(
            self.clock, DiscoveryMetrics(self.registry), self.record, "Vedette-test"
        )

    async def record(self, groups: Groups) -> None:
        self.updates.append({name: list(found) for name, found in groups.items()})

    async def apply(self, text: str) -> None:
        jobs = parse_config(f"scrape_configs:\n{text}").jobs
        await self.discovery.apply({job.job_name: job for job in jobs})
        await self.clock.settle()

    def addresses(self, job: str = "j") -> list[str]:
        return [t["__address__"] for g in self.discovery.groups()[job] for t in g.targets]

    async def until_addresses(self, *expected: str) -> None:
        await until(lambda: self.addresses() == list(expected))

    def failures(self, mechanism: str) -> float:
        labels = {"mechanism": mechanism, "config": "j"}
        return self.registry.get_sample_value("prometheus_sd_refresh_failures_total", labels) or 0.0


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.discovery.close()


async def test_static_groups_arrive_at_once_and_in_one_update(bench: Bench) -> None:
    await bench.apply(
        "- job_name: j\n  static_configs:\n"
        "  - {targets: ['a:1', 'b:2'], labels: {x: y}}\n  - targets: ['c:3']\n"
        "- job_name: k\n  static_configs: [{targets: ['d:4']}]\n"
    )
    assert len(bench.updates) == 1
    assert bench.addresses() == ["a:1", "b:2", "c:3"]
    assert bench.addresses("k") == ["d:4"]
    assert bench.updates[0]["j"][0].labels == {"x": "y"}


async def test_updates_are_at_most_every_five_seconds(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"targets": ["a:1"]}]')
    await bench.apply(f"- {{job_name: j, file_sd_configs: [{{files: ['{path}']}}]}}\n")
    await bench.until_addresses("a:1")
    await bench.clock.advance(5)
    count = len(bench.updates)
    for second in range(4):
        path.write_text(json.dumps([{"targets": [f"b:{second}"]}]))
        await bench.clock.advance(1)
        await bench.until_addresses(f"b:{second}")
    await bench.clock.advance(1)
    assert len(bench.updates) - count <= 2
    assert bench.updates[-1]["j"][0].targets[0]["__address__"] == "b:3"


async def test_a_changed_file_is_read_and_a_bad_one_keeps_its_targets(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "targets.yml"
    path.write_text("- targets: [a:1]\n  labels: {env: prod}\n")
    await bench.apply(f"- {{job_name: j, file_sd_configs: [{{files: ['{tmp_path}/*.yml']}}]}}\n")
    await bench.until_addresses("a:1")
    group = bench.discovery.groups()["j"][0]
    assert group.labels == {"env": "prod", "__meta_filepath": str(path)}
    path.write_text("- targets: [a:1, b:2\n")
    await bench.clock.advance(2)
    await until(lambda: bench.failures("file") == 1)
    await bench.clock.advance(2)
    assert bench.addresses() == ["a:1"]
    assert bench.failures("file") == 1
    (tmp_path / "more.yml").write_text("- targets: [c:3]\n")
    path.write_text("- targets: [b:2]\n")
    await bench.clock.advance(2)
    await until(lambda: sorted(bench.addresses()) == ["b:2", "c:3"])
    os.remove(path)
    await bench.clock.advance(2)
    await bench.until_addresses("c:3")


BAD_GROUPS: list[tuple[Any, str]] = [
    ({"targets": []}, "expected a list"),
    ([None], "nil target group"),
    ([{"targets": "a"}], "targets"),
    ([{"target": ["a"]}], "target"),
    ([{"targets": ["a"], "labels": {"": "x"}}], "labels"),
    ([1], "0"),
]


@pytest.mark.parametrize(("data", "error"), BAD_GROUPS)
def test_malformed_groups_are_refused(data: Any, error: str) -> None:
    with pytest.raises(DiscoveryError, match=error):
        read_groups(data, "file", {})


def test_json_and_yaml_files_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"targets": ["a:1"], "labels": {"x": "1"}}]')
    (tmp_path / "a.yaml").write_text("- {targets: [a:1], labels: {x: 1}}\n")
    found = [read_file(str(tmp_path / name))[0] for name in ("a.json", "a.yaml")]
    assert found[0].targets == found[1].targets
    assert found[0].labels["x"] == found[1].labels["x"] == "1"
    (tmp_path / "empty.yml").write_text("")
    assert read_file(str(tmp_path / "empty.yml")) == []


class Targets:
    """An HTTP endpoint that lists targets."""

    def __init__(self) -> None:
        self.answer: Any = [{"targets": ["a:1"], "labels": {"x": "y"}}]
        self.status = 200
        self.content_type = "application/json; charset=utf-8"
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.headers.append(dict(request.headers))
        return web.Response(
            body=json.dumps(self.answer).encode(),
            status=self.status,
            headers={"Content-Type": self.content_type},
        )


async def test_http_answers_are_used_and_bad_ones_keep_what_was_found(bench: Bench) -> None:
    server = Targets()
    runner = web.ServerRunner(web.Server(server.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    try:
        url = f"http://127.0.0.1:{PORT}/targets"
        await bench.apply(f"- {{job_name: j, http_sd_configs: [{{url: '{url}', refresh_interval: 10s}}]}}\n")
        await bench.until_addresses("a:1")
        assert bench.discovery.groups()["j"][0].labels == {"x": "y", "__meta_url": url}
        assert server.headers[0]["X-Prometheus-Refresh-Interval-Seconds"] == "10"
        changes: list[tuple[str, Any]] = [
            ("status", 500),
            ("content_type", "text/html"),
            ("answer", {"a": 1}),
        ]
        for count, (name, value) in enumerate(changes, start=1):
            good = getattr(server, name)
            setattr(server, name, value)
            await bench.clock.advance(10)
            await until(lambda count=count: bench.failures("http") == count)  # type: ignore[misc]
            assert bench.addresses() == ["a:1"]
            setattr(server, name, good)
        server.answer = [{"targets": ["b:2"]}]
        await bench.clock.advance(10)
        await bench.until_addresses("b:2")
    finally:
        await runner.cleanup()


async def test_an_unchanged_mechanism_is_kept_over_a_reload(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"targets": ["a:1"]}]')
    text = f"- {{job_name: j, file_sd_configs: [{{files: ['{path}']}}]}}\n"
    await bench.apply(text)
    await bench.until_addresses("a:1")
    running = bench.discovery._jobs["j"].running[0]
    await bench.apply(text + "- {job_name: k, static_configs: [{targets: ['d:4']}]}\n")
    assert bench.discovery._jobs["j"].running[0] is running
    assert bench.addresses() == ["a:1"]
    await bench.apply("- {job_name: k, static_configs: [{targets: ['d:4']}]}\n")
    assert list(bench.discovery.groups()) == ["k"]


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(p)]) + p.encode() for p in name.rstrip(".").split(".")) + b"\0"


def answer_of(query: bytes, records: Sequence[tuple[int, bytes]], flags: int = 0x8180) -> bytes:
    """A DNS answer to a query; names of answers point to the question."""
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
    body = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data for kind, data in records
    )
    return head + query[12:] + body


class NameServer(asyncio.DatagramProtocol):
    """A name server that answers from a table, over UDP and TCP."""

    def __init__(self) -> None:
        self.table: dict[tuple[bytes, int], list[tuple[int, bytes]]] = {}
        self.truncate = False
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def answer(self, query: bytes, truncate: bool) -> bytes:
        name, kind = query[12:-4], struct.unpack(">H", query[-4:-2])[0]
        records = self.table.get((name, kind))
        if records is None:
            return answer_of(query, [], 0x8183)
        return answer_of(query, [], 0x8380) if truncate else answer_of(query, records)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        assert self.transport is not None
        self.transport.sendto(self.answer(data, self.truncate), addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        reply = self.answer(await reader.readexactly(length), False)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    made = NameServer()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", NAMES_PORT))
    tcp = await asyncio.start_server(made.serve_tcp, "127.0.0.1", NAMES_PORT)
    yield made
    transport.close()
    tcp.close()


RESOLVER = Resolver(("127.0.0.1",), ("corp.example",), NAMES_PORT)
SRV_DATA = struct.pack(">HHH", 1, 2, 9100) + encoded("host.example")


async def test_dns_records_of_every_type_become_targets(name_server: NameServer) -> None:
    name_server.table = {
        (encoded("_m._tcp.example"), 33): [(33, SRV_DATA)],
        (encoded("a.example"), 1): [(1, bytes([10, 0, 0, 1])), (1, bytes([10, 0, 0, 2]))],
        (encoded("a.example"), 28): [(28, bytes(15) + b"\x01")],
        (encoded("a.example"), 15): [(15, b"\0\x05" + encoded("mail.example"))],
        (encoded("a.example"), 2): [(2, encoded("ns.example"))],
    }
    expected = {
        "SRV": (["host.example:9100"], "__meta_dns_srv_record_target", "host.example."),
        "A": (["10.0.0.1:80", "10.0.0.2:80"], "__meta_dns_name", "a.example"),
        "AAAA": (["[::1]:80"], "__meta_dns_name", "a.example"),
        "MX": (["mail.example:80"], "__meta_dns_mx_record_target", "mail.example."),
        "NS": (["ns.example:80"], "__meta_dns_ns_record_target", "ns.example."),
    }
    for kind, (addresses, label, value) in expected.items():
        name = "_m._tcp.example" if kind == "SRV" else "a.example"
        config = DNSSDConfig.model_validate({"names": [name], "type": kind, "port": 80})
        discovery = DNSDiscovery(
            config, MovedClock(), DiscoveryMetrics(CollectorRegistry()), "j", random.Random(1), RESOLVER
        )
        published: list[Sequence[DiscoveredGroup]] = []
        task = asyncio.create_task(discovery.run(published.append))
        await until(lambda published=published: bool(published))  # type: ignore[misc]
        task.cancel()
        (group,) = published[0]
        assert [t["__address__"] for t in group.targets] == addresses
        assert group.targets[0][label] == value
        built = list(
            build_targets(
                [group], ScrapeConfig(job_name="j").resolve(parse_config("").globals), Relabeler(())
            )
        )
        assert all(item.target is not None for item in built)


async def test_a_truncated_answer_is_asked_for_again_over_tcp(name_server: NameServer) -> None:
    name_server.table = {(encoded("a.example"), 1): [(1, bytes([10, 0, 0, n])) for n in range(60)]}
    name_server.truncate = True
    assert len(await lookup("a.example", "A", RESOLVER, random.Random(2))) == 60


async def test_search_domains_are_tried(name_server: NameServer) -> None:
    name_server.table = {(encoded("web.corp.example"), 1): [(1, bytes([10, 0, 0, 9]))]}
    assert await lookup("web", "A", RESOLVER, random.Random(3)) == [Record("A", "10.0.0.9")]
    assert await lookup("nowhere", "A", RESOLVER, random.Random(3)) == []


async def test_no_name_server_is_an_error() -> None:
    with pytest.raises(DNSError, match="could not resolve"):
        await lookup("a.example", "A", Resolver(("127.0.0.1",), (), SILENT_PORT), random.Random(4))


def test_the_resolver_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# c\nnameserver 10.0.0.53\nnameserver fe80::1\nsearch a.example b.example\n")
    assert system_resolver(str(path)) == Resolver(("10.0.0.53", "fe80::1"), ("a.example", "b.example"))
    assert system_resolver(str(tmp_path / "absent")).servers == ("127.0.0.1",)


@given(st.binary(max_size=60), st.sampled_from(["A", "AAAA", "SRV", "MX", "NS"]))
def test_arbitrary_dns_answers_never_crash(tail: bytes, kind: str) -> None:
    message = struct.pack(">HHHHHH", 7, 0x8180, 1, 2, 0, 0) + tail
    try:
        records = parse_answer(message, 7, kind)
    except DNSError:
        return
    assert len(records) <= 2


TARGETS: list[tuple[dict[str, str], str]] = [
    ({"__address__": ""}, "no address"),
    ({"__address__": "http://a"}, '"http://a" is not a valid hostname'),
    ({"__address__": "a", "__scrape_interval__": "0s"}, "scrape interval cannot be 0"),
    ({"__address__": "a", "__scrape_interval__": "x"}, "error parsing scrape interval"),
    ({"__address__": "a", "__scrape_timeout__": "2m"}, "scrape timeout cannot be greater"),
    ({"__address__": "a", "__scrape_native_histograms__": "maybe"}, "invalid boolean"),
]


@pytest.mark.parametrize(("labels", "error"), TARGETS)
def test_labels_that_make_no_target_are_refused(labels: dict[str, str], error: str) -> None:
    job = ScrapeConfig(job_name="j").resolve(parse_config("").globals)
    (built,) = build_targets([DiscoveredGroup("s", (labels,), {})], job, Relabeler(()))
    assert built.target is None
    assert error in built.error


def test_a_target_takes_its_url_from_hidden_labels() -> None:
    job = ScrapeConfig(job_name="j", params={"m": ["x", "y"]}).resolve(parse_config("").globals)
    labels = {
        "__address__": "[::1]:9", "__scheme__": "https", "__metrics_path__": "p/q r", "__param_m": "z",
        "__param_n": "a b", "__meta_x": "gone", "env": "prod", "__scrape_interval__": "5s",
        "__scrape_timeout__": "1s",
    }  # fmt: skip
    (built,) = build_targets(
        [DiscoveredGroup("s", (labels,), {"env": "dev", "zone": "1"})], job, Relabeler(())
    )
    target = built.target
    assert target is not None
    assert target.url == "https://[::1]:9/p/q%20r?m=z&m=y&n=a+b"
    assert target.labels.to_dict() == {"env": "prod", "instance": "[::1]:9", "job": "j", "zone": "1"}
    assert (target.interval_ms, target.timeout_ms) == (5000, 1000)
    assert target.discovered.get("__meta_x") == "gone"
    assert 0 <= target.offset_ms(12345) < 5000


def test_system_clock_is_in_milliseconds() -> None:
    assert SystemClock().now_ms() > 1_600_000_000_000
