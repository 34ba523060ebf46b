"""From an action to the sample that a query finds; the last part of `make bench-security`.

As root. `vedette serve` runs with its starter rules and no configuration; each action is a program of another
name that reads /etc/shadow, so that each has a series of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ACTIONS = 20
TIMEOUT_S = 10.0
START_TIMEOUT_S = 180.0
TARGET_S = 1.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ask(url: str, text: str) -> list[dict[str, object]]:
    query = urllib.parse.urlencode({"query": text})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=TIMEOUT_S) as answer:
        found: list[dict[str, object]] = json.load(answer)["data"]["result"]
    return found


def _wait_for(url: str, text: str, timeout_s: float) -> float | None:
    """Seconds until the query has a row, None when it has none in time."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        try:
            if _ask(url, text):
                return time.monotonic() - began
        except OSError:
            time.sleep(0.2)
        time.sleep(0.01)
    return None


def main() -> None:
    """Print median and worst time. Ends with status 1 when the events of an action were not found."""
    if os.geteuid() != 0:
        sys.exit("the probe needs root")
    folder = Path(tempfile.mkdtemp(prefix="vedette-latency-"))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "cli.main", "serve", f"--storage.tsdb.path={folder}/data"]
    server = subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        cwd=Path(__file__).resolve().parent.parent,
    )
    try:
        if _wait_for(url, "vedette_agent_events_total", START_TIMEOUT_S) is None:
            sys.exit("the host agent watches nothing")
        taken_s = []
        for number in range(ACTIONS):
            program = folder / f"reader{number}"
            shutil.copy("/bin/cat", program)
            began = time.monotonic()
            subprocess.run([program, "/etc/shadow"], stdout=subprocess.DEVNULL, check=True)
            text = f'vedette_security_events_total{{proc_name="{program.name}"}} > 0'
            if _wait_for(url, text, TIMEOUT_S) is not None:
                taken_s.append(time.monotonic() - began)
        found = len(taken_s)
        median = statistics.median(taken_s) if taken_s else float("inf")
        print(
            f"from the action to the queryable sample: median {median * 1000:.0f} ms,"
            f" worst {max(taken_s, default=float('inf')) * 1000:.0f} ms, {found} of {ACTIONS} actions;"
            f" target {TARGET_S * 1000:.0f} ms"
        )
        sys.exit(0 if found == ACTIONS else 1)
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
