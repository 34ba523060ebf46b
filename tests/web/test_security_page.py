"""The security page in a real Chromium, over a real event log and the real engine."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from tests.e2e.processes import lasting_port
from tests.security.records import record
from tests.web.securitysite import SecuritySite, make_site
from tests.web.webdriver import Browser, chromium
from web.app import create_app
from web.ui import build

SITE_PORT, DRIVER_PORT = lasting_port(), lasting_port()
HOSTILE = '<img src=x onerror="document.title=1"> <script>document.title=2</script>'

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        shutil.which("chromedriver") is None, reason="Debian's chromium-driver is not installed"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuritySite]:
    """The site, served from a thread, with three events of the last minutes."""
    build.main()
    made = make_site(tmp_path_factory.mktemp("data"))
    now_ns = time.time_ns()
    made.deliver(
        record("Read file", time_ns=now_ns - 120 * 10**9, message="cat read /etc/shadow"),
        record("Shell", time_ns=now_ns - 60 * 10**9, priority="Critical", k8s_pod_name="web-1", pod="web-1"),
        record("Odd", time_ns=now_ns - 30 * 10**9, message=HOSTILE, fields={"fd.name": HOSTILE, "n": None}),
    )
    loop = asyncio.new_event_loop()
    started = threading.Event()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(create_app(made.services))
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", SITE_PORT, reuse_address=True).start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(30)
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    made.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(DRIVER_PORT, tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_console_errors(browser: Browser) -> Iterator[None]:
    yield
    assert browser.console_errors() == []


def open_page(browser: Browser, query: str = "") -> None:
    browser.open(f"http://127.0.0.1:{SITE_PORT}/security{query}")


def rules(browser: Browser) -> list[str]:
    found = browser.run("return [...document.querySelectorAll('#feed .open')].map(b => b.textContent)")
    assert isinstance(found, list)
    return found


def test_the_feed_shows_events_newest_first_and_new_ones_as_they_come(
    site: SecuritySite, browser: Browser
) -> None:
    open_page(browser)
    browser.wait(lambda: rules(browser) == ["Odd", "Shell", "Read file"], "the events of the log")
    assert browser.text("#feed tbody tr:nth-child(2) .badge") == "Critical"
    assert "web-1 · node-1" in browser.text("#feed tbody tr:nth-child(2) .where")
    site.deliver(record("Fresh", time_ns=time.time_ns(), priority="Notice"))
    browser.wait(lambda: rules(browser)[0] == "Fresh", "the new event")
    browser.wait(lambda: browser.count("#chart .legend li") >= 2, "the chart")


def test_texts_of_events_are_never_markup(site: SecuritySite, browser: Browser) -> None:
    open_page(browser, "?text=onerror&live=0")
    browser.wait(lambda: rules(browser) == ["Odd"], "the event")
    browser.run("document.querySelector('#feed tr.event').click()")
    browser.wait(lambda: browser.count("#feed tr.details") == 1, "the fields")
    assert browser.text("#feed tr.details .whole") == HOSTILE
    assert "not available" in browser.text("#feed tr.details")
    assert browser.count("#feed img") == browser.count("#feed script") == 0
    assert browser.run("return document.title") == "Security · Vedette"


def test_filters_are_in_the_url_and_an_event_leads_to_the_graph_of_its_series(
    site: SecuritySite, browser: Browser
) -> None:
    open_page(browser, "?priority=Critical&rule=hell&range=6h&live=0&by=rule")
    browser.wait(lambda: rules(browser) == ["Shell"], "the filtered event")
    assert browser.run("return document.getElementById('range').value") == "6h"
    browser.run("document.querySelector('#feed tr.event').click()")
    link = browser.run("return document.querySelector('a.series').href")
    [expression] = parse_qs(urlsplit(link).query)["g0.expr"]
    assert expression.startswith("increase(vedette_security_events_total{")
    assert 'k8s_pod_name="web-1"' in expression
    browser.run("document.querySelector('#live').click()")
    browser.wait(lambda: "live=0" not in browser.url, "the live feed in the URL")
    assert parse_qs(urlsplit(browser.url).query)["priority"] == ["Critical"]


def test_a_wrong_answer_is_shown(site: SecuritySite, browser: Browser) -> None:
    open_page(browser, f"?live=0&text={'x' * 4097}")
    browser.wait(lambda: "4097 characters" in browser.text("#message"), "the error")
    # The browser itself logs the status.
    assert all("400" in text for text in browser.console_errors())
