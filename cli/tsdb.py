"""`vedette tsdb`: the store from the command line. Sub-commands are imported at their first use."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {
    "import": ("cli.tsdbimport", "import_group", "Bring in data of other programs."),
    "dump": ("cli.tsdbdump", "dump", "Print series and samples of a store."),
    "dump-openmetrics": ("cli.tsdbdump", "dump_openmetrics", "Print samples as OpenMetrics text."),
    "list": ("cli.tsdblist", "list_blocks", "List the blocks of a store."),
    "analyze": ("cli.tsdbanalyze", "analyze", "Show churn and cardinality of a block."),
    "create-blocks-from": ("cli.tsdbcreate", "create_blocks_from", "Make blocks of samples in a file."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry[0]), entry[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])


@click.group(cls=_LazyGroup)
def tsdb() -> None:
    """Inspect a store, bring data in, take data out."""
