"""Redefinition, append and override: what is in force after all items are read."""

from __future__ import annotations

import pytest

from security.rules.ast import render
from security.rules.loader import RuleLoader

BASE = """
- list: names
  items: [a, b]
- macro: opens
  condition: evt.type = open
- rule: one
  desc: first
  condition: opens and proc.name in (names)
  output: out %proc.name
  priority: INFO
  tags: [x]
- rule: two
  desc: second
  condition: opens
  output: out
  priority: ERROR
"""
SHAPE = "LOAD_ERR_YAML_VALIDATE"
BAD = "LOAD_ERR_VALIDATE"


def load(text: str, base: str = BASE) -> RuleLoader:
    loader = RuleLoader()
    loader.load_text("all.yaml", base + text)
    return loader


def condition_of(loader: RuleLoader, name: str = "one") -> str:
    assert loader.successful, loader.results[-1].verbose(loader.contents)
    [rule] = [rule for rule in loader.rules.rules if rule.name == name]
    return render(rule.condition)


CONDITIONS = [
    ("", "(evt.type = open and proc.name in (a, b))"),
    # A later file changes what earlier items mean.
    ("- list: names\n  items: [c]\n", "(evt.type = open and proc.name in (c))"),
    (
        "- list: names\n  items: [c]\n  override: {items: append}\n",
        "(evt.type = open and proc.name in (a, b, c))",
    ),
    (
        "- list: names\n  items: [c]\n  override: {items: replace}\n",
        "(evt.type = open and proc.name in (c))",
    ),
    ("- list: names\n  items: []\n", "(evt.type = open and proc.name in ())"),
    # Items with blanks are quoted, numbers are texts.
    ("- list: names\n  items: [a b, 80, '\"-q\"']\n", '(evt.type = open and proc.name in ("a b", 80, -q))'),
    (
        "- macro: opens\n  condition: or evt.type = openat\n  append: true\n",
        "((evt.type = open or evt.type = openat) and proc.name in (a, b))",
    ),
    # Text is glued without parentheses.
    (
        "- rule: one\n  condition: or proc.name = z\n  override: {condition: append}\n",
        "((evt.type = open and proc.name in (a, b)) or proc.name = z)",
    ),
    (
        "- rule: one\n  condition: opens\n  override: {condition: replace}\n",
        "evt.type = open",
    ),
    (
        "- rule: one\n  exceptions:\n  - name: e\n    fields: [proc.name, fd.name]\n"
        "    comps: [=, startswith]\n"
        "    values: [[a, /x], [b, /y]]\n  override: {exceptions: append}\n",
        "((evt.type = open and proc.name in (a, b)) and not ((proc.name = a and fd.name startswith /x) or "
        "(proc.name = b and fd.name startswith /y)))",
    ),
    (
        "- rule: one\n  exceptions:\n  - name: e\n    fields: proc.name\n    values: [c, d e]\n"
        "  override: {exceptions: append}\n",
        '((evt.type = open and proc.name in (a, b)) and not proc.name in (c, "d e"))',
    ),
    (
        "- rule: one\n  exceptions:\n  - name: e\n    fields: [proc.name]\n    comps: [in]\n"
        "    values: [[names], ['(c, d)'], [[e, f]]]\n  override: {exceptions: append}\n",
        "((evt.type = open and proc.name in (a, b)) and not (proc.name in (a, b) or proc.name in (c, d) or "
        "proc.name in (e, f)))",
    ),
]


@pytest.mark.parametrize(("text", "expected"), CONDITIONS)
def test_condition_in_force(text: str, expected: str) -> None:
    assert condition_of(load(text)) == expected


def test_redefined_rule_keeps_its_place_and_loses_its_old_parts() -> None:
    loader = load("- rule: one\n  desc: d\n  condition: opens\n  output: o\n  priority: DEBUG\n")
    assert [rule.name for rule in loader.rules.rules] == ["one", "two"]
    assert loader.rules.rules[0].tags == frozenset()
    assert loader.rules.rules[0].priority == 7


def test_replaced_and_appended_parts_of_one_item() -> None:
    loader = load(
        """
- rule: one
  priority: critical
  tags: [y]
  output: more
  enabled: false
  override: {priority: replace, tags: append, output: append, enabled: replace}
"""
    )
    rule = loader.rules.rules[0]
    assert (rule.priority, rule.tags, rule.output, rule.enabled) == (
        2,
        frozenset(("x", "y")),
        "out %proc.name more",
        False,
    )


def test_macro_sees_only_macros_defined_before_its_last_change() -> None:
    late = "- macro: late\n  condition: evt.type = close\n"
    user = "- macro: uses\n  condition: late\n"
    assert load(user + late).results[0].errors[0].message == "Undefined macro 'late' used in filter."
    assert load(user.replace("late", "opens") + late + user).successful
    # A list has no such order, and neither has a rule.
    rule = "- rule: r\n  desc: d\n  condition: late and proc.name in (later)\n  output: o\n  priority: INFO\n"
    loader = load(rule + late + "- list: later\n  items: [q]\n")
    assert condition_of(loader, "r") == "(evt.type = close and proc.name in (q))"


def test_list_in_a_list_is_replaced_one_level_deep_and_only_when_earlier() -> None:
    lists = (
        "- list: l1\n  items: [a]\n- list: l2\n  items: [l1]\n- list: l3\n"
        "  items: [l2, later]\n- list: later\n  items: [z]\n"
    )
    loader = load(lists, "")
    assert {name: entry.items for name, entry in loader.lists.items()} == {
        "l1": ["a"],
        "l2": ["a"],
        "l3": ["l1", "later"],
        "later": ["z"],
    }


def test_empty_list_takes_one_comma_with_it() -> None:
    base = "- list: none\n  items: []\n- macro: m\n  condition: proc.name in ({})\n"
    for text in ("a, none, b", "none, a, b", "a, b, none", "a,none,b"):
        loader = load("", base.format(text))
        assert loader.successful, loader.results[0].verbose({})
        assert render(loader.macros["m"].tree) == "proc.name in (a, b)"


ERRORS = [
    (
        "- rule: one\n  priority: INFO\n  append: true\n",
        BAD,
        "Appended rule must have exceptions or condition property",
    ),
    (
        "- rule: one\n  condition: x\n  append: true\n  override: {condition: append}\n",
        SHAPE,
        "Keys 'override' and",
    ),
    (
        "- rule: one\n  priority: INFO\n  override: {priority: append}\n",
        SHAPE,
        "Key 'priority' cannot be appended to",
    ),
    ("- rule: one\n  source: x\n  override: {source: replace}\n", SHAPE, "Key 'source' cannot be replaced"),
    (
        "- rule: one\n  desc: x\n  override: {desc: erase}\n",
        SHAPE,
        "Invalid override operation for key 'desc': 'erase'",
    ),
    (
        "- rule: one\n  desc: x\n  override: {output: append}\n",
        SHAPE,
        "An append override for 'output' was specified",
    ),
    (
        "- rule: one\n  desc: x\n  output: y\n  override: {output: append}\n",
        *(SHAPE, "Unexpected key 'desc': no corresponding entry under 'override' is defined."),
    ),
    (
        "- rule: new\n  desc: x\n  override: {desc: replace}\n",
        BAD,
        "An 'override.<key>: replace' to a rule was requested",
    ),
    ("- rule: new\n  enabled: true\n", BAD, "Rule has 'enabled' key but no rule by that name already exists"),
    (
        "- rule: one\n  desc: d\n  condition: ka.verb = x\n  output: o\n  priority: INFO\n"
        "  source: k8s_audit\n",
        *(BAD, "Rule has been re-defined with a different source"),
    ),
    ("- rule: r\n  desc: d\n  condition: opens\n  output: o\n  priority: LOUD\n", SHAPE, "Invalid priority"),
    (
        "- rule: r\n  desc: d\n  condition: [a]\n  output: o\n  priority: INFO\n",
        SHAPE,
        "Value is not a scalar value",
    ),
    (
        "- rule: r\n  desc: ''\n  condition: a\n  output: o\n  priority: INFO\n",
        SHAPE,
        "Value must be non-empty",
    ),
    ("- rule: one\n  enabled: maybe\n", SHAPE, "Can't decode YAML scalar value"),
    ("- list: l\n  items: a\n", SHAPE, "Value is not a sequence"),
    ("- list: l\n  items: [[a]]\n", SHAPE, "sequence value is not scalar"),
    ("- required_plugin_versions: x\n", SHAPE, "Value of required_plugin_versions must be a sequence"),
    (
        "- required_plugin_versions: [{name: json, version: one}]\n",
        BAD,
        "Invalid required version 'one' for plugin 'json'",
    ),
    (
        "- required_plugin_versions: [{name: a, version: 1.0.0, "
        "alternatives: [{name: a, version: 2.0.0}]}]\n",
        *(BAD, "Defined multiple alternative version requirements for plugin 'a'"),
    ),
    (
        "- required_engine_version: 1.0.0\n",
        BAD,
        "Rules require engine version 1.0.0, but engine version is 0.63.0",
    ),
]


@pytest.mark.parametrize(("text", "code", "message"), ERRORS)
def test_wrong_item_is_refused(text: str, code: str, message: str) -> None:
    [error] = load(text).results[0].errors
    assert error.code == code
    assert error.message.startswith(message)


WARNINGS = [
    (
        "- rule: r\n  desc: d\n  condition: x = 1\n  output: o\n  priority: INFO\n  source: mars\n",
        "LOAD_UNKNOWN_SOURCE",
    ),
    ("- rule: one\n  enabled: false\n", "LOAD_DEPRECATED_ITEM"),
    ("- widget: x\n", "LOAD_UNKNOWN_ITEM"),
    ("- list: l\n  items: [a]\n  colour: red\n", "LOAD_UNKNOWN_KEY"),
    ("- list: 'a b'\n  items: [a]\n", "LOAD_INVALID_LIST_NAME"),
    ("- macro: 1a\n  condition: opens\n", "LOAD_INVALID_MACRO_NAME"),
    ("- macro: unused\n  condition: opens\n", "LOAD_UNUSED_MACRO"),
    ("- rule: one\n  condition: and evt.dir = <\n  override: {condition: append}\n", "LOAD_DEPRECATED_ITEM"),
    ("- rule: one\n  output: '%evt.latency'\n  override: {output: append}\n", "LOAD_DEPRECATED_ITEM"),
    ("- rule: one\n  output: '%container.info'\n  override: {output: append}\n", "LOAD_DEPRECATED_ITEM"),
    (
        "- rule: one\n  condition: and fd.name = proc.name\n  override: {condition: append}\n",
        "LOAD_COMPILE_CONDITION",
    ),
    (
        "- rule: r\n  desc: d\n  condition: ka.verb = <NA>\n  output: o\n"
        "  priority: INFO\n  source: k8s_audit\n",
        "LOAD_UNSAFE_NA_CHECK",
    ),
    (
        "- rule: one\n  exceptions: [{name: e, fields: [proc.name]}, {name: e, fields: [proc.name]}]\n"
        "  override: {exceptions: replace}\n",
        "LOAD_EXCEPTION_NAME_NOT_UNIQUE",
    ),
    (
        "- rule: one\n  exceptions: [{name: e, fields: [proc.name]}]\n  append: true\n",
        "LOAD_APPEND_NO_VALUES",
    ),
]


@pytest.mark.parametrize(("text", "code"), WARNINGS)
def test_warning_is_given(text: str, code: str) -> None:
    assert code in [warning.code for warning in load(text).results[0].warnings]


EXCEPTION = """
- rule: r
  desc: d
  condition: evt.type = open
  output: o
  priority: INFO
  exceptions:
  - name: e
    fields: [{}]
    comps: ["{}"]
    values:
    - [{}]
"""
_FIELD = "'{}' may be a valid field misused as a const string value"
_CALL = "'{}' may be a valid field transformer misused as a const string value"

# field, operator, value -> what follows "not", message of the warning
EXCEPTION_VALUES = [
    ("proc.name", "=", "cat", "proc.name = cat", None),
    ("proc.name", "contains", "a b", 'proc.name contains "a b"', None),
    ("proc.name", "=", "proc.pname", "proc.name = proc.pname", _FIELD.format("proc.pname")),
    ("proc.name", "=", '"proc.pname "', 'proc.name = "proc.pname "', _FIELD.format("proc.pname ")),
    ("proc.name", "=", "toupper(proc.pname)", "proc.name = toupper(proc.pname)", None),
    (
        *("proc.name", "=", "toupper( proc.pname)", 'proc.name = "toupper( proc.pname)"'),
        _CALL.format("toupper( proc.pname)"),
    ),
    ("tolower( proc.name)", "=", "test", "tolower(proc.name) = test", None),
    ("proc.name", " in ", "'(a, b)'", "proc.name in (a, b)", None),
    ("proc.name", "startswith anyof", "'(a, b)'", "proc.name startswith anyof (a, b)", None),
]


@pytest.mark.parametrize(("field", "operator", "value", "expected", "warning"), EXCEPTION_VALUES)
def test_values_of_exceptions_become_text(
    field: str, operator: str, value: str, expected: str, warning: str | None
) -> None:
    loader = load(EXCEPTION.format(field, operator, value), "")
    assert condition_of(loader, "r") == f"(evt.type = open and not {expected})"
    messages = [entry.message for entry in loader.results[0].warnings]
    assert messages == ([warning] if warning else [])


def test_name_of_a_list_may_have_blanks() -> None:
    text = "- list: test list\n  items: [open, openat]\n- macro: m\n  condition: evt.type in (test list)\n"
    assert render(load(text, "").macros["m"].tree) == "evt.type in (open, openat)"


def test_never_matching_rule_gives_no_warning_for_its_event_types() -> None:
    rule = "- rule: never\n  desc: d\n  condition: evt.num = 0\n  output: o\n  priority: INFO\n"
    loader = load(rule)
    assert [warning.code for warning in loader.results[0].warnings] == []
    assert loader.rules.rules[-1].event_types == frozenset()


def test_places_of_errors_lead_to_the_character() -> None:
    loader = load(
        "- rule: r\n  desc: d\n  condition: opens and fd.nothing = 1\n  output: o\n  priority: INFO\n"
    )
    text = loader.results[0].verbose(loader.contents)
    assert "rule 'r': (all.yaml:16:2)" in text
    assert 'condition expression: ("opens and fd.noth...":' in text
    assert "opens and fd.nothing = 1\n          ^\n" in text
    location = loader.results[0].as_json(loader.contents)["errors"][0]["context"]["locations"][1]
    assert location == {
        "item_name": "r",
        "item_type": "rule",
        "position": {"column": 2, "line": 16, "name": "all.yaml", "offset": 279},
    }
