"""Suggested exceptions: what most of a rule's events have in common.

Events are grouped by who did it and where. What it was done to narrows a group further: a few values, or the
directory that all share. Large groups become exceptions. Each proposal is loaded by the rule loader and
evaluated over the same events before it is shown.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from security.rules.loader import RuleLoader
from security.tuning.storedevents import StoredBatch, StoredEvent
from security.tuning.threevalued import PartialEvaluator

EVENTS_MIN = 10
"""Fewer events of a rule are no noise."""
GROUPS_LIMIT = 10
"""Exceptions for one rule."""
SHARE_MIN = 0.05
"""Of the rule's events, for a group to be proposed."""
VALUES_LIMIT = 8
"""Distinct objects of a group that are listed one by one."""
RULES_LIMIT = 50
DIRECTORY_DEPTH_MIN = 2
"""Components of a common directory; `/` or `/etc` alone would hide too much."""
EXCEPTION_PREFIX = "suggested"

# Stable identities by source: who, and where. Process ids, arguments and times are not stable.
_ACTORS = {
    "syscall": (
        *("proc.name", "proc.pname", "container.image.repository", "k8s.ns.name"),
        *("proc.exepath", "user.name"),
    ),
    "k8s_audit": ("ka.user.name", "ka.target.namespace", "ka.target.resource", "ka.verb"),
    "aws_cloudtrail": ("ct.user", "ct.name", "ct.region"),
}
_OBJECTS = {
    "syscall": ("fd.name", "fs.path.name", "fd.sport", "fd.rport", "evt.arg.path"),
    "k8s_audit": ("ka.target.name",),
    "aws_cloudtrail": ("ct.srcip",),
}
_ACTORS_LIMIT = 3
Scalar = str | int
Key = tuple[tuple[str, Scalar], ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of an exception; several values mean any of them."""

    field: str
    operator: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Exceptions for one rule. `removed` of its `stored` events satisfy one of them: that is evaluated."""

    rule: str
    source: str
    stored: int
    removed: int
    groups: tuple[tuple[tuple[Condition, ...], int], ...]
    """Conditions of an exception, and the events it alone removes."""
    text: str
    """A rules file with the item."""


def suggest(
    events: Sequence[StoredEvent], rules: Iterable[str] = (), only_rule: str | None = None
) -> list[Suggestion]:
    """Suggestions for the noisiest rules first. `rules` are files that the proposals are loaded on top of.

    The same events give the same answer. Raises ValueError when the rules files do not load.
    """
    by_rule: dict[tuple[str, str], list[StoredEvent]] = {}
    for event in events:
        if only_rule in (None, event.rule):
            by_rule.setdefault((event.rule, event.source), []).append(event)
    noisy = sorted(
        (item for item in by_rule.items() if len(item[1]) >= EVENTS_MIN and item[0][1] in _ACTORS),
        key=lambda item: (-len(item[1]), item[0]),
    )
    paths = tuple(rules)
    found = (_of_rule(rule, source, chosen, paths) for (rule, source), chosen in noisy[:RULES_LIMIT])
    return [suggestion for suggestion in found if suggestion is not None]


def _of_rule(rule: str, source: str, events: list[StoredEvent], paths: tuple[str, ...]) -> Suggestion | None:
    kept: list[tuple[tuple[Condition, ...], int]] = []
    covered: set[int] = set()
    for conditions in _candidates(source, events):
        fresh = {row for row, event in enumerate(events) if _covers(conditions, event)} - covered
        if len(fresh) < max(1, SHARE_MIN * len(events)):
            continue
        # A value may be one that an exception cannot say, or says otherwise: the evaluation must agree.
        text = _text(rule, [*(group for group, _ in kept), conditions])
        if _removed(text, rule, source, events) != covered | fresh:
            continue
        covered |= fresh
        kept.append((conditions, len(fresh)))
        if len(kept) >= GROUPS_LIMIT:
            break
    if not kept:
        return None
    text = _text(rule, [group for group, _ in kept])
    _check_on(paths, rule, text)
    return Suggestion(rule, source, len(events), len(covered), tuple(kept), text)


def _candidates(source: str, events: list[StoredEvent]) -> list[tuple[Condition, ...]]:
    """Conditions of the largest groups, largest first."""
    fields = _actor_fields(source, events)
    groups: dict[Key, list[StoredEvent]] = {}
    for event in events:
        key = tuple((name, event.fields[name]) for name in fields if _is_scalar(event.fields.get(name)))
        if key:
            groups.setdefault(key, []).append(event)
    least = SHARE_MIN * len(events)
    large = [item for item in groups.items() if len(item[1]) >= least]
    large.sort(key=lambda item: (-len(item[1]), str(item[0])))
    found = []
    for key, members in large[: 2 * GROUPS_LIMIT]:
        conditions = tuple(Condition(name, "=", (value,)) for name, value in key)
        object_ = _object(source, members)
        # One comparison alone says too little about who it was.
        if len(conditions) > 1 or object_ is not None:
            found.append(conditions if object_ is None else (*conditions, object_))
    return found


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value not in ("", "<NA>"))


def _actor_fields(source: str, events: list[StoredEvent]) -> list[str]:
    """The first identities that most events have, and that are not different for almost each of them."""
    found = []
    for name in _ACTORS[source]:
        values = [event.fields[name] for event in events if _is_scalar(event.fields.get(name))]
        if 2 * len(values) >= len(events) and 2 * len(set(values)) <= len(values):
            found.append(name)
    return found[:_ACTORS_LIMIT]


def _object(source: str, members: list[StoredEvent]) -> Condition | None:
    """What a group's events were about, when that narrows it down and all of them have it."""
    for name in _OBJECTS[source]:
        values: list[Scalar] = [event.fields[name] for event in members if _is_scalar(event.fields.get(name))]
        if len(values) < len(members):
            continue
        counts = Counter(values)
        if len(counts) <= VALUES_LIMIT and 2 * len(counts) <= len(values):
            chosen = tuple(sorted(counts, key=str))
            return Condition(name, "in" if len(chosen) > 1 else "=", chosen)
        directory = _common_directory([str(value) for value in counts])
        if directory is not None:
            return Condition(name, "startswith", (directory,))
    return None


def _common_directory(paths: list[str]) -> str | None:
    if not all(path.startswith("/") for path in paths):
        return None
    directory = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    depth = len([part for part in directory.split("/") if part])
    return f"{directory}/" if depth >= DIRECTORY_DEPTH_MIN else None


def _text(rule: str, groups: list[tuple[Condition, ...]]) -> str:
    """The item that appends the exceptions; those of equal fields and operators become one."""
    shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[list[Any]]] = {}
    for group in groups:
        shape = (tuple(item.field for item in group), tuple(item.operator for item in group))
        values = [list(item.values) if item.operator == "in" else item.values[0] for item in group]
        shapes.setdefault(shape, []).append(values)
    exceptions = [
        {
            "name": "_".join((EXCEPTION_PREFIX, str(number), *(name.replace(".", "_") for name in fields))),
            "fields": list(fields),
            "comps": list(operators),
            "values": values,
        }
        for number, ((fields, operators), values) in enumerate(shapes.items(), 1)
    ]
    item = {"rule": rule, "exceptions": exceptions, "override": {"exceptions": "append"}}
    return yaml.safe_dump([item], sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _stub(rule: str, source: str) -> str:
    """A rule that every event satisfies: what the events' own rule asked for did hold."""
    item = {
        "rule": rule,
        "desc": "stands for the rule that raised the events",
        "condition": "evt.rawtime >= 0",
        "output": "event",
        "priority": "DEBUG",
        "source": source,
        "warn_evttypes": False,
    }
    return yaml.safe_dump([item])


def _covers(conditions: tuple[Condition, ...], event: StoredEvent) -> bool:
    """Whether an event is one of those that the conditions mean."""
    for item in conditions:
        value = event.fields.get(item.field)
        if item.operator == "startswith":
            if not isinstance(value, str) or not value.startswith(str(item.values[0])):
                return False
        elif value not in item.values:
            return False
    return True


def _removed(text: str, rule: str, source: str, events: list[StoredEvent]) -> set[int]:
    """Places of the events that a proposal certainly takes away; none for one that does not load."""
    loader = RuleLoader()
    loader.load_text("rule", _stub(rule, source))
    if not loader.load_text("suggested exceptions", text).successful:
        return set()
    stored = StoredBatch(events, source)
    [compiled] = loader.rules.rules
    possible = PartialEvaluator(loader.rules, stored).verdict(compiled).possible
    return set(np.flatnonzero(~possible).tolist())


def _check_on(paths: tuple[str, ...], rule: str, text: str) -> None:
    """Load a proposal on top of the user's files."""
    if not paths:
        return
    loader = RuleLoader()
    for path in paths:
        result = loader.load_file(path)
        if not result.successful:
            raise ValueError(result.verbose(loader.contents))
    if any(known.name == rule for known in loader.rules.rules):
        result = loader.load_text("suggested exceptions", text)
        if not result.successful:
            raise ValueError(result.verbose(loader.contents))
