"""/api/v1/write: the body goes to the remote-write receiver as it is (prometheus-surface.md section 5)."""

from __future__ import annotations

from aiohttp import web

from web.bearertoken import CHALLENGE, MISSING, carries
from web.context import context_of
from web.emptyanswer import NO_CONTENT, EmptyAnswer
from web.forms import read_body

DISABLED = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n"


async def write(request: web.Request) -> web.Response:
    """Store one remote-write request."""
    services = context_of(request).services
    if services.receiver is None:
        return web.Response(status=404, text=DISABLED)
    if services.write_token and not carries(request, services.write_token):
        return web.Response(status=401, text=f"{MISSING}\n", headers=CHALLENGE)
    body = await read_body(request, services.remote_write_body_bytes_max, "--web.max-body-size")
    status, headers, text = await services.receiver.handle(body, request.headers)
    if status == NO_CONTENT:
        return EmptyAnswer(headers)
    body_text = text if text.endswith("\n") else text + "\n"
    answer = {"Content-Type": "text/plain; charset=utf-8", **headers}
    return web.Response(status=status, headers=answer, body=body_text.encode("utf-8", "replace"))
