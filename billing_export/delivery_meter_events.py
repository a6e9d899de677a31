"""Metered quantities as Stripe meter events, for those who let Stripe do the pricing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from billing_export.delivery import Answer, Delivery, Outcome, Sending
from billing_export.delivery_retry import RetryPolicy
from billing_export.delivery_stripe import EXTERNAL_ID, KEYS_KEPT, StripeCaller, StripeOptions
from metering.clock import Clock
from schemas.line_item import LineItem, LineKind

IDENTIFIER_CHARACTERS_MAX: Final = 100


class StripeMeterEvents:
    """Every line of usage becomes one meter event, with the line's id as identifier, in its period's last second.

    `event_names` maps our meters to Stripe's event names; a meter that is not in it keeps its name. Lines of other
    kinds, and lines of a quantity of zero, are left out: Stripe's own prices make the rest of the bill.
    """

    group_max = 50

    def __init__(
        self, options: StripeOptions, *, event_names: Mapping[str, str], clock: Clock, policy: RetryPolicy
    ) -> None:
        self._options = options
        self._event_names = event_names
        self._clock = clock
        self._caller = StripeCaller(options, policy)

    @property
    def name(self) -> str:
        return self._options.name

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        for item in items:
            if item.kind is LineKind.USAGE and item.meter is not None and item.quantity != "0":
                known = bool(item.external_ids.get(EXTERNAL_ID))
                refusal = "" if known else f"customer {item.customer} has no external id {EXTERNAL_ID!r} in the catalog"
                yield Delivery(key=item.id, items=(item,), refusal=refusal)

    def preview(self, delivery: Delivery) -> dict[str, object]:
        return meter_event(delivery.items[0], self._event_names)

    def mark(self) -> str:
        return ""

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        for sending in sendings:
            yield sending, self._unknown(sending) or self._created(sending)

    def close(self) -> None:
        """Nothing is held open."""

    def _created(self, sending: Sending) -> Answer:
        event = meter_event(sending.delivery.items[0], self._event_names)
        key = sending.delivery.key if sending.attempt == 1 else f"{sending.delivery.key}-{sending.attempt}"
        events = self._caller.client.v1.billing.meter_events
        return self._caller.answer(
            lambda: str(events.create(event, {"idempotency_key": key}).identifier)  # type: ignore[arg-type]
        )

    def _unknown(self, sending: Sending) -> Answer | None:
        """Refuses to send blindly what may have arrived: Stripe lists no meter events and forgets identifiers."""
        if not sending.unresolved or self._clock.now() - sending.first_at < KEYS_KEPT:
            return None
        return Answer(
            outcome=Outcome.FAILED,
            status="unknown",
            text=f"sent at {sending.first_at:%Y-%m-%d %H:%M:%S} UTC without an answer, and Stripe no longer recognises "
            "a repeat: look at the meter's usage there, and use --retry-failed only if it did not arrive",
        )


def meter_event(item: LineItem, event_names: Mapping[str, str]) -> dict[str, object]:
    """The parameters of Stripe's `POST /v1/billing/meter_events` for a line of usage."""
    meter = item.meter or ""
    return {
        "event_name": event_names.get(meter, meter),
        "identifier": item.id[:IDENTIFIER_CHARACTERS_MAX],
        # The period is half-open, so its last second is the last one that Stripe counts in it too.
        "timestamp": int((item.service_end - timedelta(seconds=1)).timestamp()),
        "payload": {"stripe_customer_id": item.external_ids[EXTERNAL_ID], "value": item.quantity},
    }
