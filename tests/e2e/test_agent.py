"""`vedette agent` and a server as processes, killed and started again: nothing that was taken is lost."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.servers import Kind, Server
from tests.e2e.processes import Api, free_port, start_vedette, wait_until

pytestmark = pytest.mark.e2e

EVERY_SECOND = """\
agent:
  interval: 1s
  statsd: {udp: ""}
  processes: {enabled: false}
  connections: {enabled: false}
"""
PROGRAM = Path(sys.executable).parent / "vedette"


def agent_kind(server_port: int, *flags: str) -> Kind:
    """`vedette agent` that sends to a server of this host; it answers on its own port."""

    def command(port: int, folder: Path) -> list[str]:
        config = folder / "agent.yml"
        config.write_text(EVERY_SECOND)
        return [
            *(str(PROGRAM), "agent", f"--server=http://127.0.0.1:{server_port}", f"--config.file={config}"),
            *(f"--storage.agent.path={folder / 'data-agent'}", f"--web.listen-address=127.0.0.1:{port}"),
            *flags,
        ]

    return Kind("vedette-agent", command, "/-/ready")


def sample_times(api: Api, selector: str) -> list[float]:
    """Times of all samples of the last ten minutes, in seconds."""
    result = api.query(f"{selector}[10m]")["result"]
    return [float(t) for t, _ in result[0]["values"]] if result else []


def test_a_dead_server_and_a_killed_agent_lose_no_collection(tmp_path: Path) -> None:
    """Ten minutes at the usual fifteen seconds are forty collections; here they are made every second."""
    for name in ("server", "agent"):
        (tmp_path / name).mkdir()
    server = start_vedette(tmp_path / "server")
    agent = None
    try:
        server.wait_ready()
        agent = Server(agent_kind(server.port), free_port(), tmp_path / "agent")
        api = Api(server.port)
        wait_until(lambda: len(sample_times(api, "node_load1")) >= 2, 60, "samples arrive")
        server.kill()
        died = time.time()
        time.sleep(4)
        # The agent dies too, with samples that only its disk has.
        agent.kill()
        agent = Server(agent_kind(server.port), agent.port, tmp_path / "agent")
        agent.wait_ready()
        time.sleep(4)
        restarted = time.time()
        server = Server(server.kind, server.port, tmp_path / "server")
        server.wait_ready()
        api = Api(server.port)
        wait_until(
            lambda: bool(times := sample_times(api, "node_load1")) and times[-1] > restarted + 1,
            60,
            "samples arrive again",
        )
        times = sample_times(api, "node_load1")
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert times[0] < died
        # One gap is that of the agent itself, from its death to its first collection.
        assert len([gap for gap in gaps if gap > 2.5]) <= 1, gaps
        assert len([t for t in times if died < t < restarted]) >= 5
        wait_until(lambda: bool(api.get("/api/v1/agents")[1]["data"]), 30, "the agent reports")
        (row,) = api.get("/api/v1/agents")[1]["data"]
        assert row["agent"].startswith(row["hostname"][:10])
        assert api.query('prometheus_remote_storage_samples_failed_total{job="vedette-agent"}')["result"]
        failed = api.query('sum(prometheus_remote_storage_samples_failed_total{job="vedette-agent"})')
        assert failed["result"][0]["value"][1] == "0"
    finally:
        server.stop()
        if agent is not None:
            agent.stop()


def test_a_stopped_agent_sends_what_it_has_and_ends_its_series(tmp_path: Path) -> None:
    for name in ("server", "agent"):
        (tmp_path / name).mkdir()
    server = start_vedette(tmp_path / "server")
    try:
        server.wait_ready()
        agent = Server(agent_kind(server.port), free_port(), tmp_path / "agent")
        agent.wait_ready()
        api = Api(server.port)
        wait_until(lambda: bool(sample_times(api, "node_load1")), 60, "samples arrive")
        agent.stop()
        assert "Stopped" in agent.log_tail()
        assert api.query("node_load1")["result"] == []
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--server=nowhere"], "--server wants a URL"),
        (["--server=http://127.0.0.1:1", "--config.file=bad.yml"], "field intervall not found"),
        (["--server=http://127.0.0.1:1", "--web.listen-address=127.0.0.1:1x"], "not a valid listen address"),
    ],
)
def test_a_wrong_flag_or_file_is_one_clear_line(tmp_path: Path, flags: list[str], text: str) -> None:

    (tmp_path / "bad.yml").write_text("agent:\n  intervall: 1s\n")
    done = subprocess.run(
        [str(PROGRAM), "agent", *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
