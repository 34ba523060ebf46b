"""`vedette query`: instant and range queries, series and labels, with promtool's arguments and output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from cli.apiclient import ApiClient, ApiError
from tsdb.labels import Labels

F = TypeVar("F", bound=Callable[..., Any])
_RANGE_POINTS = 250
_DEFAULT_RANGE_S = 300.0


@click.group()
def query() -> None:
    """Query a server."""


def _shared(function: F) -> F:
    function = click.option("--header", multiple=True, metavar="NAME=VALUE", help="Extra request header.")(
        function
    )
    choice = click.Choice(["promql", "json"])
    return click.option("-o", "--format", "output", type=choice, default="promql", help="Output format.")(
        function
    )


def client_of(server: str, header: tuple[str, ...]) -> ApiClient:
    """A client with the headers of the command line. Raises click errors."""
    pairs = [text.partition("=") for text in header]
    for name, separator, _ in pairs:
        if not (name and separator):
            raise click.BadParameter("want NAME=VALUE", param_hint="--header")
    try:
        return ApiClient(server, {name: value for name, _, value in pairs})
    except ApiError as error:
        raise click.ClickException(str(error)) from None


def _call(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ApiError as error:
        raise click.ClickException(f"query error: {error}") from None


def _metric(labels: Mapping[str, str]) -> str:
    return str(Labels.from_dict(labels))


def _sample_text(point: list[Any]) -> str:
    stamp, value = point
    text = f"{stamp:.3f}".rstrip("0").rstrip(".")
    return f"{value if isinstance(value, str) else json.dumps(value)} @[{text}]"


def format_result(data: Mapping[str, Any]) -> str:
    """The text promtool prints for the `data` of a query."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return f"scalar: {_sample_text(result)}"
    if kind == "string":
        return str(result[1])
    lines = []
    for row in result:
        metric = _metric(row["metric"])
        if kind == "vector":
            lines.append(f"{metric} => {_sample_text(row.get('value') or row['histogram'])}")
        else:
            points = sorted([*row.get("values", []), *row.get("histograms", [])], key=lambda point: point[0])
            lines.append("\n".join([f"{metric} =>", *map(_sample_text, points)]))
    return "\n".join(lines)


def _show(data: Any, output: str) -> None:
    text = json.dumps(data["result"]) if output == "json" else format_result(data)
    if text:
        click.echo(text)


@query.command()
@click.argument("server")
@click.argument("expr")
@click.option("--time", "at", help="Evaluation time, RFC 3339 or Unix seconds; now by default.")
@_shared
def instant(server: str, expr: str, at: str | None, output: str, header: tuple[str, ...]) -> None:
    """Evaluate EXPR at one time."""
    parameters = [("query", expr), *([("time", at)] if at else [])]
    _show(_call(lambda: client_of(server, header).call("/api/v1/query", parameters)), output)


@query.command("range")
@click.argument("server")
@click.argument("expr")
@click.option("--start", type=float, help="Start, Unix seconds; five minutes before the end by default.")
@click.option("--end", type=float, help="End, Unix seconds; now by default.")
@click.option("--step", help="Step as a duration or seconds; chosen from the range by default.")
@_shared
def range_(
    server: str,
    expr: str,
    start: float | None,
    end: float | None,
    step: str | None,
    output: str,
    header: tuple[str, ...],
) -> None:
    """Evaluate EXPR over a range of time."""
    end = time.time() if end is None else end
    start = end - _DEFAULT_RANGE_S if start is None else start
    if end < start:
        raise click.ClickException("end time is not before start time")
    step = step or str(max(1, int((end - start) // _RANGE_POINTS)))
    parameters = [("query", expr), ("start", f"{start:.3f}"), ("end", f"{end:.3f}"), ("step", step)]
    _show(_call(lambda: client_of(server, header).call("/api/v1/query_range", parameters)), output)


def _times(start: str | None, end: str | None) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (("start", start), ("end", end)) if value]


@query.command()
@click.argument("server")
@click.option("--match", multiple=True, required=True, help="Series selector; repeat for more.")
@click.option("--start", help="Start time.")
@click.option("--end", help="End time.")
def series(server: str, match: tuple[str, ...], start: str | None, end: str | None) -> None:
    """List series."""
    parameters = [*(("match[]", text) for text in match), *_times(start, end)]
    for row in _call(lambda: client_of(server, ()).call("/api/v1/series", parameters)):
        click.echo(_metric(row))


@query.command()
@click.argument("server")
@click.argument("name")
@click.option("--match", multiple=True, help="Series selector; repeat for more.")
@click.option("--start", help="Start time.")
@click.option("--end", help="End time.")
def labels(server: str, name: str, match: tuple[str, ...], start: str | None, end: str | None) -> None:
    """List the values of label NAME."""
    parameters = [*(("match[]", text) for text in match), *_times(start, end)]
    for value in _call(lambda: client_of(server, ()).get(f"/api/v1/label/{name}/values", parameters)):
        click.echo(value)
