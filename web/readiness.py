"""Whether the server may answer: not yet (replaying the WAL), ready, or stopping."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Life of a server."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Readiness:
    """One switch, set by the process that wires the parts, read by every request. Loop thread only.

    Starts as STARTING; `is_ready` turns true with `set_ready` and false for good with `set_stopping`.
    """

    def __init__(self) -> None:
        self._state = State.STARTING

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether gated routes answer."""
        return self._state is State.READY

    @property
    def is_stopping(self) -> bool:
        """What the header X-Prometheus-Stopping says."""
        return self._state is State.STOPPING

    def set_ready(self) -> None:
        """The store is open and the kernels of the write path are loaded."""
        if self._state is State.STARTING:
            self._state = State.READY

    def set_stopping(self) -> None:
        """Shutdown has begun; there is no way back."""
        self._state = State.STOPPING
