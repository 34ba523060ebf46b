"""/series, /labels, /label/<name>/values and /metadata (prometheus-surface.md 1.2, 1.3)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from aiohttp import web

from tsdb.labels import Matcher
from tsdb.select import Querier
from tsdb.serieslabels import SeriesLabels
from web.context import AppContext, context_of
from web.envelope import SUCCESS_START, bad_data, success, success_end
from web.evaluation import with_labels
from web.forms import Form, read_form
from web.negotiation import Body, begin_body, encoding_for, respond, respond_begun
from web.parameters import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    label_name,
    limit_parameter,
    number_parameter,
    parse_matcher_sets,
    time_parameter,
)
from web.render import TRUNCATED, label_objects
from web.shortqueries import QueryKey

_LABELS = -2
"""What stands for the steps of a query where there are none."""


class _Asked(NamedTuple):
    """What is asked of labels: `sets` are the matchers of `selectors`, 0 for no limit, and times in ms."""

    limit: int
    start: int
    end: int
    selectors: Sequence[str]
    sets: Sequence[tuple[Matcher, ...]]

    @classmethod
    def of(cls, form: Form, *, wrap: bool = False) -> _Asked:
        """Parameters in Prometheus's order. Raises ApiError, wrapped as `parse_matcher_sets` has it."""
        limit, selectors = limit_parameter(form), form.all("match[]")
        start, end = time_parameter(form, "start", MIN_TIME_MS), time_parameter(form, "end", MAX_TIME_MS)
        return cls(limit, start, end, selectors, parse_matcher_sets(selectors, wrap=wrap))

    @property
    def hint(self) -> int:
        """One more than asked for, so that a truncation is noticed."""
        return self.limit + 1 if self.limit else 0


class _Found(NamedTuple):
    """An answer about labels, and how many rows it has."""

    body: Body
    work: int


async def _respond_limited(
    request: web.Request, asked: _Asked, find: Callable[[Querier], list[str] | SeriesLabels]
) -> web.StreamResponse:
    """Answer with what `find` gives, found and rendered in one go."""
    context, encoding, limit = context_of(request), encoding_for(request), asked.limit

    def work(querier: Querier) -> _Found:
        found = find(querier)
        warnings = [TRUNCATED] if 0 < limit < len(found) else []
        if isinstance(found, SeriesLabels):
            kept = found.take(np.arange(limit)) if warnings else found
            end = b"]" + success_end(warnings)
            pieces: Iterator[bytes] = itertools.chain((SUCCESS_START, b"["), label_objects(kept), (end,))
        else:
            pieces = iter((success(found[:limit] if warnings else found, warnings),))
        return _Found(begin_body(pieces, encoding), len(found))

    key = QueryKey("\n".join((request.path, *asked.selectors)), _LABELS)
    answered = await with_labels(context, asked.sets, work, key)
    return await respond_begun(request, answered.body, context.pool)


async def series(request: web.Request) -> web.StreamResponse:
    """Label sets of the series that match."""
    form = await read_form(request)
    form.require_whole()
    if not form.all("match[]"):
        raise bad_data("no match[] parameter provided")
    asked = _Asked.of(form, wrap=True)
    return await _respond_limited(
        request, asked, lambda querier: querier.series(asked.sets, asked.start, asked.end, asked.hint)
    )


async def labels(request: web.Request) -> web.StreamResponse:
    """Label names."""
    asked = _Asked.of(await read_form(request))
    return await _respond_limited(
        request, asked, lambda querier: querier.label_names(asked.sets, asked.start, asked.end, asked.hint)
    )


async def label_values(request: web.Request) -> web.StreamResponse:
    """Values of one label."""
    form = await read_form(request)
    # Not from `match_info`, in which bytes that are not UTF-8 stay escaped.
    name = label_name(unquote(request.rel_url.raw_path.rsplit("/", 2)[1], errors="surrogateescape"))
    asked = _Asked.of(form)
    return await _respond_limited(
        request,
        asked,
        lambda querier: querier.label_values(name, asked.sets, asked.start, asked.end, asked.hint),
    )


def known_metadata(context: AppContext, metric: str) -> Iterable[tuple[str, tuple[str, str, str]]]:
    """(family, (type, help, unit)) of all active targets, then of remote-written families."""
    if context.services.scrape is not None:
        for family, entries in context.services.scrape.metadata(metric).items():
            for entry in entries:
                yield family, (entry["type"], entry["help"], entry["unit"])
    stored = getattr(context.services.database, "metadata", None)
    for item in stored() if stored is not None else ():
        if not metric or item.family == metric:
            yield item.family, (item.type, item.help, item.unit)


async def metadata(request: web.Request) -> web.Response:
    """Type, help and unit of metric families, each distinct combination once."""
    context, form = context_of(request), await read_form(request)
    limit = number_parameter(form, "limit", -1)
    per_metric = number_parameter(form, "limit_per_metric", -1)
    families: dict[str, dict[tuple[str, str, str], None]] = {}
    for family, entry in known_metadata(context, form.get("metric")):
        found = families.setdefault(family, {})
        if per_metric <= 0 or len(found) < per_metric:
            found[entry] = None
    names = list(families)[:limit] if limit >= 0 else list(families)
    data = {
        name: [{"type": kind, "help": text, "unit": unit} for kind, text, unit in families[name]]
        for name in names
    }
    return await respond(request, success(data))
