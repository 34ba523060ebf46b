"""The screen of `vedette top`: what is chosen by keys, and the frame that shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.live.views import EVENTS, VIEWS, Column, Happening, Row, View
from security.fields.parameters import escape

FILTER_CHARACTERS_LIMIT = 64
FIXED_LINES = 4
"""Title, heading of the table, help, and one line that stays free so that the terminal never scrolls."""
WIDE_TEXTS = 2
"""Text columns that share the room that is left; the others are as wide as their texts."""
WIDE_TEXT_CELLS = 12
"""Below that number columns are left out, from the right, so that names stay readable."""
NARROW_CELLS = 76
"""Below that the title names the shown view only."""
_KEYS = (
    ("1 2 3 4, tab", "another view"),
    ("s S, right left", "sort by the next or the previous column"),
    ("r", "turn the order round"),
    ("/", "show only rows with a text; enter keeps it, escape takes it back"),
    ("up down, j k", "scroll by a line"),
    ("page up, page down, home, end", "scroll by a screen"),
    ("space, p", "stand still, go on"),
    ("? or any key", "this page, and back"),
    ("q", "quit"),
)
_PRIORITY_STYLES = {
    **dict.fromkeys(("Emergency", "Alert"), "bold red"),
    **dict.fromkeys(("Critical", "Error"), "red"),
    "Warning": "yellow",
}


@dataclass
class Screen:
    """The state of the screen. One thread uses it."""

    title: str
    view: View = VIEWS[0]
    sort: dict[str, int] = field(default_factory=lambda: {view.name: view.sort for view in VIEWS})
    descending: bool = True
    filter: str = ""
    typing: bool = False
    """Whether keys go into the filter."""
    paused: bool = False
    helping: bool = False
    """Whether the page of keys and columns is shown instead of the view."""
    page: int = 1
    """Lines of the last frame's body."""
    offset: int = 0
    rows: list[Row] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    note: str = ""

    def press(self, key: str) -> bool:
        """Take a key. False when it asks to quit."""
        if self.typing:
            self._type(key)
            return True
        if self.helping and key != "q":
            self.helping = False
            return True
        match key:
            case "?" | "h":
                self.helping = True
            case "q" | "\x03":
                return False
            case "1" | "2" | "3" | "4":
                self._show(VIEWS[int(key) - 1])
            case "tab":
                self._show(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])
            case "s" | "right":
                self._sort_by(1)
            case "S" | "left":
                self._sort_by(-1)
            case "r":
                self.descending = not self.descending
            case "/":
                self.typing, self.filter = True, ""
            case "p" | " ":
                self.paused = not self.paused
            case "down" | "j":
                self.offset += 1
            case "up" | "k":
                self.offset = max(self.offset - 1, 0)
            case "pagedown":
                self.offset += self.page
            case "pageup":
                self.offset = max(self.offset - self.page, 0)
            case "home":
                self.offset = 0
            case "end":
                self.offset = len(self.rows) + len(self.happenings)
        return True

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self.filter = (self.filter + key)[:FILTER_CHARACTERS_LIMIT]
        self.offset = 0

    def _show(self, view: View) -> None:
        self.view, self.offset, self.rows = view, 0, []

    def _sort_by(self, step: int) -> None:
        if self.view.columns:
            self.sort[self.view.name] = (self.sort[self.view.name] + step) % len(self.view.columns)

    def chosen_rows(self) -> list[Row]:
        """Rows that pass the filter, in order."""
        wanted = self.filter.lower()
        rows = [row for row in self.rows if not wanted or any(wanted in text.lower() for text in row[0])]
        rows.sort(key=lambda row: row[0])
        at = self.sort[self.view.name]
        return sorted(rows, key=lambda row: row[1][at] or 0.0, reverse=self.descending)

    def frame(self, width: int, height: int, now_seconds: float) -> Group:
        """The screen as it is now, at most `width` cells wide and `height` lines high."""
        self.page = max(height - FIXED_LINES, 1)
        hidden = 0
        if self.helping:
            body: RenderableType = self._page()
        elif self.view is EVENTS:
            body = self._events(self.page)
        else:
            body, hidden = self._table(width, self.page)
        return Group(self._head(width, now_seconds), body, self._help(hidden))

    def _head(self, width: int, now_seconds: float) -> Text:
        shown = Text(f"vedette top  {escape(self.title)}  ", style="bold", no_wrap=True, overflow="ellipsis")
        if width < NARROW_CELLS:
            shown.append(f" {VIEWS.index(self.view) + 1}/{len(VIEWS)} {self.view.name} ", style="reverse")
        else:
            for number, view in enumerate(VIEWS, 1):
                shown.append(f" {number} {view.name} ", style="reverse" if view is self.view else "")
        shown.append(time.strftime("  %H:%M:%S", time.localtime(now_seconds)))
        if self.paused:
            shown.append("  paused", style="yellow")
        if self.filter or self.typing:
            shown.append(f"  /{escape(self.filter)}{'_' if self.typing else ''}", style="cyan")
        return shown

    def _help(self, hidden: int) -> Text:
        if self.note:
            return Text(escape(self.note), style="red", no_wrap=True, overflow="ellipsis")
        keys = "q quit  ? help  tab view  s sort  r reverse  / filter  space pause"
        if hidden:
            keys = f"+{hidden} columns in a wider terminal  {keys}"
        return Text(keys, style="dim", no_wrap=True, overflow="ellipsis")

    def _page(self) -> Table:
        """Keys, and what the columns of the view mean."""
        table = Table.grid(padding=(0, 2, 0, 0))
        about = [(column.title, column.about) for column in self.view.columns]
        for name, text in (*_KEYS, ("", ""), *about)[: self.page]:
            table.add_row(
                Text(name, style="bold", no_wrap=True), Text(text, no_wrap=True, overflow="ellipsis")
            )
        return table

    def _table(self, width: int, lines: int) -> tuple[RenderableType, int]:
        """The table, and how many of its columns the terminal is too narrow for."""
        rows = self.chosen_rows()
        if not rows:
            return self._nothing(bool(self.rows)), 0
        self.offset = min(self.offset, max(len(rows) - lines, 0))
        shown = rows[self.offset : self.offset + lines]
        # Without containers there is no need for a column of their names.
        texts_at = [at for at in range(len(self.view.titles)) if not at or any(key[at] for key, _ in rows)]
        room = width
        for place, at in enumerate(texts_at):
            longest = max(len(self.view.titles[at]), *(len(escape(key[at])) for key, _ in shown))
            room -= (min(longest, WIDE_TEXT_CELLS) if place < WIDE_TEXTS else longest) + 1
        numbers_at = self._fitting(shown, room)
        table = _new_table()
        for place, at in enumerate(texts_at):
            ratio = 1 if place < WIDE_TEXTS else None
            table.add_column(
                self.view.titles[at], no_wrap=True, overflow="ellipsis", min_width=4, ratio=ratio
            )
        for at in numbers_at:
            style = "bold cyan" if at == self.sort[self.view.name] else "bold"
            table.add_column(self._title(at), justify="right", no_wrap=True, header_style=style)
        for key, values in shown:
            numbers = (_number(self.view.columns[at], values[at]) for at in numbers_at)
            table.add_row(*(Text(escape(key[at])) for at in texts_at), *(Text(text) for text in numbers))
        return table, len(self.view.columns) - len(numbers_at)

    def _title(self, at: int) -> str:
        mark = ("↓" if self.descending else "↑") if at == self.sort[self.view.name] else ""
        return mark + self.view.columns[at].title

    def _fitting(self, shown: list[Row], room: int) -> list[int]:
        """Number columns that fit, from the left; the one that is sorted by always does."""
        by = self.sort[self.view.name]

        def cells(at: int) -> int:
            column = self.view.columns[at]
            return 1 + max(len(self._title(at)), *(len(_number(column, values[at])) for _, values in shown))

        room -= cells(by)
        chosen = {by}
        for at in range(len(self.view.columns)):
            if at == by:
                continue
            room -= cells(at)
            if room < 0:
                break
            chosen.add(at)
        return sorted(chosen)

    def _nothing(self, filtered: bool) -> Text:
        why = f" match /{escape(self.filter)}" if filtered else ""
        return Text(f"no {self.view.name}{why}", style="dim", no_wrap=True, overflow="ellipsis")

    def _events(self, lines: int) -> RenderableType:
        wanted = self.filter.lower()
        found = [
            h for h in self.happenings if not wanted or wanted in f"{h.priority} {h.name} {h.text}".lower()
        ]
        if not found:
            return self._nothing(bool(self.happenings))
        # Programs that this host starts have no priority.
        judged = any(item.priority for item in found)
        table = _new_table()
        table.add_column("TIME", no_wrap=True, width=8)
        if judged:
            table.add_column("PRIORITY", no_wrap=True, width=9)
        table.add_column("NAME", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("WHAT", no_wrap=True, overflow="ellipsis", ratio=3)
        self.offset = min(self.offset, max(len(found) - lines, 0))
        for item in found[self.offset : self.offset + lines]:
            cells = [Text(time.strftime("%H:%M:%S", time.localtime(item.time_seconds)))]
            if judged:
                cells.append(Text(escape(item.priority), style=_PRIORITY_STYLES.get(item.priority, "")))
            table.add_row(*cells, Text(escape(item.name)), Text(escape(item.text)))
        return table


def _number(column: Column, value: float | None) -> str:
    return "" if value is None else column.show(value)


def _new_table() -> Table:
    return Table(box=None, expand=True, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
