"""The store, opened by a thread while the rest of the server is still being imported and configured.

A replay takes both cores for seconds, and importing what a server consists of one for the better part of a
second. What the log is replayed into depends on flags only; the store waits for the options of the
configuration before it makes use of them (`tsdb.database.open_database`).
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from cli.flags import ServeFlags
from tsdb.database import Database, open_database
from tsdb.datadirectory import WAL_DIRECTORY
from tsdb.limits import StorageOptions
from tsdb.replay import SWITCH_INTERVAL_S, ReplayProgress

_HEAD_START_S = 0.3
"""The most that imports wait: a disk may be slow."""


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
            # Until the replay begins, too: whoever imports would keep the interpreter for 5 ms each time that
            # this thread waits for a file.
            self._interval_s = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            threading.Thread(target=self._open, name="store-opening", daemon=True).start()

    def wait_until_storing(self) -> None:
        """Let the store have the interpreter until its samples are being stored, or it waits for options.

        Before, it has one thread that is hindered by whoever imports, and a processor has nothing to do.
        """
        self.progress.storing.wait(_HEAD_START_S)

    def settle(self, options: StorageOptions) -> None:
        """The options, as the configuration says. Once."""
        self._options.set_result(options)

    def _open(self) -> None:
        try:
            database = open_database(
                self._path,
                self._early,
                registry=self.registry,
                progress=self.progress,
                settled=self._wait_for_options,
            )
        except BaseException as error:
            # Whatever it is: the server waits for this thread.
            self._leave_the_interpreter()
            self.database.set_exception(error)
        else:
            self._leave_the_interpreter()
            self.database.set_result(database)

    def _leave_the_interpreter(self) -> None:
        self.progress.storing.set()
        sys.setswitchinterval(self._interval_s)

    def _wait_for_options(self) -> StorageOptions:
        self.progress.storing.set()
        return self._options.result()
