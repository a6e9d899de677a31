"""The line item: one charge of one subscription for one period, with all that an invoice and a proof need.

Quantities and amounts are decimal texts (`1500`, `0.25`, `-3`), never JSON numbers, which readers turn into floats.
`python -m schemas.line_item` prints the JSON Schema that stands in schemas/json/line_item.json.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta

SCHEMA_VERSION: Final = 1
"""Stands in the schema's `$id`; goes up with every change of a field's name, type or bounds."""

NAMESPACE: Final = UUID("a4f0f5ab-0f5e-5c0a-9f5d-3d1f0e6c7b21")
"""The name space of line item ids. It must never change: an id is how an invoicing system knows a line again."""

DecimalText = Annotated[
    str, Meta(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$", description="An exact decimal in plain digits.")
]
DigestText = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class TierShare(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What fell into one tier: more than `from`, up to and with `up_to` (null is open)."""

    from_: DecimalText
    up_to: DecimalText | None
    quantity: DecimalText
    unit_amount: DecimalText
    flat_amount: DecimalText
    amount: Annotated[DecimalText, Meta(description="quantity * unit_amount + flat_amount, not rounded.")]


class LineKind(enum.Enum):
    """What a line is for. `true_up` tops up to a minimum or a commitment; `credit` is prepaid money drawn down.

    `carried_forward` takes a bill below zero to zero, and `brought_forward` is that credit in the next bill.
    """

    USAGE = "usage"
    FLAT = "flat"
    TRUE_UP = "true_up"
    DISCOUNT = "discount"
    CREDIT = "credit"
    CARRIED_FORWARD = "carried_forward"
    BROUGHT_FORWARD = "brought_forward"


class Adjustment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a correcting line changes: before is the sum of all lines so far, after is what it should have been."""

    quantity_before: DecimalText
    quantity_after: DecimalText
    amount_before: DecimalText
    amount_after: DecimalText
    reason: Annotated[str, Meta(description="late_events, corrected_events or subscription_changed.")]


class LineItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One frozen line. A pure function of the run's cut of the log and its catalog version."""

    id: Annotated[
        str,
        Meta(
            description="UUIDv5 of customer, subscription, plan, charge, kind, reference, dimensions, period, "
            "service_start and revision: the same line has the same id whoever makes it, whenever."
        ),
    ]
    run: Annotated[str, Meta(description="The billing run that froze the line; it holds the cut of the log.")]
    revision: Annotated[int, Meta(ge=0, description="0 for a first line; a later line for the same counts up.")]
    corrects: Annotated[str | None, Meta(description="Id of the line that this one corrects, or null.")]
    adjustment: Annotated[Adjustment | None, Meta(description="What a correcting line changes; null for a first line.")]
    kind: Annotated[LineKind, Meta(description="What the line is for.")]
    reference: Annotated[
        str, Meta(description="What it comes from: a discount, a credit grant, a run, a plan's minimum, or empty.")
    ]
    reduces: Annotated[str | None, Meta(description="Id of the line that a discount or a credit reduces, or null.")]
    period: Annotated[str, Meta(description="The billing period, such as 2013-01, 2013-Q1 or 2013-01-31..2013-02-28.")]
    timezone: Annotated[str, Meta(description="IANA zone in which the period begins and ends at midnight.")]
    period_start: Annotated[datetime, Meta(description="Start of the period, UTC, inclusive.")]
    period_end: Annotated[datetime, Meta(description="End of the period, UTC, exclusive.")]
    period_start_local: Annotated[str, Meta(description="Start of the period on the customer's clock, with offset.")]
    period_end_local: Annotated[str, Meta(description="End of the period on the customer's clock, with offset.")]
    service_start: Annotated[
        datetime,
        Meta(description="From when usage counts: the later of the period's and the subscription's start, UTC."),
    ]
    service_end: Annotated[
        datetime,
        Meta(description="Until when usage counts: the earlier of the period's and the subscription's end, UTC."),
    ]
    customer: Annotated[str, Meta(description="Customer id.")]
    customer_name: Annotated[str, Meta(description="Name on the invoice.")]
    external_ids: Annotated[dict[str, str], Meta(description="The customer's ids in other systems, by system.")]
    subscription: Annotated[str, Meta(description="Subscription id; empty for a line about a whole bill.")]
    plan: Annotated[str, Meta(description="Plan id; empty for a line about a whole bill.")]
    plan_version: Annotated[int, Meta(ge=0, description="Version of the plan; 0 where there is none.")]
    charge: Annotated[str, Meta(description="Charge id within the plan.")]
    model: Annotated[str, Meta(description="How it is priced: the charge's model; empty where there is none.")]
    description: Annotated[str, Meta(description="Text for the invoice.")]
    meter: Annotated[str | None, Meta(description="The meter that was read; null for a flat charge.")]
    unit: Annotated[str, Meta(description="The meter's unit.")]
    dimensions: Annotated[dict[str, str], Meta(description="Values of the charge's group_by, by name.")]
    quantity: Annotated[DecimalText, Meta(description="What was used; 1 for a flat charge.")]
    unit_amount: Annotated[DecimalText | None, Meta(description="Price of one unit; null where tiers set it.")]
    tiers: Annotated[tuple[TierShare, ...], Meta(description="The quantity and amount of each tier entered.")]
    amount_unrounded: Annotated[DecimalText, Meta(description="The exact amount.")]
    amount: Annotated[
        DecimalText, Meta(description="The amount rounded once, as the plan says, to the currency's minor unit.")
    ]
    currency: Annotated[str, Meta(description="ISO 4217 code.")]
    tax_code: Annotated[str, Meta(description="The charge's tax code, handed on as it is.")]
    terms_days: Annotated[int | None, Meta(description="Days until the invoice is due (net 30: 30), or null.")]
    events_count: Annotated[int, Meta(ge=0, description="Events behind the quantity.")]
    digest: Annotated[
        DigestText,
        Meta(
            description="Sum modulo 2^128 of these events' digests, in hexadecimal: the same events, the same digest."
        ),
    ]
    catalog_version: Annotated[int, Meta(ge=1, description="Catalog version the line was priced with.")]


def line_item_id(
    *,
    customer: str,
    subscription: str,
    plan: str,
    charge: str,
    kind: LineKind,
    reference: str,
    dimensions: Mapping[str, str],
    period: str,
    service_start: datetime,
    revision: int,
) -> str:
    """The id of a line. Each part is length-prefixed, so that no two lists of parts read the same."""
    pairs = [part for name in sorted(dimensions) for part in (name, dimensions[name])]
    parts = [
        customer, subscription, plan, charge, kind.value, reference, str(len(dimensions)), *pairs, period,
        _time_text(service_start), str(revision),
    ]  # fmt: skip
    text = "".join([f"{len(part) if part.isascii() else len(part.encode())}:{part}" for part in parts])
    hashed = _NAMESPACE_HASHED.copy()
    hashed.update(text.encode())
    return _uuid5_text(hashed.hexdigest())


_NAMESPACE_HASHED: Final = sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def _uuid5_text(digits: str) -> str:
    """The text of a UUIDv5, as `uuid.uuid5` makes it of the same hash: runs make hundreds of thousands."""
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=4_096)
def _time_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LineItem).decode


def encode_line_item(item: LineItem) -> bytes:
    """The canonical JSON of a line, without a line end: fields in the order above, dimensions by name."""
    return _encode(item)


def decode_line_item(text: bytes | str) -> LineItem:
    """Read a line back. Raises msgspec.ValidationError for anything that is none."""
    return _decode(text)


def json_schema() -> bytes:
    """The JSON Schema of a line item, as it stands in schemas/json/line_item.json."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:usage-metering:line_item:{SCHEMA_VERSION}",
        **msgspec.json.schema(LineItem),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(json_schema())
