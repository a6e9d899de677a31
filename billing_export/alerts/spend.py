"""What customers with a budget have spent so far, worked out anew when their usage moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from decimal import Decimal
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client

from billing_export.alerts.decide import Spend
from billing_export.preview import preview
from billing_export.usage_reader import RollupReader
from metering.clock import Clock
from metering.entitlements.reader import Held
from schemas.alert import Watch
from schemas.errors import RunError
from schemas.period import period_of

TURN_S_MAX: Final = 1.0
"""How long a turn may work on bills; those that are left come first in the next."""

AGAIN_S: Final = 60.0
"""How often a bill is worked out without new usage: balances go on, and days begin."""

_log = structlog.get_logger(__name__)


class SpendWatch:
    """Remembers the bills; `spent` brings those up to date whose customers have used something."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._spent: dict[str, list[Spend]] = {}
        self._seen: dict[str, Hashable] = {}
        self._done_at_s: dict[str, float] = {}
        self._due: deque[str] = deque()
        self._version = 0

    def spent(self, held: Held) -> list[Spend]:
        """What is known of everybody that a budget of the catalog is for."""
        self._notice(held)
        begun_at_s = self._clock.monotonic_s()
        reader = RollupReader(self._client)
        while self._due and self._clock.monotonic_s() - begun_at_s < TURN_S_MAX:
            customer = self._due.popleft()
            self._done_at_s[customer] = self._clock.monotonic_s()
            try:
                bills = preview(self._client, customer, reader, now=held.as_of)
            except RunError as error:
                # Between bills, or while a run is being made: what was known stays until there is another bill.
                _log.debug("alerts_bill_not_made", customer=customer, detail=str(error))
                continue
            self._spent[customer] = [
                Spend(
                    customer=customer,
                    period=period_of(bill.period, bill.timezone),
                    currency=total.currency,
                    amount=Decimal(total.so_far),
                )
                for bill in bills
                for total in bill.totals
            ]
        return [one for held_bills in self._spent.values() for one in held_bills]

    def _notice(self, held: Held) -> None:
        """Queue whoever used something since, and whose bill was not looked at for a while."""
        catalog = held.catalog
        if catalog is None:
            return
        if catalog.version != self._version:
            self._seen, self._spent, self._due, self._version = {}, {}, deque(), catalog.version
        rules = [rule for rule in catalog.catalog.alerts if rule.watch is Watch.BUDGET]
        everybody = any(not rule.customers for rule in rules)
        watched = catalog.customers if everybody else dict.fromkeys(name for rule in rules for name in rule.customers)
        queued = set(self._due)
        now_s = self._clock.monotonic_s()
        for customer in watched:
            spans = {span for terms in held.terms[customer].meters.values() for span in terms.spans}
            seen = frozenset((span, held.used.get(span, {}).get(customer)) for span in spans)
            is_old = now_s - self._done_at_s.get(customer, now_s) > AGAIN_S
            if (self._seen.get(customer) != seen or is_old) and customer not in queued:
                self._due.append(customer)
            self._seen[customer] = seen
