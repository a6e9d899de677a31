"""Bills over the life of a subscription: trial, pause, a new version of the plan, own prices, a second subscription."""

from __future__ import annotations

from datetime import UTC, datetime

from billing_export import runs
from billing_export.line_store import read_lines
from billing_export.verify import verify_period
from metering.clock import FixedClock
from schemas.line_item import LineItem, decode_line_item
from tests.support.made_billing import METERS, at, close, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))

LIFE = """
customers: [{id: acme, subjects: [s1]}, {id: bolt, subjects: [s3]}]
plans:
  - id: standard
    version: 1
    charges:
      - {id: fee, model: flat, amount: 31, proration: day}
      - {id: calls, model: per_unit, meter: count, unit_amount: 1}
  - id: standard
    version: 2
    effective_from: 2013-03-01
    charges:
      - {id: fee, model: flat, amount: 62, proration: day}
      - {id: calls, model: per_unit, meter: count, unit_amount: 3}
  - {id: extra, charges: [{id: support, model: flat, amount: 4}]}
subscriptions:
  - id: a
    customer: acme
    plan: standard
    start: 2013-01-01
    end: 2013-03-16
    trial_days: 10
    pauses: [{start: 2013-02-08, end: 2013-02-22}]
    overrides: [{id: calls, model: per_unit, meter: count, unit_amount: 2}]
  - {id: b, customer: acme, plan: extra, start: 2013-02-01}
  - {id: c, customer: bolt, plan: standard, start: 2013-02-01}
  - {id: d, customer: bolt, plan: extra, start: 2013-03-01}
migrations:
  - {plan: standard, from_version: 1, to_version: 2, at: 2013-03-01, customers: [acme]}
"""


def bill(world: UsageTables, label: str) -> list[LineItem]:
    """Close a period and prove it."""
    run = close(world.client, label, clock=LATER).run
    assert verify_period(world.client, label).differences == ()
    return [decode_line_item(line.document) for line in read_lines(world.client, runs.by_id(world.client, run.id))]


def test_trial_pause_migration_own_prices_and_the_end_each_change_what_is_due(world: UsageTables) -> None:
    events = [
        MadeEvent(offset=0, time=at("2013-01-10T23:59:59")),  # the last second of the trial
        MadeEvent(offset=1, time=at("2013-01-11T00:00")),
        MadeEvent(offset=2, time=at("2013-02-10T00:00")),  # while it rests: usage that happens all the same
        MadeEvent(offset=3, time=at("2013-03-15T23:59:59")),
        MadeEvent(offset=4, time=at("2013-03-16T00:00")),  # after the end
        MadeEvent(offset=5, time=at("2013-03-20T00:00"), subject="s3"),
    ]
    store_world(world, events, METERS + LIFE)

    january, february, march = (bill(world, f"2013-0{month}") for month in (1, 2, 3))

    def shown(lines: list[LineItem]) -> list[tuple[str, str, int, str, str]]:
        return [(one.subscription, one.charge, one.plan_version, one.quantity, one.amount) for one in lines]

    # 21 of 31 days after the trial; acme's own price of a call.
    assert shown(january) == [("a", "fee", 1, "1", "21.00"), ("a", "calls", 1, "1", "2.00")]
    # 14 of 28 days without the pause; the second subscription; bolt's first month.
    assert shown(february) == [
        ("a", "fee", 1, "1", "15.50"),
        ("a", "calls", 1, "1", "2.00"),
        ("b", "support", 1, "1", "4.00"),
        ("c", "fee", 1, "1", "31.00"),
        ("c", "calls", 1, "0", "0.00"),
    ]
    # 15 of 31 days of the new version for acme, who was moved and keeps its price; bolt keeps the old one.
    assert shown(march) == [
        ("a", "fee", 2, "1", "30.00"),
        ("a", "calls", 2, "1", "2.00"),
        ("b", "support", 1, "1", "4.00"),
        ("c", "fee", 1, "1", "31.00"),
        ("c", "calls", 1, "1", "1.00"),
        ("d", "support", 1, "1", "4.00"),
    ]
