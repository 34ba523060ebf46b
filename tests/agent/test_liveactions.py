"""Real actions on the live kernel raise Falco's rules, with whole records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent.probe.program import ProbeError
from tests.agent.live import suite
from tests.agent.live.actions import ACTIONS
from tests.agent.live.sandbox import CONFINED_ID, CONTAINER_ID, SandboxError

BY_NAME = {action.name: action for action in ACTIONS}


@pytest.fixture(scope="module")
def raised() -> Iterator[suite.Raised]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    if reason := suite.missing_rules():
        pytest.skip(reason)
    try:
        yield suite.run(ACTIONS)
    except (ProbeError, SandboxError) as error:
        pytest.skip(f"no live actions on this host: {error}")


def fields(raised: suite.Raised, name: str) -> Mapping[str, Any]:
    output = raised.of(BY_NAME[name])
    assert output is not None, sorted({item.rule for item in raised.outputs[name]})
    return output.fields


@pytest.mark.root
def test_every_action_raises_its_rule(raised: suite.Raised) -> None:
    silent = [action.name for action in ACTIONS if not action.missing and raised.of(action) is None]
    assert silent == [], raised.again
    assert len(raised.again) <= 1, raised.again
    assert len(ACTIONS) == 66
    assert sum(raised.of(action) is not None for action in ACTIONS) >= suite.BAR


HOST_ROOT = {"user.name": "root", "user.uid": 0, "container.id": "host", "container.name": "host"}


def assert_has(found: Mapping[str, Any], expected: dict[str, Any]) -> None:
    """All differences at once."""
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.root
def test_a_file_that_is_read(raised: suite.Raised) -> None:
    found = fields(raised, "ReadSensitiveFileUntrusted")
    expected = {
        "evt.type": "openat",
        "evt.res": "SUCCESS",
        "evt.is_open_read": True,
        "evt.is_open_write": False,
        "evt.arg.flags": "O_RDONLY|FD_LOWER_LAYER",
        "fd.name": "/etc/shadow",
        "fd.type": "file",
        "fd.typechar": "f",
        "fd.l4proto": "<NA>",
        "fd.sip": None,
        "fs.path.name": "/etc/shadow",
        "proc.name": "cat",
        "proc.exe": "cat",
        "proc.cmdline": "cat /etc/shadow",
        "proc.args": "/etc/shadow",
        "proc.pname": "sh",
        "proc.pcmdline": "sh /actions/ReadSensitiveFileUntrusted.sh",
        "proc.aname[2]": "sh",
        "proc.cwd": "/",
        "group.name": "root",
        "container.privileged": None,
        "k8s.pod.name": None,
    }
    assert_has(found, expected | HOST_ROOT)
    assert found["proc.exepath"] == "/usr/bin/cat"
    assert found["fd.num"] == found["evt.rawres"] >= 3
    assert f"fd={found['fd.num']}(<f>/etc/shadow) dirfd=-100(AT_FDCWD) name=/etc/shadow" in found["evt.args"]
    assert 0 < found["proc.duration"] < 60e9


@pytest.mark.root
def test_a_program_in_a_container(raised: suite.Raised) -> None:
    found = fields(raised, "DropAndExecuteNewBinaryInContainer")
    expected = {
        "evt.type": "execve",
        "evt.rawres": 0,
        "proc.name": "new_program",
        "proc.exe": "/bin/new_program",
        "proc.pname": "sh",
        "proc.is_exe_upper_layer": True,
        "proc.is_exe_from_memfd": False,
        "user.name": "root",
        "container.id": CONTAINER_ID[:12],
        "container.name": "box",
        "container.image.repository": "registry.example/box",
        "container.image.tag": "1",
        "container.privileged": True,
        "k8s.ns.name": "shop",
        "k8s.pod.name": "box-0",
        "fd.name": None,
    }
    assert_has(found, expected)
    assert found["proc.exepath"] in ("/usr/bin/new_program", "/bin/new_program")
    assert found["proc.vpid"] < found["proc.pid"]
    assert "EXE_UPPER_LAYER" in found["evt.arg.flags"]
    assert "CAP_SYS_ADMIN" in found["thread.cap_effective"]


@pytest.mark.root
def test_a_container_that_no_runtime_knows(raised: suite.Raised) -> None:
    found = fields(raised, "ChangeNamespacePrivilegesViaUnshare")
    expected = {"container.id": CONFINED_ID[:12], "container.name": None, "container.privileged": None}
    assert_has(found, expected | {"evt.type": "unshare", "evt.arg.flags": "CLONE_NEWUSER"})
    assert "CAP_SYS_ADMIN" not in found["thread.cap_effective"]


@pytest.mark.root
def test_a_connection(raised: suite.Raised) -> None:
    found = fields(raised, "DisallowedSSHConnectionNonStandardPort")
    expected = {
        "evt.type": "connect",
        "evt.res": "EINPROGRESS",
        "fd.type": "ipv4",
        "fd.l4proto": "tcp",
        "fd.sport": 443,
        "proc.name": "ssh",
    }
    assert_has(found, expected | HOST_ROOT)
    assert str(found["fd.sip"]) == str(found["fd.cip"]) == "198.51.100.7"
    assert found["fd.name"] == f"198.51.100.7:{found['fd.cport']}->198.51.100.7:443"


@pytest.mark.root
def test_a_set_user_bit(raised: suite.Raised) -> None:
    found = fields(raised, "SetSetuidOrSetgidBit")
    assert_has(found, {"evt.type": "fchmodat", "evt.res": "SUCCESS", "proc.name": "chmod"} | HOST_ROOT)
    assert "S_ISUID" in found["evt.arg.mode"]
    assert found["fs.path.name"].startswith("/tmp/tmp.")


@pytest.mark.root
def test_a_program_in_memory(raised: suite.Raised) -> None:
    found = fields(raised, "FilelessExecutionViaMemfdCreate")
    expected = {"proc.exepath": "memfd:program", "proc.exe": "program", "proc.is_exe_from_memfd": True}
    assert_has(found, expected | HOST_ROOT)
    assert "EXE_FROM_MEMFD" in found["evt.arg.flags"]


@pytest.mark.root
def test_users_of_events(raised: suite.Raised) -> None:
    found = [item for item in raised.outputs["NonSudoSetuid"] if item.rule == "Non sudo setuid"]
    refused = next(item.fields for item in found if item.fields["evt.arg.uid"] == "root")
    expected = {"user.name": "daemon", "user.uid": 1, "evt.res": "EPERM", "group.name": "daemon"}
    assert_has(refused, expected | {"thread.cap_effective": ""})
