"""The `vedette` command. Sub-commands are imported at their first use, so --help is instant."""

from __future__ import annotations

import importlib
from typing import Any

import click

_COMMANDS = {
    "serve": ("cli.serve", "serve", "Run the server: store, queries, scraping, remote write."),
    "warm": ("cli.warm", "warm", "Compile every kernel into the cache."),
    "query": ("cli.query", "query", "Query a server, as promtool does."),
    "check": ("cli.check", "check", "Check configuration files and servers, as promtool does."),
    "tsdb": ("cli.tsdb", "tsdb", "Inspect a store, bring data in, take data out."),
    "promql": ("cli.promql", "promql", "Format, parse and explain expressions."),
    "test": ("cli.test", "test", "Run promqltest files."),
    "security": ("cli.security", "security", "Check, describe and replay Falco rules; list fields."),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object of a name, or None."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute, _ = entry
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="vedette", prog_name="vedette")
def cli(**_: Any) -> None:
    """Vedette: a Prometheus-compatible metrics database with runtime security built in."""


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="vedette")


if __name__ == "__main__":
    main()
