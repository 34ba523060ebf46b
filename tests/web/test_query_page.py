"""The query page in a real Chromium, over the real engine."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from aiohttp import web

from tests.e2e.processes import lasting_port
from tests.web.demo import demo_services
from tests.web.webdriver import DOWN, ENTER, ESCAPE, TAB, Browser, chromium
from web.app import create_app
from web.ui import build

SITE_PORT, DRIVER_PORT = lasting_port(), lasting_port()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        shutil.which("chromedriver") is None, reason="Debian's chromium-driver is not installed"
    ),
]


@pytest.fixture(scope="module")
def now_ms() -> int:
    """The browser has the real clock, so the data end when the first test of this file begins."""
    return int(time.time()) * 1000


@pytest.fixture(scope="module")
def end(now_ms: int) -> str:
    """The newest sample's time as the page writes it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_ms / 1000))


@pytest.fixture(scope="module")
def site(now_ms: int) -> Iterator[str]:
    """The demo site, served from a thread; its newest sample is at `now_ms`."""
    build.main()
    loop, runner = asyncio.new_event_loop(), None
    started = threading.Event()

    def serve() -> None:
        nonlocal runner
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(create_app(demo_services(now_ms)))
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", SITE_PORT, reuse_address=True).start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{SITE_PORT}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(DRIVER_PORT, tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_console_errors(browser: Browser) -> Iterator[None]:
    """A page that logs an error fails its test; answers of the API with an error status are meant to."""
    yield
    assert [text for text in browser.console_errors() if "/api/v1/query" not in text] == []


def address(site: str, **fields: str) -> str:
    query = "&".join(f"g0.{name}={quote(value)}" for name, value in fields.items())
    return f"{site}/query?{query}"


def fields_of(browser: Browser) -> dict[str, str]:
    return {name[3:]: values[0] for name, values in parse_qs(urlsplit(browser.url).query).items()}


def test_enter_runs_the_expression_and_shows_a_table(site: str, browser: Browser) -> None:
    browser.open(f"{site}/")
    assert browser.text(".empty h2") == "Ask your metrics something"
    browser.type("#expression", "sum by (job) (up)" + ENTER)
    browser.wait(lambda: browser.count("tbody tr") == 2, "table")
    assert browser.text("tbody").split() == ['{job="db"}', "1", '{job="node"}', "2"]
    assert "2 results" in browser.text("#status")
    assert fields_of(browser)["expr"] == "sum by (job) (up)"


def test_a_click_on_value_sorts(site: str, browser: Browser) -> None:
    browser.open(address(site, expr="node_load1"))
    browser.wait(lambda: browser.count("tbody tr") == 3, "table")

    def values() -> list[float]:
        return [
            float(text)
            for text in browser.run(
                "return [...document.querySelectorAll('td.value')].map((cell) => cell.innerText)"
            )
        ]

    browser.click("th button")
    assert values() == sorted(values(), reverse=True)
    browser.click("th button")
    assert values() == sorted(values())
    assert browser.run("return document.querySelectorAll('th')[1].ariaSort") == "ascending"


@pytest.mark.skipif(not build.is_current() and shutil.which("npm") is None, reason="npm is not installed")
def test_the_graph_is_drawn_on_a_canvas(site: str, end: str, browser: Browser) -> None:
    browser.open(address(site, expr="node_load1", tab="graph", range_input="30m", end_input=end))
    browser.wait(lambda: browser.count(".u-wrap canvas") == 1, "canvas")
    painted = browser.run(
        """
        const canvas = document.querySelector('.u-wrap canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const near = (value, wanted) => Math.abs(value - wanted) < 12;
        let blue = 0;
        for (let i = 0; i < data.length; i += 4)
          if (data[i + 3] > 200 && near(data[i], 0x4c) && near(data[i + 2], 0xf5)) blue += 1;
        return blue;
        """
    )
    assert painted > 300, "the first series' colour is not on the canvas"
    assert browser.count(".legend li") == 3
    assert "step 7s" in browser.text("#status")


@pytest.mark.skipif(not build.is_current() and shutil.which("npm") is None, reason="npm is not installed")
def test_legend_tooltip_and_zoom(site: str, end: str, browser: Browser) -> None:
    browser.open(address(site, expr="node_load1", tab="graph", range_input="30m", end_input=end))
    browser.wait(lambda: browser.count(".u-over") == 1, "graph")
    browser.hover(".u-over", 10, 0)
    browser.wait(lambda: "node_load1" in browser.text(".tip"), "tooltip")
    browser.click(".legend li:nth-child(2) button")
    assert browser.run(
        "return [...document.querySelectorAll('.legend button')].map((b) => b.ariaPressed)"
    ) == ["false", "true", "false"]
    browser.drag(".u-over", -200, 200)
    browser.wait(lambda: fields_of(browser)["range_input"] != "30m", "zoom")
    assert fields_of(browser)["end_input"] < end


def test_the_url_brings_the_page_back(site: str, end: str, browser: Browser) -> None:
    wanted = {"expr": 'rate(node_cpu_seconds_total{mode="user"}[5m])', "tab": "graph", "range_input": "2h"}
    wanted |= {"end_input": end, "step_input": "30s"}
    browser.open(address(site, **wanted))
    browser.wait(lambda: "step 30s" in browser.text("#status"), "graph")
    assert browser.run("return document.getElementById('expression').value") == wanted["expr"]
    assert browser.run("return document.getElementById('range').value") == "2h"
    browser.click("#tab-table")
    browser.wait(lambda: browser.count("tbody tr") == 3, "table")
    assert fields_of(browser) == {**wanted, "tab": "table"}
    browser.back()
    browser.wait(lambda: "step 30s" in browser.text("#status"), "graph again")
    assert fields_of(browser) == wanted


def test_the_numbers_that_prometheus_once_used_for_tabs_work(site: str, browser: Browser) -> None:
    browser.open(f"{site}/graph?g0.expr=up&g0.tab=0&g0.range_input=5m")
    browser.wait(
        lambda: browser.run("return document.getElementById('tab-graph').ariaSelected") == "true", "tab"
    )
    browser.wait(lambda: "3 results" in browser.text("#status"), "graph")


def test_an_error_is_shown_with_its_place(site: str, browser: Browser) -> None:
    browser.open(address(site, expr="sum(up))"))
    browser.wait(lambda: browser.text(".message.error"), "error")
    assert "bad_data" in browser.text(".message.error")
    assert "1:9: parse error: unexpected right parenthesis ')'" in browser.text(".message.error")
    assert browser.run("return document.querySelector('.message.error').getAttribute('role')") == "alert"
    assert browser.text("#highlight .t-problem") == ")"
    browser.run("document.getElementById('expression').value = ''")
    browser.type("#expression", "up" + ENTER)
    browser.wait(lambda: browser.count("tbody tr") == 3, "table")
    assert browser.count(".message") == 0


def test_warnings_and_infos_are_shown(site: str, browser: Browser) -> None:
    browser.open(address(site, expr="rate(node_load1[5m])"))
    browser.wait(lambda: browser.text(".message.info"), "info")
    assert "metric might not be a counter" in browser.text(".message.info")
    browser.open(address(site, expr="quantile(2, up)"))
    browser.wait(lambda: browser.text(".message.warning"), "warning")
    assert "quantile value should be between 0 and 1" in browser.text(".message.warning")


def test_names_are_completed_from_the_keyboard(site: str, browser: Browser) -> None:
    browser.open(f"{site}/query")
    browser.type("#expression", "node_l")
    browser.wait(lambda: browser.text("#completions").startswith("node_load1"), "completions")
    browser.type("#expression", TAB)
    assert browser.run("return document.getElementById('expression').value") == "node_load1"
    browser.type("#expression", "{inst")
    browser.wait(lambda: browser.text("#completions").startswith("instance"), "label names")
    browser.type("#expression", DOWN + ENTER + '="db-1:9100"}' + ESCAPE + ENTER)
    browser.wait(lambda: browser.count("tbody tr") == 1, "table")


def test_nothing_is_loaded_from_elsewhere(site: str, browser: Browser) -> None:
    browser.open(address(site, expr="up", tab="graph"))
    browser.wait(lambda: browser.text("#status"), "status")
    names = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names
    assert [name for name in names if not name.startswith(f"{site}/")] == []


def test_every_control_has_a_name_and_the_theme_can_be_chosen(site: str, browser: Browser) -> None:
    browser.open(address(site, expr="up", tab="graph"))
    browser.wait(lambda: browser.text("#status"), "status")
    nameless = browser.run(
        """
        const named = (item) => item.ariaLabel || item.innerText.trim() || item.labels?.length;
        return [...document.querySelectorAll('button, input, textarea')]
          .filter((item) => !named(item)).map((item) => item.outerHTML);
        """
    )
    assert nameless == []
    before = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.click("#theme")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != before
    browser.open(f"{site}/query")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != before
    browser.click("#theme")


def test_pictures_for_people(site: str, end: str, browser: Browser, tmp_path: Path) -> None:
    browser.open(address(site, expr="node_load1", tab="graph", range_input="1h", end_input=end))
    browser.wait(lambda: browser.text("#status"), "status")
    browser.screenshot(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
