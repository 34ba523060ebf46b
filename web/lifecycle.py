"""/-/healthy, /-/ready, /-/reload, /-/quit, /version and the redirects (prometheus-surface.md 1.4)."""

from __future__ import annotations

import logging

import orjson
from aiohttp import web

from web.api.status import build_info
from web.context import context_of
from web.middleware import unready_response

log = logging.getLogger("vedette.web")

NAME = "Vedette"
LIFECYCLE_OFF = "Lifecycle API is not enabled."


async def healthy(request: web.Request) -> web.Response:
    """The process answers."""
    return web.Response(text=f"{NAME} is Healthy.\n")


async def ready(request: web.Request) -> web.Response:
    """The store is open and queries are answered."""
    readiness = context_of(request).services.readiness
    if not readiness.is_ready:
        return unready_response(readiness)
    return web.Response(text=f"{NAME} is Ready.\n")


async def reload(request: web.Request) -> web.Response:
    """Read the configuration again; everything stays as it was when it is bad."""
    services = context_of(request).services
    if not services.enable_lifecycle or services.reload is None:
        return web.Response(status=403, text=LIFECYCLE_OFF)
    try:
        await services.reload()
    except Exception as error:
        log.warning("reload failed: %s", error)
        return web.Response(status=500, text=f"failed to reload config: {error}\n")
    return web.Response()


async def quit_server(request: web.Request) -> web.Response:
    """Stop gracefully."""
    services = context_of(request).services
    if not services.enable_lifecycle or services.quit is None:
        return web.Response(status=403, text=LIFECYCLE_OFF)
    services.quit()
    return web.Response(text="Requesting termination... Goodbye!")


async def refuse_get(request: web.Request) -> web.Response:
    """The lifecycle endpoints change something, so a GET is refused with the reason."""
    return web.Response(status=405, text="Only POST or PUT requests allowed")


async def version(request: web.Request) -> web.Response:
    """Build information without the envelope."""
    body = orjson.dumps(build_info(context_of(request)))
    return web.Response(body=body, content_type="application/json")
