"""Lines as Stripe invoice items: one for each, in minor units, with the line's id as idempotency key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from billing_export.delivery import Answer, Delivery, Outcome, Sending, shortened
from billing_export.delivery_retry import NotNowError, RetryPolicy, is_not_now, retry_after_s, with_retries
from metering.clock import Clock
from schemas.errors import RequestError
from schemas.line_item import LineItem

ZERO_DECIMAL: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
"""Currencies whose amounts Stripe takes in whole units."""
THREE_DECIMAL: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
"""Currencies whose amounts Stripe takes in thousandths, in steps of ten."""
AMOUNT_MAX: Final = 99_999_999
"""Stripe takes amounts of eight digits, either way."""

KEYS_KEPT: Final = timedelta(hours=23)
"""Stripe keeps idempotency keys for 24 hours. What was sent before that is looked up instead of sent blindly."""

EXTERNAL_ID: Final = "stripe"
"""The name in `external_ids` of a customer's id at Stripe."""
TEXT_CHARACTERS_MAX: Final = 500


class StripeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """With what key, and, for tests and proxies, where to. Empty `url` is Stripe itself."""

    api_key: str
    url: str = ""
    name: str = "stripe"


def stripe_amount(amount: str, currency: str) -> int:
    """An amount as Stripe takes it: an integer, exact. Raises ValueError where there is none."""
    digits = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    scaled = Decimal(amount).scaleb(digits)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{amount} {currency} is no whole number of units of 10^-{digits}, and nothing is rounded")
    minor = int(scaled)
    if currency in THREE_DECIMAL and minor % 10:
        raise ValueError(f"Stripe takes {currency} in steps of 0.010, not {amount}")
    if abs(minor) > AMOUNT_MAX:
        raise ValueError(f"{amount} {currency} has more than the eight digits that Stripe takes")
    return minor


class StripeCaller:
    """Calls Stripe and turns what comes into answers; for invoice items and for meter events."""

    def __init__(self, options: StripeOptions, policy: RetryPolicy) -> None:
        if not options.api_key:
            raise RequestError(
                "is not set", where="METERING_STRIPE_API_KEY", fix="Set it, or METERING_STRIPE_API_KEY_FILE, to a key"
            )
        try:
            import stripe
        except ImportError as error:
            raise RequestError(
                "the library `stripe` is not installed", where="--to stripe", fix="Install usage-metering[stripe]"
            ) from error
        self._stripe = stripe
        self._options = options
        self._policy = policy
        addresses = {"api": options.url} if options.url else {}
        self.client = stripe.StripeClient(
            options.api_key,
            base_addresses=addresses,  # type: ignore[arg-type]
            max_network_retries=0,  # retried here, where the pauses and the end are ours
            http_client=stripe.RequestsClient(timeout=policy.timeout_s),
        )

    def answer(self, call: Callable[[], str]) -> Answer:
        """What came of a call that gives the foreign id. Raises UnavailableError."""
        return with_retries(lambda: self._once(call), self._policy, where=self._options.url or "Stripe")

    def _once(self, call: Callable[[], str]) -> Answer:
        try:
            return Answer(outcome=Outcome.ACCEPTED, status="200", foreign_id=call())
        except self._stripe.StripeError as error:
            status = error.http_status or 0
            text = shortened(str(error), self._options.api_key)
            if not status:
                raise NotNowError(f"no answer ({type(error).__name__})") from error
            same_key = isinstance(error, self._stripe.IdempotencyError)
            if is_not_now(status) and not same_key:
                headers = error.headers or {}
                raise NotNowError(f"answered {status}", pause_s=retry_after_s(headers.get("retry-after"))) from error
            stop = f"Stripe refuses the API key: {text}" if status in (401, 403) else ""
            return Answer(outcome=Outcome.FAILED, status=str(status), text=text, stop=stop)


class StripeInvoiceItems:
    """Every line becomes a pending invoice item of its customer; the next invoice of that customer takes them up."""

    group_max = 50

    def __init__(self, options: StripeOptions, *, clock: Clock, policy: RetryPolicy) -> None:
        self._options = options
        self._clock = clock
        self._caller = StripeCaller(options, policy)

    @property
    def name(self) -> str:
        return self._options.name

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        for item in items:
            yield Delivery(key=item.id, items=(item,), refusal=_refusal(item))

    def preview(self, delivery: Delivery) -> dict[str, object]:
        return invoice_item(delivery.items[0])

    def mark(self) -> str:
        return ""

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        for sending in sendings:
            yield sending, self._found(sending) or self._created(sending)

    def close(self) -> None:
        """Nothing is held open."""

    def _created(self, sending: Sending) -> Answer:
        item = sending.delivery.items[0]
        # A failed attempt's answer is kept by Stripe under its key, so a new attempt needs a key of its own.
        key = item.id if sending.attempt == 1 else f"{item.id}-{sending.attempt}"
        invoice_items = self._caller.client.v1.invoice_items
        return self._caller.answer(
            lambda: str(invoice_items.create(invoice_item(item), {"idempotency_key": key}).id)  # type: ignore[arg-type]
        )

    def _found(self, sending: Sending) -> Answer | None:
        """The invoice item of an earlier sending whose key Stripe may have forgotten, or None when it never came."""
        if not sending.unresolved or self._clock.now() - sending.first_at < KEYS_KEPT:
            return None
        item = sending.delivery.items[0]
        created = {"gte": int((sending.first_at - timedelta(minutes=5)).timestamp())}
        wanted: Any = {"customer": item.external_ids[EXTERNAL_ID], "created": created, "limit": 100}
        found: list[str] = []

        def look() -> str:
            listed: Any = self._caller.client.v1.invoice_items.list(wanted)
            every = ((one.id, one.metadata.to_dict() if one.metadata else {}) for one in listed.auto_paging_iter())
            found.extend(foreign_id for foreign_id, known in every if known.get("line_item") == item.id)
            return ""

        answer = self._caller.answer(look)
        if answer.outcome is Outcome.FAILED:
            return answer
        return Answer(outcome=Outcome.ACCEPTED, status="found", foreign_id=found[0]) if found else None


def invoice_item(item: LineItem) -> dict[str, object]:
    """The parameters of Stripe's `POST /v1/invoiceitems` for a line."""
    parameters: dict[str, object] = {
        "customer": item.external_ids[EXTERNAL_ID],
        "amount": stripe_amount(item.amount, item.currency),
        "currency": item.currency.lower(),
        "description": item.description[:TEXT_CHARACTERS_MAX],
        "period": {"start": _seconds(item.service_start), "end": _seconds(item.service_end)},
        "metadata": metadata(item),
    }
    if item.tax_code.startswith("txcd_"):
        parameters["tax_code"] = item.tax_code
    return parameters


def metadata(item: LineItem) -> dict[str, str]:
    """What says at Stripe which line it is; empty values are left out, because Stripe takes them for deletions."""
    found = {
        "line_item": item.id,
        "run": item.run,
        "kind": item.kind.value,
        "subscription": item.subscription,
        "charge": item.charge,
        "quantity": item.quantity,
        "unit": item.unit,
        "corrects": item.corrects or "",
        "tax_code": item.tax_code,
    }
    return {name: value[:TEXT_CHARACTERS_MAX] for name, value in found.items() if value}


def _refusal(item: LineItem) -> str:
    if not item.external_ids.get(EXTERNAL_ID):
        return f"customer {item.customer} has no external id {EXTERNAL_ID!r} in the catalog"
    try:
        stripe_amount(item.amount, item.currency)
    except ValueError as error:
        return str(error)
    return ""


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
