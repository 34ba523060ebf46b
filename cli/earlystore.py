"""The store, opened by a thread while the rest of the server is still being imported and configured.

A replay takes both cores for seconds, and importing what a server consists of one for the better part of a
second. What the log is replayed into depends on flags only; the store waits for the options of the
configuration before it makes use of them (`tsdb.database.open_database`).
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from cli.flags import ServeFlags
from tsdb.database import Database, open_database
from tsdb.datadirectory import WAL_DIRECTORY
from tsdb.limits import StorageOptions
from tsdb.replay import ReplayProgress


def has_log(flags: ServeFlags) -> bool:
    """Whether there is something to replay; a folder that is none of a store is left alone until the
    configuration is known to be right."""
    return Path(flags["storage.tsdb.path"], WAL_DIRECTORY).is_dir()


class StoreOpening:
    """A store that is being opened. One thread tells the options, or that there will be none."""

    def __init__(self, flags: ServeFlags) -> None:
        """Nothing happens yet: see `begin`."""
        self.registry = CollectorRegistry()
        self.progress = ReplayProgress()
        self.database: Future[Database] = Future()
        """Done when the store is open; with what `open_database` raises otherwise."""
        self._path = flags["storage.tsdb.path"]
        self._early = replace(
            StorageOptions(),
            block_range_ms=flags.duration_ms("storage.tsdb.min-block-duration"),
            lock_file=not flags["storage.tsdb.no-lockfile"],
        )
        self._options: Future[StorageOptions] = Future()
        self._begun = False

    def begin(self) -> None:
        """Let a thread open the store, if none does yet. It ends with the process."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._open, name="store-opening", daemon=True).start()

    def settle(self, options: StorageOptions) -> None:
        """The options, as the configuration says. Once."""
        self._options.set_result(options)

    def _open(self) -> None:
        try:
            self.database.set_result(
                open_database(
                    self._path,
                    self._early,
                    registry=self.registry,
                    progress=self.progress,
                    settled=self._options.result,
                )
            )
        except BaseException as error:
            # Whatever it is: the server waits for this thread.
            self.database.set_exception(error)
