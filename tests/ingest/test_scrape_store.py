"""Scrapes into the real store: what a query would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from ingest.kernels.exposition import TEXT
from ingest.metrics import ScrapeMetrics
from ingest.scrape.samples import Body, SampleOptions, ScrapeError, TargetSamples
from tsdb.database import open_database
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.select import STALE_BITS

NOW_MS = 1_795_000_000_000


def test_scrapes_are_queryable_and_survive_a_restart(tmp_path: Path) -> None:
    clock = lambda: NOW_MS / 1000  # noqa: E731
    registry = CollectorRegistry()
    database = open_database(tmp_path, registry=registry, clock=clock)
    target = Labels.from_dict({"job": "j", "instance": "i"})
    metrics = ScrapeMetrics(registry)
    samples = TargetSamples(database.appender(), target, SampleOptions(), metrics)
    text = b'# TYPE h histogram\nh_bucket{le="1"} 3\na 1\n'
    outcomes = [
        samples.store(Body(text, TEXT), None, NOW_MS, lambda: 0.5),
        samples.store(Body(b"a 2\na 3\n", TEXT), None, NOW_MS + 1000, lambda: 0.5),
        samples.store(None, ScrapeError("refused"), NOW_MS + 2000, lambda: 0.5),
    ]
    for outcome in outcomes:
        assert outcome.durable is not None
        outcome.durable.durable.result(10)
    for _ in range(2):
        assert _rows(database, "a") == {"a": [1.0, 2.0, "stale"]}
        assert _rows(database, "up") == {"up": [1.0, 1.0, 0.0]}
        assert _rows(database, "h_bucket") == {'h_bucket{le="1.0"}': [3.0, "stale"]}
        assert _rows(database, "scrape_samples_scraped") == {"scrape_samples_scraped": [2.0, 2.0, 0.0]}
        assert [(m.family, m.type) for m in database.metadata()] == [("h", "histogram")]
        database.close()
        database = open_database(tmp_path, registry=CollectorRegistry(), clock=clock)
    database.close()
    repeated = registry.get_sample_value("prometheus_target_scrapes_sample_duplicate_timestamp_total")
    assert repeated == 1


def _rows(database: object, name: str) -> dict[str, list[float | str]]:
    querier = database.querier()  # type: ignore[attr-defined]
    try:
        matchers = [Matcher(MatchType.EQUAL, "__name__", name)]
        selection = querier.select(matchers, NOW_MS - 10_000, NOW_MS + 10_000)
        found: dict[str, list[float | str]] = {}
        labels = querier.series([matchers], NOW_MS - 10_000, NOW_MS + 10_000)
        for row, label_set in enumerate(labels.rows()):
            batch = selection.read(row, row + 1)
            bits = batch.values.view(np.uint64)
            shown = str(label_set.without("job", "instance"))
            found[shown] = [
                "stale" if b == STALE_BITS else float(v) for b, v in zip(bits, batch.values, strict=True)
            ]
        return found
    finally:
        querier.close()
