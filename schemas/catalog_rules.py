"""What can be wrong with one record of the catalog, whatever stands around it. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, get_args, get_type_hints
from zoneinfo import available_timezones

import msgspec

from schemas.catalog import Customer
from schemas.charge_rules import CHARGE_RULES, Rule, discount_scope_problems, negative, not_positive, repeats
from schemas.corrections import CORRECTIONS
from schemas.errors import EventRejectedError
from schemas.health import USUAL, Health, health_problems, part_problems
from schemas.kpi import WITHOUT_CURRENCY, Goal
from schemas.meter import WINDOW_S, Aggregation, Filter, Meter, TimeUnit
from schemas.period import YEAR_MAX, YEAR_MIN
from schemas.plan import BillingPeriod, Plan, PriceList
from schemas.problem import Path, Problem, did_you_mean
from schemas.quantity import QuantityError, parse_quantity
from schemas.subscription import CreditGrant, Migration, Pause
from schemas.usage_event import check_text


def own_problems(path: Path, part: msgspec.Struct) -> list[Problem]:
    """The problems of one record; `path` is where it stands."""
    kind = type(part)
    found = [problem for rule in _RULES.get(kind, ()) for problem in rule(path, part)]
    for name, encoded, is_day in _exact_fields(kind):
        value = getattr(part, name)
        if value is not None:
            found += _day_problem((*path, encoded), value) if is_day else _number_problem((*path, encoded), value)
    return found


@lru_cache(maxsize=128)
def _exact_fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, bool], ...]:
    """The fields that hold numbers and days, and which of the two each is."""
    hints = get_type_hints(kind)
    fields = [(field, (hints[field.name], *get_args(hints[field.name]))) for field in msgspec.structs.fields(kind)]
    return tuple(
        (field.name, field.encode_name, dt.date in kinds) for field, kinds in fields if {Decimal, dt.date} & {*kinds}
    )


def _number_problem(path: Path, number: Decimal) -> list[Problem]:
    """A number built in code that a file could not have."""
    try:
        parse_quantity(str(number))
    except QuantityError as error:
        return [Problem(path=path, what=f"{error}, expected a decimal number such as 12 or 0.5")]
    return []


def _day_problem(path: Path, day: dt.date) -> list[Problem]:
    if YEAR_MIN <= day.year <= YEAR_MAX:
        return []
    return [Problem(path=path, what=f"found {day}, expected a day of the years {YEAR_MIN} to {YEAR_MAX}")]


def _meter_problems(path: Path, meter: Meter) -> Iterator[Problem]:
    if meter.event_type in CORRECTIONS:
        what = f"found {meter.event_type}, expected a type of your own: this one corrects other events"
        yield Problem(path=(*path, "event_type"), what=what)
    if meter.aggregation is Aggregation.COUNT:
        if meter.value is not None:
            yield Problem(path=(*path, "value"), what=f"found {meter.value!r}, expected no value: count reads none")
    elif meter.value is None:
        word = meter.aggregation.value
        what = f"missing, expected the path inside data that {word} reads, such as amount"
        yield Problem(path=(*path, "value"), what=what)
    if meter.time_unit is not TimeUnit.HOUR and meter.aggregation is not Aggregation.TIME_WEIGHTED:
        what = f"found {meter.time_unit.value}, expected none: only a time_weighted meter has a balance over time"
        yield Problem(path=(*path, "time_unit"), what=what)
    moment = meter.effective_from
    if moment is None:
        return
    if moment.tzinfo is None:
        what = f"found {moment.isoformat()} without a zone, expected a time such as 2013-01-31T00:00:00Z"
        yield Problem(path=(*path, "effective_from"), what=what)
    elif moment.astimezone(UTC).timestamp() % WINDOW_S:
        what = f"found {moment.isoformat()}, expected the start of a 15-minute window such as 2013-01-31T00:15:00Z"
        yield Problem(path=(*path, "effective_from"), what=what)


def _filter_problems(path: Path, one: Filter) -> Iterator[Problem]:
    if not one.any_of and not one.none_of:
        yield Problem(path=path, what="lets every event through, expected any_of or none_of with at least one value")
    for text in sorted(set(one.any_of) & set(one.none_of)):
        yield Problem(path=path, what=f"{text!r} stands in any_of and in none_of, expected one of them")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """Every zone's name; finding them reads many files."""
    return frozenset(available_timezones())


@lru_cache(maxsize=1_024)
def _zone_hint(name: str) -> str:
    """The likely zone; looking for it takes as long as checking a thousand customers."""
    return did_you_mean(name, _zones())


def _customer_problems(path: Path, customer: Customer) -> Iterator[Problem]:
    zones = _zones()
    if customer.timezone not in zones:
        what = f"found {customer.timezone!r}, expected an IANA zone such as America/New_York"
        yield Problem(path=(*path, "timezone"), what=f"{what}{_zone_hint(customer.timezone)}")
    for index, subject in enumerate(customer.subjects):
        try:
            check_text("subject", subject)
        except EventRejectedError as error:
            yield Problem(path=(*path, "subjects", index), what=f"{error.what}, expected the subject of an event")
    for system, name in customer.external_ids.items():
        if not name:
            yield Problem(path=(*path, "external_ids", system), what=f"empty, expected the id that {system} has")
    yield from discount_scope_problems(
        path,
        customer.discounts,
        quantity="expected percent or amount: a discount on the whole invoice has no units",
        charge="expected none: a customer's discount is for the whole invoice",
    )


def _plan_problems(path: Path, plan: Plan) -> Iterator[Problem]:
    yield from _prices_problems(path, plan)
    by_days = plan.period is BillingPeriod.DAYS
    if by_days and plan.period_days is None:
        yield Problem(path=(*path, "period_days"), what="missing, expected the number of days of a period")
    elif not by_days and plan.period_days is not None:
        what = f"found {plan.period_days}, expected none: it belongs to period days, and this is {plan.period.value}"
        yield Problem(path=(*path, "period_days"), what=what)
    if plan.currency in plan.prices:
        what = f"found a price list in {plan.currency}, expected other currencies: the plan itself is in it"
        yield Problem(path=(*path, "prices", plan.currency), what=what)


def _prices_problems(path: Path, prices: Plan | PriceList) -> Iterator[Problem]:
    """What a plan and a price list have in common."""
    if not prices.charges:
        yield Problem(path=(*path, "charges"), what="empty, expected at least one charge")
    yield from negative(path, prices, "minimum")
    if prices.commitment is not None and prices.commitment.quantity is not None:
        what = f"found {prices.commitment.quantity}, expected amount: the charges of a plan have no common unit"
        yield Problem(path=(*path, "commitment", "quantity"), what=what)
    yield from discount_scope_problems(
        path,
        prices.discounts,
        quantity="expected percent or amount: the charges of a plan have no common unit",
        charge="expected none: a plan's discount is for all its charges; write it into the charge",
    )
    seen: dict[str, str] = {one.id: "the plan" for one in prices.discounts}
    for place, charge in enumerate(prices.charges):
        for index, one in enumerate(charge.discounts):
            first = seen.setdefault(one.id, f"charge {charge.id!r}")
            if first != f"charge {charge.id!r}":
                what = f"discount {one.id!r} stands in {first} already, expected another id: both meet on one bill"
                yield Problem(path=(*path, "charges", place, "discounts", index, "id"), what=what)


def _pause_problems(path: Path, pause: Pause) -> Iterator[Problem]:
    if pause.end is not None and pause.end <= pause.start:
        what = f"found {pause.end}, expected a day after start ({pause.start}): end is exclusive"
        yield Problem(path=(*path, "end"), what=what)


def _grant_problems(path: Path, grant: CreditGrant) -> Iterator[Problem]:
    yield from not_positive(path, grant, "amount")
    if grant.expires is not None and grant.expires <= grant.start:
        what = f"found {grant.expires}, expected a day after start ({grant.start})"
        yield Problem(path=(*path, "expires"), what=what)


def _migration_problems(path: Path, one: Migration) -> Iterator[Problem]:
    if one.from_version == one.to_version:
        yield Problem(path=(*path, "to_version"), what=f"found {one.to_version} twice, expected another version")
    yield from repeats((*path, "customers"), one.customers)


def _goal_problems(path: Path, goal: Goal) -> Iterator[Problem]:
    if goal.tolerance < 0:
        yield Problem(path=(*path, "tolerance"), what=f"found {goal.tolerance}, expected 0 or more")
    if goal.currency is None and goal.kpi not in WITHOUT_CURRENCY:
        what = f"missing, expected the currency in which {goal.kpi.value} is meant, such as USD"
        yield Problem(path=(*path, "currency"), what=what)
    if goal.currency is not None and goal.kpi in WITHOUT_CURRENCY:
        what = f"found {goal.currency}, expected none: {goal.kpi.value} has no currency"
        yield Problem(path=(*path, "currency"), what=what)


_RULES: Final[dict[type[Any], tuple[Rule, ...]]] = {
    **CHARGE_RULES,
    Meter: (_meter_problems,),
    Filter: (_filter_problems,),
    Customer: (_customer_problems,),
    Plan: (_plan_problems,),
    PriceList: (_prices_problems,),
    Pause: (_pause_problems,),
    CreditGrant: (_grant_problems,),
    Migration: (_migration_problems,),
    Goal: (_goal_problems,),
    Health: (health_problems,),
    **dict.fromkeys(USUAL, (part_problems,)),
}
