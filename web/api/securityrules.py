"""/security/rules: the rules in force, how often each fired, and how the last load went."""

from __future__ import annotations

import asyncio

from aiohttp import web

from security.output import format_utc
from security.rules.items import PRIORITIES
from security.services import SecurityServices
from web.api.securityevents import security_of
from web.envelope import success
from web.negotiation import respond


async def rules(request: web.Request) -> web.Response:
    """All rules in order of evaluation, files, and the problems of the last load."""
    body = await asyncio.to_thread(_answer, security_of(request))
    return await respond(request, body)


def _answer(services: SecurityServices) -> bytes:
    active, matched = services.pipeline.rules, services.pipeline.matched
    engine = active.engine
    return success(
        {
            "rules": [
                {
                    "name": rule.name,
                    "source": rule.source,
                    "priority": PRIORITIES[rule.priority],
                    "tags": sorted(rule.tags),
                    "enabled": rule.enabled,
                    "description": rule.description,
                    "condition": rule.condition_text,
                    "output": rule.output,
                    "hits": matched[rule.name],
                }
                for rule in (engine.rules.rules if engine is not None else ())
            ],
            "ruleMatching": "first" if engine is None or engine.first_only else "all",
            "files": [{"path": path, "sha256": digest} for path, digest in active.files.items()],
            "lastReload": {
                "successful": not active.problems,
                "problems": active.problems,
                "loadedAt": format_utc(active.loaded_at_ns),
                "reloads": active.reloads_count,
                "failures": active.reload_failures_count,
            },
        }
    )
