"""The token of agents and of those who write, in a request's `Authorization` header."""

from __future__ import annotations

import hmac

from aiohttp import web

CHALLENGE = {"WWW-Authenticate": "Bearer"}
"""Header of the answer 401."""
MISSING = "token is missing or wrong"


def carries(request: web.Request, token: str) -> bool:
    """Whether a request has the token, compared in constant time."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return right and scheme.lower() == "bearer"
