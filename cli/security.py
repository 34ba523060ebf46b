"""`vedette security`: Falco rule files on the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.securityevents import events
from cli.securityreplay import replay
from cli.securityrules import load, load_or_exit
from cli.securitysuggest import suggest


def _dump(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


@click.group()
def security() -> None:
    """Check, describe, replay and tune Falco rules; list fields."""


@security.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Results as JSON, in Falco's form.")
@click.option("-v", "--verbose", is_flag=True, help="Show warnings with their places.")
def check(files: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Check rules FILES in order, as `falco -V`; a directory stands for its .yaml files."""
    loader = load(files)
    if as_json:
        results = [result.as_json(loader.contents) for result in loader.results]
        click.echo(_dump({"falco_load_results": results}))
    else:
        for result in loader.results:
            long = verbose or not result.successful
            click.echo(result.verbose(loader.contents) if long else result.summary())
    missing = loader.missing_plugins()
    for message in missing:
        click.echo(f"Error: {message}", err=True)
    sys.exit(0 if loader.successful and not missing else 1)


@security.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--rule", "rule_name", help="Only the rule of this name.")
def describe(files: tuple[str, ...], rule_name: str | None) -> None:
    """Describe the rules, macros and lists of FILES as JSON, as `falco -L`."""
    from security.rules.describe import describe as describe_rules

    loader = load_or_exit(files)
    try:
        click.echo(_dump(describe_rules(loader, rule_name)))
    except KeyError:
        raise click.ClickException(f"no rule is called {rule_name!r}") from None


@security.command()
@click.option("--source", help="Only fields of this event source.")
@click.option("--json", "as_json", is_flag=True, help="The fields as a JSON array.")
@click.argument("prefix", required=False, default="")
def fields(source: str | None, as_json: bool, prefix: str) -> None:
    """List the fields that conditions and outputs may name, those beginning with PREFIX."""
    from security.fields.table import SOURCES, all_fields

    if source is not None and source not in SOURCES:
        raise click.ClickException(f"unknown source {source!r}, known are {', '.join(SOURCES)}")
    chosen = [
        info
        for info in all_fields()
        if info.name.startswith(prefix) and (source is None or source in info.sources)
    ]
    if as_json:
        rows = [
            {
                "name": info.name,
                "type": info.type,
                "list": info.is_list,
                "argument": "required"
                if info.argument_required
                else "allowed"
                if info.argument_allowed
                else "no",
                "sources": list(info.sources),
                "description": info.description,
            }
            for info in chosen
        ]
        click.echo(_dump(rows))
        return
    for info in chosen:
        argument = "[]" if info.argument_required else "[…]" if info.argument_allowed else ""
        kind = f"LIST({info.type})" if info.is_list else info.type
        click.echo(f"{info.name + argument:52} {kind:14} {info.description}")


security.add_command(events)
security.add_command(replay)
security.add_command(suggest)
