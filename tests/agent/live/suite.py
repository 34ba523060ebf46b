"""`make security-live`: every action under the watcher with Falco's rules, and a table of what was raised."""

from __future__ import annotations

import argparse
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from agent.probe.program import ProbeError
from agent.runtimes.info import ContainerInfo
from agent.watcher import Watcher
from security.activerules import ActiveRules, RuleOptions
from security.columns import EventBatch
from security.output import EventOutput
from security.rules.compiler import ExtraOutput
from security.rules.index import Selection
from tests.agent.live.actions import ACTIONS, Action
from tests.agent.live.sandbox import CONTAINER_ID, Sandbox, SandboxError, run_actions, sandbox

RULES = Path(__file__).resolve().parents[3] / "../shared/data/falco-rules"
RULE_FILES = ("falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml")
BAR = 55
SETTLE_SECONDS = 30.0
LAST = "Last"
INFOS = {
    CONTAINER_ID: ContainerInfo(
        CONTAINER_ID,
        "docker",
        name="box",
        image="registry.example/box:1",
        repository="registry.example/box",
        tag="1",
        privileged=True,
        pod_name="box-0",
        pod_namespace="shop",
    )
}
"""What stands for the runtime's answer; the other container is one that no runtime knows."""
SHOWN = (
    *("evt.type", "evt.res", "evt.rawres", "evt.args", "evt.arg.flags", "evt.arg.mode", "evt.arg.uid"),
    *("evt.is_open_read", "evt.is_open_write", "fd.name", "fd.type", "fd.typechar", "fd.num", "fd.sip"),
    *("fd.sport", "fd.cip", "fd.cport", "fd.l4proto", "fs.path.name", "proc.name", "proc.exe", "proc.pid"),
    *("proc.exepath", "proc.cmdline", "proc.args", "proc.pname", "proc.pcmdline", "proc.aname[2]"),
    *("proc.cwd", "proc.vpid", "proc.tty", "proc.is_exe_upper_layer", "proc.is_exe_from_memfd"),
    *("proc.duration", "user.name", "user.uid", "user.loginuid", "group.name", "thread.cap_effective"),
    *("container.id", "container.name", "container.image.repository", "container.image.tag"),
    *("container.privileged", "k8s.ns.name", "k8s.pod.name"),
)
"""Fields of every record, beside those of the rule's own output."""
_ACTION = re.compile(r"/actions/(\w+)\.sh")


@dataclass
class Raised:
    """Stands for the pipeline: keeps the outputs of each action. Rules that are off by default are on."""

    rules: ActiveRules = field(
        default_factory=lambda: ActiveRules(
            RuleOptions(
                rule_matching="all",
                selections=(Selection(True, rule="*"),),
                extra_outputs=(ExtraOutput(fields={name: f"%{name}" for name in SHOWN}, source="syscall"),),
            )
        )
    )
    outputs: dict[str, list[EventOutput]] = field(default_factory=lambda: defaultdict(list))
    delays_s: list[float] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)
    """Actions that were done a second time, with what they printed the first time."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def process(self, batch: EventBatch) -> object:
        engine = self.rules.engine
        assert engine is not None
        matches = engine.match(batch)
        outputs = engine.outputs(batch, matches)
        now_ns = time.time_ns()
        own, above = batch.column(("proc.cmdline", None)), batch.column(("proc.acmdline", None))
        for match, output in zip(matches, outputs, strict=True):
            lines = [
                own.value(match.row) if own else None,
                *((above.value(match.row) if above else None) or ()),
            ]
            found = next((item[1] for line in lines if (item := _ACTION.search(line or ""))), "")
            with self.lock:
                self.outputs[found].append(output)
                self.delays_s.append((now_ns - output.time_ns) / 1e9)
        return outputs

    def of(self, action: Action) -> EventOutput | None:
        """What the action's rule said, None when it was not raised."""
        return next((item for item in self.outputs[action.name] if item.rule == action.rule), None)


def missing_rules() -> str:
    """Why the rule files cannot be read, empty when they are there."""
    absent = [name for name in RULE_FILES if not (RULES / name).is_file()]
    return f"{RULES.resolve()} has no {', '.join(absent)}" if absent else ""


def run(actions: Sequence[Action], show_logs: bool = False) -> Raised:
    """Run actions under the watcher. Raises ProbeError or SandboxError when this host does not allow it."""
    raised = Raised()
    raised.rules.reload(str(RULES / name) for name in RULE_FILES)
    watcher = Watcher(raised, CollectorRegistry(), container_info=INFOS.get)
    watcher.start()
    try:
        _act(raised, actions, show_logs)
        # Sixty programs at once on a busy machine: one may fail by itself, or its event may be lost. What is
        # silent in a second round of its own really is.
        silent = [action for action in actions if not action.missing and raised.of(action) is None]
        if silent:
            _act(raised, silent, show_logs)
    finally:
        watcher.stop()
    return raised


def _act(raised: Raised, actions: Sequence[Action], show_logs: bool) -> None:
    with sandbox() as box:
        run_actions(box, actions)
        _wait_for_last(raised, box)
        for action in actions:
            if action.missing or raised.of(action) is not None:
                continue
            rules = sorted({item.rule for item in raised.outputs[action.name]})
            text = f"raised {rules}; printed: {box.logs(action.place, action).strip()[:600]}"
            raised.again.setdefault(action.name, text)
            if show_logs:
                print(f"--- {action.name} {text}")


def _wait_for_last(raised: Raised, box: Sandbox) -> None:
    """Until the watcher has come to an action after all others: the machine may be busy."""
    raised.outputs.pop(LAST, None)
    script = box.folder / "actions" / f"{LAST}.sh"
    script.parent.mkdir()
    script.write_text("cat /etc/shadow >/dev/null\n:\n")
    subprocess.run(["sh", str(script)], check=False)
    deadline = time.monotonic() + SETTLE_SECONDS
    while LAST not in raised.outputs and time.monotonic() < deadline:
        time.sleep(0.05)


def main() -> None:
    """Print the table and the count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="actions, all by default")
    parser.add_argument("--logs", action="store_true", help="show the output of actions that raised nothing")
    options = parser.parse_args()
    if reason := missing_rules():
        raise SystemExit(reason)
    actions = [action for action in ACTIONS if not options.names or action.name in options.names]
    try:
        raised = run(actions, options.logs)
    except (ProbeError, SandboxError) as error:
        raise SystemExit(f"no live actions on this host: {error}") from None
    count = 0
    for action in actions:
        found = raised.of(action)
        count += found is not None
        state = "raised" if found else f"MISSING {action.missing}"
        print(f"{action.name:62} {action.place:30} {action.rule[:60]:60} {state}")
    delays = sorted(raised.delays_s)
    median = delays[len(delays) // 2] if delays else float("nan")
    print(f"{count} of {len(actions)} actions raised their rule (bar: {BAR} of {len(ACTIONS)})")
    worst = max(delays, default=0.0)
    print(f"from the action to the record: median {median * 1000:.0f} ms, worst {worst * 1000:.0f} ms")


if __name__ == "__main__":
    main()
