"""Rule files: `check rules` and `create-blocks-from rules` do what Debian's promtool does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import ingest
from benchmarks.load.bodies import LoadWriter
from benchmarks.load.nodes import Values, make_series
from benchmarks.servers import PROMETHEUS, Server, running
from cli.check import check
from cli.tsdb import tsdb
from promql.rules.group import RuleGroup
from promql.rules.recording import RecordingRule, RuleError, SeriesSamples
from promql.rules.rulefile import GroupConfig, RuleConfig, RuleFileError, read_rule_file
from tests.e2e.processes import free_port, need_programs
from tsdb.labels import Labels

DATA = Path("/work/shared/data/promtool")
FILES = (
    *("rules", "rules_duplicates", "rules_extrafields", "bad-promql", "bad-rules-error", "bad-rules-syntax"),
    "prometheus-rules.lint",
)
STEP_MS = 15_000

RULES = """
groups:
  - name: default interval
    rules:
      - record: job:cpu:rate5m
        expr: sum by (job, mode) (rate(node_cpu_seconds_total[5m]))
        labels: {tier: gold, job: ""}
      - alert: Loaded
        expr: node_load1 > 0
  - name: own interval
    interval: 37s
    rules:
      - record: load:above
        expr: (node_load1 > 0.5) * 1e-7
        labels: {tier: iron}
      - record: fixed
        expr: 0 / 0
      - record: empty
        expr: vector(1) == 2
"""


@pytest.mark.parametrize("name", FILES)
def test_check_rules_prints_what_promtool_prints(name: str) -> None:
    need_programs("promtool")
    path = DATA / f"{name}.yml"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    for flags in ([], ["--lint=none"], ["--lint-fatal"]):
        theirs = subprocess.run(
            ["promtool", "check", "rules", *flags, str(path)], capture_output=True, text=True, timeout=60
        )
        ours = CliRunner().invoke(check, ["rules", *flags, str(path)])
        assert (ours.exit_code, ours.stdout) == (theirs.returncode, theirs.stdout)
        assert ours.stderr == theirs.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("groups: [{name: a}, {name: a}]", '1:21: groupname: "a" is repeated in the same file'),
        ("groups: [{name: ''}]", "1:10: Groupname must not be empty"),
        ("groups: [{name: a, rules: [{expr: up}]}]",
         "1:28: group \"a\", rule 1, \"\": one of 'record' or 'alert' must be set"),
        ("groups: [{name: a, rules: [{record: b, alert: c, expr: up}]}]",
         "1:37: 1:47: group \"a\", rule 1, \"b\": only one of 'record' and 'alert' must be set"),
        ("groups: [{name: a, rules: [{record: b}]}]",
         "1:28: group \"a\", rule 1, \"b\": field 'expr' must be set in rule"),
        ("groups: [{name: a, rules: [{record: b, expr: up, for: 1m}]}]",
         "1:55: group \"a\", rule 1, \"b\": invalid field 'for' in recording rule"),
        ("groups: [{name: a, rules: [{record: 'b{}', expr: up}]}]",
         '1:37: group "a", rule 1, "b{}": braces present in the recording rule name; should it be in'
         " expr?: b{}"),
        ("groups: [{name: a, rules: [{record: b, expr: up, labels: {__name__: x}}]}]",
         '1:58: group "a", rule 1, "b": invalid label name: __name__'),
        ("groups: [{name: a, interval: soon}]", 'not a valid duration string: "soon"'),
        ("groups: [{name: a, limit: many}]",
         "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `many` into int"),
        ("groups: {}", "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!map into []rulefmt.RuleGroup"),
        ("groups: []\ngroups: []",
         'yaml: unmarshal errors:\n  line 2: mapping key "groups" already defined at line 1'),
        ("groups: [", "yaml: line 1: did not find expected node content"),
        ("groups:\n- name: a\n  rules: {x\n", "yaml: line 2: did not find expected ',' or '}'"),
        ("groups:\n- name: a\n rules: x\n", "yaml: line 2: did not find expected key"),
        ('groups:\n- name: "a\n', "yaml: line 2: found unexpected end of stream"),
    ],
)  # fmt: skip
def test_faults_of_a_rule_file_are_told_in_prometheus_words(text: str, problem: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        read_rule_file(text, "f.yml")
    assert caught.value.problems == [f"f.yml: {problem}"]


def test_all_faults_are_told_at_once_and_unknown_fields_can_be_accepted() -> None:
    text = "groups: [{name: a, owner: me, rules: [{record: b, expr: '1 +'}, {record: c, expr: up, x: 1}]}]"
    with pytest.raises(RuleFileError, match=r"field owner not found in type rulefmt\.RuleGroup") as caught:
        read_rule_file(text, "f.yml")
    assert "field x not found in type rulefmt.Rule" in str(caught.value)
    with pytest.raises(RuleFileError, match="unexpected end of input") as caught:
        read_rule_file(text, "f.yml", ignore_unknown_fields=True)
    assert len(caught.value.problems) == 1
    assert read_rule_file("", "f.yml") == []


def test_rows_that_would_be_one_series_refuse_the_evaluation() -> None:
    rule = RecordingRule.of(RuleConfig("r", "", "up", {"a": "", "b": "2"}), {"b": "1", "c": "3"})
    row = Labels.from_dict({"__name__": "up", "a": "x", "d": "4"})
    assert rule.series(row) == Labels.from_dict({"__name__": "r", "b": "2", "c": "3", "d": "4"})
    samples = SeriesSamples(row, np.array([1]), np.array([2.0]))
    other = SeriesSamples(Labels.from_dict({"a": "y", "d": "4"}), samples.t_ms, samples.values)
    with pytest.raises(RuleError, match="vector contains metrics with the same labelset"):
        rule.over_range(lambda *_: [samples, other], 0, 1, 1)


def test_evaluations_lie_on_a_grid_that_depends_on_the_names() -> None:
    group = RuleGroup.of(GroupConfig("g2", ()), "/tmp/tmpznqza273/rules.yml", 37_000)
    # What promtool 2.42 did for this file and group.
    assert group.first_evaluation_ms(1_795_825_105_000) == 1_795_825_114_248
    assert group.first_evaluation_ms(1_795_825_114_249) == 1_795_825_114_248 + 37_000
    assert group.first_evaluation_ms(1_795_825_114_247) == 1_795_825_114_248


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A Prometheus with two and a half hours of one host, and the end of them in ms."""
    need_programs("prometheus", "promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    series = make_series(1)
    writer = LoadWriter(series, Values(series, 1), step_ms=STEP_MS, lane_count=1, seed=1)
    end_ms = int(time.time() * 1000)
    with running(PROMETHEUS, free_port(), folder) as server:
        ingest.send(server, writer.write(folder / "load", end_ms - 600 * STEP_MS, 600), 1)
        yield server, end_ms


def test_blocks_from_rules_hold_what_promtool_puts_there(
    prometheus: tuple[Server, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, end_ms = prometheus
    monkeypatch.chdir(tmp_path)
    # The moments depend on the name of the file as it is given.
    Path("rules.yml").write_text(RULES, encoding="utf-8")
    start, end = str(end_ms // 1000 - 8000), str(end_ms // 1000 - 600)
    arguments = ["create-blocks-from", "rules", f"--url={server.url}", f"--start={start}", f"--end={end}"]
    subprocess.run(
        ["promtool", "tsdb", *arguments, "--output-dir=theirs", "rules.yml"], check=True, capture_output=True
    )
    Path("theirs/wal").mkdir()
    dumped = subprocess.run(
        ["promtool", "tsdb", "dump", "theirs"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    ran = CliRunner().invoke(tsdb, [*arguments, "--output-dir=ours", "rules.yml"])
    assert ran.exit_code == 0, ran.output
    ours = CliRunner().invoke(tsdb, ["dump", "ours"]).stdout.splitlines()
    # promtool says that alerting rules are not evaluated, and writes this one's expression all the same.
    theirs = [line for line in dumped if '__name__="Loaded"' not in line]
    assert sorted(ours) == sorted(theirs)
    assert len(theirs) > 1000
    assert {line.split('__name__="')[1].split('"')[0] for line in ours} == {
        *("job:cpu:rate5m", "load:above", "fixed"),
    }


def test_a_rule_that_cannot_be_evaluated_is_told_and_the_others_are_kept(
    prometheus: tuple[Server, int], tmp_path: Path
) -> None:
    server, end_ms = prometheus
    file = tmp_path / "rules.yml"
    broken = "{record: double, expr: 'node_cpu_seconds_total * on (job) node_cpu_seconds_total'}"
    file.write_text(
        f"groups: [{{name: a, rules: [{broken}, {{record: fine, expr: '1'}}]}}]", encoding="utf-8"
    )
    end_s = end_ms // 1000
    arguments = [
        f"--start={end_s - 900}",
        f"--end={end_s - 600}",
        f"--output-dir={tmp_path / 'out'}",
        str(file),
    ]
    ran = CliRunner().invoke(tsdb, ["create-blocks-from", "rules", f"--url={server.url}", *arguments])
    assert ran.exit_code == 1
    assert "rule importer error: query range: execution: " in ran.stderr
    dumped = CliRunner().invoke(tsdb, ["dump", str(tmp_path / "out")]).stdout.splitlines()
    assert 4 <= len(dumped) <= 6
    late = CliRunner().invoke(tsdb, ["create-blocks-from", "rules", "--start=5", "--end=4", str(file)])
    assert (late.exit_code, "start time is not before end time" in late.stderr) == (1, True)
