"""Markdown of the generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_PAGE: Final = re.compile(r"\bdocs/(\w+\.md)\b")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with one line for each row; a cell may hold any text of one line. Ends with a line feed."""
    lines = [f"| {' | '.join(map(cell, cells))} |" for cells in (headings, *rows)]
    lines.insert(1, "|---" * len(headings) + "|")
    return "".join(f"{line}\n" for line in lines)


def cell(text: str) -> str:
    """Text that does not end its cell."""
    return text.replace("|", "\\|")


def linked(text: str) -> str:
    """The text with each page of docs/ that it names as a link from another page there."""
    return _PAGE.sub(r"[\1](\1)", text)
