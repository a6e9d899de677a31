"""KPIs of recurring revenue, on worlds made for one question each."""

from __future__ import annotations

import re

from schemas.kpi import Kpi
from tests.support.made_kpis import apply, rows
from tests.support.made_usage import UsageTables

BASIC = "plans: [{id: basic, charges: [{id: fee, model: flat, amount: 10}]}]\n"


def many(count: int, ended: int) -> str:
    """A catalog of `count` customers of the plan at 10 a month since January, the first `ended` until 10 March."""
    customers = "".join(f"  - {{id: c{n}, subjects: [c{n}]}}\n" for n in range(count))
    lives = "".join(
        f"  - {{id: s{n}, customer: c{n}, plan: basic, start: 2024-01-01{', end: 2024-03-10' if n < ended else ''}}}\n"
        for n in range(count)
    )
    return f"{BASIC}customers:\n{customers}subscriptions:\n{lives}"


def test_five_of_a_hundred_customers_lost_are_five_percent(tables: UsageTables) -> None:
    apply(tables, many(100, ended=5))

    found = rows(
        tables, "SELECT customers_start, customers_lost, customer_churn_rate FROM kpi_churn WHERE month = '2024-03-01'"
    )

    assert found == [("100", "5", "5")]


def test_ten_customers_at_ten_a_month_are_a_hundred_of_recurring_revenue(tables: UsageTables) -> None:
    apply(tables, many(10, ended=0))

    assert rows(tables, "SELECT mrr, arr FROM kpi_mrr WHERE month = '2024-02-01'") == [("100", "1200")]


def test_net_retention_can_pass_a_hundred_and_gross_cannot(tables: UsageTables) -> None:
    apply(
        tables,
        """
plans:
  - {id: basic, charges: [{id: fee, model: flat, amount: 10}]}
  - {id: pro, charges: [{id: fee, model: flat, amount: 25}]}
customers: [{id: a, subjects: [a]}]
subscriptions:
  - {id: s, customer: a, plan: basic, start: 2024-01-01, changes: [{at: 2024-02-10, plan: pro}], end: 2024-06-01}
""",
    )

    found = rows(
        tables, "SELECT net_revenue_retention, gross_revenue_retention FROM kpi_retention WHERE month = '2024-02-01'"
    )

    assert found == [("250", "100")]


def test_currencies_are_never_added_up(tables: UsageTables) -> None:
    apply(
        tables,
        """
plans:
  - id: basic
    charges: [{id: fee, model: flat, amount: 10}]
    prices: {EUR: {charges: [{id: fee, model: flat, amount: 9}]}}
customers:
  - {id: a, subjects: [a]}
  - {id: b, subjects: [b], currency: EUR}
subscriptions:
  - {id: s, customer: a, plan: basic, start: 2024-01-01}
  - {id: t, customer: b, plan: basic, start: 2024-01-01}
""",
    )

    found = rows(tables, "SELECT currency, mrr FROM kpi_mrr WHERE month = '2024-01-01' ORDER BY currency")

    assert found == [("EUR", "9"), ("USD", "10")]


def test_a_pause_keeps_the_customer_and_takes_the_revenue(tables: UsageTables) -> None:
    apply(
        tables,
        BASIC
        + """
customers: [{id: a, subjects: [a]}]
subscriptions:
  - {id: s, customer: a, plan: basic, start: 2024-01-01, pauses: [{start: 2024-02-10, end: 2024-04-10}]}
""",
    )

    found = rows(
        tables,
        "SELECT month, customers, mrr_new, mrr_contraction, mrr_expansion, mrr_churned, mrr_reactivated, mrr"
        " FROM kpi_mrr WHERE month <= '2024-04-01' ORDER BY month",
    )

    assert found == [
        ("2024-01-01", "1", "10", "0", "0", "0", "0", "10"),
        ("2024-02-01", "1", "0", "-10", "0", "0", "0", "0"),
        ("2024-03-01", "1", "0", "0", "0", "0", "0", "0"),
        ("2024-04-01", "1", "0", "0", "10", "0", "0", "10"),
    ]


def test_revenue_churn_of_customers_who_pay_for_usage_alone_is_no_number(tables: UsageTables) -> None:
    apply(
        tables,
        """
meters: [{name: calls, event_type: call, aggregation: count}]
plans: [{id: usage, charges: [{id: calls, model: per_unit, meter: calls, unit_amount: 1}]}]
customers: [{id: a, subjects: [a]}]
subscriptions: [{id: s, customer: a, plan: usage, start: 2024-01-01, end: 2024-03-01}]
""",
    )

    found = rows(
        tables,
        "SELECT customers_start, customers_lost, customer_churn_rate, mrr_start, revenue_churn_rate FROM kpi_churn"
        " WHERE month = '2024-03-01'",
    )

    assert found == [("1", "1", "100", "0", None)]


def test_what_happens_in_the_future_is_known_and_does_not_count_yet(tables: UsageTables) -> None:
    apply(
        tables,
        BASIC
        + """
customers: [{id: a, subjects: [a]}]
subscriptions: [{id: s, customer: a, plan: basic, start: 2095-01-01}]
""",
    )

    assert rows(tables, "SELECT type, day FROM subscription_events") == [("subscription.started", "2095-01-01")]
    for view in ("kpi_mrr", "kpi_churn", "kpi_retention", "kpi_cohorts"):
        assert rows(tables, f"SELECT count() FROM {view}") == [("0",)], view  # noqa: S608 - names of our own


def test_the_movements_add_up_to_the_change_of_every_month(tables: UsageTables) -> None:
    lives = "".join(
        f"  - {{id: s{n}, customer: c{n % 7}, plan: {'p10' if n % 2 else 'p7'}, start: 2024-0{1 + n % 5}-1{n % 9},"
        f" end: 2024-0{6 + n % 4}-2{n % 9}, changes: [{{at: 2024-05-2{n % 9}, plan: {'p7' if n % 3 else 'p10'}}}]}}\n"
        for n in range(7)
    )
    customers = "".join(f"  - {{id: c{n}, subjects: [c{n}]}}\n" for n in range(7))
    plans = "".join(
        f"  - {{id: p{price}, period: week, charges: [{{id: fee, model: flat, amount: {price}}}]}}\n"
        for price in (10, 7)
    )
    apply(tables, f"plans:\n{plans}customers:\n{customers}subscriptions:\n{lives}")

    moved = "mrr_start + mrr_new + mrr_expansion + mrr_contraction + mrr_churned + mrr_reactivated"
    found = rows(tables, f"SELECT count(), countIf({moved} != mrr) FROM kpi_mrr")  # noqa: S608 - a constant
    followed = rows(
        tables,
        "SELECT countIf(later.mrr_start != earlier.mrr) FROM kpi_mrr AS earlier INNER JOIN kpi_mrr AS later"
        " ON later.month = addMonths(earlier.month, 1) AND later.currency = earlier.currency",
    )

    assert found == [("9", "0")]
    assert followed == [("0",)]


def test_weeks_begin_before_what_happens_on_their_monday(tables: UsageTables) -> None:
    apply(
        tables,
        BASIC
        + """
customers: [{id: a, subjects: [a]}, {id: b, subjects: [b]}]
subscriptions:
  - {id: s, customer: a, plan: basic, start: 2024-01-01, end: 2024-02-06}
  - {id: t, customer: b, plan: basic, start: 2024-01-08, end: 2024-03-01}
""",
    )

    found = rows(
        tables,
        "SELECT week_start, customers_start, customers_end, customers_acquired, customer_retention_rate"
        " FROM kpi_retention_weeks WHERE weeks = 4 ORDER BY week_start",
    )

    # a is there from 1 January to 5 February, b from 8 January to 29 February.
    assert found == [
        ("2024-01-08", "1", "2", "1", "100"),
        ("2024-01-15", "2", "1", "0", "50"),
        ("2024-01-22", "2", "1", "0", "50"),
        ("2024-01-29", "2", "1", "0", "50"),
    ]


def test_every_kpi_that_a_goal_can_name_has_values(tables: UsageTables) -> None:
    definition = tables.client.query(
        "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'kpi_values'"
    ).result_rows[0][0]

    assert set(re.findall(r"\('(\w+)', CAST", definition)) == {one.value for one in Kpi}
