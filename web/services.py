"""What the HTTP side needs from the rest of the server, as protocols, and the bundle that carries it.

`cli/serve.py` fills an `AppServices` and hands it to `web.app.create_app`. The web server starts before the
store is open: `database` is None until then, and the readiness gate keeps handlers from seeing that. Every
member may be replaced while the server runs (a reload, the end of the replay); handlers read it per request.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from agent.channel.registry import AgentRegistry
from promql.ast import ValueType
from promql.operators.operator import Explain
from security.services import SecurityServices
from tsdb.labels import Labels, Matcher
from tsdb.select import Querier
from web.querylog import QueryLog
from web.readiness import Readiness

CancelFlag = npt.NDArray[np.uint8]
"""u8[1]; becomes 1 when the query's answer is no longer wanted. Kernels and the engine poll it."""

QUERY_CONCURRENCY_DEFAULT = 20
QUERY_TIMEOUT_S_DEFAULT = 120.0


class QueryResult(Protocol):
    """Outcome of one evaluation.

    `value` is a `promql.matrix.Matrix` (instant: one step; range: the grid), a float for an instant scalar,
    a str for a string, or, for a range vector at an instant, an object with `labels: SeriesLabels` and
    `samples: SampleBatch`. `type` is the type of the expression (a range query's answer is always a matrix).
    Annotations carry their ` (line:col)` already. `stats` is the JSON object of `stats` or None; `work` the
    samples and cells that the query's selectors announced.
    """

    @property
    def type(self) -> ValueType: ...
    @property
    def value(self) -> Any: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def infos(self) -> Sequence[str]: ...
    @property
    def stats(self) -> Any: ...
    @property
    def work(self) -> int: ...


class QueryEngine(Protocol):
    """Evaluates PromQL. Called in a worker thread; blocking.

    Raises `promql.errors` for what the user can cause: a parse error (bad_data), and execution, timeout and
    cancel errors. `lookback_ms` 0 means the engine's default, `timeout_s` 0 the engine's limit. With
    `at_once` it is called in a thread that must not wait, and raises NotAtOnceError where it would or where
    the query has more samples and cells than that.
    """

    def instant(
        self,
        querier: Querier,
        text: str,
        time_ms: int,
        *,
        lookback_ms: int = 0,
        timeout_s: float = 0.0,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> QueryResult: ...

    def range(
        self,
        querier: Querier,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int = 0,
        timeout_s: float = 0.0,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> QueryResult: ...

    def observe_queue_s(self, seconds: float) -> None:
        """Count the time a query waited for its turn."""
        ...

    def explain(
        self,
        querier: Querier,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int = 0,
        timeout_s: float = 0.0,
        analyze: bool = False,
        cancel: CancelFlag | None = None,
    ) -> Explain: ...


class ExemplarSeries(Protocol):
    """Exemplars of one series; each exemplar has `labels`, `value` and `t_ms` (`tsdb.columns.Exemplar`)."""

    @property
    def labels(self) -> Labels: ...
    @property
    def exemplars(self) -> Sequence[Any]: ...


class Database(Protocol):
    """The store as the API sees it. Methods other than `querier` are optional: an endpoint whose method is
    missing answers with its empty form (lists) or `unavailable` (admin)."""

    def querier(self) -> Querier:
        """A consistent view over all time; the caller closes it."""
        ...


class DatabaseStatus(Protocol):
    """Optional methods of the store, looked up by name.

    `head_stats()` gives an object with `series_count, label_pair_count, chunk_count, min_time_ms,
    max_time_ms`. `cardinality(limit)` gives an object with `series_by_metric_name, values_by_label_name,
    memory_by_label_name, series_by_label_pair`, each a sequence of (name, value), largest first.
    `block_metas()` gives the meta.json objects of the blocks.
    `exemplars(matcher_sets, mint, maxt)` gives `ExemplarSeries`. `metadata()` gives
    `tsdb.columns.Metadata` of remote-written families. The three admin methods block and raise StorageError.
    """

    def head_stats(self) -> Any: ...
    def cardinality(self, limit: int) -> Any: ...
    def block_metas(self) -> Sequence[Mapping[str, Any]]: ...
    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> Sequence[ExemplarSeries]: ...
    def metadata(self) -> Sequence[Any]: ...
    def delete_series(self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int) -> None: ...
    def clean_tombstones(self) -> None: ...
    def snapshot(self, *, skip_head: bool) -> str: ...


class ScrapeStatus(Protocol):
    """The scrape manager as the API sees it; rows come in the shape of the API. Loop thread only."""

    def pools(self) -> Sequence[str]:
        """Names of the scrape pools."""
        ...

    def targets(self, state: str = "any", pool: str = "") -> dict[str, Any]:
        """Data of /targets; `state` is any, active or dropped."""
        ...

    def targets_metadata(
        self, match_target: Sequence[Matcher] = (), metric: str = "", limit: int = -1
    ) -> list[dict[str, Any]]:
        """Data of /targets/metadata."""
        ...

    def metadata(
        self, metric: str = "", limit: int = -1, limit_per_metric: int = -1
    ) -> dict[str, list[dict[str, str]]]:
        """Type, help and unit of the families of all targets."""
        ...

    def pool_yaml(self, pool: str) -> str:
        """The configuration of one pool with secrets masked. Raises KeyError."""
        ...

    def relabel_steps(self, pool: str, labels_json: str) -> Sequence[dict[str, Any]]:
        """Data of /targets/relabel_steps. Raises KeyError for the pool, ValueError for the labels."""
        ...


class RemoteWriteReceiver(Protocol):
    """Remote write; `ingest.remotewrite.receiver.Receiver`."""

    def handle(
        self, body: bytes, headers: Mapping[str, str]
    ) -> Awaitable[tuple[int, Mapping[str, str], str]]:
        """Store one request; the answer's status, headers and text."""
        ...


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What /api/v1/status/buildinfo and prometheus_build_info say."""

    version: str
    revision: str = ""
    branch: str = ""
    build_user: str = ""
    build_date: str = ""
    go_version: str = ""
    """The language the server is built with, under the name the API has for it."""


@dataclass(frozen=True, slots=True)
class ReloadState:
    """Outcome of the last configuration load."""

    succeeded: bool = True
    time_s: float = 0.0


@dataclass(slots=True)
class AppServices:
    """Everything the web application uses. Times come from `clock_s` (Unix seconds).

    `reload` awaits a configuration reload and raises with a text fit to show; `quit` starts a graceful stop.
    `config_yaml` gives the loaded configuration with secrets masked. `wal_replay` gives the first and last
    WAL segment to replay and the one being read, also before there is a database. `registry` holds all own
    metrics. `agent_token` empty means that agents of this host only are let in, `write_token` empty that
    remote write needs none.
    """

    readiness: Readiness
    engine: QueryEngine
    registry: CollectorRegistry
    build: BuildInfo
    database: Database | None = None
    scrape: ScrapeStatus | None = None
    receiver: RemoteWriteReceiver | None = None
    security: SecurityServices | None = None
    query_log: QueryLog | None = None
    agents: AgentRegistry | None = None
    agent_token: str = ""
    write_token: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    external_labels: Mapping[str, str] = field(default_factory=dict)
    config_yaml: Callable[[], str] = lambda: ""
    wal_replay: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
    reload_state: Callable[[], ReloadState] = ReloadState
    reload: Callable[[], Awaitable[None]] | None = None
    quit: Callable[[], None] | None = None
    clock_s: Callable[[], float] = time.time
    start_time_s: float = field(default_factory=time.time)
    page_title: str = "Vedette"
    cors_origin: str = ".*"
    external_url: str = ""
    route_prefix: str = "/"
    storage_retention: str = "15d"
    enable_admin_api: bool = False
    enable_lifecycle: bool = False
    query_concurrency: int = QUERY_CONCURRENCY_DEFAULT
    query_timeout_s: float = QUERY_TIMEOUT_S_DEFAULT
    lookback_ms: int = 300_000
    remote_write_body_bytes_max: int = 32 * 1024 * 1024

    @property
    def enabled_features(self) -> frozenset[str]:
        """Names given to --enable-feature."""
        return frozenset(filter(None, self.flags.get("enable-feature", "").split(",")))
