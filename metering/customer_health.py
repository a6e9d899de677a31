"""The health of a customer, read from the view that defines it."""

# ruff: noqa: S608 - the statement is a constant, its values server-side parameters
from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.health import Health
from schemas.quantity import parse_quantity

PARTS: Final = tuple(Health().parts())

_BLEND: Final = ("health", "weight_covered")
_COLUMNS: Final = (*_BLEND, *(column for part in PARTS for column in (part, f"{part}_score", f"{part}_weight")))
_SELECT: Final = f"""
SELECT month, {", ".join(f"toString({name})" for name in _COLUMNS)} FROM kpi_customer_health
WHERE customer = {{customer:String}} AND month <= {{until:Date}}
ORDER BY month DESC LIMIT {{count:UInt32}}
"""


class PartHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A part with its `figure` in its own unit, the `score` of that, 0 to 100, and its weight. None: nothing found."""

    part: str
    figure: Decimal | None
    score: Decimal | None
    weight: Decimal


class CustomerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A month's blend of the parts that have a figure, 0 to 100, and the percent of all weights that these have."""

    month: date
    health: Decimal | None
    weight_covered: Decimal | None
    parts: tuple[PartHealth, ...]


def health_of_customer(client: Client, customer: str, *, until: date, count: int) -> list[CustomerHealth]:
    """The newest months with a health, that of `until` at most, newest first; no more than `count`."""
    rows = client.query(_SELECT, {"customer": customer, "until": until, "count": count}).result_rows
    found = []
    for month, *texts in rows:
        numbers = {
            name: None if text is None else parse_quantity(str(text))
            for name, text in zip(_COLUMNS, texts, strict=True)
        }
        parts = tuple(
            PartHealth(
                part=part,
                figure=numbers[part],
                score=numbers[f"{part}_score"],
                weight=numbers[f"{part}_weight"] or Decimal(0),
            )
            for part in PARTS
        )
        found.append(
            CustomerHealth(month=month, health=numbers["health"], weight_covered=numbers["weight_covered"], parts=parts)
        )
    return found
