"""`metering sql`: ask ClickHouse a question of one's own, without any way to change something."""

from __future__ import annotations

import csv
import enum
import io
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from metering.cli.connection import database_client
from metering.cli.wide_console import wide_console
from metering.config import load_settings
from metering.read_query import ROWS_MAX, TIME_S_MAX, ReadAnswer, read_query
from metering.usage.present import as_text

_NUMBERS = ("Int", "UInt", "Float", "Decimal")


class Format(enum.Enum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def sql(
    query: Annotated[str, typer.Argument(help="A query that reads; - takes it from standard input.")],
    *,
    output: Annotated[Format, typer.Option("--format", help="How to print the answer.")] = Format.TABLE,
    rows_max: Annotated[int, typer.Option(min=1, max=1_000_000, help="Refuse more rows than this.")] = ROWS_MAX,
    timeout_s: Annotated[int, typer.Option(min=1, max=3_600, help="Give up after so many seconds.")] = TIME_S_MAX,
) -> None:
    """Ask ClickHouse in SQL. Only reading is possible; docs/sql.md has questions and their queries.

    Examples:
        metering sql "SELECT month, mrr, arr FROM kpi_mrr ORDER BY month"

        metering sql "SELECT * FROM pipeline_freshness" --format json
    """
    text = sys.stdin.read() if query == "-" else query
    with database_client(load_settings()) as client:
        answer = read_query(client, text, rows_max=rows_max, time_s_max=timeout_s)
    if output is Format.JSON:
        typer.echo(msgspec.json.encode(answer))
    elif output is Format.CSV:
        typer.echo(_csv(answer).encode(), nl=False)
    else:
        wide_console().print(_table(answer))


def _csv(answer: ReadAnswer) -> str:
    """RFC 4180 with a heading; NULL is an empty cell, and no text is a spreadsheet's formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([as_text(name) for name in answer.columns])
    for row in answer.rows:
        cells = zip(row, answer.types, strict=True)
        writer.writerow([_cell(one, "") if _is_number(kind) else as_text(_cell(one, "")) for one, kind in cells])
    return out.getvalue()


def _table(answer: ReadAnswer) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, kind in zip(answer.columns, answer.types, strict=True):
        table.add_column(_plain(name), justify="right" if _is_number(kind) else "left")
    for row in answer.rows:
        table.add_row(*[_plain(_cell(one, "NULL")) for one in row])
    return table


def _cell(value: Any, null: str) -> str:
    if value is None:
        return null
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _is_number(kind: str) -> bool:
    return kind.removeprefix("Nullable(").startswith(_NUMBERS)


def _plain(cell: str) -> Text:
    """Data as it is: no markup of the table's library, and nothing that would steer a terminal."""
    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in cell))
