"""`vedette security`: Falco rule files on the command line."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from security.rules.loader import RuleLoader

REPLAY_SOURCES = ("k8s_audit", "aws_cloudtrail")


def _dump(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()


def _load(files: tuple[str, ...]) -> RuleLoader:
    from security.rules.loader import RuleLoader, rule_files

    loader = RuleLoader()
    try:
        for path in rule_files(files):
            loader.load_file(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    return loader


def _load_or_exit(files: tuple[str, ...]) -> RuleLoader:
    loader = _load(files)
    problems = [result.verbose(loader.contents) for result in loader.results if not result.successful]
    problems += loader.missing_plugins()
    if problems:
        click.echo("\n".join(problems), err=True)
        sys.exit(1)
    return loader


@click.group()
def security() -> None:
    """Check, describe and replay Falco rules; list fields."""


@security.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Results as JSON, in Falco's form.")
@click.option("-v", "--verbose", is_flag=True, help="Show warnings with their places.")
def check(files: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Check rules FILES in order, as `falco -V`; a directory stands for its .yaml files."""
    loader = _load(files)
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

    loader = _load_or_exit(files)
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


@security.command()
@click.option(
    "--rules", "rules_files", multiple=True, required=True, help="Rules file or directory; repeatable."
)
@click.option("--source", type=click.Choice(REPLAY_SOURCES), default=REPLAY_SOURCES[0], show_default=True)
@click.option("--rule-matching", type=click.Choice(("first", "all")), default="first", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines, in Falco's form.")
@click.option("--summary", is_flag=True, help="Only how often each rule would have fired.")
@click.argument("files", nargs=-1, required=True)
def replay(
    rules_files: tuple[str, ...],
    source: str,
    rule_matching: str,
    as_json: bool,
    summary: bool,
    files: tuple[str, ...],
) -> None:
    """Run rules over stored events: FILES of Kubernetes audit events or CloudTrail records."""
    from security.engine import RuleEngine
    from security.output import OutputOptions
    from security.sources.cloudtrail import CloudTrail
    from security.sources.json_events import InvalidEventError, JsonBatches
    from security.sources.kubernetes_audit import KubernetesAudit

    engine = RuleEngine(_load_or_exit(rules_files).rules, rule_matching)
    batches = JsonBatches(KubernetesAudit() if source == REPLAY_SOURCES[0] else CloudTrail())
    options = OutputOptions()
    refused: Counter[str] = Counter()
    for path in files:
        try:
            events = batches.read(Path(path).read_bytes(), time.time_ns())
        except (OSError, InvalidEventError) as error:
            refused[path] += 1
            click.echo(f"{path}: {error}", err=True)
            continue
        for output in engine.process(batches.batch(events)):
            if not summary:
                click.echo(output.json_line(options) if as_json else output.line(options))
    if not as_json:
        click.echo(f"Events: {batches.events_count}, detected: {sum(engine.matched.values())}")
        for name, count in engine.matched.most_common():
            click.echo(f"   {name}: {count}")
    sys.exit(1 if refused else 0)
