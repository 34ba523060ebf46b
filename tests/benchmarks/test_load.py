"""The generated load is what it says: right messages, the same for the same seed, in order per series."""

from __future__ import annotations

import struct
from pathlib import Path

import cramjam
import numpy as np
import pytest

from benchmarks import mixed, queries, report
from benchmarks.figures import Figure, table
from benchmarks.ingest import IngestResult
from benchmarks.load.bodies import SAMPLES_PER_REQUEST, LoadWriter, Template, write_load
from benchmarks.load.nodes import BOUNDS, Values, make_series
from benchmarks.load.recording import read_fleet, write_scrapes
from tests.reference import remotewrite as twin

STEP_MS = 15_000
END_MS = 1_800_000_000_000


def test_template_carries_the_times_and_values_it_was_filled_with() -> None:
    series = make_series(1)
    template = Template(series.labels)
    values = np.linspace(-1.5, 1e18, len(series))
    times = END_MS + np.arange(len(series), dtype=np.int64) * 977
    message = template.fill(times, values).tobytes()
    rows = twin.decode_v1(message).rows
    assert [row.samples[0][0] for row in rows] == times.tolist()
    bits = [struct.pack("<Q", row.samples[0][1]) for row in rows]
    assert [struct.unpack("<d", each)[0] for each in bits] == values.tolist()


def test_template_refuses_times_of_another_length() -> None:
    template = Template(make_series(1).labels[:1])
    with pytest.raises(ValueError, match="six varint bytes"):
        template.fill(np.array([1], dtype=np.int64), np.array([1.0]))


def test_series_are_unique_sorted_and_have_about_ten_labels() -> None:
    series = make_series(5)
    assert len(set(series.labels)) == len(series)
    assert all(list(labels) == sorted(labels) for labels in series.labels)
    assert 9 <= sum(map(len, series.labels)) / len(series) <= 11
    assert sum(map(len, series.kinds.values())) == len(series)


def test_values_repeat_with_the_seed_and_counters_never_fall() -> None:
    series = make_series(2)
    left, right = Values(series, 7), Values(series, 7)
    before = left.step().copy()
    assert np.array_equal(before, right.step())
    after = left.step()
    for kind in ("counter", "seconds", "bucket"):
        assert (after[series.kinds[kind]] >= before[series.kinds[kind]]).all()
    buckets = after[series.kinds["bucket"]].reshape(-1, len(BOUNDS))
    assert (np.diff(buckets, axis=1) >= 0).all()
    assert np.array_equal(after[series.kinds["constant"]], before[series.kinds["constant"]])


def test_requests_of_a_lane_come_back_in_order(tmp_path: Path) -> None:
    series = make_series(20)
    load = write_load(
        tmp_path / "load", series, steps=3, step_ms=STEP_MS, end_ms=END_MS, lane_count=2, seed=1
    )
    assert load.sample_count == 3 * len(series)
    seen: dict[int, list[int]] = {}
    total = 0
    for lane in range(2):
        for body in load.bodies(lane):
            request = twin.decode_v1(bytes(cramjam.snappy.decompress_raw(body)))
            total += len(request.rows)
            assert len(request.rows) <= SAMPLES_PER_REQUEST
            key = hash((lane, len(request.rows), request.rows[0].span))
            seen.setdefault(key, []).append(request.rows[0].samples[0][0])
    assert total == load.sample_count
    assert all(times == sorted(times) and len(times) == 3 for times in seen.values())
    assert all(load.start_ms <= t < load.end_ms for times in seen.values() for t in times)


def result(samples_per_s: float, latency_s: float, error: str = "") -> report.ServerResult:
    ingest = IngestResult(1_000_000, 1e6 / samples_per_s, 1.0, 10**6, 2**20, 2**21, {"wal": 2_000_000})
    answers = {"first": queries.QueryResult(latency_s, 3, error)}
    return report.ServerResult(ingest, answers, 0.5)


def test_table_has_ratios_before_values() -> None:
    results = {"vedette": result(200.0, 0.001), "prometheus": result(100.0, 0.004)}
    lines = report.table(results, "Title", "2026-01-01").splitlines()
    assert lines[2] == "|  | vedette / prometheus | vedette | prometheus |"
    assert "| accepted samples/s (more is better) | 2.00 | 200 | 100 |" in lines
    assert "| first, ms | 0.25 | 1.0 | 4.0 |" in lines


def test_refused_query_is_shown_and_remarked() -> None:
    results = {"vedette": result(200.0, 0.001), "prometheus": result(100.0, float("nan"), "422: too many")}
    assert "| first, ms | - | 1.0 | refused |" in report.table(results, "Title", "2026-01-01")
    assert "first: prometheus answered 422: too many" in report.remarks(results)


def test_parts_of_a_load_continue_each_other(tmp_path: Path) -> None:
    series = make_series(2)
    whole = write_load(
        tmp_path / "whole", series, steps=4, step_ms=STEP_MS, end_ms=END_MS, lane_count=2, seed=3
    )
    writer = LoadWriter(series, Values(series, 3), step_ms=STEP_MS, lane_count=2, seed=3)
    first = writer.write(tmp_path / "first", whole.start_ms, 2)
    second = writer.write(tmp_path / "second", first.end_ms, 2)
    assert [*first.bodies(0), *second.bodies(0)] == list(whole.bodies(0))
    assert second.end_ms == whole.end_ms


def test_windows_of_a_recording_become_hosts(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    bodies = [f'a_total{{cpu="0"}} {n}\nb {n / 8}\n' + ("late 1\n" if n else "") for n in range(5)]
    write_scrapes(path, (body.encode() for body in bodies))
    with path.open("ab") as file:
        file.write(b"torn")
    fleet = read_fleet(path, 2)
    host = [("instance", "host-00000.example.internal:9100"), ("job", "node")]
    assert fleet.series.labels[0] == tuple(sorted([("__name__", "a_total"), ("cpu", "0"), *host]))
    # The first scrape lacks "late", so that the first host has no such series.
    assert [dict(labels)["__name__"] for labels in fleet.series.labels] == [
        "a_total",
        "b",
        "a_total",
        "b",
        "late",
    ]
    assert fleet.series.host.tolist() == [0, 0, 1, 1, 1]
    values = fleet.source()
    assert values.step().tolist() == [0.0, 0.0, 2.0, 0.25, 1.0]
    assert values.step().tolist() == [1.0, 0.125, 3.0, 0.375, 1.0]
    with pytest.raises(ValueError, match="fewer than 9 scrapes"):
        read_fleet(path, 9)


def test_figures_tell_ratios_and_whether_bars_hold() -> None:
    found = [
        Figure("size", {"vedette": 8.0, "peer": 10.0}, {"peer": 0.85}),
        Figure("speed", {"vedette": 90.0}, limit=100.0, more_is_better=True, form=".0f"),
    ]
    text = table("A title", ["vedette", "peer"], found)
    assert "| size | 8.00 | 10.00 | 0.80 | at most 0.85 x peer: met |" in text
    assert "| speed | 90 | - | - | at least 100: **0.90 x** |" in text


def test_growth_compares_the_last_third_of_a_run_with_the_middle_one() -> None:
    assert mixed.growth([1, 1, 10, 10, 11, 11]) == pytest.approx(0.1)
    assert mixed.growth([5.0] * 9) == 0
