"""All destinations of the `remote_write` section: started, kept over a reload, ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from ingest.config.remote import UNSUPPORTED_CREDENTIALS, RemoteWriteConfig
from ingest.remotewrite.forwardmetrics import ForwardFamilies, ForwardMetrics
from ingest.remotewrite.outflow import LabelsOf, Outflow, Place
from tsdb.columns import AppendResult, Metadata, WriteBatch
from tsdb.errors import StorageError
from tsdb.labels import Labels
from tsdb.series import SeriesTable

QUEUE_BYTES_LIMIT = 1 << 30
FLUSH_SECONDS = 5.0
_KEY_CHARACTERS = 16

_log = logging.getLogger("vedette.remote_write")


class Destinations:
    """`offer` is called by the store's writers; everything else on the event loop."""

    def __init__(
        self,
        folder: Path,
        labels_of: LabelsOf,
        families: Callable[[], Sequence[Metadata]],
        registry: CollectorRegistry | None,
        user_agent: str,
        *,
        queue_bytes: int = QUEUE_BYTES_LIMIT,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        """`families` gives what is known of metric families now; queues lie below `folder`."""
        self._folder = folder
        self._labels_of = labels_of
        self._families = families
        self._metrics = ForwardFamilies(registry)
        self._user_agent = user_agent
        self._queue_bytes = queue_bytes
        self._flush_seconds = flush_seconds
        self._outflows: dict[str, tuple[Outflow, ForwardMetrics, asyncio.Task[None] | None]] = {}
        self._active: tuple[Outflow, ...] = ()

    def offer(self, batch: WriteBatch, result: AppendResult) -> None:
        """What the store has just taken, for all destinations. Never waits."""
        for outflow in self._active:
            outflow.offer(batch, result)

    async def apply(self, configs: Sequence[RemoteWriteConfig], external_labels: Mapping[str, str]) -> None:
        """Send to these destinations from now on; those that have not changed go on undisturbed.

        One that cannot start says why in the log, and the others go on.
        """
        wanted = {
            _key(configs, index): config
            for index, config in enumerate(configs)
            if all(getattr(config, kind) is None for kind in UNSUPPORTED_CREDENTIALS)
        }
        for key, (outflow, _, _) in list(self._outflows.items()):
            if wanted.get(key) != outflow.config or outflow.external_labels != dict(external_labels):
                await self._end(key)
        await asyncio.to_thread(self._remove_others, frozenset(wanted))
        for key, config in wanted.items():
            if key not in self._outflows:
                await self._begin(key, config, external_labels)
        self._renew()

    async def _begin(self, key: str, config: RemoteWriteConfig, external_labels: Mapping[str, str]) -> None:
        metrics = self._metrics.destination(config.name or key[:6], config.url)
        place = Place(self._folder / key, self._queue_bytes)
        try:
            outflow = await asyncio.to_thread(
                Outflow, config, external_labels, self._labels_of, place, metrics, self._user_agent
            )
        except (StorageError, OSError) as error:
            metrics.forget()
            _log.error("remote write does not run", extra={"url": config.url, "reason": str(error)})
            return
        await outflow.start()
        task = asyncio.create_task(self._describe(outflow)) if config.metadata_config.send else None
        self._outflows[key] = (outflow, metrics, task)

    async def _describe(self, outflow: Outflow) -> None:
        while True:
            await asyncio.sleep(outflow.config.metadata_config.send_interval.seconds)
            if families := self._families():
                outflow.describe(families)

    async def _end(self, key: str) -> None:
        outflow, metrics, task = self._outflows.pop(key)
        self._renew()
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await outflow.stop(self._flush_seconds)
        metrics.forget()

    def _renew(self) -> None:
        self._active = tuple(outflow for outflow, _, _ in self._outflows.values())

    def _remove_others(self, wanted: frozenset[str]) -> None:
        """Queues of destinations that the configuration does not name any more: nobody will send them."""
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:
            if path.is_dir() and len(path.name) >= _KEY_CHARACTERS and path.name not in wanted:
                _log.warning("queue of a destination that is gone is removed", extra={"folder": str(path)})
                shutil.rmtree(path, ignore_errors=True)

    async def close(self) -> None:
        """Stop all, after a moment for what is on its way."""
        await asyncio.gather(*(self._end(key) for key in list(self._outflows)))


def _key(configs: Sequence[RemoteWriteConfig], index: int) -> str:
    """Name of a destination's folder: the same as long as its name, address and message are, whatever else
    of it changes."""
    config = configs[index]
    subject = (config.name, config.url, config.protobuf_message)
    twins = sum((other.name, other.url, other.protobuf_message) == subject for other in configs[:index])
    digest = hashlib.sha256("\n".join((*subject, str(twins))).encode()).hexdigest()
    return digest[:_KEY_CHARACTERS]


def labels_by_ref(table: SeriesTable) -> LabelsOf:
    """Label sets of refs of a store's table."""

    def labels_of(refs: Sequence[int]) -> dict[int, Labels]:
        with table.lock:
            slots, known = table.slots_of(np.array(refs, np.uint32))
            found = table.labels_of(slots[known])
        alive = (ref for ref, is_alive in zip(refs, known.tolist(), strict=True) if is_alive)
        return dict(zip(alive, found.rows(), strict=True))

    return labels_of
