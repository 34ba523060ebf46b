"""Targets: from discovered labels to a URL, or the reason why not (surface 6.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from ingest.config.durations import Duration
from ingest.config.scrape import ScrapeConfig
from ingest.relabel import Relabeler
from ingest.validate import is_label_name, is_utf8
from tsdb.labels import Labels

ADDRESS = "__address__"
SCHEME = "__scheme__"
METRICS_PATH = "__metrics_path__"
INTERVAL = "__scrape_interval__"
TIMEOUT = "__scrape_timeout__"
PARAM_PREFIX = "__param_"
META_PREFIX = "__meta_"
UNIX_SOCKET = "__unix_socket__"
INSTANCE = "instance"
JOB = "job"

_PATH_SAFE = "/:@!$&'()*+,;=~"

_NATIVE = "__scrape_native_histograms__"
_ALWAYS_CLASSIC = "__always_scrape_classic_histograms__"
_SWITCHES = {
    "__convert_classic_histograms_to_nhcb__": "convert_classic_histograms_to_nhcb",
    _ALWAYS_CLASSIC: "always_scrape_classic_histograms",
    _NATIVE: "scrape_native_histograms",
}
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class TargetError(ValueError):
    """Discovered labels that make no target."""


@dataclass(frozen=True, slots=True)
class DiscoveredGroup:
    """Targets found together: a label set each, shared `labels`, and the `source` they came from."""

    source: str
    targets: tuple[Mapping[str, str], ...]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """One place to scrape. `labels` are those of its series, `discovered` those before relabelling."""

    labels: Labels
    discovered: Labels
    url: str
    interval_ms: int
    timeout_ms: int
    unix_socket: str = ""
    native_histograms: bool = False
    always_classic_histograms: bool = False

    @property
    def identity(self) -> tuple[Labels, str]:
        """Targets with equal labels and URL are one."""
        return self.labels, self.url

    def offset_ms(self, seed: int) -> int:
        """When in each interval the target is scraped, spread by a hash that survives restarts."""
        digest = hashlib.blake2b(f"{self.labels}\0{self.url}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") ^ seed) % self.interval_ms


@dataclass(frozen=True, slots=True)
class Built:
    """What one discovered target became: a target, a dropped one (`target` None), or an error."""

    discovered: Labels
    target: Target | None = None
    error: str = ""


def offset_seed(hostname: str, external_labels: Mapping[str, str]) -> int:
    """A number that differs between servers, so that replicas scrape at different moments."""
    text = f"{hostname}{Labels.from_dict(external_labels)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def build_targets(
    groups: Sequence[DiscoveredGroup], job: ScrapeConfig, relabeler: Relabeler
) -> Iterator[Built]:
    """Every discovered target of a job, relabelled and checked."""
    defaults = _defaults(job)
    for group in groups:
        for own in group.targets:
            labels = {**group.labels, **own}
            yield build_target(labels, defaults, job, relabeler)


def build_target(
    found: Mapping[str, str], defaults: Mapping[str, str], job: ScrapeConfig, relabeler: Relabeler
) -> Built:
    """One target from its discovered labels."""
    labels = {name: value for name, value in found.items() if value}
    for name, value in defaults.items():
        if value:
            labels.setdefault(name, value)
    discovered = Labels.from_dict(labels)
    if not relabeler.apply(labels):
        return Built(discovered)
    try:
        return Built(discovered, _target(labels, discovered, job))
    except TargetError as error:
        return Built(discovered, error=str(error))


def job_defaults(job: ScrapeConfig) -> dict[str, str]:
    """Labels that every target of a job starts with where it does not bring its own."""
    return _defaults(job)


def _defaults(job: ScrapeConfig) -> dict[str, str]:
    defaults = {
        JOB: job.job_name,
        INTERVAL: str(job.scrape_interval),
        TIMEOUT: str(job.scrape_timeout),
        METRICS_PATH: job.metrics_path,
        SCHEME: job.scheme,
    }
    for label, field in _SWITCHES.items():
        defaults[label] = "true" if getattr(job, field) else "false"
    for name, values in job.params.items():
        if values:
            defaults[PARAM_PREFIX + name] = values[0]
    return defaults


def _target(labels: dict[str, str], discovered: Labels, job: ScrapeConfig) -> Target:
    address = labels.get(ADDRESS, "")
    if not address:
        raise TargetError("no address")
    if "/" in address:
        raise TargetError(f'"{address}" is not a valid hostname')
    interval, timeout = _duration(labels, INTERVAL), _duration(labels, TIMEOUT)
    if interval == 0:
        raise TargetError("scrape interval cannot be 0")
    if timeout == 0:
        raise TargetError("scrape timeout cannot be 0")
    if timeout > interval:
        raise TargetError(f"scrape timeout cannot be greater than scrape interval ({timeout} > {interval})")
    for name in _SWITCHES:
        if labels.get(name, "false") not in _BOOLEANS:
            raise TargetError(f'error parsing {name}: invalid boolean "{labels[name]}"')
    kept = {n: v for n, v in labels.items() if not n.startswith(META_PREFIX)}
    kept.setdefault(INSTANCE, address)
    for name, value in kept.items():
        if not is_label_name(name) or not is_utf8(value):
            raise TargetError(f'invalid label value for "{name}": "{value}"')
    return Target(
        labels=Labels.from_dict({n: v for n, v in kept.items() if not n.startswith("__")}),
        discovered=discovered,
        url=_url(kept, job),
        interval_ms=int(interval),
        timeout_ms=int(timeout),
        unix_socket=kept.get(UNIX_SOCKET, ""),
        native_histograms=_BOOLEANS[kept.get(_NATIVE, "false")],
        always_classic_histograms=_BOOLEANS[kept.get(_ALWAYS_CLASSIC, "false")],
    )


def _duration(labels: Mapping[str, str], name: str) -> Duration:
    try:
        return Duration.parse(labels.get(name, ""))
    except ValueError as error:
        raise TargetError(f"error parsing {name.strip('_').replace('_', ' ')}: {error}") from None


def _url(labels: Mapping[str, str], job: ScrapeConfig) -> str:
    params = {name: list(values) for name, values in job.params.items()}
    for label, value in labels.items():
        if label.startswith(PARAM_PREFIX):
            name = label[len(PARAM_PREFIX) :]
            params[name] = [value, *params.get(name, [])[1:]]
    path = labels.get(METRICS_PATH, "")
    if path and not path.startswith("/"):
        path = "/" + path
    query = urlencode(sorted(params.items()), doseq=True)
    base = f"{labels.get(SCHEME, 'http')}://{labels[ADDRESS]}{quote(path, safe=_PATH_SAFE)}"
    return f"{base}?{query}" if query else base
