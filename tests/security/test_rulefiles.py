"""The official rule files and the rule fixtures load with the results that Falco gives."""

from __future__ import annotations

import pytest

from security.rules.loader import RuleLoader
from security.rules.loadresult import Finding
from tests.security.expectations import (
    ERRORS,
    FIXTURES,
    OFFICIAL_RULES,
    PLUGIN_REQUIREMENTS,
    RULES,
    WARNINGS,
    fixture_files,
)

needs_rules = pytest.mark.skipif(not RULES.is_dir(), reason=f"no reference data at {RULES}")
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"no reference data at {FIXTURES}")


def load(*names: str) -> RuleLoader:
    loader = RuleLoader()
    for name in names:
        loader.load_file(str(FIXTURES / name))
    return loader


def has_item(finding: Finding, item_type: str, item_name: str) -> bool:
    return any(
        location.item_type == item_type and (not item_name or location.item_name == item_name)
        for location in finding.context.locations
    )


@needs_rules
def test_official_rule_files_load_together_without_a_finding() -> None:
    loader = RuleLoader()
    before = 0
    for name, count in OFFICIAL_RULES.items():
        result = loader.load_file(str(RULES / name))
        assert (result.summary(), len(loader.rules.rules) - before) == (f"{RULES / name}: Ok", count)
        before = len(loader.rules.rules)
    assert loader.missing_plugins() == []


@needs_fixtures
@pytest.mark.parametrize("names", ERRORS, ids=lambda names: names[-1])
def test_bad_fixture_gives_the_code_the_item_and_the_message_of_falco(names: tuple[str, ...]) -> None:
    loader = load(*names)
    code, item_type, item_name, message = ERRORS[names]
    assert [result.successful for result in loader.results] == [True] * (len(names) - 1) + [False]
    [error] = loader.results[-1].errors
    assert (error.code, error.message) == (code, message)
    assert has_item(error, item_type, item_name)


@needs_fixtures
def test_every_other_fixture_loads() -> None:
    bad = {names[-1] for names in ERRORS if len(names) == 1}
    failed = [
        load(name).results[0].summary()
        for name in fixture_files()
        if name not in bad and not load(name).successful
    ]
    assert failed == []


@needs_fixtures
def test_fixtures_give_the_warnings_of_falco() -> None:
    missing = []
    for name, code, item_type, item_name, message in WARNINGS:
        found = load(name).results[0].warnings
        if not any(
            w.code == code and w.message == message and has_item(w, item_type, item_name) for w in found
        ):
            missing.append((name, code, item_name))
    assert missing == []
    noisy = load("falco_rules_warnings.yaml").results[0].warnings
    assert len(noisy) == sum(name == "falco_rules_warnings.yaml" for name, *_ in WARNINGS)


@needs_fixtures
def test_plugin_requirement_that_nothing_meets_is_told() -> None:
    for name, message in PLUGIN_REQUIREMENTS.items():
        assert load(name).missing_plugins() == [message]


@needs_fixtures
def test_first_file_with_an_error_does_not_keep_the_next_from_loading() -> None:
    loader = load("invalid_rule_output.yaml", "single_rule.yaml", "double_rule.yaml")
    assert [result.successful for result in loader.results] == [False, True, True]
    assert "open_from_cat" in {rule.name for rule in loader.rules.rules}
    assert "rule_with_invalid_output" not in {rule.name for rule in loader.rules.rules}
