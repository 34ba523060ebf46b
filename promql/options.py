"""Settings of the query engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

LOOKBACK_MS_DEFAULT = 5 * 60 * 1000
TIMEOUT_S_DEFAULT = 120.0
SAMPLES_MAX_DEFAULT = 50_000_000
BYTES_MAX_DEFAULT = 2 << 30
SUBQUERY_STEP_MS_DEFAULT = 60_000
SUBQUERY_STEPS_MAX = 10_000_000
"""Inner steps of one subquery; Prometheus has no such limit and runs into --query.max-samples instead."""


@cache
def _cores() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`features` holds the names of --enable-feature that concern PromQL (promql-experimental-functions,
    promql-delayed-name-removal, promql-extended-range-selectors, promql-binop-fill-modifiers,
    type-and-unit-labels, use-start-timestamps, promql-per-step-stats, ...)."""

    samples_max: int = SAMPLES_MAX_DEFAULT
    bytes_max: int = BYTES_MAX_DEFAULT
    timeout_s: float = TIMEOUT_S_DEFAULT
    lookback_ms: int = LOOKBACK_MS_DEFAULT
    subquery_step_ms: int = SUBQUERY_STEP_MS_DEFAULT
    features: frozenset[str] = frozenset()
    subquery_steps_max: int = SUBQUERY_STEPS_MAX
    threads: int = 0
    """Worker threads for kernels; 0 means one a core."""

    @property
    def delayed_name_removal(self) -> bool:
        """Whether names are dropped once, at the end of the query."""
        return "promql-delayed-name-removal" in self.features

    @property
    def type_and_unit_labels(self) -> bool:
        """Whether __type__ tells counters from gauges."""
        return "type-and-unit-labels" in self.features

    @property
    def start_timestamps(self) -> bool:
        """Whether start timestamps take part in rate, increase and resets."""
        return "use-start-timestamps" in self.features

    @property
    def per_step_stats(self) -> bool:
        """Whether `stats=all` shows samples by step."""
        return "promql-per-step-stats" in self.features

    @property
    def thread_count(self) -> int:
        """Resolved number of worker threads."""
        return self.threads or _cores()
