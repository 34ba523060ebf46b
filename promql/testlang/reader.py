"""Test files to commands.

Lines are trimmed; a line that starts with # counts as blank; a blank line ends a command.
"""

from __future__ import annotations

import re
from dataclasses import replace

from promql.duration import DurationError, parse_duration
from promql.errors import ParseError
from promql.numberformat import parse_number
from promql.parser import parse
from promql.parseroptions import ParserOptions
from promql.quoting import quote, unquote
from promql.seriesnotation import SERIES_VALUES_MAX, SeriesValue, parse_series_description
from promql.testlang.commands import (
    Clear,
    Command,
    Eval,
    Expectation,
    ExpectedSeries,
    ExpectKind,
    Load,
    LoadedSeries,
    TestFileError,
)
from tsdb.labels import Labels

FILE_BYTES_MAX = 16 << 20

_LOAD = re.compile(r"load(?:_(with_nhcb))?\s+(.+)")
_INSTANT = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+instant(?:\s+at\s+(\S+))?\s+(.+)")
_RANGE = re.compile(r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)")
_EXPECT = re.compile(r"expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?")
_EXPECT_RANGE = re.compile(r"expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)")
_START_ITEM = re.compile(r"([+-]?[0-9]+[a-wyz]*)(?:([+-])([0-9]+[a-wyz]+))?(?:x([0-9]{1,18}))?")

_EXCLUSIVE = ((ExpectKind.INFO, ExpectKind.NO_INFO), (ExpectKind.WARN, ExpectKind.NO_WARN))
_OLD_FAIL = {"expected_fail_message": "msg", "expected_fail_regexp": "regex"}


def read_test_file(text: str) -> list[Command]:
    """Commands of a file. Raises TestFileError with the line."""
    if len(text) > FILE_BYTES_MAX:
        raise TestFileError(1, f"file has {len(text)} characters, more than the limit of {FILE_BYTES_MAX}")
    lines = [line.strip() for line in text.split("\n")]
    lines = ["" if line.startswith("#") else line for line in lines]
    commands: list[Command] = []
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        end = at + 1
        while end < len(lines) and lines[end]:
            end += 1
        commands.append(_command(lines[at:end], at + 1))
        # Commands of one line may follow each other without a blank line.
        at = at + 1 if isinstance(commands[-1], Clear) else end
    return commands


def _command(lines: list[str], line: int) -> Command:
    word = re.split(r"[\t ]+", lines[0], maxsplit=1)[0].lower()
    if word == "clear":
        return Clear(line)
    if word.startswith("load"):
        return _load(lines, line)
    if word.startswith("eval"):
        return _EvalReader(lines, line).read()
    raise TestFileError(line, f"invalid command {quote(lines[0])}")


def _duration(text: str, what: str, line: int) -> int:
    try:
        return parse_duration(text)
    except DurationError as error:
        raise TestFileError(line, f"invalid {what} definition {quote(text)}: {error}") from None


def _series(text: str, line: int) -> tuple[Labels, list[SeriesValue]]:
    try:
        return parse_series_description(text)
    except ParseError as error:
        raise TestFileError(line, f"column {error.pos.start + 1}: parse error: {error.message}") from None


def _load(lines: list[str], line: int) -> Load:
    head = _LOAD.fullmatch(lines[0])
    if head is None:
        raise TestFileError(line, "invalid load command. (load[_with_nhcb] <step:duration>)")
    step_ms = _duration(head[2], "step", line)
    series: dict[Labels, LoadedSeries] = {}
    starts: tuple[Labels, list[int | None], int] | None = None
    for number, text in enumerate(lines[1:], line + 1):
        if text.split()[0].endswith("@st"):
            if starts is not None:
                raise TestFileError(starts[2], "@st line has no following sample line")
            starts = (*_start_line(text, number), number)
            continue
        labels, values = _series(text, number)
        offsets: tuple[int | None, ...] | None = None
        if starts is not None:
            if starts[0] != labels:
                raise TestFileError(starts[2], "@st metric does not match the following sample line metric")
            if len(starts[1]) != len(values):
                counts = f"{len(starts[1])} values but sample line has {len(values)}"
                raise TestFileError(starts[2], f"@st line has {counts}")
            offsets = tuple(starts[1])
            starts = None
        # As in Prometheus, a second line of one series replaces the first.
        series[labels] = LoadedSeries(labels, tuple(values), offsets)
    if starts is not None:
        raise TestFileError(starts[2], "@st line has no following sample line")
    return Load(line, step_ms, tuple(series.values()), head[1] is not None)


def _start_line(text: str, line: int) -> tuple[Labels, list[int | None]]:
    """`metric@st -1m _ 0sx3`: signed offsets of start timestamps from the sample times."""
    metric, *items = text.split()
    labels, _ = _series(metric.removesuffix("@st") + " _", line)
    out: list[int | None] = []
    for item in items:
        out.extend(_start_item(item, line))
        if len(out) > SERIES_VALUES_MAX:
            raise TestFileError(line, f"more than {SERIES_VALUES_MAX} values in one series")
    return labels, out


def _start_item(item: str, line: int) -> list[int | None]:
    gap = re.fullmatch(r"_(?:x([1-9][0-9]{0,17}))?", item)
    if gap is not None:
        return [None] * _repeat(gap[1], 1, line)
    match = _START_ITEM.fullmatch(item)
    if match is None or (match[2] is not None and match[4] is None):
        raise TestFileError(line, f"invalid @st sequence: invalid ST item {quote(item)}")
    base = _signed_duration(match[1], line)
    delta = 0 if match[2] is None else _signed_duration(match[2] + match[3], line)
    return [base + delta * k for k in range(_repeat(match[4], 0, line) + 1)]


def _repeat(digits: str | None, default: int, line: int) -> int:
    count = default if digits is None else int(digits)
    if count > SERIES_VALUES_MAX:
        raise TestFileError(line, f"repetition {count} is more than {SERIES_VALUES_MAX}")
    return count


def _signed_duration(text: str, line: int) -> int:
    ms = _duration(text.lstrip("+-"), "duration", line)
    return -ms if text.startswith("-") else ms


class _EvalReader:
    """Reads one eval command with its expectations."""

    def __init__(self, lines: list[str], line: int) -> None:
        self._lines = lines
        self._line = line
        self._expectations: dict[ExpectKind, list[Expectation]] = {}

    def read(self) -> Eval:
        head = self._lines[0]
        instant, ranged = _INSTANT.fullmatch(head), _RANGE.fullmatch(head)
        if instant is not None:
            at_ms = 0 if instant[2] is None else _duration(instant[2], "timestamp", self._line)
            command = Eval(self._line, instant[3], False, at_ms, start_ms=at_ms, end_ms=at_ms)
        elif ranged is not None:
            start_ms, end_ms, step_ms = self._range(ranged[2], ranged[3], ranged[4], self._line)
            command = Eval(self._line, ranged[5], True, start_ms=start_ms, end_ms=end_ms, step_ms=step_ms)
        else:
            forms = "eval[_fail|_warn|_ordered|_info] instant [at <time>] <query>"
            forms += " or eval[_fail|_warn|_info] range from <from> to <to> step <step> <query>"
            raise TestFileError(self._line, f"invalid evaluation command, must be {forms}")
        self._check_query(command.text)
        suffix = (instant or ranged or [None, None])[1]
        if suffix is not None:
            self._expectations[ExpectKind(suffix)] = [Expectation()]
        return replace(self._body(command), expectations=self._expectations)

    def _check_query(self, text: str) -> None:
        try:
            parse(text, ParserOptions.everything())
        except ParseError as error:
            column = error.pos.start + self._lines[0].rindex(text) + 1
            raise TestFileError(self._line, f"column {column}: parse error: {error.message}") from None

    def _range(self, start: str, end: str, step: str, line: int) -> tuple[int, int, int]:
        start_ms = _duration(start, "start timestamp", line)
        end_ms = _duration(end, "end timestamp", line)
        if end_ms < start_ms:
            text = f"end timestamp ({end}) is before start timestamp ({start})"
            raise TestFileError(line, f"invalid test definition, {text}")
        return start_ms, end_ms, _duration(step, "step", line)

    def _body(self, command: Eval) -> Eval:
        series: list[ExpectedSeries] = []
        for line, text in enumerate(self._lines[1:], self._line + 1):
            words = text.split()
            if words[0] in _OLD_FAIL and ExpectKind.FAIL in self._expectations:
                expected = text.removeprefix(words[0]).strip()
                self._expectations[ExpectKind.FAIL] = [_expectation(_OLD_FAIL[words[0]], expected, line)]
                break
            if text.startswith("expect range vector"):
                command = self._range_vector(command, text, line)
            elif text.startswith("expect string"):
                command = replace(command, string=_string(text, line))
            elif text.split(" ")[0] == "expect":
                self._expect(text, line)
            else:
                number = _scalar(text)
                if number is not None:
                    command = replace(command, scalar=number)
                    break
                series.append(self._expected(command, text, line, len(series) + 1))
        return replace(command, series=tuple(series))

    def _range_vector(self, command: Eval, text: str, line: int) -> Eval:
        match = _EXPECT_RANGE.fullmatch(text)
        if match is None:
            raise TestFileError(line, f"invalid range vector definition {quote(text)}")
        start_ms, end_ms, step_ms = self._range(match[1], match[2], match[3], line)
        return replace(
            command,
            at_ms=end_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            step_ms=step_ms,
            expects_range_vector=True,
        )

    def _expect(self, text: str, line: int) -> None:
        match = _EXPECT.fullmatch(text)
        if match is None:
            form = "expect <type> [msg|regex: <text>]"
            raise TestFileError(line, f"invalid expect statement, must match `{form}` format")
        kind = ExpectKind(match[1])
        expectation = Expectation() if match[2] is None else _expectation(match[2], match[3].strip(), line)
        self._expectations.setdefault(kind, []).append(expectation)
        for kinds in _EXCLUSIVE:
            if all(each in self._expectations for each in kinds):
                names = " and ".join(each.value for each in kinds)
                raise TestFileError(line, f"invalid expect lines, {names} cannot be used together")
        if len(self._expectations.get(ExpectKind.FAIL, [])) > 1:
            raise TestFileError(line, "invalid expect lines, multiple expect fail lines are not allowed")

    def _expected(self, command: Eval, text: str, line: int, position: int) -> ExpectedSeries:
        labels, values = _series(text, line)
        if len(values) > 1 and not command.is_range and not command.expects_range_vector:
            hint = "use 'expect range vector' for an instant query of a range vector"
            raise TestFileError(line, f"expecting multiple values in instant evaluation not allowed; {hint}")
        return ExpectedSeries(labels, tuple(values), position)


def _expectation(form: str, text: str, line: int) -> Expectation:
    if form == "msg":
        return Expectation(message=text)
    try:
        return Expectation(pattern=re.compile(text))
    except re.error as error:
        raise TestFileError(line, f"invalid regex {text}: {error}") from None


def _string(text: str, line: int) -> str:
    literal = text.removeprefix("expect string").strip()
    try:
        return unquote(literal)
    except (ValueError, IndexError):
        raise TestFileError(line, "expected string literal not valid - it must be quoted") from None


def _scalar(text: str) -> float | None:
    """A line that is nothing but a number."""
    try:
        sign = -1.0 if text.startswith("-") else 1.0
        return sign * parse_number(text.removeprefix("-").removeprefix("+"))
    except (ValueError, OverflowError):
        return None
