"""Relabelling rules, one table row a behaviour."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config.relabeling import RelabelConfig
from ingest.relabel import Relabeler
from tsdb.labels import Labels

ABC = {"a": "foo", "b": "bar", "c": "baz"}
CASES: list[tuple[str, dict[str, str], list[dict[str, Any]], dict[str, str] | None]] = [
    (
        "replace writes the expanded value",
        ABC,
        [{"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "ch${1}-ch${1}"}],
        {**ABC, "d": "choo-choo"},
    ),
    (
        "rules run in order and see each other's changes",
        {"a": "foo", "b": "bar"},
        [
            {
                "source_labels": ["a", "b"],
                "regex": "f(.*);(.*)r",
                "target_label": "a",
                "replacement": "b${1}${2}m",
            },
            {"source_labels": ["b"], "regex": "(b).*(r)", "target_label": "c", "replacement": "$1$2"},
        ],
        {"a": "boobam", "b": "bar", "c": "br"},
    ),
    ("drop on match", {"a": "foo"}, [{"source_labels": ["a"], "regex": ".*o.*", "action": "drop"}], None),
    (
        "drop needs the whole value",
        {"a": "foo"},
        [{"source_labels": ["a"], "regex": "o", "action": "drop"}],
        {"a": "foo"},
    ),
    (
        "keep on match",
        {"a": "foo"},
        [{"source_labels": ["a"], "regex": "f.*", "action": "keep"}],
        {"a": "foo"},
    ),
    ("keep drops the rest", {"a": "foo"}, [{"source_labels": ["a"], "regex": "x", "action": "keep"}], None),
    (
        "dot matches newline",
        {"a": "f\no"},
        [{"source_labels": ["a"], "regex": "f.o", "action": "drop"}],
        None,
    ),
    (
        "no match leaves all",
        {"a": "x"},
        [{"source_labels": ["a"], "regex": "y", "target_label": "b"}],
        {"a": "x"},
    ),
    (
        "empty result deletes",
        {"a": "x", "b": "y"},
        [{"source_labels": ["a"], "regex": "x", "target_label": "b", "replacement": "$2"}],
        {"a": "x"},
    ),
    (
        "literal without source",
        {"a": "x"},
        [{"target_label": "b", "replacement": "static"}],
        {"a": "x", "b": "static"},
    ),
    ("absent source copies nothing", {"b": "y"}, [{"source_labels": ["a"], "target_label": "b"}], {}),
    (
        "target from the value",
        {"a": "some-name"},
        [{"source_labels": ["a"], "regex": "some-(.*)", "target_label": "${1}", "replacement": "v"}],
        {"a": "some-name", "name": "v"},
    ),
    (
        "empty target is a no-op",
        {"a": "x"},
        [{"source_labels": ["a"], "regex": "x", "target_label": "${3}", "replacement": "v"}],
        {"a": "x"},
    ),
    (
        "named group",
        {"a": "k=v"},
        [{"source_labels": ["a"], "regex": "k=(?P<val>.*)", "target_label": "b", "replacement": "${val}!"}],
        {"a": "k=v", "b": "v!"},
    ),
    (
        "$1x is a group named 1x",
        {"a": "v"},
        [{"source_labels": ["a"], "regex": "(.*)", "target_label": "b", "replacement": "$1x"}],
        {"a": "v"},
    ),
    (
        "double dollar",
        {"a": "v"},
        [{"source_labels": ["a"], "regex": "(.*)", "target_label": "b", "replacement": "$$1"}],
        {"a": "v", "b": "$1"},
    ),
    (
        "a lone dollar stays",
        {"a": "v"},
        [{"source_labels": ["a"], "regex": "(.*)", "target_label": "b", "replacement": "$ $1"}],
        {"a": "v", "b": "$ v"},
    ),
    (
        "separator",
        {"a": "x", "b": "y"},
        [{"source_labels": ["a", "b"], "separator": "||", "target_label": "c"}],
        {"a": "x", "b": "y", "c": "x||y"},
    ),
    (
        "labelmap keeps the original",
        {"__meta_k8s_app": "x", "z": "1"},
        [{"action": "labelmap", "regex": "__meta_k8s_(.*)"}],
        {"__meta_k8s_app": "x", "z": "1", "app": "x"},
    ),
    ("labeldrop", ABC, [{"action": "labeldrop", "regex": "a|c"}], {"b": "bar"}),
    ("labelkeep", ABC, [{"action": "labelkeep", "regex": "a|c"}], {"a": "foo", "c": "baz"}),
    (
        "lowercase",
        {"a": "FoÖ"},
        [{"action": "lowercase", "source_labels": ["a"], "target_label": "b"}],
        {"a": "FoÖ", "b": "foö"},
    ),
    (
        "uppercase never grows",
        {"a": "straße"},
        [{"action": "uppercase", "source_labels": ["a"], "target_label": "b"}],
        {"a": "straße", "b": "STRAßE"},
    ),
    (
        "keepequal keeps",
        {"a": "x", "b": "x"},
        [{"action": "keepequal", "source_labels": ["a"], "target_label": "b"}],
        {"a": "x", "b": "x"},
    ),
    (
        "keepequal drops",
        {"a": "x", "b": "y"},
        [{"action": "keepequal", "source_labels": ["a"], "target_label": "b"}],
        None,
    ),
    (
        "dropequal drops",
        {"a": "x", "b": "x"},
        [{"action": "dropequal", "source_labels": ["a"], "target_label": "b"}],
        None,
    ),
    (
        "dropequal keeps",
        {"a": "x", "b": "y"},
        [{"action": "dropequal", "source_labels": ["a"], "target_label": "b"}],
        {"a": "x", "b": "y"},
    ),
    (
        "hashmod of foo",
        {"c": "baz"},
        [{"action": "hashmod", "source_labels": ["c"], "target_label": "d", "modulus": 1000}],
        {"c": "baz", "d": "976"},
    ),
    (
        "action names ignore case",
        {"a": "X"},
        [{"action": "Lowercase", "source_labels": ["a"], "target_label": "a"}],
        {"a": "x"},
    ),
]


@pytest.mark.parametrize(("title", "labels", "rules", "expected"), CASES, ids=[c[0] for c in CASES])
def test_rules(
    title: str, labels: dict[str, str], rules: list[dict[str, Any]], expected: dict[str, str] | None
) -> None:
    relabeler = Relabeler([RelabelConfig.model_validate(dict(rule)) for rule in rules])
    result = relabeler.process(Labels.from_dict(labels))
    assert (None if result is None else result.to_dict()) == expected


def test_legacy_scheme_ignores_targets_it_does_not_allow() -> None:
    rule = RelabelConfig(source_labels=["a"], regex="(.*)", target_label="${1}", replacement="v")
    assert Relabeler([rule], "legacy").process(Labels.from_dict({"a": "b.c"})) == Labels((("a", "b.c"),))
    utf8 = Relabeler([rule]).process(Labels.from_dict({"a": "b.c"}))
    assert utf8 is not None
    assert utf8.get("b.c") == "v"


def test_steps_show_every_rule_up_to_the_drop() -> None:
    rules = [
        RelabelConfig(target_label="x", replacement="1"),
        RelabelConfig.model_validate({"source_labels": ["x"], "regex": "1", "action": "drop"}),
        RelabelConfig(target_label="y", replacement="2"),
    ]
    steps = list(Relabeler(rules).steps({"a": "b"}))
    assert [(s.output, s.keep) for s in steps] == [({"a": "b", "x": "1"}, True), ({}, False)]


@given(st.text(max_size=30), st.integers(min_value=1, max_value=(1 << 64) - 1))
def test_hashmod_takes_the_last_eight_bytes_of_md5(value: str, modulus: int) -> None:
    rule = RelabelConfig.model_validate(
        {"action": "hashmod", "source_labels": ["a"], "target_label": "h", "modulus": str(modulus)}
    )
    labels = {"a": value} if value else {}
    assert Relabeler([rule]).apply(labels)
    digest = hashlib.md5(value.encode()).hexdigest()
    assert labels["h"] == str(int(digest[16:], 16) % modulus)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.text(min_size=1, max_size=8), max_size=4),
    st.text(max_size=12),
)
def test_an_arbitrary_replacement_never_fails(labels: dict[str, str], replacement: str) -> None:
    rule = RelabelConfig(
        source_labels=["a", "b"], regex="(.*);(.*)", target_label="t", replacement=replacement
    )
    assert Relabeler([rule]).apply(labels)
    assert all(labels.values())
