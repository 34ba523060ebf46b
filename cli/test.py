"""`vedette test`: files of tests, run in this process."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import click

SUFFIX = ".test"


@click.group()
def test() -> None:
    """Run files of tests."""


def _files(paths: tuple[Path, ...]) -> list[Path]:
    """The given files, and those of the given directories."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise click.ClickException(f"{path} has no *{SUFFIX} files")
        found.extend(inside)
    return found


@test.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-q", "--quiet", is_flag=True, help="Only the counts, not each failure.")
def promql(files: tuple[Path, ...], quiet: bool) -> None:
    """Run query tests in Prometheus's test language.

    FILES are *.test files or directories of them. Every eval runs with the repetitions that Prometheus's own
    runner makes. Prints passed and all evals a file and their sum; exits with 1 if any failed.
    """
    from promql.engine import Engine
    from promql.testlang.commands import TestFileError
    from promql.testlang.runner import TEST_OPTIONS, TestRun

    passed_sum = total_sum = 0
    broken = False
    engine = Engine(replace(TEST_OPTIONS, threads=1))
    try:
        for path in _files(files):
            begin = time.monotonic()
            passed = total = 0
            try:
                for outcome in TestRun(engine).run(path.read_text(encoding="utf-8")):
                    total += 1
                    passed += outcome.passed
                    if not outcome.passed and not quiet:
                        click.echo(f"{path}:{outcome.command.line}: {outcome.command.text}")
                        click.echo(f"    {outcome.problem}")
            except (TestFileError, OSError, UnicodeError) as error:
                broken = True
                click.echo(f"{path}: {error}", err=True)
            passed_sum, total_sum = passed_sum + passed, total_sum + total
            click.echo(f"{path.name:32} {passed:5}/{total:<5} {time.monotonic() - begin:5.1f} s")
    finally:
        engine.close()
    click.echo(f"{'sum':32} {passed_sum:5}/{total_sum:<5}")
    sys.exit(1 if broken or passed_sum != total_sum else 0)
