"""Security in the running server: made after the store is open, reloaded with it, closed before it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from cli.flags import ServeFlags
from security.activerules import ActiveRules
from security.config import SecurityConfig
from security.eventlog.log import DIRECTORY, EventLog, EventLogOptions
from security.eventseries import IDLE_MS, EventSeries
from security.feed import LiveFeed
from security.metrics import SecurityMetrics
from security.outputs.group import OutputGroup
from security.pipeline import Pipeline
from security.services import SecurityServices
from security.sources.cloudtrail import CloudTrail
from security.sources.kubernetes_audit import KubernetesAudit
from security.sources.receiver import BodyReceiver
from security.sources.tail import FileFollower
from tsdb.database import Database
from tsdb.limits import StorageOptions

log = logging.getLogger("vedette.security")

EVENT_LOG_SHARE = 10
"""The event log has this part of --storage.tsdb.retention.size."""


class SecurityError(Exception):
    """Rules or outputs of the configuration cannot be used; the text says why."""


def load_rules(flags: ServeFlags, config: SecurityConfig) -> ActiveRules:
    """The rules of flags and configuration. Blocks. Raises SecurityError."""
    rules = ActiveRules()
    _load(rules, flags, config)
    return rules


def _load(rules: ActiveRules, flags: ServeFlags, config: SecurityConfig) -> None:
    before, rules.options = rules.options, config.rule_options()
    loader = rules.reload([*config.rules_files, *flags["security.rules"]])
    if rules.problems:
        rules.options = before
        text = "\n".join(rules.problems)
        for line in rules.problem_lines:
            log.error("Rules not loaded, the running ones stay", extra={"err": line})
        raise SecurityError(f"security rules: {text}")
    for result in loader.results:
        if result.warnings:
            log.warning("Rules file has warnings", extra={"file": result.name, "warnings": result.summary()})
    assert rules.engine is not None
    enabled = sum(rule.enabled for rule in rules.engine.rules.rules)
    log.info("Rules loaded", extra={"files": ", ".join(rules.files), "enabled_rules": enabled})


class SecurityParts:
    """All parts of one server. Methods block: call them in a thread, one at a time."""

    def __init__(
        self, flags: ServeFlags, config: SecurityConfig, database: Database, rules: ActiveRules
    ) -> None:
        """`rules` are those of the configuration (`load_rules`). Raises SecurityError for outputs that cannot
        be used, StorageError, OSError."""
        self._flags, self._config, self._rules = flags, config, rules
        outputs = OutputGroup()
        try:
            outputs.apply(config)
        except OSError as error:
            raise SecurityError(f"security outputs: {error}") from None
        hostname = os.uname().nodename
        options = database.options
        series = EventSeries(
            database.appender(),
            database.now_ms,
            age_limit_ms=max(options.out_of_order_window_ms, options.block_range_ms // 2, IDLE_MS),
        )
        series.resume(database.querier())
        event_log = EventLog(
            database.path,
            EventLogOptions(
                retention_ms=options.retention_ms,
                retention_bytes=options.retention_bytes // EVENT_LOG_SHARE,
                wal_sync=options.wal_sync,
            ),
        )
        feed = LiveFeed()
        pipeline = Pipeline(rules, [event_log, series, feed, outputs], hostname=hostname)
        receivers = {
            source.name: BodyReceiver(source, pipeline) for source in (KubernetesAudit(), CloudTrail())
        }
        self.services = SecurityServices(
            pipeline=pipeline,
            log=event_log,
            series=series,
            feed=feed,
            outputs=outputs,
            receivers=receivers,
            open_to_http=_open_to_http(config),
            output_options=config.output_options(hostname),
        )
        self._positions = database.path / DIRECTORY
        self._followers: list[FileFollower] = []

    def start(self, registry: CollectorRegistry) -> None:
        """Let events through, register metrics, follow files."""
        registry.register(SecurityMetrics(self.services))
        self.services.pipeline.start()
        self._follow(self._config)

    def apply(self, config: SecurityConfig) -> None:
        """Load rules again and run with another configuration.

        Raises SecurityError for bad rules or outputs; the running ones stay then.
        """
        problems = []
        try:
            _load(self._rules, self._flags, config)
        except SecurityError as error:
            problems.append(str(error))
        try:
            self.services.outputs.apply(config)
        except OSError as error:
            problems.append(f"security outputs: {error}")
        self.services.output_options = config.output_options(self.services.pipeline.hostname)
        self.services.open_to_http = _open_to_http(config)
        if config.sources != self._config.sources:
            self.stop_sources()
            self._follow(config)
        self._config = config
        if problems:
            raise SecurityError("\n".join(problems))

    def set_retention(self, options: StorageOptions) -> None:
        """Events live by the store's retentions."""
        self.services.log.set_retention(options.retention_ms, options.retention_bytes // EVENT_LOG_SHARE)

    def _follow(self, config: SecurityConfig) -> None:
        sources: Sequence[tuple[str, list[str], bool]] = (
            ("k8s_audit", config.sources.k8s_audit.files, False),
            ("aws_cloudtrail", config.sources.aws_cloudtrail.files, True),
        )
        for name, files, whole in sources:
            if files:
                path: Path = self._positions / f"{name}.positions"
                follower = FileFollower(self.services.receivers[name], files, path, whole_files=whole)
                follower.start()
                self._followers.append(follower)

    def stop_sources(self) -> None:
        """Follow files no longer."""
        while self._followers:
            self._followers.pop().stop()

    def close(self) -> None:
        """Drain the pipeline and close log and outputs; the store must still be open."""
        self.stop_sources()
        self.services.pipeline.close()


def _open_to_http(config: SecurityConfig) -> frozenset[str]:
    sources = {
        "k8s_audit": config.sources.k8s_audit.webhook,
        "aws_cloudtrail": config.sources.aws_cloudtrail.http,
    }
    return frozenset(name for name, is_open in sources.items() if is_open)
