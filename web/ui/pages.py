"""Serving the pages and their files. Files are read once, at start."""

from __future__ import annotations

import hashlib
import html
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from web.context import context_of
from web.negotiation import respond

FOLDER = Path(__file__).resolve().parent
PLOT_FILES = ("uPlot.iife.min.js", "uPlot.min.css", "LICENSE")
"""What `web.ui.build` puts under vendor/."""

_ASSETS = (
    *("query.css", "query.js", "theme.js", "state.js", "client.js", "dom.js", "table.js", "chart.js"),
    *("highlight.js", "complete.js", "icon.svg"),
    *("security.css", "security.js", "securityfilters.js", "storage.js"),
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file with its type and the hash that tells whether a browser has it."""

    body: bytes
    content_type: str
    tag: str


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind in ("application/javascript", "image/svg+xml")
    return Asset(
        body, f"{kind}; charset=utf-8" if text else kind, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    )


def load_assets() -> dict[str, Asset]:
    """Files by their path below /assets/; the plotting library only if it was fetched."""
    found = {name: _read(FOLDER / name) for name in _ASSETS if (FOLDER / name).is_file()}
    for name in PLOT_FILES:
        path = FOLDER / "vendor" / name
        if path.is_file():
            found[f"vendor/{name}"] = _read(path)
    return found


class Pages:
    """Handlers of the pages of one application."""

    def __init__(self) -> None:
        self._assets = load_assets()
        self._query = (FOLDER / "query.html").read_text(encoding="utf-8")
        self._security = (FOLDER / "security.html").read_text(encoding="utf-8")

    async def query(self, request: web.Request) -> web.Response:
        """The query page."""
        return await _page(request, self._query)

    async def security(self, request: web.Request) -> web.Response:
        """The page of security events."""
        return await _page(request, self._security)

    async def asset(self, request: web.Request) -> web.Response:
        """One file; 304 where the browser has it."""
        found = self._assets.get(request.match_info["path"])
        if found is None:
            raise web.HTTPNotFound
        headers = {"ETag": found.tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        if request.headers.get("If-None-Match") == found.tag:
            return web.Response(status=304, headers=headers)
        response = await respond(request, found.body, content_type=found.content_type)
        response.headers.update({**headers, "Vary": "Accept-Encoding"})
        return response


async def _page(request: web.Request, template: str) -> web.Response:
    """A page with title and base path filled in."""
    services = context_of(request).services
    page = template.replace("{{title}}", html.escape(services.page_title))
    page = page.replace("{{base}}", html.escape(f"{services.route_prefix.rstrip('/')}/"))
    page = page.replace("{{version}}", html.escape(services.build.version))
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    response = await respond(request, page.encode(), content_type="text/html; charset=utf-8")
    response.headers.update({**headers, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"})
    return response
