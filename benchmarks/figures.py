"""Figures with the bars they are held against, and the table that prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = "vedette"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity of several servers.

    `bars` holds by server the ratio of Vedette's value to that server's which it may have at most (at least
    where `more_is_better`); `limit` the same for Vedette's value itself.
    """

    name: str
    values: Mapping[str, float]
    bars: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    more_is_better: bool = False
    form: str = ",.2f"

    def ratio(self, other: str) -> float:
        """Vedette's value over another's; NaN where either is missing or zero."""
        theirs = self.values.get(other, math.nan)
        return self.values.get(OURS, math.nan) / theirs if theirs else math.nan

    def _holds(self, value: float, bar: float) -> bool:
        return value >= bar if self.more_is_better else value <= bar

    def verdicts(self) -> list[str]:
        """A word a bar: what was measured, what was wanted, whether it holds."""
        tests = [(f"{other} x ", self.ratio(other), bar) for other, bar in self.bars.items()]
        if self.limit is not None:
            tests.append(("", self.values.get(OURS, math.nan), self.limit))
        sign = "≥" if self.more_is_better else "≤"
        return [
            f"{value:{self.form}} {sign} {what}{bar:g}: {'yes' if self._holds(value, bar) else '**no**'}"
            for what, value, bar in tests
            if not math.isnan(value)
        ]


def table(title: str, servers: Sequence[str], figures: Sequence[Figure]) -> str:
    """Markdown: values by server, ratios, bars."""
    others = [name for name in servers if name != OURS]
    head = ["", *servers, *(f"{OURS} / {name}" for name in others), "bar"]
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for figure in figures:
        values = [figure.values.get(name, math.nan) for name in servers]
        shown = ["-" if math.isnan(value) else format(value, figure.form) for value in values]
        ratios = [figure.ratio(name) for name in others]
        shown += ["-" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
        lines.append("| " + " | ".join((figure.name, *shown, "; ".join(figure.verdicts()))) + " |")
    return "\n".join(lines) + "\n"
