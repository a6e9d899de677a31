"""The catalog: what is measured, who uses it, and what they pay; and the state it has once it was applied.

The file's text is read by `metering.catalog_file`, its mistakes are found by `schemas.catalog_check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.alert import AlertRule
from schemas.charges import CurrencyCode, Discount, Identifier, Text
from schemas.health import Health
from schemas.kpi import Goal, LeadRule
from schemas.meter import Meter, MeterVersion
from schemas.plan import Plan, PriceList
from schemas.quota import Quota
from schemas.subscription import CreditGrant, Migration, Subscription

EventType = Annotated[
    str, Meta(min_length=1, max_length=512, description="A CloudEvents type, such as com.example.request.")
]


class Customer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is billed. `subjects` are the event subjects whose usage is theirs; days and periods begin in `timezone`.

    `external_ids` are the names other systems know the customer by, such as stripe: cus_123. `discounts` are scoped
    to the whole invoice.
    """

    id: Identifier
    name: Text = ""
    subjects: tuple[str, ...]
    timezone: str = "UTC"
    currency: CurrencyCode = "USD"
    external_ids: dict[Identifier, Text] = {}
    discounts: tuple[Discount, ...] = ()
    credits: tuple[CreditGrant, ...] = ()


class Catalog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the catalog file says. `event_types` are accepted although no meter reads them yet.

    What says nothing is left out of the document: a version of the software that does not know a section reads every
    catalog that makes no use of it.

    A trial that meets any of the rules in `qualified_leads` is a product-qualified lead.
    """

    event_types: tuple[EventType, ...] = ()
    meters: tuple[Meter, ...] = ()
    customers: tuple[Customer, ...] = ()
    plans: tuple[Plan, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    migrations: tuple[Migration, ...] = ()
    goals: tuple[Goal, ...] = ()
    qualified_leads: tuple[LeadRule, ...] = ()
    quotas: tuple[Quota, ...] = ()
    alerts: tuple[AlertRule, ...] = ()
    health: Health = Health()


class AppliedCatalog(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A catalog version: the catalog, and every version that every meter has had until then.

    `digest` is the SHA-256 of `document()`, in hexadecimal; it does not cover `version`.
    """

    version: int
    digest: str
    catalog: Catalog
    meter_versions: tuple[MeterVersion, ...]

    @cached_property
    def known_types(self) -> frozenset[str]:
        """The event types that are accepted: those any version of a meter reads, and those the catalog lists."""
        return frozenset(self.catalog.event_types) | {one.meter.event_type for one in self.meter_versions}

    @cached_property
    def _versions(self) -> dict[str, tuple[MeterVersion, ...]]:
        found: dict[str, tuple[MeterVersion, ...]] = {}
        for one in self.meter_versions:
            found[one.meter.name] = (*found.get(one.meter.name, ()), one)
        return found

    @cached_property
    def _customers(self) -> dict[str, Customer]:
        return {subject: one for one in self.catalog.customers for subject in one.subjects}

    @cached_property
    def meters(self) -> dict[str, Meter]:
        """Each meter by name, as its newest version has it."""
        return {name: versions[-1].meter for name, versions in self._versions.items()}

    @cached_property
    def customers(self) -> dict[str, Customer]:
        """Each customer by id."""
        return {one.id: one for one in self.catalog.customers}

    @cached_property
    def plans(self) -> dict[str, tuple[Plan, ...]]:
        """The versions of each plan by id, oldest first."""
        return plans_by_id(self.catalog.plans)

    @cached_property
    def _plan_versions(self) -> dict[tuple[str, int], Plan]:
        return {(one.id, one.version): one for one in self.catalog.plans}

    @cached_property
    def _price_lists(self) -> dict[tuple[str, int, str], PriceList]:
        return {
            (plan.id, plan.version, currency): plan.price_list(currency)
            for plan in self.catalog.plans
            for currency in (plan.currency, *plan.prices)
        }

    @cached_property
    def subscriptions(self) -> dict[str, Subscription]:
        """Each subscription by id."""
        return {one.id: one for one in self.catalog.subscriptions}

    @cached_property
    def subscriptions_sorted(self) -> tuple[Subscription, ...]:
        """Every subscription, by customer and then by id."""
        return tuple(sorted(self.catalog.subscriptions, key=lambda one: (one.customer, one.id)))

    @cached_property
    def _held(self) -> dict[str, list[Subscription]]:
        held: dict[str, list[Subscription]] = {}
        for one in self.subscriptions_sorted:
            held.setdefault(one.customer, []).append(one)
        return held

    @cached_property
    def migrations(self) -> MigrationIndex:
        """The migrations, to be looked up for a subscription."""
        return MigrationIndex(self.catalog.migrations)

    def subscriptions_of(self, customer: str) -> tuple[Subscription, ...]:
        """The subscriptions of a customer, by id."""
        return tuple(self._held.get(customer, ()))

    def plan_version(self, plan: str, version: int) -> Plan:
        """One version of a plan. Raises KeyError where there is none."""
        return self._plan_versions[plan, version]

    def price_list(self, plan: Plan, currency: str) -> PriceList:
        """What a plan of this catalog charges in a currency; always the same object. Raises KeyError without prices."""
        return self._price_lists[plan.id, plan.version, currency]

    def currency_of(self, subscription: Subscription) -> str:
        """The currency in which a subscription is billed: its own, or the customer's."""
        return subscription.currency or self.customers[subscription.customer].currency

    def versions_of(self, meter: str) -> tuple[MeterVersion, ...]:
        """All versions of a meter, oldest first; empty for a meter that is not in the catalog."""
        return self._versions.get(meter, ())

    def customer_of(self, subject: str) -> Customer | None:
        """The customer a subject belongs to, or None."""
        return self._customers.get(subject)

    def subjects_of(self, customers: Iterable[str]) -> tuple[str, ...]:
        """The subjects of some customers, sorted."""
        wanted = set(customers)
        return tuple(sorted(s for one in self.catalog.customers if one.id in wanted for s in one.subjects))


class MigrationIndex:
    """Finds the migrations that can concern a customer with a plan, without looking at those of everybody else."""

    def __init__(self, migrations: Sequence[Migration]) -> None:
        self._found: dict[tuple[str, str | None], list[tuple[int, Migration]]] = {}
        for place, one in enumerate(migrations):
            for customer in one.customers or (None,):
                self._found.setdefault((one.plan, customer), []).append((place, one))

    def concerning(self, plan: str, customer: str) -> list[Migration]:
        """The migrations of `plan` that are for everybody or name the customer, in the order of the catalog."""
        if not self._found:
            return []
        everybody, named = self._found.get((plan, None), []), self._found.get((plan, customer), [])
        return [one for _, one in sorted([*everybody, *named], key=lambda each: each[0])]


def plans_by_id(plans: Iterable[Plan]) -> dict[str, tuple[Plan, ...]]:
    """The versions of each plan by id, oldest first."""
    found: dict[str, list[Plan]] = {}
    for one in sorted(plans, key=lambda plan: plan.version):
        found.setdefault(one.id, []).append(one)
    return {name: tuple(versions) for name, versions in found.items()}


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    catalog: Catalog
    meter_versions: tuple[MeterVersion, ...]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Document).decode


def document(catalog: Catalog, meter_versions: tuple[MeterVersion, ...]) -> bytes:
    """The canonical JSON of a catalog and its meter versions: the same content always gives the same bytes."""
    return _encode(_Document(catalog=catalog, meter_versions=meter_versions))


def applied(version: int, catalog: Catalog, meter_versions: tuple[MeterVersion, ...]) -> AppliedCatalog:
    """A catalog version made from its parts."""
    digest = sha256(document(catalog, meter_versions)).hexdigest()
    return AppliedCatalog(version=version, digest=digest, catalog=catalog, meter_versions=meter_versions)


def from_document(version: int, text: bytes) -> AppliedCatalog:
    """Read a stored catalog version. Raises msgspec.ValidationError for text that is no such document."""
    found = _decode(text)
    return AppliedCatalog(
        version=version,
        digest=sha256(text).hexdigest(),
        catalog=found.catalog,
        meter_versions=found.meter_versions,
    )
