"""`vedette top`: its frames at 80 x 24, its keys, hostile names, a server's numbers, and a real terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import struct
import sys
import termios
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from cli.live.host import HostSource
from cli.live.keyboard import Keyboard
from cli.live.screen import Screen
from cli.live.server import query_of
from cli.live.views import (
    CONNECTIONS,
    CONTAINERS,
    EVENTS,
    PROCESSES,
    Happening,
    Row,
    View,
    Wanted,
    amount,
    size,
)
from cli.top import Poller
from tests.agent.containers import runc_container


def frame(screen: Screen, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(screen.frame(width, height, 0.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(name: str, cpu: float, container: str = "") -> Row:
    return (name, container), (1, cpu, 5e7, 0, 0, None, 12, 0)


@pytest.fixture
def screen() -> Screen:
    shown = Screen("web-1")
    shown.rows = [row("nginx", 0.25, "front"), row("postgres", 1.5), row("sshd", 0.0)]
    return shown


def test_a_frame_fits_80_by_24_and_is_sorted(screen: Screen) -> None:
    screen.rows += [row(f"worker-with-a-long-name-{n}", n / 1000) for n in range(100)]
    lines = frame(screen)
    assert len(lines) == 23
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == [
        *("GROUP", "CONTAINER", "PROCS", "↓CPU%", "MEM", "READ/s", "WRITE/s", "EXEC/s", "OPEN/s", "ERR/s"),
    ]
    assert lines[2].split() == ["postgres", "1", "150.0", "48M", "0", "0", "12", "0"]
    assert lines[3].split()[:2] == ["nginx", "front"]


def test_keys_sort_reverse_filter_scroll_and_switch(screen: Screen) -> None:
    for key in ("S", "r"):
        assert screen.press(key)
    assert "↑PROCS" in frame(screen)[1]
    for key in ("/", "N", "g", "i", "x", "backspace", "enter"):
        assert screen.press(key)
    assert [line.split()[0] for line in frame(screen)[2:-1]] == ["nginx"]
    assert "/Ngi" in frame(screen, 120)[0]
    for key in ("/", "q", "escape"):
        assert screen.press(key), "a letter in the filter is no command"
    assert screen.filter == ""
    screen.press("tab")
    assert screen.view.name == "containers"
    screen.press("3")
    assert screen.view is CONNECTIONS
    screen.press("1")
    screen.rows = [row(f"g{n:03}", 0.0) for n in range(100)]
    screen.press("r")
    for _ in range(5):
        screen.press("down")
    assert frame(screen)[2].split()[0] == "g005"
    for _ in range(500):
        screen.press("j")
    assert frame(screen)[-2].split()[0] == "g099"
    assert not screen.press("q")


def test_names_cannot_move_the_cursor_or_use_markup(screen: Screen) -> None:
    screen.rows = [row("\x1b[2J\x1b]0;x\x07[red]a[/red]\n", 1.0)]
    screen.view = PROCESSES
    screen.title = "h\x1b[31m"
    screen.note = "bad\x1b[2J"
    text = "\n".join(frame(screen, 200))
    assert "\x1b" not in text
    assert "\\x1b[2J\\x1b]0;x\\x07[red]a[/red]\\x0a" in text
    screen.view = EVENTS
    screen.happenings = [Happening(0.0, "Alert\x1b", "Rule\r", "x\x9b2J")]
    assert not {"\x1b", "\r", "\x9b"} & set("\n".join(frame(screen, 200)))


def test_an_empty_and_a_tiny_screen_are_drawn() -> None:
    for view in (PROCESSES, EVENTS):
        shown = Screen("x", view)
        assert len(frame(shown)) == 3
        assert frame(shown, 20, 3)


def test_a_narrow_terminal_keeps_names_and_the_column_of_the_order(screen: Screen) -> None:
    screen.rows.append(row("a-name-of-many-letters", 2.0))
    screen.sort["processes"] = 7
    lines = frame(screen, 48)
    assert "1/4 processes" in lines[0]
    assert lines[1].split() == ["GROUP", "CONTAINER", "PROCS", "CPU%", "MEM", "↓ERR/s"]
    assert lines[2].startswith("a-name-of-m")
    assert lines[-1].startswith("+4 columns in a wider terminal")
    assert all(len(line) <= 48 for line in lines)
    assert "columns in" not in frame(screen, 100)[-1]


def test_help_names_keys_and_what_the_columns_are(screen: Screen) -> None:
    screen.press("?")
    text = "\n".join(frame(screen, 100, 40))
    assert "100 is one core" in text
    assert "page up, page down" in text
    assert len(frame(screen, 30, 8)) <= 7
    screen.press("2")
    assert (screen.view, screen.helping) == (PROCESSES, False)
    screen.press("?")
    assert not screen.press("q")


def test_an_empty_view_says_so_and_idle_rows_are_left_out() -> None:
    shown = Screen("x", CONNECTIONS)
    assert frame(shown)[1].strip() == "no connections"
    opened, failed = (column.wanted for column in CONNECTIONS.columns[1:3])
    idle, busy = ("a", "b", "1", "tcp"), ("a", "c", "2", "tcp")
    shown.rows = CONNECTIONS.rows(
        {opened: {idle: 0.0, busy: 0.0, ("", "", "", ""): 5.0}, failed: {busy: 2.0}}
    )
    assert [key for key, _ in shown.rows] == [busy]
    for key in ("/", "z", "enter"):
        shown.press(key)
    assert frame(shown)[1].strip() == "no connections match /z"


def test_pages_and_the_end_are_reached_by_keys(screen: Screen) -> None:
    screen.rows = [row(f"g{n:03}", 1000 - n) for n in range(100)]
    assert frame(screen)[2].split()[0] == "g000"
    screen.press("pagedown")
    assert frame(screen)[2].split()[0] == "g020"
    screen.press("end")
    assert frame(screen)[-2].split()[0] == "g099"
    screen.press("pageup")
    assert frame(screen)[-2].split()[0] == "g079"
    reader, writer = os.openpty()
    with Keyboard(writer) as keyboard:
        os.write(reader, b"\x1b[6~\x1b[5~\x1b[4~\x1bOHx")
        assert [keyboard.key(5) for _ in range(5)] == ["pagedown", "pageup", "end", "home", "x"]
    os.close(reader)
    os.close(writer)


@pytest.mark.root
def test_a_container_of_this_host_is_shown_by_its_name(tmp_path: Path) -> None:
    """The real probe and a real container that starts programs all the time."""
    identity = "f00d" + "7" * 60
    script = "while :; do /bin/busybox true; /bin/busybox sleep 0.1; done"
    with runc_container(tmp_path, "shop-web", f"/{identity}", "sh", "-c", script):
        source = HostSource()
        try:
            if source.note:
                pytest.skip(source.note)
            screen = Screen(source.title)
            poller = Poller(source, screen, 0.1)

            def wait_for(view: View, *texts: str) -> list[str]:
                screen.view = view
                deadline = time.monotonic() + 30
                while True:
                    poller.poll()
                    found = [line for line in frame(screen, 120, 500) if all(text in line for text in texts)]
                    if found or time.monotonic() > deadline:
                        return found
                    time.sleep(0.1)

            (line,) = wait_for(PROCESSES, "busybox", "shop-web")
            assert line.split()[:2] == ["busybox", "shop-web"]
            (line,) = wait_for(CONTAINERS, "shop-web")
            assert line.split()[1] == "example.org/busy:1.36"
            assert line.split()[5] == "-", "no limit of memory"
            assert wait_for(EVENTS, "[shop-web] busybox sleep 0.1")
            assert "PRIORITY" not in frame(screen)[1]
        finally:
            source.close()


@pytest.mark.parametrize(
    ("value", "text", "bytes_text"),
    [
        (0, "0", "0"),
        (0.5, "0.5", "0.5"),
        (12, "12", "12"),
        (999.4, "999", "999"),
        (1234, "1.2k", "1.2K"),
        (5.6e7, "56M", "53M"),
        (1 << 40, "1.1T", "1T"),
        (5e18, "5000000T", "4547474T"),
    ],
)
def test_numbers_are_short(value: float, text: str, bytes_text: str) -> None:
    assert (amount(value), size(value)) == (text, bytes_text)


def test_a_column_becomes_a_query() -> None:
    wanted = Wanted("m_total", rate=True, where=(("a", 'x"y'),))
    assert query_of(("g", "n"), wanted, "web-.*") == (
        'topk(1000, sum by (g, n) (rate(m_total{a="x\\"y",instance=~"web-.*"}[2m])))'
    )


class Api(BaseHTTPRequestHandler):
    """A server with one process group and one event."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query = urllib.parse.parse_qs(body)["query"][0]
        named = (
            {"groupname": "nginx"}
            if "groupname" in query
            else {"client": "web", "server": "db", "port": "5432"}
        )
        self.answer({"resultType": "vector", "result": [{"metric": named, "value": [0, "0.5"]}]})

    def do_GET(self) -> None:
        event = {
            "time": "2026-11-28T02:00:00.000000001Z",
            "priority": "Warning",
            "rule": "Shell",
            "message": "sh ran",
        }
        self.answer([event])

    def answer(self, data: object) -> None:
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def read_until(terminal: int, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + 20
    while text not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536).decode("utf-8", "replace")
            except OSError:
                break
    return seen


def test_in_a_terminal_keys_switch_views_and_the_screen_is_given_back(server: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(
            sys.executable, [sys.executable, "-m", "cli.main", "top", "--server", server, "--interval", "1"]
        )
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        first = read_until(terminal, "nginx")
        assert "\x1b[?1049h" in first
        assert "50.0" in first
        os.write(terminal, b"3")
        assert "5432" in read_until(terminal, "5432")
        os.write(terminal, b"4")
        assert "sh ran" in read_until(terminal, "sh ran")
        os.write(terminal, b"q")
        assert "\x1b[?1049l" in read_until(terminal, "\x1b[?1049l")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        os.close(terminal)
