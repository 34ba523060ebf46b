"""The agent's side of pushing: files are fetched, checked, tried, and only then the ones that run.

Folder: `files/<sha256>` are contents, `current` is the list of the set that runs. A set that does not work is
remembered and not tried again until the server names another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import orjson

from agent.channel.protocol import (
    FilesStatus,
    ProtocolError,
    PushedFile,
    ReportAnswer,
    parse,
)
from agent.channel.pushedfiles import content_hash, set_hash
from tsdb.errors import StorageError
from tsdb.fs import FileSystem

Apply = Callable[[Sequence[tuple[PushedFile, Path]]], Awaitable[None]]
"""Makes the agent run with these files; raises what is wrong with them, having changed nothing."""
Fetch = Callable[[PushedFile], Awaitable[bytes]]

_log = logging.getLogger("vedette.agent")


class StagedFiles:
    """Files that the server has pushed. Event loop only."""

    def __init__(self, folder: Path, apply: Apply, fs: FileSystem | None = None) -> None:
        self._folder = folder
        self._apply = apply
        self._fs = fs or FileSystem()
        self.status = FilesStatus()

    async def resume(self) -> None:
        """Run with the set of the last time, before a server is reached; a damaged one is left out."""
        answer = await asyncio.to_thread(self._read_current)
        if answer is None:
            return
        files = tuple(answer.files)
        try:
            await asyncio.to_thread(self._check_contents, files)
            await self._apply(self._paths(files))
        except Exception as error:
            _log.warning("files of the server do not work any more", extra={"error": str(error)})
            return
        self.status = FilesStatus(set=set_hash(files))

    async def follow(self, answer: ReportAnswer, fetch: Fetch) -> None:
        """Become what the server announces; what goes wrong is in `status` and the running set stays."""
        files = tuple(answer.files)
        if answer.set == self.status.set or answer.set == (self.status.rejected or None):
            return
        try:
            if set_hash(files) != answer.set:
                raise ProtocolError("the hash of the set is not that of its files")
            if len({file.name for file in files}) != len(files):
                raise ProtocolError("a name occurs twice in the set")
            for file in files:
                await self._obtain(file, fetch)
        except Exception as error:
            # Not rejected: the next report tries again.
            self._fail("files of the server could not be fetched", error, self.status.rejected)
            return
        try:
            await self._apply(self._paths(files))
        except Exception as error:
            self._fail("files of the server are refused, the running ones stay", error, answer.set)
            return
        try:
            await asyncio.to_thread(self._make_current, answer)
        except (StorageError, OSError) as error:
            _log.warning("files of the server run, but not after a restart", extra={"error": str(error)})
        self.status = FilesStatus(set=answer.set)
        _log.info("runs with files of the server", extra={"files": len(files), "set": answer.set[:12]})

    def _fail(self, what: str, error: Exception, rejected: str) -> None:
        text = str(error)[:1000]
        if text != self.status.error:
            _log.warning(what, extra={"error": text})
        self.status = FilesStatus(set=self.status.set, rejected=rejected, error=text)

    async def _obtain(self, file: PushedFile, fetch: Fetch) -> None:
        path = self._content_path(file)
        if await asyncio.to_thread(self._is_good, path, file):
            return
        content = await fetch(file)
        if content_hash(content) != file.sha256:
            raise ProtocolError(f"content of {file.name} does not match its hash")
        await asyncio.to_thread(self._store, path, content)

    def _is_good(self, path: Path, file: PushedFile) -> bool:
        return self._fs.exists(path) and content_hash(self._fs.read_file(path)) == file.sha256

    def _check_contents(self, files: Sequence[PushedFile]) -> None:
        for file in files:
            if not self._is_good(self._content_path(file), file):
                raise ProtocolError(f"content of {file.name} is damaged")

    def _store(self, path: Path, content: bytes) -> None:
        self._fs.make_directory(path.parent)
        temporary = path.with_suffix(".tmp")
        self._fs.write_file(temporary, [content])
        self._fs.rename(temporary, path)

    def _content_path(self, file: PushedFile) -> Path:
        return self._folder / "files" / f"{file.sha256}.yaml"

    def _paths(self, files: Sequence[PushedFile]) -> list[tuple[PushedFile, Path]]:
        return [(file, self._content_path(file)) for file in files]

    def _read_current(self) -> ReportAnswer | None:
        path = self._folder / "current"
        if not self._fs.exists(path):
            return None
        try:
            answer = parse(ReportAnswer, self._fs.read_file(path))
        except ProtocolError as error:
            _log.warning("list of the server's files is damaged", extra={"error": str(error)})
            return None
        return answer if answer.set == set_hash(answer.files) else None

    def _make_current(self, answer: ReportAnswer) -> None:
        self._fs.make_directory(self._folder)
        self._store(self._folder / "current", orjson.dumps(answer.model_dump()))
        kept = {self._content_path(file).name for file in answer.files}
        for name in self._fs.list(self._folder / "files"):
            if name not in kept:
                self._fs.remove(self._folder / "files" / name)
