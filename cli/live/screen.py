"""The screen of `vedette top`: what is chosen by keys, and the frame that shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.live.views import EVENTS, VIEWS, Happening, Row, View
from security.fields.parameters import escape

FILTER_CHARACTERS_LIMIT = 64
FIXED_LINES = 4
"""Title, heading of the table, help, and one line that stays free so that the terminal never scrolls."""
WIDE_TEXTS = 2
"""Text columns that share the room that is left; the others are as wide as their texts."""
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
    offset: int = 0
    rows: list[Row] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    note: str = ""

    def press(self, key: str) -> bool:
        """Take a key. False when it asks to quit."""
        if self.typing:
            self._type(key)
            return True
        match key:
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
            case "home":
                self.offset = 0
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

    def frame(self, height: int, now_seconds: float) -> Group:
        """The screen as it is now, `height` lines high."""
        lines = max(height - FIXED_LINES, 1)
        body = self._events(lines) if self.view is EVENTS else self._table(lines)
        return Group(self._head(now_seconds), body, self._help())

    def _head(self, now_seconds: float) -> Text:
        shown = Text(f"vedette top  {escape(self.title)}  ", style="bold", no_wrap=True, overflow="ellipsis")
        for number, view in enumerate(VIEWS, 1):
            shown.append(f" {number} {view.name} ", style="reverse" if view is self.view else "")
        shown.append(time.strftime("  %H:%M:%S", time.localtime(now_seconds)))
        if self.paused:
            shown.append("  paused", style="yellow")
        if self.filter or self.typing:
            shown.append(f"  /{escape(self.filter)}{'_' if self.typing else ''}", style="cyan")
        return shown

    def _help(self) -> Text:
        if self.note:
            return Text(escape(self.note), style="red", no_wrap=True, overflow="ellipsis")
        keys = "q quit  1-4 tab view  s S sort  r reverse  / filter  up down scroll  space pause"
        return Text(keys, style="dim", no_wrap=True, overflow="ellipsis")

    def _table(self, lines: int) -> Table:
        table = _new_table()
        rows = self.chosen_rows()
        # Without containers there is no need for a column of their names.
        texts_at = [at for at in range(len(self.view.titles)) if not at or any(key[at] for key, _ in rows)]
        for at in texts_at:
            ratio = 1 if at < WIDE_TEXTS else None
            table.add_column(
                self.view.titles[at], no_wrap=True, overflow="ellipsis", min_width=4, ratio=ratio
            )
        for at, column in enumerate(self.view.columns):
            mark = ("v" if self.descending else "^") if at == self.sort[self.view.name] else ""
            style = "bold cyan" if mark else "bold"
            table.add_column(mark + column.title, justify="right", no_wrap=True, header_style=style)
        self.offset = min(self.offset, max(len(rows) - lines, 0))
        for key, values in rows[self.offset : self.offset + lines]:
            texts = [Text(escape(key[at])) for at in texts_at]
            for value, column in zip(values, self.view.columns, strict=True):
                texts.append(Text("" if value is None else column.show(value)))
            table.add_row(*texts)
        return table

    def _events(self, lines: int) -> Table:
        table = _new_table()
        table.add_column("TIME", no_wrap=True, width=8)
        table.add_column("PRIORITY", no_wrap=True, width=9)
        table.add_column("NAME", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("WHAT", no_wrap=True, overflow="ellipsis", ratio=3)
        wanted = self.filter.lower()
        found = [
            h for h in self.happenings if not wanted or wanted in f"{h.priority} {h.name} {h.text}".lower()
        ]
        self.offset = min(self.offset, max(len(found) - lines, 0))
        for item in found[self.offset : self.offset + lines]:
            stamp = time.strftime("%H:%M:%S", time.localtime(item.time_seconds))
            priority = Text(escape(item.priority), style=_PRIORITY_STYLES.get(item.priority, ""))
            table.add_row(Text(stamp), priority, Text(escape(item.name)), Text(escape(item.text)))
        return table


def _new_table() -> Table:
    return Table(box=None, expand=True, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
