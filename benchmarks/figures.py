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

    def verdicts(self) -> list[Verdict]:
        """What was measured against each bar; bars of servers that were not there are left out."""
        tests = [(other, self.ratio(other), bar) for other, bar in self.bars.items()]
        if self.limit is not None:
            tests.append(("", self.values.get(OURS, math.nan), self.limit))
        return [
            Verdict(other, value, bar, self.more_is_better, self.form)
            for other, value, bar in tests
            if not math.isnan(value)
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar: a ratio to another server's value where `other` names one, else a value of ours."""

    other: str
    value: float
    bar: float
    more_is_better: bool
    form: str

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.value >= self.bar if self.more_is_better else self.value <= self.bar

    @property
    def wanted(self) -> str:
        """The bar."""
        what = f"{self.bar:g} x {self.other}" if self.other else f"{self.bar:g}"
        return f"{'at least' if self.more_is_better else 'at most'} {what}"

    @property
    def measured(self) -> str:
        """What it came to."""
        return f"{self.value:.2f} x {self.other}" if self.other else format(self.value, self.form)

    @property
    def outcome(self) -> str:
        """`met`, or measured value over the bar."""
        return "met" if self.holds else f"**{self.value / self.bar:.2f} x**"


def bars_table(parts: Sequence[tuple[str, Sequence[Figure]]]) -> str:
    """Markdown: a row a bar of all figures, which come with the subject they are about."""
    rows = [
        (f"{subject}: {figure.name}", verdict)
        for subject, figures in parts
        for figure in figures
        for verdict in figure.verdicts()
    ]
    lines = ["| figure | measured | bar | |", "|---|---|---|---|"]
    lines += [f"| {name} | {each.measured} | {each.wanted} | {each.outcome} |" for name, each in rows]
    met = sum(each.holds for _, each in rows)
    return "\n".join([*lines, "", f"{met} of {len(rows)} bars met."]) + "\n"


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
        bars = [f"{each.wanted}: {each.outcome}" for each in figure.verdicts()]
        lines.append("| " + " | ".join((figure.name, *shown, "; ".join(bars))) + " |")
    return "\n".join(lines) + "\n"
