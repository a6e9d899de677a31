"""docs/pricing.md computed anew: every example on the page is read from the page and priced."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
import yaml

from billing_export.balance import BalanceChange, Stock, stock_usage
from billing_export.commitments import minimum_shortfall, plan_commitment
from billing_export.credits import CreditableLine, GrantBalance, draw
from billing_export.money import format_amount, round_amount
from billing_export.proration import Span, fraction_of, plan_change_net
from billing_export.rate import Context, Usage, rate
from billing_export.reductions import Reduction, Scope, reduce_lines
from billing_export.rollover import PeriodUse, rolled_over
from schemas.charges import CHARGE_MODELS, Charge, Commitment, Discount, Proration, Rollover, TimeUnit
from schemas.plan import MoneyRounding
from schemas.quantity import format_quantity
from schemas.subscription import CreditGrant

PAGE: Final = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"^```yaml\n(.*?)^```\n((?:\n\|[^\n]*(?:\n\|[^\n]*)*)?)", re.MULTILINE | re.DOTALL)


def written(text: str) -> Any:
    """YAML whose scalars stay as they are written."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - the base loader makes texts, lists and maps only


BLOCKS: Final = [(written(block), table) for block, table in BLOCK.findall(PAGE)]
PRICED: Final = [
    (block, *(cell.strip() for cell in row.split("|")[1:3]))
    for block, table in BLOCKS
    if "model" in block
    for row in table.strip().split("\n")[2:]
]
EXAMPLES: Final = [block for block, _ in BLOCKS if "example" in block]


def usage_and_context(text: str) -> tuple[Usage, Context]:
    told = written(text.strip("`"))
    events = tuple(map(Decimal, told.get("events", ())))
    buckets = tuple(map(Decimal, told.get("buckets", ())))
    usage = Usage(
        quantity=Decimal(told["quantity"]) if "quantity" in told else sum(events or buckets, Decimal(0)),
        events=events,
        events_count=len(events),
        buckets=buckets,
        amount=Decimal(told["amount"]) if "amount" in told else None,
        dimensions=told.get("dimensions", {}),
    )
    context = Context(
        fraction=Fraction(told.get("fraction", 1)),
        free_quantity_extra=Decimal(told.get("free_quantity_extra", 0)),
        discount_quantity=Decimal(told.get("discount_quantity", 0)),
        previous=Usage(quantity=Decimal(told["previous"])) if "previous" in told else None,
        previous_billed=Decimal(told["previous_billed"]) if "previous_billed" in told else None,
    )
    return usage, context


@pytest.mark.parametrize(("block", "used", "costs"), PRICED, ids=[f"{one[0]['id']}-{one[1]}" for one in PRICED])
def test_usage_costs_what_the_page_says(block: dict[str, Any], used: str, costs: str) -> None:
    charge: Charge = msgspec.convert(block, Charge, strict=False)

    rated = rate(charge, *usage_and_context(used))

    assert format_quantity(rated.amount_unrounded) == costs


def test_every_model_has_an_example_under_its_own_heading() -> None:
    headings = re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)

    assert headings == list(CHARGE_MODELS)
    assert {block["model"] for block, _, _ in PRICED} == set(CHARGE_MODELS)
    assert len(PRICED) > 30


def midnight(day: str, zone: str = "UTC") -> dt.datetime:
    return dt.datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)


def span(days: list[str], zone: str = "UTC") -> Span:
    return midnight(days[0], zone), midnight(days[1], zone)


def fraction(told: dict[str, Any]) -> object:
    zone = told["timezone"]
    return {
        way: str(
            fraction_of(span(told["whole"], zone), span(told["active"], zone), proration=Proration(way), timezone=zone)
        )
        for way in told["gives"]
    }


def plan_change(told: dict[str, Any]) -> object:
    old, new = Decimal(told["old_amount"]), Decimal(told["new_amount"])
    net = plan_change_net(old, new, Fraction(told["remaining"]), told["currency"])
    return {name: str(amount) for name, amount in msgspec.structs.asdict(net).items()}


def stock(told: dict[str, Any]) -> object:
    whole = span(told["period"])
    changes = tuple(BalanceChange(time=midnight(day), amount=Decimal(amount)) for day, amount in told["changes"])
    held = Stock(start=whole[0], end=whole[1], opening=Decimal(told["opening"]), changes=changes)
    found = {}
    for way in told["gives"]:
        proration, unit = way.split()
        usage = stock_usage(held, whole=whole, proration=Proration(proration), time_unit=TimeUnit(unit), timezone="UTC")
        found[way] = str(Fraction(usage.quantity))
    return found


def rollover(told: dict[str, Any]) -> object:
    rule = msgspec.convert(told["rollover"], Rollover, strict=False)
    free = Decimal(told["free_quantity"])
    history = [PeriodUse(free_quantity=free, quantity=Decimal(one)) for one in told["used"]]
    return [str(rolled_over(rule, history[:place])) for place in range(len(history) + 1)]


def commitment(told: dict[str, Any]) -> object:
    rule = msgspec.convert(told["commitment"], Commitment, strict=False)
    amounts = [Decimal(one) for one in told["amounts"]]
    found = plan_commitment(rule, amounts, sum(amounts, Decimal(0)), told["currency"])
    return [format_quantity(one) for one in found.overage]


def minimum(told: dict[str, Any]) -> object:
    least, spent = Decimal(told["minimum"]), Decimal(told["spent"])
    short = minimum_shortfall(least, spent, told["currency"], fraction=Fraction(told["fraction"]))
    assert short is not None
    return {"due": str(short.due), "amount": str(short.amount)}


def discounts(told: dict[str, Any]) -> object:
    left = [Decimal(one) for one in told["lines"]]
    reductions = [
        Reduction(
            discount=msgspec.convert({"id": "d", **one}, Discount, strict=False),
            scope=Scope[scope.upper()],
            lines=tuple(map(int, lines)),
        )
        for scope, lines, one in ((one.pop("scope"), one.pop("lines"), one) for one in map(dict, told["discounts"]))
    ]
    for one in reduce_lines(left, reductions, told["currency"]):
        left[one.line] -= one.amount
    return [str(one) for one in left]


def credit(told: dict[str, Any]) -> object:
    currency = told["currency"]
    grants = []
    for one in told["grants"]:
        grant = {"amount": one["balance"], "currency": currency, "start": "2013-01-01", **one}
        balance = Decimal(grant.pop("balance"))
        grants.append(GrantBalance(grant=msgspec.convert(grant, CreditGrant, strict=False), balance=balance))
    lines = [
        CreditableLine(charge="calls", amount=Decimal(one), period_end=dt.date(2013, 2, 1)) for one in told["lines"]
    ]
    return [
        {"grant": one.grant, "line": str(one.line), "amount": str(one.amount)} for one in draw(grants, lines, currency)
    ]


COMPUTED: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "fraction": fraction,
    "plan_change": plan_change,
    "stock": stock,
    "rollover": rollover,
    "plan_commitment": commitment,
    "minimum": minimum,
    "discounts": discounts,
    "credits": credit,
}


@pytest.mark.parametrize("told", EXAMPLES, ids=lambda told: told["example"])
def test_an_example_gives_what_the_page_says(told: dict[str, Any]) -> None:
    assert COMPUTED[told["example"]](told) == told["gives"]


def test_every_kind_of_example_is_on_the_page() -> None:
    assert sorted(told["example"] for told in EXAMPLES) == sorted(COMPUTED)
    assert len(BLOCKS) == len(re.findall(r"^```yaml$", PAGE, re.MULTILINE))


def test_amounts_are_rounded_as_the_page_says() -> None:
    rows = re.findall(r"^\| (\S+) \| ([A-Z]{3}) \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)

    assert len(rows) >= 5
    for exact, currency, half_up, half_even in rows:
        rounded = [format_amount(round_amount(Decimal(exact), currency, one)) for one in MoneyRounding]
        assert rounded == [half_up, half_even]
