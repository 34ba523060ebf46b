"""POST /k8s-audit and /cloudtrail: events of other systems into the rules (security-surface.md 7.1).

An answer of 200 means that the events were judged and what the rules found is on disk. Words and codes of
/k8s-audit are those of Falco's plugin.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from security.pipeline import QueueFullError
from security.sources.json_events import BODY_BYTES_LIMIT, InvalidEventError
from security.sources.kubernetes_audit import WEBHOOK_BYTES_LIMIT
from tsdb.errors import StorageError
from web.api.securityevents import security_of
from web.envelope import ApiError
from web.forms import BodyTooLarge, read_body

BODIES_LIMIT = 16
"""Bodies of one source that are read and judged at a time; further ones are answered 503."""
DURABLE_WAIT_S = 30.0
_RETRY = {"Retry-After": "1"}

BODIES_IN_WORK = web.AppKey("security_bodies_in_work", dict[str, int])


async def k8s_audit(request: web.Request) -> web.Response:
    """The webhook of an API server: an EventList or an Event."""
    if request.method != "POST":
        return web.Response(
            status=405, text=f"{request.method} method not allowed\n", headers={"Allow": "POST"}
        )
    if "application/json" not in request.headers.get("Content-Type", ""):
        return web.Response(status=400, text="wrong Content Type\n")
    return await _receive(request, "k8s_audit", WEBHOOK_BYTES_LIMIT)


async def cloudtrail(request: web.Request) -> web.Response:
    """CloudTrail records: {"Records": [...]}, one record, or an EventBridge event."""
    if request.method != "POST":
        return web.Response(
            status=405, text=f"{request.method} method not allowed\n", headers={"Allow": "POST"}
        )
    return await _receive(request, "aws_cloudtrail", BODY_BYTES_LIMIT)


def _not_allowed(request: web.Request) -> web.Response:
    return web.Response(status=405, text=f"{request.method} method not allowed\n", headers={"Allow": "POST"})


async def _receive(request: web.Request, source: str, limit: int) -> web.Response:
    try:
        services = security_of(request)
    except ApiError as error:
        return web.Response(status=503, text=f"{error.message}\n", headers=_RETRY)
    if source not in services.open_to_http:
        return web.Response(
            status=404, text=f"source {source} takes no events over HTTP (security.sources)\n"
        )
    receiver, in_work = services.receivers[source], request.app[BODIES_IN_WORK]
    if in_work.get(source, 0) >= BODIES_LIMIT:
        receiver.bodies["refused"] += 1
        text = f"{BODIES_LIMIT} requests are in work, which is the limit\n"
        return web.Response(status=503, text=text, headers=_RETRY)
    in_work[source] = in_work.get(source, 0) + 1
    try:
        body = await read_body(request, limit)
        stored = await asyncio.to_thread(receiver.receive, body)
        await asyncio.wait_for(asyncio.wrap_future(stored), DURABLE_WAIT_S)
    except BodyTooLarge:
        receiver.bodies["too_large"] += 1
        text = f"bad request: http: request body too large, the limit is {limit} bytes\n"
        return web.Response(status=400, text=text)
    except InvalidEventError as error:
        return web.Response(status=400, text=f"bad request: {error}\n")
    except (QueueFullError, StorageError, OSError, TimeoutError) as error:
        receiver.bodies["refused"] += 1
        return web.Response(status=503, text=f"{error or 'not stored in time'}\n", headers=_RETRY)
    finally:
        in_work[source] -= 1
    return web.Response()
