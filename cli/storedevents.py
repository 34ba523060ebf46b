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
_API = "/api/v1/security/events"
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
    from cli.apiclient import ApiClient, ApiError
    from security.tuning.storedevents import from_json

    end_ns: int | None = None
    seen: set[str] = set()
    try:
        client = ApiClient(server)
        while len(seen) < EVENTS_LIMIT:
            parameters = [("start", f"{start_ns / 1e9:.9f}"), ("limit", "10000")]
            if end_ns is not None:
                parameters.append(("end", f"{end_ns / 1e9:.9f}"))
            answer = client.get(_API, parameters)
            page = answer.get("events", []) if isinstance(answer, dict) else answer
            fresh = [item for item in page if repr(item) not in seen]
            if not fresh:
                return
            seen.update(repr(item) for item in fresh)
            events = [from_json(item) for item in fresh]
            yield from events
            end_ns = min(event.time_ns for event in events)
    except ApiError as error:
        raise click.ClickException(str(error)) from None


def _of_store(store: Path, start_ns: int) -> Iterator[StoredEvent]:
    """Events of a store. A copy of its log is opened, so a server may run on it."""
    from security.eventlog.log import DIRECTORY, WAL_DIRECTORY, EventLog, EventLogOptions
    from security.eventlog.query import LIMIT_MAX, TIME_MAX_NS, EventQuery
    from security.tuning.storedevents import from_record

    source = store / DIRECTORY
    if not source.is_dir():
        raise click.ClickException(f"{source}: no such directory, the store has no event log")
    with tempfile.TemporaryDirectory(prefix=_SANDBOX_PREFIX) as sandbox:
        target = Path(sandbox) / DIRECTORY
        target.mkdir()
        # The log before the parts: what leaves it in between is in a part.
        shutil.copytree(source / WAL_DIRECTORY, target / WAL_DIRECTORY)
        for item in source.iterdir():
            if item.is_file() and not item.name.endswith(".tmp"):
                os.symlink(item.resolve(), target / item.name)
        log = EventLog(Path(sandbox), EventLogOptions(background=False, wal_sync="never"))
        try:
            end_ns, seen = TIME_MAX_NS, set[int]()
            while len(seen) < EVENTS_LIMIT:
                page = log.select(EventQuery((), start_ns, end_ns, limit=LIMIT_MAX))
                fresh = [entry for entry in page if entry[0] not in seen]
                if not fresh:
                    return
                seen.update(sequence for sequence, _ in fresh)
                yield from (from_record(record) for _, record in fresh)
                end_ns = fresh[-1][1].output.time_ns
        finally:
            log.close()
