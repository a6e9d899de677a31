"""Writes an answer as JSON or CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.catalog import AppliedCatalog
from schemas.quantity import format_quantity
from schemas.usage_query import By, UsageQuery, UsageRow
from schemas.zone import zone_of

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - looked alike


def to_json(catalog: AppliedCatalog, query: UsageQuery, rows: Sequence[UsageRow]) -> bytes:
    """One document: the question as it was understood, and a row per line of the answer.

    Quantities are strings, so that no reader rounds them; times carry the offset of the asked zone. `integral` is there
    for `time_weighted` alone.
    """
    meter = catalog.meters[query.meter]
    document = {
        "meter": query.meter,
        "aggregation": meter.aggregation.value,
        "unit": meter.unit,
        "from": local_text(query, query.start),
        "to": local_text(query, query.end),
        "window": query.window.value,
        "timezone": query.timezone,
        "by": query.by.value,
        "group_by": query.group_by,
        "catalog_version": catalog.version,
        "rows": [_json_row(query, row) for row in rows],
    }
    return msgspec.json.encode(document)


def to_csv(catalog: AppliedCatalog, query: UsageQuery, rows: Sequence[UsageRow]) -> str:
    """RFC 4180 with a heading. Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    unit = catalog.meters[query.meter].unit
    who = [] if query.by is By.EVERYTHING else [query.by.value]
    after = ["quantity", "unit", "events_count"]
    taken = {"meter", *who, "window_start", "window_end", *after}
    names = [f"dimension.{name}" if name in taken else name for name in query.group_by]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["meter", *who, "window_start", "window_end", *names, *after])
    for row in rows:
        writer.writerow(
            [
                query.meter,
                *([as_text(row.who)] if who else []),
                local_text(query, row.window_start),
                local_text(query, row.window_end),
                *(as_text(value) for value in row.dimensions.values()),
                format_quantity(row.quantity),
                as_text(unit),
                row.events_count,
            ]
        )
    return out.getvalue()


def as_text(cell: str) -> str:
    """The cell as a spreadsheet shows it and does not run it."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def local_text(query: UsageQuery, moment: datetime) -> str:
    """RFC 3339 with the offset that the asked zone has then."""
    return moment.astimezone(zone_of(query.timezone)).isoformat()


def _json_row(query: UsageQuery, row: UsageRow) -> dict[str, Any]:
    return {
        **({} if query.by is By.EVERYTHING else {query.by.value: row.who}),
        "window_start": local_text(query, row.window_start),
        "window_end": local_text(query, row.window_end),
        "dimensions": row.dimensions,
        "quantity": format_quantity(row.quantity),
        **({} if row.integral is None else {"integral": format_quantity(row.integral)}),
        "events_count": row.events_count,
        "digest": f"{row.digest:032x}",
    }
