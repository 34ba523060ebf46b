"""What Falco's former regression suite (falcosecurity/testing, legacy tests) found in the reference captures.

That suite still counted the entries of calls, which no longer exist: where it found 8 opens and 6 accesses of
`cat_write`, there are 4 and 3 exits. A count of None means that the suite asks for one hit at least.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.security.expectations import DATA

CAPTURES = DATA / "scap"
CAT_WRITE, OPEN_FILES = "cat_write.scap", "open-multiple-files.scap"


@dataclass(frozen=True)
class CaptureCase:
    """Rules below the fixtures, tags to switch, a priority floor, and how often which rule fires."""

    capture: str
    rules: tuple[str, ...]
    expected: dict[str, int | None] = field(default_factory=dict)
    only_tags: str = ""
    without_tags: str = ""
    priority: str = "debug"

    @property
    def name(self) -> str:
        """A title for the list of cases."""
        switched = f" only {self.only_tags}" if self.only_tags else ""
        switched += f" without {self.without_tags}" if self.without_tags else ""
        floor = f" from {self.priority}" if self.priority != "debug" else ""
        return f"{self.capture} {' + '.join(self.rules)}{switched}{floor}"


def _opens(*numbers: int) -> dict[str, int | None]:
    return {f"open_{number}": 1 for number in numbers}


_CAT = {"open_from_cat": 4, "exec_from_cat": 1, "access_from_cat": 3}
_SILENT = (
    *(("single_rule.yaml", f"override_{name}.yaml") for name in ("macro", "list", "nested_list", "rule")),
    *((f"{name}_append_false.yaml",) for name in ("list", "macro", "rule")),
    *((name,) for name in ("list_substring.yaml", "skip_unknown_evt.yaml", "skip_unknown_prefix.yaml")),
    *((f"{name}.yaml",) for name in ("single_rule_enabled_flag", "disabled_rule_using_enabled_flag_only")),
)
_LOUD = {
    "endswith.yaml": {"open_ending with null": None},
    "macro_append.yaml": {"Open From Cat": None},
    "list_append.yaml": {"Open From Cat": None},
    "list_order.yaml": {"open_from_cat": None},
    "macro_order.yaml": {"open_from_cat": None},
    "rule_order.yaml": {"open_from_cat": None},
    "rule_append.yaml": {"my_rule": None},
    "rule_names_with_spaces.yaml": {"Open From Cat": None},
    "rule_names_with_regex_chars.yaml": {"Open From Cat ($\\.*+?()[]{}|^)": 4},
    "single_rule.yaml": {"open_from_cat": 4},
    "single_rule_with_tags.yaml": {"open_from_cat": None},
    "enabled_rule_using_enabled_flag_only.yaml": {"open_from_cat": 4},
    "null_output_field.yaml": {"open_from_cat": None},
    "catchall_order.yaml": {"open_dev_null": 1, "dev_null": 3},
    "exceptions/rule_exception_no_values.yaml": {"Open From Cat": None},
    **{
        f"list_sub_{name}.yaml": {"open_from_cat": None}
        for name in ("bare", "end", "front", "mid", "whitespace")
    },
}
_EXCEPTIONS = (
    *("append_comp", "append_multiple", "append_one_value", "append_second_item", "append_second_value"),
    *("append_third_item", "comp", "new_second_field_append", "new_single_field_append", "one_value"),
    *("quoted", "second_item", "second_value", "single_field", "single_field_append", "third_item"),
    *("values_list", "values_listref", "values_listref_noparens"),
)
_TAGS = ("tagged_rules.yaml",)

CAPTURE_CASES = (
    *(CaptureCase(CAT_WRITE, rules) for rules in _SILENT),
    *(CaptureCase(CAT_WRITE, (f"exceptions/rule_exception_{name}.yaml",)) for name in _EXCEPTIONS),
    *(CaptureCase(CAT_WRITE, (rules,), expected) for rules, expected in _LOUD.items()),
    CaptureCase(CAT_WRITE, ("single_rule.yaml", "append_single_rule.yaml"), priority="error"),
    CaptureCase(CAT_WRITE, ("single_rule.yaml", "empty_rules.yaml"), {"open_from_cat": 4}),
    CaptureCase(CAT_WRITE, ("empty_rules.yaml", "single_rule.yaml"), {"open_from_cat": 4}),
    CaptureCase(CAT_WRITE, ("single_rule.yaml", "double_rule.yaml"), dict(_CAT)),
    CaptureCase(CAT_WRITE, ("rules_dir/000-single_rule.yaml", "rules_dir/001-double_rule.yaml"), dict(_CAT)),
    CaptureCase(
        CAT_WRITE,
        ("single_rule.yaml", "double_rule.yaml"),
        {"open_from_cat": 4, "exec_from_cat": 1},
        priority="warning",
    ),
    CaptureCase("syscall.scap", ("syscalls.yaml",), {"detect_madvise": 2, "detect_open": 2}),
    CaptureCase("connect_localhost.scap", ("detect_connect_using_in.yaml",), {"Localhost connect": None}),
    CaptureCase("ping_sendto.scap", ("single_rule.yaml",)),
    CaptureCase(OPEN_FILES, _TAGS, _opens(2, 3, 6, 11, 12, 13), without_tags="a"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(1, 3, 5, 9, 11, 12, 13), without_tags="b"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(1, 2, 4, 8, 11, 12, 13), without_tags="c"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(3, 11, 12, 13), without_tags="ab"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(11, 12, 13), without_tags="abc"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(1, 4, 5, 7, 8, 9, 10), only_tags="a"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(2, 4, 6, 7, 8, 10), only_tags="b"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(3, 5, 6, 7, 9, 10), only_tags="c"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(11), only_tags="d"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(1, 2, 4, 5, 6, 7, 8, 9, 10), only_tags="ab"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(*range(2, 11)), only_tags="bc"),
    CaptureCase(OPEN_FILES, _TAGS, _opens(*range(1, 11)), only_tags="abc"),
)
