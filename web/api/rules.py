"""/rules, /alerts, /alertmanagers: empty until there are rules (prometheus-surface.md 1.3)."""

from __future__ import annotations

from aiohttp import web

from promql.quoting import quote
from web.envelope import bad_data, invalid_parameter, success
from web.forms import read_form, url_query
from web.negotiation import respond
from web.parameters import boolean_parameter, parse_integer, parse_matcher_sets


async def rules(request: web.Request) -> web.Response:
    """Rule groups."""
    url, form = url_query(request), await read_form(request)
    form.require_whole()
    kind = url.get("type").lower()
    if kind not in ("", "alert", "record"):
        raise invalid_parameter("type", f"not supported value {quote(kind)}")
    boolean_parameter(url, "exclude_alerts")
    parse_matcher_sets(form.all("match[]"))
    limit, token = url.get("group_limit"), url.get("group_next_token")
    if token and not limit:
        text = "group_limit needs to be present in order to paginate over the groups"
        raise invalid_parameter("group_next_token", text)
    if limit:
        try:
            groups_max = parse_integer(limit, bits=32, parser="ParseInt")
        except ValueError as error:
            text = f"group_limit needs to be a valid number: {error}"
            raise invalid_parameter("group_limit", text) from None
        if groups_max <= 0:
            raise invalid_parameter("group_limit", "group_limit needs to be greater than 0")
    if token:
        raise bad_data(f"invalid group_next_token '{token}'. were rule groups changed?")
    return await respond(request, success({"groups": []}))


async def alerts(request: web.Request) -> web.Response:
    """Pending and firing alerts."""
    return await respond(request, success({"alerts": []}))


async def alertmanagers(request: web.Request) -> web.Response:
    """Known Alertmanagers."""
    return await respond(request, success({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
