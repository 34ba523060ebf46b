"""What every request passes through: metrics, CORS headers, the readiness gate, errors to envelopes."""

from __future__ import annotations

import functools
import logging
import re
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from tsdb.regex import compile_regex
from web.context import CONTEXT, context_of
from web.emptyanswer import VARY
from web.envelope import JSON_TYPE, ApiError, ErrorType, failure
from web.evaluation import client_is_gone
from web.forms import BodyTooLarge
from web.negotiation import SENT_DIRECTLY, respond
from web.readiness import Readiness

log = logging.getLogger("vedette.web")

UNGATED = web.AppKey("ungated", frozenset[str])
"""Route patterns that answer before the server is ready."""

ANY_ORIGIN = ".*"
CLIENT_CLOSED = 499
NOT_FOUND = "404 page not found\n"

_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, Origin",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Expose-Headers": "Date",
}
_SLASHES = re.compile("//+")
_PLACEHOLDER = re.compile(r"\{(\w+)[^}]*\}")


def route_pattern(request: web.Request) -> str:
    """The pattern of the matched route as Prometheus writes it (`/label/:name/values`), or nothing."""
    resource = request.match_info.route.resource
    return _as_prometheus(resource.canonical) if resource is not None else ""


@functools.lru_cache(maxsize=256)
def _as_prometheus(canonical: str) -> str:
    return _PLACEHOLDER.sub(r":\1", canonical)


def _api_prefix(request: web.Request) -> str:
    return context_of(request).api_prefix


def unready_response(readiness: Readiness) -> web.Response:
    """The answer of a gated route while the server is not ready."""
    stopping = "true" if readiness.is_stopping else "false"
    return web.Response(status=503, text="Service Unavailable", headers={"X-Prometheus-Stopping": stopping})


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time requests of known routes."""
    pattern = route_pattern(request)
    started = time.perf_counter()
    code, response = 500, None
    try:
        response = await handler(request)
        code = response.status
        return response
    except web.HTTPException as error:
        code = error.status
        raise
    except (ConnectionError, TimeoutError):
        code = CLIENT_CLOSED
        raise
    finally:
        if pattern:
            size = _size(response)
            context_of(request).metrics.observe(pattern, code, time.perf_counter() - started, size)


def _size(response: web.StreamResponse | None) -> int:
    if response is None:
        return 0
    if isinstance(response, web.Response):
        return len(response.body) if isinstance(response.body, bytes | bytearray) else 0
    return response.body_length + response.get(SENT_DIRECTLY, 0) if response.prepared else 0


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 in plain text for gated routes until the store is open."""
    readiness = context_of(request).services.readiness
    if not readiness.is_ready:
        pattern = route_pattern(request)
        if pattern and pattern not in request.app[UNGATED]:
            return unready_response(readiness)
    return await handler(request)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Exceptions to answers: the envelope for the API, plain text elsewhere."""
    try:
        return await handler(request)
    except ApiError as error:
        if error.kind is ErrorType.CANCELED and client_is_gone(request):
            log.debug("client went away: %s", request.path)
        return await respond(request, failure(error), status=error.kind.status, content_type=JSON_TYPE)
    except BodyTooLarge as error:
        return web.Response(status=413, text=f"{error}\n")
    except web.HTTPNotFound:
        return _not_found(request)
    except web.HTTPMethodNotAllowed as error:
        if error.allowed_methods == {"OPTIONS"}:  # only the catch-all of the API matched
            return _not_found(request)
        allowed = ", ".join(sorted(error.allowed_methods))
        return web.Response(status=405, text="Method Not Allowed\n", headers={"Allow": allowed})
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:
        log.exception("unexpected error while serving %s", request.path)
        text = f"{type(error).__name__}: {error}"
        if not request.path.startswith(_api_prefix(request)):
            return web.Response(status=500, text=f"{text}\n")
        answer = failure(ApiError(ErrorType.INTERNAL, text))
        return await respond(request, answer, status=500, content_type=JSON_TYPE)


def _not_found(request: web.Request) -> web.Response:
    """404, or as in Prometheus the way to the path without repeated slashes, which clients make of an address
    that ends with one. 307 keeps method and body."""
    path = request.rel_url.raw_path
    if "//" not in path:
        return web.Response(status=404, text=NOT_FOUND)
    query = request.rel_url.raw_query_string
    location = _SLASHES.sub("/", path) + (f"?{query}" if query else "")
    return web.Response(status=307, headers={"Location": location})


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """CORS and Vary headers of the API; a signal, so that streamed answers have them too."""
    if not request.path.startswith(_api_prefix(request)):
        return
    for name in VARY:
        response.headers.add("Vary", name)
    origin = request.headers.get("Origin")
    if not origin:
        return
    response.headers.update(_CORS_HEADERS)
    pattern = request.app[CONTEXT].services.cors_origin
    if pattern == ANY_ORIGIN:
        response.headers["Access-Control-Allow-Origin"] = "*"
    elif compile_regex(pattern).matches(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
