"""The `vedette` command."""

from __future__ import annotations

import os
from typing import Any

import click

from cli.classcode import COMPILED
from cli.lazygroup import LazyCommand, LazyGroup

_COMMANDS = {
    "serve": LazyCommand("cli.serve", "serve", "Run the server: store, queries, scraping, remote write."),
    "agent": LazyCommand("cli.agent", "agent", "Watch this host and send what is found to a server."),
    "top": LazyCommand("cli.top", "top", "Show processes, containers, connections and events live."),
    "warm": LazyCommand("cli.warm", "warm", "Compile every kernel into the cache."),
    "query": LazyCommand("cli.query", "query", "Query a server, as promtool does."),
    "check": LazyCommand("cli.check", "check", "Check configuration files and servers, as promtool does."),
    "tsdb": LazyCommand("cli.tsdb", "tsdb", "Inspect a store, bring data in, take data out."),
    "promql": LazyCommand("cli.promql", "promql", "Format, parse and explain expressions."),
    "test": LazyCommand("cli.test", "test", "Run promqltest files."),
    "security": LazyCommand(
        "cli.security", "security", "Events of a server; check, describe, replay and tune Falco rules."
    ),
}


@click.group(
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="vedette", prog_name="vedette")
def cli(**_: Any) -> None:
    """Vedette: a Prometheus-compatible metrics database with runtime security built in."""


def main() -> None:
    """Entry point of the console script."""
    # numpy's linear algebra, which nobody here uses, starts a thread a processor when it is imported, and
    # each of them waits for work in a loop for a while: 50 ms of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    COMPILED.install()
    cli(prog_name="vedette")


if __name__ == "__main__":
    main()
