"""`vedette security replay`: what rules would have raised."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.securityrules import load_or_exit
from cli.storedevents import read_stored, stored_options

if TYPE_CHECKING:
    from security.columns import EventBatch
    from security.engine import RuleEngine
    from security.rules.index import RuleSet

_PATH = click.Path(path_type=Path)


def _files(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}", multiple=True, type=_PATH, metavar="FILE", help=f"{what}; repeatable.")


@click.command()
@click.argument("rules", nargs=-1, required=True)
@_files("capture", "Capture of system calls (.scap)")
@_files("audit", "Kubernetes audit events")
@_files("cloudtrail", "CloudTrail records")
@stored_options
@click.option("--rule-matching", type=click.Choice(("first", "all")), default="first", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Hits as JSON lines, in Falco's form.")
@click.option("--summary", is_flag=True, help="Only how often each rule would have fired.")
def replay(
    rules: tuple[str, ...],
    capture: tuple[Path, ...],
    audit: tuple[Path, ...],
    cloudtrail: tuple[Path, ...],
    events: tuple[Path, ...],
    data: Path | None,
    server: str | None,
    since: str,
    rule_matching: str,
    as_json: bool,
    summary: bool,
) -> None:
    """Run RULES over captures, audit files or stored events.

    Captures, audit events and CloudTrail records hold everything, so each hit is printed. The event log holds
    what rules raised, with the fields of their outputs: for it is printed which events would be raised again,
    which not, and for how many the stored fields are not enough.

    Exit status: 0, or 1 when rules do not load or an input cannot be read to its end.
    """
    from security.engine import RuleEngine

    whole, stored = (*capture, *audit, *cloudtrail), (*events, data, server)
    if not whole and not any(stored):
        raise click.UsageError("give --capture, --audit, --cloudtrail, --events, --data or --server")
    ruleset = load_or_exit(rules).rules
    failed = False
    if whole:
        printer = _Printer(RuleEngine(ruleset, rule_matching), as_json, summary)
        for path in capture:
            failed |= printer.run(path, _capture_batches)
        for path in audit:
            failed |= printer.run(path, _audit_batches)
        for path in cloudtrail:
            failed |= printer.run(path, _cloudtrail_batches)
        printer.finish()
    if any(stored):
        _replay_stored(ruleset, server, data, events, since)
    sys.exit(1 if failed else 0)


class _Printer:
    """Prints hits as they come, and the counts at the end."""

    def __init__(self, engine: RuleEngine, as_json: bool, summary: bool) -> None:
        from security.output import OutputOptions

        self._engine = engine
        self._as_json, self._summary = as_json, summary
        self._options = OutputOptions()

    def run(self, path: Path, batches: Callable[[Path], Iterator[EventBatch]]) -> bool:
        """Judge the events of one file; whether it could not be read to its end."""
        from security.capture.cursor import CaptureError
        from security.sources.json_events import InvalidEventError

        try:
            for batch in batches(path):
                self._judge(batch)
        except (OSError, InvalidEventError, CaptureError) as error:
            click.echo(f"{path}: {error}", err=True)
            return True
        return False

    def _judge(self, batch: EventBatch) -> None:
        matches = self._engine.match(batch)
        if self._summary:
            return
        for output in self._engine.outputs(batch, matches):
            line = output.json_line(self._options) if self._as_json else output.line(self._options)
            click.echo(line)

    def finish(self) -> None:
        """The counts by priority and by rule, most frequent first."""
        from security.rules.items import PRIORITIES

        if self._as_json:
            return
        matched = self._engine.matched
        click.echo(f"Events: {self._engine.events_count.total()}, detected: {matched.total()}")
        by_priority: Counter[int] = Counter()
        for rule in self._engine.rules.rules:
            by_priority[rule.priority] += matched[rule.name]
        for priority, count in sorted(by_priority.items()):
            if count:
                click.echo(f"{PRIORITIES[priority]}: {count}")
        for name, count in matched.most_common():
            click.echo(f"   {name}: {count}")


def _capture_batches(path: Path) -> Iterator[EventBatch]:
    from security.capture.blocks import open_capture
    from security.capture.source import Capture

    with open_capture(str(path)) as stream:
        capture = Capture(stream)
        yield from capture.batches()
    if capture.unknown_count:
        click.echo(f"{path}: {capture.unknown_count} events of unknown types left out", err=True)
    if capture.left_out_count:
        message = "threads, descriptors, containers or entries of calls over a limit left out"
        click.echo(f"{path}: {capture.left_out_count} {message}", err=True)


def _audit_batches(path: Path) -> Iterator[EventBatch]:
    from security.sources.json_events import JsonBatches
    from security.sources.kubernetes_audit import KubernetesAudit

    batches = JsonBatches(KubernetesAudit())
    yield batches.batch(batches.read(path.read_bytes(), time.time_ns()))


def _cloudtrail_batches(path: Path) -> Iterator[EventBatch]:
    from security.sources.cloudtrail import CloudTrail
    from security.sources.json_events import JsonBatches

    batches = JsonBatches(CloudTrail())
    yield batches.batch(batches.read(path.read_bytes(), time.time_ns()))


def _replay_stored(
    ruleset: RuleSet, server: str | None, data: Path | None, files: tuple[Path, ...], since: str
) -> None:
    from security.rules.items import PRIORITIES
    from security.tuning.storedreplay import replay_stored, unknown_rules

    found = read_stored(server, data, files, since)
    results = replay_stored(found, ruleset)
    fires, undecided = (
        sum(item.fires for item in results),
        sum(item.undecided for item in results if item.own),
    )
    click.echo(f"Stored events: {len(found)}, raised again: {fires}, not to be told: {undecided}")
    for item in sorted(results, key=lambda item: (-item.fires, item.rule)):
        said = f"{item.fires} of the events of other rules"
        if item.own:
            said = f"{item.stored} stored, {item.fires} again, {item.silent} not"
            said += f", {item.undecided} not to be told" if item.undecided else ""
        click.echo(f"   {item.rule} ({PRIORITIES[item.priority]}): {said}")
    for name, count in unknown_rules(found, ruleset).items():
        click.echo(f"   {name}: {count} stored, no such rule")
