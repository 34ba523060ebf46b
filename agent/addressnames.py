"""Addresses of the host names that rules compare `fd.sip.name` and its kin with.

Falco resolves the name in the rule, not the address in the event; a thread does so here, again every five
minutes, so that the watching thread never waits for a name server.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable

from security.engine import RuleEngine

REFRESH_SECONDS = 300.0
NAMES_LIMIT = 1024
_FIELDS = frozenset(("fd.cip.name", "fd.sip.name", "fd.lip.name", "fd.rip.name"))
_log = logging.getLogger("vedette.agent")

Resolve = Callable[[str], Iterable[str]]


def rule_host_names(engine: RuleEngine | None) -> frozenset[str]:
    """Host names in the conditions about system calls, at most `NAMES_LIMIT`."""
    program = None if engine is None else engine.rules.programs.get("syscall")
    if program is None:
        return frozenset()
    names = sorted(
        str(value)
        for predicate in program.predicates
        if predicate.operand.field is not None and predicate.operand.field.info.name in _FIELDS
        for value in predicate.values
    )
    return frozenset(names[:NAMES_LIMIT])


def addresses_of(name: str) -> list[str]:
    """Addresses of a host name by the system's resolver. Raises OSError when it has none."""
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


class AddressNames:
    """Names by address. `name_of` never waits; any thread."""

    def __init__(self, resolve: Resolve = addresses_of) -> None:
        self._resolve = resolve
        self._names: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}
        self._changed = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def name_of(self, address: str) -> str | None:
        """The name, of those that are followed, that an address in text form belongs to."""
        return self._known.get(address)

    def follow(self, names: frozenset[str]) -> None:
        """Resolve these names from now on; a thread is started for the first ones."""
        if names == self._names:
            return
        self._names = names
        self._changed.set()
        if names and self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="address-names", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; it does not wait for a look-up that hangs."""
        self._stopping = True
        self._changed.set()
        self._thread = None

    def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            self._known = self._look_up(self._names)
            self._changed.wait(REFRESH_SECONDS)

    def _look_up(self, names: frozenset[str]) -> dict[str, str]:
        known: dict[str, str] = {}
        for name in sorted(names):
            try:
                known.update((address, name) for address in self._resolve(name))
            except OSError as error:
                _log.debug("A host name of the rules has no address: %s: %s", name, error)
        return known
