"""Tokens of the query language, and the lexer that makes them.

The lexer works on the bytes of the text, held as a Latin-1 string (one character a byte), so every position
is a byte offset. Its three modes (statement, inside braces, duration) and its error texts are Prometheus's;
what a word means depends on the mode, which is why the lexer is ours and not generated.
Semantics: prometheus-surface.md 2.1.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from promql.quoting import quote, quote_rune, unicode_name


class Token(NamedTuple):
    """`kind` is the terminal of the grammar, `text` the bytes as Latin-1, `pos` their offset."""

    kind: str
    pos: int
    text: str

    @property
    def end(self) -> int:
        """Offset after the last byte."""
        return self.pos + len(self.text)

    @property
    def string(self) -> str:
        """The text as Unicode."""
        return decode(self.text)


class LexError(Exception):
    """No token can be made at `pos`."""

    def __init__(self, message: str, pos: int) -> None:
        super().__init__(message)
        self.message = message
        self.pos = pos


def encode(text: str) -> str:
    """UTF-8 bytes of a text, one character a byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def decode(source: str) -> str:
    """The reverse of `encode`; invalid UTF-8 becomes surrogate escapes."""
    return source if source.isascii() else source.encode("latin-1").decode("utf-8", "surrogateescape")


OPERATORS = {
    "+": "ADD",
    "/": "DIV",
    "==": "EQLC",
    "=~": "EQL_REGEX",
    ">=": "GTE",
    ">": "GTR",
    "</": "TRIM_UPPER",
    ">/": "TRIM_LOWER",
    "<": "LSS",
    "<=": "LTE",
    "%": "MOD",
    "*": "MUL",
    "!=": "NEQ",
    "!~": "NEQ_REGEX",
    "^": "POW",
    "-": "SUB",
    "@": "AT",
}
WORD_OPERATORS = {"and": "LAND", "or": "LOR", "unless": "LUNLESS", "atan2": "ATAN2"}
AGGREGATORS = (
    *("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "topk", "bottomk"),
    *("count_values", "quantile", "limitk", "limit_ratio"),
)
KEYWORDS = (
    *("offset", "smoothed", "anchored", "by", "without", "on", "ignoring", "group_left", "group_right"),
    *("fill", "fill_left", "fill_right", "bool"),
)
PREPROCESSORS = ("start", "end", "step", "range", "max_of", "min_of")
DURATION_WORDS = {"step": "STEP", "range": "RANGE", "max_of": "MAX_OF", "min_of": "MIN_OF"}
_DURATION_STARTS = "sSrRmM"

WORDS: dict[str, str] = {
    **WORD_OPERATORS,
    **{word: word.upper() for word in (*AGGREGATORS, *KEYWORDS, *PREPROCESSORS)},
    "inf": "NUMBER",
    "nan": "NUMBER",
}
_PUNCTUATION = {
    "(": "LEFT_PAREN",
    ")": "RIGHT_PAREN",
    "{": "LEFT_BRACE",
    "}": "RIGHT_BRACE",
    "[": "LEFT_BRACKET",
    "]": "RIGHT_BRACKET",
    ",": "COMMA",
    "=": "EQL",
    ":": "COLON",
}
_FILL = {"FILL", "FILL_LEFT", "FILL_RIGHT"}
_OPERATOR_KINDS = {*OPERATORS.values(), *WORD_OPERATORS.values()}
_AGGREGATOR_KINDS = {word.upper() for word in AGGREGATORS}
_KEYWORD_KINDS = {word.upper() for word in KEYWORDS}
_NAMED = {
    "IDENTIFIER": "identifier",
    "METRIC_IDENTIFIER": "metric identifier",
    "STRING": "string",
    "NUMBER": "number",
    "DURATION": "duration",
}
_SHOWN_MAX = 10


def describe(token: Token) -> str:
    """How an error text names an unexpected token."""
    kind = token.kind
    if kind == "EOF":
        return "end of input"
    text = token.string
    if kind in _KEYWORD_KINDS:
        return f"<{text}>"
    if kind in _OPERATOR_KINDS:
        return f"<op:{text}>"
    if kind in _AGGREGATOR_KINDS:
        return f"<aggr:{text}>"
    if kind in ("IDENTIFIER", "METRIC_IDENTIFIER"):
        return f"{_NAMED[kind]} {quote(text)}"
    shown = f"{quote(text[:_SHOWN_MAX])}..." if len(token.text) > _SHOWN_MAX else quote(text)
    name = _NAMED.get(kind)
    return f"{name} {shown}" if name else shown


_SKIP = re.compile(r"(?:[ \t\n\r]+|#[^\r\n]*)*")
_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z_.])")
_PLAIN_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdwy]))+(?![0-9A-Za-z_])")
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LETTERS = re.compile(r"[A-Za-z_]*")
_PLAIN_STRING = {
    '"': re.compile(r'"[^"\\\n\x80-\xff]*"'),
    "'": re.compile(r"'[^'\\\n\x80-\xff]*'"),
    "`": re.compile(r"`[^`\x80-\xff]*`"),
}
_OPERATOR = re.compile(r"==|!=|<=|</|<|>=|>/|>|[-+*/%^@,]")
_MATCH_OPERATOR = re.compile(r"=~|=|!=|!~|,")
_DIGITS = "0123456789"
_HEX_DIGITS = "0123456789abcdefABCDEF"
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")


class Lexer:
    """Makes the tokens of one text, one at a time. Single use."""

    def __init__(self, source: str) -> None:
        """`source` is the text in the form of `encode`."""
        self._source = source
        self._pos = 0
        self._paren_depth = 0
        self._brace_open = False
        self._bracket_open = False
        self._in_duration = False
        self._got_colon = False
        self._got_duration = False

    def next_token(self) -> Token:
        """The next token that is not a comment; `EOF` at the end. Raises LexError."""
        if self._in_duration:
            return self._duration()
        skipped = _SKIP.match(self._source, self._pos)
        assert skipped is not None
        self._pos = skipped.end()
        if self._brace_open:
            return self._inside_braces()
        return self._statement()

    def _emit(self, kind: str, end: int) -> Token:
        start = self._pos
        self._pos = end
        return Token(kind, start, self._source[start:end])

    def _rune(self, pos: int) -> str:
        """The Unicode character at a byte, empty at the end of the text."""
        head = self._source[pos : pos + 4]
        if not head or head[0] < "\x80":
            return head[:1]
        return head.encode("latin-1").decode("utf-8", "surrogateescape")[:1]

    def _statement(self) -> Token:
        source, pos = self._source, self._pos
        char = source[pos : pos + 1]
        if not char:
            if self._paren_depth:
                raise LexError("unclosed left parenthesis", pos)
            if self._bracket_open:
                raise LexError("unclosed left bracket", pos)
            return Token("EOF", pos, "")
        if char in _DIGITS or (char == "." and source[pos + 1 : pos + 2] in (*_DIGITS,)):
            return self._number()
        if char in "\"'`":
            return self._string(char)
        operator = _OPERATOR.match(source, pos)
        if operator is not None:
            return self._emit(OPERATORS.get(operator[0], "COMMA"), operator.end())
        word = _WORD.match(source, pos)
        if word is not None:
            return self._word_in_brackets(char) if self._bracket_open else self._word(word.end())
        return self._bracket_or_bad(char)

    def _word(self, end: int) -> Token:
        word = self._source[self._pos : end]
        kind = WORDS.get(word.lower())
        if kind in _FILL:
            after = _SPACE.match(self._source, end)
            assert after is not None
            if self._source[after.end() : after.end() + 1] != "(":
                kind = "IDENTIFIER"
        if kind is None:
            kind = "METRIC_IDENTIFIER" if ":" in word else "IDENTIFIER"
        return self._emit(kind, end)

    def _word_in_brackets(self, char: str) -> Token:
        if char == ":":
            if self._got_colon:
                raise LexError("unexpected colon ':'", self._pos)
            self._got_colon = True
            return self._emit("COLON", self._pos + 1)
        token = self._duration_word()
        if token is None:
            raise LexError(f"unexpected character: {quote_rune(char)}, expected ':'", self._pos)
        return token

    def _bracket_or_bad(self, char: str) -> Token:
        pos = self._pos
        if char in "()":
            return self._parenthesis(char)
        if char == "{":
            self._brace_open = True
        elif char == "[":
            return self._open_bracket()
        elif char == "]":
            if not self._bracket_open:
                raise LexError("unexpected right bracket ']'", pos)
            self._bracket_open = False
        elif char == "=":
            if self._source[pos + 1 : pos + 2] == "~":
                raise LexError("unexpected character after '=': '~'", pos)
        elif char == "!":
            raise LexError(f"unexpected character after '!': {quote_rune(self._rune(pos + 1))}", pos)
        else:
            raise LexError(f"unexpected character: {quote_rune(self._rune(pos))}", pos)
        return self._emit(_PUNCTUATION[char], pos + 1)

    def _parenthesis(self, char: str) -> Token:
        token = self._emit(_PUNCTUATION[char], self._pos + 1)
        self._paren_depth += 1 if char == "(" else -1
        if self._paren_depth < 0:
            raise LexError("unexpected right parenthesis ')'", self._pos)
        return token

    def _open_bracket(self) -> Token:
        if self._bracket_open:
            raise LexError("unexpected left bracket '['", self._pos)
        token = self._emit("LEFT_BRACKET", self._pos + 1)
        self._got_colon = False
        self._bracket_open = True
        self._in_duration = True
        return token

    def _duration(self) -> Token:
        """A token of a duration expression, up to its first number; the statement mode goes on from there."""
        spaces = _SPACE.match(self._source, self._pos)
        assert spaces is not None
        self._pos = pos = spaces.end()
        char = self._source[pos : pos + 1]
        if not char:
            raise LexError("unexpected end of input in duration expression", pos)
        if char in _DIGITS or (char == "." and self._source[pos + 1 : pos + 2] in (*_DIGITS,)):
            self._in_duration = False
            self._got_duration = True
            return self._number()
        if char == "]":
            self._in_duration = self._bracket_open = self._got_colon = False
        elif char == ":":
            token = self._emit("COLON", pos + 1)
            if not self._got_duration:
                raise LexError("unexpected colon before duration in duration expression", pos + 1)
            if self._got_colon:
                raise LexError("unexpected repeated colon in duration expression", pos + 1)
            self._got_colon = True
            return token
        elif char in "()":
            return self._parenthesis(char)
        elif char in "+-*/%^":
            return self._emit(OPERATORS[char], pos + 1)
        elif char != ",":
            word = self._duration_word()
            if word is None:
                text = f"unexpected character in duration expression: {quote_rune(self._rune(pos))}"
                raise LexError(text, pos)
            return word
        return self._emit(_PUNCTUATION[char], pos + 1)

    def _duration_word(self) -> Token | None:
        if self._source[self._pos] not in _DURATION_STARTS:
            return None
        letters = _LETTERS.match(self._source, self._pos)
        assert letters is not None
        kind = DURATION_WORDS.get(letters[0].lower())
        return None if kind is None else self._emit(kind, letters.end())

    def _inside_braces(self) -> Token:
        source, pos = self._source, self._pos
        label = _LABEL.match(source, pos)
        if label is not None:
            return self._emit("IDENTIFIER", label.end())
        operator = _MATCH_OPERATOR.match(source, pos)
        if operator is not None:
            text = operator[0]
            return self._emit(OPERATORS.get(text) or _PUNCTUATION[text], operator.end())
        char = source[pos : pos + 1]
        if not char:
            raise LexError("unexpected end of input inside braces", pos)
        if char in "\"'`":
            return self._string(char)
        if char == "}":
            self._brace_open = False
            return self._emit("RIGHT_BRACE", pos + 1)
        if char == "{":
            raise LexError("unexpected left brace '{'", pos)
        if char == "!":
            after = quote_rune(self._rune(pos + 1))
            raise LexError(f"unexpected character after '!' inside braces: {after}", pos)
        raise LexError(f"unexpected character inside braces: {quote_rune(self._rune(pos))}", pos)

    def _number(self) -> Token:
        plain = _PLAIN_NUMBER.match(self._source, self._pos)
        if plain is not None:
            return self._emit("NUMBER", plain.end())
        duration = _PLAIN_DURATION.match(self._source, self._pos)
        if duration is not None:
            return self._emit("DURATION", duration.end())
        ok, end = scan_number(self._source, self._pos)
        if ok:
            return self._emit("NUMBER", end)
        ok, end = _scan_duration(self._source, end)
        if ok:
            return self._emit("DURATION", end)
        bad = quote(decode(self._source[self._pos : end]))
        raise LexError(f"bad number or duration syntax: {bad}", self._pos)

    def _string(self, opening: str) -> Token:
        plain = _PLAIN_STRING[opening].match(self._source, self._pos)
        end = plain.end() if plain is not None else self._scan_string(opening)
        return self._emit("STRING", end)

    def _scan_string(self, opening: str) -> int:
        """End of a string with escapes or bytes outside ASCII; checks both."""
        source, start = self._source, self._pos
        raw = opening == "`"
        pos = start + 1
        while True:
            char = source[pos : pos + 1]
            if not char or (char == "\n" and not raw):
                raise LexError("unterminated raw string" if raw else "unterminated quoted string", start)
            if char == opening:
                return pos + 1
            if char == "\\" and not raw:
                pos = self._scan_escape(pos + 1, opening)
            elif char < "\x80":
                pos += 1
            else:
                rune = self._rune(pos)
                if "\udc80" <= rune <= "\udcff" or rune == "\ufffd":
                    raise LexError("invalid UTF-8 rune", start)
                pos += len(rune.encode("utf-8"))

    def _scan_escape(self, pos: int, opening: str) -> int:
        """End of the escape whose letter is at `pos`."""
        source, start = self._source, self._pos
        letter = self._rune(pos)
        if not letter:
            raise LexError("escape sequence not terminated", start)
        if letter in ("a", "b", "f", "n", "r", "t", "v", "\\", opening):
            return pos + 1
        if letter in "01234567":
            count, base, limit, pos = 3, 8, 255, pos
        elif letter in "xuU":
            count, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}[letter]
            limit, pos = (255 if letter == "x" else 0x10FFFF), pos + 1
        else:
            raise LexError(f"unknown escape sequence {unicode_name(letter)}", start)
        code = 0
        for at in range(pos, pos + count):
            digit = source[at : at + 1]
            if not digit:
                raise LexError("escape sequence not terminated", start)
            if digit not in (_HEX_DIGITS if base == 16 else "01234567"):
                raise LexError(f"illegal character {unicode_name(self._rune(at))} in escape sequence", start)
            code = code * base + int(digit, base)
        if code > limit or 0xD800 <= code < 0xE000:
            raise LexError("escape sequence is an invalid Unicode code point", start)
        return pos + count


def scan_number(source: str, pos: int, hexadecimal: bool = True) -> tuple[bool, int]:
    """Whether a number starts at `pos`, and where the scan stopped.

    The number may still be malformed (`0x`), which the parser finds. Series notation has no hexadecimal
    numbers, and there an `x` may follow.
    """
    start, digits = pos, _DIGITS
    if hexadecimal and source[pos : pos + 1] == "0":
        pos += 1
        if source[pos : pos + 1] in ("x", "X"):
            pos += 1
            digits = _HEX_DIGITS
            if source[pos : pos + 1] == "_":
                pos += 1
    dot_seen = exponent_seen = False
    length = len(source)
    if source[pos : pos + 1] == ".":
        pos += 1
    if pos < length and source[pos] in digits:
        pos += 1
    while pos < length:
        char = source[pos]
        following = source[pos + 1 : pos + 2]
        if char == ".":
            if dot_seen:
                return False, pos + 1
            dot_seen = True
            if following in ("_", "."):
                return False, pos + 2
            if len(digits) > 10:
                return False, pos + 1
            pos += 1
        elif char in "eE":
            if exponent_seen:
                return False, pos + 1
            exponent_seen = True
            pos += 1
            if source[pos : pos + 1] in ("+", "-"):
                pos += 1
            if source[pos : pos + 1] in (".", "_", "e", "E"):
                return False, pos + 1
            if pos >= length:
                return False, pos
        elif char == "_":
            if following in (".", "_", "e", "E"):
                return False, pos + 2
            pos += 1
            if pos >= length:
                return False, pos
        elif char in digits:
            pos += 1
        else:
            break
    if pos == start:
        return False, pos
    after = source[pos : pos + 1]
    return (not hexadecimal and after == "x") or after not in _ALPHANUMERIC, pos


def _scan_duration(source: str, pos: int) -> tuple[bool, int]:
    """Whether units follow a number that ended at `pos`, and where the scan stopped."""
    units = "smhdwy"
    while True:
        if source[pos : pos + 1] not in (*units,):
            return False, pos
        pos += 1
        if source[pos : pos + 1] == "s":
            pos += 1
        if source[pos : pos + 1] not in (*_DIGITS,):
            break
        while source[pos : pos + 1] in (*_DIGITS,):
            pos += 1
        units = "smhdw"
    if source[pos : pos + 1] in _ALPHANUMERIC:
        return False, pos + 1
    return True, pos
