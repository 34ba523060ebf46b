"""Blocks: everything written comes back bit by bit, damage and newer versions are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.memoryselection import FloatSample, MemorySelection, Row, all_rows, bits_of, rows_of
from tests.tsdb.samplestrategies import rows
from tsdb import blockwriter, page, seriesfile, symbolpages
from tsdb.block import Block
from tsdb.blockmeta import BlockDesc
from tsdb.blockwriter import write_block
from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.samplerows import read_rows
from tsdb.select import HISTOGRAM_WORK, STALE_BITS, work_bounds_of
from tsdb.symbols import SymbolTable

FS = FileSystem()
ALL = (-(1 << 62), 1 << 62)


def within(source: list[Row], mint: int, maxt: int) -> dict[Labels, Row]:
    """What a select of [mint, maxt] gives, rows without samples left out."""
    kept = MemorySelection(source, SymbolTable(), mint, maxt).rows
    return {row.labels: row for row in kept if row.floats or row.histograms}


def filled(found: dict[Labels, Row]) -> dict[Labels, Row]:
    return {labels: row for labels, row in found.items() if row.floats or row.histograms}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=rows(), data=st.data())
def test_block_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, source: list[Row], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("block")
    mint, maxt = data.draw(st.tuples(st.integers(-30, 20), st.integers(21, 80)))
    meta = write_block(FS, directory, mint, maxt, MemorySelection(source, SymbolTable()))
    want = within(source, mint, maxt - 1)
    floats, histograms = (
        sum(len(getattr(row, kind)) for row in want.values()) for kind in ("floats", "histograms")
    )
    assert (meta.stats.num_float_samples, meta.stats.num_histogram_samples) == (floats, histograms)
    assert meta.stats.num_series == len(want)
    assert FS.list(directory) == ([meta.ulid] if want else [])
    if not want:
        return
    block = Block.open(FS, directory / meta.ulid, SymbolTable())
    assert block.meta == meta
    selection = block.select((), *ALL)
    assert all_rows(selection) == want
    weights = [len(row.floats) + HISTOGRAM_WORK * len(row.histograms) for row in all_rows(selection).values()]
    assert work_bounds_of(selection).tolist() == weights
    picks = data.draw(st.permutations(range(len(want))))
    labels = selection.labels.rows()
    shuffled = rows_of([labels[i] for i in picks], read_rows(selection, np.array(picks, dtype=np.int64)))
    assert {row.labels: row for row in shuffled} == want
    lo = data.draw(st.integers(-30, 70))
    hi = lo + data.draw(st.integers(0, 40))
    part = block.select((), lo, hi)
    assert filled(all_rows(part)) == within(source, max(lo, mint), min(hi, maxt - 1))
    bounds = part.sample_bounds().tolist()
    assert all(
        len(row.floats) + len(row.histograms) <= bound
        for row, bound in zip(all_rows(part).values(), bounds, strict=True)
    )


def series(name: str, instance: str, count: int, start: int = 0, value: float = 0.5) -> Row:
    labels = Labels.from_dict({"__name__": name, "instance": instance, "job": "node"})
    return Row(labels, [FloatSample(start + 15_000 * k, bits_of(value * k)) for k in range(count)])


def small_block(directory: Path, source: list[Row] | None = None) -> Path:
    source = source or [series(n, f"host-{i}", 40) for n in ("up", "load") for i in range(5)]
    meta = write_block(FS, directory, 0, 7_200_000, MemorySelection(source, SymbolTable()))
    return directory / meta.ulid


def test_series_are_ordered_by_metric_name_then_labels(tmp_path: Path) -> None:
    block = Block.open(FS, small_block(tmp_path), SymbolTable())
    labels = block.select((), *ALL).labels.rows()
    assert labels == sorted(labels, key=lambda row: (row.metric_name, row.pairs))


def test_long_series_are_cut_into_runs_and_only_needed_pages_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwriter, "RUN_SAMPLES", 64)
    monkeypatch.setattr(page, "PAGE_SAMPLES", 256)
    source = [series("up", f"host-{i}", 480) for i in range(6)]
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert block.meta.stats.num_chunks == 6 * 8
    assert all_rows(block.select((), *ALL)) == within(source, *ALL)
    reads: list[int] = []
    stored = block.columns.stored
    monkeypatch.setattr(block.columns, "stored", lambda k, n: (reads.append(k), stored(k, n))[1])
    block.columns._raw.clear()
    matcher = Matcher(MatchType.EQUAL, "instance", "host-3")
    narrow = block.select([matcher], 15_000 * 70, 15_000 * 80)
    assert filled(all_rows(narrow)) == within([source[3]], 15_000 * 70, 15_000 * 80)
    assert reads.count(1) == 1


def test_one_series_reads_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = [series("up", f"host-{i:03}", 480) for i in range(300)]
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert len(block.columns.directory(1).offset) == 3
    reads: list[tuple[int, int]] = []
    stored = block.columns.stored
    monkeypatch.setattr(block.columns, "stored", lambda k, n: (reads.append((k, n)), stored(k, n))[1])
    selection = block.select([Matcher(MatchType.EQUAL, "instance", "host-150")], *ALL)
    assert all_rows(selection) == within([source[150]], *ALL)
    assert sorted(reads) == [(0, 0), (1, 1)]


def test_equal_timestamp_vectors_are_stored_once(tmp_path: Path) -> None:
    source = [series(f"m{k}", f"host-{i}", 100, start=i) for k in range(20) for i in range(3)]
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert len(block.times.counts) == 3


def test_start_timestamps_are_kept_and_shared(tmp_path: Path) -> None:
    source = [series("up", f"host-{i}", 50) for i in range(4)]
    for row in source[:2]:
        row.floats = [sample._replace(start_t_ms=123) for sample in row.floats]
    source[2].floats[7] = source[2].floats[7]._replace(start_t_ms=-9)
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert all_rows(block.select((), *ALL)) == within(source, *ALL)
    assert filled(all_rows(block.select((), 30_000, 120_000))) == within(source, 30_000, 120_000)
    assert len(block.times.counts) == 3


def test_stale_markers_keep_their_bits(tmp_path: Path) -> None:
    row = series("up", "host-1", 20)
    row.floats[-1] = row.floats[-1]._replace(bits=STALE_BITS)
    block = Block.open(FS, small_block(tmp_path, [row]), SymbolTable())
    batch = block.select((), *ALL).read(0, 1)
    assert int(batch.values.view(np.uint64)[-1]) == STALE_BITS


def test_matchers_label_names_and_values(tmp_path: Path) -> None:
    block = Block.open(FS, small_block(tmp_path), SymbolTable())
    prefix = Matcher(MatchType.REGEXP, "instance", "host-[0-2]")
    name = Matcher(MatchType.EQUAL, "__name__", "up")
    assert len(block.select([prefix, name], *ALL).labels) == 3
    assert block.label_names() == ["__name__", "instance", "job"]
    assert block.label_values("instance", [prefix]) == ["host-0", "host-1", "host-2"]
    assert block.label_values("__name__") == ["load", "up"]
    assert block.label_values("nothing") == []
    figures = block.cardinality(1)
    assert figures.series_count == 10
    assert figures.series_by_label_pair == [("job=node", 10)]
    assert figures.values_by_label_name == [("instance", 5)]


def test_meta_json_has_prometheus_fields(tmp_path: Path) -> None:
    parents = [BlockDesc("01AAAAAAAAAAAAAAAAAAAAAAAA", 0, 5)]
    selection = MemorySelection([series("up", "a", 3)], SymbolTable())
    meta = write_block(
        FS, tmp_path, 0, 100_000, selection, level=2, sources=["01BBBBBBBBBBBBBBBBBBBBBBBB"], parents=parents
    )
    document = json.loads((tmp_path / meta.ulid / "meta.json").read_bytes())
    assert document["minTime"] == 0
    assert document["maxTime"] == 100_000
    assert document["stats"]["numSamples"] == 3
    assert document["compaction"]["level"] == 2
    assert document["compaction"]["sources"] == ["01BBBBBBBBBBBBBBBBBBBBBBBB"]
    assert document["compaction"]["parents"] == [{"ulid": parents[0].ulid, "minTime": 0, "maxTime": 5}]
    assert Block.open(FS, tmp_path / meta.ulid, SymbolTable()).meta == meta


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken(MemorySelection):
        def read(self, lo: int, hi: int) -> None:  # type: ignore[override]
            raise CorruptionError("chunk 3 is damaged")

    with pytest.raises(CorruptionError, match="chunk 3"):
        write_block(FS, tmp_path, 0, 100, Broken([series("up", "a", 3)], SymbolTable()))
    assert FS.list(tmp_path) == []


def _read_all(path: Path) -> object:
    block = Block.open(FS, path, SymbolTable())
    block.label_values("instance")
    matchers = [Matcher(MatchType.REGEXP, "instance", "host-.*"), Matcher(MatchType.EQUAL, "job", "node")]
    return all_rows(block.select(matchers, *ALL))


@pytest.mark.parametrize("name", ["index", "series", "columns"])
def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path, name: str) -> None:
    path = small_block(tmp_path)
    want = _read_all(path)
    file = path / name
    good = file.read_bytes()
    step = max(1, len(good) // 150)
    noticed = 0
    for at in range(0, len(good), step):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :])
        try:
            found, message = _read_all(path), str(path)
        except (CorruptionError, UnknownVersionError) as error:
            found, message = want, str(error)
            noticed += 1
        assert found == want
        assert str(path) in message
    assert noticed > 40
    for size in (0, 10, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:size])
        with pytest.raises(CorruptionError):
            _read_all(path)


def test_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = small_block(tmp_path)
    data = bytearray((path / "series").read_bytes())
    data[4] = 3
    (path / "series").write_bytes(data)
    with pytest.raises(UnknownVersionError, match="format version 3, this program reads up to version 2"):
        Block.open(FS, path, SymbolTable())


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    path = small_block(tmp_path)
    want = _read_all(path)
    for name in ("index", "series", "columns"):
        data = bytearray((path / name).read_bytes())
        data[4] = 1
        (path / name).write_bytes(data)
    assert _read_all(path) == want


def test_foreign_meta_is_refused(tmp_path: Path) -> None:
    path = small_block(tmp_path)
    meta = json.loads((path / "meta.json").read_bytes())
    (path / "meta.json").write_text(json.dumps(meta | {"version": 9}))
    with pytest.raises(UnknownVersionError, match="version 9"):
        Block.open(FS, path, SymbolTable())
    (path / "meta.json").write_text("{")
    with pytest.raises(CorruptionError, match=r"meta\.json"):
        Block.open(FS, path, SymbolTable())


def test_samples_of_a_closed_block_stay_valid(tmp_path: Path) -> None:
    block = Block.open(FS, small_block(tmp_path), SymbolTable())
    batch = block.select((), *ALL).read(0, 2)
    before = batch.values.tolist()
    block.close()
    assert batch.values.tolist() == before


label_sets = st.dictionaries(
    st.sampled_from(["__name__", "a", "b"]), st.sampled_from(["", "x", "y", "xy", "prod-1", "é"]), max_size=3
).map(Labels.from_dict)
conditions = st.lists(
    st.builds(
        Matcher,
        st.sampled_from(list(MatchType)),
        st.sampled_from(["__name__", "a", "b", "none"]),
        st.sampled_from(["", "x", "y", ".*", ".+", "x|y", "x.*", "prod-[0-9]", "(?i)X", "[^x]+", "é|x"]),
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(label_sets, min_size=1, max_size=12, unique=True),
    matchers=st.lists(conditions, min_size=1, max_size=4),
)
def test_select_agrees_with_brute_force(
    tmp_path_factory: pytest.TempPathFactory, names: list[Labels], matchers: list[list[Matcher]]
) -> None:
    source = [Row(labels, [FloatSample(5, 1)]) for labels in names]
    block = Block.open(FS, small_block(tmp_path_factory.mktemp("block"), source), SymbolTable())
    for each in matchers:
        want = {labels for labels in names if all(m.matches(labels.get(m.name)) for m in each)}
        assert set(block.select(each, *ALL).labels.rows()) == want
        assert block.label_names(each) == sorted({n for labels in want for n, _ in labels})
        assert block.label_values("a", each) == sorted({labels.get("a") for labels in want} - {""})


def test_many_strings_and_series_span_several_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolpages, "PIECE_SYMBOLS", 16)
    monkeypatch.setattr(seriesfile, "PIECE_SERIES", 32)
    source = [series("up", f"host-{i:03}", 3) for i in range(300)]
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert all_rows(block.select((), *ALL)) == within(source, *ALL)
    some = [Matcher(MatchType.REGEXP, "instance", "host-(015|016|299|nope)")]
    assert len(block.select(some, *ALL).labels) == 3
    tail = [Matcher(MatchType.REGEXP, "instance", "host-1.[05]")]
    assert len(block.select(tail, *ALL).labels) == 20
    assert len(block.label_values("instance")) == 300


def test_runs_of_one_sample_do_not_crowd_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE_SAMPLES", 1000)
    source = [series("up", f"host-{i:03}", 1, start=i) for i in range(300)]
    block = Block.open(FS, small_block(tmp_path, source), SymbolTable())
    assert all_rows(block.select((), *ALL)) == within(source, *ALL)
    for kind in (0, 1):
        assert np.diff(block.columns.directory(kind).first).max() <= 1000 // (1 + blockwriter.STREAM_COST) + 1
