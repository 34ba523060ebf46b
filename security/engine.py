"""The engine: a rule set over batches of events. Only events that a rule matched become objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from security.columns import EventBatch
from security.evaluation import Evaluator, Group
from security.output import TIME_FIELDS, EventOutput, Getter, format_time
from security.rules.index import CompiledRule, RuleSet
from security.rules.program import CompiledOperand

RULE_MATCHING = ("first", "all")
# One source has about this many event types; more mean that a source puts something else there.
_TYPES_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that matched the event at a row of the batch."""

    row: int
    rule: CompiledRule


class RuleEngine:
    """Evaluates a rule set. One thread at a time a source; a reload makes a new engine and swaps it."""

    def __init__(self, rules: RuleSet, rule_matching: str = "first") -> None:
        if rule_matching not in RULE_MATCHING:
            raise ValueError(f"rule_matching is {rule_matching!r}, must be one of {RULE_MATCHING}")
        self.rules = rules
        self.first_only = rule_matching == "first"
        self.matched: Counter[str] = Counter()
        self.events_count: Counter[str] = Counter()
        """Events judged, by source."""
        self._evaluators = {source: Evaluator(program) for source, program in rules.programs.items()}
        self._by_source = {source: rules.of_source(source) for source in rules.programs}
        self._by_type: dict[tuple[str, str], list[tuple[CompiledRule, int]]] = {}

    def match(self, batch: EventBatch) -> list[Match]:
        """Matches in order of the events, for one event in order of the rules."""
        self.events_count[batch.source] += batch.count
        evaluator = self._evaluators.get(batch.source)
        if evaluator is None or batch.count == 0:
            return []
        found: list[tuple[int, int, CompiledRule]] = []
        for rows, rules in self._groups(batch):
            found += self._match_group(Group(evaluator, batch, rows), rules)
        found.sort(key=lambda entry: entry[:2])
        matches = [Match(row, rule) for row, _, rule in found]
        self.matched.update(match.rule.name for match in matches)
        return matches

    def _groups(
        self, batch: EventBatch
    ) -> Iterable[tuple[NDArray[np.int64] | None, list[tuple[CompiledRule, int]]]]:
        if batch.types is None:
            yield None, [(rule, rule.node) for rule in self._by_source[batch.source]]
            return
        codes = batch.types.codes
        names = batch.types.dictionary.values
        if len(names) > _TYPES_LIMIT:
            raise ValueError(f"{len(names)} event types are more than {_TYPES_LIMIT}")
        counts = np.bincount(codes + 1, minlength=len(names) + 1)
        for code, name in enumerate(names):
            if counts[code + 1]:
                rules = self._of_type(batch.source, name)
                if rules:
                    everything = counts[code + 1] == batch.count
                    yield None if everything else np.flatnonzero(codes == code), rules

    def _of_type(self, source: str, event_type: str) -> list[tuple[CompiledRule, int]]:
        key = (source, event_type)
        known = self._by_type.get(key)
        if known is None:
            program = self._evaluators[source].program
            known = self._by_type[key] = [
                (rule, program.specialized(rule.node, event_type))
                for rule in self.rules.of_type(source, event_type)
            ]
        return known

    def _match_group(
        self, group: Group, rules: list[tuple[CompiledRule, int]]
    ) -> list[tuple[int, int, CompiledRule]]:
        found: list[tuple[int, int, CompiledRule]] = []
        free: NDArray[np.bool_] | None = None
        for order, (rule, node) in enumerate(rules):
            mask = group.mask(node)
            if free is not None:
                mask = mask & free
            hits = np.flatnonzero(mask)
            if not len(hits):
                continue
            rows = hits if group.rows is None else group.rows[hits]
            found += [(int(row), order, rule) for row in rows]
            if self.first_only:
                free = ~mask if free is None else free & ~mask
        return found

    def outputs(self, batch: EventBatch, matches: Iterable[Match]) -> list[EventOutput]:
        """Matches as outputs, with all fields of their templates."""
        evaluator = self._evaluators.get(batch.source)
        if evaluator is None:
            return []
        matches = list(matches)
        rows = np.unique(np.fromiter((match.row for match in matches), np.int64, len(matches)))
        group = Group(evaluator, batch, rows)
        places = np.searchsorted(rows, [match.row for match in matches]).tolist()
        return [_output(group, match.rule, place) for match, place in zip(matches, places, strict=True)]

    def process(self, batch: EventBatch) -> list[EventOutput]:
        """Match a batch and give the outputs."""
        return self.outputs(batch, self.match(batch))


def _output(group: Group, rule: CompiledRule, row: int) -> EventOutput:
    """What a rule says of the event at a row of the group."""
    get = row_getter(group, row)
    fields = rule.template.values(get)
    for name, template in rule.extra_fields.items():
        tokens = template.tokens
        raw = len(template.parts) == 1 and len(tokens) == 1
        fields[name] = template.values(get).get(tokens[0].name) if raw else template.render(get)
    time_ns = int(group.batch.times_ns[row])
    fields.update({name: time_ns for name in fields if name in TIME_FIELDS})
    return EventOutput(
        rule=rule.name,
        source=rule.source,
        priority=rule.priority,
        tags=tuple(sorted(rule.tags)),
        time_ns=time_ns,
        message=rule.template.render(get),
        fields=fields,
    )


def row_getter(group: Group, row: int) -> Getter:
    """The values of one event for a template."""
    time_ns = int(group.batch.times_ns[row])
    known: dict[Hashable, Any] = {}

    def get(operand: CompiledOperand) -> Any:
        key = operand.key
        if key not in known:
            known[key] = read(operand)
        return known[key]

    def read(operand: CompiledOperand) -> Any:
        reference = operand.field
        if reference is None:
            return group.value(operand, row)
        name = reference.info.name
        if name in ("evt.time", "evt.time.iso8601", "evt.datetime"):
            return format_time(time_ns, name != "evt.time")
        if name in ("evt.time.s", "evt.datetime.s"):
            return format_time(time_ns, name != "evt.time.s").partition(".")[0]
        value = group.value(operand, row)
        if isinstance(value, tuple) and reference.any_of:
            return " ".join(str(part) for part in value) or None
        return value

    return get
