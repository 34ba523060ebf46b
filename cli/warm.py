"""`vedette warm`: fill the kernel cache, at installation or in an image build."""

from __future__ import annotations

import sys

import click

from cli.kernels import import_all_kernels
from tsdb.kernels import compile as kernels


@click.command()
@click.option("--group", type=click.Choice(["write", "read", "watch"]), help="Only the kernels of one path.")
@click.option("--quiet", is_flag=True, help="Print only the result.")
def warm(group: str | None, quiet: bool) -> None:
    """Compile every kernel into the cache, or load it from there."""
    import_all_kernels()
    interactive = sys.stderr.isatty()

    def progress(done: int, total: int, name: str) -> None:
        if not quiet and interactive:
            click.echo(f"\r\x1b[Kcompiling kernels {done + 1}/{total} {name}", nl=False, err=True)

    seconds = kernels.warm(group, progress)
    if interactive and not quiet:
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"{len(kernels.registered(group))} kernels ready in {seconds:.1f} s")
