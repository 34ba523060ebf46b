"""`vedette tsdb create-blocks-from rules`: what recording rules would have recorded, asked of a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli.apiclient import ApiClient, ApiError
from cli.tsdbstore import locked_store
from promql.duration import DurationError, parse_duration
from promql.rules.group import RuleGroup, load_groups
from promql.rules.recording import RangeQuery, RecordingRule, RuleError, SeriesSamples
from promql.rules.rulefile import RuleFileError
from tsdb.errors import LockedError, StorageError
from tsdb.fs import FileSystem
from tsdb.labels import Labels
from tsdb.sampleblocks import GatheredSamples, write_sample_blocks
from tsdb.select import NAN_BITS
from web.parameters import parse_time

BLOCK_RANGE_MS = 2 * 3600 * 1000
DEFAULT_END_MS = 3 * 3600 * 1000
"""How long ago the backfill ends: a server has cut its blocks up to there."""

SAMPLES_IN_MEMORY = 16 << 20
"""Samples gathered before a block is written; more in one range of time give several blocks for it."""


@click.command()
@click.argument("files", metavar="RULE-FILES...", nargs=-1, required=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--url", default="http://localhost:9090", show_default=True, help="Server with the data.")
@click.option("--start", required=True, help="Begin here: RFC 3339 or Unix seconds.")
@click.option("--end", help="End here; three hours ago by default.")
@click.option("--output-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("data/"))
@click.option("--eval-interval", default="60s", show_default=True, help="Of groups that name none.")
@click.option("-r", "--human-readable", is_flag=True, help="Accepted as promtool does; changes nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Accepted as promtool does; changes nothing.")
def rules(
    files: tuple[Path, ...],
    url: str,
    start: str,
    end: str | None,
    output_dir: Path,
    eval_interval: str,
    human_readable: bool,
    quiet: bool,
) -> None:
    """Make blocks of what the recording rules in RULE-FILES would have recorded.

    Their expressions are evaluated by the server at --url, at the moments at which a server would have done
    so. Alerting rules are not evaluated, and no rule sees what another one records here.
    """
    del human_readable, quiet
    start_ms = _moment("--start", start)
    end_ms = time.time_ns() // 1_000_000 - DEFAULT_END_MS if end is None else _moment("--end", end)
    if end_ms <= start_ms:
        raise click.ClickException("start time is not before end time")
    try:
        groups = list(load_groups(files, _interval(eval_interval)))
        query = server_query(ApiClient(url))
    except (RuleFileError, ApiError, OSError) as error:
        raise click.ClickException(str(error)) from None
    fs = FileSystem()
    try:
        with locked_store(fs, output_dir):
            errors = Backfill(fs, output_dir, groups, query).run(start_ms, end_ms)
    except LockedError as error:
        raise click.ClickException(f"{error}; stop that server first") from None
    except (StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for text in errors:
        click.echo(f"rule importer error: {text}", err=True)
    if errors:
        raise click.ClickException("error importing rules")


def _moment(option: str, text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _interval(text: str) -> int:
    try:
        found = parse_duration(text)
    except DurationError as error:
        raise click.BadParameter(str(error), param_hint="--eval-interval") from None
    if found <= 0:
        raise click.BadParameter("must be above zero", param_hint="--eval-interval")
    return found


def server_query(client: ApiClient) -> RangeQuery:
    """Range queries over the HTTP API. They raise ApiError."""

    def query(expr: str, start_ms: int, end_ms: int, step_ms: int) -> list[SeriesSamples]:
        times = (("start", start_ms), ("end", end_ms), ("step", step_ms))
        parameters = [("query", expr), *((name, f"{ms / 1000:.3f}") for name, ms in times)]
        data = client.call("/api/v1/query_range", parameters)
        if data["resultType"] != "matrix":
            raise ApiError(f"rule result is wrong type {data['resultType']}")
        return [_samples(row) for row in data["result"] if row.get("values")]

    return query


def _samples(row: dict[str, Any]) -> SeriesSamples:
    """Floats of a row of a matrix; native histograms are left out, as promtool does."""
    t_ms = np.array([round(1000 * float(t)) for t, _ in row["values"]], dtype=np.int64)
    values = np.array([float(text) for _, text in row["values"]])
    values[np.isnan(values)] = np.array(NAN_BITS, dtype=np.uint64).view(np.float64)
    return SeriesSamples(Labels.from_dict(row["metric"]), t_ms, values)


class Backfill:
    """Evaluates rules block range by block range and writes what they give. One thread."""

    def __init__(self, fs: FileSystem, output: Path, groups: Sequence[RuleGroup], query: RangeQuery) -> None:
        self._fs, self._output, self._groups, self._query = fs, output, groups, query
        self._pending: list[SeriesSamples] = []
        self._failed: set[tuple[int, int]] = set()

    def run(self, start_ms: int, end_ms: int) -> list[str]:
        """Evaluations from `start_ms` to `end_ms` inclusive; what went wrong, a text a rule.

        Raises StorageError, OSError.
        """
        errors: list[str] = []
        first = start_ms // BLOCK_RANGE_MS * BLOCK_RANGE_MS
        for lo in range(first, end_ms + 1, BLOCK_RANGE_MS):
            last = min(lo + BLOCK_RANGE_MS - 1, end_ms)
            for number, group in enumerate(self._groups):
                if lo == first:
                    _log("processing group", name=f"{group.file};{group.name}")
                errors += self._evaluate(number, group, max(lo, start_ms), last, lo == first)
            self._write()
        return errors

    def _evaluate(self, number: int, group: RuleGroup, start_ms: int, last_ms: int, first: bool) -> list[str]:
        errors = []
        begin_ms = group.first_evaluation_ms(start_ms)
        for place, rule in enumerate(group.rules):
            if not isinstance(rule, RecordingRule):
                if first:
                    _log("alerting rule is not evaluated", id=place, name=rule.name)
                continue
            if first:
                _log("processing rule", id=place, name=rule.name)
            if begin_ms > last_ms or (number, place) in self._failed:
                continue
            try:
                found = rule.over_range(self._query, begin_ms, last_ms, group.interval_ms)
            except (RuleError, ApiError) as error:
                self._failed.add((number, place))
                errors.append(f"query range: {error}")
                continue
            self._pending += found
            if sum(len(row.t_ms) for row in self._pending) >= SAMPLES_IN_MEMORY:
                self._write()
        return errors

    def _write(self) -> None:
        """A block of what is pending, all of one block range."""
        if not self._pending:
            return
        numbers: dict[Labels, int] = {}
        rows = [numbers.setdefault(row.labels, len(numbers)) for row in self._pending]
        samples = GatheredSamples.of_floats(
            np.repeat(np.array(rows, dtype=np.int64), [len(row.t_ms) for row in self._pending]),
            np.concatenate([row.t_ms for row in self._pending]),
            np.concatenate([row.values for row in self._pending]).view(np.uint64),
        )
        write_sample_blocks(self._fs, self._output, list(numbers), samples, BLOCK_RANGE_MS)
        self._pending = []


def _log(what: str, **fields: object) -> None:
    rest = "".join(f" {name}={value}" for name, value in fields.items())
    click.echo(f'level=info backfiller="{what}"{rest}', err=True)
