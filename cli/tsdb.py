"""`vedette tsdb`: the store from the command line."""

from __future__ import annotations

import click

from cli.lazygroup import LazyCommand, LazyGroup

_COMMANDS = {
    "import": LazyCommand("cli.tsdbimport", "import_group", "Bring in data of other programs."),
    "dump": LazyCommand("cli.tsdbdump", "dump", "Print series and samples of a store."),
    "dump-openmetrics": LazyCommand("cli.tsdbdump", "dump_openmetrics", "Print samples as OpenMetrics text."),
    "list": LazyCommand("cli.tsdblist", "list_blocks", "List the blocks of a store."),
    "analyze": LazyCommand("cli.tsdbanalyze", "analyze", "Show churn and cardinality of a block."),
    "create-blocks-from": LazyCommand(
        "cli.tsdbcreate", "create_blocks_from", "Make blocks of samples in a file, or of recording rules."
    ),
}


@click.group(cls=LazyGroup, lazy_commands=_COMMANDS)
def tsdb() -> None:
    """Inspect a store, bring data in, take data out."""
