"""Blocks that Prometheus and promtool wrote are read sample for sample; damaged ones are named."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import cramjam
import numpy as np
import numpy.typing as npt
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
from tests.tsdb.memoryselection import FloatSample, HistogramSample, Row, all_rows, bits_of
from tsdb.database import Database, open_database
from tsdb.errors import StorageError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.limits import StorageOptions
from tsdb.prometheusblock import migrate
from tsdb.prometheusblock.block import PrometheusBlock
from tsdb.prometheusblock.migrate import Part, Result, WalResult
from tsdb.select import STALE_BITS
from tsdb.symbols import SymbolTable

FS = FileSystem()
T0 = 1_700_000_000_000
ALL = (-(1 << 62), 1 << 62)
OPTIONS = StorageOptions(background=False, retention_ms=0, lock_file=False)
WHOLE = Part()
STALE = struct.unpack("<d", struct.pack("<Q", STALE_BITS))[0]


def openmetrics(seed: int = 1, series_count: int = 30, samples: int = 1000) -> str:
    rng = random.Random(seed)
    lines = ["# TYPE http_requests counter"]
    for s in range(series_count):
        value = 0.0
        for i in range(samples):
            value += rng.randint(0, 10) * (1 if s % 3 else 0.1)
            at = T0 / 1000 + i * 15 + (rng.random() if s % 7 == 0 else 0)
            lines.append(f'http_requests_total{{code="{s % 5}",inst="h\\"{s}é"}} {value!r} {at:.3f}')
    lines.append("# TYPE g gauge")
    lines += [f"g {rng.choice(['NaN', '+Inf', '-0', '1e-300'])} {T0 / 1000 + i * 60}" for i in range(100)]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def promtool_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks made by Debian's promtool."""
    need_programs("promtool")
    folder = tmp_path_factory.mktemp("promtool")
    (folder / "in.om").write_text(openmetrics())
    run = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "in.om", "data"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "data" / "wal").mkdir()
    return folder / "data"


@pytest.fixture
def blocks(promtool_blocks: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(promtool_blocks, tmp_path / "prometheus"))


def do_import(source: Path, store: Path, part: Part = WHOLE) -> list[Result]:
    FS.make_directory(store)
    return list(migrate.import_blocks(FS, migrate.source_blocks(FS, source), store, part, lambda _: None))


def rows_in(store: Path) -> dict[Labels, Row]:
    database = open_database(store, OPTIONS)
    try:
        return all_rows(database.querier().select((), *ALL))
    finally:
        database.close()


def promtool_dump(folder: Path) -> set[tuple[str, str, str]]:
    """Labels, value and timestamp of each line."""
    (folder / "wal").mkdir(exist_ok=True)
    done = subprocess.run(
        ["promtool", "tsdb", "dump", str(folder)], check=True, capture_output=True, text=True, timeout=120
    )
    found = set()
    for line in done.stdout.splitlines():
        labels, value, t = line.rsplit(" ", 2)
        found.add((labels, value, t))
    return found


def our_lines(rows: dict[Labels, Row]) -> set[tuple[str, str, str]]:
    from cli.tsdbdump import label_text
    from promql.numberformat import format_g

    return {
        (label_text(labels, ", "), format_g(struct.unpack("<d", struct.pack("<Q", s.bits))[0]), str(s.t_ms))
        for labels, row in rows.items()
        for s in row.floats
    }


def test_blocks_of_promtool_import_equal(promtool_blocks: Path, tmp_path: Path) -> None:
    results = do_import(promtool_blocks, tmp_path / "store")
    assert [bool(result.written) for result in results] == [True] * 3
    rows = rows_in(tmp_path / "store")
    assert our_lines(rows) == promtool_dump(promtool_blocks)
    assert sum(len(row.floats) for row in rows.values()) == 30 * 1000 + 100


def test_sample_bits_survive_the_import(promtool_blocks: Path, tmp_path: Path) -> None:
    do_import(promtool_blocks, tmp_path / "store")
    rows = rows_in(tmp_path / "store")
    gauge = rows[Labels.from_dict({"__name__": "g"})]
    wanted = {0x7FF8000000000001, bits_of(float("inf")), bits_of(-0.0), bits_of(1e-300)}
    assert {sample.bits for sample in gauge.floats} == wanted


def test_a_second_run_skips_what_is_there(promtool_blocks: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    do_import(promtool_blocks, store)
    names = FS.list(store)
    assert [result.skipped for result in do_import(promtool_blocks, store)] == ["imported before"] * 3
    assert FS.list(store) == names


def test_a_second_run_skips_what_the_store_has_compacted(promtool_blocks: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    do_import(promtool_blocks, store)
    database = open_database(store, OPTIONS)
    database.maintenance._merge(database.blocks())
    database.close()
    assert [result.skipped for result in do_import(promtool_blocks, store)] == ["imported before"] * 3


def test_an_interrupted_run_leaves_no_half_block_and_goes_on(promtool_blocks: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    FS.make_directory(store)
    counted = 0

    def stop_in_the_second_block(count: int) -> None:
        nonlocal counted
        counted += count
        if counted > 20_000:
            raise KeyboardInterrupt

    sources = migrate.source_blocks(FS, promtool_blocks)
    with pytest.raises(KeyboardInterrupt):
        list(migrate.import_blocks(FS, sources, store, Part(), stop_in_the_second_block))
    assert len(FS.list(store)) == 1
    # What a kill leaves in place of an exception:
    FS.make_directory(store / "01HQ0000000000000000000000.tmp-for-creation")
    assert migrate.remove_unfinished(FS, store) == 1
    results = do_import(promtool_blocks, store)
    assert [result.skipped for result in results] == ["imported before", "", ""]
    assert our_lines(rows_in(store)) == promtool_dump(promtool_blocks)


def test_a_part_by_selector_and_time_does_not_stand_for_the_whole(
    promtool_blocks: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    part = Part(((Matcher(MatchType.EQUAL, "code", "1"),),), T0 + 60_000, T0 + 8_000_000)
    results = do_import(promtool_blocks, store, part)
    assert [bool(result.written) for result in results] == [True, True, False]
    rows = rows_in(store)
    assert {labels.get("code") for labels in rows} == {"1"}
    times = [sample.t_ms for row in rows.values() for sample in row.floats]
    assert min(times) == T0 + 60_000
    assert T0 + 7_980_000 < max(times) <= T0 + 8_000_000
    assert [r.skipped for r in do_import(promtool_blocks, store, part)][:2] == ["imported before"] * 2
    assert all(result.written for result in do_import(promtool_blocks, store))
    assert our_lines(rows_in(store)) == promtool_dump(promtool_blocks)


def test_sets_of_matchers_are_united(promtool_blocks: Path, tmp_path: Path) -> None:
    sets = tuple((Matcher(MatchType.REGEXP, "code", text),) for text in ("1|2", "2|3"))
    do_import(promtool_blocks, tmp_path / "store", Part(sets))
    assert {labels.get("code") for labels in rows_in(tmp_path / "store")} == {"1", "2", "3"}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


def set_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)


def meta_version(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))


DAMAGES = {
    "index magic": ("index", lambda p: flip(p, 0), "not a Prometheus index"),
    "index version": ("index", set_version, "index format version 9"),
    "index cut": ("index", lambda p: cut(p, p.stat().st_size // 2), "table of contents: checksum"),
    "index empty": ("index", lambda p: cut(p, 0), "0 bytes are too few"),
    "symbols": ("index", lambda p: flip(p, 12), "symbol table: checksum"),
    "a series": ("index", lambda p: flip(p, 1600), "series at byte .* does not match its checksum"),
    "chunk magic": ("chunks/000001", lambda p: flip(p, 1), "not a chunk segment"),
    "chunk version": ("chunks/000001", set_version, "chunk format version 9"),
    "a chunk": ("chunks/000001", lambda p: flip(p, 500), "chunk at byte .* does not match its checksum"),
    "chunks cut": ("chunks/000001", lambda p: cut(p, 2000), "reaches beyond the end of the file"),
    "chunks gone": ("chunks/000001", Path.unlink, "names segment 1 of 0"),
    "index gone": ("index", Path.unlink, "index: file is missing"),
    "tombstones": ("tombstones", lambda p: flip(p, 0), "not a tombstones file"),
    "tombstones cut": ("tombstones", lambda p: cut(p, 6), "too few for tombstones"),
    "meta": ("meta.json", lambda p: cut(p, 30), "not a block's meta.json"),
    "meta version": ("meta.json", meta_version, "version 2, not a block of Prometheus"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_named_and_the_rest_imported(blocks: Path, tmp_path: Path, damage: str) -> None:
    file, spoil, text = DAMAGES[damage]
    first = migrate.source_blocks(FS, blocks)[0].path
    spoil(first / file)
    results = do_import(blocks, tmp_path / "store")
    failed = [result for result in results if result.failed]
    assert [result.source.path for result in failed] == [first]
    assert "\n" not in failed[0].failed
    with pytest.raises(StorageError, match=text):
        raise StorageError(failed[0].failed)
    assert len([result for result in results if result.written]) == 2
    assert len(FS.list(tmp_path / "store")) == 2


def test_a_block_of_ours_is_no_block_of_prometheus(promtool_blocks: Path, tmp_path: Path) -> None:
    do_import(promtool_blocks, tmp_path / "store")
    results = do_import(tmp_path / "store", tmp_path / "other")
    assert len(results) == 3
    assert all("not a block of Prometheus" in result.failed for result in results)


def test_a_store_with_foreign_blocks_is_refused(blocks: Path, promtool_blocks: Path) -> None:
    with pytest.raises(UnknownVersionError, match="format prometheus"):
        do_import(promtool_blocks, blocks)


def test_a_directory_without_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no blocks"):
        migrate.source_blocks(FS, tmp_path)


def test_a_chunk_that_is_named_twice_is_read_once(
    promtool_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = PrometheusBlock(FS, migrate.source_blocks(FS, promtool_blocks)[0].path, SymbolTable())
    selection = block.select((), *ALL)
    expected = all_rows(selection)
    touched = selection._touched

    def twice(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        owners, refs = touched(rows)
        return np.repeat(owners, 2), np.repeat(refs, 2)

    monkeypatch.setattr(selection, "_touched", twice)
    found = all_rows(selection)
    assert {labels: row.floats for labels, row in found.items()} == {
        labels: row.floats for labels, row in expected.items()
    }


# A real Prometheus: remote write of floats and histograms, deletes, a snapshot.


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
