"""Bad requests to Debian's Prometheus and to us: same status, same error type, same text.

Prometheus 2.42 is older than the behaviour we follow; where 3.x says something else, the request is left out:
label names are UTF-8 now, regexps are shown without their anchors, topk names a NaN, "invalid time value"
begins small, range queries name their parameter, times beyond int64 are refused.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from tests.e2e.processes import lasting_port
from tests.web.conftest import Site, SiteFactory

PORT = lasting_port()

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not installed"),
]

REQUESTS = [
    "/api/v1/query?query=up{",
    "/api/v1/query?query=sum(",
    "/api/v1/query?query=foo)",
    "/api/v1/query?query=up&timeout=x",
    "/api/v1/query_range?query=up&start=1&end=0&step=1",
    "/api/v1/query_range?query=up&start=0&end=20000&step=1",
    "/api/v1/query_range?query=up&start=0&end=2&step=0",
    "/api/v1/query_range?query=up&start=0&end=2&step=-1",
    "/api/v1/query_range?query=up&start=0&end=2&step=x",
    "/api/v1/query_range?query=up&start=0&end=2&step=1e300",
    "/api/v1/query_range?query=up&start=&end=2&step=1",
    "/api/v1/query_range?query=up&start=0&end=x&step=1",
    "/api/v1/query_exemplars?query=(",
    "/api/v1/query_exemplars?query=up&start=2&end=1",
    "/api/v1/query_exemplars?query=1",
    "/api/v1/series",
    "/api/v1/series?match[]={a=~%22.*%22}",
    "/api/v1/series?match[]=}",
    "/api/v1/labels?match[]={}",
    "/api/v1/labels?match[]=}",
    "/api/v1/label/job/values?match[]={}",
    "/api/v1/label/job/values?match[]=nope",
    "/api/v1/targets/metadata?limit=x",
    "/api/v1/targets/metadata?match_target=}",
    "/api/v1/metadata?limit=x",
    "/api/v1/rules?type=x",
    "/api/v1/format_query?query=(",
    "/api/v1/admin/tsdb/delete_series",
    "/api/v1/nope",
    "/nope",
    "/federate?match[]=}",
    "/-/reload",
    # What the engine refuses; no data is needed for two series that get in each other's way.
    "/api/v1/query?query=nope(up)",
    "/api/v1/query?query=rate(up)",
    "/api/v1/query?query=abs(up[5m])",
    "/api/v1/query?query=sum(1)",
    "/api/v1/query?query=abs(1,2)",
    "/api/v1/query?query=topk(up)",
    "/api/v1/query?query=1 and up",
    "/api/v1/query?query=up + 'a'",
    "/api/v1/query?query=up[5m] + 1",
    "/api/v1/query?query=1 == 2",
    "/api/v1/query?query=up[5m",
    "/api/v1/query?query=(up",
    "/api/v1/query?query=up{a=~'[z-a]'}",
    "/api/v1/query?query=up{a=~'a{1001}'}",
    "/api/v1/query?query={}",
    "/api/v1/query?query=label_replace(vector(1),'a','b','c','(')",
    "/api/v1/query?query=vector(1) + on() (vector(1) or label_replace(vector(1),'a','b','',''))",
    "/api/v1/query?query=(vector(1) or label_replace(vector(1),'a','b','','')) + on() vector(1)",
    "/api/v1/query?query=label_replace(vector(1) or label_replace(vector(2),'a','b','',''),'a','','a','.*')",
    "/api/v1/query?query=topk(1e30,vector(1))",
    "/api/v1/query?query=up offset 99999999999y",
    "/api/v1/query?query=up[99999999999y]",
    "/api/v1/query?query=up[0s]",
    "/api/v1/query?query=up @ 1e40",
    "/api/v1/query?query=up @ NaN",
    "/api/v1/query?query=up&timeout=1e300",
    "/api/v1/query?query=up&timeout=-x",
    "/api/v1/query_range?query=up&start=0&end=2&step=99999999999y",
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("global: {}\n")
    address = f"127.0.0.1:{PORT}"
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    process = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while _fetch(f"http://{address}/-/ready")[0] != 200:
            assert time.monotonic() < deadline, "Prometheus is not ready after 30 s"
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def _fetch(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, _parsed(response.read())
    except urllib.error.HTTPError as error:
        return error.code, _parsed(error.read())
    except OSError:
        return 0, ""


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@pytest.fixture
async def ours(make_site: SiteFactory) -> Site:
    site: Site = await make_site(engine=Engine(EngineOptions(threads=1), CollectorRegistry()))
    return site


async def test_bad_requests_are_answered_alike(ours: Site, prometheus: str) -> None:
    differences = []
    for path in REQUESTS:
        quoted = urllib.parse.quote(path, safe="/?&=[]%")
        found, expected = await ours.get(quoted), _fetch(prometheus + quoted)
        if found != expected:
            differences.append(f"{path}\n  ours       {found}\n  prometheus {expected}")
    assert not differences, "\n".join(differences)
