"""Hostile rules and events: an error with its place, in bounded time, and the running rules stay."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from security.activerules import ActiveRules, RuleOptions
from security.rules.index import Selection
from security.rules.loader import RuleLoader, rule_files
from tests.security.randomrules import batch_of
from tests.security.test_engine import matches_of, rules_of

RULE = """
- rule: r
  desc: d
  condition: {}
  output: {}
  priority: {}
"""


def load(text: str) -> tuple[str, str]:
    """Code and message of the only error; the result renders in all three ways."""
    loader = RuleLoader()
    started = time.perf_counter()
    result = loader.load_text("bad.yaml", text)
    assert time.perf_counter() - started < 15
    assert result.verbose(loader.contents)
    assert result.as_json(loader.contents)["successful"] is result.successful
    assert result.summary().startswith("bad.yaml: ")
    if result.successful:
        return "", ""
    [error] = result.errors
    assert error.context.locations[0].name == "bad.yaml"
    return error.code, error.message


def rule(condition: str, output: str = "x", priority: str = "INFO") -> str:
    return RULE.format(condition, output, priority)


CONDITIONS = [
    ("evt.type = open and fd.nothing = 1", "filter_check called with nonexistent field fd.nothing"),
    ("evt.type = opened", "unknown event type opened"),
    ("fd.num = x", "x is not a valid number"),
    ("user.uid = -1", "-1 is not a valid number"),
    ("fd.sport = 65536", "65536 is not a valid number"),
    ("fd.num = 99999999999999999999999", "99999999999999999999999 is not a valid number"),
    ("evt.is_open_read = yes", "filter error: unrecognized boolean value yes"),
    ("fd.sip = 1.2.3", "unrecognized IPv4 address 1.2.3"),
    ("fd.sip = 1::2::3", "unrecognized IPv6 address 1::2::3"),
    ("fd.snet = 10.0.0.0", "unrecognized IP network 10.0.0.0"),
    ("fd.num contains 1", "'contains' operator not supported for numeric filters"),
    ("fd.sip startswith 1", "'startswith' operator not supported for ip address filters"),
    ("proc.name bcontains 00", "'bcontains' operator not supported for string filters"),
    (
        "evt.buffer bcontains xyz",
        "filter error: bcontains and bstartswith operator support hex strings only",
    ),
    ("fd.types contains a", "'contains' operator not supported for list filters"),
    ("proc.aname[x] = a", "filter error: field 'proc.aname' needs a number as its argument: 'proc.aname[x]'"),
    ("proc.name[1] = a", "filter error: field 'proc.name' does not accept an argument: 'proc.name[1]'"),
    ("evt.rawarg = a", "filter error: field 'evt.rawarg' requires an argument"),
    ("toupper(fd.num) = A", "transformer 'toupper' does not support these arguments"),
    ("toupper(proc.aname) = A", "field 'proc.aname' does not support field transformers"),
    ("fd.name = val(fd.num)", "left and right hand side types are not compatible: CHARBUF and INT64"),
    ("concat(proc.name) = a", "transformer 'concat' got 1 arguments"),
]


@pytest.mark.parametrize(("condition", "message"), CONDITIONS)
def test_condition_that_does_not_fit_the_fields_is_refused(condition: str, message: str) -> None:
    assert load(rule(condition)) == ("LOAD_ERR_COMPILE_CONDITION", message)


OUTPUTS = [
    ('"%"', "invalid formatting syntax: formatter cannot end with a %"),
    ('"a %%b"', "invalid formatting token %b"),
    ('"%proc"', "invalid formatting token proc"),
    ('"%fd.nothing x"', "invalid formatting token fd.nothing x"),
    ('"%toupper(proc.name x"', "invalid formatting token toupper(proc.name x"),
    ('"%99999proc.name"', "invalid formatting width 99999: more than 4096"),
    ('"%ka.verb"', "invalid formatting token ka.verb"),
]


@pytest.mark.parametrize(("output", "message"), OUTPUTS)
def test_output_that_names_no_field_is_refused(output: str, message: str) -> None:
    assert load(rule("evt.type = open", output)) == ("LOAD_ERR_COMPILE_OUTPUT", message)


def test_malformed_yaml_is_told_with_line_and_column() -> None:
    assert load("- rule: [x\n") == (
        "LOAD_ERR_YAML_PARSE",
        "yaml-cpp: error at line 2, column 1: end of sequence flow not found",
    )
    assert load("- list: *nobody\n")[0] == "LOAD_ERR_YAML_PARSE"
    assert load("- a: \x01\n")[0] == "LOAD_ERR_YAML_PARSE"


def test_deep_nesting_and_aliases_that_multiply_are_bounded() -> None:
    assert load("[" * 1_000_000)[0] == "LOAD_ERR_YAML_PARSE"
    laughs = "- &a0 [x, x]\n" + "".join(f"- &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    assert load(laughs)[0] == "LOAD_ERR_YAML_VALIDATE"
    nested = "".join(f"  - &b{i} [*b{i - 1}, *b{i - 1}]\n" for i in range(1, 40))
    exceptions = (
        f"  exceptions:\n  - name: e\n    fields: [proc.name]\n    values:\n    - &b0 [x, x]\n{nested}"
    )
    assert load(rule("evt.type = open") + exceptions.replace("\n  - &b", "\n    - &b"))[0] != ""


def test_macros_that_double_at_each_step_stay_small() -> None:
    macros = "- macro: m0\n  condition: proc.name = a\n"
    for i in range(1, 60):
        macros += f"- macro: m{i}\n  condition: m{i - 1} and (m{i - 1} or proc.name = x{i})\n"
    assert load(macros + rule("evt.type = open and m59")) == ("", "")


def test_macros_nested_too_deep_are_refused() -> None:
    macros = "- macro: m0\n  condition: proc.name = a\n"
    for i in range(1, 400):
        macros += f"- macro: m{i}\n  condition: not m{i - 1} or (proc.name = x{i} and m{i - 1})\n"
    code, message = load(macros + rule("evt.type = open and m399"))
    assert (code, message) == ("LOAD_ERR_COMPILE_CONDITION", "exceeded max depth limit of 1000")


def test_macro_loop_is_found() -> None:
    text = (
        "- macro: a\n  condition: evt.type = open\n- macro: b\n  condition: a\n- macro: a\n  condition: b\n"
    )
    assert load(text) == ("LOAD_ERR_VALIDATE", "reference loop in macro 'b'")


def test_ten_megabyte_condition_is_refused_with_its_length() -> None:
    code, message = load(rule("evt.type = open and proc.name in (" + "a," * 5_000_000 + "a)"))
    assert (code, message) == (
        "LOAD_ERR_COMPILE_CONDITION",
        "condition of 10000036 characters is longer than 1048576",
    )


def test_lists_that_multiply_are_refused() -> None:
    items = ", ".join(f"item{i}" for i in range(20_000))
    lists = f"- list: big\n  items: [{items}]\n"
    code, message = load(lists + rule("evt.type = open and proc.name in (" + "big, " * 20_000 + "x)"))
    assert code == "LOAD_ERR_COMPILE_CONDITION"
    assert "is longer than 1048576" in message
    many = ", ".join(["big"] * 20_000)
    code, message = load(f"{lists}- list: bigger\n  items: [{many}]\n")
    assert (code, message) == ("LOAD_ERR_VALIDATE", "lists have more than 1048576 items")


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 200_000, "'" * 300_001, "not " * 100_000 + "a", "a and " * 50_000]
)
def test_long_odd_conditions_take_linear_time(text: str) -> None:
    started = time.perf_counter()
    loader = RuleLoader()
    loader.load_text("x.yaml", "- macro: m\n  condition: |\n    " + text + "\n")
    assert time.perf_counter() - started < 10


def test_regular_expressions_that_explode_elsewhere_run_in_linear_time() -> None:
    rules = rules_of(r'evt.type = open and proc.args regex "(a+)+(a|aa)+$"')
    event = {("evt.type", None): "open", ("proc.args", None): "a" * 100_000 + "!"}
    started = time.perf_counter()
    assert matches_of(rules, [event]) == []
    assert time.perf_counter() - started < 2
    assert load(rule('evt.type = open and proc.args regex "(a"'))[0] == "LOAD_ERR_COMPILE_CONDITION"
    assert load(rule(r'evt.type = open and proc.args regex "(?=a)b"'))[0] == "LOAD_ERR_COMPILE_CONDITION"


HOSTILE = ["\x1b[31m", "\udcff\udc80", "\ud800", "a\0b", "%proc.name", "é" * 10_000, "\n\r\t", '"', "\\"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_of_events_pass_every_operator_and_the_output(text: str) -> None:
    from security.engine import RuleEngine
    from security.output import OutputOptions

    operators = ("contains", "icontains", "startswith", "endswith", "glob", "iglob", "regex", "=", "!=")
    checks = " or ".join(f"proc.args {operator} zz" for operator in operators)
    loader = RuleLoader()
    condition = f"evt.type = open and ({checks} or proc.args pmatch (/zz) or len(tolower(proc.args)) > 0)"
    result = loader.load_text("r.yaml", rule(condition, '"x=%proc.args"'))
    assert result.successful, result.verbose(loader.contents)
    batch = batch_of([{("evt.type", None): "open", ("proc.args", None): text}])
    [output] = RuleEngine(loader.rules).process(batch)
    line = output.line(OutputOptions())
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in line)
    line.encode("utf-8")
    assert output.json_line(OutputOptions()).startswith('{"hostname"')


def test_bad_reload_keeps_the_running_rules(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(rule("evt.type = open"), encoding="utf-8")
    bad.write_text(rule("evt.type = opened"), encoding="utf-8")
    active = ActiveRules(RuleOptions(selections=(Selection(True, rule="r"),)))
    active.reload([str(good)])
    running = active.engine
    assert running is not None
    for paths in ([str(bad)], [str(tmp_path / "absent.yaml")], [str(good), str(bad)]):
        active.reload(paths)
        assert active.engine is running
        assert active.problems
    assert (active.reloads_count, active.reload_failures_count) == (4, 3)
    active.reload([str(good)])
    assert active.engine is not running
    assert active.problems == active.problem_lines == []


def test_bad_rules_are_one_line_each_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "- rule: Shell\n  desc: d\n  condition: >\n    evt.type = open and\n    fd.nam = x\n"
        "  output: o\n  priority: INFO\n"
    )
    active = ActiveRules()
    active.reload([str(path)])
    (line,) = active.problem_lines
    assert line == f"{path}:3: rule 'Shell': filter_check called with nonexistent field fd.nam"
    path.write_text("- rule: [\n")
    active.reload([str(path)])
    (line,) = active.problem_lines
    assert line.startswith(f"{path}:")
    assert "\n" not in line
    active.reload([str(tmp_path / "absent.yaml")])
    assert "absent.yaml" in active.problem_lines[0]


def test_directory_stands_for_its_yaml_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert [Path(path).name for path in rule_files([str(tmp_path)])] == ["a.yml", "b.yaml"]


def test_unreadable_file_is_a_read_error(tmp_path: Path) -> None:
    loader = RuleLoader()
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (str(tmp_path / "absent"), str(binary)):
        assert loader.load_file(path).errors[0].code == "LOAD_ERR_FILE_READ"
