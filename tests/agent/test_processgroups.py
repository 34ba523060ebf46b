"""Which group a process belongs to."""

from __future__ import annotations

import pytest
import re2

from agent.processes import Process
from agent.processgroups import Group, GroupNames, GroupRule
from security.fields.containerids import ContainerPath


def process(comm: str, exe_path: str, *arguments: str, ppid: int = 1) -> Process:
    data = b"\0".join(argument.encode() for argument in arguments)
    return Process(7, 0, ppid, 0, comm, arguments=data, exe_path=exe_path)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (process("nginx", "/usr/sbin/nginx", "nginx: worker process"), "nginx"),
        (process("victoria-metric", "/usr/bin/victoria-metrics", "victoria-metrics"), "victoria-metrics"),
        (process("kworker/0:1H-kb", "", ppid=2), "kworker"),
        (process("ksoftirqd/3", "", ppid=2), "ksoftirqd"),
        (process("python3", "/usr/bin/python3.11", "python3", "-u", "/srv/app.py", "x"), "python3.11:app.py"),
        (process("python3", "/usr/bin/python3.11", "python3", "-m", "http.server"), "python3.11:http.server"),
        (process("python3", "/usr/bin/python3.11", "python3", "-c", "print(1)"), "python3"),
        (process("node", "/usr/bin/node", "node", "server.js"), "node:server.js"),
        (process("MainThread", "/usr/bin/node", "node"), "MainThread"),
        (process("bash", "/usr/bin/bash", "-bash"), "bash"),
        (process("java", "/opt/jdk/bin/java", "java", "-Xmx1g", "-jar", "/opt/shop.jar"), "java:shop.jar"),
        (process("java", "/opt/jdk/bin/java", "java", "-cp", "a:b", "org.x.Main"), "java:org.x.Main"),
        (process("java", "/opt/jdk/bin/java", "java"), "java:"),
        (process("evil\x1b[2J\n", "/tmp/evil"), "evil\\x1b[2J\\x0a"),
        (process("x" * 15, "/x", *["x"]), "x" * 15),
    ],
)
def test_a_process_is_named_by_what_it_runs(given: Process, name: str) -> None:
    assert GroupNames().group(given) == Group(name, "")


def test_rules_come_first_and_all_their_parts_must_fit() -> None:
    names = GroupNames(
        [
            GroupRule("backup", exe=frozenset({"/usr/bin/tar"}), command_line=re2.compile("/var/backups")),
            GroupRule("archive", exe=frozenset({"tar"})),
            GroupRule("db", comm=frozenset({"postgres", "mysqld"})),
        ]
    )
    tar = process("tar", "/usr/bin/tar", "tar", "cf", "/var/backups/x.tar")
    assert names.group(tar).name == "backup"
    assert names.group(process("tar", "/usr/bin/tar", "tar", "cf", "/tmp/x.tar")).name == "archive"
    assert names.group(process("mysqld", "/usr/sbin/mysqld")).name == "db"
    assert names.group(process("mysql", "/usr/bin/mysql")).name == "mysql"


def test_the_same_program_in_two_containers_is_two_groups() -> None:
    inside = process("nginx", "/usr/sbin/nginx")
    inside.container = ContainerPath("a" * 64, "docker")
    assert GroupNames().group(inside) == Group("nginx", "a" * 64)
