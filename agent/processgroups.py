"""Which group a process belongs to: programs that do the same in the same container count together."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent.processes import Process
from security.fields.parameters import escape

NAME_CHARACTERS_LIMIT = 64
KERNEL_PARENT_PID = 2
COMM_CHARACTERS = 15
INTERPRETERS = re.compile(r"^(python|perl|ruby|node|php|lua|bash|sh|dash)[0-9.]*$")
"""Programs whose first file argument tells more than their own name."""
SCRIPT_ARGUMENTS_LIMIT = 5


class Group(NamedTuple):
    """A process group; the whole id of its container, empty on the host."""

    name: str
    container_id: str


OTHER = Group("other", "")
"""Stands for all groups beyond the limit."""


@dataclass(frozen=True, slots=True)
class GroupRule:
    """Processes that fit all given parts belong to the group `name`. Empty parts fit everything."""

    name: str
    comm: frozenset[str] = frozenset()
    exe: frozenset[str] = frozenset()
    """Base names or absolute paths."""
    command_line: re.Pattern[str] | None = None

    def fits(self, process: Process) -> bool:
        """Whether a process belongs to this group."""
        if self.comm and process.comm not in self.comm:
            return False
        if self.exe and not self.exe & {process.exe_path, posixpath.basename(process.exe_path)}:
            return False
        return self.command_line is None or self.command_line.search(process.command_line) is not None


def default_name(process: Process) -> str:
    """The kernel's name of a process; an interpreter with its script, a kernel thread without numbers."""
    if process.ppid == KERNEL_PARENT_PID:
        return re.split(r"[/:.\d]", process.comm, maxsplit=1)[0] or process.comm
    exe = posixpath.basename(process.exe_path) or process.comm
    words = process.argument_list[1:]
    if INTERPRETERS.match(exe):
        script = _script(words[:SCRIPT_ARGUMENTS_LIMIT])
        return f"{exe}:{script}" if script else process.comm
    if exe == "java":
        return f"java:{_java_program(words)}"
    # The kernel cuts names; the file has the rest.
    return exe if len(process.comm) == COMM_CHARACTERS and exe.startswith(process.comm) else process.comm


def _script(words: Sequence[str]) -> str:
    """Base name of the file, or the module, that an interpreter runs; empty for code on the command line."""
    for at, word in enumerate(words):
        if word == "-m" and at + 1 < len(words):
            return words[at + 1]
        if word in ("-c", "-e"):
            return ""
        if not word.startswith("-"):
            return posixpath.basename(word)
    return ""


def _java_program(arguments: Sequence[str]) -> str:
    """The jar or main class of a java command line."""
    takes_value = False
    for at, argument in enumerate(arguments):
        if takes_value:
            takes_value = False
        elif argument == "-jar":
            return posixpath.basename(next(iter(arguments[at + 1 :]), ""))
        elif argument in ("-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules"):
            takes_value = True
        elif not argument.startswith("-"):
            return argument.rpartition("/")[2]
    return ""


class GroupNames:
    """Names processes by the first rule that fits, else by `default_name`. Any thread."""

    def __init__(self, rules: Sequence[GroupRule] = ()) -> None:
        self._rules = tuple(rules)

    def group(self, process: Process) -> Group:
        """The group of a process as it is now."""
        name = next((rule.name for rule in self._rules if rule.fits(process)), "") or default_name(process)
        container_id = process.container.id if process.container is not None else ""
        return Group(escape(name)[:NAME_CHARACTERS_LIMIT], container_id)
