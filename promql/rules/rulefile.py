"""Rule files as written: groups of recording and alerting rules, checked in Prometheus's words (surface 8.1).

Templates in labels and annotations of alerts are not looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from promql.errors import ParseError
from promql.parser import STABLE, ParserOptions, parse
from promql.quoting import quote
from promql.rules.yamldecode import DecodeError, Decoder, compose, place
from tsdb.labels import METRIC_NAME

_FILE_FIELDS = ("groups",)
_GROUP_FIELDS = ("name", "interval", "query_offset", "limit", "labels", "rules")
_RULE_FIELDS = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """One rule; exactly one of `record` and `alert` is set. The two durations belong to alerts."""

    record: str
    alert: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    for_ms: int = 0
    keep_firing_for_ms: int = 0

    @property
    def name(self) -> str:
        """Of the series or of the alert."""
        return self.record or self.alert


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """One group. None where the file leaves it to the global configuration; `limit` 0 is none."""

    name: str
    rules: tuple[RuleConfig, ...]
    interval_ms: int | None = None
    query_offset_ms: int | None = None
    limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


class RuleFileError(Exception):
    """A file that is refused; `problems` name the file and, where it is known, line and column."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_rule_file(
    text: str, file: str, *, ignore_unknown_fields: bool = False, options: ParserOptions = STABLE
) -> list[GroupConfig]:
    """Groups of a rule file. Raises RuleFileError with everything that is wrong."""
    decoder = Decoder(ignore_unknown_fields)
    try:
        top = decoder.fields(compose(text), "rulefmt.RuleGroups", _FILE_FIELDS)
        nodes = decoder.items(top.get("groups"), "rulefmt.RuleGroup")
        groups = [_group(decoder, node) for node in nodes]
        decoder.check()
    except DecodeError as error:
        raise RuleFileError([f"{file}: {error}"]) from None
    problems = _group_problems(groups)
    for group in groups:
        for number, rule in enumerate(group.rules, start=1):
            where = f"group {quote(group.config.name)}, rule {number}, {quote(rule.config.name)}"
            problems += [f"{spot}: {where}: {text}" for spot, text in rule.problems(options)]
    if problems:
        raise RuleFileError([f"{file}: {problem}" for problem in problems])
    return [group.config for group in groups]


@dataclass(frozen=True, slots=True)
class _Rule:
    config: RuleConfig
    node: yaml.Node
    nodes: Mapping[str, yaml.Node]

    def _place(self, key: str) -> str:
        return place(self.nodes.get(key, self.node))

    def problems(self, options: ParserOptions) -> list[tuple[str, str]]:
        """Place and text of each fault."""
        rule, found = self.config, list[tuple[str, str]]()
        if rule.record and rule.alert:
            where = f"{self._place('record')}: {self._place('alert')}"
            found.append((where, "only one of 'record' and 'alert' must be set"))
        elif not rule.name:
            found.append((self._place("record"), "one of 'record' or 'alert' must be set"))
        if not rule.expr:
            found.append((self._place("expr"), "field 'expr' must be set in rule"))
        else:
            try:
                parse(rule.expr, options)
            except ParseError as error:
                found.append((self._place("expr"), f"could not parse expression: {error}"))
        if rule.record:
            found += self._recording_problems()
        found += [(self._place("labels"), text) for text in label_problems(rule.labels)]
        for name in rule.annotations:
            if not name:
                found.append((self._place("annotations"), f"invalid annotation name: {name}"))
        return found

    def _recording_problems(self) -> list[tuple[str, str]]:
        rule = self.config
        found = [
            (self._place(key), f"invalid field '{key}' in recording rule")
            for key, given in (
                ("annotations", bool(rule.annotations)),
                ("for", bool(rule.for_ms)),
                ("keep_firing_for", bool(rule.keep_firing_for_ms)),
            )
            if given
        ]
        if "{" in rule.record or "}" in rule.record:
            text = "braces present in the recording rule name; should it be in expr?: "
            found.append((self._place("record"), text + rule.record))
        return found


@dataclass(frozen=True, slots=True)
class _Group:
    config: GroupConfig
    node: yaml.Node
    rules: tuple[_Rule, ...]


def _rule(decoder: Decoder, node: yaml.Node) -> _Rule:
    nodes = decoder.fields(node, "rulefmt.Rule", _RULE_FIELDS)
    record, alert, expr = (decoder.text(nodes.get(key)) for key in ("record", "alert", "expr"))
    labels, annotations = (decoder.texts(nodes.get(key)) for key in ("labels", "annotations"))
    durations = [decoder.duration_ms(nodes.get(key)) or 0 for key in ("for", "keep_firing_for")]
    return _Rule(RuleConfig(record, alert, expr, labels, annotations, *durations), node, nodes)


def _group(decoder: Decoder, node: yaml.Node) -> _Group:
    nodes = decoder.fields(node, "rulefmt.RuleGroup", _GROUP_FIELDS)
    rules = tuple(_rule(decoder, each) for each in decoder.items(nodes.get("rules"), "rulefmt.Rule"))
    config = GroupConfig(
        decoder.text(nodes.get("name")),
        tuple(rule.config for rule in rules),
        decoder.duration_ms(nodes.get("interval")) or None,
        decoder.duration_ms(nodes.get("query_offset")),
        decoder.integer(nodes.get("limit")),
        decoder.texts(nodes.get("labels")),
    )
    return _Group(config, node, rules)


def _group_problems(groups: list[_Group]) -> list[str]:
    problems, seen = list[str](), set[str]()
    for group in groups:
        name, spot = group.config.name, place(group.node)
        if not name:
            problems.append(f"{spot}: Groupname must not be empty")
        if name in seen:
            problems.append(f'{spot}: groupname: "{name}" is repeated in the same file')
        seen.add(name)
        problems += [f"{spot}: {text}" for text in label_problems(group.config.labels)]
    return problems


def label_problems(labels: Mapping[str, str]) -> list[str]:
    """Why names of labels that rules set are refused."""
    return [f"invalid label name: {name}" for name in labels if not name or name == METRIC_NAME]
