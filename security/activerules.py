"""The rules in force: loaded at start and at reload, kept when what is loaded next is bad."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from security.engine import RuleEngine
from security.rules.compiler import SUGGESTED_OUTPUT, ExtraOutput
from security.rules.index import Selection, select
from security.rules.items import PRIORITIES
from security.rules.loader import RuleLoader, rule_files
from security.rules.resolver import ParseCache
from security.rules.storedtrees import read_trees, write_trees


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """What the configuration says about rules."""

    rule_matching: str = "first"
    minimum_priority: int = len(PRIORITIES) - 1
    selections: tuple[Selection, ...] = ()
    extra_outputs: tuple[ExtraOutput, ...] = (SUGGESTED_OUTPUT,)


def starter_rules() -> str:
    """The path of the rules for a host where no rules file is given."""
    return str(Path(__file__).with_name("starter_rules.yaml"))


@dataclass(slots=True)
class ActiveRules:
    """Holds the running engine. Reloading makes a new one beside it; one thread at a time may reload."""

    options: RuleOptions = field(default_factory=RuleOptions)
    engine: RuleEngine | None = None
    reloads_count: int = 0
    reload_failures_count: int = 0
    problems: list[str] = field(default_factory=list)
    """Why the last reload failed; empty after a good one."""
    problem_lines: list[str] = field(default_factory=list)
    """The same in one line each, for logs."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that the running rules come from, by path."""
    loaded_at_ns: int = 0
    """When the running rules were loaded."""

    def reload(self, paths: Iterable[str]) -> RuleLoader:
        """Load files and directories in order, the starter rules when there are none.

        The running engine is replaced only when all is well.
        """
        given = list(paths)
        paths = given or [starter_rules()]
        stored = {} if given else read_trees()
        loader = RuleLoader(extra=self.options.extra_outputs, cache=ParseCache(stored.copy()))
        self.reloads_count += 1
        try:
            for path in rule_files(paths):
                loader.load_file(path)
        except (OSError, ValueError) as error:
            self.problems = self.problem_lines = [str(error)]
        else:
            bad = [result.verbose(loader.contents) for result in loader.results if not result.successful]
            self.problems = bad + loader.missing_plugins()
            lines = [finding.line() for result in loader.results for finding in result.errors]
            self.problem_lines = lines + loader.missing_plugins()
        if self.problems:
            self.reload_failures_count += 1
            return loader
        if not given and not stored:
            write_trees(loader.cache.trees)
        chosen = select(loader.rules, self.options.selections, self.options.minimum_priority)
        self.engine = RuleEngine(chosen, self.options.rule_matching)
        self.files = {
            path: hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            for path, text in loader.contents.items()
        }
        self.loaded_at_ns = time.time_ns()
        return loader
