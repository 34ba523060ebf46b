"""Go's quoted strings: `%q`, `strconv.Quote` and the escapes of string literals.

Bytes that are not valid UTF-8 (written as `\\xNN` in a literal) live in Python strings as surrogate escapes.
"""

from __future__ import annotations

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_UNESCAPES = {
    "a": 7,
    "b": 8,
    "f": 12,
    "n": 10,
    "r": 13,
    "t": 9,
    "v": 11,
    "\\": 0x5C,
    "'": 0x27,
    '"': 0x22,
}
_DIGITS = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}


def _escape(char: str, quote: str) -> str:
    if char == quote:
        return "\\" + char
    known = _ESCAPES.get(char)
    if known is not None:
        return known
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """`text` as a double-quoted Go string."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_escape(char, '"') for char in text) + '"'


def quote_rune(char: str) -> str:
    """A character in single quotes, as Go's `%q` prints a rune; the empty string stands for none."""
    if not char or 0xDC80 <= ord(char) <= 0xDCFF:
        char = "\ufffd"
    return "'" + _escape(char, "'") + "'"


def unicode_name(char: str) -> str:
    """`U+0071 'q'`, as Go's `%#U`."""
    code = ord(char) if char else 0xFFFD
    return f"U+{code:04X} '{char}'" if char.isprintable() and char else f"U+{code:04X}"


def unquote(literal: str) -> str:
    """Value of a string literal, quotes included, whose escapes were checked by the lexer.

    Backtick strings are raw (carriage returns are dropped). Raises ValueError for a malformed literal.
    """
    if len(literal) < 2 or literal[0] != literal[-1]:
        raise ValueError("invalid syntax")
    body = literal[1:-1]
    if literal[0] == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    out = bytearray()
    at = 0
    while at < len(body):
        slash = body.find("\\", at)
        if slash < 0:
            slash = len(body)
        out += body[at:slash].encode("utf-8", "surrogateescape")
        if slash == len(body):
            break
        raw, at = _unescape(body, slash + 1)
        out += raw
    return out.decode("utf-8", "surrogateescape")


def _unescape(body: str, at: int) -> tuple[bytes, int]:
    """Bytes of the escape whose letter is at `at`, and where it ends."""
    letter = body[at : at + 1]
    if letter in _UNESCAPES:
        return bytes([_UNESCAPES[letter]]), at + 1
    if letter in "01234567" and letter:
        return bytes([int(body[at : at + 3], 8)]), at + 3
    if letter not in _DIGITS or not letter:
        raise ValueError("invalid syntax")
    count, base = _DIGITS[letter]
    code = int(body[at + 1 : at + 1 + count], base)
    end = at + 1 + count
    return (bytes([code]) if letter == "x" else chr(code).encode("utf-8")), end
