"""`vedette top`: processes, containers, connections and events of a host, live in the terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from cli.live.screen import Screen
    from cli.live.views import Source

INTERVAL_SECONDS_MIN = 0.5


@click.command()
@click.option("--server", metavar="URL", help="Show the hosts of a server instead of this one.")
@click.option("--instance", metavar="REGEX", default="", help="With --server: only hosts with this label.")
@click.option("--header", multiple=True, metavar="NAME=VALUE", help="With --server: extra request header.")
@click.option("--interval", type=float, default=2.0, show_default=True, help="Seconds between two readings.")
@click.option(
    "--view",
    type=click.Choice(["processes", "containers", "connections", "events"]),
    default="processes",
    help="View to begin with.",
)
@click.option("--once", is_flag=True, help="Print one frame and end.")
def top(
    server: str | None, instance: str, header: tuple[str, ...], interval: float, view: str, once: bool
) -> None:
    """Show what a host does, live: processes, containers, connections, events.

    Without --server this host is watched by this process, which needs root for most of it.
    """
    if interval < INTERVAL_SECONDS_MIN:
        raise click.BadParameter(f"below {INTERVAL_SECONDS_MIN} s", param_hint="--interval")
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.ClickException("not a terminal; use --once for one frame")
    from rich.console import Console

    from cli.live.screen import Screen
    from cli.live.views import VIEWS

    source = _source(server, instance, header)
    try:
        screen = Screen(source.title, next(item for item in VIEWS if item.name == view))
        if once:
            time.sleep(interval)
            Poller(source, screen, interval).poll()
            console = Console(soft_wrap=False)
            console.print(screen.frame(console.width, console.height, time.time()))
        else:
            _run(Console(), screen, Poller(source, screen, interval))
    finally:
        source.close()


def _source(server: str | None, instance: str, header: tuple[str, ...]) -> Source:
    if server is None:
        from cli.live.host import HostSource

        if os.geteuid() != 0:
            raise click.ClickException("watching this host needs root; use --server URL to ask a server")
        click.echo("loading the probe ...", err=True)
        return HostSource()
    from cli.live.server import ServerSource
    from cli.query import client_of

    return ServerSource(client_of(server, header), server, instance)


class Poller:
    """Reads what the screen shows, at an interval, in a thread of its own."""

    def __init__(self, source: Source, screen: Screen, interval_seconds: float) -> None:
        self._source = source
        self._screen = screen
        self._interval = interval_seconds
        self.lock = threading.Lock()
        """Held while the screen changes."""
        self.woken = threading.Event()
        """Set to read at once."""
        self.stopping = threading.Event()

    def run(self) -> None:
        """Read until `stopping` is set."""
        while not self.stopping.is_set():
            self.woken.clear()
            if not self._screen.paused:
                self.poll()
            self.woken.wait(self._interval)

    def poll(self) -> None:
        """Read once."""
        from cli.live.views import EVENTS, SourceError

        view = self._screen.view
        try:
            if view is EVENTS:
                happenings, rows = self._source.happenings(), []
            else:
                reading = self._source.read(view.labels, [column.wanted for column in view.columns])
                happenings, rows = [], view.rows(reading)
            note = self._source.note
        except SourceError as error:
            with self.lock:
                self._screen.note = str(error)
            return
        with self.lock:
            # The view may have been changed meanwhile; its own reading follows at once.
            if view is self._screen.view:
                self._screen.rows, self._screen.happenings, self._screen.note = rows, happenings, note


def _run(console: Console, screen: Screen, poller: Poller) -> None:
    from rich.live import Live

    from cli.live.keyboard import Keyboard

    thread = threading.Thread(target=poller.run, name="top-poller", daemon=True)
    with (
        Keyboard(sys.stdin.fileno()) as keyboard,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        thread.start()
        going = True
        while going:
            with poller.lock:
                frame = screen.frame(console.width, console.height, time.time())
            live.update(frame, refresh=True)
            try:
                key = keyboard.key(0.5)
            except KeyboardInterrupt:
                break
            if key is not None:
                with poller.lock:
                    before = screen.view
                    going = screen.press(key)
                if screen.view is not before:
                    poller.woken.set()
    poller.stopping.set()
    poller.woken.set()
    thread.join(5)
