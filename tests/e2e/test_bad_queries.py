"""Bad queries to the real server: Prometheus's status, error type and text, and a server that goes on.

The texts are those of Debian's Prometheus on the same requests (2026-11-28), but for limits that it has not.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.servers import Server
from tests.e2e.processes import Api, series, start_vedette

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

DEEP = 10_000
MEGABYTE = 1_000_000
SAMPLES_MAX = 60
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Running:
    """The server and the time of its samples."""

    server: Server
    now_s: float


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = start_vedette(tmp_path_factory.mktemp("bad-queries"), f"--query.max-samples={SAMPLES_MAX}")
    try:
        server.wait_ready()
        now_ms = int(time.time()) * 1000 - 300_000
        times = [(now_ms + k * 1000, float(k)) for k in range(-30, 1)]
        names = [("m", "a", "1"), ("m", "a", "2"), ("m", "b", "1"), ("other", "a", "1")]
        rows = [series(name, times, job=job, instance=instance) for name, job, instance in names]
        api = Api(server.port)
        assert api.write(rows) == (204, "")
        api.close()
        yield Running(server, now_ms / 1000)
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def the_server_goes_on(running: Running) -> Iterator[None]:
    yield
    assert ask(running, "sum(m)")[2]["result"][0]["value"][1] == "0"


def ask(running: Running, query: str, **more: str) -> tuple[int, str, Any]:
    """Status, error type, and error text or data of an instant query as a form."""
    fields = {"query": query, "time": f"{running.now_s:.3f}", **more}
    api = Api(running.server.port)
    body = urllib.parse.urlencode(fields).encode()
    status, _, answer = api.request("POST", "/api/v1/query", body, FORM)
    api.close()
    found = json.loads(answer)
    return status, found.get("errorType", ""), found.get("error", found.get("data"))


PARSE = 'invalid parameter "query": '
LABELSET = "vector cannot contain metrics with the same labelset"
REFUSED = [
    ("foo(m)", '1:1: parse error: unknown function with name "foo"'),
    (
        "scalar(1)",
        '1:8: parse error: expected type instant vector in call to function "scalar", got scalar',
    ),
    ("'a' + 'b'", "1:1: parse error: binary expression must contain only scalar and instant vector types"),
    ("m{job=~'a**'}", "1:3: parse error: error parsing regexp: invalid nested repetition operator: `**`"),
    ("m{job=~'('}", "1:3: parse error: error parsing regexp: missing closing ): `(`"),
    ("m offset 300y", "1:10: parse error: duration out of range"),
    ("m[300y]", "1:3: parse error: duration out of range"),
    ("m[5m:0s]", "1:6: parse error: duration must be greater than 0"),
    (
        "m @ 1e20",
        "1:1: parse error: timestamp out of bounds for @ modifier: 100000000000000000000.000000",
    ),
    ("sum(m", "1:6: parse error: unclosed left parenthesis"),
    ("'abc", "1:1: parse error: unterminated quoted string"),
]


@pytest.mark.parametrize(("query", "text"), REFUSED)
def test_what_does_not_parse_is_bad_data(running: Running, query: str, text: str) -> None:
    assert ask(running, query) == (400, "bad_data", PARSE + text)


TOO_MANY = "query processing would load too many samples into memory in query execution"
FAILING = [
    ("{__name__=~'m|other'} * 1", LABELSET),
    ("label_replace(m, 'instance', '', 'instance', '.*')", LABELSET),
    ("topk(Inf, m)", "Scalar value +Inf overflows int64"),
    (f"m[{SAMPLES_MAX}s]", TOO_MANY),
    # No sample is read, but those of the subqueries are held.
    ("max_over_time(vector(1)[100s:1ms])", TOO_MANY),
    ("max_over_time(sum_over_time(vector(time())[2s:1s])[100s:1s])", TOO_MANY),
]


@pytest.mark.parametrize(("query", "text"), FAILING)
def test_what_cannot_be_evaluated_is_an_execution_error(running: Running, query: str, text: str) -> None:
    assert ask(running, query) == (422, "execution", text)


def test_many_to_many_names_group_and_series(running: Running) -> None:
    status, kind, text = ask(running, "m * on(job) m")
    assert (status, kind) == (422, "execution")
    assert text.startswith(
        'found duplicate series for the match group {job="a"} on the right hand-side of the operation: ['
    )
    assert text.endswith("];many-to-many matching not allowed: matching labels must be unique on one side")


def test_a_timeout_is_answered_503(running: Running) -> None:
    status, kind, text = ask(running, "sum(m)", timeout="0")
    assert (status, kind) == (503, "timeout")
    assert text.startswith("query timed out in ")


BEYOND_ALL_SAMPLES = [
    "m @ 9223372036854775.807",
    "m @ -9223372036854775.808",
    "m @ 1e18",
    "rate(m[290y] @ -1e18 offset 290y)",
    "sum_over_time(m[1h:1m] @ 1e18 offset -290y)",
]


@pytest.mark.parametrize("query", BEYOND_ALL_SAMPLES)
def test_times_that_no_sample_can_have_find_nothing(running: Running, query: str) -> None:
    assert ask(running, query) == (200, "", {"resultType": "vector", "result": []})


ENORMOUS: list[tuple[str, int, str]] = [
    ("(" * DEEP + "1" + ")" * DEEP, 200, "'1'"),
    ("sum(" * DEEP + "m" + ")" * DEEP, 200, "'0'"),
    ("-" * DEEP + "m", 200, "'job': 'a'"),
    ("m" + "+m" * 1_000, 200, "'instance': '2'"),
    ("m" + " " * MEGABYTE, 200, "'instance': '2'"),
    ("(" * DEEP, 400, f"1:{DEEP + 1}: parse error: unclosed left parenthesis"),
    ("sum(" * (MEGABYTE // 4), 400, f"1:{MEGABYTE + 1}: parse error: unclosed left parenthesis"),
    ('m{job=~"' + "a|" * (MEGABYTE // 2) + '"}', 400, "error parsing regexp"),
]
"""What is asked, the status, a part of the answer."""


def _peak_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def test_enormous_queries_take_little_memory(running: Running) -> None:
    before = _peak_kib(running.server.pid)
    for query, wanted, text in ENORMOUS:
        status, _, found = ask(running, query)
        assert (status, text in str(found)) == (wanted, True), (query[:20], found)
    assert _peak_kib(running.server.pid) - before < 512 << 10
