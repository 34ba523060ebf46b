"""Remote-write bodies, encoded once into a file and sent to every server from there.

A request is a template whose times and values are patched in place by numpy: times of today have six varint
bytes, values eight, so that no length changes. Encoding costs about half a microsecond a sample.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cramjam
import numpy as np
import numpy.typing as npt

from benchmarks.load import encode
from benchmarks.load.nodes import SeriesSet, Values
from ingest.remotewrite.protobuf import length_delimited

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

SAMPLES_PER_REQUEST = 2000
"""What a Prometheus sends by default (max_samples_per_send)."""

_PLACEHOLDER_MS = 1_700_000_000_000
_TIME_BYTES = 6
_SAMPLE_BYTES = 2 + 1 + 8 + 1 + _TIME_BYTES
"""A sample in its series: tag and length, tag and value, tag and time."""
_VALUE_AT = 3
_TIME_MIN, _TIME_MAX = 1 << 35, 1 << 42


class Template:
    """One request of some samples a series, with the places of times and values."""

    def __init__(self, labels: Sequence[tuple[tuple[str, str], ...]], samples: int = 1) -> None:
        parts, places, position = [], [], 0
        placeholders = [(_PLACEHOLDER_MS, 1.0)] * samples
        for pairs in labels:
            raw = [(name.encode(), value.encode()) for name, value in pairs]
            series = length_delimited(1, encode.time_series_v1(encode.Series(raw, placeholders)))
            parts.append(series)
            position += len(series)
            places += [position - _SAMPLE_BYTES * left + _VALUE_AT for left in range(samples, 0, -1)]
        self._bytes: U8Array = np.frombuffer(b"".join(parts), dtype=np.uint8).copy()
        at = np.array(places, dtype=np.int64)
        self._value_places = at[:, None] + np.arange(8)
        self._time_places = at[:, None] + 9 + np.arange(_TIME_BYTES)
        self._shifts = 7 * np.arange(_TIME_BYTES)
        self._more = np.array([0x80] * (_TIME_BYTES - 1) + [0])

    def fill(self, t_ms: I64Array, values: F64Array) -> U8Array:
        """The message with these times and values, series by series; valid until the next call."""
        if not (int(t_ms.min()) >= _TIME_MIN and int(t_ms.max()) < _TIME_MAX):
            raise ValueError("times must have six varint bytes (1971 to 2109)")
        self._bytes[self._value_places] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
        self._bytes[self._time_places] = (t_ms[:, None] >> self._shifts) & 0x7F | self._more
        return self._bytes

    def compressed(self, t_ms: I64Array, values: F64Array) -> bytes:
        """The body of a request."""
        return bytes(cramjam.snappy.compress_raw(self.fill(t_ms, values).data))


@dataclass(frozen=True, slots=True)
class Load:
    """A load in a file: request r is bytes `offsets[r] .. offsets[r+1]`, for the connection `lanes[r]`."""

    path: Path
    offsets: I64Array
    lanes: I64Array
    sample_count: int
    series_count: int
    start_ms: int
    end_ms: int

    def bodies(self, lane: int) -> Iterator[bytes]:
        """Requests of one connection in order."""
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for request in np.flatnonzero(self.lanes == lane).tolist():
                yield data[int(self.offsets[request]) : int(self.offsets[request + 1])]


class StepValues(Protocol):
    """Values of all series of a set, one scrape after the other."""

    def step(self) -> F64Array:
        """Values at the next scrape, f64[S]; valid until the next call."""
        ...


class LoadWriter:
    """Encodes scrapes of a set of series, as many at a time as a disk has room for.

    Hosts are scraped at their own moment of the step. A series is always sent by the same lane, so that its
    samples stay in order.
    """

    def __init__(
        self,
        series: SeriesSet,
        values: StepValues,
        *,
        step_ms: int,
        lane_count: int,
        seed: int,
        steps_together: int = 1,
    ) -> None:
        """`seed` places the hosts within the step.

        `steps_together` scrapes of a series go into one request. No Prometheus sends so, but it fills servers
        for other measurements in a fraction of the time.
        """
        self._series, self._values = series, values
        self.step_ms, self.lane_count = step_ms, lane_count
        self.series_count = len(series)
        self._cuts = list(range(0, len(series), SAMPLES_PER_REQUEST))
        self.steps_together = steps_together
        self._templates = [
            Template(series.labels[cut : cut + SAMPLES_PER_REQUEST], steps_together) for cut in self._cuts
        ]
        phase = np.random.default_rng(seed).integers(0, step_ms, int(series.host.max()) + 1)
        self._phase = phase[series.host]

    def scrapes(self, step_ms: int) -> Iterator[bytes]:
        """Requests of the next scrapes, the first one within the step that begins at `step_ms`."""
        together = range(self.steps_together)
        t_ms = np.stack([step_ms + step * self.step_ms + self._phase for step in together], axis=1)
        values = np.stack([self._values.step().copy() for _ in together], axis=1)
        for cut, template in zip(self._cuts, self._templates, strict=True):
            part = slice(cut, cut + SAMPLES_PER_REQUEST)
            yield template.compressed(t_ms[part].ravel(), values[part].ravel())

    def write(self, path: Path, first_ms: int, steps: int) -> Load:
        """The next `steps` scrapes, the first one within the step that begins at `first_ms`.

        `steps` must be a multiple of the scrapes that go together.
        """
        if steps % self.steps_together:
            raise ValueError(f"{steps} scrapes do not fill requests of {self.steps_together}")
        offsets, lanes = [0], []
        with path.open("wb") as file:
            for step in range(0, steps, self.steps_together):
                for index, body in enumerate(self.scrapes(first_ms + step * self.step_ms)):
                    offsets.append(offsets[-1] + file.write(body))
                    lanes.append(index % self.lane_count)
            file.flush()
            os.fsync(file.fileno())
        count, end_ms = steps * len(self._series), first_ms + steps * self.step_ms
        return Load(path, np.array(offsets), np.array(lanes), count, len(self._series), first_ms, end_ms)


def write_load(
    path: Path,
    series: SeriesSet,
    *,
    steps: int,
    step_ms: int,
    end_ms: int,
    lane_count: int,
    seed: int,
) -> Load:
    """Encode `steps` scrapes of generated values that end at `end_ms`."""
    writer = LoadWriter(series, Values(series, seed), step_ms=step_ms, lane_count=lane_count, seed=seed)
    return writer.write(path, end_ms - steps * step_ms, steps)
