"""A start that fails for another reason leaves the store alone, which is being opened meanwhile."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.processes import Api, free_port, series, start_vedette, vedette_kind

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TIMEOUT_S = 90


def files(folder: Path) -> dict[str, bytes]:
    """What is in the log and the head's snapshot."""
    return {
        path.name: path.read_bytes()
        for path in (folder / "data").rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_failed_starts_change_nothing_and_the_next_one_has_everything(tmp_path: Path) -> None:
    first = start_vedette(tmp_path)
    now_ms = int(time.time() * 1000) - 60_000
    try:
        first.wait_ready()
        api = Api(first.port)
        rows = [series("kept", [(now_ms, float(n))], n=str(n)) for n in range(50)]
        assert api.write(rows) == (204, "")
        api.close()
    finally:
        # A clean stop: its snapshot must outlive starts that fail.
        first.stop()
    before = files(tmp_path)
    assert len(before) > 1

    wrong = vedette_kind(config="global: {scrape_interval: soon}\n").command(free_port(), tmp_path)
    ended = subprocess.run(wrong, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 2
    assert "Error loading config" in ended.stderr + ended.stdout
    assert files(tmp_path) == before

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = vedette_kind().command(taken.getsockname()[1], tmp_path)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 1
    assert "listen on" in ended.stderr + ended.stdout
    assert files(tmp_path) == before

    second = start_vedette(tmp_path)
    try:
        second.wait_ready()
        api = Api(second.port)
        assert api.query("count(kept)", now_ms / 1000)["result"][0]["value"][1] == "50"
        assert api.query("sum(kept)", now_ms / 1000)["result"][0]["value"][1] == "1225"
        api.close()
    finally:
        second.stop()
