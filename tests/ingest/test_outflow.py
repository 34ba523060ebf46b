"""From a store to a remote-write destination: what is sent, what survives, what a bad receiver cannot do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from ingest.config.remote import MESSAGES, RemoteWriteConfig
from ingest.remotewrite import outflow
from ingest.remotewrite.destinations import Destinations, labels_by_ref
from ingest.remotewrite.receiver import Receiver, RemoteWriteLimits
from tests.ingest.memoryappender import NOW_MS as T0
from tests.ingest.memoryappender import MemoryAppender
from tests.tsdb.stores import Store, name
from tsdb.columns import Exemplar, Metadata, SampleColumns, WriteBatch
from tsdb.labels import Labels
from tsdb.select import STALE_BITS
from tsdb.series import SeriesTable
from tsdb.symbols import SymbolTable


@dataclass
class Peer:
    """A receiver of this process on a port: ours over a store in memory; `statuses` are given first."""

    store: MemoryAppender = field(default_factory=MemoryAppender)
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Peer]:
        table = SeriesTable(SymbolTable(), (1, 2), series_limit=4096)
        receiver = Receiver(self.store, table, RemoteWriteLimits(), CollectorRegistry(), threads=1)

        async def write(request: web.Request) -> web.Response:
            body = await request.read()
            self.requests.append(({k.lower(): v for k, v in request.headers.items()}, body))
            if self.statuses:
                return web.Response(status=self.statuses.pop(0), text="no\n")
            status, headers, text = await receiver.handle(body, request.headers)
            return web.Response(status=status, headers=headers, text=text or None)

        app = web.Application()
        app.router.add_post("/write", write)
        runner = web.AppRunner(app, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/write"
        try:
            yield self
        finally:
            await runner.cleanup()
            receiver.close()

    def values(self, labels: Labels) -> list[float]:
        bits = np.array(list(self.store.samples.get(labels, {}).values()), np.uint64)
        return bits.view(np.float64).tolist()


class Setup:
    """A store whose samples go to destinations."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.store = Store(folder / "store")
        self.folder = folder / "queues"
        self.registry = CollectorRegistry()
        self.families: list[Metadata] = []
        self.destinations = Destinations(
            self.folder,
            labels_by_ref(self.store.db.series_table),
            lambda: self.families,
            self.registry,
            "Vedette/test",
            **{"flush_seconds": 0.0, **options},
        )
        self.store.db.appender().listeners = (self.destinations.offer,)

    def add(self, labels: Labels, *values: float) -> None:
        """Samples a second apart, from T0 on or after what the series has."""
        done = len(self.store.expected.get(labels, {}))
        rows = [(labels, T0 + 1000 * (done + at), value) for at, value in enumerate(values)]
        self.store.expected.setdefault(labels, {}).update({t: value for _, t, value in rows})
        self.store.append(rows)

    async def close(self) -> None:
        await self.destinations.close()
        self.store.db.close()

    def metric(self, name: str, config: RemoteWriteConfig, **labels: str) -> float:
        found = {"remote_name": config.name, "url": config.url, **labels}
        return self.registry.get_sample_value(f"prometheus_remote_storage_{name}", found) or 0.0


def config(peer: Peer, **keys: Any) -> RemoteWriteConfig:
    return RemoteWriteConfig.model_validate({"name": "peer", "url": peer.url, **keys})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("message", MESSAGES)
async def test_what_the_store_takes_arrives_with_external_labels_relabelled(
    tmp_path: Path, message: str
) -> None:
    peer, setup = Peer(), Setup(tmp_path)
    rules = [
        {"source_labels": ["i"], "regex": "2", "action": "drop"},
        {"source_labels": ["i"], "target_label": "number"},
        {"regex": "i", "action": "labeldrop"},
    ]
    async with peer.running():
        configured = config(
            peer, protobuf_message=message, write_relabel_configs=rules, headers={"X-Scope": "a"}
        )
        external = {"site": "b", "rack": "outer"}
        await setup.destinations.apply([configured], external)
        stale = float(np.array([STALE_BITS], np.uint64).view(np.float64)[0])
        setup.add(name(1), 1.5, stale)
        setup.add(name(2), 7.0)
        setup.add(name(3, rack="inner"), 3.0)
        first = Labels.from_dict({"__name__": "m", "number": "1", "site": "b", "rack": "outer"})
        third = Labels.from_dict({"__name__": "m", "number": "3", "site": "b", "rack": "inner"})
        await until(lambda: len(peer.store.samples.get(third, {})) == 1)
        assert list(peer.store.samples[first].values())[-1] == STALE_BITS
        assert {labels for labels in peer.store.samples if labels} == {first, third}
        headers, _ = peer.requests[0]
        version, proto = ("0.1.0", "") if message == MESSAGES[0] else ("2.0.0", f";proto={message}")
        assert headers["x-prometheus-remote-write-version"] == version
        assert headers["content-type"] == f"application/x-protobuf{proto}"
        assert (headers["x-scope"], headers["user-agent"]) == ("a", "Vedette/test")
        await until(lambda: setup.metric("samples_total", configured) == 3)
        assert setup.metric("samples_dropped_total", configured, reason="dropped_series") == 1
        await until(lambda: setup.metric("samples_pending", configured) == 0)
        assert setup.metric("queue_highest_timestamp_seconds", configured) == (T0 + 1000) / 1000
        assert setup.registry.get_sample_value("prometheus_remote_storage_samples_in_total") == 4
        await setup.close()


async def test_what_the_store_refuses_is_not_sent(tmp_path: Path) -> None:
    peer, setup = Peer(), Setup(tmp_path)
    async with peer.running():
        await setup.destinations.apply([config(peer)], {})
        setup.add(name(1), 1.0)
        appender = setup.store.db.appender()
        (ref,) = appender.refs([name(1)]).tolist()
        far = T0 + 10 * 24 * 3_600_000

        def batch(t_ms: int) -> WriteBatch:
            refs = np.array([ref, ref], np.uint32)
            return WriteBatch(SampleColumns(refs, np.array([t_ms, far]), np.array([2.0, 9.0])))

        assert appender.append(batch(T0 + 1), atomic=True).stored_count == 0
        assert appender.append(batch(T0 + 2)).stored_count == 1
        await until(lambda: len(peer.values(name(1))) == 2)
        assert peer.values(name(1)) == [1.0, 2.0]
        assert list(peer.store.samples[name(1)]) == [T0, T0 + 2]
        await setup.close()


@pytest.mark.parametrize("send", [True, False])
async def test_exemplars_and_metadata_are_sent_where_asked_for(tmp_path: Path, send: bool) -> None:
    peer, setup = Peer(), Setup(tmp_path)
    setup.families = [Metadata("m", "counter", "Of the test.", "")]
    async with peer.running():
        metadata = {"send": send, "send_interval": "10ms"}
        configured = config(peer, send_exemplars=send, metadata_config=metadata)
        await setup.destinations.apply([configured], {})
        appender = setup.store.db.appender()
        (ref,) = appender.refs([name(1)]).tolist()
        exemplar = Exemplar(ref, Labels.from_dict({"trace_id": "abc"}), 4.5, T0)
        samples = SampleColumns(np.array([ref], np.uint32), np.array([T0]), np.array([1.0]))
        appender.append(WriteBatch(samples, exemplars=[exemplar]))
        await until(lambda: peer.values(name(1)) == [1.0])
        if send:
            await until(lambda: any(batch.metadata for batch in peer.store.batches))
        found = [each for batch in peer.store.batches for each in batch.exemplars]
        assert [(each.labels.to_dict(), each.value) for each in found] == (
            [({"trace_id": "abc"}, 4.5)] if send else []
        )
        entries = {entry for batch in peer.store.batches for entry in batch.metadata}
        assert entries == (set(setup.families) if send else set())
        await setup.close()


async def test_a_dead_receiver_costs_nothing_and_what_waits_survives_a_restart(tmp_path: Path) -> None:
    peer, setup = Peer(statuses=[503] * 10_000), Setup(tmp_path)
    async with peer.running():
        configured = config(peer)
        await setup.destinations.apply([configured], {})
        for value in range(50):
            setup.add(name(value % 5), float(value))
        await until(lambda: setup.metric("samples_pending", configured) == 50)
        await until(lambda: setup.metric("samples_retried_total", configured) > 0)
        await setup.close()
        assert not any(peer.store.samples.values())
        peer.statuses.clear()
        second = Setup(tmp_path)
        await second.destinations.apply([config(peer, remote_timeout="7s")], {})
        await until(lambda: sum(len(v) for v in peer.store.samples.values()) == 50)
        assert peer.values(name(3)) == [float(value) for value in range(3, 50, 5)]
        await second.close()


async def test_a_reload_keeps_what_has_not_changed_and_removes_what_is_gone(tmp_path: Path) -> None:
    peer, setup = Peer(), Setup(tmp_path)
    async with peer.running():
        kept = config(peer)
        gone = RemoteWriteConfig.model_validate({"name": "gone", "url": "http://127.0.0.1:1/write"})
        await setup.destinations.apply([kept, gone], {})
        setup.add(name(1), 1.0)
        await until(lambda: setup.metric("samples_total", kept) == 1)
        await until(lambda: setup.metric("samples_pending", gone) == 1)
        assert len(list(setup.folder.iterdir())) == 2
        await setup.destinations.apply([kept], {})
        assert setup.metric("samples_total", kept) == 1, "a new one would begin at 0"
        assert len(list(setup.folder.iterdir())) == 1
        assert setup.metric("samples_pending", gone) == 0
        changed = config(peer, headers={"X-Scope": "b"})
        await setup.destinations.apply([changed], {"site": "c"})
        setup.add(name(2), 2.0)
        await until(lambda: peer.values(name(2).with_label("site", "c")) == [2.0])
        assert peer.requests[-1][0]["x-scope"] == "b"
        await setup.destinations.apply([], {})
        assert list(setup.folder.iterdir()) == []
        setup.add(name(3), 3.0)
        await setup.close()


@pytest.mark.parametrize("keys", [{}, {"queue_config": {"retry_on_http_429": True}}])
async def test_answers_about_the_endpoint_are_those_of_prometheus(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    peer, setup = Peer(statuses=[500, 429, 400]), Setup(tmp_path)
    async with peer.running():
        configured = config(peer, **keys)
        await setup.destinations.apply([configured], {})
        setup.add(name(1), 1.0)
        await until(lambda: setup.metric("samples_failed_total", configured) == 1)
        # 500 is repeated; 429 ends the sample unless it is asked for, and then 400 does.
        assert len(peer.requests) == (3 if keys else 2)
        assert setup.metric("samples_retried_total", configured) == (2 if keys else 1)
        await setup.close()


async def test_more_than_memory_holds_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outflow, "HANDOVER_SAMPLES_LIMIT", 3)
    peer, setup = Peer(), Setup(tmp_path)
    async with peer.running():
        configured = config(peer)
        await setup.destinations.apply([configured], {})
        setup.add(name(1), *map(float, range(4)))
        assert setup.metric("samples_dropped_total", configured, reason="overload") == 4
        setup.add(name(2), 1.0, 2.0)
        await until(lambda: peer.values(name(2)) == [1.0, 2.0])
        await setup.close()


async def test_a_full_queue_gives_up_the_oldest(tmp_path: Path) -> None:
    peer, setup = Peer(), Setup(tmp_path, queue_bytes=4096)
    async with peer.running():
        url = peer.url
    configured = RemoteWriteConfig.model_validate({"name": "peer", "url": url})
    await setup.destinations.apply([configured], {})

    def gone_or_waiting() -> float:
        gone = setup.metric("samples_dropped_total", configured, reason="queue_bytes")
        return gone + setup.metric("samples_pending", configured)

    for at in range(80):
        # One after the other, so that each is a request of its own.
        setup.add(name(at), float(at))
        await until(lambda: gone_or_waiting() == at + 1)  # noqa: B023
    assert setup.metric("samples_dropped_total", configured, reason="queue_bytes") > 0
    await setup.close()


def test_small_batches_become_one_and_keep_their_order() -> None:
    def batch(ref: int, start: int | None) -> WriteBatch:
        starts = None if start is None else np.array([start])
        return WriteBatch(SampleColumns(np.array([ref], np.uint32), np.array([ref]), np.array([0.5]), starts))

    described = WriteBatch(metadata=[Metadata("m", "gauge", "", "")])
    (one,) = outflow.merged([batch(1, None), described, batch(2, 7)])
    assert one.samples is not None
    assert one.samples.start_t_ms is not None
    assert (one.samples.refs.tolist(), one.samples.start_t_ms.tolist()) == ([1, 2], [0, 7])
    assert len(one.metadata) == 1


async def test_a_compressed_request_holds_at_most_what_is_configured(tmp_path: Path) -> None:
    peer, setup = Peer(), Setup(tmp_path)
    async with peer.running():
        configured = config(peer, queue_config={"max_samples_per_send": 10})
        await setup.destinations.apply([configured], {})
        setup.store.append([(name(at), T0, float(at)) for at in range(25)])
        await until(lambda: setup.metric("samples_total", configured) == 25)
        sizes = [len(bytes(cramjam.snappy.decompress_raw(body))) for _, body in peer.requests]
        assert len(sizes) == 3
        await setup.close()
