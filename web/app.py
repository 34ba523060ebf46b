"""The web application: which route leads where.

`create_app` is given all it needs; it opens nothing and may be called before the store is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from web import lifecycle, middleware
from web.api import (
    admin,
    agents,
    federate,
    metadata,
    notifications,
    query,
    rules,
    securityevents,
    securityrules,
    securitysources,
    status,
    targets,
    write,
)
from web.context import CONTEXT, AppContext, context_of
from web.envelope import ApiError, ErrorType
from web.metrics import register_process_metrics, respond_exposition
from web.services import AppServices
from web.ui.pages import Pages

API = "/api/v1"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GET_AND_POST: dict[str, _Handler] = {
    "/query": query.query,
    "/query_range": query.query_range,
    "/query_exemplars": query.query_exemplars,
    "/format_query": query.format_query,
    "/parse_query": query.parse_query,
    "/labels": metadata.labels,
    "/series": metadata.series,
    "/security/events": securityevents.events,
}
GET_ONLY: dict[str, _Handler] = {
    "/label/{name}/values": metadata.label_values,
    "/metadata": metadata.metadata,
    "/targets": targets.targets,
    "/targets/metadata": targets.targets_metadata,
    "/targets/relabel_steps": targets.relabel_steps,
    "/scrape_pools": targets.scrape_pools,
    "/scrape_pools/config": targets.scrape_pool_config,
    "/rules": rules.rules,
    "/alerts": rules.alerts,
    "/alertmanagers": rules.alertmanagers,
    "/security/rules": securityrules.rules,
    "/status/buildinfo": status.buildinfo,
    "/status/flags": status.flags,
    "/status/config": status.config,
    "/status/runtimeinfo": status.runtimeinfo,
    "/status/tsdb": status.tsdb,
    "/status/tsdb/blocks": status.tsdb_blocks,
    "/features": status.features,
    "/agents": agents.agents,
    "/agents/files/{sha256}": agents.file,
}
UNGATED: dict[str, _Handler] = {
    "/status/walreplay": status.walreplay,
    "/notifications": notifications.notifications,
    "/notifications/live": notifications.live,
}
ADMIN: dict[str, _Handler] = {
    "/admin/tsdb/delete_series": admin.delete_series,
    "/admin/tsdb/clean_tombstones": admin.clean_tombstones,
    "/admin/tsdb/snapshot": admin.snapshot,
}


async def _options(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def _metrics(request: web.Request) -> web.Response:
    context = context_of(request)
    return await respond_exposition(request, context.services.registry, context.metrics)


def _redirect_to_query(prefix: str) -> _Handler:
    async def redirect(request: web.Request) -> web.Response:
        query_text = f"?{request.query_string}" if request.query_string else ""
        raise web.HTTPFound(f"{prefix}/query{query_text}")

    return redirect


def _add_api(router: web.UrlDispatcher, prefix: str) -> None:
    for path, handler in GET_AND_POST.items():
        router.add_get(prefix + path, handler, allow_head=False)
        router.add_post(prefix + path, handler)
    for path, handler in {**GET_ONLY, **UNGATED}.items():
        router.add_get(prefix + path, handler, allow_head=False)
    router.add_delete(f"{prefix}/series", _drop_series)
    for path, handler in ADMIN.items():
        router.add_post(prefix + path, handler)
        router.add_put(prefix + path, handler)
    router.add_post(f"{prefix}/write", write.write)
    router.add_post(f"{prefix}/agents/{{agent}}/report", agents.report)
    router.add_post(f"{prefix}/agents/{{agent}}/events", agents.events)
    router.add_route("OPTIONS", f"{prefix}/{{path:.*}}", _options)


async def _drop_series(request: web.Request) -> web.Response:
    raise ApiError(ErrorType.INTERNAL, "not implemented")


def _add_pages(router: web.UrlDispatcher, prefix: str) -> None:
    pages = Pages()
    router.add_get(f"{prefix}/query", pages.query)
    router.add_get(f"{prefix}/security", pages.security)
    router.add_get(f"{prefix}/assets/{{path:.*}}", pages.asset)
    for path in ("/", "/graph"):
        router.add_get(prefix + path, _redirect_to_query(prefix))
    router.add_get(f"{prefix}/metrics", _metrics, allow_head=False)
    router.add_get(f"{prefix}/federate", federate.federate)
    router.add_get(f"{prefix}/version", lifecycle.version)
    router.add_route("*", f"{prefix}/k8s-audit", securitysources.k8s_audit)
    router.add_route("*", f"{prefix}/cloudtrail", securitysources.cloudtrail)
    router.add_get(f"{prefix}/-/healthy", lifecycle.healthy)
    router.add_get(f"{prefix}/-/ready", lifecycle.ready)
    for path, handler in (("/-/reload", lifecycle.reload), ("/-/quit", lifecycle.quit_server)):
        router.add_post(prefix + path, handler)
        router.add_put(prefix + path, handler)
        router.add_get(prefix + path, lifecycle.refuse_get)


async def _on_shutdown(app: web.Application) -> None:
    app[CONTEXT].stopping.set()


async def _on_cleanup(app: web.Application) -> None:
    app[CONTEXT].pool.shutdown(wait=False, cancel_futures=True)


def create_app(services: AppServices) -> web.Application:
    """The application for the services; registers its own metrics in `services.registry`."""
    prefix = services.route_prefix.rstrip("/")
    app: Any = web.Application(
        middlewares=[middleware.measure, middleware.answer_errors, middleware.gate], client_max_size=0
    )
    app[CONTEXT] = AppContext.create(services)
    app[securitysources.BODIES_IN_WORK] = {}
    ungated = [f"{prefix}{API}{path}" for path in UNGATED]
    plain = ("/-/healthy", "/-/ready", "/metrics", "/assets/:path", "/version", "/-/reload", "/-/quit")
    app[middleware.UNGATED] = frozenset([*ungated, *(prefix + path for path in plain)])
    register_process_metrics(services.registry, services.build, services.readiness)
    _add_api(app.router, prefix + API)
    _add_pages(app.router, prefix)
    app.on_response_prepare.append(middleware.add_headers)
    app.on_shutdown.append(_on_shutdown)
    app.on_cleanup.append(_on_cleanup)
    result: web.Application = app
    return result
