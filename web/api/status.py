"""/status/* and /features (prometheus-surface.md 1.3)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from promql.functions import AGGREGATORS, EXPERIMENTAL_FEATURE, FUNCTIONS
from web.context import AppContext, context_of
from web.envelope import SUCCESS_START, bad_data, success, success_end
from web.evaluation import run_blocking
from web.forms import read_form
from web.moments import rfc3339
from web.negotiation import respond
from web.parameters import parse_integer

STATISTICS_DEFAULT = 10
STATISTICS_MAX = 10_000

_API_FEATURES = (
    *("admin", "exclude_alerts", "label_values_match", "lifecycle", "query_stats", "query_warnings"),
    *("remote_write_receiver", "time_range_labels", "time_range_series"),
)


def build_info(context: AppContext) -> dict[str, str]:
    """The object of /status/buildinfo and /version."""
    build = context.services.build
    return {
        "version": build.version,
        "revision": build.revision,
        "branch": build.branch,
        "buildUser": build.build_user,
        "buildDate": build.build_date,
        "goVersion": build.go_version,
    }


async def buildinfo(request: web.Request) -> web.Response:
    """Version and build."""
    return await respond(request, success(build_info(context_of(request))))


async def flags(request: web.Request) -> web.Response:
    """All flags as text."""
    return await respond(request, success(dict(context_of(request).services.flags)))


async def config(request: web.Request) -> web.Response:
    """The loaded configuration, secrets masked."""
    return await respond(request, success({"yaml": context_of(request).services.config_yaml()}))


def _counter(context: AppContext, name: str) -> int:
    return int(context.services.registry.get_sample_value(name) or 0)


async def runtimeinfo(request: web.Request) -> web.Response:
    """The running process. Names of the API that belong to another runtime hold our nearest figure."""
    context = context_of(request)
    services, reload_state = context.services, context.services.reload_state()
    data = {
        "startTime": rfc3339(int(services.start_time_s * 1000)),
        "CWD": os.getcwd(),
        "hostname": socket.gethostname(),
        "serverTime": rfc3339(context.now_ms()),
        "reloadConfigSuccess": reload_state.succeeded,
        "lastConfigTime": rfc3339(int(reload_state.time_s) * 1000),
        "corruptionCount": _counter(context, "prometheus_tsdb_wal_corruptions_total"),
        "goroutineCount": threading.active_count(),
        "GOMAXPROCS": len(os.sched_getaffinity(0)),
        "GOMEMLIMIT": 2**63 - 1,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": services.storage_retention,
    }
    return await respond(request, success(data))


def _statistics(pairs: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in pairs]


async def tsdb(request: web.Request) -> web.Response:
    """Size and cardinality of the head."""
    context, text = context_of(request), (await read_form(request)).get("limit")
    limit = STATISTICS_DEFAULT
    if text:
        try:
            limit = parse_integer(text)
        except ValueError:
            limit = 0
        if limit < 1:
            raise bad_data("limit must be a positive number")
        if limit > STATISTICS_MAX:
            raise bad_data(f"limit must not exceed {STATISTICS_MAX}")
    database = context.database()
    head = await run_blocking(context, getattr(database, "head_stats", lambda: None))
    found = await run_blocking(context, lambda: getattr(database, "cardinality", lambda _: None)(limit))
    data: dict[str, Any] = {
        "headStats": {
            "numSeries": head.series_count if head else 0,
            "numLabelPairs": head.label_pair_count if head else 0,
            "chunkCount": head.chunk_count if head else 0,
            "minTime": head.min_time_ms if head else 0,
            "maxTime": head.max_time_ms if head else 0,
        },
        "seriesCountByMetricName": _statistics(found.series_by_metric_name) if found else [],
        "labelValueCountByLabelName": _statistics(found.values_by_label_name) if found else [],
        "memoryInBytesByLabelName": _statistics(found.memory_by_label_name) if found else [],
        "seriesCountByLabelValuePair": _statistics(found.series_by_label_pair) if found else [],
    }
    return await respond(request, success(data))


async def tsdb_blocks(request: web.Request) -> web.Response:
    """meta.json of every block."""
    context = context_of(request)
    metas = await run_blocking(context, getattr(context.database(), "block_metas", list))
    return await respond(request, success({"blocks": [dict(meta) for meta in metas]}))


async def walreplay(request: web.Request) -> web.Response:
    """Progress of the replay; answers before the server is ready."""
    low, high, current = context_of(request).services.wal_replay()
    return await respond(request, success({"min": low, "max": high, "current": current}))


def default_features(experimental: bool) -> dict[str, dict[str, bool]]:
    """Every category, with what this version has; `experimental` functions are on or off."""
    return {
        "api": dict.fromkeys(_API_FEATURES, True),
        "otlp_receiver": {},
        "prometheus": {},
        "promql": {
            "at_modifier": True,
            "negative_offset": True,
            "subqueries": True,
            "offset": True,
            "bool": True,
        },
        "promql_functions": {
            name: experimental or not FUNCTIONS[name].experimental for name in sorted(FUNCTIONS)
        },
        "promql_operators": {
            name: experimental or not AGGREGATORS[name].experimental for name in sorted(AGGREGATORS)
        },
        "rules": {},
        "scrape": {},
        "service_discovery_providers": {"static": True},
        "templating_functions": {},
        "tsdb": {"native_histograms": True, "exemplars": True},
        "ui": {"query_page": True},
    }


async def features(request: web.Request) -> web.Response:
    """Which features are there and on; not escaped for HTML."""
    context = context_of(request)
    found = default_features(EXPERIMENTAL_FEATURE in context.services.enabled_features)
    found["api"]["admin"] = context.services.enable_admin_api
    found["api"]["lifecycle"] = context.services.enable_lifecycle
    found["api"]["remote_write_receiver"] = context.services.receiver is not None
    for category, entries in context.services.features.items():
        found.setdefault(category, {}).update(entries)
    return await respond(request, SUCCESS_START + orjson.dumps(found) + success_end())
