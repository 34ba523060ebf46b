"""Everything besides queries: metadata, status, admin, lifecycle, federation, write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from tests.web.conftest import NOW_S, Site, SiteFactory
from tsdb.columns import Metadata
from tsdb.errors import StorageError
from tsdb.labels import Labels
from tsdb.select import STALE_BITS
from web.services import ReloadState

OK: dict[str, Any] = {"status": "success"}


COUNTER = {"type": "counter", "help": "a < b", "unit": ""}
GAUGE = {"type": "gauge", "help": "", "unit": "s"}


class FakeScrape:
    """One pool; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def pools(self) -> list[str]:
        return ["node", "db"]

    def targets(self, state: str = "any", pool: str = "") -> dict[str, Any]:
        self.asked.append((state, pool))
        row = {"discoveredLabels": {"note": "<b>"}, "labels": {"job": "node"}, "lastError": "a < b"}
        return {"activeTargets": [row], "droppedTargets": [], "droppedTargetCounts": {"node": 0}}

    def targets_metadata(
        self, match_target: Any = (), metric: str = "", limit: int = -1
    ) -> list[dict[str, Any]]:
        self.asked.append((len(match_target), metric, limit))
        return [{"target": {"job": "node"}, **COUNTER}]

    def metadata(self, metric: str = "", limit: int = -1, limit_per_metric: int = -1) -> dict[str, Any]:
        known = {"up_total": [COUNTER, {**COUNTER, "help": "other"}], "x": [GAUGE]}
        return {name: entries for name, entries in known.items() if metric in ("", name)}

    def pool_yaml(self, pool: str) -> str:
        return f"job_name: {pool}\n"

    def relabel_steps(self, pool: str, labels_json: str) -> list[dict[str, Any]]:
        if labels_json == "[]":
            raise ValueError("labels must be a JSON object of strings")
        return [{"rule": {}, "output": {}, "keep": True}]


# Metadata of series.


async def test_series_labels_and_values(site: Site) -> None:
    status, body = await site.get("/api/v1/series", params={"match[]": ["up{instance='a:1'}", "http_total"]})
    assert status == 200
    assert body["data"] == [
        {"__name__": "http_total", "http.path": "/<x>", "job": "web"},
        {"__name__": "up", "instance": "a:1", "job": "node"},
    ]
    assert await site.get("/api/v1/labels") == (
        200,
        {**OK, "data": ["__name__", "http.path", "instance", "job"]},
    )
    assert (await site.post("/api/v1/labels", data={"match[]": "up"}))[1]["data"] == [
        "__name__",
        "instance",
        "job",
    ]
    assert (await site.get("/api/v1/label/job/values"))[1]["data"] == ["node", "web"]
    assert (await site.get("/api/v1/label/job/values", params={"match[]": "up"}))[1]["data"] == ["node"]
    assert (await site.get("/api/v1/label/nope/values"))[1] == {**OK, "data": []}
    assert (await site.get("/api/v1/label/U__http_2e_path/values"))[1]["data"] == ["/<x>"]
    assert (await site.get("/api/v1/label/http.path/values"))[1]["data"] == ["/<x>"]


@pytest.mark.parametrize("path", ["//api/v1/query", "/api//v1///query"])
async def test_repeated_slashes_lead_to_the_path_without_them(site: Site, path: str) -> None:
    target = URL(str(site.client.make_url("/")).rstrip("/") + f"{path}?query=%2B1&time=5", encoded=True)
    for method in ("GET", "POST"):
        async with site.client.session.request(method, target, allow_redirects=False) as response:
            assert response.status == 307
            assert response.headers["Location"] == "/api/v1/query?query=%2B1&time=5"


async def test_html_is_escaped_in_lists_but_not_in_label_sets(site: Site) -> None:
    async with site.client.get("/api/v1/label/http.path/values") as response:
        assert b'["/\\u003cx\\u003e"]' in await response.read()
    async with site.client.get("/api/v1/series", params={"match[]": "http_total"}) as response:
        assert b'"http.path":"/<x>"' in await response.read()


async def test_limits_truncate_with_a_warning(site: Site) -> None:
    for path, parameters in (
        ("series", {"match[]": "up", "limit": "2"}),
        ("labels", {"limit": "2"}),
        ("label/instance/values", {"limit": "2"}),
    ):
        _, body = await site.get(f"/api/v1/{path}", params=parameters)
        assert (len(body["data"]), body["warnings"]) == (2, ["results truncated due to limit"])
    _, body = await site.get("/api/v1/series", params={"match[]": "up", "limit": "3"})
    assert (len(body["data"]), "warnings" in body) == (3, False)


@pytest.mark.parametrize(
    ("path", "parameters", "text"),
    [
        ("series", {}, "no match[] parameter provided"),
        (
            "series",
            {"match[]": "{a=~'.*'}"},
            'invalid parameter "match[]": match[] must contain at least one non-empty matcher',
        ),
        ("labels", {"match[]": "{}"}, "match[] must contain at least one non-empty matcher"),
        ("label/U__/values", {}, 'invalid label name: "U__"'),
        (
            "labels",
            {"start": "x"},
            "invalid parameter \"start\": invalid time value for 'start':"
            ' cannot parse "x" to a valid timestamp',
        ),
        ("metadata", {"limit": "x"}, "limit must be a number"),
        ("metadata", {"limit_per_metric": "x"}, "limit_per_metric must be a number"),
        ("targets/metadata", {"limit": "x"}, "limit must be a number"),
        ("status/tsdb", {"limit": "0"}, "limit must be a positive number"),
        ("status/tsdb", {"limit": "10001"}, "limit must not exceed 10000"),
        ("rules", {"type": "x"}, 'invalid parameter "type": not supported value "x"'),
        (
            "rules",
            {"group_limit": "0"},
            'invalid parameter "group_limit": group_limit needs to be greater than 0',
        ),
        (
            "rules",
            {"group_limit": "3000000000"},
            'invalid parameter "group_limit": group_limit needs to be a valid number:'
            ' strconv.ParseInt: parsing "3000000000": value out of range',
        ),
        (
            "rules",
            {"group_next_token": "x"},
            'invalid parameter "group_next_token": group_limit needs to be present in order to paginate'
            " over the groups",
        ),
        ("scrape_pools/config", {"scrapePool": "x"}, 'scrape pool "x" not found'),
        ("scrape_pools/config", {}, "no scrapePool parameter provided"),
        ("targets/relabel_steps", {"scrapePool": "x"}, "no labels parameter provided"),
        ("targets/metadata", {"match_target": "}"}, 'invalid parameter "match_target": 1:1: parse error: '),
    ],
)
async def test_bad_parameters_of_metadata_endpoints(
    site: Site, path: str, parameters: dict[str, str], text: str
) -> None:
    status, body = await site.get(f"/api/v1/{path}", params=parameters)
    error = body.pop("error")
    assert (status, body) == (400, {"status": "error", "errorType": "bad_data"})
    assert error.startswith(text) if text.endswith(": ") else error == text


async def test_targets(make_site: SiteFactory) -> None:
    scrape = FakeScrape()
    site: Site = await make_site(scrape=scrape)
    async with site.client.get("/api/v1/targets?state=Active&scrapePool=node") as response:
        raw = await response.read()
    assert b'"discoveredLabels":{"note":"<b>"},"labels":{"job":"node"},"lastError":"a \\u003c b"' in raw
    assert await site.post("/api/v1/targets", data={"state": "active"}) == (405, "Method Not Allowed\n")
    await site.get("/api/v1/targets")
    assert scrape.asked == [("active", "node"), ("any", "")]
    assert (await site.get("/api/v1/targets?state=nope"))[1]["data"] == {
        "activeTargets": [],
        "droppedTargets": [],
        "droppedTargetCounts": None,
    }
    assert (await site.get("/api/v1/scrape_pools"))[1]["data"] == {"scrapePools": ["db", "node"]}
    found = (await site.get("/api/v1/scrape_pools/config?scrapePool=node"))[1]["data"]
    assert found == {"yaml": "job_name: node\n"}
    steps = "/api/v1/targets/relabel_steps"
    assert (await site.get(steps, params={"scrapePool": "node", "labels": "{}"}))[1]["data"]["steps"][0][
        "keep"
    ]
    _, body = await site.get(steps, params={"scrapePool": "node", "labels": "[]"})
    assert body["error"] == "error parsing labels: labels must be a JSON object of strings"


async def test_metadata_of_families_and_targets(make_site: SiteFactory) -> None:
    scrape = FakeScrape()
    site: Site = await make_site(scrape=scrape)
    stored = [Metadata("x", "gauge", "", "s"), Metadata("written", "gauge", "", "s")]
    site.database.metadata = lambda: stored  # type: ignore[attr-defined]
    other = {**COUNTER, "help": "other"}
    assert (await site.get("/api/v1/metadata"))[1]["data"] == {
        "up_total": [COUNTER, other],
        "x": [GAUGE],
        "written": [GAUGE],
    }
    assert (await site.get("/api/v1/metadata?limit=1&limit_per_metric=1"))[1]["data"] == {
        "up_total": [COUNTER]
    }
    assert (await site.get("/api/v1/metadata?metric=x"))[1]["data"] == {"x": [GAUGE]}
    await site.get(
        "/api/v1/targets/metadata", params={"match_target": '{job="db"}', "metric": "m", "limit": "1"}
    )
    assert scrape.asked == [(1, "m", 1)]


# Status.


async def test_status_endpoints_have_their_shapes(make_site: SiteFactory) -> None:
    site: Site = await make_site(
        flags={"web.page-title": "T", "web.enable-lifecycle": "false"},
        config_yaml=lambda: "global: {}\n",
        reload_state=lambda: ReloadState(True, 1_700_000_000.0),
        start_time_s=1_600_000_000.25,
    )
    get = site.get
    assert (await get("/api/v1/status/buildinfo"))[1]["data"]["version"] == "1.2.3"
    assert (await get("/version"))[1]["goVersion"] == "python3"
    assert (await get("/api/v1/status/flags"))[1]["data"]["web.enable-lifecycle"] == "false"
    assert (await get("/api/v1/status/config"))[1]["data"] == {"yaml": "global: {}\n"}
    runtime = (await get("/api/v1/status/runtimeinfo"))[1]["data"]
    assert runtime["startTime"] == "2020-09-13T12:26:40.25Z"
    assert runtime["lastConfigTime"] == "2023-11-14T22:13:20Z"
    assert runtime["storageRetention"] == "15d"
    head = (await get("/api/v1/status/tsdb"))[1]["data"]
    assert set(head) == {
        *("headStats", "seriesCountByMetricName", "labelValueCountByLabelName", "memoryInBytesByLabelName"),
        "seriesCountByLabelValuePair",
    }
    assert (await get("/api/v1/status/tsdb/blocks"))[1]["data"] == {"blocks": []}
    assert (await get("/api/v1/status/walreplay"))[1]["data"] == {"min": 0, "max": 0, "current": 0}
    assert (await get("/api/v1/rules"))[1]["data"] == {"groups": []}
    assert (await get("/api/v1/alerts"))[1]["data"] == {"alerts": []}
    assert (await get("/api/v1/alertmanagers"))[1]["data"] == {
        "activeAlertmanagers": [],
        "droppedAlertmanagers": [],
    }
    assert (await get("/api/v1/notifications"))[1]["data"] == []
    features = (await get("/api/v1/features"))[1]["data"]
    assert features["promql_functions"]["rate"] is True
    assert len(features) == 12


# Admin and lifecycle.


async def test_admin_endpoints_are_off_by_default(site: Site) -> None:
    for path in ("delete_series", "clean_tombstones", "snapshot"):
        assert await site.post(f"/api/v1/admin/tsdb/{path}", params={"match[]": "up"}) == (
            500,
            {"status": "error", "errorType": "unavailable", "error": "admin APIs disabled"},
        )


async def test_admin_endpoints(make_site: SiteFactory) -> None:
    site: Site = await make_site(enable_admin_api=True)
    path = "/api/v1/admin/tsdb"
    assert (await site.post(f"{path}/delete_series"))[1]["error"] == "no match[] parameter provided"
    assert await site.post(f"{path}/delete_series", params={"match[]": "up", "start": "1", "end": "2"}) == (
        204,
        "",
    )
    assert site.database.deleted[0][1:] == (1000, 2000)
    _, body = await site.post(f"{path}/snapshot", params={"skip_head": "true"})
    assert body["data"] == {"name": "20231114T221320Z-0000000000000001"}
    assert (await site.post(f"{path}/snapshot", params={"skip_head": "maybe"}))[0] == 400
    assert (await site.post(f"{path}/clean_tombstones"))[1]["errorType"] == "unavailable"
    async with site.client.get(f"{path}/snapshot") as response:
        assert response.status == 405


async def test_lifecycle_is_off_by_default(site: Site) -> None:
    for path in ("/-/reload", "/-/quit"):
        assert await site.post(path) == (403, "Lifecycle API is not enabled.")
        assert (await site.get(path))[0] == 405


async def test_reload_and_quit(make_site: SiteFactory) -> None:
    outcomes: list[Exception | None] = [None, ValueError("bad key")]
    quits: list[bool] = []

    async def reload() -> None:
        error = outcomes.pop(0)
        if error is not None:
            raise error

    site: Site = await make_site(enable_lifecycle=True, reload=reload, quit=lambda: quits.append(True))
    assert (await site.post("/-/reload"))[0] == 200
    assert await site.post("/-/reload") == (500, "failed to reload config: bad key\n")
    assert await site.post("/-/quit") == (200, "Requesting termination... Goodbye!")
    assert quits == [True]


# Federation and writing.


async def test_federation_shows_the_newest_sample_of_each_series(make_site: SiteFactory) -> None:
    site: Site = await make_site(external_labels={"zone": "z", "job": "never"})
    store, now = site.database.store, int(NOW_S * 1000)
    store.add_float(Labels.from_dict({"__name__": "old", "job": "x"}), now - 300_000, 1.0)
    gone = Labels.from_dict({"__name__": "up", "instance": "gone"})
    store.add_bits(gone, now - 1000, STALE_BITS)
    store.add_float(Labels.from_dict({"__name__": "bare", "q": 'a"\n'}), now - 1, 1e7)
    store.add_float(Labels.from_dict({"__name__": "job:rule:sum", "job": "x"}), now - 1, 2.0)
    store.add_float(Labels.from_dict({"__name__": "with.dot", "job": "x"}), now - 1, 3.0)
    _, text = await site.get(
        "/federate",
        params={"match[]": ["up", "{job='web'}", "{__name__=~'old|bare|up|job:rule:sum|with.dot'}"]},
    )
    assert text == (
        "# TYPE bare untyped\n"
        f'bare{{q="a\\"\\n",job="never",zone="z",instance=""}} 1e+07 {now - 1}\n'
        "# TYPE http_total untyped\n"
        f'http_total{{"http.path"="/<x>",job="web",zone="z",instance=""}} 2.5 {now - 250}\n'
        "# TYPE job:rule:sum untyped\n"
        f'job:rule:sum{{job="x",zone="z",instance=""}} 2 {now - 1}\n'
        "# TYPE up untyped\n"
        f'up{{instance="a:1",job="node",zone="z"}} 1 {now - 5000}\n'
        f'up{{instance="b:2",job="node",zone="z"}} 1 {now - 5000}\n'
        f'up{{instance="c:3",job="node",zone="z"}} 1 {now - 5000}\n'
        '# TYPE "with.dot" untyped\n'
        f'{{"with.dot",job="x",zone="z",instance=""}} 3 {now - 1}\n'
    )
    assert (await site.get("/federate", params={"match[]": "up{"}))[0] == 400


class FakeReceiver:
    """Answers by the body."""

    async def handle(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str]:
        assert headers["Content-Encoding"] == "snappy"
        return (204, {}, "") if body == b"good" else (400, {"X-Written": "0"}, "out of order sample")


async def test_remote_write_goes_to_the_receiver(make_site: SiteFactory) -> None:
    site: Site = await make_site(receiver=FakeReceiver(), remote_write_body_bytes_max=100)
    headers = {"Content-Encoding": "snappy"}
    assert await site.post("/api/v1/write", data=b"good", headers=headers) == (204, "")
    assert await site.post("/api/v1/write", data=b"bad", headers=headers) == (400, "out of order sample\n")
    status, text = await site.post("/api/v1/write", data=b"x" * 101, headers=headers)
    assert (status, text) == (413, "request body exceeds the limit of 100 bytes (--web.max-body-size)\n")
    assert (await site.get("/api/v1/write"))[0] == 405


async def test_a_stored_write_in_one_piece_is_answered_as_in_the_usual_way(make_site: SiteFactory) -> None:
    site: Site = await make_site(receiver=FakeReceiver())
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.server.port)

    async def answer(version: str, more: str) -> list[str]:
        """Status line, then sorted headers, without the date."""
        head = f"POST /api/v1/write {version}\r\nHost: a\r\nContent-Encoding: snappy\r\n"
        writer.write(f"{head}Content-Length: 4\r\n{more}\r\ngood".encode())
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        dates = [line for line in lines if line.startswith("Date: ")]
        assert len(dates) == 1
        age_s = time.time() - parsedate_to_datetime(dates[0][6:]).timestamp()
        assert -2 < age_s < 3600
        return [lines[0], *sorted(line for line in lines[1:] if line and line not in dates)]

    plain = await answer("HTTP/1.1", "")
    assert plain[0] == "HTTP/1.1 204 No Content"
    assert await answer("HTTP/1.1", "") == plain
    crossing = await answer("HTTP/1.1", "Origin: http://b\r\n")
    assert "Access-Control-Allow-Origin: *" in crossing
    assert [line for line in crossing if not line.startswith("Access-Control-")] == plain
    old = await answer("HTTP/1.0", "Connection: keep-alive\r\n")
    assert old[0] == "HTTP/1.0 204 No Content"
    assert [line for line in old[1:] if line != "Connection: keep-alive"] == plain[1:]
    last = await answer("HTTP/1.1", "Connection: close\r\n")
    assert [line for line in last if line != "Connection: close"] == plain
    assert "Connection: close" in last
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    _, text = await site.get("/metrics")
    counted = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "prometheus_http_requests_total"
        and sample.labels == {"handler": "/api/v1/write", "code": "204"}
    ]
    assert counted == [5]


async def test_remote_write_without_a_receiver_is_not_found(site: Site) -> None:
    assert (await site.post("/api/v1/write", data=b""))[0] == 404


async def test_an_error_of_the_store_is_internal(site: Site) -> None:
    def broken() -> Any:
        raise StorageError("checksum of block 01 does not match")

    site.database.querier = broken  # type: ignore[method-assign]
    status, body = await site.get("/api/v1/labels")
    assert (status, body["errorType"]) == (500, "internal")
    assert "checksum" in body["error"]
