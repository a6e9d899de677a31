"""Line items made in code: one of every kind, with texts and numbers that are hard to export; frozen runs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.export_lines import Record
from billing_export.run import Run, RunState, run_id
from schemas.line_item import Adjustment, LineItem, LineKind, TierShare, encode_line_item, line_item_id
from schemas.usage_query import Cut, Position

RUN = run_id("2013-01")
CLOSED_AT = datetime(2013, 2, 3, tzinfo=UTC)
START, END = datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2013, 2, 1, 5, tzinfo=UTC)


def line(**changes: Any) -> LineItem:
    """A line of usage, with some fields changed; its id follows from them."""
    fields: dict[str, Any] = {
        "run": RUN,
        "revision": 0,
        "corrects": None,
        "adjustment": None,
        "kind": LineKind.USAGE,
        "reference": "",
        "reduces": None,
        "period": "2013-01",
        "timezone": "America/New_York",
        "period_start": START,
        "period_end": END,
        "period_start_local": "2013-01-01T00:00:00-05:00",
        "period_end_local": "2013-02-01T00:00:00-05:00",
        "service_start": START,
        "service_end": END,
        "customer": "acme",
        "customer_name": "Acme Inc.",
        "external_ids": {"stripe": "cus_acme", "aws": "aws-acme"},
        "subscription": "acme-1",
        "plan": "standard",
        "plan_version": 1,
        "charge": "calls",
        "model": "per_unit",
        "description": "API calls",
        "meter": "calls",
        "unit": "Requests",
        "dimensions": {},
        "quantity": "1500",
        "unit_amount": "0.0125",
        "tiers": (),
        "amount_unrounded": "18.75",
        "amount": "18.75",
        "currency": "USD",
        "tax_code": "",
        "terms_days": 30,
        "events_count": 1500,
        "digest": "9995537839021293c544a377de224af0",
        "catalog_version": 1,
    } | changes
    named = {
        name: fields[name]
        for name in (
            "customer", "subscription", "plan", "charge", "kind", "reference", "dimensions", "period", "service_start",
            "revision",
        )
    }  # fmt: skip
    return LineItem(**{"id": line_item_id(**named), **fields})


TIERS = (
    TierShare(from_="0", up_to="1000", quantity="1000", unit_amount="0", flat_amount="0", amount="0"),
    TierShare(from_="1000", up_to=None, quantity="0.5", unit_amount="0.015", flat_amount="3", amount="3.0075"),
)

FLAT = line(kind=LineKind.FLAT, charge="fee", model="flat", description="Base fee", meter=None, unit="", quantity="1",
            unit_amount="49.9", amount_unrounded="49.9", amount="49.90", events_count=0, digest="0" * 32,
            tax_code="txcd_10000000")  # fmt: skip
TIERED = line(charge="traffic", model="graduated", quantity="1000.5", unit="GB", unit_amount=None, tiers=TIERS,
              amount_unrounded="3.0075", amount="3.01", dimensions={"region": "eu", "quote": 'a "b", c\n'})  # fmt: skip
DISCOUNT = line(kind=LineKind.DISCOUNT, charge="traffic", reference="launch", reduces=TIERED.id, model="", meter=None,
                unit="", description="-10% launch discount", quantity="1", unit_amount=None,
                amount_unrounded="-0.301", amount="-0.30", events_count=0, digest="0" * 32)  # fmt: skip
CORRECTION = line(
    revision=1, corrects=line().id, quantity="-500", amount_unrounded="-6.25", amount="-6.25",
    adjustment=Adjustment(quantity_before="1500", quantity_after="1000", amount_before="18.75", amount_after="12.50",
                          reason="corrected_events"),
)  # fmt: skip
CREDIT = line(kind=LineKind.CREDIT, reference="grant-1", charge="calls", model="", meter=None, unit="", quantity="1",
              description="Prepaid credit", unit_amount=None, amount_unrounded="-50", amount="-50.00", events_count=0,
              digest="0" * 32)  # fmt: skip
CARRIED = line(kind=LineKind.CARRIED_FORWARD, subscription="", plan="", plan_version=0, charge="carried_forward",
               model="", meter=None, unit="", quantity="1", description="Carried forward", unit_amount=None,
               amount_unrounded="0.05", amount="0.05", events_count=0, digest="0" * 32, terms_days=None)  # fmt: skip
YEN = line(customer="bolt", customer_name="=cmd|' /c calc'!A1", external_ids={"stripe": "cus_bolt", "aws": "aws-bolt"},
           subscription="bolt-1", plan="yen", timezone="Asia/Tokyo", currency="JPY", quantity="5.333333333333",
           unit_amount="7", amount_unrounded="37.333333333331", amount="37", description="'quoted")  # fmt: skip
EVERY_KIND = (FLAT, line(), TIERED, DISCOUNT, CORRECTION, CREDIT, CARRIED, YEN)
"""Adds up to 49.90 + 18.75 + 3.01 - 0.30 - 6.25 - 50.00 + 0.05 = 15.16 USD, and 37 JPY."""


def made_run(items: Sequence[LineItem] = EVERY_KIND, **changes: Any) -> Run:
    """A frozen run with these lines."""
    digest = hashlib.sha256(b"".join(encode_line_item(one) + b"\n" for one in items)).hexdigest()
    fields: dict[str, Any] = {
        "id": RUN,
        "sequence": 1,
        "period": "2013-01",
        "number": 1,
        "state": RunState.CLOSED,
        "at": CLOSED_AT,
        "cut": Cut(positions=(Position(epoch="log/1", partition=0, offset=41),)),
        "catalog_version": 1,
        "forced": False,
        "claimed_by": "ada@engine",
        "code_version": "test",
        "lines_count": len(items),
        "lines_digest": digest,
    }
    return Run(**(fields | changes))


def chunks(items: Sequence[LineItem] = EVERY_KIND, *, size: int = 3) -> list[tuple[list[str], list[Record]]]:
    """The lines as an export reads them."""
    texts = [encode_line_item(one).decode() for one in items]
    parts = [texts[first : first + size] for first in range(0, len(texts), size)]
    return [(part, [orjson.loads(text) for text in part]) for part in parts]


def store_run(client: Client, items: Sequence[LineItem], run: Run | None = None) -> Run:
    """Write a frozen run to ClickHouse, and of its lines what an export reads: the documents."""
    frozen = run or made_run(items)
    claimed = msgspec.structs.replace(frozen, state=RunState.CLOSING, lines_count=0, lines_digest="")
    runs.claim(client, claimed)
    rows = [
        {
            "run": frozen.id,
            "period": one.period,
            "line_number": number,
            "id": one.id,
            "document": encode_line_item(one).decode(),
        }
        for number, one in enumerate(items)
    ]
    if rows:
        block = b"\n".join(orjson.dumps(row) for row in rows)
        client.raw_insert("line_items", list(rows[0]), insert_block=block, fmt="JSONEachRow")
    return runs.freeze(client, frozen)


def many_lines(count: int) -> Iterator[LineItem]:
    """Lines that differ, five for each customer, in the order of a run."""
    for number in range(count):
        customer = f"c{number // 5:06}"
        yield line(
            customer=customer,
            subscription=f"{customer}-1",
            external_ids={"stripe": f"cus_{customer}", "aws": f"aws-{customer}"},
            charge=f"charge-{number % 5}",
            quantity=str(number % 97),
            amount_unrounded=f"{number % 97}.{number % 10}" if number % 10 else str(number % 97),
            amount=f"{number % 97}.{number % 10}0",
        )
