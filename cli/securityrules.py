"""Rules files of the `vedette security` commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from security.rules.loader import RuleLoader


def load(files: tuple[str, ...]) -> RuleLoader:
    """A loader that has read files and directories in order, whatever the results."""
    from security.rules.loader import RuleLoader, rule_files

    loader = RuleLoader()
    try:
        for path in rule_files(files):
            loader.load_file(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    return loader


def load_or_exit(files: tuple[str, ...]) -> RuleLoader:
    """The same; ends the program with status 1 when something does not load."""
    loader = load(files)
    problems = [result.verbose(loader.contents) for result in loader.results if not result.successful]
    problems += loader.missing_plugins()
    if problems:
        click.echo("\n".join(problems), err=True)
        sys.exit(1)
    return loader
