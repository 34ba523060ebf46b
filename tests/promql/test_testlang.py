"""The test language: reading, loading, comparing, repetitions, and Prometheus's own files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import test as cli_test
from promql.engine import Engine
from promql.histogramvalue import Histogram
from promql.memory import MemoryStore
from promql.testlang.atmodifier import pinned_variants
from promql.testlang.commands import Clear, Eval, ExpectKind, Load, TestFileError
from promql.testlang.compare import almost_equal, same_histogram
from promql.testlang.loading import load
from promql.testlang.reader import read_test_file
from promql.testlang.runner import TEST_OPTIONS, Outcome, TestRun
from tests.conftest import EVALS_PASSED
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, ResetHint
from tsdb.labels import Labels
from tsdb.select import STALE_BITS

DATA = Path("/work/shared/data/promqltest")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(replace(TEST_OPTIONS, threads=1))
    yield made
    made.close()


def outcomes(engine: Engine, text: str) -> list[Outcome]:
    return list(TestRun(engine).run(text))


def problems(engine: Engine, text: str) -> list[str]:
    return [outcome.problem for outcome in outcomes(engine, text)]


def only(text: str) -> Eval:
    (command,) = read_test_file(text)
    assert isinstance(command, Eval)
    return command


def test_commands_end_at_blank_lines_and_comments_count_as_blank() -> None:
    text = "# first\nclear\nload 5m\n  up 1\n  down 2\n# end\n\neval instant at 5m up\n  up 1\n"
    commands = read_test_file(text)
    assert [type(command) for command in commands] == [Clear, Load, Eval]
    assert isinstance(commands[1], Load)
    assert [series.labels.metric_name for series in commands[1].series] == ["up", "down"]
    assert [command.line for command in commands] == [2, 3, 8]


def test_eval_forms_and_their_times() -> None:
    instant = only("eval instant at 1h30m sum(up)")
    assert (instant.is_range, instant.at_ms, instant.text) == (False, 5_400_000, "sum(up)")
    ranged = only("eval range from 0 to 10m step 1m up")
    assert (ranged.start_ms, ranged.end_ms, ranged.step_ms) == (0, 600_000, 60_000)
    assert only("eval instant 1 + 1").at_ms == 0
    raw = only("eval instant at 1m up[1m]\n  expect range vector from 10s to 1m step 10s\n  up 1 2")
    assert (raw.expects_range_vector, raw.start_ms, raw.at_ms, raw.step_ms) == (True, 10_000, 60_000, 10_000)


@pytest.mark.parametrize("suffix", ["fail", "warn", "info", "ordered"])
def test_old_suffixes_are_expect_lines(suffix: str) -> None:
    assert list(only(f"eval_{suffix} instant at 0 up").expectations) == [ExpectKind(suffix)]


def test_expectations_match_exactly_or_by_search() -> None:
    command = only("eval instant at 0 up\n  expect warn msg: a (1:1)\n  expect warn regex: b+\n  expect info")
    exact, pattern = command.expectations[ExpectKind.WARN]
    assert exact.matches("a (1:1)")
    assert not exact.matches("a (1:1) ")
    assert pattern.matches("xbbx")
    assert command.expectations[ExpectKind.INFO][0].matches("anything")
    old = only("eval_fail instant at 0 up\n  expected_fail_regexp some.*")
    assert old.expectations[ExpectKind.FAIL][0].matches("some error")


BAD_FILES = [
    ("nonsense", 1, 'invalid command "nonsense"'),
    ("load", 1, "invalid load command. (load[_with_nhcb] <step:duration>)"),
    ("load 5x\n up 1", 1, 'invalid step definition "5x": unknown unit "x" in duration "5x"'),
    ("\nload 5m\n  up 1y", 3, 'column 4: parse error: unexpected "1y" in series values'),
    ("eval up", 1, "invalid evaluation command"),
    ("eval instant at 5 up", 1, "invalid timestamp definition"),
    ("eval instant at 5m sum(", 1, "column 24: parse error: unclosed left parenthesis"),
    ("eval range from 5m to 1m step 1m up", 1, "end timestamp (1m) is before start timestamp (5m)"),
    ("eval instant at 0 up\n expect oops", 2, "invalid expect statement"),
    ("eval instant at 0 up\n expect warn\n expect no_warn", 3, "warn and no_warn cannot be used together"),
    ("eval instant at 0 up\n expect fail\n expect fail", 3, "multiple expect fail lines are not allowed"),
    ("eval instant at 0 up\n expect warn regex: (", 2, "invalid regex ("),
    ("eval instant at 0 up\n expect string x", 2, "expected string literal not valid"),
    ("eval instant at 0 up\n up 1 2", 2, "expecting multiple values in instant evaluation not allowed"),
    ("load 5m\n up@st 0s\n down 1", 2, "@st metric does not match"),
    ("load 5m\n up@st 0s _\n up 1", 2, "@st line has 2 values but sample line has 1"),
    ("load 5m\n up@st 0s", 2, "@st line has no following sample line"),
    ("load 5m\n up@st 5\n up 1", 2, "invalid duration definition"),
    ("load 5m\n up@st -1m+3\n up 1", 2, "invalid @st sequence"),
    ("load 5m\n up 1x9999999", 2, "is more than 1000000"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD_FILES)
def test_bad_file_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(TestFileError) as caught:
        read_test_file(text)
    assert caught.value.line == line
    assert message in caught.value.message


def stored(text: str, metric: str = "up") -> MemoryStore:
    store = MemoryStore()
    for command in read_test_file(text):
        assert isinstance(command, Load)
        load(store, command)
    assert store.get(Labels.from_dict({"__name__": metric})) is not None
    return store


def test_samples_are_a_step_apart_and_gaps_are_left_out() -> None:
    row = stored("load 10s\n up 1 _ 3 stale").get(Labels.from_dict({"__name__": "up"}))
    assert row is not None
    assert row.times == [0, 20_000, 30_000]
    assert row.bits[2] == STALE_BITS


def test_a_second_line_of_a_series_replaces_the_first_within_a_load() -> None:
    row = stored("load 10s\n up 1\n up 2 3").get(Labels.from_dict({"__name__": "up"}))
    assert row is not None
    assert len(row.times) == 2


def test_start_times_are_offsets_from_the_samples() -> None:
    row = stored("load 1m\n up@st -1m _ -1m+30sx1\n up 1 2 3 4").get(Labels.from_dict({"__name__": "up"}))
    assert row is not None
    assert row.starts == [-60_000, 0, 60_000, 150_000]


HINTS = [
    # sequence, hints after storing
    ("{{count:1 buckets:[1]}} {{count:2 buckets:[2]}}", [ResetHint.UNKNOWN, ResetHint.NOT_RESET]),
    ("{{count:2 buckets:[2]}} {{count:1 buckets:[1]}}", [ResetHint.UNKNOWN, ResetHint.UNKNOWN]),
    ("{{count:2 buckets:[2]}} {{count:3 buckets:[1 2]}}", [ResetHint.UNKNOWN, ResetHint.UNKNOWN]),
    ("{{schema:1 count:1}} {{schema:0 count:1}}", [ResetHint.UNKNOWN, ResetHint.UNKNOWN]),
    ("{{count:1}} {{count:2 counter_reset_hint:reset}}", [ResetHint.UNKNOWN, ResetHint.UNKNOWN]),
    ("{{counter_reset_hint:gauge}} {{counter_reset_hint:gauge}}", [ResetHint.GAUGE, ResetHint.GAUGE]),
    ("{{counter_reset_hint:gauge}} {{}}", [ResetHint.GAUGE, ResetHint.UNKNOWN]),
    ("{{}} {{counter_reset_hint:gauge}} {{}}", [ResetHint.UNKNOWN, ResetHint.GAUGE, ResetHint.UNKNOWN]),
    ("{{count:1}} 5 {{count:2}}", [ResetHint.UNKNOWN, ResetHint.UNKNOWN]),
]


@pytest.mark.parametrize(("text", "hints"), HINTS)
def test_histograms_come_back_with_the_hints_of_their_chunks(text: str, hints: list[ResetHint]) -> None:
    row = stored(f"load 1m\n up {text}").get(Labels.from_dict({"__name__": "up"}))
    assert row is not None
    assert [histogram.hint for _, histogram, _ in row.histograms] == hints


def test_classic_histograms_become_custom_buckets_too() -> None:
    text = """load_with_nhcb 1m
      h_bucket{le="1"} 1
      h_bucket{le="5"} 3
      h_bucket{le="+Inf"} 4
      h_count 4
      h_sum 12
    """
    row = stored(text, "h").get(Labels.from_dict({"__name__": "h"}))
    assert row is not None
    assert row.histograms[0][1] == Histogram(
        schema=CUSTOM_BUCKETS_SCHEMA,
        count=4.0,
        sum=12.0,
        positive=((0, 1.0), (1, 2.0), (2, 1.0)),
        custom_values=(1.0, 5.0),
    )


FLOATS = [
    (1.0, 1.0, True),
    (1.0, 1.0000001, True),
    (1.0, 1.00001, False),
    (0.0, 1e-320, True),
    (0.0, 1e-300, False),
    (0.0, 0.0, True),
    (0.0, -0.0, True),
    (math.nan, math.nan, True),
    (math.nan, 1.0, False),
    (math.inf, math.inf, True),
    (math.inf, -math.inf, False),
    (1.7e308, 1.7e308 * (1 - 1e-9), True),
]


@pytest.mark.parametrize(("left", "right", "same"), FLOATS)
def test_floats_are_compared_relatively(left: float, right: float, same: bool) -> None:
    assert almost_equal(left, right) is same
    assert almost_equal(right, left) is same


def test_histograms_are_compared_after_compaction_and_hints_only_on_demand() -> None:
    plain = Histogram(count=2.0, positive=((1, 2.0),))
    padded = replace(plain, positive=((0, 0.0), (1, 2.0000001)), hint=ResetHint.GAUGE)
    assert same_histogram(plain, padded, with_hint=False)
    assert not same_histogram(plain, padded, with_hint=True)
    assert not same_histogram(plain, replace(plain, positive=((2, 2.0),)), with_hint=False)
    assert not same_histogram(plain, replace(plain, zero_threshold=0.1), with_hint=False)


def test_pinned_variants_pin_outer_selectors_at_five_other_times() -> None:
    variants = pinned_variants("sum(up) + rate(a[5m] @ 7) + max_over_time(b[1h:1m])", 300_000)
    texts = {text for text, _ in variants}
    assert texts == {"sum(up @ 300.000) + rate(a[5m] @ 7.000) + max_over_time(b[1h:1m] @ 300.000)"}
    assert [time for _, time in variants] == [-3_000_000, 0, 60_000, 300_000, 3_000_000]
    assert [time for _, time in pinned_variants("up", 0)] == [-1000, 0, 1000]


@pytest.mark.parametrize("query", ["time()", "predict_linear(up[5m], 60)", "sum(timestamp(up))", "hour(up)"])
def test_queries_that_depend_on_the_evaluation_time_are_not_repeated(query: str) -> None:
    assert pinned_variants(query, 60_000) == []


def test_what_lies_inside_a_pinned_subquery_does_not_matter() -> None:
    assert len(pinned_variants("max_over_time(hour(up)[5m:1m])", 60_000)) == 5


LOAD = 'load 5m\n  up{job="a"} 1+1x10\n  up{job="b"} 2+2x10\n\n'

PASSING = [
    'eval instant at 50m up\n  up{job="a"} 11\n  up{job="b"} 22',
    "eval instant at 50m sum(up)\n  {} 33",
    "eval instant at 50m 1 + 1\n  2",
    'eval instant at 0 "x"\n  expect string "x"',
    "eval range from 0 to 10m step 5m sum(up)\n  {} 3 6 9",
    'eval instant at 50m sort(up)\n  expect ordered\n  up{job="a"} 11\n  up{job="b"} 22',
    "eval instant at 50m nothing",
    "eval instant at 50m up + on() up\n  expect fail",
    "eval_fail instant at 50m up + on() up",
    'eval instant at 10m up{job="a"}[15m]\n  expect range vector from 0 to 10m step 5m\n  up{job="a"} 1 2 3',
    "eval instant at 50m rate(up[10m])\n  expect info\n  expect no_warn\n"
    '  {job="a"} 0.0033333333\n  {job="b"} 0.0066666666',
]


@pytest.mark.parametrize("text", PASSING)
def test_right_expectations_pass(engine: Engine, text: str) -> None:
    assert problems(engine, LOAD + text) == [""]


FAILING = [
    ('eval instant at 50m up\n  up{job="a"} 11', "unexpected metric"),
    ('eval instant at 50m up\n  up{job="a"} 11\n  up{job="b"} 23', "expected 23.0 for"),
    ('eval instant at 50m up{job="a"}\n  up{job="a"} 11\n  up{job="c"} 1', "not found"),
    ("eval instant at 50m sum(up)\n  {} {{}}", "expected histogram"),
    ("eval instant at 50m 1 + 1\n  3", "expected scalar 3 but got 2"),
    ("eval instant at 50m 1 + 1\n  {} 2", "expected vector or matrix result"),
    ("eval instant at 50m up\n  2", "expected scalar result"),
    ('eval instant at 0 "x"\n  expect string "y"', "expected string"),
    ("eval range from 0 to 10m step 5m sum(up)\n  {} 3 6", "expected 2 float points"),
    ("eval range from 0 to 10m step 5m sum(up)\n  {} 3 6 9 12", "more than the range has"),
    ("eval range from 0 to 10m step 5m sum(up)\n  {} 3 _ 9 ", "expected 2 float points"),
    ('eval instant at 50m sort(up)\n  expect ordered\n  up{job="b"} 22\n  up{job="a"} 11', "at position"),
    ("eval instant at 50m sum(up)\n  expect fail\n  {} 33", "expected an error but got none"),
    ("eval instant at 50m up + on() up\n  expect fail msg: other", "expected error with message"),
    ("eval instant at 50m up + on() up", "error evaluating the query"),
    ("eval instant at 50m sum(up)\n  expect warn\n  {} 33", "expected warn annotation"),
    (
        'eval instant at 50m rate(up{job="a"}[10m])\n  expect no_info\n  {job="a"} 0.0033333333',
        "expected no_info",
    ),
    (
        'eval instant at 50m rate(up{job="a"}[10m])\n  expect info msg: x\n  {job="a"} 0.0033333333',
        "expected info annotation with message",
    ),
]


@pytest.mark.parametrize(("text", "problem"), FAILING)
def test_wrong_expectations_fail(engine: Engine, text: str, problem: str) -> None:
    (found,) = problems(engine, LOAD + text)
    assert problem in found


class OnlyLiteral:
    """An engine that forgets `@`: right for the literal eval, wrong at other times."""

    def __init__(self, engine: Engine) -> None:
        self.instant = engine.instant
        self._engine = engine

    def range(self, *args: object) -> object:
        from promql.engineerrors import ExecutionError

        raise ExecutionError("no range queries")


def test_an_engine_that_passes_only_the_literal_eval_is_found_out(engine: Engine) -> None:
    run = TestRun(OnlyLiteral(engine))  # type: ignore[arg-type]
    (outcome,) = run.run(LOAD + "eval instant at 50m sum(up)\n  {} 33")
    assert outcome.problem == "in range mode: ExecutionError: no range queries"


def test_clear_empties_the_store(engine: Engine) -> None:
    assert problems(engine, LOAD + "clear\n\neval instant at 50m up") == [""]


def test_duplicate_samples_stop_the_file(engine: Engine) -> None:
    with pytest.raises(TestFileError, match="second sample"):
        outcomes(engine, "load 5m\n up 1\n\nload 5m\n up 2")


def test_command_prints_counts_and_exits_by_them(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.test", tmp_path / "bad.test"
    good.write_text(LOAD + PASSING[1])
    bad.write_text(LOAD + FAILING[1][0] + "\n\n" + PASSING[1])
    fine = CliRunner().invoke(cli_test.test, ["promql", str(good)])
    assert (fine.exit_code, fine.output.split()[:2]) == (0, ["good.test", "1/1"])
    failed = CliRunner().invoke(cli_test.test, ["promql", str(tmp_path)])
    assert failed.exit_code == 1
    assert f"{bad}:5: up" in failed.output
    assert failed.output.rstrip().endswith("2/3")
    broken = tmp_path / "broken.test"
    broken.write_text("what")
    assert CliRunner().invoke(cli_test.test, ["promql", str(broken)]).exit_code == 1


COUNTS = {
    "aggregators": 160,
    "at_modifier": 78,
    "collision": 2,
    "duration_expression": 59,
    "extended_vectors": 169,
    "fill-modifier": 46,
    "functions": 431,
    "histograms": 185,
    "info": 53,
    "limit": 37,
    "literals": 25,
    "name_label_dropping": 30,
    "native_histograms": 522,
    "operators": 214,
    "range_queries": 18,
    "selectors": 31,
    "staleness": 17,
    "start_timestamps": 26,
    "subquery": 34,
    "trig_functions": 19,
    "type_and_unit": 58,
}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_no_file_of_prometheus_is_left_out() -> None:
    assert {path.stem for path in DATA.glob("*.test")} == set(COUNTS)
    assert sum(COUNTS.values()) == 2214


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
@pytest.mark.parametrize("name", COUNTS)
def test_every_eval_of_prometheus_files_is_read(name: str) -> None:
    commands = read_test_file((DATA / f"{name}.test").read_text(encoding="utf-8"))
    assert sum(isinstance(command, Eval) for command in commands) == COUNTS[name]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
@pytest.mark.parametrize("name", COUNTS)
def test_every_eval_of_prometheus_files_passes(
    engine: Engine, name: str, record_property: Callable[[str, object], None]
) -> None:
    made = outcomes(engine, (DATA / f"{name}.test").read_text(encoding="utf-8"))
    failed = [(o.command.line, o.command.text, o.problem) for o in made if not o.passed]
    assert not failed
    record_property(EVALS_PASSED, len(made))
