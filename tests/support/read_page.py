"""Reads a page of the dashboard as a program would: tables by id, the exact numbers behind what is shown."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "img", "br"})


class ReadPage(HTMLParser):
    """`tables`: rows of cell texts by table id, exact numbers where there are any. `figures`: the same of cards."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: dict[str, str] = {}
        self.hidden: dict[str, str] = {}
        self.open: list[tuple[str, str]] = []
        self._table = self._card = ""
        self._cell: list[str] | None = None
        self._figure: list[str] | None = None
        self._exact = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append((tag, given.get("id", "")))
        if tag == "input" and given.get("type") == "hidden":
            self.hidden[given["name"]] = given["value"]
        if tag == "table":
            self._table = given.get("id", "")
            self.tables[self._table] = []
        elif tag == "tr" and self._table in self.tables:
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag == "div" and "card" in given.get("class", "").split():
            self._card = given["id"]
        elif tag == "dd" and "figure" in given.get("class", "").split():
            self._figure = []
        elif tag == "data":
            self._exact = True
            self._say(given["value"])

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"
        if tag in ("td", "th") and self._cell is not None:
            if self.tables.get(self._table):
                self.tables[self._table][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag == "dd" and self._figure is not None:
            self.figures[self._card] = " ".join("".join(self._figure).split())
            self._figure = None
        elif tag == "data":
            self._exact = False

    def handle_data(self, data: str) -> None:
        if not self._exact:
            self._say(data)

    def _say(self, text: str) -> None:
        for held in (self._cell, self._figure):
            if held is not None:
                held.append(text)
