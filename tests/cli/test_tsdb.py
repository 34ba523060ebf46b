"""`vedette tsdb`: promtool's output over the same data, and one clear line for what goes wrong."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.openmetricsfile import OpenMetricsFile
from cli.tsdb import tsdb
from cli.tsdbanalyze import histogram_lines
from cli.tsdbcreateopenmetrics import block_range, create_blocks
from cli.tsdblist import duration_text, size_text
from tests.e2e.processes import need_programs
from tests.tsdb.importing import openmetrics
from tests.tsdb.stores import Store
from tsdb.errors import DuplicateSampleError
from tsdb.fs import FileSystem
from tsdb.labels import Labels
from tsdb.tombstone import BlockTombstone

DATA = Path("/work/shared/data/promtool")
HOUR_MS = 3600_000


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tsdb, [str(argument) for argument in arguments])


def fixture(name: str) -> str:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path.read_text()


def promtool(*arguments: str | Path) -> str:
    need_programs("promtool")
    command = ["promtool", "tsdb", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openmetrics") / "in.om"
    path.write_text(openmetrics())
    return path


@pytest.fixture(scope="module")
def prometheus(source: Path) -> Path:
    """A Prometheus directory of three blocks."""
    target = source.parent / "prometheus"
    promtool("create-blocks-from", "openmetrics", source, target)
    (target / "wal").mkdir()
    return target


@pytest.fixture(scope="module")
def imported(prometheus: Path) -> Path:
    store = prometheus.parent / "store"
    result = run("import", "prometheus", prometheus, "--storage.tsdb.path", store)
    assert result.exit_code == 0, result.output
    return store


# Dumps, while the store is open elsewhere.

SERIES = {
    "metric": ({"foo": "bar", "baz": "abc"}, [1, 2, 3, 4, 5]),
    "heavy_metric": ({"foo": "bar"}, [5, 4, 3, 2, 1]),
    "heavy_metric ": ({"foo": "foo"}, [5, 4, 3, 2, 1]),
    "my_gauge": ({"bar": "foo", "abc": "baz"}, [9, 8, 0, 4, 7]),
    "my_counter": ({"foo": "bar", "baz": "abc"}, [1, 2, 3, 4, 5]),
}


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Store]:
    """A store in use, its samples in the head."""
    store = Store(tmp_path / "open", now_s=0)
    for name, (labels, values) in SERIES.items():
        row = Labels.from_dict({"__name__": name.strip(), **labels})
        store.append([(row, i * 60_000, float(value)) for i, value in enumerate(values)])
    store.db.wal.flush()
    yield store
    store.db.close()


HEAVY = "{__name__=~'heavy_metric|metric'}"
DUMPS = [
    ("1", [HEAVY], []),
    ("1", [HEAVY, HEAVY], []),
    ("2", ["{foo='foo'}", "{__name__='metric'}"], []),
    ("3", ["metric"], ["--min-time", "60000", "--max-time", "120000"]),
]


@pytest.mark.parametrize(("number", "selectors", "times"), DUMPS)
def test_dump_prints_what_promtool_prints(
    open_store: Store, number: str, selectors: list[str], times: list[str]
) -> None:
    matches = [argument for selector in selectors for argument in ("--match", selector)]
    result = run("dump", open_store.path, *matches, *times)
    assert result.output == fixture(f"dump-test-{number}.prom")
    result = run("dump", open_store.path, "--format", "seriesjson", *matches, *times)
    assert result.output == fixture(f"dump-series-{number}.prom")


def test_dump_openmetrics_prints_what_promtool_prints(open_store: Store) -> None:
    result = run("dump-openmetrics", open_store.path, "--match", "{__name__=~'my_.*'}")
    assert result.output == fixture("dump-openmetrics-test.prom")


def test_a_dump_changes_nothing_and_needs_no_lock(open_store: Store, tmp_path: Path) -> None:
    def everything() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in open_store.path.rglob("*") if p.is_file()}

    before = everything()
    (tmp_path / "sandbox").mkdir()
    assert run("dump", open_store.path, "--sandbox-dir-root", tmp_path / "sandbox").exit_code == 0
    assert run("dump", open_store.path).exit_code == 0
    assert everything() == before
    assert not list((tmp_path / "sandbox").iterdir())
    assert "tmp_dbro_sandbox" not in " ".join(p.name for p in open_store.path.iterdir())


def test_a_dump_has_head_and_blocks_less_what_is_deleted(imported: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(imported, tmp_path / "store"))
    store = Store(path)
    fresh = Labels.from_dict({"__name__": "fresh"})
    store.append([(fresh, 1_800_000_000_000, 1.5)])
    store.db.wal.flush()
    for stored in store.db.blocks():
        stone = BlockTombstone((), 0, 1_700_013_600_000)
        store.db.block_set.bury(store.db.block_set.draft_tombstones([(stored, [stone])]))
    result = run("dump", path)
    lines = result.output.splitlines()
    assert lines[0] == '{__name__="fresh"} 1.5 1800000000000'
    assert min(int(line.rsplit(" ", 1)[1]) for line in lines) > 1_700_013_600_000
    store.db.close()


def test_a_dump_prints_histograms_in_order_of_time(tmp_path: Path) -> None:
    from tests.tsdb.memoryselection import FloatSample, HistogramSample, MemorySelection, Row, bits_of
    from tsdb.blockwriter import write_block
    from tsdb.symbols import SymbolTable

    one = bits_of(1.0)
    histogram = HistogramSample(2, 0, 0, 0, bits_of(0.001), one, bits_of(2.0), one, 0, ((0, one),), (), ())
    row = Row(
        Labels.from_dict({"__name__": "h", "a": 'x"\n'}), [FloatSample(1, one), FloatSample(3, one)], []
    )
    row.histograms.append(histogram)
    write_block(FileSystem(), tmp_path, 0, 10, MemorySelection([row], SymbolTable()))
    head = '{__name__="h", a="x\\"\\n"}'
    assert run("dump", tmp_path).output.splitlines() == [
        f"{head} 1 1",
        f"{head} {{count:2, sum:1, [-0.001,0.001]:1, (0.5,1]:1}} 2",
        f"{head} 1 3",
    ]


# Import.


def test_import_and_dump_give_promtools_dump(prometheus: Path, imported: Path) -> None:
    assert run("dump", imported).output == promtool("dump", prometheus)


@pytest.mark.parametrize("other", ["prometheus", "documents"])
def test_import_into_a_directory_of_another_program_is_refused(
    prometheus: Path, tmp_path: Path, other: str
) -> None:
    target = tmp_path / "target"
    if other == "prometheus":
        shutil.copytree(prometheus, target)
    else:
        target.mkdir()
        (target / "letter.txt").write_text("Dear Sir")
    before = sorted(target.rglob("*"))
    result = run("import", "prometheus", prometheus, "--storage.tsdb.path", target)
    assert result.exit_code == 1
    reason = "is one of Prometheus" if other == "prometheus" else "is neither empty nor a store of Vedette"
    assert reason in result.output
    assert sorted(target.rglob("*")) == before


def test_import_of_a_locked_store_is_refused(prometheus: Path, open_store: Store) -> None:
    result = run("import", "prometheus", prometheus, "--storage.tsdb.path", open_store.path)
    assert result.exit_code == 1
    assert "is in use by another process" in result.output
    assert "stop that server, then import" in result.output


def test_import_reports_a_damaged_block_and_goes_on(prometheus: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prometheus, tmp_path / "prometheus"))
    damaged = sorted(p for p in copy.iterdir() if len(p.name) == 26)[1]
    (damaged / "index").write_bytes(b"no index" * 20)
    (copy / "wal" / "00000000").write_bytes(b"\x01\x00\x04" + bytes(97))
    (copy / "wal" / "00000001").write_bytes(b"\0" * 100)
    result = run("import", "prometheus", copy, "--storage.tsdb.path", tmp_path / "store")
    assert result.exit_code == 1
    wrong = [line for line in result.output.splitlines() if "FAILED" in line]
    assert len(wrong) == 2
    assert wrong[0].startswith(f"{damaged.name}: FAILED: {damaged}/index: not a Prometheus index")
    assert "2 blocks imported" in result.output
    assert wrong[1].startswith("write-ahead log: FAILED: ")
    assert "wal/00000000: fragment at byte 0 does not match its checksum" in wrong[1]
    assert "--storage.tsdb.retention.time" in result.output
    again = run("import", "prometheus", copy, "--storage.tsdb.path", tmp_path / "store")
    assert "0 blocks imported (0 samples), 2 skipped, 1 failed" in again.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--match", "{"], "parse error"),
        (["--storage.tsdb.path", "SOURCE"], "is the Prometheus directory itself"),
    ],
)
def test_import_refuses_bad_arguments(
    prometheus: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    given = [str(prometheus) if argument == "SOURCE" else argument for argument in arguments]
    target = [] if "SOURCE" in arguments else ["--storage.tsdb.path", str(tmp_path / "store")]
    result = run("import", "prometheus", prometheus, *given, *target)
    assert result.exit_code != 0
    assert text in result.output
    assert not (tmp_path / "store").exists()


# Tables.


def test_list_shows_promtools_columns(prometheus: Path, imported: Path) -> None:
    for flags in ([], ["-r"]):
        ours = [re.split(r"  +", line) for line in run("list", *flags, imported).output.splitlines()]
        theirs = [re.split(r"  +", line) for line in promtool("list", *flags, prometheus).splitlines()]
        assert ours[0] == theirs[0]
        assert [[*row[1:5], row[6]] for row in ours] == [[*row[1:5], row[6]] for row in theirs]


def test_analyze_ranks_as_promtool(prometheus: Path, imported: Path) -> None:
    def lists(text: str) -> list[list[str]]:
        sections = text.split("\n\n")[1:]
        return [
            [lines[0], *(line.split(" ")[0] for line in lines[1:])] for lines in map(str.splitlines, sections)
        ]

    ours = run("analyze", imported).output
    theirs = promtool("analyze", prometheus)
    assert lists(ours) == lists(theirs)
    assert ours.splitlines()[3:6] == theirs.splitlines()[3:6]


def test_analyze_of_a_selector_counts_its_series(imported: Path) -> None:
    output = run("analyze", imported, "--match", '{code="1"}', "--extended").output
    assert "Matched series: 6\n" in output
    assert "Most common label pairs:\n6 __name__=http_requests_total\n6 code=1\n" in output
    assert "samples per histogram chunk: N/A" in output


def test_bars_are_percent_of_all_runs() -> None:
    assert list(histogram_lines("n", np.array([3, 14, 15, 90]), 4))[:3] == [
        "n (min/avg/max): 3/30/90",
        f"[  1,  10]: 1 {'#' * 25}",
        f"[ 11,  20]: 2 {'#' * 50}",
    ]


@pytest.mark.parametrize("command", ["list", "analyze", "dump", "dump-openmetrics"])
def test_a_reader_that_has_seen_enough_is_no_error(imported: Path, command: str) -> None:
    """As of `| head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    program = Path(sys.executable).parent / "vedette"
    try:
        done = subprocess.run(
            [program, "tsdb", command, imported], stdout=writing, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(writing)
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["list", "analyze", "dump", "dump-openmetrics"])
def test_a_store_that_is_not_there_or_not_ours_is_one_line(
    prometheus: Path, tmp_path: Path, command: str
) -> None:
    for path, text in ((tmp_path / "none", "no such directory"), (prometheus, "format prometheus version 1")):
        result = run(command, path)
        assert result.exit_code == 1
        assert text in result.output
        assert len(result.output.splitlines()) == 1


DURATIONS = [(0, "0s"), (250, "250ms"), (1500, "1.5s"), (60_000, "1m0s"), (6390978, "1h46m30.978s")]


@pytest.mark.parametrize(("ms", "text"), DURATIONS)
def test_durations_read_as_in_go(ms: int, text: str) -> None:
    assert duration_text(ms) == text


def test_sizes_name_every_unit() -> None:
    assert size_text(83868, True) == "81KiB924B"
    assert size_text(0, True) == "0B"


# Blocks of OpenMetrics text.


def test_blocks_of_openmetrics_text_dump_as_those_of_promtool(
    source: Path, prometheus: Path, tmp_path: Path
) -> None:
    result = run("create-blocks-from", "openmetrics", source, tmp_path / "store")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 4
    assert run("dump", tmp_path / "store").output == promtool("dump", prometheus)
    quiet = run("create-blocks-from", "openmetrics", "-q", source, tmp_path / "quiet")
    assert quiet.output == ""


def test_a_dump_as_openmetrics_comes_back_the_same(tmp_path: Path) -> None:
    text = fixture("dump-openmetrics-roundtrip-test.prom")
    (tmp_path / "in.om").write_text(text)
    run("create-blocks-from", "openmetrics", tmp_path / "in.om", tmp_path / "store")
    assert run("dump-openmetrics", tmp_path / "store").output == text


def test_labels_are_set_on_every_series(tmp_path: Path) -> None:
    (tmp_path / "in.om").write_text('a{job="own"} 1 1\nb 2 1\n# EOF\n')
    run("create-blocks-from", "openmetrics", "--label", "job=mine", tmp_path / "in.om", tmp_path / "store")
    assert run("dump", tmp_path / "store").output.splitlines() == [
        '{__name__="a", job="mine"} 1 1000',
        '{__name__="b", job="mine"} 2 1000',
    ]


BAD_FILES = {
    "a 1\n# EOF\n": "line 1: expected timestamp for series a, got none",
    "a 1 1\nb\n# EOF\n": "line 2: ",
    "a 1 1\n": "line ",
    'a{b="c",b="d"} 1 1\n# EOF\n': "label names are not unique",
    "a 1 1\na 2 1\n# EOF\n": "duplicate sample for timestamp 1000: two values of a",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_is_named_by_line_and_leaves_no_block(tmp_path: Path, text: str) -> None:
    (tmp_path / "in.om").write_text(text)
    result = run("create-blocks-from", "openmetrics", tmp_path / "in.om", tmp_path / "store")
    assert result.exit_code == 1
    assert BAD_FILES[text] in result.output
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["lock"]


def test_the_same_sample_twice_is_stored_once(tmp_path: Path) -> None:
    (tmp_path / "in.om").write_text("a 1 1\na 1 1\n# EOF\n")
    run("create-blocks-from", "openmetrics", tmp_path / "in.om", tmp_path / "store")
    assert run("dump", tmp_path / "store").output == '{__name__="a"} 1 1000\n'


def test_bounds_of_a_histogram_are_normalised_also_in_a_later_piece(tmp_path: Path) -> None:
    lines = [f'h_bucket{{le="{le}"}} {i} {i}' for i, le in enumerate(["1", "2", "+Inf"] * 4)]
    path = tmp_path / "in.om"
    path.write_text("\n".join(["# TYPE h histogram", *lines, "# EOF", ""]))
    for size in (40, 64, 1 << 20):
        reader = OpenMetricsFile(path, {}, piece_bytes=size)
        list(reader.pieces())
        assert sorted(row.get("le") for row in reader.series) == ["+Inf", "1.0", "2.0"]


def test_pieces_and_memory_change_no_sample(source: Path, tmp_path: Path) -> None:
    stores = []
    for number, (piece, samples) in enumerate([(1 << 25, 1 << 24), (50_001, 7_000), (997, 1 << 24)]):
        store = tmp_path / str(number)
        FileSystem().make_directory(store)
        create_blocks(FileSystem(), OpenMetricsFile(source, {}, piece), store, 2 * HOUR_MS, samples)
        stores.append(store)
    assert len(list(stores[1].iterdir())) > len(list(stores[0].iterdir()))
    dumps = [run("dump", store).output for store in stores]
    assert dumps[0] == dumps[1] == dumps[2]


def test_blocks_written_before_an_error_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "in.om"
    path.write_text("".join(f"a {i} {i}\n" for i in range(100)) + "b 1 1\nb 2 1\n# EOF\n")
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(DuplicateSampleError):
        create_blocks(FileSystem(), OpenMetricsFile(path, {}, 64), store, 2 * HOUR_MS, 10)
    assert not list(store.iterdir())


def test_longest_block_is_a_power_of_three_times_two_hours() -> None:
    hours = [1, 2, 5, 6, 18, 53, 54, 10**9]
    found = [block_range(h * HOUR_MS) // HOUR_MS for h in hours]
    assert found == [2, 2, 2, 6, 18, 18, 54, 2 * 3**9]
    assert all(a <= b for a, b in itertools.pairwise(found))
