"""The query log: every finished query, and a warning for the slow ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.web.conftest import NOW_S, SiteFactory
from web.querylog import LoggedQuery, QueryLog


def logged(took_s: float = 0.1) -> LoggedQuery:
    return LoggedQuery("up", 1000, 2500, 15_000, "10.0.0.1", "GET", "/api/v1/query_range", took_s)


async def test_finished_and_failed_queries_are_logged(make_site: SiteFactory, tmp_path: Path) -> None:
    query_log = QueryLog(CollectorRegistry())
    query_log.open(str(tmp_path / "query.log"))
    site = await make_site(query_log=query_log)
    await site.get("/api/v1/query", params={"query": "1", "time": str(NOW_S)})
    await site.get("/api/v1/query", params={"query": "sum("})
    query_log.close()
    first, second = [json.loads(line) for line in (tmp_path / "query.log").read_text().splitlines()]
    assert first["params"]["query"] == "1"
    assert first["params"]["start"] == "2023-11-14T22:13:20.000Z"
    assert first["httpRequest"]["path"] == "/api/v1/query"
    assert "error" not in first
    assert "parse error" in second["error"]


def test_a_slow_query_is_a_warning_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    query_log = QueryLog(registry, slow_s=1.0)
    with caplog.at_level(logging.WARNING, "vedette.query"):
        query_log.write(logged(0.5))
        query_log.write(logged(1.5))
    assert [record.message for record in caplog.records] == ["Slow query"]
    assert registry.get_sample_value("vedette_slow_queries_total") == 1


def test_a_file_that_cannot_be_opened_leaves_the_old_one(tmp_path: Path) -> None:
    query_log = QueryLog(CollectorRegistry())
    query_log.open(str(tmp_path / "a.log"))
    with pytest.raises(OSError, match="No such file"):
        query_log.open(str(tmp_path / "missing" / "b.log"))
    query_log.write(logged())
    query_log.close()
    assert json.loads((tmp_path / "a.log").read_text())["params"]["step"] == 15


def test_a_full_disk_is_counted_and_not_fatal() -> None:
    registry = CollectorRegistry()
    query_log = QueryLog(registry)
    query_log.open("/dev/full")
    query_log.write(logged())
    assert registry.get_sample_value("prometheus_engine_query_log_failures_total") == 1
