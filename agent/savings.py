"""What the agent leaves out to stay within its budget, the least valuable work first."""

from __future__ import annotations

from collections.abc import Sequence

from agent.budget import Step
from agent.callcounts import measured_calls
from agent.endpoints import EndpointScraper
from agent.hostcollector import HostCollector
from agent.watcher import Watcher

DATA_CALLS = frozenset({"sendto", "sendmsg", "recvfrom", "recvmsg", "socket", "dup", "dup2", "dup3"})
"""Many on a busy network, and few rules look at them."""
NAME_CALLS = frozenset(
    {
        *("unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat"),
        *(
            "link",
            "linkat",
            "chown",
            "lchown",
            "fchown",
            "fchownat",
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
        ),
    }
)
"""Many on a host that builds or unpacks."""
OPEN_CALLS = frozenset({"open", "openat", "openat2", "creat"})
"""The most frequent of all; without them rules about reading and writing files see nothing. What is left are
executions, connections, changes of identity, and what is rare."""
SLOWER = 4
RULES_ONE_IN = 4


def savings(
    collector: HostCollector | None, watcher: Watcher | None, endpoints: EndpointScraper | None = None
) -> Sequence[Step]:
    """The steps for the parts that run, in the order in which they are engaged."""
    steps: list[Step] = []
    left_out: frozenset[str] = frozenset()
    if watcher is not None:
        steps.append(
            Step(
                "measured data calls",
                lambda: watcher.leave_unmeasured(measured_calls(data=True) - measured_calls(data=False)),
                lambda: watcher.leave_unmeasured(()),
            )
        )
        steps.append(_without(watcher, "network data calls", left_out, DATA_CALLS))
        left_out |= DATA_CALLS
    if collector is not None:
        steps.append(
            Step("slower host metrics", lambda: collector.slow_down(SLOWER), lambda: collector.slow_down(1))
        )
    if endpoints is not None:
        steps.append(
            Step(
                "slower discovered endpoints",
                lambda: endpoints.slow_down(SLOWER),
                lambda: endpoints.slow_down(1),
            )
        )
    if watcher is not None:
        steps.append(_without(watcher, "file name calls", left_out, NAME_CALLS))
        left_out |= NAME_CALLS
        steps.append(
            Step(
                "sampled rules",
                lambda: watcher.sample_rules(RULES_ONE_IN),
                lambda: watcher.sample_rules(1),
            )
        )
        steps.append(_without(watcher, "file opens", left_out, OPEN_CALLS))
    return steps


def _without(watcher: Watcher, name: str, before: frozenset[str], more: frozenset[str]) -> Step:
    return Step(name, lambda: watcher.leave_out(before | more), lambda: watcher.leave_out(before))
