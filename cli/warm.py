"""`vedette warm`: fill the kernel cache, at installation or in an image build."""

from __future__ import annotations

import compileall
import importlib
import importlib.resources
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from cli.classcode import COMPILED
from cli.httplibrary import import_http_library
from cli.kernels import import_all_kernels
from promql.parser import prepare as prepare_parser
from security.activerules import ActiveRules
from tsdb.kernels import compile as kernels
from tsdb.kernels.compile import Kernel

SERVER_MODULES = ("cli.serve", "cli.earlystore", "cli.configuration", "cli.server", "agent.service")
"""What a server imports itself or late; the rest comes with it."""
PACKAGES = ("agent", "cli", "ingest", "promql", "security", "tsdb", "web")
_NUMBER_BYTES = 4
_COMPILED_S = 0.3
"""A kernel that takes longer was compiled, not loaded from the cache (3 to 7 ms), and so will others be."""


def _modules() -> list[list[Kernel[Any, Any]]]:
    """The kernels by module, the longest modules first."""
    found: dict[str, list[Kernel[Any, Any]]] = {}
    for item in kernels.registered():
        found.setdefault(item.function.__module__, []).append(item)
    return sorted(found.values(), key=len, reverse=True)


def _compile_offered(offers: int) -> None:
    """Compile the modules whose numbers are in a pipe until it is empty; what a child process does."""
    modules = _modules()
    while number := os.read(offers, _NUMBER_BYTES):
        for item in modules[int.from_bytes(number, "little")]:
            item.compile()


def _compile_modules() -> None:
    """Byte code of our packages: an editable installation has none until each module is imported, and never
    where Python is told to write none or may not. Starting without it takes half a second longer."""
    for package in PACKAGES:
        folder = Path(str(importlib.resources.files(package)))
        compileall.compile_dir(folder, quiet=2)


def _compile_classes() -> None:
    """The methods of the dataclasses of a server."""
    import_http_library()
    for name in SERVER_MODULES:
        importlib.import_module(name)
    import_all_kernels()
    COMPILED.save()


def _compile_in_processes(count: int) -> None:
    """The compiler holds one lock a process, so more cores need more processes; each writes to the cache.

    Each takes the next module when it is done with one. A module's kernels stay together: what they call is
    then translated once and not in each process.
    """
    offers, offering = os.pipe()
    try:
        os.write(offering, b"".join(n.to_bytes(_NUMBER_BYTES, "little") for n in range(len(_modules()))))
        os.close(offering)
        command = [sys.executable, "-m", "cli.main", "warm", "--offers", str(offers)]
        children = [subprocess.Popen(command, pass_fds=(offers,)) for _ in range(count)]
    finally:
        os.close(offers)
    for child in children:
        if child.wait() != 0:
            raise click.ClickException(f"a compiling process ended with status {child.returncode}")


@click.command()
@click.option(
    "--group", type=click.Choice(["write", "read", "watch", "import"]), help="Only the kernels of one path."
)
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="At most so many.")
@click.option("--offers", type=int, hidden=True)
def warm(group: str | None, processes: int, offers: int | None) -> None:
    """Compile every kernel into the cache, or load it from there; also byte code, parse table, rules,
    classes."""
    if offers is None:
        _compile_modules()
        prepare_parser()
        ActiveRules().reload(())
        _compile_classes()
    import_all_kernels()
    if offers is not None:
        _compile_offered(offers)
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
