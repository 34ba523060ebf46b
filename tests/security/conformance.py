"""`python -m tests.security.conformance`: which reference cases agree with Falco."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator

from security.capture.blocks import open_capture
from security.capture.source import Capture
from security.engine import RuleEngine
from security.rules.index import Selection, select
from security.rules.items import parse_priority
from security.rules.loader import RuleLoader
from security.sources.cloudtrail import CloudTrail
from security.sources.json_events import InvalidEventError, JsonBatches
from security.sources.kubernetes_audit import KubernetesAudit
from tests.security.captureexpectations import CAPTURE_CASES, CAPTURES, CaptureCase
from tests.security.expectations import (
    AUDIT,
    AUDIT_RULES,
    CLOUDTRAIL,
    CLOUDTRAIL_RULES,
    DATA,
    ERRORS,
    FIXTURES,
    NOT_AUDIT,
    OFFICIAL_RULES,
    PLUGIN_REQUIREMENTS,
    RULES,
    WARNINGS,
    fixture_files,
)

Case = tuple[str, str]
"""The name of a case and what differs, empty when it agrees."""


def load(*paths: str) -> RuleLoader:
    """A loader that has read these files below the reference data."""
    loader = RuleLoader()
    for path in paths:
        loader.load_file(str(DATA / path))
    return loader


def official() -> Iterator[Case]:
    """The official rule files, each alone and all together."""
    together = RuleLoader()
    for name, count in OFFICIAL_RULES.items():
        for loader in (RuleLoader(), together):
            before = len(loader.rules.rules)
            result = loader.load_file(str(RULES / name))
            loaded = len(loader.rules.rules) - before
            agrees = result.successful and not result.warnings and loaded == count
            yield name, "" if agrees else f"{loaded} of {count} rules: {result.summary()}"


def fixtures() -> Iterator[Case]:
    """The rule fixtures: codes, messages and places of errors and warnings."""
    for names, (code, item_type, item_name, message) in ERRORS.items():
        errors = load(*(f"{FIXTURES.name}/{name}" for name in names)).results[-1].errors
        found = [(error.code, error.message) for error in errors]
        places = {(place.item_type, place.item_name) for error in errors for place in error.context.locations}
        placed = any(kind == item_type and item_name in ("", name) for kind, name in places)
        agrees = found == [(code, message)] and placed
        yield " + ".join(names), "" if agrees else f"{found} at {places}"
    bad = {names[-1] for names in ERRORS if len(names) == 1}
    for name in fixture_files():
        if name not in bad:
            result = load(f"{FIXTURES.name}/{name}").results[0]
            yield name, "" if result.successful else result.summary()
    for name, code, _, item_name, message in WARNINGS:
        warnings = load(f"{FIXTURES.name}/{name}").results[0].warnings
        agrees = any(
            (warning.code, warning.message) == (code, message)
            and any(place.item_name == item_name for place in warning.context.locations)
            for warning in warnings
        )
        yield f"{name}: {code} {item_name}", "" if agrees else "no such warning"
    for name, text in PLUGIN_REQUIREMENTS.items():
        messages = load(f"{FIXTURES.name}/{name}").missing_plugins()
        yield f"{name}: plugins", "" if messages == [text] else f"{messages}"


def audit() -> Iterator[Case]:
    """Kubernetes audit events against the rules they must raise, in the mode of first match."""
    for name, extra, expected in AUDIT_RULES:
        files = ["falco-rules/k8s_audit_rules.yaml", *(f"{FIXTURES.name}/{path}" for path in extra)]
        if extra == ("k8s_audit/single_rule_with_json_pointer.yaml",):
            files = files[1:]
        batches = JsonBatches(KubernetesAudit())
        batch = batches.batch(batches.read((AUDIT / f"{name}.json").read_bytes(), 0))
        found = [output.rule for output in RuleEngine(load(*files).rules).process(batch)]
        label = f"{name} {' '.join(path.split('/')[-1] for path in extra)}".strip()
        yield label, "" if found == expected else f"{found} instead of {expected}"
    for name, text in NOT_AUDIT.items():
        try:
            JsonBatches(KubernetesAudit()).read((AUDIT / f"{name}.json").read_bytes(), 0)
        except InvalidEventError as error:
            yield name, "" if str(error) == text else str(error)
        else:
            yield name, "was not refused"


def cloudtrail() -> Iterator[Case]:
    """CloudTrail records against the rules they must raise."""
    for name, extra, mode, expected in CLOUDTRAIL_RULES:
        files = ["falco-rules/aws_cloudtrail_rules.yaml", *(f"{FIXTURES.name}/{path}" for path in extra)]
        batches = JsonBatches(CloudTrail())
        batch = batches.batch(batches.read((CLOUDTRAIL / name).read_bytes(), 0))
        engine = RuleEngine(load(*files).rules, mode)
        found = [(match.row, match.rule.name) for match in engine.match(batch)]
        yield f"{name} ({mode})", "" if found == expected else f"{found} instead of {expected}"


def run_capture(case: CaptureCase) -> Counter[str]:
    """How often each rule of a case fires on its capture."""
    loader = load(*(f"{FIXTURES.name}/{name}" for name in case.rules))
    selections = [Selection(False, tag=tag) for tag in case.without_tags]
    if case.only_tags:
        selections = [Selection(False, "*"), *(Selection(True, tag=tag) for tag in case.only_tags)]
    floor = parse_priority(case.priority)
    assert floor is not None
    engine = RuleEngine(select(loader.rules, selections, floor))
    with open_capture(str(CAPTURES / case.capture)) as stream:
        for batch in Capture(stream).batches():
            engine.match(batch)
    return engine.matched


def difference(found: Counter[str], expected: dict[str, int | None]) -> str:
    """What is wrong with the hits of a capture, empty when nothing is."""
    wrong = []
    for name in sorted({*found, *expected}):
        wanted = expected.get(name, 0)
        if not found[name] if wanted is None else found[name] != wanted:
            wrong.append(f"{name}: {found[name]} instead of {'some' if wanted is None else wanted}")
    return ", ".join(wrong)


def captures() -> Iterator[Case]:
    """Captures of system calls against the rules they must raise."""
    for case in CAPTURE_CASES:
        yield case.name, difference(run_capture(case), case.expected)


PARTS: dict[str, Callable[[], Iterator[Case]]] = {
    "official rule files": official,
    "rule fixtures": fixtures,
    "Kubernetes audit events": audit,
    "CloudTrail records": cloudtrail,
    "system call captures": captures,
}


def main() -> int:
    """Print the counts and the differences; the exit status is 1 when something differs."""
    if not DATA.is_dir():
        print(f"no reference data at {DATA}")
        return 1
    failed = 0
    for title, part in PARTS.items():
        cases = list(part())
        different = [case for case in cases if case[1]]
        failed += len(different)
        print(f"{title:26} {len(cases) - len(different):4} of {len(cases):4} agree")
        for name, text in different:
            print(f"  {name}: {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
