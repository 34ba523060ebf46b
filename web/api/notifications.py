"""/notifications and its live stream: no notification exists yet (prometheus-surface.md 1.3)."""

from __future__ import annotations

import asyncio

from aiohttp import web

from web.context import context_of
from web.envelope import success
from web.evaluation import client_is_gone
from web.negotiation import respond

SUBSCRIBERS_MAX_DEFAULT = 16
_CLIENT_POLL_S = 1.0


async def notifications(request: web.Request) -> web.Response:
    """Active notifications."""
    return await respond(request, success([]))


async def live(request: web.Request) -> web.StreamResponse:
    """A stream of server-sent events; 204 when there are too many subscribers."""
    context = context_of(request)
    limit = int(context.services.flags.get("web.max-notifications-subscribers", SUBSCRIBERS_MAX_DEFAULT))
    if context.notification_subscribers >= limit:
        return web.Response(status=204)
    context.notification_subscribers += 1
    try:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        await response.write(b":\n\n")
        while not context.stopping.is_set() and not client_is_gone(request):
            try:
                await asyncio.wait_for(context.stopping.wait(), _CLIENT_POLL_S)
            except TimeoutError:
                continue
        return response
    finally:
        context.notification_subscribers -= 1
