"""The query API over a store whose old samples are roll-ups only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.operators.rollups import LAST_ONLY, MOVED
from promql.options import EngineOptions
from tests.tsdb.rollupstore import ROLLED, live
from tests.tsdb.stores import HOUR, T0, Store
from tests.web.conftest import Site, SiteFactory

AT = T0 // 1000 + 8 * 3600


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data", options=replace(ROLLED, full_resolution_ms=8 * HOUR))
    live(opened, 30)
    yield opened
    opened.db.close()


@pytest.fixture
async def site(make_site: SiteFactory, store: Store) -> Site:
    engine = Engine(EngineOptions(threads=1), CollectorRegistry())
    made: Site = await make_site(engine=engine, database=store.db)
    return made


CASES = [
    ("count_over_time(counter_total[1h])", AT, []),
    ("count_over_time(counter_total[1h])", AT + 61, [MOVED]),
    ("quantile_over_time(0.5, gauge[1h])", AT, [LAST_ONLY]),
]


@pytest.mark.parametrize(("query", "at", "infos"), CASES)
async def test_answers_over_roll_ups_say_what_they_are(
    site: Site, query: str, at: int, infos: list[str]
) -> None:
    status, body = await site.get("/api/v1/query", params={"query": query, "time": str(at)})
    assert status == 200
    assert [row["metric"]["i"] for row in body["data"]["result"]] == ["0", "1", "2"]
    if query.startswith("count"):
        assert {row["value"][1] for row in body["data"]["result"]} == {"60"}
    found = [text.removeprefix("PromQL info: ").rsplit(" (", 1)[0] for text in body.get("infos", [])]
    assert found == infos


async def test_label_endpoints_do_not_show_the_hidden_label(site: Site) -> None:
    old = {"start": str(AT - 3600), "end": str(AT)}
    assert (await site.get("/api/v1/labels", params=old))[1]["data"] == ["__name__", "i", "job"]
    assert (await site.get("/api/v1/label/i/values", params=old))[1]["data"] == ["0", "1", "2"]
    found = (await site.get("/api/v1/series", params={**old, "match[]": "gauge"}))[1]["data"]
    assert found == [{"__name__": "gauge", "i": str(i), "job": "ab"[i % 2]} for i in range(3)]
