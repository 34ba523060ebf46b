"""/targets, /targets/metadata, /targets/relabel_steps, /scrape_pools, /scrape_pools/config
(prometheus-surface.md 1.3)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from promql.errors import ParseError
from promql.parser import parse_metric_selector
from promql.quoting import quote
from tsdb.labels import Labels
from web.context import context_of
from web.envelope import ApiError, bad_data, invalid_parameter, success
from web.forms import read_form, url_query
from web.negotiation import respond
from web.parameters import number_parameter
from web.services import ScrapeStatus

_STATES = ("", "any", "active", "dropped")
_LABEL_SETS = ("discoveredLabels", "labels", "target")


def _with_label_sets(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its label sets marked as such, because they are escaped differently."""
    return {
        key: Labels(tuple(value.items())) if key in _LABEL_SETS and isinstance(value, dict) else value
        for key, value in row.items()
    }


async def targets(request: web.Request) -> web.Response:
    """Active and dropped targets; both filters come from the URL only."""
    scrape, form = context_of(request).services.scrape, url_query(request)
    state = form.get("state").lower()
    if scrape is None or state not in _STATES:
        counts: dict[str, int] | None = {} if state in _STATES and state != "active" else None
        empty: dict[str, Any] = {"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": counts}
        return await respond(request, success(empty))
    found = scrape.targets(state or "any", form.get("scrapePool"))
    for key in ("activeTargets", "droppedTargets"):
        found = {**found, key: [_with_label_sets(row) for row in found[key]]}
    return await respond(request, success(found))


async def targets_metadata(request: web.Request) -> web.Response:
    """Metadata by target."""
    scrape, form = context_of(request).services.scrape, await read_form(request)
    limit = number_parameter(form, "limit", -1)
    try:
        text = form.get("match_target")
        matchers = parse_metric_selector(text) if text else ()
    except ParseError as error:
        raise invalid_parameter("match_target", error) from None
    found = scrape.targets_metadata(matchers, form.get("metric"), limit) if scrape is not None else []
    return await respond(request, success([_with_label_sets(row) for row in found]))


def _unknown_pool(pool: str) -> ApiError:
    return bad_data(f"scrape pool {quote(pool)} not found")


async def relabel_steps(request: web.Request) -> web.Response:
    """What each relabelling rule of a pool does to a label set."""
    scrape, form = context_of(request).services.scrape, await read_form(request)
    pool, labels = form.get("scrapePool"), form.get("labels")
    for name, value in (("scrapePool", pool), ("labels", labels)):
        if not value:
            raise bad_data(f"no {name} parameter provided")
    if scrape is None:
        raise _unknown_pool(pool)
    try:
        steps = scrape.relabel_steps(pool, labels)
    except KeyError:
        raise _unknown_pool(pool) from None
    except ValueError as error:
        raise bad_data(f"error parsing labels: {error}") from None
    return await respond(request, success({"steps": list(steps)}))


def _pools(scrape: ScrapeStatus | None) -> list[str]:
    return sorted(scrape.pools()) if scrape is not None else []


async def scrape_pools(request: web.Request) -> web.Response:
    """Names of the scrape pools."""
    return await respond(request, success({"scrapePools": _pools(context_of(request).services.scrape)}))


async def scrape_pool_config(request: web.Request) -> web.Response:
    """Configuration of one pool."""
    scrape, pool = context_of(request).services.scrape, (await read_form(request)).get("scrapePool")
    if not pool:
        raise bad_data("no scrapePool parameter provided")
    if scrape is None or pool not in _pools(scrape):
        raise _unknown_pool(pool)
    return await respond(request, success({"yaml": scrape.pool_yaml(pool)}))
