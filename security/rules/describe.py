"""What a rule set consists of, as the JSON object of `falco -L`."""

from __future__ import annotations

from typing import Any

from security.output import Template
from security.rules.ast import Compare, Exists, Macro, Node, reachable, render
from security.rules.compiler import fields_of
from security.rules.eventtypes import event_types
from security.rules.index import CompiledRule
from security.rules.items import PRIORITIES, RuleItem
from security.rules.loader import RuleLoader
from security.rules.loadresult import RuleLoadError
from security.rules.resolver import ResolvedList, condition_with_exceptions, parse_with_lists

_PLUGIN_OF_PREFIX = {
    **dict.fromkeys(("ka",), "k8saudit"),
    **dict.fromkeys(("ct", "s3", "ec2", "ecr", "iam"), "cloudtrail"),
    **dict.fromkeys(("json", "jevt"), "json"),
    **dict.fromkeys(("container", "k8s"), "container"),
    "gcp": "gcpaudit",
    "github": "github",
    "okta": "okta",
}


def describe(loader: RuleLoader, rule_name: str | None = None) -> dict[str, Any]:
    """All rules, macros and lists of a loader, or the rule of this name alone.

    Raises KeyError for a name that no rule has.
    """
    compiled = {rule.name: rule for rule in loader.rules.rules}
    if rule_name is not None:
        return {"rules": [_rule(loader, loader.collector.rules[rule_name], compiled.get(rule_name))]}
    version = loader.collector.engine_version
    return {
        "required_engine_version": "0.0.0" if version is None else str(version),
        "required_plugin_versions": [
            [{"name": name, "version": needed} for name, needed in entry.alternatives]
            for entry in loader.collector.plugin_versions
        ],
        "rules": [_rule(loader, item, compiled.get(item.name)) for item in loader.collector.rules.values()],
        "macros": [_macro(loader, name) for name in loader.macros],
        "lists": [_list(loader, entry) for entry in loader.lists.values()],
    }


def _operators(tree: Node) -> list[str]:
    found = set()
    for node in reachable(tree):
        if isinstance(node, Exists):
            found.add("exists")
        elif isinstance(node, Compare):
            found.add(node.operator if node.modifier is None else f"{node.operator} {node.modifier}")
    return sorted(found)


def _events(tree: Node, source: str) -> list[str]:
    if source != "syscall":
        return ["pluginevent"]
    return sorted(event_types(tree) or ())


def _plugins(names: set[str]) -> list[str]:
    prefixes = {name.partition(".")[0] for name in names}
    return sorted({_PLUGIN_OF_PREFIX[prefix] for prefix in prefixes if prefix in _PLUGIN_OF_PREFIX})


def _references(loader: RuleLoader, condition: str, item: Any) -> tuple[list[str], list[str]]:
    """Names of the lists and macros that a condition names itself."""
    probes = {name: ResolvedList(name, entry.items) for name, entry in loader.lists.items()}
    try:
        tree, _ = parse_with_lists(condition, probes.values(), loader.cache, item.condition_context)
    except RuleLoadError:
        return [], []
    macros = {node.name for node in reachable(tree) if isinstance(node, Macro)}
    return sorted(name for name, probe in probes.items() if probe.used), sorted(macros)


def _output_fields(template: Template) -> list[str]:
    return sorted({token.name for token in template.tokens})


def _rule(loader: RuleLoader, item: RuleItem, rule: CompiledRule | None) -> dict[str, Any]:
    info = {
        "condition": item.condition,
        "description": item.description,
        "enabled": item.enabled,
        "name": item.name,
        "output": item.output,
        "priority": PRIORITIES[item.priority],
        "source": item.source,
        "tags": sorted(item.tags),
    }
    if rule is None:
        return {"info": info, "details": {}}
    condition, _ = condition_with_exceptions(item)
    lists, macros = _references(loader, condition, item)
    names = fields_of(rule.condition)
    comparisons = {
        part
        for entry in item.exceptions
        for part in (entry.comparisons if isinstance(entry.comparisons, list) else [entry.comparisons])
        if isinstance(part, str)
    }
    details = {
        "condition_compiled": render(rule.condition),
        "condition_fields": sorted(names),
        "condition_operators": _operators(rule.condition),
        "events": _events(rule.condition, item.source),
        "exception_fields": sorted(rule.exception_fields),
        "exception_names": sorted(entry.name for entry in item.exceptions),
        "exception_operators": sorted(comparisons),
        "lists": lists,
        "macros": macros,
        "output_compiled": rule.output,
        "output_fields": _output_fields(rule.template),
        "plugins": _plugins(names | set(_output_fields(rule.template))),
    }
    return {"info": info, "details": details}


def _macro(loader: RuleLoader, name: str) -> dict[str, Any]:
    item, macro = loader.collector.macros[name], loader.macros[name]
    lists, macros = _references(loader, item.condition, item)
    names = fields_of(macro.tree)
    return {
        "info": {"condition": item.condition, "name": name},
        "details": {
            "condition_compiled": render(macro.tree),
            "condition_fields": sorted(names),
            "condition_operators": _operators(macro.tree),
            "events": _events(macro.tree, "syscall"),
            "lists": lists,
            "macros": macros,
            "plugins": _plugins(names),
            "used": macro.used,
        },
    }


def _list(loader: RuleLoader, entry: ResolvedList) -> dict[str, Any]:
    item = loader.collector.lists[entry.name]
    return {
        "info": {"items": item.items, "name": entry.name},
        "details": {
            "items_compiled": entry.items,
            "lists": sorted(text for text in item.items if text in loader.lists),
            "plugins": [],
            "used": entry.used,
        },
    }
