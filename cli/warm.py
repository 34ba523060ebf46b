"""`vedette warm`: fill the kernel cache, at installation or in an image build."""

from __future__ import annotations

import compileall
import importlib.resources
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from cli.kernels import import_all_kernels
from promql.parser import prepare as prepare_parser
from security.activerules import ActiveRules
from tsdb.kernels import compile as kernels

PACKAGES = ("agent", "cli", "ingest", "promql", "security", "tsdb", "web")
_COMPILED_S = 0.3
"""A kernel that takes longer was compiled, not loaded from the cache (3 to 7 ms), and so will others be."""


def _compile_share(share: int, shares: int) -> None:
    """Every `shares`-th kernel from `share` on; what a child process does."""
    for item in kernels.registered()[share::shares]:
        item.compile()


def _compile_modules() -> None:
    """Byte code of our packages: an editable installation has none until each module is imported, and never
    where Python is told to write none or may not. Starting without it takes half a second longer."""
    for package in PACKAGES:
        folder = Path(str(importlib.resources.files(package)))
        compileall.compile_dir(folder, quiet=2)


def _compile_in_processes(count: int) -> None:
    """The compiler holds one lock a process, so more cores need more processes; each writes to the cache."""
    command = [sys.executable, "-m", "cli.main", "warm", "--shares", str(count), "--share"]
    children = [subprocess.Popen([*command, str(share)]) for share in range(count)]
    for child in children:
        if child.wait() != 0:
            raise click.ClickException(f"a compiling process ended with status {child.returncode}")


@click.command()
@click.option(
    "--group", type=click.Choice(["write", "read", "watch", "import"]), help="Only the kernels of one path."
)
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="At most so many.")
@click.option("--share", type=int, hidden=True)
@click.option("--shares", type=int, hidden=True)
def warm(group: str | None, processes: int, share: int | None, shares: int | None) -> None:
    """Compile every kernel into the cache, or load it from there; also byte code, parse table, rules."""
    if share is None:
        _compile_modules()
        prepare_parser()
        ActiveRules().reload(())
    import_all_kernels()
    if share is not None and shares is not None:
        _compile_share(share, shares)
        return
    started = time.monotonic()
    wanted = kernels.registered(group)
    for done, item in enumerate(wanted):
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[Kkernel {done + 1}/{len(wanted)} {item.name}", nl=False, err=True)
        before = time.monotonic()
        item.compile()
        took_s = time.monotonic() - before
        if took_s > _COMPILED_S and group is None and processes > 1 and len(wanted) - done > processes:
            click.echo(f"compiling kernels in {processes} processes; this takes a minute or two", err=True)
            _compile_in_processes(processes)
            processes = 1
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if group is None and not kernels.save_image():
        click.echo("no image of the kernels could be made: each start imports numba", err=True)
    click.echo(f"{len(kernels.registered(group))} kernels ready in {time.monotonic() - started:.1f} s")
