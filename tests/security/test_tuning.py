"""Tuning from stored events: what is known for certain, what would be raised again, which exceptions help."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from security.engine import RuleEngine
from security.rules.loader import RuleLoader
from security.tuning.storedevents import StoredBatch, StoredEvent, StoredEventError, from_json, read_lines
from security.tuning.storedreplay import RuleReplay, replay_stored, unknown_rules
from security.tuning.suggestions import GROUPS_LIMIT, Suggestion, suggest
from security.tuning.threevalued import PartialEvaluator

RULE = "Read sensitive file"


def stored(rule: str = RULE, source: str = "syscall", time_ns: int = 1, **fields: Any) -> StoredEvent:
    """An event; `__` in a name stands for a dot."""
    return StoredEvent(
        rule, source, time_ns, {name.replace("__", "."): value for name, value in fields.items()}
    )


def load(condition: str, *more: str) -> RuleLoader:
    loader = RuleLoader()
    text = yaml.safe_dump(
        [{"rule": RULE, "desc": "d", "condition": condition, "output": "o", "priority": "NOTICE"}]
    )
    for item in (text, *more):
        result = loader.load_text("rules.yaml", item)
        assert result.successful, result.verbose(loader.contents)
    return loader


def one(condition: str, *events: StoredEvent) -> tuple[int, int, int]:
    """Certain, silent and undecided events of a condition."""
    [result] = replay_stored(events, load(condition).rules)
    return result.fires, result.silent, result.undecided


EVENT = stored(proc__name="cat", fd__name="/etc/shadow", proc__pname=None, evt__type="openat", user__uid=0)
CERTAIN = [
    ("evt.type=openat and proc.name=cat", (1, 0, 0)),
    ("proc.name=cat and proc.aname=x", (0, 0, 1)),
    ("proc.name=dog and proc.aname=x", (0, 1, 0)),
    ("proc.name=cat or proc.aname=x", (1, 0, 0)),
    ("not proc.name=cat and proc.aname=x", (0, 1, 0)),
    ("not proc.aname=x", (0, 0, 1)),
    ("proc.pname=x", (0, 1, 0)),
    ("not proc.pname=x", (1, 0, 0)),
    ("proc.pname exists or not fd.name startswith /etc/", (0, 1, 0)),
    ("user.uid < 5 and toupper(proc.name) = CAT", (1, 0, 0)),
    ("proc.name = val(proc.exe)", (0, 0, 1)),
    ("evt.num > 0", (0, 0, 1)),
]


@pytest.mark.parametrize(("condition", "expected"), CERTAIN, ids=[condition for condition, _ in CERTAIN])
def test_only_what_follows_from_stored_fields_is_certain(
    condition: str, expected: tuple[int, int, int]
) -> None:
    assert one(condition, EVENT) == expected


_NAMES = ("proc.name", "proc.pname", "fd.name")
_VALUES = st.sampled_from(["a", "b", None])
_CHECKS = st.builds(lambda name, value: f"{name}={value}", st.sampled_from(_NAMES), st.sampled_from("ab"))
_CONDITIONS = st.recursive(
    _CHECKS,
    lambda inner: st.one_of(
        st.builds(lambda a, b: f"({a} and {b})", inner, inner),
        st.builds(lambda a, b: f"({a} or {b})", inner, inner),
        st.builds(lambda a: f"not ({a})", inner),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(_CONDITIONS, st.fixed_dictionaries(dict.fromkeys(_NAMES, _VALUES)), st.sets(st.sampled_from(_NAMES)))
def test_certain_answers_hold_whatever_the_unknown_fields_were(
    condition: str, fields: dict[str, str | None], hidden: set[str]
) -> None:
    rules = load(condition).rules
    whole = StoredBatch([StoredEvent(RULE, "syscall", 1, fields)], "syscall")
    truth = bool(RuleEngine(rules).match(whole.batch))
    known = {name: value for name, value in fields.items() if name not in hidden}
    partial = StoredBatch([StoredEvent(RULE, "syscall", 1, known)], "syscall")
    verdict = PartialEvaluator(rules, partial).verdict(rules.rules[0])
    assert verdict.possible[0] if truth else not verdict.certain[0]
    if not hidden:
        assert (bool(verdict.certain[0]), bool(verdict.possible[0])) == (truth, truth)


def test_a_rule_set_over_stored_events_says_what_each_rule_would_do() -> None:
    other = {
        "rule": "Other",
        "desc": "d",
        "condition": "fd.name=/etc/shadow",
        "output": "o",
        "priority": "INFO",
    }
    off = {
        "rule": "Off",
        "desc": "d",
        "condition": "evt.type=open",
        "output": "o",
        "priority": "INFO",
        "enabled": False,
    }
    loader = load("proc.name in (cat, vi)", yaml.safe_dump([other]), yaml.safe_dump([off]))
    events = [EVENT, stored(proc__name="ls"), stored(), stored("Off", evt__type="open"), stored("Gone")]
    assert replay_stored(events, loader.rules) == [
        RuleReplay(RULE, 5, 3, 1, 1, own=True),
        RuleReplay("Other", 6, 5, 1, 0, own=False),
        RuleReplay("Off", 6, 1, 0, 1, own=True),
    ]
    assert unknown_rules(events, loader.rules) == {"Gone": 1}


def noise() -> list[StoredEvent]:
    """A log with a known answer: a backup below one directory, a tool on one file, and single events."""
    events = [
        stored(time_ns=at, proc__name="backup", proc__pname="cron", fd__name=f"/etc/ssl/private/{at}.pem")
        for at in range(60)
    ]
    events += [stored(proc__name="ansible", proc__pname="sshd", fd__name="/etc/shadow") for _ in range(25)]
    events += [stored(proc__name=f"x{at}", proc__pname="bash", fd__name="/etc/shadow") for at in range(15)]
    return events


def values(suggestion: Suggestion) -> list[Any]:
    [item] = yaml.safe_load(suggestion.text)
    assert (item["rule"], item["override"]) == (RULE, {"exceptions": "append"})
    return [(entry["fields"], entry["comps"], entry["values"]) for entry in item["exceptions"]]


def test_the_noise_of_a_log_becomes_two_exceptions() -> None:
    [found] = suggest(noise())
    fields = ["proc.name", "proc.pname", "fd.name"]
    assert values(found) == [
        (fields, ["=", "=", "startswith"], [["backup", "cron", "/etc/ssl/private/"]]),
        (fields, ["=", "=", "="], [["ansible", "sshd", "/etc/shadow"]]),
    ]
    assert (found.stored, found.removed) == (100, 85)
    assert [count for _, count in found.groups] == [60, 25]


def test_a_suggestion_loads_on_the_rule_and_takes_away_what_it_says() -> None:
    [found] = suggest(noise())
    rules = load("evt.type=open or fd.name exists", found.text).rules
    [after] = replay_stored(noise(), rules)
    assert (after.silent, after.fires) == (85, 15)


def test_suggestions_do_not_depend_on_the_order_of_events() -> None:
    assert suggest(noise()) == suggest(noise()[::-1])


def test_several_objects_of_one_actor_are_listed() -> None:
    events = [
        stored(proc__name="agent", proc__pname="init", fd__name=f"/etc/{name}")
        for name in "ab"
        for _ in range(10)
    ]
    assert values(suggest(events)[0]) == [
        (["proc.name", "proc.pname", "fd.name"], ["=", "=", "in"], [["agent", "init", ["/etc/a", "/etc/b"]]])
    ]


def test_one_comparison_alone_is_never_suggested() -> None:
    assert suggest([stored(proc__name="bash", proc__pid=at) for at in range(50)]) == []


HOSTILE = [
    'we"ird',
    "a, b) or (evt.type=open",
    "'",
    "list_name",
    "x\ny",
    "ü",
    "(",
    "\\",
    '"q"',
    "val(proc.name)",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_are_said_right_or_not_suggested(name: str) -> None:
    events = [stored(proc__name=name, proc__pname="p", fd__name="/srv/a/b") for _ in range(20)]
    events += [stored(proc__name=f"q{at}", proc__pname="p", fd__name="/srv/a/b") for at in range(12)]
    for found in suggest(events):
        rules = load("evt.type=open or fd.name exists", found.text).rules
        silent = [event for event in events if replay_stored([event], rules)[0].silent]
        assert {event.fields["proc.name"] for event in silent} <= {name}


def test_suggestions_are_bounded_and_for_noisy_rules_only() -> None:
    few = [stored("Few", proc__name="a", proc__pname="b") for _ in range(9)]
    many = [
        stored(proc__name=f"p{group}", proc__pname="init", fd__name="/x")
        for group in range(14)
        for _ in range(10)
    ]
    [found] = suggest(few + many)
    assert found.rule == RULE
    assert len(found.groups) == GROUPS_LIMIT
    assert suggest(few + many, only_rule="Few") == []
    assert suggest([stored(source="mars", proc__name="a", proc__pname="b")] * 20) == []


def test_audit_events_have_actors_of_their_own() -> None:
    event = stored(source="k8s_audit", **{"ka.user.name": "ci", "ka.verb": "get", "ka.target.name": "s"})
    [found] = suggest([event] * 12)
    assert [item.field for item in found.groups[0][0]] == ["ka.user.name", "ka.verb", "ka.target.name"]


def test_rules_that_do_not_take_the_exceptions_are_an_error(tmp_path: Any) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- rule: x\n", encoding="utf-8")
    with pytest.raises(ValueError, match="LOAD_ERR"):
        suggest(noise(), [str(path)])


def test_events_of_files_are_read_in_both_forms() -> None:
    line = b'{"rule":"r","priority":"Notice","source":"syscall","time":"2024-05-01T10:00:00.000000123Z",'
    line += b'"output_fields":{"proc.name":"a","fd.sip":"1.2.3.4"}}'
    wire = b'{"v":1,"rule":"r","source":"syscall","time_ns":5,"fields":{"proc.name":"b"}}'
    first, second = read_lines([line, b"\n", wire])
    assert (first.time_ns, first.fields["proc.name"]) == (1_714_557_600_000_000_123, "a")
    assert second == StoredEvent("r", "syscall", 5, {"proc.name": "b"})
    column = StoredBatch([first], "syscall").batch.column(("fd.sip", None))
    assert column is not None
    assert str(column.value(0)) == "1.2.3.4"


BAD = [
    (b"{", "line 2: unexpected end of data"),
    (b"[]", "line 2: not a JSON object"),
    (b'{"rule":1}', "line 2: no rule, source or fields of an event"),
    (b'{"rule":"r","time":"noon"}', "line 2: time 'noon' is not a date and time"),
    (b" " * (1 << 21), "line 2 of 2097152 bytes is over 1048576"),
]


@pytest.mark.parametrize(("line", "text"), BAD, ids=[text[:30] for _, text in BAD])
def test_a_bad_line_is_named(line: bytes, text: str) -> None:
    with pytest.raises(StoredEventError, match=text):
        list(read_lines([b"", line]))


def test_values_of_wrong_types_are_unknown() -> None:
    event = from_json(
        {"rule": RULE, "time_ns": 1, "fields": {"user.uid": "many", "fd.sip": "x", "proc.name": []}}
    )
    assert one("user.uid=0 or proc.name=x", event) == (0, 0, 1)
