"""The flags of `vedette serve`: Prometheus's names and defaults where Prometheus has them, one table.

The table makes the command's options, the values of /api/v1/status/flags and the typed `ServeFlags`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from cli import flagtypes
from cli.logs import FORMATS, LEVELS
from ingest.config.address import Address, parse_address

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `kind` is a click type, or bool for an on/off pair; `hidden` flags are accepted and shown by
    /status/flags, but not by --help."""

    name: str
    default: Any
    kind: Any
    help: str
    repeat: bool = False
    hidden: bool = False
    effect: bool = True
    """False for what tunes a part of Prometheus that is not here: accepted with a warning, so that nobody has
    to edit a unit file or a chart."""

    @property
    def parameter(self) -> str:
        """The key of the parsed value."""
        return self.name.replace(".", "_").replace("-", "_")


_D, _S, _A = flagtypes.DURATION, flagtypes.SIZE, flagtypes.ADDRESS
_COUNT = click.IntRange(min=0)
_POSITIVE = click.IntRange(min=1)


def _ignored(name: str, default: Any, kind: Any) -> Flag:
    return Flag(name, default, kind, "Accepted as Prometheus does; has no effect.", hidden=True, effect=False)


FLAGS: tuple[Flag, ...] = (
    Flag("config.file", "prometheus.yml", str, "Configuration file. Without one Vedette scrapes itself."),
    Flag("config.auto-reload", False, bool, "Reload when the configuration file changes."),
    Flag("config.auto-reload-interval", "30s", _D, "How often to look for a changed configuration."),
    Flag("web.listen-address", ("0.0.0.0:9090",), _A, "Address to listen on; repeat for more.", repeat=True),
    Flag(
        "web.read-timeout", "5m", _D, "Longest time to read a request; idle connections are closed after it."
    ),
    Flag("web.max-connections", 512, _POSITIVE, "Most connections at one time; others wait."),
    Flag("web.max-body-size", "64MB", _S, "Largest request body; a larger one is answered 413."),
    Flag("web.external-url", "", flagtypes.URL, "URL under which the server is reachable from outside."),
    Flag("web.route-prefix", "", str, "Prefix of all routes; the path of --web.external-url by default."),
    Flag("web.enable-lifecycle", False, bool, "Allow shutdown and reload over HTTP."),
    Flag("web.enable-admin-api", False, bool, "Allow deleting series and taking snapshots over HTTP."),
    Flag("web.enable-remote-write-receiver", True, bool, "Accept remote write. On by default."),
    Flag(
        "web.remote-write-receiver.accepted-protobuf-messages",
        ("prometheus.WriteRequest", "io.prometheus.write.v2.Request"),
        click.Choice(["prometheus.WriteRequest", "io.prometheus.write.v2.Request"]),
        "Remote write messages to accept; repeat for more.",
        repeat=True,
    ),
    Flag(
        "web.remote-write-receiver.require-token",
        False,
        bool,
        "Remote write needs the token of --web.agent-token-file too. Off by default, as in Prometheus.",
    ),
    Flag("web.config.file", "", str, "File with the TLS settings of the server."),
    Flag(
        "web.agent-token-file",
        "",
        str,
        "File with the token of host agents; without it only local ones may come.",
    ),
    Flag(
        "web.max-notifications-subscribers",
        16,
        _COUNT,
        "Most readers of the stream of notifications at a time.",
    ),
    Flag("web.page-title", "Vedette", str, "Title of the browser page."),
    Flag(
        "web.cors.origin",
        ".*",
        flagtypes.PATTERN,
        "Regular expression of allowed CORS origins, fully anchored.",
    ),
    Flag("storage.tsdb.path", "data/", str, "Folder of the store."),
    Flag(
        "storage.tsdb.retention.time", "", _D, "How long to keep samples; 15d where size is not set either."
    ),
    Flag("storage.tsdb.retention.size", "0", _S, "Most bytes of blocks to keep; 0 means no limit."),
    Flag("storage.tsdb.no-lockfile", False, bool, "Do not create a lock file in the store's folder."),
    Flag("storage.tsdb.out-of-order-time-window", "1h", _D, "How old an out-of-order sample may be."),
    Flag(
        "storage.tsdb.min-block-duration",
        "2h",
        flagtypes.POSITIVE_DURATION,
        "Time range of a block before compaction.",
        hidden=True,
    ),
    Flag(
        "storage.tsdb.max-block-duration",
        "0",
        _D,
        "Longest range of a block; 0 is a tenth of the retention, at most 31 days.",
        hidden=True,
    ),
    Flag(
        "storage.tsdb.wal-segment-size",
        "128MB",
        flagtypes.SEGMENT_SIZE,
        "Size of a WAL segment.",
        hidden=True,
    ),
    Flag(
        "storage.wal.sync",
        "batch",
        click.Choice(["batch", "interval", "never"]),
        "When a write reaches the disk: before its acknowledgement, every 100 ms, or when the kernel likes.",
    ),
    Flag(
        "storage.remote.flush-deadline",
        "5s",
        _D,
        "How long to go on sending by remote write at a stop; what is left is sent after the next start.",
    ),
    Flag(
        "storage.remote.queue-size",
        "1GB",
        _S,
        "Most bytes that wait on disk for a remote-write destination; then the oldest are given up.",
    ),
    Flag("query.lookback-delta", "5m", _D, "How far an instant selector looks back."),
    Flag("query.timeout", "2m", _D, "Longest time of a query."),
    Flag("query.max-concurrency", 20, _POSITIVE, "Most queries at one time; others wait."),
    Flag("query.max-samples", 50_000_000, _POSITIVE, "Most samples one query may hold in memory."),
    Flag("query.max-memory", "2GB", _S, "Most bytes one query may hold in memory."),
    Flag("query.slow-log-threshold", "10s", _D, "Log queries that take longer; 0 turns this off."),
    Flag("enable-feature", (), str, "Features to enable, separated by commas; repeat for more.", repeat=True),
    Flag("agent", True, bool, "Run the embedded host agent where the host allows (--no-agent turns it off)."),
    Flag(
        "security.rules",
        (),
        str,
        "Falco rules file or folder; repeat for more, loaded in order after those of the configuration file. "
        "Without any, a few rules of our own are in force.",
        repeat=True,
    ),
    Flag("log.level", "info", click.Choice(list(LEVELS)), "Least severe log line to write."),
    Flag("log.format", "logfmt", click.Choice(list(FORMATS)), "Form of log lines."),
    _ignored("web.console.templates", "consoles", str),
    _ignored("web.console.libraries", "console_libraries", str),
    _ignored("web.user-assets", "", str),
    _ignored("storage.tsdb.head-chunks-write-queue-size", 0, _COUNT),
    _ignored("storage.tsdb.wal-compression", True, bool),
    _ignored("storage.tsdb.wal-compression-type", "snappy", click.Choice(["snappy", "zstd"])),
    _ignored("storage.tsdb.samples-per-chunk", 120, _POSITIVE),
    _ignored("storage.tsdb.block-reload-interval", "1m", _D),
    _ignored("storage.tsdb.allow-overlapping-blocks", True, bool),
    _ignored("storage.tsdb.delay-compact-file.path", "", str),
    _ignored("storage.remote.read-sample-limit", 50_000_000, _COUNT),
    _ignored("storage.remote.read-concurrent-limit", 10, _COUNT),
    _ignored("storage.remote.read-max-bytes-in-frame", 1 << 20, _COUNT),
    _ignored("rules.alert.for-outage-tolerance", "1h", _D),
    _ignored("rules.alert.for-grace-period", "10m", _D),
    _ignored("rules.alert.resend-delay", "1m", _D),
    _ignored("rules.max-concurrent-evals", 4, _COUNT),
    _ignored("alertmanager.notification-queue-capacity", 10_000, _COUNT),
    _ignored("alertmanager.notification-batch-size", 256, _COUNT),
    _ignored("alertmanager.drain-notification-queue-on-shutdown", True, bool),
    _ignored("auto-gomaxprocs", True, bool),
    _ignored("auto-gomemlimit", True, bool),
)

FEATURES = frozenset(
    {
        "concurrent-rule-eval",
        "created-timestamp-zero-ingestion",
        "delayed-compaction",
        "exemplar-storage",
        "extra-scrape-metrics",
        "fast-startup",
        "histograms-st-encoding",
        "memory-snapshot-on-shutdown",
        "metadata-wal-records",
        "old-ui",
        "otlp-deltatocumulative",
        "otlp-native-delta-ingestion",
        "promql-binop-fill-modifiers",
        "promql-delayed-name-removal",
        "promql-experimental-functions",
        "promql-extended-range-selectors",
        "promql-per-step-stats",
        "search-api",
        "st-storage",
        "st-synthesis",
        "type-and-unit-labels",
        "use-start-timestamps",
        "use-uncached-io",
        "xor2-encoding",
        "auto-reload-config",
        "native-histograms",
        "promql-duration-expr",
    }
)
"""Names that --enable-feature knows; another one is a warning, as in Prometheus."""


def serve_options(function: F) -> F:
    """Add every flag of the table to a click command."""
    for flag in reversed(FLAGS):
        names = [f"--{flag.name}", flag.parameter]
        options: dict[str, Any] = {"default": flag.default, "help": flag.help, "hidden": flag.hidden}
        if flag.kind is bool:
            names[0] = f"--{flag.name}/--no-{flag.name}"
        else:
            options |= {"type": flag.kind, "multiple": flag.repeat, "show_default": bool(flag.default)}
        function = click.option(*names, **options)(function)
    return function


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """Parsed flags by their names, and which of them were given."""

    values: Mapping[str, Any]
    given: frozenset[str]

    @classmethod
    def from_click(cls, context: click.Context, values: Mapping[str, Any]) -> ServeFlags:
        """Collect what click parsed."""
        from click.core import ParameterSource

        by_name = {flag.name: values[flag.parameter] for flag in FLAGS}
        given = frozenset(
            flag.name
            for flag in FLAGS
            if context.get_parameter_source(flag.parameter) is ParameterSource.COMMANDLINE
        )
        return cls(by_name, given)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def duration_ms(self, name: str) -> int:
        """A duration flag in milliseconds."""
        return flagtypes.parse_duration_ms(self.values[name])

    def size_bytes(self, name: str) -> int:
        """A size flag in bytes."""
        return flagtypes.parse_size_bytes(self.values[name])

    def addresses(self) -> list[Address]:
        """Where to listen."""
        return [parse_address(text) for text in self.values["web.listen-address"]]

    def features(self) -> frozenset[str]:
        """Names given to --enable-feature, separated or repeated, known or not."""
        texts = self.values["enable-feature"]
        return frozenset(name.strip() for text in texts for name in text.split(",") if name.strip())

    def without_effect(self) -> list[str]:
        """Names of given flags that change nothing."""
        return [flag.name for flag in FLAGS if not flag.effect and flag.name in self.given]

    def as_text(self) -> dict[str, str]:
        """Every flag as a string, as /api/v1/status/flags shows them."""
        return {flag.name: _text(self.values[flag.name]) for flag in FLAGS}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    return str(value)
