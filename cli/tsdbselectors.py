"""Options that several `vedette tsdb` commands share: selectors and a range of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from tsdb.labels import Matcher

F = TypeVar("F", bound=Callable[..., Any])

TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1


def time_range_options(function: F) -> F:
    """--min-time and --max-time, both inclusive, ms since the Unix epoch."""
    latest = click.option(
        "--max-time", type=int, default=TIME_MAX, help="Newest timestamp, ms since the Unix epoch."
    )
    oldest = click.option(
        "--min-time", type=int, default=TIME_MIN, help="Oldest timestamp, ms since the Unix epoch."
    )
    return oldest(latest(function))


def matcher_sets(selectors: Sequence[str]) -> tuple[tuple[Matcher, ...], ...]:
    """Matchers of series selectors. Raises click.BadParameter with the parser's text."""
    if not selectors:
        return ()
    from promql.errors import ParseError
    from promql.parser import parse_metric_selector

    try:
        return tuple(tuple(parse_metric_selector(text)) for text in selectors)
    except ParseError as error:
        raise click.BadParameter(str(error), param_hint="--match") from None
