"""`vedette security events`: the events of a server, newest last, once or as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from cli.apiclient import ApiClient, ApiError
from security.output import safe_line

_PATH = "/api/v1/security/events"
_SERVER_DEFAULT = "http://localhost:9090"


@click.command()
@click.option("--server", default=_SERVER_DEFAULT, show_default=True, help="URL of the server.")
@click.option("--match", "matches", multiple=True, help='Selector, as {rule="…"}; repeat for more.')
@click.option("--start", help="Oldest time, RFC 3339 or Unix seconds.")
@click.option("--end", help="Newest time.")
@click.option("--text", help="Words that an event must hold, whatever the case.")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Most events.")
@click.option("--follow", is_flag=True, help="Go on with events as they come.")
@click.option(
    "-o", "--format", "output", type=click.Choice(("text", "json")), default="text", help="Output format."
)
def events(
    server: str,
    matches: tuple[str, ...],
    start: str | None,
    end: str | None,
    text: str | None,
    limit: int,
    follow: bool,
    output: str,
) -> None:
    """Show security events that a server holds: Falco's text lines, or a JSON object a line."""
    given = {"start": start, "end": end, "text": text, "limit": str(limit)}
    parameters = [("match[]", match) for match in matches]
    parameters += [(name, value) for name, value in given.items() if value]
    try:
        client = ApiClient(server)
        if follow:
            _show(_followed(client.stream(_PATH, [*parameters, ("follow", "true")])), output)
        else:
            _show(reversed(client.call(_PATH, parameters)), output)
    except ApiError as error:
        raise click.ClickException(f"events: {error}") from None
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _show(found: Iterable[dict[str, Any]], output: str) -> None:
    for event in found:
        click.echo(json.dumps(event) if output == "json" else _line(event))
        sys.stdout.flush()


def _line(event: dict[str, Any]) -> str:
    """One event as a line; control characters, which come from watched programs, are escaped."""
    message = safe_line(event["message"])
    return f"{event['time']} {event['hostname']} {event['priority']} {event['rule']}: {message}"


def _followed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Events of a stream of server-sent events; what the server dropped is told on stderr."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == "lost":
            click.echo(f"{json.loads(value)['dropped']} events dropped: they came too fast", err=True)
        elif name == "data":
            yield json.loads(value)
        elif not line:
            kind = ""
