"""Bills side by side, as they are today and as they would be: plain frozen records, complete as JSON."""

from __future__ import annotations

import msgspec


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """Something that costs `present` now and would cost `simulated`; `difference` is above zero where it costs more."""

    what: str
    present: str
    simulated: str
    difference: str


class CustomerSides(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's bill in one currency. `charges` is empty unless customers were asked for by name."""

    customer: str
    customer_name: str
    currency: str
    present: str
    simulated: str
    difference: str
    charges: tuple[Side, ...] = ()


class SimulatedTotal(msgspec.Struct, frozen=True, kw_only=True):
    """All customers in one currency."""

    currency: str
    customers_count: int
    present: str
    simulated: str
    difference: str


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """Bills side by side: by currency, those first that would grow most.

    `runs` are the frozen runs whose cuts and catalogs were used; `is_frozen` says that they are all there is, and
    `is_over` that the period has ended. `plans` names for each plan of today the one that stands for it.
    """

    period: str
    runs: tuple[str, ...]
    is_frozen: bool
    is_over: bool
    plans: dict[str, str]
    customers: tuple[CustomerSides, ...]
    totals: tuple[SimulatedTotal, ...]
