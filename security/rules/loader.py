"""Files through all stages, with a result for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from security.fields.table import SOURCES
from security.rules.collector import Collector
from security.rules.compiler import Compiled, ExtraOutput, compile_rules
from security.rules.document import RULES_FILE_BYTES_LIMIT
from security.rules.index import RuleSet
from security.rules.items import Version, parse_version
from security.rules.loadresult import Context, LoadResult, RuleLoadError
from security.rules.reader import read_items
from security.rules.resolver import ParseCache, ResolvedList, ResolvedMacro

PLUGIN_VERSIONS: Mapping[str, str] = {
    "k8saudit": "0.18.0",
    "cloudtrail": "0.14.0",
    "json": "0.7.3",
    "container": "0.6.0",
    "gcpaudit": "0.6.0",
    "github": "0.9.0",
    "okta": "0.12.0",
}
"""The plugins whose sources and fields are built in, at the versions they are compatible with."""
FILES_LIMIT = 10_000


@dataclass(slots=True)
class RuleLoader:
    """Loads files one after the other. A file with an error leaves the loader as it was before."""

    sources: tuple[str, ...] = SOURCES
    extra: tuple[ExtraOutput, ...] = ()
    results: list[LoadResult] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)
    lists: dict[str, ResolvedList] = field(default_factory=dict)
    macros: dict[str, ResolvedMacro] = field(default_factory=dict)
    rules: RuleSet = field(default_factory=RuleSet)
    collector: Collector = field(init=False)
    cache: ParseCache = field(default_factory=ParseCache)

    def __post_init__(self) -> None:
        self.collector = Collector(self.sources)

    @property
    def successful(self) -> bool:
        """Whether no file had an error."""
        return all(result.successful for result in self.results)

    def load_text(self, name: str, text: str) -> LoadResult:
        """Load the text of a file and compile everything loaded so far."""
        result = LoadResult(name)
        self.results.append(result)
        self.contents[name] = text
        before = _copy(self.collector)
        try:
            for item in read_items(name, text, result):
                self.collector.add(item, result)
            compiled: Compiled = compile_rules(self.collector, result, self.cache, self.extra)
        except RuleLoadError as error:
            result.add_error(error)
            self.collector = before
            return result
        except RecursionError:
            message = "exceeded max depth limit of 1000"
            context = Context.of_file(name)
            result.add_error(RuleLoadError("LOAD_ERR_COMPILE_CONDITION", message, context))
            self.collector = before
            return result
        self.rules, self.lists, self.macros = compiled.rules, compiled.lists, compiled.macros
        return result

    def load_file(self, path: str) -> LoadResult:
        """Load a file; one that cannot be read gives LOAD_ERR_FILE_READ."""
        try:
            size = Path(path).stat().st_size
            if size > RULES_FILE_BYTES_LIMIT:
                raise OSError(f"file of {size} bytes is larger than {RULES_FILE_BYTES_LIMIT}")
            text = Path(path).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            result = LoadResult(path)
            result.add_error(RuleLoadError("LOAD_ERR_FILE_READ", str(error), Context.of_file(path)))
            self.results.append(result)
            self.contents[path] = ""
            return result
        return self.load_text(path, text)

    def missing_plugins(self, plugins: Mapping[str, str] = PLUGIN_VERSIONS) -> list[str]:
        """A message for each plugin requirement that nothing built in meets."""
        messages = []
        for requirement in self.collector.plugin_versions:
            if not any(_is_met(plugins, name, version) for name, version in requirement.alternatives):
                names = ", ".join(f"{name} (>= {version})" for name, version in requirement.alternatives)
                messages.append(f"Plugin requirement not satisfied, must load one of: {names}")
        return messages


def _is_met(plugins: Mapping[str, str], name: str, version: str) -> bool:
    loaded: Version | None = parse_version(plugins.get(name, ""))
    required = parse_version(version)
    return loaded is not None and required is not None and loaded.accepts(required)


def _copy(collector: Collector) -> Collector:
    # Collecting changes items in place; what it replaces inside of them are whole values.
    return replace(
        collector,
        lists={name: replace(item) for name, item in collector.lists.items()},
        macros={name: replace(item) for name, item in collector.macros.items()},
        rules={
            name: replace(item, exceptions=[replace(entry) for entry in item.exceptions])
            for name, item in collector.rules.items()
        },
        plugin_versions=list(collector.plugin_versions),
    )


def rule_files(paths: Iterable[str]) -> list[str]:
    """Files in order; a directory stands for its .yaml and .yml files by name."""
    found: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            entries = sorted(Path(path).iterdir())
            found += [
                str(entry) for entry in entries if entry.suffix in (".yaml", ".yml") and entry.is_file()
            ]
        else:
            found.append(path)
        if len(found) > FILES_LIMIT:
            raise ValueError(f"more than {FILES_LIMIT} rules files")
    return found
