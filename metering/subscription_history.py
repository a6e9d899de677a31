"""What happened, and will happen, to the subscriptions of one customer, as the newest catalog has it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client


class SubscriptionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A day of a subscription's life. `recurring` is its revenue of a month from then on, in `currency`."""

    day: date
    subscription: str
    type: str
    plan: str
    plan_version: int
    status: str
    recurring: Decimal
    currency: str
    catalog_version: int


def events_of_customer(client: Client, customer: str, *, limit: int = 200) -> list[SubscriptionEvent]:
    """The newest first, at most `limit`; those that are to come are among them."""
    names = SubscriptionEvent.__struct_fields__
    rows = client.query(
        f"SELECT {', '.join(names)} FROM subscription_events "  # noqa: S608 - constants
        "WHERE customer = {customer:String} ORDER BY day DESC, subscription, number DESC LIMIT {limit:UInt32}",
        {"customer": customer, "limit": limit},
    ).result_rows
    return [SubscriptionEvent(**dict(zip(names, row, strict=True))) for row in rows]
