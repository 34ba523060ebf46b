"""/series, /labels, /label/<name>/values and /metadata (prometheus-surface.md 1.2, 1.3)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from aiohttp import web

from tsdb.select import Querier
from tsdb.serieslabels import SeriesLabels
from web.context import AppContext, context_of
from web.envelope import SUCCESS_START, bad_data, success, success_end
from web.evaluation import with_querier
from web.negotiation import Body, begin_body, encoding_for, respond, respond_begun
from web.parameters import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    Form,
    label_name,
    limit_parameter,
    number_parameter,
    parse_matcher_sets,
    read_form,
    time_parameter,
)
from web.render import TRUNCATED, label_objects


def _bounds(form: Form) -> tuple[int, int]:
    return time_parameter(form, "start", MIN_TIME_MS), time_parameter(form, "end", MAX_TIME_MS)


async def _respond_limited(
    request: web.Request, limit: int, find: Callable[[Querier, int], list[str] | SeriesLabels]
) -> web.StreamResponse:
    """Answer with what `find(querier, limit hint)` gives, found and rendered in one thread."""
    context, encoding = context_of(request), encoding_for(request)
    # One more than asked for, so that a truncation is noticed.
    hint = limit + 1 if limit else 0

    def work(querier: Querier) -> Body:
        found = find(querier, hint)
        warnings = [TRUNCATED] if 0 < limit < len(found) else []
        if isinstance(found, SeriesLabels):
            kept = found.take(np.arange(limit)) if warnings else found
            end = b"]" + success_end(warnings)
            return begin_body(itertools.chain((SUCCESS_START, b"["), label_objects(kept), (end,)), encoding)
        return begin_body(iter((success(found[:limit] if warnings else found, warnings),)), encoding)

    return await respond_begun(request, await with_querier(context, work), context.pool)


async def series(request: web.Request) -> web.StreamResponse:
    """Label sets of the series that match."""
    form = await read_form(request)
    if not form.all("match[]"):
        raise bad_data("no match[] parameter provided")
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"))
    return await _respond_limited(request, limit, lambda q, hint: q.series(sets, start, end, hint))


async def labels(request: web.Request) -> web.StreamResponse:
    """Label names."""
    form = await read_form(request)
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"), wrap=False)
    return await _respond_limited(request, limit, lambda q, hint: q.label_names(sets, start, end, hint))


async def label_values(request: web.Request) -> web.StreamResponse:
    """Values of one label."""
    form = await read_form(request)
    name = label_name(request.match_info["name"])
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"), wrap=False)
    return await _respond_limited(
        request, limit, lambda q, hint: q.label_values(name, sets, start, end, hint)
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
