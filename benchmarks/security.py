"""`make bench-security`: the watch path with the stable rules, on a recorded mix of real records. Needs root.

Prints the mix, events a second and a core through fields and rules, the same for types that no rule names and
for the process table alone, and the time from an action to its record. `--quiet SECONDS` watches this host
instead and extrapolates its alarms to a day.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from agent.fields.source import SyscallSource
from agent.probe.program import ProbeError
from agent.watcher import Watcher, rule_calls
from benchmarks.securityload import QUIET_LOAD, Recording, record
from security.activerules import ActiveRules
from security.columns import EventBatch
from security.engine import RuleEngine
from security.output import EventOutput

RULES = Path(__file__).resolve().parent.parent / "../shared/data/falco-rules/falco_rules.yaml"
TARGETS = {"mix": 300_000, "types no rule names": 1_000_000}
QUIET_CALLS = ("read", "write", "close", "futex", "fstat")
"""Calls that no rule of Falco's names."""
DAY_SECONDS = 86_400.0
ACTIONS_COUNT = 40


@dataclass
class Listener:
    """Stands for the pipeline: keeps what rules said and when."""

    rules: ActiveRules
    outputs: list[tuple[float, EventOutput]] = field(default_factory=list)
    events_count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def process(self, batch: EventBatch) -> object:
        """Match a batch and remember the outputs with the time of their delivery."""
        engine = self.rules.engine
        assert engine is not None
        found = engine.process(batch)
        now_s = time.time()
        with self.lock:
            self.events_count += batch.count
            self.outputs += [(now_s, output) for output in found]
        return found


def measure(recording: Recording, rules: ActiveRules, size: int) -> tuple[float, float, int]:
    """Events a second and a core through the process table, and through fields and rules; matches.

    The first tenth warms dictionaries and rules up, as hours of running would.
    """
    assert rules.engine is not None
    table, source, engine = recording.fresh_table(), SyscallSource("host"), RuleEngine(rules.engine.rules)
    batches = recording.batches(size)
    warm = max(1, len(batches) // 10)
    table_s = rules_s = 0.0
    events = matches = 0
    for place, batch in enumerate(batches):
        began = time.thread_time()
        table.apply(batch)
        applied = time.thread_time()
        found = engine.process(source.batch(batch, table))
        ended = time.thread_time()
        if place >= warm or len(batches) == 1:
            table_s, rules_s = table_s + applied - began, rules_s + ended - applied
            events, matches = events + len(batch), matches + len(found)
    return events / table_s, events / rules_s, matches


def report_speed(
    title: str, recording: Recording, rules: ActiveRules, sizes: Sequence[int], runs: int
) -> None:
    """Print the mix of a recording and its figures by size of batch."""
    mix = ", ".join(f"{name} {share:.1%}" for name, share in recording.mix().items() if share >= 0.002)
    print(f"{title}: {len(recording.batch):,} records, {recording.lost} lost; {mix}")
    for size in sizes:
        found = [measure(recording, rules, size) for _ in range(runs)]
        best = max(rate for _, rate, _ in found)
        middle = statistics.median(rate for _, rate, _ in found)
        table = statistics.median(rate for rate, _, _ in found)
        print(
            f"  {size:6} a batch: fields and rules {best:11,.0f} events/s a core (median {middle:,.0f}), "
            f"target {TARGETS[title]:,}; process table {table:,.0f}; {found[0][2]} matches"
        )


def report_delay(rules: ActiveRules) -> None:
    """Print the time from reading /etc/shadow to the record in the pipeline."""
    listener = Listener(rules)
    watcher = Watcher(listener, CollectorRegistry())
    watcher.start()
    try:
        began: list[float] = []
        for number in range(ACTIONS_COUNT):
            began.append(time.time())
            subprocess.run(
                ["/bin/cat", "/etc/shadow", f"/nonexistent/{number}"], capture_output=True, check=False
            )
            time.sleep(0.05)
        time.sleep(1.0)
    finally:
        watcher.stop()
    delays = []
    for number, start in enumerate(began):
        mark = f"/nonexistent/{number}"
        found = [
            when - start
            for when, output in listener.outputs
            if output.rule == "Read sensitive file untrusted" and output.fields["proc.cmdline"].endswith(mark)
        ]
        delays += found[:1]
    if not delays:
        print("from the action to the record: no action raised its rule")
        return
    print(
        f"from the action (start of its process included) to the record: median "
        f"{statistics.median(delays) * 1000:.0f} ms, worst {max(delays) * 1000:.0f} ms, "
        f"{len(delays)} of {ACTIONS_COUNT} actions; target 1000 ms"
    )


def report_quiet(rules: ActiveRules, seconds: float) -> None:
    """Watch this host with nothing done to it, and print every kind of alarm and its count a day."""
    listener = Listener(rules)
    watcher = Watcher(listener, CollectorRegistry())
    watcher.start()
    try:
        time.sleep(seconds)
    finally:
        watcher.stop()
    counts = Counter(output.rule for _, output in listener.outputs)
    print(f"{listener.events_count:,} events in {seconds:.0f} s, {sum(counts.values())} alarms")
    for rule, count in counts.most_common():
        first = next(output for _, output in listener.outputs if output.rule == rule)
        print(f"  {rule}: {count}, {count * DAY_SECONDS / seconds:,.0f} a day; the first: {first.message}")
    if not counts:
        print(f"  extrapolated to a day: 0 alarms (95 %: fewer than {3 * DAY_SECONDS / seconds:,.0f})")


def main() -> None:
    """Print the figures and the mix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", nargs="+", default=[str(RULES)])
    parser.add_argument("--events", type=int, nargs="+", default=[1 << 14, 1 << 12, 1 << 10], help="a batch")
    parser.add_argument("--seconds", type=float, default=6.0, help="of recording")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quiet", type=float, metavar="SECONDS", help="watch this host, count its alarms")
    arguments = parser.parse_args()
    absent = [path for path in arguments.rules if not Path(path).exists()]
    if absent:
        raise SystemExit(f"no rules file {', '.join(absent)}: give others with --rules")
    rules = ActiveRules()
    rules.reload(arguments.rules)
    if rules.engine is None:
        raise SystemExit("\n".join(rules.problems))
    enabled = rules.engine.rules.of_source("syscall")
    print(f"rules: {' '.join(arguments.rules)}: {len(enabled)} enabled")
    try:
        if arguments.quiet:
            report_quiet(rules, arguments.quiet)
            return
        mix = record(rule_calls(rules.engine), arguments.seconds)
        report_speed("mix", mix, rules, arguments.events, arguments.runs)
        quiet = record(QUIET_CALLS, 1.0, QUIET_LOAD, programs=1)
        report_speed("types no rule names", quiet, rules, arguments.events, arguments.runs)
        report_delay(rules)
    except ProbeError as error:
        raise SystemExit(f"nothing to measure on this host: {error}") from None


if __name__ == "__main__":
    main()
