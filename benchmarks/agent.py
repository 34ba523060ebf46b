"""`make bench-agent`: what the host agent loses and costs under load, what it costs others, and when idle.

The real `vedette agent` runs with its probe, process table, metrics and rules; its server is not there, so
that everything waits in its queues on disk. Loss is read from its own metrics, cost from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

FALCO_RULES = Path("/work/shared/data/falco-rules/falco_rules.yaml")
RAW_CALLS, RAW_RATE = 5_000_000, 1_000_000
SUSTAINED_RATE, SUSTAINED_SECONDS = 30_000, 10
BURST_CALLS, BURST_RATE = 260_000, 200_000
"""At the paced rate of `BURST_CALLS` a second, so that even a slow start leaves the wanted rate."""
BURST_PROCESSES = 2
SLOWDOWN_CALLS = 50_000
SLOWDOWN_ROUNDS = 15
RATE_TOLERANCE = 0.002
"""A paced rate ends with the pause after its last calls."""
NO_BAR = float("inf")
"""A burst may take what it needs; it must not be lost."""
TICKS = os.sysconf("SC_CLK_TCK")
BPFTRACE = "tracepoint:syscalls:sys_enter_openat { @[comm] = count(); }"


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Agent:
    """A running agent."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """Processor time so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_mib(self) -> float:
        """Resident memory now."""
        return (
            int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        )

    def metrics(self) -> dict[str, float]:
        """Its own metrics, summed over their labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found


@contextlib.contextmanager
def running_agent(rules: str, settle_seconds: float = 4.0) -> Iterator[Agent]:
    """An agent that watches; `rules` is the text of a rules file, empty for none, or the path of one."""
    folder = Path(tempfile.mkdtemp(prefix="vedette-bench-"))
    (folder / "agent.yml").write_text("agent: {budget: {cpu_percent: 100, memory: 2GB}}\n")
    (folder / "rules.yaml").write_text("- list: nothing\n  items: []\n")
    port = free_port()
    command = [
        *(sys.executable, "-m", "cli.main", "agent", "--server", "http://127.0.0.1:1"),
        *("--config.file", str(folder / "agent.yml"), "--storage.agent.path", str(folder / "data")),
        *("--security.rules", rules or str(folder / "rules.yaml")),
        *("--web.listen-address", f"127.0.0.1:{port}", "--log.level", "error", "--flush-deadline", "1s"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        agent = Agent(process.pid, port)
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                if agent.metrics().get("vedette_agent_events_total", 0) > 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the agent does not watch; run `vedette agent` to see why")
            time.sleep(0.2)
        time.sleep(settle_seconds)
        yield agent
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


class Load:
    """Programs that are ready to make calls, `count` and `rate` being those of all together."""

    def __init__(self, call: str, count: int, rate: float = 0.0, processes: int = 1) -> None:
        each = [call, str(count // processes), str(rate / processes)]
        words = [sys.executable, "-m", "benchmarks.syscallload", *each]
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)
        ]
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()

    def run(self) -> tuple[int, float]:
        """Calls made, and seconds from the start to the end of the last program; may be repeated."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        total, longest = 0, 0.0
        for process in self._processes:
            assert process.stdout is not None
            made, seconds = process.stdout.readline().split()
            total, longest = total + int(made), max(longest, float(seconds))
        return total, longest

    def close(self) -> None:
        """End the programs."""
        for process in self._processes:
            process.communicate()


def under_load(
    agent: Agent, name: str, ready: Load, target: float, bar_percent: float, *, monitored: bool = True
) -> None:
    """Print loss and cost of one load; what the agent does in the second after it is in the cost.

    Other programs' events are in it too. Where the machine is too busy for the rate, the cost at that rate
    comes from the processor time an event.
    """
    time.sleep(1)
    before = agent.metrics()
    cpu = agent.cpu_seconds()
    made, seconds = ready.run()
    ready.close()
    time.sleep(1)
    used = agent.cpu_seconds() - cpu
    after = agent.metrics()
    lost = after.get("vedette_agent_events_lost_total", 0) - before.get("vedette_agent_events_lost_total", 0)
    seen = after["vedette_agent_events_total"] - before["vedette_agent_events_total"]
    share = 100 * used / (seconds + 1)
    at_target = share if not monitored else max(share, 100 * used / max(seen, 1) * target)
    verdict = "ok" if not lost and at_target < bar_percent else "FAILS"
    if made / seconds < (1 - RATE_TOLERANCE) * target:
        verdict += f", but the machine made only {made / seconds:,.0f} of {target:,.0f} calls/s"
    print(
        f"  {name:<34} {made / seconds:>11,.0f} calls/s  {seen:>9,.0f} events  lost {lost:,.0f}  "
        f"agent {share:5.1f} % of a core, {1e6 * used / max(seen, 1):5.1f} us an event, "
        f"{at_target:5.1f} % at the rate (bar {bar_percent:.0f})  {verdict}",
        flush=True,
    )


def loads(rules: str, title: str) -> None:
    """The three loads of the issue."""
    print(f"\n{title}")
    with running_agent(rules) as agent:
        raw = Load("getppid", RAW_CALLS)
        under_load(agent, "raw calls, not monitored (getppid)", raw, RAW_RATE, 80, monitored=False)
        steady = Load("open", SUSTAINED_RATE * SUSTAINED_SECONDS, SUSTAINED_RATE)
        under_load(agent, "monitored, sustained (open)", steady, SUSTAINED_RATE, 50)
        burst = Load("open", BURST_CALLS, BURST_CALLS, BURST_PROCESSES)
        under_load(agent, "burst of one second (open)", burst, BURST_RATE, NO_BAR)
        print(f"  resident memory {agent.resident_mib():.0f} MiB")


def slow_down() -> None:
    """Print how much longer a loop of open and close takes under each watcher than under none."""
    print("\nslow-down of a loop of open and close, against no watcher (fastest quarter of the rounds)")
    names = ["no watcher", "vedette agent"]
    if shutil.which("bpftrace"):
        names.append("bpftrace")
    else:
        print("  bpftrace is not installed")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    pairs, reads = Load("open", SLOWDOWN_CALLS), Load("read", SLOWDOWN_CALLS)
    read_seconds: dict[str, list[float]] = {"no watcher": [], "vedette agent": []}
    for _ in range(SLOWDOWN_ROUNDS):
        seconds["no watcher"].append(pairs.run()[1])
        read_seconds["no watcher"].append(reads.run()[1])
    if "bpftrace" in names:
        with running_bpftrace():
            seconds["bpftrace"] = [pairs.run()[1] for _ in range(SLOWDOWN_ROUNDS)]
    with running_agent(_rules()):
        seconds["vedette agent"] = [pairs.run()[1] for _ in range(SLOWDOWN_ROUNDS)]
        read_seconds["vedette agent"] = [reads.run()[1] for _ in range(SLOWDOWN_ROUNDS)]
    pairs.close()
    reads.close()
    base = _undisturbed(seconds["no watcher"])
    for name in names:
        middle = _undisturbed(seconds[name])
        print(f"  {name:<16} {middle / SLOWDOWN_CALLS * 1e6:6.2f} us a pair   {middle / base:5.2f} x")
    before, during = (_undisturbed(found) / SLOWDOWN_CALLS for found in read_seconds.values())
    print(f"  read of a byte of /dev/zero: {before * 1e6:.2f} us, with the agent {during / before:.2f} x")
    print("  sysdig: Debian's needs a kernel module or a probe built with kprobes; neither loads here")


def _undisturbed(seconds: list[float]) -> float:
    """The mean of the fastest quarter: what other programs take from a round only ever adds to it."""
    fastest = sorted(seconds)[: max(len(seconds) // 4, 1)]
    return statistics.fmean(fastest)


@contextlib.contextmanager
def running_bpftrace() -> Iterator[None]:
    """bpftrace counting the opens of each program, in a mount namespace where it finds its tracepoints."""
    mount = 'mount -t debugfs debugfs /sys/kernel/debug; exec bpftrace -e "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", BPFTRACE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.communicate()


def idle(seconds: float) -> None:
    """Print what the agent costs when nothing asks for it. Other work of the machine counts against it."""
    print("\nidle, everything on, Falco's stable rules" if FALCO_RULES.exists() else "\nidle, starter rules")
    with running_agent(_rules(), settle_seconds=20) as agent:
        before, cpu, began = agent.metrics(), agent.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        share = 100 * (agent.cpu_seconds() - cpu) / elapsed
        events = agent.metrics()["vedette_agent_events_total"] - before["vedette_agent_events_total"]
        resident = agent.resident_mib()
    verdict = "ok" if share <= 2 and resident <= 256 else "FAILS"
    print(
        f"  {share:.2f} % of a core (bar 2), {resident:.0f} MiB resident (bar 256), "
        f"{events / elapsed:,.0f} events/s of other programs  {verdict}"
    )


def _rules() -> str:
    return str(FALCO_RULES) if FALCO_RULES.exists() else ""


def main() -> None:
    """Run the parts that are asked for, all by default."""
    parts = ("metrics", "rules", "slowdown", "idle")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("the agent's probe needs root")
    wanted = chosen.parts or parts
    if "metrics" in wanted:
        loads("", "process table and metrics, no rules")
    if "rules" in wanted and FALCO_RULES.exists():
        loads(str(FALCO_RULES), "process table, metrics and Falco's stable rules")
    if "slowdown" in wanted:
        slow_down()
    if "idle" in wanted:
        idle(chosen.idle_seconds)


if __name__ == "__main__":
    main()
