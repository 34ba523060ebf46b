"""User names per container, read from files that the container controls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent import containers
from agent.containers import UserNames, parse, read_inside
from agent.processes import Process
from security.fields.containerids import ContainerPath

FILES = [
    (b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:\n", {0: "root", 33: "web"}),
    (b"a:x:1:\nb:x:1:\n", {1: "a"}),
    (b"broken\n:x:5:\nx:x:five:\nminus:x:-1:\n\xff:x:7:\n", {7: "\ufffd"}),
    (b"", {}),
]


def process_in(container: str, pid: int) -> Process:
    return Process(pid, 1, 1, 1, "x", container=ContainerPath(container, "docker") if container else None)


def write(root: Path, text: str) -> Path:
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(text)
    return root


@pytest.mark.parametrize(("data", "expected"), FILES)
def test_damaged_lines_are_left_out(data: bytes, expected: dict[int, str]) -> None:
    assert {number: fields[0] for number, fields in parse(data).items()} == expected


def test_a_container_has_its_own_names(tmp_path: Path) -> None:
    host = write(tmp_path / "host", "alice:x:1000:1000::/:\n")
    write(tmp_path / "proc/7/root", "app:x:1000:1000::/:\n")
    names = UserNames(tmp_path / "proc", host)
    assert names.user(1000, process_in("a" * 64, 7), 0) == "app"
    assert names.user(1000, process_in("", 7), 0) == "alice"
    assert names.user(1000, None, 0) == "alice"
    assert names.user(5, None, 0) == ""


def test_names_are_read_again_and_outlive_the_process(tmp_path: Path) -> None:
    root = write(tmp_path / "proc/7/root", "old:x:5:5::/:\n")
    names, process = UserNames(tmp_path / "proc", tmp_path), process_in("a" * 64, 7)
    assert names.user(5, process, 0) == "old"
    write(root, "new:x:5:5::/:\n")
    assert names.user(5, process, containers.REFRESH_NS) == "old"
    assert names.user(5, process, containers.REFRESH_NS + 1) == "new"
    (root / "etc/passwd").unlink()
    assert names.user(5, process, 3 * containers.REFRESH_NS) == "new"


def test_links_pipes_and_giants_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host:x:1:1::/:\n")
    open_before = len(os.listdir("/proc/self/fd"))
    root = write(tmp_path / "root", "x" * 100)
    assert read_inside(root, "etc/passwd") == b"x" * 100
    monkeypatch.setattr(containers, "FILE_BYTES_LIMIT", 99)
    assert read_inside(root, "etc/passwd") == b""
    monkeypatch.undo()
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(secret)
    assert read_inside(root, "etc/passwd") == b""
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert read_inside(root, "etc/passwd") == b""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/etc").symlink_to(tmp_path / "root/etc")
    assert read_inside(tmp_path / "other", "etc/passwd") == b""
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_many_containers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "CONTAINERS_LIMIT", 2)
    names = UserNames(tmp_path / "proc", tmp_path)
    for number in range(5):
        names.user(1, process_in(f"{number:064d}", 7), 0)
    assert len(names._known) == 2
