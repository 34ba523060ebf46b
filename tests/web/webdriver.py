"""A headless Chromium driven over the WebDriver protocol: a handful of plain HTTP calls."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
START_TIMEOUT_S = 30.0
WAIT_TIMEOUT_S = 15.0

ENTER, ESCAPE, TAB, DOWN = "\ue007", "\ue00c", "\ue004", "\ue015"

T = TypeVar("T")


class WebDriverError(Exception):
    """An error answer of the driver."""


class Browser:
    """One browser window."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One command; its value."""
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise WebDriverError(error.read().decode(errors="replace")[:500]) from None

    def start(self, profile: Path) -> None:
        """Open a window."""
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
        arguments += ["--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"/session/{session['sessionId']}"

    def quit(self) -> None:
        """Close the window."""
        if self._session:
            self.call("DELETE", self._session)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("POST", f"{self._session}/url", {"url": url})

    def back(self) -> None:
        """One step back in the history."""
        self.call("POST", f"{self._session}/back")

    @property
    def url(self) -> str:
        """Where the window is."""
        return str(self.call("GET", f"{self._session}/url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> str:
        """The first element that matches."""
        found = self.call("POST", f"{self._session}/element", {"using": "css selector", "value": css})
        return str(found[ELEMENT])

    def click(self, css: str) -> None:
        """Click an element."""
        self.call("POST", f"{self._session}/element/{self.find(css)}/click")

    def type(self, css: str, text: str) -> None:
        """Send keys to an element."""
        self.call("POST", f"{self._session}/element/{self.find(css)}/value", {"text": text})

    def hover(self, css: str, x: int, y: int) -> None:
        """Move the mouse to an offset from the centre of an element."""
        origin = {ELEMENT: self.find(css)}
        move = {"type": "pointerMove", "duration": 50, "x": x, "y": y, "origin": origin}
        self._actions([move])

    def drag(self, css: str, from_x: int, to_x: int) -> None:
        """Press, move and release the mouse along an element."""
        origin = {ELEMENT: self.find(css)}
        self._actions(
            [
                {"type": "pointerMove", "duration": 50, "x": from_x, "y": 0, "origin": origin},
                {"type": "pointerDown", "button": 0},
                {"type": "pointerMove", "duration": 100, "x": to_x, "y": 0, "origin": origin},
                {"type": "pointerUp", "button": 0},
            ]
        )

    def _actions(self, steps: list[dict[str, Any]]) -> None:
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self.call("POST", f"{self._session}/actions", {"actions": [mouse]})

    def text(self, css: str) -> str:
        """Visible text of the first element that matches, empty without one."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    def count(self, css: str) -> int:
        """How many elements match."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", css))

    def console_errors(self) -> list[str]:
        """Errors of the page since the last look."""
        entries = self.call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """A picture of the window, for people."""
        path.write_bytes(base64.b64decode(self.call("GET", f"{self._session}/screenshot")))

    def wait(self, condition: Callable[[], T], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> T:
        """The first truthy value of a condition. Raises AssertionError after the timeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, (
                f"no {what} after {timeout_s} s; page says {self.text('main')!r}"
            )
            time.sleep(0.05)


@contextmanager
def chromium(port: int, folder: Path) -> Iterator[Browser]:
    """A browser whose driver listens on a port."""
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}", "--log-level=SEVERE"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    browser = Browser(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if browser.call("GET", "/status")["ready"]:
                    break
            except OSError:
                assert time.monotonic() < deadline, f"chromedriver did not start in {START_TIMEOUT_S} s"
                time.sleep(0.1)
        browser.start(folder)
        yield browser
    finally:
        try:
            browser.quit()
        finally:
            driver.terminate()
            driver.wait(10)
