"""`vedette check`: configuration files and running servers, with promtool's output and exit codes."""

from __future__ import annotations

import sys

import click

from cli.apiclient import ApiClient, ApiError
from cli.checkrules import rules


@click.group()
def check() -> None:
    """Check configuration files and servers."""


check.add_command(rules)


@check.command()
@click.argument("files", nargs=-1, required=True)
def config(files: tuple[str, ...]) -> None:
    """Check that configuration FILES are valid."""
    from cli.configuration import check_sections
    from ingest.config.document import load_config
    from ingest.config.errors import ConfigError

    failed = False
    for name in files:
        click.echo(f"Checking {name}")
        try:
            check_sections(load_config(name))
        except (ConfigError, OSError) as error:
            failed = True
            click.echo(f"  FAILED: {error}", err=True)
        else:
            click.echo(f" SUCCESS: {name} is valid prometheus config file syntax")
        click.echo()
    sys.exit(1 if failed else 0)


def _check_endpoint(url: str, path: str) -> None:
    try:
        status, text = ApiClient(url).get_text(path)
    except ApiError as error:
        click.echo(f"  FAILED: {error}", err=True)
        sys.exit(1)
    if status != 200:
        click.echo(f"  FAILED: {status} {text.strip()}", err=True)
        sys.exit(1)
    click.echo(f"  SUCCESS: {text.strip()}", err=True)


@check.command()
@click.option("--url", default="http://localhost:9090", show_default=True, help="Server.")
def healthy(url: str) -> None:
    """Check that a server is healthy."""
    _check_endpoint(url, "/-/healthy")


@check.command()
@click.option("--url", default="http://localhost:9090", show_default=True, help="Server.")
def ready(url: str) -> None:
    """Check that a server is ready."""
    _check_endpoint(url, "/-/ready")
