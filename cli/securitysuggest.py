"""`vedette security suggest`: exceptions for noisy rules."""

from __future__ import annotations

from pathlib import Path

import click

from cli.storedevents import read_stored, stored_options


@click.command()
@stored_options
@click.option("--rule", "rule_name", metavar="NAME", help="Only for this rule.")
@click.option("--rules", multiple=True, metavar="FILE", help="Rules the exceptions must load on; repeatable.")
def suggest(
    server: str | None,
    data: Path | None,
    events: tuple[Path, ...],
    since: str,
    rule_name: str | None,
    rules: tuple[str, ...],
) -> None:
    """Suggest exceptions from the events that rules raised.

    Prints a rules file: read it, keep what is right, and load it after the rules. Comments say how many of a
    rule's events each exception takes away.

    Exit status: 0, or 1 when events or rules cannot be read.
    """
    from security.rules.loader import rule_files
    from security.tuning.suggestions import suggest as suggest_exceptions

    if not (server or data or events):
        raise click.UsageError("give --server, --data or --events")
    stored = read_stored(server, data, events, since)
    try:
        found = suggest_exceptions(stored, list(rule_files(rules)) if rules else (), rule_name)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"# {len(stored)} stored events, {len(found)} rules with suggestions")
    for suggestion in found:
        share = 100 * suggestion.removed / suggestion.stored
        click.echo(f"\n# {suggestion.removed} of {suggestion.stored} events ({share:.0f} %)")
        for conditions, count in suggestion.groups:
            said = " and ".join(
                f"{item.field} {item.operator} {', '.join(map(str, item.values))}" for item in conditions
            )
            click.echo(f"#   {100 * count / suggestion.stored:.0f} %: {_comment(said)}")
        click.echo(suggestion.text, nl=False)


def _comment(text: str) -> str:
    """A text that stays on its line."""
    from security.output import safe_line

    return safe_line(text)
