"""Memory of a query class: the rise of resident memory in a server that has just been started.

In a server that has answered other queries a rise can be covered by memory it kept from them: that measures
which classes came before. Here each class that may matter meets a process which has answered two small
queries and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import queries, queryreport, servers

WARMING = ("one series, instant", "one series, range")
"""Asked first, so that what every query needs once is there: connections, parser, loaded code."""

_QUIET_S, _QUIET_TIMEOUT_S = 1.0, 60.0


def worth_measuring(found: Mapping[str, Mapping[str, queryreport.Measured]]) -> list[str]:
    """Classes by which some server rose by more than the bars look at, in the order they were asked in."""
    names: dict[str, None] = {}
    for classes in found.values():
        for name, measured in classes.items():
            if measured.rise_bytes >= queryreport.MEMORY_MIN_BYTES:
                names[name] = None
    return list(names)


def rise(server: servers.Server, path: str) -> tuple[int, float]:
    """Bytes by which the peak of resident memory lies above what was resident before this request, and its
    seconds. Raises RuntimeError where it is refused."""
    server.reset_peak()
    before = server.usage().rss_bytes
    seconds, _ = queries.ask(server, path)
    return max(0, server.usage().peak_rss_bytes - before), seconds


def in_fresh_servers(
    kinds: Iterable[servers.Kind],
    port: int,
    folder: Path,
    classes: Mapping[str, queries.QueryClass],
    names: Iterable[str],
    window_s: tuple[float, float],
) -> dict[str, dict[str, int]]:
    """Rises in bytes by server and class; `window_s` is the start and end of the data in seconds.

    A class that a server refuses is left out.
    """
    found: dict[str, dict[str, int]] = {}
    for kind in kinds:
        rises = found[kind.name] = {}
        for name in names:
            with servers.running(kind, port, folder / kind.name) as server:
                server.settle(_QUIET_S, _QUIET_TIMEOUT_S)
                for warming in WARMING:
                    queries.ask(
                        server, queries.request_path(classes[warming], *window_s, kind.query_arguments)
                    )
                path = queries.request_path(classes[name], *window_s, kind.query_arguments)
                with contextlib.suppress(RuntimeError):
                    rises[name], _ = rise(server, path)
    return found


def replaced(
    measured: Mapping[str, Mapping[str, queryreport.Measured]], rises: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, queryreport.Measured]]:
    """The measurements with the rises of fresh servers in place of those of the common run."""
    return {
        server: {
            name: replace(each, rise_bytes=rises.get(server, {}).get(name, each.rise_bytes))
            for name, each in classes.items()
        }
        for server, classes in measured.items()
    }
