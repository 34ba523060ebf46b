"""Security events of a real agent on this kernel, killed at random moments."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest

from benchmarks.servers import Kind, Server
from ingest.diskqueue import DiskQueue
from tests.agent.test_probe import programs_loaded, programs_of
from tests.e2e.processes import Api, free_port, vedette_kind, wait_until
from tests.e2e.test_agent import agent_kind

pytestmark = [pytest.mark.e2e, pytest.mark.root]

RULE = """\
- rule: Marker opened
  desc: A file of the test was opened
  condition: evt.type in (open, openat) and fd.name startswith {folder}/marker-
  output: marker=%fd.name
  priority: NOTICE
"""


def spooled(folder: Path, copy: Path) -> list[int]:
    """Numbers of the markers in a queue, in order; the queue itself is not touched."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    queue, found, sequence = DiskQueue(copy, 1 << 30), list[int](), 0
    while (item := queue.next(sequence)) is not None:
        assert item.sequence == sequence + 1
        sequence = item.sequence
        for line in item.payload.split(b"\n"):
            match = re.search(rb"marker=[^\"]*marker-(\d+)", line)
            assert match is not None, line
            found.append(int(match.group(1)))
    queue.close()
    return found


def touch(folder: Path, number: int) -> None:
    (folder / f"marker-{number}").touch()


def test_a_killed_agent_keeps_every_event_on_disk_and_leaves_no_program(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("loading the probe needs root")
    seed = int(time.time())
    source = random.Random(seed)
    folder = tmp_path / "agent"
    folder.mkdir()
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULE.format(folder=tmp_path))
    server_port = free_port()
    kind: Kind = agent_kind(server_port, f"--security.rules={rules}")
    number, before = 0, list[int]()
    for turn in range(2):
        agent = Server(kind, free_port(), folder)
        try:
            agent.wait_ready()
            first = number

            def seen(first: int = first) -> bool:
                nonlocal number
                touch(tmp_path, number)
                number += 1
                return any(n >= first for n in spooled(folder / "data-agent" / "events", tmp_path / "copy"))

            wait_until(seen, 60, "events of this turn reach the disk")
            programs = programs_of(agent.pid)
            assert programs
            ends = time.monotonic() + source.uniform(0.1, 0.6)
            while time.monotonic() < ends:
                touch(tmp_path, number)
                number += 1
                time.sleep(0.002)
        finally:
            agent.kill()
        wait_until(lambda: not programs_loaded() & programs, 10, "the kernel is clean")  # noqa: B023
        after = spooled(folder / "data-agent" / "events", tmp_path / "copy")
        assert after[: len(before)] == before, f"seed {seed}, turn {turn}"
        assert len(set(after)) == len(after)
        assert after == sorted(after)
        assert len(after) > len(before)
        before = after
    # A kill between the server's log and its note of how far it came stores a request twice, never loses it.
    assert sorted(set(arrived(kind, folder, server_port, tmp_path / "server", len(before)))) == before


def arrived(kind: Kind, folder: Path, port: int, storage: Path, count: int) -> list[int]:
    """Numbers of the markers in the event log of a server that the agent finds at last, killed on the way."""
    storage.mkdir()
    agent = Server(kind, free_port(), folder)
    server = Server(vedette_kind(), port, storage)
    try:
        server.wait_ready()
        time.sleep(0.2)
        server.kill()
        server = Server(server.kind, port, storage)
        server.wait_ready()

        def numbers() -> list[int]:
            status, answer = Api(port).get("/api/v1/security/events", limit=5000)
            assert status == 200, answer
            found = [re.search(r"marker-(\d+)", str(event)) for event in answer["data"]]
            return sorted(int(match.group(1)) for match in found if match is not None)

        wait_until(lambda: len(numbers()) >= count, 60, "events arrive")
        time.sleep(1)
        return numbers()
    finally:
        agent.kill()
        server.stop()
