"""Snapshot and log of a real Prometheus are imported sample for sample, and queries answer alike."""

from __future__ import annotations

import json
import shutil
import struct
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import cramjam
import pytest

from benchmarks.load.encode import (
    Series,
    double_field,
    histogram,
    length_delimited,
    varint,
    varint_field,
    write_request_v1,
    zigzag,
)
from benchmarks.servers import Kind, Server
from promql.engine import Engine
from promql.matrix import Matrix
from promql.options import EngineOptions
from tests.e2e.processes import NOTHING_TO_SCRAPE, Api, free_port, need_programs
from tests.tsdb.importing import ALL, FS, OPTIONS, T0, WHOLE, do_import, our_lines, promtool_dump, rows_in
from tests.tsdb.memoryselection import FloatSample, HistogramSample, Row, all_rows, bits_of
from tsdb.database import Database, open_database
from tsdb.errors import StorageError
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.prometheusblock import migrate
from tsdb.prometheusblock.migrate import Part, WalResult
from tsdb.select import STALE_BITS

STALE = struct.unpack("<d", struct.pack("<Q", STALE_BITS))[0]


def float_histogram(t_ms: int, counts: list[float], gauge: bool = False) -> bytes:
    parts = [double_field(2, sum(counts) + 0.5), double_field(3, 12.5), varint(4 << 3) + zigzag(1)]
    parts += [double_field(5, 0.25), double_field(7, 0.5)]
    parts.append(length_delimited(11, varint(1 << 3) + zigzag(-2) + varint_field(2, len(counts))))
    parts.append(length_delimited(13, b"".join(struct.pack("<d", count) for count in counts)))
    parts += [varint_field(14, 3 if gauge else 0), varint_field(15, t_ms)]
    return b"".join(parts)


def prometheus(port: int, folder: Path) -> list[str]:
    (folder / "prometheus.yml").write_text(NOTHING_TO_SCRAPE)
    return [
        *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"),
        *("--web.enable-admin-api", "--enable-feature=native-histograms", "--log.level=warn"),
        "--storage.tsdb.retention.time=100y",
    ]


Sent = dict[str, tuple[list[FloatSample], list[HistogramSample]]]


def messages(now_ms: int) -> tuple[list[Series], Sent]:
    """Series to send, and what a store must hold then."""
    times = [now_ms - 3_000_000 + i * 15_000 for i in range(200)]
    floats = [(t, STALE if i % 50 == 49 else 1.5 * i) for i, t in enumerate(times)]
    integers, numbers, gauges = [], [], []
    sent: Sent = {"up": ([FloatSample(t, bits_of(v)) for t, v in floats], []), "h": ([], [])}
    sent |= {"fh": ([], []), "gh": ([], [])}
    for i, t in enumerate(times):
        grown = [i + 1, i % 3, 2, -1] if i < 120 else [1, 0, 0, i % 7]
        integers.append(histogram(t, grown, schema=3, zero_count=i, total=0.1 * i, spans=[(-1, 2), (3, 2)]))
        absolute, running = [], 0
        for delta in grown:
            running += delta
            absolute.append(running)
        positive = tuple(zip((-1, 0, 4, 5), (bits_of(float(c)) for c in absolute), strict=True))
        whole = bits_of(float(i + sum(absolute)))
        zero = (bits_of(0.0), bits_of(float(i)))
        sent["h"][1].append(HistogramSample(t, 0, 3, 0, *zero, whole, bits_of(0.1 * i), 0, positive, (), ()))
        counts = [0.3 * i, 7.25, float(i)]
        numbers.append(float_histogram(t, counts))
        gauges.append(float_histogram(t, counts, gauge=True))
        buckets = tuple(zip((-2, -1, 0), map(bits_of, counts), strict=True))
        rest = (bits_of(0.25), bits_of(0.5), bits_of(sum(counts) + 0.5), bits_of(12.5), 1, buckets, (), ())
        for name, hint in (("fh", 0), ("gh", 3)):
            sent[name][1].append(HistogramSample(t, 0, 1, hint, *rest))
    rows = [Series([(b"__name__", b"up")], floats)]
    for name, encoded in ((b"h", integers), (b"fh", numbers), (b"gh", gauges)):
        rows.append(Series([(b"__name__", name)], [], histograms=encoded))
    return rows, sent


@pytest.fixture(scope="module")
def snapshot(
    promtool_blocks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Sent, Api, float]]:
    """A snapshot of a Prometheus that is still running: old blocks with deletes, and its head."""
    need_programs("prometheus")
    folder = tmp_path_factory.mktemp("real")
    shutil.copytree(promtool_blocks, folder / "data")
    server = Server(Kind("prometheus", prometheus, "/-/ready"), free_port(), folder)
    try:
        server.wait_ready()
        api = Api(server.port)
        now_s = time.time()
        rows, sent = messages(int(now_s * 1000))
        status, text = api.write_raw(bytes(cramjam.snappy.compress_raw(write_request_v1(rows))))
        assert status == 204, text
        for selector, span in (('{code="1"}', f"&start={T0 / 1000 + 100}&end={T0 / 1000 + 3000}"), ("g", "")):
            path = f"/api/v1/admin/tsdb/delete_series?match[]={urllib.parse.quote(selector)}{span}"
            assert api.request("POST", path)[0] == 204
        status, _, body = api.request("POST", "/api/v1/admin/tsdb/snapshot")
        assert status == 200, body
        yield folder / "data" / "snapshots" / json.loads(body)["data"]["name"], sent, api, now_s
        api.close()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def imported(
    snapshot: tuple[Path, Sent, Api, float], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    store = tmp_path_factory.mktemp("imported")
    assert all(result.written for result in do_import(snapshot[0], store))
    database = open_database(store, OPTIONS)
    yield database
    database.close()


@pytest.mark.e2e
def test_a_snapshot_with_deletes_imports_equal(
    snapshot: tuple[Path, Sent, Api, float], imported: Database
) -> None:
    rows = all_rows(imported.querier().select((), *ALL))
    assert our_lines(rows) == promtool_dump(snapshot[0])
    assert Labels.from_dict({"__name__": "g"}) not in rows
    deleted = [s for labels, row in rows.items() if labels.get("code") == "1" for s in row.floats]
    assert deleted
    assert not [s for s in deleted if T0 + 100_000 <= s.t_ms <= T0 + 3_000_000]


@pytest.mark.e2e
def test_histograms_of_a_real_prometheus_import_as_they_were_sent(
    snapshot: tuple[Path, Sent, Api, float], imported: Database
) -> None:
    rows = all_rows(imported.querier().select((), *ALL))
    for name, (floats, histograms) in snapshot[1].items():
        row = rows[Labels.from_dict({"__name__": name})]
        assert row.floats == floats
        # Prometheus 2.42 itself keeps the hint of gauges only for a part of the chunks.
        assert {h.reset_hint for h in row.histograms} <= ({0, 2, 3} if name == "gh" else {0, 2})
        assert [h._replace(reset_hint=0) for h in row.histograms] == [
            h._replace(reset_hint=0) for h in histograms
        ]


def rows_of_wal(folder: Path, store: Path, part: Part = WHOLE) -> tuple[dict[Labels, Row], WalResult]:
    FS.make_directory(store)
    found = migrate.source_blocks(FS, folder)
    result = migrate.import_wal(FS, folder, found, store, part, lambda _: None)
    return rows_in(store), result


@pytest.mark.e2e
def test_the_log_of_a_running_prometheus_gives_the_samples_of_no_block(
    snapshot: tuple[Path, Sent, Api, float], tmp_path: Path
) -> None:
    rows, result = rows_of_wal(snapshot[0].parent.parent, tmp_path / "store")
    assert not result.damage
    assert {labels.metric_name for labels in rows} == set(snapshot[1])
    for name, (floats, histograms) in snapshot[1].items():
        row = rows[Labels.from_dict({"__name__": name})]
        assert row.floats == floats
        assert row.histograms == histograms
    _, again = rows_of_wal(snapshot[0].parent.parent, tmp_path / "store")
    assert again.skipped == "imported before"


@pytest.mark.e2e
def test_the_directory_of_a_prometheus_is_no_store_and_stays_as_it_is(
    snapshot: tuple[Path, Sent, Api, float], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    source = snapshot[0].parent.parent
    shutil.copytree(source, copy, ignore=lambda folder, _: ["snapshots"] if folder == str(source) else [])
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(StorageError, match="is one of Prometheus"):
        open_database(copy, OPTIONS)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.e2e
def test_a_torn_end_of_the_log_is_left_out_and_damage_before_it_reported(
    snapshot: tuple[Path, Sent, Api, float], tmp_path: Path
) -> None:
    copy = tmp_path / "prometheus"
    shutil.copytree(snapshot[0].parent.parent / "wal", copy / "wal")
    segments = sorted((copy / "wal").iterdir())
    whole = max((path.read_bytes() for path in segments), key=len)
    for path in segments:
        path.unlink()
    segment = copy / "wal" / "00000000"
    end = len(whole.rstrip(b"\0"))
    segment.write_bytes(whole[: end - 10])
    rows, result = rows_of_wal(copy, tmp_path / "torn")
    assert not result.damage
    torn = sum(len(row.floats) + len(row.histograms) for row in rows.values())
    (copy / "wal" / "00000001").write_bytes(whole)
    rows, result = rows_of_wal(copy, tmp_path / "damaged")
    assert "00000000: fragment at byte" in result.damage
    assert sum(len(row.floats) + len(row.histograms) for row in rows.values()) == torn
    assert rows_of_wal(copy, tmp_path / "damaged")[1].skipped == ""


@pytest.mark.e2e
def test_the_log_is_cut_by_selector_and_time(snapshot: tuple[Path, Sent, Api, float], tmp_path: Path) -> None:
    lo, hi = (snapshot[1]["up"][0][at].t_ms for at in (10, 20))
    part = Part(((Matcher(MatchType.EQUAL, "__name__", "up"),),), lo, hi)
    rows, _ = rows_of_wal(snapshot[0].parent.parent, tmp_path / "store", part)
    assert {labels.metric_name for labels in rows} == {"up"}
    assert [s.t_ms for row in rows.values() for s in row.floats] == [
        s.t_ms for s in snapshot[1]["up"][0][10:21]
    ]


QUERIES = [
    "sum by (code) (rate(http_requests_total[5m]))",
    "max_over_time(http_requests_total[1h])",
    "count({code=~'.+'})",
]


@pytest.mark.e2e
@pytest.mark.parametrize("query", QUERIES)
def test_queries_answer_as_prometheus_does(
    snapshot: tuple[Path, Sent, Api, float], imported: Database, query: str
) -> None:
    lo, hi = T0 + 1_000_000, T0 + 12_000_000
    answer = snapshot[2].query_range(query, lo / 1000, hi / 1000, 300)
    result = Engine(EngineOptions(threads=1)).range(imported.querier(), query, lo, hi, 300_000).value
    assert isinstance(result, Matrix)
    found = {
        labels: [value for value in values if value == value]
        for labels, values in zip(result.labels.rows(), result.values.tolist(), strict=True)
    }
    expected = {
        Labels.from_dict(row["metric"]): [float(value) for _, value in row["values"]]
        for row in answer["result"]
    }
    assert expected
    assert found.keys() == expected.keys()
    for labels, numbers in expected.items():
        assert found[labels] == pytest.approx(numbers, rel=1e-12)


@pytest.mark.e2e
@pytest.mark.parametrize("query", ["histogram_quantile(0.9, h)", "histogram_count(h)", "histogram_sum(fh)"])
def test_histogram_queries_answer_as_prometheus_does(
    snapshot: tuple[Path, Sent, Api, float], imported: Database, query: str
) -> None:
    at_ms = int(snapshot[3] * 1000) - 600_000
    answer = snapshot[2].query(query, at_ms / 1000)["result"]
    result = Engine(EngineOptions(threads=1)).instant(imported.querier(), query, at_ms).value
    assert isinstance(result, Matrix)
    # Prometheus 2.42 interpolates linearly within a bucket, newer ones by the logarithm.
    rel = 0.05 if "quantile" in query else 1e-12
    assert result.values[:, 0].tolist() == pytest.approx([float(row["value"][1]) for row in answer], rel=rel)
    assert len(answer) == 1
