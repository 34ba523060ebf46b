"""`vedette tsdb create-blocks-from`: blocks of samples that come from outside of a store."""

from __future__ import annotations

import click

from cli.lazygroup import LazyCommand, LazyGroup

_COMMANDS = {
    "openmetrics": LazyCommand(
        "cli.tsdbcreateopenmetrics", "openmetrics", "Make blocks of an OpenMetrics file."
    ),
    "rules": LazyCommand(
        "cli.tsdbcreaterules", "rules", "Make blocks of what recording rules would have recorded."
    ),
}


@click.group("create-blocks-from", cls=LazyGroup, lazy_commands=_COMMANDS)
def create_blocks_from() -> None:
    """Make blocks of samples in a file, or of recording rules."""
