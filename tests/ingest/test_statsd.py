"""StatsD and DogStatsD: what lines mean, what is refused, and the way from sockets into a store."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest.gathered import Gathered
from ingest.statsd.aggregate import Aggregator, ObserverType
from ingest.statsd.limits import DATAGRAM_BYTES_LIMIT, StatsdLimits
from ingest.statsd.line import SampleError, label_name, metric_name, read_meaning
from ingest.statsd.listener import StatsdListener, StatsdOptions
from ingest.statsd.slots import VALUES_PER_PART_LIMIT, WINDOW_SECONDS
from tests.ingest.fakestore import FakeStore
from tsdb.errors import DiskFullError

GOOD: list[tuple[str, dict[str, float]]] = [
    ("hits:1|c\nhits:2|c", {"hits": 3.0}),
    ("hits:1|c|@0.1", {"hits": 10.0}),
    ("hits:1|c|#route:/a,code:200", {'hits{code="200", route="/a"}': 1.0}),
    ("hits:1|c|@0.5|#a:b", {'hits{a="b"}': 2.0}),
    ("hits:1|c|#a:b|c:ci-1234|e:x|card:low|T1656581400", {'hits{a="b"}': 1.0}),
    ("hits:1:2:3|c|#a:b", {'hits{a="b"}': 6.0}),
    ("hits:1|c:2|c:3|c|@0.5", {"hits": 9.0}),
    ("hits:1|c|#url:http://x:80", {'hits{url="http://x:80"}': 1.0}),
    ("hits:1|c|#a:1,a:2", {'hits{a="2"}': 1.0}),
    ("hits:1|c|#empty:,a:b", {'hits{a="b"}': 1.0}),
    ("hits,a=b,c=d:1|c", {'hits{a="b", c="d"}': 1.0}),
    ("hits#a=b:1|c", {'hits{a="b"}': 1.0}),
    ("hits[a=b,c=d]:1|c", {'hits{a="b", c="d"}': 1.0}),
    ("temp:20.5|g\ntemp:+1|g\ntemp:-2|g", {"temp": 19.5}),
    ("temp:-5|g", {"temp": -5.0}),
    ("temp:1e3|g\r\n", {"temp": 1000.0}),
    ("users:ann|s\nusers:bob|s\nusers:ann|s", {"users": 2.0}),
    ("a.b-c/d:1|c", {"a_b_c_d": 1.0}),
    ("4xx:1|c|#9-lives:x", {'_4xx{_9_lives="x"}': 1.0}),
    ("größe:1|c|#ort:Köln", {'gr__e{ort="Köln"}': 1.0}),
    ("\n\nhits:1|c\n", {"hits": 1.0}),
]

SUMMARY: list[tuple[str, dict[str, float]]] = [
    (
        "t:100|ms\nt:300|ms",
        {"t_sum": 0.4, "t_count": 2.0, 't{quantile="0.5"}': 0.3, 't{quantile="0.99"}': 0.3},
    ),
    ("t:100|h\nt:300|d", {"t_sum": 400.0, "t_count": 2.0}),
    ("t:1|h|@0.25", {"t_sum": 4.0, "t_count": 4.0}),
    ("t:1:2:3|d|#a:b", {'t_sum{a="b"}': 6.0, 't_count{a="b"}': 3.0}),
    ("t:500|ms\nt:0.5|h", {"t_sum": 1.0, 't{quantile="0.9"}': 0.5}),
]

BAD: list[tuple[str, str]] = [
    ("hits", "malformed_line"),
    (":1|c", "malformed_line"),
    ("hits:1", "malformed_component"),
    ("hits:|c", "malformed_value"),
    ("hits:x|c", "malformed_value"),
    ("hits:1_0|c", "malformed_value"),
    ("hits:nan|c", "malformed_value"),
    ("hits:1e999|c", "malformed_value"),
    ("hits:" + "9" * 400 + "|c", "malformed_value"),
    ("hits:-1|c", "negative_counter"),
    ("hits:1|x", "invalid_type"),
    ("hits:1|", "invalid_type"),
    ("hits:1|c|@x", "invalid_sample_factor"),
    ("hits:1|c|@0", "invalid_sample_factor"),
    ("hits:1|c|@2", "invalid_sample_factor"),
    ("hits:1|g|@0.5", "illegal_sample_factor"),
    ("hits:1|c|what", "malformed_component"),
    ("hits:1|c" + "|c:x" * 20, "malformed_component"),
    ("hits,a=b:1|c|#c:d", "mixed_tagging_styles"),
    ("h" * 600 + ":1|c", "name_too_long"),
    ("hits:1|c|#" + ",".join(f"t{n}:x" for n in range(70)), "too_many_tags"),
    ("hits:1|c|#a:" + "x" * 3000, "tag_too_long"),
    ("hits:" + "1:" * 5000 + "1|c|#a:b", "too_many_values"),
]


def gathered(aggregator: Aggregator, now_seconds: float = 0.0) -> dict[str, float]:
    out = Gathered()
    aggregator.gather(out, now_seconds)
    return {str(labels): value for labels, value in out.labelled()}


def received(text: str, observer: ObserverType = "summary") -> tuple[Aggregator, dict[str, float]]:
    aggregator = Aggregator(observer=observer)
    aggregator.receive(text.encode())
    return aggregator, gathered(aggregator)


@pytest.mark.parametrize(("text", "expected"), GOOD, ids=lambda row: str(row)[:40])
def test_good_lines_become_series(text: str, expected: dict[str, float]) -> None:
    aggregator, found = received(text)
    assert found == pytest.approx(expected)
    assert not aggregator.errors


@pytest.mark.parametrize(("text", "expected"), SUMMARY, ids=lambda row: str(row)[:40])
def test_timers_become_summaries_in_seconds(text: str, expected: dict[str, float]) -> None:
    aggregator, found = received(text)
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    assert not aggregator.errors


@pytest.mark.parametrize(("text", "reason"), BAD, ids=lambda row: str(row)[:40])
def test_bad_lines_are_counted_by_reason_and_the_next_line_counts(text: str, reason: str) -> None:
    aggregator, found = received(f"{text}\nok:1|c")
    assert dict(aggregator.errors) == {reason: 1}
    assert found["ok"] == 1.0
    assert aggregator.line_count == 2


def test_a_line_that_is_no_text_is_refused() -> None:
    aggregator = Aggregator()
    aggregator.receive(b"h\xff:1|c\nh:1|c|#a:\xff\n")
    assert dict(aggregator.errors) == {"malformed_line": 2}


def test_events_and_service_checks_are_counted_apart() -> None:
    aggregator, found = received("_e{5,4}:title|text\n_sc|check|0")
    assert dict(aggregator.unsupported) == {"event": 1, "service_check": 1}
    assert found == {}
    assert not aggregator.errors


def test_tags_that_would_clash_are_dropped_and_counted() -> None:
    aggregator, found = received("t:1|h|#quantile:5,__name__:evil,lonely,a:b")
    assert found['t_count{a="b"}'] == 1.0
    assert aggregator.bad_tag_count == 3


@pytest.mark.parametrize("first", ["x:1|c", "x:1|g", "x:1|ms", "x:1|s"])
def test_a_metric_keeps_its_first_type(first: str) -> None:
    aggregator, before = received(first)
    others = [line for line in ("x:5|c", "x:5|g", "x:5|ms", "x:5|s") if line[4:] != first[4:]]
    aggregator.receive("\n".join(others).encode())
    assert aggregator.errors["type_conflict"] == 3
    assert gathered(aggregator).keys() == before.keys()


def test_a_timer_and_a_counter_cannot_share_a_derived_name() -> None:
    aggregator, _ = received("x:1|ms\nx_count:1|c\ny_sum:1|c\ny:1|ms")
    assert aggregator.errors["type_conflict"] == 2


def test_buckets_are_cumulative_when_histograms_are_wanted() -> None:
    _, found = received("t:3|ms\nt:20|ms\nt:99999|ms", "histogram")
    assert found['t_bucket{le="0.005"}'] == 1.0
    assert found['t_bucket{le="0.025"}'] == 2.0
    assert found['t_bucket{le="10.0"}'] == 2.0
    assert found['t_bucket{le="+Inf"}'] == found["t_count"] == 3.0


def test_series_beyond_the_limits_are_refused_and_known_ones_go_on() -> None:
    aggregator = Aggregator(StatsdLimits(series_count=5, series_per_metric_count=3))
    for n in range(10):
        aggregator.receive(f"a:1|c|#n:{n}\nb{n}:1|c".encode())
    assert aggregator.series_count == 5
    assert aggregator.errors["series_per_metric_limit"] + aggregator.errors["series_limit"] == 15
    aggregator.receive(b"a:1|c|#n:0")
    assert gathered(aggregator)['a{n="0"}'] == 2.0


def test_members_of_a_set_are_bounded_and_forgotten_at_a_flush() -> None:
    aggregator = Aggregator(StatsdLimits(set_members_count=3))
    aggregator.receive(b"\n".join(b"s:%d|s" % n for n in range(10)))
    assert gathered(aggregator) == {"s": 3.0}
    assert aggregator.errors["set_limit"] == 7
    assert gathered(aggregator) == {"s": 0.0}


def test_quantiles_forget_what_is_older_than_the_window_but_totals_do_not() -> None:
    aggregator = Aggregator()
    aggregator.receive(b"t:1000|h")
    for step in range(1, 8):
        found = gathered(aggregator, step * WINDOW_SECONDS / 5)
    assert math.isnan(found['t{quantile="0.5"}'])
    assert found["t_sum"] == 1000.0


def test_a_busy_timer_keeps_a_sample_with_the_right_median() -> None:
    aggregator = Aggregator(seed=7)
    count = VALUES_PER_PART_LIMIT * 40
    aggregator.receive(b"\n".join(b"t:%d|h" % n for n in range(count)))
    found = gathered(aggregator)
    assert found["t_count"] == count
    assert found['t{quantile="0.5"}'] == pytest.approx(count / 2, rel=0.15)


def test_idle_series_expire_and_free_their_name() -> None:
    aggregator, _ = received("a:1|c\nb:1|c\nt:1|ms")
    assert aggregator.expire(0.0, 60.0) == 0
    aggregator.receive(b"a:1|c")
    assert aggregator.expire(50.0, 60.0) == 0
    assert aggregator.expire(100.0, 60.0) == 2
    aggregator.receive(b"b:1|g\nt_sum:1|c\na:1|c")
    assert gathered(aggregator) == {"a": 3.0, "b": 1.0, "t_sum": 1.0}


NAMES = st.text(st.sampled_from("ab.-_9/é"), min_size=1, max_size=4)
TAGS = st.dictionaries(st.text(st.sampled_from("kj-"), min_size=1, max_size=2), st.sampled_from("vwé0"))
VALUES = st.integers(0, 1000)
LINES = st.tuples(NAMES, VALUES, TAGS, st.sampled_from([1, 2, 4]))


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=30), st.integers(1, 7))
def test_counters_add_up_however_lines_are_cut_into_datagrams(
    lines: list[tuple[str, int, dict[str, str], int]], per_datagram: int
) -> None:
    expected: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    texts = []
    for name, value, tags, weight in lines:
        labels: dict[str, str] = {}
        for key, text in tags.items():
            labels[label_name(key)] = text
        expected[metric_name(name), tuple(sorted(labels.items()))] += value * weight
        tail = ",".join(f"{key}:{text}" for key, text in tags.items())
        texts.append(f"{name}:{value}|c|@{1 / weight}" + (f"|#{tail}" if tail else ""))
    aggregator = Aggregator()
    for at in range(0, len(texts), per_datagram):
        aggregator.receive("\n".join(texts[at : at + per_datagram]).encode())
    out = Gathered()
    aggregator.gather(out, 0.0)
    found = {
        (labels.metric_name, tuple(labels.without("__name__"))): value for labels, value in out.labelled()
    }
    assert found == expected
    assert not aggregator.errors


PIECES = st.sampled_from(
    b"a bc : : : | | | c g ms s h d @ # , = [ ] 1 -2 +3.5 1e5 0.1 \r \x00 \xff _e{ _sc| nan".split(b" ")
    + [b"\n"] * 3
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=60).map(b"".join) | st.binary(max_size=200))
def test_no_datagram_raises_and_every_line_is_accounted_for(datagram: bytes) -> None:
    aggregator = Aggregator(StatsdLimits(series_count=3, series_per_metric_count=2))
    aggregator.receive(datagram)
    first = gathered(aggregator)
    aggregator.receive(datagram)
    assert aggregator.series_count <= 3
    lines = [line for line in datagram.split(b"\n") if line.rstrip(b"\r")]
    assert aggregator.line_count == 2 * len(lines)
    assert all(not math.isinf(value) for value in first.values())
    if lines and not first:
        assert sum(aggregator.errors.values()) + sum(aggregator.unsupported.values()) >= len(lines)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_meaning_is_valid_names_or_a_refusal(name: bytes, tail: bytes) -> None:
    try:
        meaning = read_meaning(name, b"c|" + tail, StatsdLimits())
    except SampleError:
        return
    assert metric_name(meaning.name) == meaning.name
    assert all(label_name(label) == label for label in meaning.label_names)
    assert list(meaning.label_names) == sorted(set(meaning.label_names))


def send(address: tuple[str, int] | str, *datagrams: bytes) -> None:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, address)


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_both_sockets_feed_one_store_and_stopping_marks_series_stale(tmp_path: Path) -> None:
    store, registry, path = FakeStore(), CollectorRegistry(), f"{tmp_path}/statsd.sock"
    options = StatsdOptions(udp_port=0, unix_path=path, flush_interval_seconds=3600)
    listener = StatsdListener(store, registry, options, labels={"instance": "h"})
    await listener.start()
    assert listener.udp_address is not None
    assert os.stat(path).st_mode & 0o777 == 0o622
    send(listener.udp_address, b"hits:2|c\nbroken", b"hits:3|c")
    send(path, b"hits:5|c|#via:unix")
    await listener.stop()
    assert store.values('hits{instance="h"}') == [5.0, "stale"]
    assert store.values('hits{instance="h", via="unix"}') == [5.0, "stale"]
    assert sample(registry, "statsd_exporter_udp_packets_total") == 2
    assert sample(registry, "statsd_exporter_unixgram_packets_total") == 1
    assert sample(registry, "statsd_exporter_lines_total") == 4
    assert sample(registry, "statsd_exporter_sample_errors_total", reason="malformed_line") == 1
    assert not os.path.exists(path)


async def test_flushes_come_by_themselves() -> None:
    store, registry = FakeStore(), CollectorRegistry()
    listener = StatsdListener(store, registry, StatsdOptions(udp_port=0, flush_interval_seconds=0.02))
    await listener.start()
    assert listener.udp_address is not None
    send(listener.udp_address, b"temp:7|g")
    for _ in range(500):
        if len(store.values("temp")) >= 3:
            break
        await asyncio.sleep(0.01)
    await listener.stop()
    assert store.values("temp")[:3] == [7.0, 7.0, 7.0]


async def test_a_full_disk_loses_no_counts() -> None:
    class Full(FakeStore):
        full = True

        def append(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            if self.full:
                raise DiskFullError("disk is full")
            return super().append(*args, **kwargs)  # type: ignore[arg-type]

    store, registry = Full(), CollectorRegistry()
    listener = StatsdListener(store, registry, StatsdOptions(udp_port=0, flush_interval_seconds=3600))
    await listener.start()
    assert listener.udp_address is not None
    send(listener.udp_address, b"hits:2|c")
    for _ in range(500):
        if sample(registry, "statsd_exporter_udp_packets_total"):
            break
        await asyncio.sleep(0.01)
    await listener.flush()
    store.full = False
    send(listener.udp_address, b"hits:3|c")
    await listener.stop()
    assert store.values("hits") == [5.0, "stale"]
    assert sample(registry, "vedette_statsd_flush_failures_total") == 1


async def test_a_datagram_above_the_limit_is_dropped_and_counted(tmp_path: Path) -> None:
    store, registry, path = FakeStore(), CollectorRegistry(), f"{tmp_path}/s"
    options = StatsdOptions(udp_port=None, unix_path=path, flush_interval_seconds=3600)
    listener = StatsdListener(store, registry, options)
    await listener.start()
    send(path, b"hits:1|c\n" * (DATAGRAM_BYTES_LIMIT // 9 + 9))
    await listener.stop()
    assert sample(registry, "vedette_statsd_too_long_datagrams_total") == 1
    assert store.values("hits") == []


async def test_datagrams_that_the_kernel_drops_are_counted() -> None:
    store, registry = FakeStore(), CollectorRegistry()
    options = StatsdOptions(udp_port=0, flush_interval_seconds=3600, receive_buffer_bytes=4096)
    listener = StatsdListener(store, registry, options)
    await listener.start()
    assert listener.udp_address is not None
    send(listener.udp_address, *[b"hits:1|c"] * 501)
    await listener.stop()
    kept = sample(registry, "statsd_exporter_udp_packets_total") or 0.0
    dropped = sample(registry, "vedette_statsd_dropped_datagrams_total") or 0.0
    assert dropped > 0
    assert kept + dropped == 501


async def test_a_path_in_use_is_refused_and_a_dead_socket_replaced(tmp_path: Path) -> None:
    path = f"{tmp_path}/s"
    options = StatsdOptions(udp_port=None, unix_path=path, flush_interval_seconds=3600)
    Path(path).write_text("precious")
    with pytest.raises(FileExistsError):
        await StatsdListener(FakeStore(), None, options).start()
    assert Path(path).read_text() == "precious"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(OSError, match="listens"):
            await StatsdListener(FakeStore(), CollectorRegistry(), options).start()
        assert os.path.exists(path)
    listener = StatsdListener(FakeStore(), CollectorRegistry(), options)
    await listener.start()
    await listener.stop()
