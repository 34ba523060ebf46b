"""Blocks that promtool wrote are read sample for sample; damaged ones are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.tsdb.importing import ALL, FS, OPTIONS, T0, do_import, our_lines, promtool_dump, rows_in
from tests.tsdb.memoryselection import all_rows, bits_of
from tsdb.database import open_database
from tsdb.errors import StorageError, UnknownVersionError
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.prometheusblock import migrate
from tsdb.prometheusblock.block import PrometheusBlock
from tsdb.prometheusblock.migrate import Part
from tsdb.symbols import SymbolTable


@pytest.fixture
def blocks(promtool_blocks: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(promtool_blocks, tmp_path / "prometheus"))


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
