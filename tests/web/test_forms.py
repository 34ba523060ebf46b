"""Forms as Go reads them: what a malformed pair costs, and which endpoints mind.

The answers are those of Prometheus 3.14.0, asked on 2026-11-28.
"""

from __future__ import annotations

import pytest
from aiohttp import FormData
from yarl import URL

from tests.web.conftest import SiteFactory
from web.forms import FORM_BYTES_MAX, parse_fields

FIELDS: list[tuple[str, list[tuple[str, str]], str]] = [
    ("", [], ""),
    ("a=1&b=2", [("a", "1"), ("b", "2")], ""),
    ("a=1&&b", [("a", "1"), ("b", "")], ""),
    ("a=b=c", [("a", "b=c")], ""),
    ("a+b=%41+%2b", [("a b", "A +")], ""),
    ("a=%ff", [("a", "\udcff")], ""),
    ("a=%zz&b=2", [("b", "2")], 'invalid URL escape "%zz"'),
    ("a=%4&b=2", [("b", "2")], 'invalid URL escape "%4"'),
    ("a=50%", [], 'invalid URL escape "%"'),
    ("%g1=1", [], 'invalid URL escape "%g1"'),
    ("a=1;b=2&c=3", [("c", "3")], "invalid semicolon separator in query"),
    ("a=%zz&b=1;c=2", [], 'invalid URL escape "%zz"'),
    ("a=%3b", [("a", ";")], ""),
]


@pytest.mark.parametrize(("text", "fields", "fault"), FIELDS)
def test_fields(text: str, fields: list[tuple[str, str]], fault: str) -> None:
    assert parse_fields(text) == (fields, fault)


def _url(path: str, query: str) -> URL:
    return URL(f"/api/v1/{path}?{query}", encoded=True)


MALFORMED = [("a=%zz", 'invalid URL escape "%zz"'), ("a=1;b=2", "invalid semicolon separator in query")]


@pytest.mark.parametrize(("pair", "fault"), MALFORMED)
async def test_some_endpoints_refuse_a_malformed_pair(make_site: SiteFactory, pair: str, fault: str) -> None:
    site = await make_site()
    for path in ("series", "rules"):
        status, body = await site.get(_url(path, f"match[]=up&{pair}"))
        assert (status, body["errorType"]) == (400, "bad_data")
        assert body["error"] == f"error parsing form values: {fault}"
    status, text = await site.get(URL(f"/federate?match[]=up&{pair}", encoded=True))
    assert (status, text) == (400, f"error parsing form values: {fault}\n")


@pytest.mark.parametrize(("pair", "fault"), MALFORMED)
async def test_others_leave_it_out(make_site: SiteFactory, pair: str, fault: str) -> None:
    site = await make_site()
    status, body = await site.get(_url("label/job/values", f"match[]=up&{pair}"))
    assert (status, body["data"]) == (200, ["node"])
    await site.get(_url("query", f"query=up&{pair}"))
    assert site.engine.calls[-1][0] == "up"
    await site.get(_url("labels", f"limit=1&{pair}"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    await site.post(_url("query", "query=up"), data=f"query={pair}", headers=form)
    assert site.engine.calls[-1][0] == "up", "the URL's, as that of the body was left out"


async def test_queries_read_multipart_bodies_after_the_url(make_site: SiteFactory) -> None:
    site = await make_site()

    def body() -> FormData:
        data = FormData(default_to_multipart=True)
        data.add_field("query", "up")
        data.add_field("file", b"\xff" * 100_000, filename="some")
        data.add_field("time", "5")
        return data

    await site.post("/api/v1/query", data=body())
    assert site.engine.calls[-1][:2] == ("up", 5000)
    await site.post("/api/v1/query?query=1", data=body())
    assert site.engine.calls[-1][0] == "1"
    status, answer = await site.post("/api/v1/series", data=body())
    assert (status, answer["error"]) == (400, "no match[] parameter provided")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"query=up"),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nu'),
    ],
)
async def test_a_malformed_multipart_body_has_no_fields(
    make_site: SiteFactory, content_type: str, body: bytes
) -> None:
    site = await make_site()
    await site.post("/api/v1/query?query=1", data=body, headers={"Content-Type": content_type})
    assert site.engine.calls[-1][0] == "1"


async def test_multipart_bodies_are_limited(make_site: SiteFactory) -> None:
    site = await make_site()
    data = FormData(default_to_multipart=True)
    data.add_field("file", b"a" * (FORM_BYTES_MAX + 1), filename="large")
    status, _ = await site.post("/api/v1/query?query=1", data=data)
    assert status == 413


async def test_label_names_that_are_no_text(make_site: SiteFactory) -> None:
    site = await make_site()
    status, body = await site.get(URL("/api/v1/label/%FF/values", encoded=True))
    assert (status, body["error"]) == (400, 'invalid label name: "\\xff"')
    status, body = await site.get(URL("/api/v1/label/http%2Epath/values", encoded=True))
    assert (status, body["data"]) == (200, ["/<x>"])
