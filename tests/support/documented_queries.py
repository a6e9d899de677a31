"""The queries of a page, each with the table of its answer that stands below it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

DOCS = Path(__file__).parents[2] / "docs"

_QUERY = re.compile(r"^```sql\n(.*?)^```\n\n((?:^\|[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
_BLOCK = r"^```{language}\n(.*?)^```$"


class DocumentedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query of a page. `columns` and `rows` are the cells of its table; `NULL` is None."""

    heading: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]


def queries_of(page: str) -> list[DocumentedQuery]:
    """Every query of a page of docs/ that has a table right below it, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for match in _QUERY.finditer(text):
        head, _, *body = [_cells(line) for line in match[2].splitlines()]
        rows = tuple(tuple(None if cell == "NULL" else cell for cell in row) for row in body)
        heading = _HEADING.findall(text[: match.start()])[-1]
        found.append(DocumentedQuery(heading=heading, sql=match[1].strip(), columns=tuple(head), rows=rows))
    return found


def queries_count(page: str) -> int:
    """How many queries a page has, with a table or not."""
    return (DOCS / page).read_text(encoding="utf-8").count("\n```sql\n")


def block_of(page: str, language: str, place: int = 0) -> str:
    """The text of a fenced block of some language, counted from 0."""
    pattern = re.compile(_BLOCK.format(language=language), re.MULTILINE | re.DOTALL)
    return str(pattern.findall((DOCS / page).read_text(encoding="utf-8"))[place])


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
