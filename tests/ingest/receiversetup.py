"""A remote-write receiver over a memory appender."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import cramjam
from prometheus_client import CollectorRegistry

from benchmarks.load import encode
from benchmarks.load.encode import Series
from ingest.remotewrite.receiver import Receiver, RemoteWriteLimits
from tests.ingest.memoryappender import MemoryAppender
from tsdb.labels import Labels
from tsdb.series import SeriesTable
from tsdb.symbols import SymbolTable

V1 = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
V2 = {
    "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    "Content-Encoding": "snappy",
}
UP = [(b"__name__", b"up"), (b"job", b"node")]
DOWN = [(b"__name__", b"down"), (b"job", b"node")]
UP_LABELS = Labels.from_dict({"__name__": "up", "job": "node"})
LIMITS = RemoteWriteLimits(body_bytes_max=1 << 20, decoded_bytes_max=1 << 16, waiting_requests_max=4)


class Setup:
    """A receiver over a memory appender."""

    def __init__(self, **options: object) -> None:
        self.appender = MemoryAppender()
        self.registry = CollectorRegistry()
        table = SeriesTable(SymbolTable(), (1, 2), series_limit=4096)
        self.receiver = Receiver(self.appender, table, LIMITS, self.registry, threads=1, **options)  # type: ignore[arg-type]

    async def send(
        self, message: bytes, headers: Mapping[str, str] = V1, compress: bool = True
    ) -> tuple[int, Mapping[str, str], str]:
        body = bytes(cramjam.snappy.compress_raw(message)) if compress else message
        return await self.receiver.handle(body, headers)

    async def v1(self, *rows: Series) -> tuple[int, str]:
        status, _, text = await self.send(encode.write_request_v1(rows))
        return status, text

    async def v2(self, *rows: Series) -> tuple[int, str, list[int]]:
        status, headers, text = await self.send(encode.write_request_v2(rows), V2)
        kinds = ("Samples", "Histograms", "Exemplars")
        return status, text, [int(headers[f"X-Prometheus-Remote-Write-{kind}-Written"]) for kind in kinds]

    def stored(self) -> dict[str, list[tuple[int, float]]]:
        return {
            str(labels): [
                (t, struct.unpack("<d", struct.pack("<Q", bits))[0]) for t, bits in sorted(found.items())
            ]
            for labels, found in self.appender.samples.items()
            if found
        }

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0
