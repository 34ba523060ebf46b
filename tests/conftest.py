"""Holds the tests that `tests.twins` names to what it says of them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.callrecorder import declared, not_called, recorded

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
"""How long an example takes says something of the machine, not of the code."""
TESTS = Path(__file__).parent
LONGEST = (
    *("e2e/test_kill_nine.py", "promql/test_rollups.py", "e2e/test_prometheus_agreement.py"),
    *("promql/test_testlang.py", "e2e/test_agent_events.py", "agent/test_storms.py"),
    *("e2e/test_agent.py", "ingest/test_remotewrite_decode.py", "ingest/test_remotewrite_fuzz.py"),
    *("tsdb/test_kill.py", "promql/test_histogramarith.py", "fuzz/test_fuzz.py"),
)
"""Files that take longest: begun first, so that at the end no process waits for one of them alone."""
EVALS_PASSED = "evals of Prometheus's test files passed"
"""Property of a test with how many; the sum is printed at the end of a run."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those that start servers, then the others; within a file as written.

    xdist gives out files in this order (`--no-loadscope-reorder`), by itself those with most tests first.
    """
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    with_servers = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in with_servers))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is declared as the twin of kernels fails if one of them or the reference is not called."""
    declarations = declared(item.nodeid)
    if not declarations:
        return (yield)
    with recorded({twin.reference for twin in declarations.values()}) as calls:
        result = yield
    missing = not_called(declarations, calls)
    assert not missing, f"tests/twins.py says that this test calls {', '.join(missing)}"
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many evals of Prometheus's own test files have passed, in whatever process."""
    passed = terminalreporter.stats.get("passed", ())
    counts = [value for report in passed for name, value in report.user_properties if name == EVALS_PASSED]
    if counts:
        terminalreporter.write_line(f"{sum(counts):,} {EVALS_PASSED}")
