"""Stage 5: rules by event type, and which of them are on (security-surface.md 1.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from security.output import Template
from security.rules.ast import Node
from security.rules.items import PRIORITIES
from security.rules.program import Program


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule ready to run. `event_types` None means any; `node` is its place in the program."""

    name: str
    source: str
    description: str
    priority: int
    tags: frozenset[str]
    output: str
    template: Template
    condition: Node
    condition_text: str
    node: int
    event_types: frozenset[str] | None
    enabled: bool
    capture: bool
    capture_duration_ms: int
    exception_fields: frozenset[str]
    extra_fields: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All compiled rules in order of evaluation, with one program a source."""

    rules: tuple[CompiledRule, ...] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)

    def of_source(self, source: str) -> list[CompiledRule]:
        """The enabled rules of a source in order."""
        return [rule for rule in self.rules if rule.source == source and rule.enabled]

    def of_type(self, source: str, event_type: str) -> list[CompiledRule]:
        """The enabled rules of a source that an event of this type may match, in order."""
        return [
            rule
            for rule in self.of_source(source)
            if rule.event_types is None or event_type in rule.event_types
        ]

    def event_types(self, source: str) -> frozenset[str] | None:
        """The event types that enabled rules name; None when some rule takes any event."""
        named: set[str] = set()
        for rule in self.of_source(source):
            if rule.event_types is None:
                return None
            named |= rule.event_types
        return frozenset(named)


@dataclass(frozen=True, slots=True)
class Selection:
    """One entry of the ordered list that switches rules: by name with `*` as a wildcard, or by tag."""

    enable: bool
    rule: str | None = None
    tag: str | None = None

    def matches(self, rule: CompiledRule) -> bool:
        """Whether it is about this rule."""
        if self.tag is not None and self.tag not in rule.tags:
            return False
        if self.rule is None:
            return self.tag is not None
        pattern = ".*".join(re.escape(part) for part in re.split(r"\*+", self.rule))
        return re.fullmatch(pattern, rule.name, re.DOTALL) is not None


def select(
    rules: RuleSet, selections: Iterable[Selection] = (), minimum_priority: int = len(PRIORITIES) - 1
) -> RuleSet:
    """The rule set with rules switched in order of the selections and those below the floor off."""
    selections = list(selections)
    chosen = []
    for rule in rules.rules:
        enabled = rule.enabled
        for selection in selections:
            if selection.matches(rule):
                enabled = selection.enable
        chosen.append(replace(rule, enabled=enabled and rule.priority <= minimum_priority))
    return RuleSet(tuple(chosen), rules.programs)
