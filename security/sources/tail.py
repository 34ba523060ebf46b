"""Files and folders of JSON events that are followed: logs that grow and rotate, files that appear.

How far each file was read is kept in a file of positions, written after the events are on disk: after a crash
an event may be seen twice, never lost.
"""

from __future__ import annotations

import glob
import logging
import os
import threading
from collections import Counter
from concurrent.futures import CancelledError, TimeoutError
from pathlib import Path

import orjson

from security.pipeline import QueueFullError
from security.sources.json_events import BODY_BYTES_LIMIT, InvalidEventError
from security.sources.receiver import BodyReceiver
from tsdb.errors import StorageError

log = logging.getLogger("security")

POLL_S = 1.0
PIECE_BYTES = 4 << 20
"""What is read of a growing file at once; a line that is longer is skipped."""
FILES_COUNT_LIMIT = 100_000
"""Files whose positions are kept; beyond that those that are gone are forgotten first."""
_DURABLE_WAIT_S = 30.0


class FileFollower:
    """Follows the files of one source in a thread of its own.

    `whole_files` is for files that are written once (CloudTrail): each is read from its beginning, as one
    body. Without it files grow by lines: what is there at the very first start is skipped.
    """

    def __init__(
        self, receiver: BodyReceiver, patterns: list[str], positions: Path, *, whole_files: bool
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Files and lines that could not be used, by reason."""
        self._receiver, self._patterns, self._whole = receiver, patterns, whole_files
        self._positions_path = positions
        self._first = not positions.exists()
        self._positions: dict[str, tuple[int, int]] = self._load()
        """Inode and offset of each file."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(target=self._run, name="follow-files", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the round and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.poll()
            except Exception:
                log.exception("Following files of events failed")
            if self._stop.wait(POLL_S):
                return

    def poll(self) -> None:
        """One round over all files."""
        changed = False
        for path in self._files():
            if self._stop.is_set():
                break
            try:
                changed |= self._read_whole(path) if self._whole else self._read_lines(path)
            except FileNotFoundError:
                continue
            except (OSError, StorageError, QueueFullError, TimeoutError, CancelledError) as error:
                # Its position stays: the next round reads it again.
                self.counts["failures"] += 1
                log.warning("File of events not read, trying again", extra={"file": path, "err": str(error)})
        if changed or self._first:
            self._save()
        self._first = False

    def _files(self) -> list[str]:
        found: dict[str, None] = {}
        for pattern in self._patterns:
            for path in sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]:
                if os.path.isdir(path):
                    inside = (os.path.join(root, name) for root, _, names in os.walk(path) for name in names)
                    found |= dict.fromkeys(sorted(inside))
                else:
                    found[path] = None
        return list(found)

    def _read_whole(self, path: str) -> bool:
        status = os.stat(path)
        known = self._positions.get(path)
        if known == (status.st_ino, status.st_size):
            return False
        if status.st_size > BODY_BYTES_LIMIT:
            self._skip(path, f"file of {status.st_size} bytes is larger than {BODY_BYTES_LIMIT}")
        else:
            self._receive(path, Path(path).read_bytes())
        self._positions[path] = status.st_ino, status.st_size
        return True

    def _read_lines(self, path: str) -> bool:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            inode, offset = self._positions.get(path, (status.st_ino, status.st_size if self._first else 0))
            before = (inode, offset)
            if inode != status.st_ino or offset > status.st_size:
                # Rotated or truncated; what a rotation left unread is in a file of another name.
                offset = 0
            while offset < status.st_size and not self._stop.is_set():
                file.seek(offset)
                piece = file.read(PIECE_BYTES)
                end = piece.rfind(b"\n") + 1
                if end:
                    self._receive(path, piece[:end])
                elif len(piece) == PIECE_BYTES:
                    self._skip(path, f"line is longer than {PIECE_BYTES} bytes")
                    end = len(piece)
                else:
                    break
                offset += end
                self._positions[path] = status.st_ino, offset
        self._positions[path] = status.st_ino, offset
        return before != (status.st_ino, offset) or path not in self._positions

    def _receive(self, path: str, body: bytes) -> None:
        if not body.strip():
            return
        try:
            self._receiver.receive(body).result(_DURABLE_WAIT_S)
        except InvalidEventError as error:
            self._skip(path, str(error))

    def _skip(self, path: str, reason: str) -> None:
        self.counts["skipped"] += 1
        log.warning("Part of a file of events is skipped", extra={"file": path, "reason": reason})

    # Positions.

    def _load(self) -> dict[str, tuple[int, int]]:
        try:
            found = orjson.loads(self._positions_path.read_bytes())
            return {str(path): (int(inode), int(offset)) for path, (inode, offset) in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("Positions of followed files are unreadable", extra={"err": str(error)})
            return {}

    def _save(self) -> None:
        if len(self._positions) > FILES_COUNT_LIMIT:
            self._positions = {p: at for p, at in self._positions.items() if os.path.exists(p)}
        temporary = self._positions_path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(orjson.dumps(self._positions))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._positions_path)
