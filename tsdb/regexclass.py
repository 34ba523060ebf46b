"""What a regular expression can match, as far as it can be told from its text.

`classify` turns a pattern into a few globs: literals with gaps between them. A glob answers most matchers of
real dashboards (`a|b|c`, `prod-.*`, `.+`) with string operations; parts it cannot express become gaps of any
text and make the glob inexact, which still gives a prefix and a quick refusal before the full match. Only
text that RE2 has accepted comes here, so the walk decides what things mean, not whether they are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

ALTERNATIVES_LIMIT = 256
"""Most globs a pattern is expanded to, as many as Prometheus expands; beyond it the part becomes a gap."""

_CLASS_LIMIT = 64
_FLAGS_WITHOUT_EFFECT = frozenset("sU")
_METACHARACTERS = frozenset("()|*+?")


@dataclass(frozen=True, slots=True)
class Glob:
    """`literals[0]`, a gap of at least `gaps[0]` characters, `literals[1]`, and so on.

    `exact` false means a necessary condition only.
    """

    literals: tuple[str, ...] = ("",)
    gaps: tuple[int, ...] = ()
    exact: bool = True

    def join(self, after: Glob) -> Glob:
        """This glob followed by another."""
        literals = (*self.literals[:-1], self.literals[-1] + after.literals[0], *after.literals[1:])
        return Glob(literals, self.gaps + after.gaps, self.exact and after.exact).squeezed()

    def squeezed(self) -> Glob:
        """Adjacent gaps made one."""
        literals, gaps = [self.literals[0]], list[int]()
        for index, gap in enumerate(self.gaps):
            text = self.literals[index + 1]
            if gaps and not literals[-1] and len(literals) > 1:
                gaps[-1] += gap
                literals[-1] = text
            else:
                gaps.append(gap)
                literals.append(text)
        return Glob(tuple(literals), tuple(gaps), self.exact)

    def matches(self, value: str) -> bool:
        """Whether the value has this shape."""
        first, last = self.literals[0], self.literals[-1]
        if not self.gaps:
            return value == first
        if not value.startswith(first) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for gap, literal in zip(self.gaps, self.literals[1:-1], strict=False):
            found = value.find(literal, at + gap, end)
            if found < 0:
                return False
            at = found + len(literal)
        return at + self.gaps[-1] <= end


Language = tuple[Glob, ...]

_EMPTY: Language = (Glob(),)
_ANY_TEXT = Glob(("", ""), (0,))
_SOME_TEXT = Glob(("", ""), (1,))
_OPAQUE = Glob(("", ""), (0,), exact=False)
_ANY_CHARACTER = Glob(("", ""), (1,), exact=False)


class _Unsupported(Exception):
    """A construct that changes the meaning of what follows; the pattern is left to RE2."""


def classify(pattern: str) -> Language | None:
    """The globs whose union holds every matching text, or None where nothing is known of it."""
    try:
        walk = _Walk(pattern)
        language = walk.alternation()
        return language if walk.at == len(pattern) else None
    except (_Unsupported, IndexError, RecursionError):
        return None


class _Walk:
    """Recursive descent over RE2 syntax."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def peek(self, count: int = 1) -> str:
        return self.text[self.at : self.at + count]

    def alternation(self) -> Language:
        """Alternatives up to the closing parenthesis or the end."""
        found: dict[Glob, None] = dict.fromkeys(self.sequence())
        while self.peek() == "|":
            self.at += 1
            found.update(dict.fromkeys(self.sequence()))
        return tuple(found) if len(found) <= ALTERNATIVES_LIMIT else (_OPAQUE,)

    def sequence(self) -> Language:
        """Atoms one after the other."""
        language = _EMPTY
        while self.at < len(self.text) and self.peek() not in "|)":
            part = self.repeated(self.atom())
            if len(language) * len(part) > ALTERNATIVES_LIMIT:
                part = (_OPAQUE,)
            if len(language) * len(part) > ALTERNATIVES_LIMIT:
                language = (_OPAQUE,)
            language = tuple(dict.fromkeys(a.join(b) for a in language for b in part))
        return language

    def atom(self) -> Language:
        """One character, class, group or escape."""
        char = self.text[self.at]
        self.at += 1
        if char == "(":
            return self.group()
        if char == "[":
            return self.char_class()
        if char == "\\":
            return self.escape()
        if char == ".":
            return (_ANY_CHARACTER,)
        if char == "^":
            return _EMPTY if self.at == 1 else (_OPAQUE,)
        if char == "$":
            return _EMPTY if self.at == len(self.text) else (_OPAQUE,)
        if char in _METACHARACTERS:
            raise _Unsupported
        return (Glob((char,)),)

    def group(self) -> Language:
        """After an opening parenthesis, to behind the closing one."""
        self.depth += 1
        if self.depth > 50:
            raise _Unsupported
        if self.peek(2) in ("?P", "?<"):
            self.at = self.text.index(">", self.at) + 1
        elif self.peek() == "?":
            end = self._flags_end()
            self.at = end + 1
            if self.text[end] == ")":
                self.depth -= 1
                return _EMPTY
        language = self.alternation()
        if self.peek() != ")":
            raise _Unsupported
        self.at += 1
        self.depth -= 1
        return language

    def _flags_end(self) -> int:
        """Position of the colon or parenthesis behind flags that change nothing here."""
        end = self.at + 1
        while self.text[end] not in ":)":
            if self.text[end] not in _FLAGS_WITHOUT_EFFECT:
                raise _Unsupported
            end += 1
        return end

    def escape(self) -> Language:
        """After a backslash."""
        char = self.text[self.at]
        self.at += 1
        if not char.isalnum() and char.isascii():
            return (Glob((char,)),)
        if char in "pPx" and self.peek() == "{":
            self.at = self.text.index("}", self.at) + 1
        elif char in "pP":
            self.at += 1
        elif char == "x":
            self.at += 2
        elif char in "QE" or char.isdigit():
            raise _Unsupported
        return (_OPAQUE,)

    def char_class(self) -> Language:
        """After an opening bracket."""
        start = self.at
        if self.peek() == "^":
            self.at += 1
        if self.peek() == "]":
            self.at += 1
        plain = self.at == start
        while self.text[self.at] != "]":
            if self.peek(2) == "[:":
                plain = False
                self.at = self.text.index(":]", self.at) + 2
            elif self.peek() == "\\":
                plain = False
                self.at += 2
            else:
                self.at += 1
        members = self._class_members(self.text[start : self.at]) if plain else None
        self.at += 1
        return (_OPAQUE,) if members is None else tuple(Glob((c,)) for c in members)

    @staticmethod
    def _class_members(inner: str) -> list[str] | None:
        """Characters of a class without escapes, or None where there are many."""
        members: list[str] = []
        index = 0
        while index < len(inner):
            if inner[index + 1 : index + 2] == "-" and index + 2 < len(inner):
                low, high = ord(inner[index]), ord(inner[index + 2])
                if high - low > _CLASS_LIMIT:
                    return None
                members.extend(map(chr, range(low, high + 1)))
                index += 3
            else:
                members.append(inner[index])
                index += 1
        return members if len(members) <= _CLASS_LIMIT else None

    def repeated(self, part: Language) -> Language:
        """An atom with the repetition behind it."""
        operator = self.peek()
        any_char = part[0] is _ANY_CHARACTER
        if operator and operator in "*+?":
            self.at += 1
            if self.peek() == "?":
                self.at += 1
            if operator == "?" and not any_char:
                return tuple(dict.fromkeys((*part, Glob())))
            if any_char and operator in "*+":
                return (_ANY_TEXT if operator == "*" else _SOME_TEXT,)
            return (_OPAQUE,)
        if operator == "{" and self._is_repetition():
            self.at = self.text.index("}", self.at) + 1
            if self.peek() == "?":
                self.at += 1
            return (_OPAQUE,)
        return part

    def _is_repetition(self) -> bool:
        """Whether the brace opens a count; otherwise it stands for itself."""
        end = self.text.find("}", self.at)
        low, _, high = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        return low.isdigit() and (not high or high.isdigit())
