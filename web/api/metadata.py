"""/series, /labels, /label/<name>/values and /metadata (prometheus-surface.md 1.2, 1.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from web.context import AppContext, context_of
from web.envelope import bad_data, success
from web.evaluation import with_querier
from web.negotiation import respond
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
from web.render import TRUNCATED


def _bounds(form: Form) -> tuple[int, int]:
    return time_parameter(form, "start", MIN_TIME_MS), time_parameter(form, "end", MAX_TIME_MS)


async def _respond_limited(request: web.Request, found: list[Any], limit: int) -> web.Response:
    if 0 < limit < len(found):
        return await respond(request, success(found[:limit], [TRUNCATED]))
    return await respond(request, success(found))


def _hint(limit: int) -> int:
    """One more than asked for, so that a truncation is noticed."""
    return limit + 1 if limit else 0


async def series(request: web.Request) -> web.Response:
    """Label sets of the series that match."""
    context, form = context_of(request), await read_form(request)
    if not form.all("match[]"):
        raise bad_data("no match[] parameter provided")
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"))
    found = await with_querier(context, lambda q: q.series(sets, start, end, _hint(limit)))
    return await _respond_limited(request, found, limit)


async def labels(request: web.Request) -> web.Response:
    """Label names."""
    context, form = context_of(request), await read_form(request)
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"), wrap=False)
    found = await with_querier(context, lambda q: q.label_names(sets, start, end, _hint(limit)))
    return await _respond_limited(request, found, limit)


async def label_values(request: web.Request) -> web.Response:
    """Values of one label."""
    context, form = context_of(request), await read_form(request)
    name = label_name(request.match_info["name"])
    limit = limit_parameter(form)
    start, end = _bounds(form)
    sets = parse_matcher_sets(form.all("match[]"), wrap=False)
    found = await with_querier(context, lambda q: q.label_values(name, sets, start, end, _hint(limit)))
    return await _respond_limited(request, found, limit)


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
