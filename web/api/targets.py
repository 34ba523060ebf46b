"""/targets, /targets/metadata, /scrape_pools, /scrape_pools/config (prometheus-surface.md 1.3)."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from aiohttp import web

from promql.duration import format_duration
from promql.errors import ParseError
from promql.parser import parse_metric_selector
from web.context import AppContext, context_of
from web.envelope import ApiError, ErrorType, invalid_parameter, success
from web.moments import rfc3339
from web.negotiation import respond
from web.parameters import number_parameter, read_form, url_query
from web.services import ActiveTarget

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def global_url(url: str, external_url: str) -> str:
    """A target's URL as seen from elsewhere: a local host is replaced by the name in the external URL, and
    the server's own address by the external URL itself."""
    target = urlsplit(url)
    if target.hostname not in _LOCAL_HOSTS:
        return url
    external = (
        urlsplit(external_url) if external_url else SplitResult("http", socket.gethostname(), "", "", "")
    )
    host = external.hostname or socket.gethostname()
    port = f":{target.port}" if target.port else ""
    if external.port is not None and external.port == target.port:
        return urlunsplit(target._replace(scheme=external.scheme, netloc=external.netloc))
    return urlunsplit(target._replace(netloc=f"{host}{port}"))


def _active(context: AppContext, target: ActiveTarget) -> dict[str, Any]:
    return {
        "discoveredLabels": target.discovered_labels,
        "labels": target.labels,
        "scrapePool": target.pool,
        "scrapeUrl": target.url,
        "globalUrl": global_url(target.url, context.services.external_url),
        "lastError": target.last_error,
        "lastScrape": rfc3339(target.last_scrape_ms),
        "lastScrapeDuration": target.last_duration_s,
        "health": target.health,
        "scrapeInterval": format_duration(target.interval_ms),
        "scrapeTimeout": format_duration(target.timeout_ms),
    }


async def targets(request: web.Request) -> web.Response:
    """Active and dropped targets; both filters come from the URL only."""
    context, form = context_of(request), url_query(request)
    state, pool = form.get("state").lower(), form.get("scrapePool")
    scrape = context.services.scrape
    active: list[Any] = []
    dropped: list[Any] = []
    counts: dict[str, int] | None = None
    if state in ("", "any", "active") and scrape is not None:
        found = [target for target in scrape.active_targets() if pool in ("", target.pool)]
        active = [_active(context, target) for target in sorted(found, key=lambda target: target.pool)]
    if state in ("", "any", "dropped"):
        counts = dict.fromkeys(sorted(scrape.pools()), 0) if scrape is not None else {}
        for gone in scrape.dropped_targets() if scrape is not None else ():
            counts[gone.pool] = counts.get(gone.pool, 0) + 1
            if pool in ("", gone.pool):
                dropped.append({"discoveredLabels": gone.discovered_labels, "scrapePool": gone.pool})
        if pool:
            counts = {name: count for name, count in counts.items() if name == pool}
    data = {"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts}
    return await respond(request, success(data))


async def targets_metadata(request: web.Request) -> web.Response:
    """Metadata by target."""
    context, form = context_of(request), await read_form(request)
    limit = number_parameter(form, "limit", -1)
    metric = form.get("metric")
    try:
        text = form.get("match_target")
        matchers = parse_metric_selector(text) if text else ()
    except ParseError as error:
        raise invalid_parameter("match_target", error) from None
    found: list[dict[str, Any]] = []
    for target in context.services.scrape.active_targets() if context.services.scrape is not None else ():
        if limit >= 0 and len(found) >= limit:
            break
        if not all(matcher.matches(target.labels.get(matcher.name)) for matcher in matchers):
            continue
        for item in target.metadata:
            if metric and item.family != metric:
                continue
            row: dict[str, Any] = {"target": target.labels}
            if not metric:
                row["metric"] = item.family
            found.append({**row, "type": item.type, "help": item.help, "unit": item.unit})
    return await respond(request, success(found[:limit] if limit >= 0 else found))


async def scrape_pools(request: web.Request) -> web.Response:
    """Names of the scrape pools."""
    scrape = context_of(request).services.scrape
    return await respond(request, success({"scrapePools": sorted(scrape.pools()) if scrape else []}))


async def scrape_pool_config(request: web.Request) -> web.Response:
    """Configuration of one pool."""
    scrape, pool = context_of(request).services.scrape, (await read_form(request)).get("scrapePool")
    if not pool:
        raise invalid_parameter("scrapePool", "scrapePool parameter is required")
    text = scrape.pool_yaml(pool) if scrape is not None else None
    if text is None:
        raise ApiError(ErrorType.BAD_DATA, f'scrape pool "{pool}" not found')
    return await respond(request, success({"yaml": text}))
