"""`vedette check rules`: rule files, with promtool's output and exit codes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from promql.rules.rulefile import GroupConfig, RuleFileError, read_rule_file

LINT_EXIT_CODE = 3
_LINTS = ("duplicate-rules", "all", "none")

_Key = tuple[str, tuple[tuple[str, str], ...]]


@click.command()
@click.argument("files", nargs=-1)
@click.option("--lint", type=click.Choice(_LINTS), default="duplicate-rules", help="What to look for.")
@click.option("--lint-fatal", is_flag=True, help="Exit with 3 where the lint finds something.")
@click.option("--ignore-unknown-fields", is_flag=True, help="Accept fields of later versions.")
def rules(files: tuple[str, ...], lint: str, lint_fatal: bool, ignore_unknown_fields: bool) -> None:
    """Check that rule FILES are valid; standard input without any."""
    refused = linted = False
    for file, text in _texts(files):
        click.echo(f"Checking {file}")
        try:
            groups = read_rule_file(text, file, ignore_unknown_fields=ignore_unknown_fields)
        except RuleFileError as error:
            refused = True
            click.echo(f"  FAILED:\n{error}", err=True)
        else:
            again = [] if lint == "none" else duplicates(groups)
            if again:
                linted = True
                click.echo(f"  FAILED:\n{_lint_text(again)}", err=True)
            else:
                click.echo(f"  SUCCESS: {sum(len(group.rules) for group in groups)} rules found")
        click.echo()
    sys.exit(1 if refused else LINT_EXIT_CODE if linted and lint_fatal else 0)


def _texts(files: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    if not files:
        yield "standard input", sys.stdin.read()
    for file in files:
        try:
            yield file, Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"{file}: {error}") from None


def duplicates(groups: Iterable[GroupConfig]) -> list[_Key]:
    """Name and labels of rules that there are several of, each once, in order."""
    keys = sorted((rule.name, tuple(sorted(rule.labels.items()))) for group in groups for rule in group.rules)
    return [key for key, same in itertools.groupby(keys) if len(list(same)) > 1]


def _lint_text(found: list[_Key]) -> str:
    parts = [f"lint error {len(found)} duplicate rule(s) found.\n"]
    for name, labels in found:
        parts.append(f"Metric: {name}\nLabel(s):\n")
        parts.extend(f"\t{label}: {value}\n" for label, value in labels)
    return "".join(parts) + "Might cause inconsistency while recording expressions"
