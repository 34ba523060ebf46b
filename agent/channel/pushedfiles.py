"""The server's side of pushing: configuration and rule files by the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.channel.protocol import FILE_BYTES_LIMIT, FILES_COUNT_LIMIT, PushedFile

CONFIG_NAME = "agent.yml"


class PushError(ValueError):
    """A file that cannot be pushed; the text names it and says why."""


def content_hash(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def set_hash(files: Iterable[PushedFile]) -> str:
    """One hash for a set of files: names and contents, in order; empty for none."""
    lines = "".join(f"{file.name} {file.sha256}\n" for file in files)
    return content_hash(lines.encode()) if lines else ""


@dataclass(frozen=True, slots=True)
class PushedFiles:
    """A set of files in the order in which rules are loaded, and their contents by hash."""

    files: tuple[PushedFile, ...] = ()
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """The hash of the set."""
        return set_hash(self.files)


def read_pushed_files(config_file: str, rules_files: Iterable[str]) -> PushedFiles:
    """Read what is to be pushed; a folder of rules gives its YAML files. Raises PushError, OSError."""
    found: list[tuple[str, bytes]] = []
    if config_file:
        found.append((CONFIG_NAME, _content(Path(config_file))))
    for number, path in enumerate(_rule_paths(rules_files)):
        # The number keeps the order, and two files of one name apart.
        found.append((f"rules/{number:02d}-{path.name}", _content(path)))
    if len(found) > FILES_COUNT_LIMIT:
        raise PushError(f"{len(found)} files to push, the limit is {FILES_COUNT_LIMIT}")
    try:
        files = tuple(
            PushedFile(name=name, sha256=content_hash(content), size=len(content)) for name, content in found
        )
    except ValueError:
        names = ", ".join(name for name, _ in found)
        raise PushError(f"names of pushed files may have letters, digits, . _ and - only: {names}") from None
    return PushedFiles(files, {content_hash(content): content for _, content in found})


def _rule_paths(names: Iterable[str]) -> list[Path]:
    paths: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            paths += sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
        else:
            paths.append(path)
    return paths


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_LIMIT + 1)
    if len(content) > FILE_BYTES_LIMIT:
        raise PushError(f"{path} is larger than the limit of {FILE_BYTES_LIMIT} bytes")
    return content
