"""/admin/tsdb/*: delete series, clean tombstones, snapshot; off unless --web.enable-admin-api."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from web.context import AppContext, context_of
from web.envelope import ApiError, ErrorType, bad_data, success
from web.evaluation import run_blocking
from web.forms import read_form
from web.negotiation import respond
from web.parameters import MAX_TIME_MS, MIN_TIME_MS, boolean_parameter, parse_matcher_sets, time_parameter


def _check_enabled(context: AppContext) -> None:
    if not context.services.enable_admin_api:
        raise ApiError(ErrorType.UNAVAILABLE, "admin APIs disabled")


def _method(context: AppContext, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(context.database(), name, None)
    if found is None:
        raise ApiError(ErrorType.UNAVAILABLE, f"the store does not support {name}")
    return found


async def delete_series(request: web.Request) -> web.Response:
    """Hide samples of the series that match, within a time range."""
    context = context_of(request)
    _check_enabled(context)
    form = await read_form(request)
    if not form.all("match[]"):
        raise bad_data("no match[] parameter provided")
    start = time_parameter(form, "start", MIN_TIME_MS)
    end = time_parameter(form, "end", MAX_TIME_MS)
    sets = parse_matcher_sets(form.all("match[]"))
    delete = _method(context, "delete_series")
    await run_blocking(context, lambda: delete(sets, start, end))
    return web.Response(status=204)


async def clean_tombstones(request: web.Request) -> web.Response:
    """Rewrite blocks without their deleted samples."""
    context = context_of(request)
    _check_enabled(context)
    await run_blocking(context, _method(context, "clean_tombstones"))
    return web.Response(status=204)


async def snapshot(request: web.Request) -> web.Response:
    """Link all blocks, and the head unless `skip_head`, into a folder of their own."""
    context = context_of(request)
    _check_enabled(context)
    skip_head = boolean_parameter(await read_form(request), "skip_head")
    make = _method(context, "snapshot")
    name = await run_blocking(context, lambda: make(skip_head=skip_head))
    return await respond(request, success({"name": name}))
