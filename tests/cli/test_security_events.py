"""`vedette security events` against a server over a real event log."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from cli.main import cli
from tests.e2e.processes import free_port
from tests.security.records import T0_NS, record
from tests.web.securitysite import SecuritySite, make_site
from web.app import create_app


class Served:
    """A site behind a port, served from a thread."""

    def __init__(self, folder: Path) -> None:
        self.site: SecuritySite = make_site(folder, lambda: T0_NS / 1e9 + 10)
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            runner = web.AppRunner(create_app(self.site.services))
            self._loop.run_until_complete(runner.setup())
            self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
            ready.set()
            self._loop.run_forever()
            self._loop.run_until_complete(runner.cleanup())

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.site.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("data"))
    made.site.deliver(
        record("first", time_ns=T0_NS, message="red\x1b[31m"),
        record("second", time_ns=T0_NS + 1_000_000_000, priority="Critical", pod="web"),
    )
    yield made
    made.close()


def run(served: Served, *arguments: str) -> tuple[int, str]:
    server = f"http://127.0.0.1:{served.port}"
    result = CliRunner().invoke(cli, ["security", "events", "--server", server, *arguments])
    return result.exit_code, result.output


def test_events_are_lines_with_the_newest_last(served: Served) -> None:
    assert run(served) == (
        0,
        "2025-11-28T02:00:00.000000000Z node-1 Warning first: red\\u001b[31m\n"
        "2025-11-28T02:00:01.000000000Z node-1 Critical second: A shell started\n",
    )


def test_filters_reach_the_server_and_json_is_an_object_a_line(served: Served) -> None:
    code, text = run(served, "--match", '{pod="web"}', "--text", "SHELL", "-o", "json", "--start", "1")
    assert code == 0
    assert json.loads(text)["rule"] == "second"
    assert run(served, "--limit", "1")[1].count("\n") == 1
    assert run(served, "--end", "2025-11-28T02:00:00Z")[1].count("\n") == 1


def test_errors_are_one_line(served: Served) -> None:
    code, text = run(served, "--match", "{a=")
    assert code == 1
    assert text.startswith('Error: events: bad_data: invalid parameter "match[]": 1:4: parse error')
    code, text = run(served, "--match", "{a=", "--follow")
    assert code == 1
    assert text.startswith('Error: events: bad_data: invalid parameter "match[]"')
    assert "cannot reach" in run(served, "--server", "http://127.0.0.1:1")[1]


def test_follow_goes_on_with_what_comes(served: Served) -> None:
    command = [sys.executable, "-m", "cli.main", "security", "events", "--follow", "--limit", "1"]
    command += ["--server", f"http://127.0.0.1:{served.port}", "--match", '{rule=~"second|third"}']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert " second: " in process.stdout.readline()
        served.site.deliver(record("other"), record("third"))
        assert " third: " in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
