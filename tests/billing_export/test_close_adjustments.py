"""What becomes known after a period was closed is corrected by the next run: once, whole, and in both directions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing_export import runs
from billing_export.close import recomputed
from billing_export.line_store import read_lines
from billing_export.run import RunKind
from billing_export.usage_reader import RollupReader
from billing_export.verify import verify_period
from metering.clock import FixedClock
from schemas.line_item import LineItem, decode_line_item, encode_line_item
from tests.support.made_billing import CATALOG, apply, at, close, closer, fold
from tests.support.made_usage import MadeEvent, UsageTables

FEBRUARY = FixedClock(datetime(2013, 3, 3, tzinfo=UTC))
MARCH = FixedClock(datetime(2013, 4, 3, tzinfo=UTC))
LATE = MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5", region="us")
"""An event of January that arrives after January was closed."""


def lines(world: UsageTables, run: str) -> list[LineItem]:
    return [decode_line_item(line.document) for line in read_lines(world.client, runs.by_id(world.client, run))]


def corrections(world: UsageTables, run: str) -> list[LineItem]:
    return [line for line in lines(world, run) if line.adjustment is not None]


def shown(items: list[LineItem]) -> list[tuple[str, str, str, str]]:
    """acme's lines."""
    return [(one.kind.value, one.period, one.charge, one.amount) for one in items if one.customer == "acme"]


def changes(items: list[LineItem]) -> list[tuple[str, str, str, str, str, str, str]]:
    return [
        (
            one.charge,
            "/".join(one.dimensions.values()),
            one.quantity,
            one.amount,
            one.adjustment.amount_before if one.adjustment else "",
            one.adjustment.amount_after if one.adjustment else "",
            one.adjustment.reason if one.adjustment else "",
        )
        for one in items
    ]


def test_a_late_event_is_billed_by_the_next_run_with_tiers_rated_over_the_whole_period(world: UsageTables) -> None:
    close(world.client)
    first = {line.charge: line for line in lines(world, "2013-01.1") if line.customer == "acme"}
    fold(world, [LATE])

    close(world.client, "2013-02", clock=FEBRUARY)

    found = corrections(world, "2013-02.1")
    # January had 4 calls, 2 in each tier: the fifth costs 0.5.
    assert changes(found) == [
        ("calls", "", "1", "0.50", "6.01", "6.51", "late_events"),
        ("traffic", "us", "5", "1.66", "0.07", "1.73", "late_events"),
    ]
    assert (found[0].corrects, found[0].revision, found[0].period) == (first["calls"].id, 1, "2013-01")
    assert (found[0].run, found[0].catalog_version, found[0].tiers) == ("2013-02.1", 1, ())
    assert verify_period(world.client, "2013-02").differences == ()


def test_what_was_corrected_is_not_corrected_again(world: UsageTables) -> None:
    close(world.client)
    fold(world, [LATE])
    close(world.client, "2013-02", clock=FEBRUARY)
    fold(world, [MadeEvent(offset=11, time=at("2013-01-21T00:00"), value="1", region="us")])

    close(world.client, "2013-03", clock=MARCH)

    found = corrections(world, "2013-03.1")
    assert changes(found) == [
        ("calls", "", "1", "0.50", "6.51", "7.01", "late_events"),
        ("traffic", "us", "1", "0.33", "1.73", "2.06", "late_events"),
    ]
    assert [one.revision for one in found] == [2, 2]
    assert found[0].corrects == corrections(world, "2013-02.1")[0].id
    assert verify_period(world.client, "2013-03").differences == ()


def test_a_value_that_nobody_had_used_before_becomes_a_first_line_that_says_so(world: UsageTables) -> None:
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="2", region="moon")])

    close(world.client, "2013-02", clock=FEBRUARY)

    moon = corrections(world, "2013-02.1")[1]
    assert (moon.dimensions, moon.revision, moon.corrects, moon.amount) == ({"region": "moon"}, 0, None, "0.67")
    fold(world, [MadeEvent(offset=11, time=at("2013-01-21T00:00"), value="1", region="moon")])
    close(world.client, "2013-03", clock=MARCH)
    again = corrections(world, "2013-03.1")[1]
    assert (again.revision, again.corrects, again.amount) == (1, moon.id, "0.33")


def test_credit_beyond_the_next_bill_is_carried_on_until_it_is_used_up(world: UsageTables) -> None:
    close(world.client)
    # January's traffic turns out to be 2000 less: 666.00 are owed to acme.
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="-2000")])

    close(world.client, "2013-02", clock=FEBRUARY)
    close(world.client, "2013-03", clock=MARCH)

    assert shown(lines(world, "2013-02.1")) == [
        ("usage", "2013-01", "calls", "0.50"),
        ("usage", "2013-01", "traffic", "-666.00"),
        ("flat", "2013-02", "fee", "49.90"),
        ("usage", "2013-02", "calls", "1.01"),
        ("usage", "2013-02", "traffic", "333.00"),
        ("carried_forward", "2013-02", "", "281.59"),
    ]
    assert shown(lines(world, "2013-03.1")) == [
        ("flat", "2013-03", "fee", "49.90"),
        ("usage", "2013-03", "calls", "0.00"),
        ("brought_forward", "2013-03", "", "-281.59"),
        ("carried_forward", "2013-03", "", "231.69"),
    ]
    for label in ("2013-02", "2013-03"):
        assert verify_period(world.client, label).differences == ()


def test_a_run_made_anew_gives_the_same_bytes_whatever_came_since(world: UsageTables) -> None:
    close(world.client)
    fold(world, [LATE])
    close(world.client, "2013-02", clock=FEBRUARY)
    fold(
        world,
        [
            MadeEvent(offset=11, time=at("2013-01-22T00:00"), value="7"),
            MadeEvent(offset=12, time=at("2013-02-22T00:00")),
        ],
    )
    apply(world, CATALOG.replace("49.90", "99.90"))
    close(world.client, "2013-03", clock=MARCH)

    for run in runs.listed(world.client):
        anew = [encode_line_item(one).decode() for one in recomputed(world.client, run, RollupReader(world.client))]
        assert anew == [line.document for line in read_lines(world.client, run)], run.id


def test_a_corrected_line_keeps_the_prices_it_was_billed_with(world: UsageTables) -> None:
    close(world.client)
    fold(world, [LATE])
    apply(world, CATALOG.replace("unit_amount: 0.5, flat_amount: 3", "unit_amount: 9, flat_amount: 3"))

    close(world.client, "2013-02", clock=FEBRUARY)

    calls = corrections(world, "2013-02.1")[0]
    assert (calls.charge, calls.amount, calls.catalog_version) == ("calls", "0.50", 1)


def test_a_customer_who_is_not_billed_again_gets_a_run_of_corrections_alone(world: UsageTables) -> None:
    # bolt's only subscription ends with January.
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-21T00:00"), subject="s3", value="2", user="u3")])

    done = closer(world.client, clock=FEBRUARY).close_due()

    assert [(one.run.id, one.run.kind, one.run.customers) for one in done if one.run.period > "2013"] == [
        ("2013-02.1", RunKind.BILL, ()),
        ("2013-01.2", RunKind.ADJUSTMENTS, ("bolt",)),
    ]
    assert [(one.charge, one.quantity, one.amount) for one in lines(world, "2013-01.2")] == [
        ("calls", "1", "0"),
        ("users", "1", "7"),
        ("level", "-4", "-4"),
        ("mean", "-0.833333333333", "0"),
        ("low", "-1", "-1"),
    ]
    assert verify_period(world.client, "2013-01").differences == ()
    assert closer(world.client, clock=FEBRUARY).close_due() == []


def test_ordinary_usage_of_the_next_period_has_no_earlier_bill_looked_at(
    world: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(world.client)
    # February begins at 05:00 UTC for acme.
    fold(world, [MadeEvent(offset=10, time=at("2013-02-01T05:00")), MadeEvent(offset=11, time=at("2013-02-20T00:00"))])

    def looked_at(*_: object) -> list[LineItem]:
        raise AssertionError

    monkeypatch.setattr("billing_export.earlier_lines.lines_of", looked_at)
    close(world.client, "2013-02", clock=FEBRUARY)
    fold(world, [MadeEvent(offset=12, time=at("2013-03-01T04:59:59"))])

    with pytest.raises(AssertionError):
        close(world.client, "2013-03", clock=MARCH)


def test_a_customer_who_left_the_catalog_is_corrected_all_the_same(world: UsageTables) -> None:
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-21T00:00"), subject="s3", value="9", user="u3")])
    without_bolt = "\n".join(line for line in CATALOG.splitlines() if "id: bolt" not in line)
    apply(world, without_bolt)

    closer(world.client, clock=FEBRUARY).close_due()

    found = lines(world, "2013-01.2")
    assert {one.customer for one in found} == {"bolt"}
    assert ("users", "1", "7") in [(one.charge, one.quantity, one.amount) for one in found]
    fold(world, [MadeEvent(offset=11, time=at("2013-01-22T00:00"), subject="s3", value="9", user="u4")])
    closer(world.client, clock=FEBRUARY).close_due()
    assert ("users", "1", "7") in [(one.charge, one.quantity, one.amount) for one in lines(world, "2013-01.3")]
    assert verify_period(world.client, "2013-01").differences == ()


def test_corrections_alone_can_be_asked_for(world: UsageTables) -> None:
    close(world.client)
    fold(world, [LATE])

    nothing = closer(world.client).close("2013-01", kind=RunKind.ADJUSTMENTS)
    done = closer(world.client).close("2013-01", kind=RunKind.ADJUSTMENTS, customers=["acme"])

    # acme will be billed for February, so that only who asks for it gets its correction now.
    assert (nothing.run.id, nothing.changed) == ("2013-01.1", False)
    assert (done.run.id, done.run.lines_count, done.changed) == ("2013-01.2", 2, True)
    close(world.client, "2013-02", clock=FEBRUARY)
    assert corrections(world, "2013-02.1") == []


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("ALTER TABLE line_items DELETE WHERE kind = 'carried_forward'", "missing, its events say"),
        (
            "ALTER TABLE line_items UPDATE amount_after = 7 WHERE charge = 'traffic' AND revision = 1",
            "amount_after is 7.0000",
        ),
        (
            """ALTER TABLE line_items UPDATE document = replace(document, '"amount":"-666.00"', '"amount":"-66.00"')
            WHERE revision = 1""",
            "amount is -66.00, expected -666.00",
        ),
    ],
)
def test_a_correction_that_was_tampered_with_is_named(world: UsageTables, statement: str, complaint: str) -> None:
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="-2000")])
    close(world.client, "2013-02", clock=FEBRUARY)

    world.client.command(f"{statement} SETTINGS mutations_sync = 2")

    assert any(complaint in text for text in verify_period(world.client, "2013-02").differences)
