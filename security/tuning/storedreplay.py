"""A rule set over stored events: which would be raised again.

The log holds only what some rule raised, and only the fields of its output. So a rule is judged by the events
it raised itself; of a rule that raised none it is only known what holds for certain among those of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from security.rules.index import RuleSet
from security.tuning.storedevents import StoredBatch, StoredEvent
from security.tuning.threevalued import PartialEvaluator


@dataclass(frozen=True, slots=True)
class RuleReplay:
    """How a rule fares: of `stored` events it would raise `fires` for certain and `silent` not; the rest
    depends on fields that were not stored."""

    rule: str
    priority: int
    stored: int
    fires: int
    silent: int
    own: bool
    """Whether the events are those it raised itself."""

    @property
    def undecided(self) -> int:
        """Events for which the stored fields are not enough."""
        return self.stored - self.fires - self.silent


def replay_stored(events: Sequence[StoredEvent], rules: RuleSet) -> list[RuleReplay]:
    """The rules that have events or would have some, in order of the rule set."""
    found = []
    for source in sorted({event.source for event in events} & rules.programs.keys()):
        chosen = [event for event in events if event.source == source]
        stored = StoredBatch(chosen, source)
        evaluator = PartialEvaluator(rules, stored)
        names = np.array([event.rule for event in chosen])
        for rule in (rule for rule in rules.rules if rule.source == source):
            raised = names == rule.name
            own = bool(raised.any())
            rows = raised if own else np.ones(len(chosen), np.bool_)
            if not rule.enabled:
                if own:
                    count = int(raised.sum())
                    found.append(RuleReplay(rule.name, rule.priority, count, 0, count, own))
                continue
            verdict = evaluator.verdict(rule)
            fires, silent = int((verdict.certain & rows).sum()), int((~verdict.possible & rows).sum())
            if own or fires:
                found.append(RuleReplay(rule.name, rule.priority, int(rows.sum()), fires, silent, own))
    return found


def unknown_rules(events: Sequence[StoredEvent], rules: RuleSet) -> dict[str, int]:
    """Stored events of rules that the rule set does not have, by rule."""
    names = {rule.name for rule in rules.rules}
    counts: dict[str, int] = {}
    for event in events:
        if event.rule not in names:
            counts[event.rule] = counts.get(event.rule, 0) + 1
    return dict(sorted(counts.items()))
