"""`vedette promql`: format expressions, print their tree, explain how a server evaluates them."""

from __future__ import annotations

import json
import sys
import time

import click

from cli.apiclient import ApiClient, ApiError

INDENTED_LEVELS_MAX = 100
"""Deeper trees are printed on one line."""


@click.group()
def promql() -> None:
    """Format, parse and explain expressions."""


def _parsed(text: str) -> object:
    from promql.errors import ParseError
    from promql.hints import explain as explain_error
    from promql.parser import ParserOptions, parse

    options = ParserOptions(
        experimental_functions=True, extended_range_selectors=True, binop_fill_modifiers=True
    )
    try:
        return parse(text, options)
    except ParseError as error:
        click.echo(explain_error(error), err=True)
        sys.exit(1)


@promql.command("format")
@click.argument("expr")
def format_(expr: str) -> None:
    """Print EXPR in canonical form, over several lines where it is long."""
    from promql.ast import Expr
    from promql.printer import FormatError, pretty

    tree = _parsed(expr)
    assert isinstance(tree, Expr)
    try:
        click.echo(pretty(tree))
    except FormatError as error:
        raise click.ClickException(str(error)) from None


@promql.command()
@click.argument("expr")
def parse(expr: str) -> None:
    """Print the tree of EXPR as JSON, in the form of /api/v1/parse_query."""
    from promql.ast import Expr
    from promql.treejson import to_json
    from promql.visit import depth
    from web.envelope import encode

    tree = _parsed(expr)
    assert isinstance(tree, Expr)
    data = to_json(tree)
    # Nobody reads hundreds of levels by their indentation, and `json` recurses.
    deep = depth(tree) > INDENTED_LEVELS_MAX
    click.echo(encode(data).decode() if deep else json.dumps(data, indent=2))


@promql.command()
@click.argument("expr")
@click.option("--url", default="http://localhost:9090", show_default=True, help="Server that evaluates.")
@click.option("--start", type=float, help="Start of a range query, Unix seconds.")
@click.option("--end", type=float, help="End of a range query or time of an instant one; now by default.")
@click.option("--step", default="15s", show_default=True, help="Step of a range query.")
def explain(expr: str, url: str, start: float | None, end: float | None, step: str) -> None:
    """Evaluate EXPR and print its plan: series, samples and time of each operator."""
    end = time.time() if end is None else end
    parameters = [("query", expr), ("explain", "true")]
    if start is None:
        path, parameters = "/api/v1/query", [*parameters, ("time", f"{end:.3f}")]
    else:
        path = "/api/v1/query_range"
        parameters += [("start", f"{start:.3f}"), ("end", f"{end:.3f}"), ("step", step)]
    try:
        answer = ApiClient(url).call(path, parameters)
    except ApiError as error:
        raise click.ClickException(str(error)) from None
    if "explain" not in answer:
        raise click.ClickException(f"{url} does not explain queries; it is not Vedette")
    click.echo(answer["explain"]["text"])
