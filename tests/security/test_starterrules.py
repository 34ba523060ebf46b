"""Our own starter rules load clean and fire on what they describe, and not on its ordinary neighbour."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from security.activerules import ActiveRules, starter_rules
from security.rules import resolver
from security.rules.ast import render
from security.rules.condition import ConditionError
from security.rules.loader import RuleLoader
from security.rules.storedtrees import read_trees, write_trees
from tests.reference.securityrules import Event
from tests.security.randomrules import batch_of


def event(kind: str, **fields: object) -> Event:
    values: Event = {("evt.type", None): kind, ("evt.rawres", None): 0, ("container.id", None): "host"}
    for name, value in fields.items():
        name = name.replace("__", ".")
        key = ("evt.arg", name.removeprefix("evt.arg.")) if name.startswith("evt.arg.") else (name, None)
        values[key] = value
    return values


def opened(path: str, program: str, write: bool = False, **fields: object) -> Event:
    directory, _, filename = path.rpartition("/")
    return event(
        "openat",
        **{
            "fd.name": path,
            "fd.directory": directory,
            "fd.filename": filename,
            "fd.typechar": "f",
            "fd.num": 3,
        },
        **{"proc.name": program, "evt.is_open_read": not write, "evt.is_open_write": write},
        **fields,
    )


def started(program: str, **fields: object) -> Event:
    return event(
        "execve", **{"proc.name": program, "proc.tty": 0, "proc.args": "", "proc.aname": ("x",), **fields}
    )


BOX = {"container.id": "0123456789ab"}
CASES: list[tuple[Event, str | None]] = [
    (opened("/etc/shadow", "cat"), "Password file read"),
    (opened("/etc/shadow", "sshd"), None),
    (opened("/etc/passwd", "cat"), None),
    (opened("/etc/passwd", "vim", write=True), "Account file changed"),
    (opened("/etc/passwd", "useradd", write=True), None),
    (started("bash", **{**BOX, "proc.tty": 34816}), "Shell with a terminal in a container"),
    (started("bash", **{"proc.tty": 34816}), None),
    (started("bash", **BOX), None),
    (started("sh", **{"proc.pname": "nginx"}), "Shell started by a server"),
    (opened("/home/u/.ssh/id_ed25519", "cat"), "Key file read"),
    (opened("/home/u/.ssh/id_ed25519.pub", "cat"), None),
    (opened("/root/.ssh/authorized_keys", "sh", write=True), "Authorized keys changed"),
    (opened("/usr/bin/ls", "cp", write=True), "Program directory changed"),
    (opened("/usr/bin/ls", "dpkg", write=True), None),
    (opened("/etc/ld.so.preload", "sh", write=True), "Start-up file changed"),
    (started("x", **{"proc.is_exe_from_memfd": True}), "Program started from memory"),
    (started("x", **{"proc.exepath": "/dev/shm/x"}), "Program started from shared memory"),
    (started("x", **{**BOX, "proc.is_exe_upper_layer": True}), "New program started in a container"),
    (started("apk", **BOX), "Software installed in a container"),
    (started("apt"), None),
    (event("ptrace", **{"proc.name": "x", "evt.arg.request": "PTRACE_ATTACH"}), "Process attached to"),
    (event("ptrace", **{"proc.name": "gdb", "evt.arg.request": "PTRACE_ATTACH"}), None),
    (event("finit_module", **{"proc.name": "insmod"}), "Kernel module loaded"),
    (event("socket", **{"evt.arg.domain": "AF_PACKET(17)"}, **BOX), "Raw socket in a container"),
    (
        event("connect", **{"fd.sip": ipaddress.ip_address("169.254.169.254")}, **BOX),
        "Metadata service contacted from a container",
    ),
    (event("setns", **{"proc.name": "nsenter"}, **BOX), "Namespace joined"),
    (started("x", **{"proc.args": "-o stratum+tcp://pool"}), "Miner started"),
    (event("unlinkat", **{"proc.name": "rm", "fs.path.name": "/var/log/auth.log"}), "Log removed"),
    (event("unlinkat", **{"proc.name": "logrotate", "fs.path.name": "/var/log/auth.log"}), None),
    (started("curl", **{**BOX, "proc.tty": 1}), None),
]


def test_starter_rules_load_without_a_finding() -> None:
    loader = RuleLoader()
    result = loader.load_file(starter_rules())
    assert result.summary() == f"{starter_rules()}: Ok"
    assert len(loader.rules.rules) >= 20


@pytest.mark.parametrize(("values", "rule"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_starter_rule_fires_on_what_it_describes(values: Event, rule: str | None) -> None:
    active = ActiveRules()
    active.reload([])
    assert active.engine is not None
    outputs = active.engine.process(batch_of([values]))
    assert [output.rule for output in outputs] == ([rule] if rule else [])
    container = values["container.id", None]
    assert all(f"container_id={container} container_name=<NA>" in output.message for output in outputs)


def test_conditions_of_starter_rules_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ActiveRules().reload(())

    def unused(text: str) -> None:
        raise ConditionError(f"parsed again: {text}")

    monkeypatch.setattr(resolver, "parse_condition", unused)
    again = ActiveRules()
    again.reload(())
    assert not again.problems
    assert again.engine is not None
    # Rules of somebody else are parsed whatever is kept.
    other = ActiveRules()
    other.reload([starter_rules()])
    assert "parsed again" in other.problems[0]


def test_kept_trees_are_those_of_the_parser(tmp_path: Path) -> None:
    assert read_trees(tmp_path) == {}
    parsed = RuleLoader()
    parsed.load_file(starter_rules())
    trees = parsed.cache.trees
    write_trees(trees, tmp_path)
    kept = read_trees(tmp_path)
    assert [(text, render(tree)) for text, tree in kept.items()] == [
        (text, render(tree)) for text, tree in trees.items()
    ]
    (file,) = (tmp_path / "__pycache__").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert read_trees(tmp_path) == {}
