"""Where the command line takes stored security events from: a server, a store beside its server, a file."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.flagtypes import DURATION, parse_duration_ms

if TYPE_CHECKING:
    from security.tuning.storedevents import StoredEvent

EVENTS_LIMIT = 200_000
"""Newest events that are looked at."""
COPY_ATTEMPTS = 5
_API = "/api/v1/security/events"
_PAGE_EVENTS = 10_000
_SANDBOX_PREFIX = "vedette-events-"


def stored_options(function: Callable[..., None]) -> Callable[..., None]:
    """The flags that say where raised events are: `server`, `data`, `events` and `since`."""
    path = click.Path(path_type=Path)
    for option in (
        click.option(
            *("--since", "since"),
            type=DURATION,
            default="24h",
            show_default=True,
            help="How far back with --server and --data.",
        ),
        click.option(
            *("--events", "events"),
            multiple=True,
            type=path,
            metavar="FILE",
            help="Raised events in JSON lines, in Falco's form; repeatable.",
        ),
        click.option("--data", type=path, metavar="DIR", help="Raised events in the event log of a store."),
        click.option("--server", metavar="URL", help="Raised events of a server."),
    ):
        function = option(function)
    return function


def read_stored(
    server: str | None, data: Path | None, files: tuple[Path, ...], since: str
) -> list[StoredEvent]:
    """Events of a duration back from now (all of a file), newest first for a server or a store.

    Raises ClickException with what is wrong.
    """
    from security.tuning.storedevents import StoredEventError, read_lines
    from tsdb.errors import StorageError

    start_ns = max(0, time.time_ns() - parse_duration_ms(since) * 1_000_000)
    found: list[StoredEvent] = []
    try:
        if server is not None:
            found += _of_server(server, start_ns)
        if data is not None:
            found += _of_store(data, start_ns)
        for path in files:
            with path.open("rb") as lines:
                found += read_lines(lines)
    except (OSError, StorageError, StoredEventError) as error:
        raise click.ClickException(str(error)) from None
    if len(found) > EVENTS_LIMIT:
        click.echo(f"{len(found)} events, only the first {EVENTS_LIMIT} are looked at", err=True)
    return found[:EVENTS_LIMIT]


def _of_server(server: str, start_ns: int) -> Iterator[StoredEvent]:
    """Events of a server, page by page; a page begins with the last moment of the one before."""
    from cli.apiclient import ApiClient, ApiError
    from security.tuning.storedevents import from_json

    end: list[tuple[str, str]] = []
    before: set[str] = set()
    count = 0
    try:
        client = ApiClient(server)
        while count < EVENTS_LIMIT:
            answer = client.get(_API, [("start", _seconds(start_ns)), ("limit", str(_PAGE_EVENTS)), *end])
            page = {repr(item): item for item in (answer["events"] if isinstance(answer, dict) else answer)}
            events = [from_json(item) for text, item in page.items() if text not in before]
            if not events:
                return
            yield from events
            count += len(events)
            before = set(page)
            end = [("end", _seconds(min(event.time_ns for event in events)))]
    except ApiError as error:
        raise click.ClickException(str(error)) from None


def _seconds(time_ns: int) -> str:
    """A time as the API takes it, without losing nanoseconds."""
    return f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"


def _of_store(store: Path, start_ns: int) -> list[StoredEvent]:
    """Events of a store. A copy of its log is opened, so a server may run on it."""
    from security.eventlog.log import DIRECTORY

    source = store / DIRECTORY
    if not source.is_dir():
        raise click.ClickException(f"{source}: no such directory, the store has no event log")
    for attempt in range(1, COPY_ATTEMPTS + 1):
        with tempfile.TemporaryDirectory(prefix=_SANDBOX_PREFIX) as sandbox:
            try:
                _copy_log(source, Path(sandbox) / DIRECTORY)
                return _of_copy(Path(sandbox), start_ns)
            except FileNotFoundError:
                # The server wrote or merged a part in between.
                if attempt == COPY_ATTEMPTS:
                    raise
    return []


def _copy_log(source: Path, target: Path) -> None:
    """Segments by copy, parts by link; the segments first: what leaves them in between is in a part."""
    from security.eventlog.log import WAL_DIRECTORY

    (target / WAL_DIRECTORY).mkdir(parents=True)
    for item in sorted((source / WAL_DIRECTORY).iterdir()):
        shutil.copyfile(item, target / WAL_DIRECTORY / item.name)
    for item in source.iterdir():
        if item.is_file() and not item.name.endswith(".tmp"):
            os.symlink(item.resolve(), target / item.name)


def _of_copy(root: Path, start_ns: int) -> list[StoredEvent]:
    from security.eventlog.log import EventLog, EventLogOptions
    from security.eventlog.query import LIMIT_MAX, TIME_MAX_NS, EventQuery
    from security.tuning.storedevents import from_record

    found: list[StoredEvent] = []
    log = EventLog(root, EventLogOptions(background=False, wal_sync="never"))
    try:
        end_ns, seen = TIME_MAX_NS, set[int]()
        while len(seen) < EVENTS_LIMIT:
            page = log.select(EventQuery((), start_ns, end_ns, limit=LIMIT_MAX))
            fresh = [(sequence, record) for sequence, record in page if sequence not in seen]
            if not fresh:
                break
            seen.update(sequence for sequence, _ in fresh)
            found += (from_record(record) for _, record in fresh)
            end_ns = fresh[-1][1].output.time_ns
    finally:
        log.close()
    return found
