"""/api/v1/agents: reports and events of host agents, and what is pushed to them (docs/agent-shipping.md)."""

from __future__ import annotations

import ipaddress
import math

from aiohttp import web

from agent.channel.protocol import (
    EPOCH_HEADER,
    FRAME_BYTES_LIMIT,
    REPORT_BYTES_LIMIT,
    SEQUENCE_HEADER,
    ProtocolError,
    Report,
    parse,
)
from agent.channel.registry import AgentRegistry, ChannelError
from web.bearertoken import CHALLENGE, MISSING, carries
from web.context import context_of
from web.envelope import success
from web.forms import read_body
from web.negotiation import respond

LOOPBACK_ONLY = (
    "agents of other hosts are accepted only with a token: give the server --web.agent-token-file and the "
    "agents --token-file"
)
_PROXY_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-Ip")


def _registry(request: web.Request) -> AgentRegistry:
    """The registry, for a request that may use it. Raises ChannelError."""
    services = context_of(request).services
    if services.agents is None:
        raise ChannelError(404, "this server takes no agents")
    token = services.agent_token
    if not token:
        if not _is_local(request):
            raise ChannelError(403, LOOPBACK_ONLY)
        return services.agents
    if not carries(request, token):
        raise ChannelError(401, MISSING)
    return services.agents


def _is_local(request: web.Request) -> bool:
    # Behind a proxy on this host every client would look local.
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _refuse(error: ChannelError) -> web.Response:
    headers = {}
    if error.retry_after_seconds:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    if error.status == 401:
        headers |= CHALLENGE
    return web.Response(status=error.status, text=f"{error}\n", headers=headers)


async def report(request: web.Request) -> web.Response:
    """Take a report."""
    try:
        registry = _registry(request)
        try:
            said = parse(Report, await read_body(request, REPORT_BYTES_LIMIT))
            if said.agent != request.match_info["agent"]:
                raise ProtocolError("agent: not the one of the path")
        except ProtocolError as error:
            raise ChannelError(400, str(error)) from None
        answer = await registry.report(said, request.remote or "")
    except ChannelError as error:
        return _refuse(error)
    return web.Response(body=answer.model_dump_json().encode(), content_type="application/json")


async def events(request: web.Request) -> web.Response:
    """Store events; the answer acknowledges what is durable."""
    try:
        registry = _registry(request)
        body = await read_body(request, FRAME_BYTES_LIMIT + 1)
        headers = request.headers
        answer = await registry.events(
            request.match_info["agent"], headers.get(EPOCH_HEADER, ""), headers.get(SEQUENCE_HEADER, ""), body
        )
    except ChannelError as error:
        return _refuse(error)
    return web.Response(body=answer.model_dump_json().encode(), content_type="application/json")


async def file(request: web.Request) -> web.Response:
    """One pushed file by its hash."""
    try:
        content = _registry(request).content(request.match_info["sha256"])
    except ChannelError as error:
        return _refuse(error)
    return web.Response(body=content, content_type="application/octet-stream")


async def agents(request: web.Request) -> web.Response:
    """The agents that have reported since the start."""
    registry = context_of(request).services.agents
    return await respond(request, success([] if registry is None else registry.rows()))
