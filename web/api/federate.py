"""/federate: the newest sample of each selected series as exposition text (prometheus-surface.md 1.4).

Timestamps are always written, types are untyped, external labels are added only where a series has no such
label, and a series without an instance gets an empty one. Native histograms are left out of the text format.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from aiohttp import web

from promql.numberformat import format_g
from promql.printer import label_name
from promql.quoting import quote
from tsdb.labels import METRIC_NAME, Labels, Matcher
from tsdb.select import STALE_BITS, Querier, SelectHints
from web.context import context_of
from web.envelope import ApiError, ErrorType
from web.evaluation import with_querier
from web.forms import read_form
from web.negotiation import respond
from web.parameters import parse_matcher_sets

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ROWS_PER_READ = 4096

_PLAIN_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_VALUE_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class NewestSample:
    """The last sample of one series."""

    labels: Labels
    t_ms: int
    value: float


def _newest_of_batch(
    offsets: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, positions) of the last sample of each row that has one which is not stale."""
    rows = np.flatnonzero(np.diff(offsets) > 0)
    last = offsets[1:][rows] - 1
    live = values.view(np.uint64)[last] != np.uint64(STALE_BITS)
    return rows[live], last[live]


def newest_samples(
    querier: Querier, sets: Sequence[Sequence[Matcher]], now_ms: int, lookback_ms: int
) -> list[NewestSample]:
    """Newest float sample of each series within the lookback, stale series left out, each series once.

    A selector without matchers selects nothing.
    """
    found: dict[Labels, NewestSample] = {}
    for matchers in filter(None, sets):
        selection = querier.select(matchers, now_ms - lookback_ms + 1, now_ms, SelectHints())
        for lo in range(0, len(selection.labels), ROWS_PER_READ):
            hi = min(lo + ROWS_PER_READ, len(selection.labels))
            batch = selection.read(lo, hi)
            rows, last = _newest_of_batch(batch.offsets, np.ascontiguousarray(batch.values))
            sets_of_labels = selection.labels.take(rows + lo).rows()
            times, values = batch.t_ms[last].tolist(), batch.values[last].tolist()
            for labels, t_ms, value in zip(sets_of_labels, times, values, strict=True):
                found[labels] = NewestSample(labels, t_ms, value)
    return sorted(found.values(), key=lambda sample: (sample.labels.metric_name, sample.labels.pairs))


def _metric_name(name: str) -> str:
    """A metric's name, quoted where it has other characters than a colon and those of label names."""
    return name if _PLAIN_METRIC_NAME.fullmatch(name) else quote(name)


def _line(sample: NewestSample, external: Mapping[str, str]) -> str:
    pairs = [(name, value) for name, value in sample.labels if name != METRIC_NAME]
    own = {name for name, _ in pairs}
    pairs += [(name, value) for name, value in sorted(external.items()) if name not in own]
    if "instance" not in own and "instance" not in external:
        pairs.append(("instance", ""))
    text = ",".join(f'{label_name(name)}="{value.translate(_VALUE_ESCAPES)}"' for name, value in pairs)
    name = _metric_name(sample.labels.metric_name)
    head = f"{{{name},{text}}}" if name.startswith('"') else f"{name}{{{text}}}"
    return f"{head} {format_g(sample.value)} {sample.t_ms}\n"


def exposition(samples: Sequence[NewestSample], external: Mapping[str, str]) -> bytes:
    """Text format 0.0.4 of samples sorted by metric name."""
    out = []
    for name, group in itertools.groupby(samples, key=lambda sample: sample.labels.metric_name):
        if not name:
            continue
        out.append(f"# TYPE {_metric_name(name)} untyped\n")
        out.extend(_line(sample, external) for sample in group)
    return "".join(out).encode("utf-8", "replace")


async def federate(request: web.Request) -> web.Response:
    """Newest samples of the series that match any of the selectors."""
    context, form = context_of(request), await read_form(request)
    services = context.services
    try:
        form.require_whole()
        sets = parse_matcher_sets(form.all("match[]"), wrap=False, selective=False)
        now_ms, lookback_ms = context.now_ms(), services.lookback_ms
        samples = await with_querier(context, lambda q: newest_samples(q, sets, now_ms, lookback_ms))
    except ApiError as error:
        if error.kind is not ErrorType.BAD_DATA:
            context.metrics.federation_errors.inc()
        return web.Response(status=error.kind.status, text=f"{error.message}\n")
    body = exposition(samples, services.external_labels)
    return await respond(request, body, content_type=CONTENT_TYPE)
