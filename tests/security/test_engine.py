"""The columnar engine gives what the slow interpreter gives, event by event."""

from __future__ import annotations

import hypothesis
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from security.engine import RuleEngine
from security.fields.table import field_table
from security.rules.index import RuleSet, Selection, select
from security.rules.loader import RuleLoader
from tests.reference.securityrules import Event, matching_rules
from tests.security.randomrules import batch_of, conditions, events


def rules_of(*conditions: str) -> RuleSet:
    text = yaml.safe_dump(
        [
            {
                "rule": f"r{i}",
                "desc": "d",
                "condition": c,
                "output": "o",
                "priority": "INFO",
                "tags": [f"t{i % 2}"],
            }
            for i, c in enumerate(conditions)
        ]
    )
    loader = RuleLoader()
    result = loader.load_text("random.yaml", text)
    assert result.successful, result.verbose(loader.contents)
    return loader.rules


def matches_of(rules: RuleSet, rows: list[Event], mode: str = "all") -> list[tuple[int, str]]:
    return [(match.row, match.rule.name) for match in RuleEngine(rules, mode).match(batch_of(rows))]


def with_numbers(rows: list[Event], first: int = 1) -> list[Event]:
    return [{**row, ("evt.num", None): first + i} for i, row in enumerate(rows)]


@settings(max_examples=300, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@given(
    st.lists(conditions, min_size=1, max_size=4),
    st.lists(events, min_size=1, max_size=12),
    st.sampled_from(("first", "all")),
)
def test_engine_agrees_with_the_interpreter_on_random_rules_and_events(
    texts: list[str], rows: list[Event], mode: str
) -> None:
    rules = rules_of(*texts)
    table = field_table("syscall")
    expected = [
        (row, name)
        for row, event in enumerate(with_numbers(rows))
        for name in matching_rules(list(rules.rules), event, table, mode == "first")
    ]
    assert matches_of(rules, rows, mode) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@given(st.lists(conditions, min_size=1, max_size=3), st.lists(events, min_size=2, max_size=10), st.data())
def test_splitting_a_batch_changes_nothing(texts: list[str], rows: list[Event], data: st.DataObject) -> None:
    rules = rules_of(*texts)
    cut = data.draw(st.integers(0, len(rows)))
    engine = RuleEngine(rules, "all")
    parts = [(m.row, m.rule.name) for m in engine.match(batch_of(rows[:cut]))]
    parts += [(m.row + cut, m.rule.name) for m in engine.match(batch_of(rows[cut:], cut + 1))]
    assert parts == matches_of(rules, rows)


MISSING = [
    # A missing value satisfies no comparison; its negation is another matter.
    ("proc.pname != x", False),
    ("not proc.pname = x", True),
    ("proc.pname = x", False),
    ("not proc.pname in (a, b)", True),
    ("proc.pname exists", False),
    ("not proc.pname exists", True),
    ('proc.pname = "<NA>"', False),
    ("tolower(proc.pname) != x", False),
    ("fd.net != 10.0.0.0/8", False),
    ("user.uid != 0", False),
    ("fd.name = val(proc.pname)", False),
    ("proc.name != val(proc.pname)", False),
]


@pytest.mark.parametrize(("condition", "expected"), MISSING)
def test_missing_value_makes_every_check_false(condition: str, expected: bool) -> None:
    event: Event = {("evt.type", None): "open", ("proc.name", None): "cat"}
    assert bool(matches_of(rules_of(f"evt.type = open and {condition}"), [event])) is expected


TEXT_CASES = [
    ('proc.args = ""', {"proc.args": ""}, True),
    ("fd.name pmatch (/var/run)", {"fd.name": "/var/run/x"}, True),
    ("fd.name pmatch (/var/run)", {"fd.name": "/var/running"}, False),
    ("fd.name pmatch (/var//run/)", {"fd.name": "/var/run"}, True),
    ("fd.name glob /etc/*", {"fd.name": "/etc/a/b"}, True),
    ("fd.name glob /etc/?", {"fd.name": "/etc/ab"}, False),
    ("fd.name glob /etc/[!a]b", {"fd.name": "/etc/xb"}, True),
    (r"fd.name glob 'a\\*b'", {"fd.name": "a*b"}, True),
    (r"fd.name glob 'a\\*b'", {"fd.name": "axb"}, False),
    ("fd.name regex /etc/.*", {"fd.name": "/etc/a"}, True),
    ("fd.name regex /etc", {"fd.name": "/etc/a"}, False),
    ("proc.name icontains CAT", {"proc.name": "concat"}, True),
    ("proc.name icontains É", {"proc.name": "é"}, False),
    ("evt.buffer bcontains CAFEBABE", {"evt.buffer": b"x\xca\xfe\xba\xbe"}, True),
    ("evt.buffer bstartswith cafe", {"evt.buffer": b"\xca\xfe"}, True),
    ("fd.sport = ssh", {"fd.sport": 22}, True),
    ("fd.sport = 0x16", {"fd.sport": 22}, True),
    ('getopt(fd.types, "ab:")[b] = x', {"fd.types": ("-a", "-b", "x")}, True),
    ('getopt(fd.types, "ab:") intersects (a)', {"fd.types": ("-ab", "x")}, True),
    ("basename(fd.name) = c", {"fd.name": "/a/b/c"}, True),
    ("len(proc.name) = 2", {"proc.name": "é"}, True),
]


@pytest.mark.parametrize(("condition", "fields", "expected"), TEXT_CASES)
def test_operators_and_transformers(condition: str, fields: dict[str, object], expected: bool) -> None:
    event: Event = {("evt.type", None): "open", **{(name, None): value for name, value in fields.items()}}
    assert bool(matches_of(rules_of(f"evt.type = open and {condition}"), [event])) is expected


def test_first_match_takes_the_first_enabled_rule_in_file_order() -> None:
    rules = rules_of("evt.type = open", "evt.type in (open, execve)", "evt.type = execve")
    rows: list[Event] = [{("evt.type", None): "execve"}, {("evt.type", None): "open"}]
    assert matches_of(rules, rows, "first") == [(0, "r1"), (1, "r0")]
    assert matches_of(rules, rows, "all") == [(0, "r1"), (0, "r2"), (1, "r0"), (1, "r1")]
    off = select(rules, [Selection(False, rule="r*1"), Selection(False, tag="t1")])
    assert matches_of(off, rows, "first") == [(0, "r2"), (1, "r0")]
    assert matches_of(select(rules, minimum_priority=5), rows) == []


def test_events_of_a_type_no_rule_names_cost_no_column() -> None:
    rules = rules_of("evt.type = open and proc.name = cat")
    batch = batch_of([{("evt.type", None): "close", ("proc.name", None): "cat"}] * 100)
    assert RuleEngine(rules).match(batch) == []
    assert batch.columns == {}
