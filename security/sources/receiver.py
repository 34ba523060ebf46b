"""Bodies of JSON events, from a webhook or a file, on their way into the pipeline."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

from security.pipeline import Pipeline
from security.sources.json_events import InvalidEventError, JsonBatches, JsonSource

BATCH_EVENTS_LIMIT = 4096
"""Events that are matched at once."""


class BodyReceiver:
    """Feeds one source. Any thread; bodies are taken one at a time."""

    def __init__(
        self, source: JsonSource, pipeline: Pipeline, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.source = source
        self.bodies: Counter[str] = Counter()
        """Bodies by outcome: accepted, invalid, too_large, refused."""
        self._batches = JsonBatches(source, hostname=pipeline.hostname)
        self._pipeline, self._clock_ns = pipeline, clock_ns
        self._lock = threading.Lock()

    @property
    def events_count(self) -> int:
        """Events read."""
        return self._batches.events_count

    def receive(self, body: bytes) -> Future[None]:
        """Match the events of a body and deliver what was found; done when that is on disk.

        Blocks while it parses and matches. Raises InvalidEventError where the body holds no event.
        """
        with self._lock:
            try:
                events = self._batches.read(body, self._clock_ns())
            except InvalidEventError:
                self.bodies["invalid"] += 1
                raise
            records = []
            for start in range(0, len(events), BATCH_EVENTS_LIMIT):
                records += self._pipeline.match(
                    self._batches.batch(events[start : start + BATCH_EVENTS_LIMIT])
                )
        self.bodies["accepted"] += 1
        if not records:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return self._pipeline.deliver(records)
