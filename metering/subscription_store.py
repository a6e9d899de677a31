"""Writes the lives of subscriptions down when a catalog is applied: append-only, whole lives, by catalog version."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from clickhouse_connect.driver.client import Client

from schemas.catalog import AppliedCatalog
from schemas.subscription import Subscription
from schemas.subscription_facts import FactType, Status, life_of

_COLUMNS: Final = (
    "number", "type", "day", "at", "customer", "currency", "plan", "plan_version", "status", "recurring",
    "recurring_year",
)  # fmt: skip

_Row: TypeAlias = tuple[int, str, date, datetime, str, str, str, int, str, Decimal, Decimal]
_Lives: TypeAlias = dict[str, list[_Row]]


def write_lives(client: Client, before: AppliedCatalog | None, after: AppliedCatalog) -> int:
    """Append the life of every subscription that `after` has differently; returns how many there are.

    Differently from what is stored, so that an apply that died is finished by the next one; and differently from
    `before`, the version just before it, so that what a slower apply of that version still writes is outdated by it.
    """
    stored, present = _stored(client), _lives(after)
    previous = {} if before is None else _lives(before, after, present)
    rows: list[tuple[object, ...]] = []
    count = 0
    for subscription in sorted({*stored, *previous, *present}):
        life = present.get(subscription) or [_withdrawn(previous.get(subscription) or stored[subscription])]
        if stored.get(subscription) == life and previous.get(subscription, life) == life:
            continue
        count += 1
        rows += [(subscription, after.version, *row) for row in life]
    if rows:
        client.insert("subscription_facts", rows, column_names=("subscription", "catalog_version", *_COLUMNS))
    return count


def _lives(catalog: AppliedCatalog, later: AppliedCatalog | None = None, later_lives: _Lives | None = None) -> _Lives:
    """The life of each subscription; taken from `later_lives` where nothing that it depends on has changed since."""
    found: _Lives = {}
    known = later_lives if later is not None and later_lives is not None and _same_plans(catalog, later) else {}
    for one in catalog.catalog.subscriptions:
        if later is not None and one.id in known and _same_terms(catalog, later, one):
            found[one.id] = known[one.id]
            continue
        found[one.id] = [
            (
                fact.number, fact.type.value, fact.day, fact.at, fact.customer, fact.currency, fact.plan,
                fact.plan_version, fact.status.value, fact.recurring,
                fact.recurring_year,
            )
            for fact in life_of(catalog, one)
        ]  # fmt: skip
    return found


def _same_plans(one: AppliedCatalog, other: AppliedCatalog) -> bool:
    return one.catalog.plans == other.catalog.plans and one.catalog.migrations == other.catalog.migrations


def _same_terms(one: AppliedCatalog, other: AppliedCatalog, subscription: Subscription) -> bool:
    """Whether both catalogs have the subscription, and its customer's zone and currency, alike."""
    if other.subscriptions[subscription.id] != subscription:
        return False
    was, now = one.customers[subscription.customer], other.customers[subscription.customer]
    return (was.timezone, was.currency) == (now.timezone, now.currency)


def _withdrawn(life: list[_Row]) -> _Row:
    """The one fact of a subscription that the catalog lists no more; who had what stays as it began."""
    _, _, day, at, customer, currency, plan, plan_version, *_ = life[0]
    what, status = FactType.WITHDRAWN.value, Status.ENDED.value
    return 0, what, day, at, customer, currency, plan, plan_version, status, Decimal(0), Decimal(0)


def _stored(client: Client) -> _Lives:
    """The newest life of each subscription."""
    found: _Lives = {}
    newest = "SELECT subscription, max(catalog_version) FROM subscription_facts GROUP BY subscription"
    for row in client.query(
        f"SELECT subscription, {', '.join(_COLUMNS)} FROM subscription_facts FINAL"  # noqa: S608 - names of our own
        f" WHERE (subscription, catalog_version) IN ({newest}) ORDER BY subscription, number"
    ).result_rows:
        found.setdefault(row[0], []).append(tuple(row[1:]))
    return found
