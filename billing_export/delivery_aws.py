"""Metered quantities to AWS Marketplace by BatchMeterUsage: 25 records a call, whole numbers.

AWS knows a record by product, customer, dimension and hour: the same again changes nothing, another quantity for the
same is refused as a duplicate. So lines of one customer and dimension go as one record, and a record that was sent
before keeps its hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, ROUND_UP, Context, Decimal
from itertools import groupby
from typing import Any, Final

import msgspec

from billing_export.delivery import Answer, Delivery, Outcome, Sending, shortened
from billing_export.delivery_retry import NotNowError, RetryPolicy, with_retries
from metering.clock import Clock
from schemas.errors import RequestError, UnavailableError
from schemas.line_item import LineItem, LineKind
from schemas.quantity import ZERO, add

RECORDS_A_CALL_MAX: Final = 25
QUANTITY_MAX: Final = 2_147_483_647
EXTERNAL_ID: Final = "aws"
"""The name in `external_ids` of the CustomerIdentifier that AWS gave for the customer's registration."""

ROUNDINGS: Final = {"half-up": ROUND_HALF_UP, "down": ROUND_DOWN, "up": ROUND_UP}
REFUSE: Final = "refuse"

_NOT_NOW: Final = frozenset({"InternalServiceErrorException", "ThrottlingException"})
_OF_EVERYTHING: Final = frozenset(
    {"InvalidProductCodeException", "DisabledApiException", "AccessDeniedException", "UnrecognizedClientException",
     "InvalidClientTokenId", "ExpiredTokenException", "InvalidSignatureException", "SignatureDoesNotMatch"}
)  # fmt: skip


class AwsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The product and its dimensions. `rounding` is `refuse`, `half-up`, `down` or `up`; `dimensions` maps our meters.

    Without keys, boto3 looks for credentials where it always does. `url` is for tests.
    """

    product_code: str
    region: str
    dimensions: Mapping[str, str]
    rounding: str = REFUSE
    access_key_id: str = ""
    secret_access_key: str = ""
    url: str = ""
    name: str = "aws-marketplace"


class AwsMarketplace:
    """Delivers the usage of mapped meters."""

    group_max = RECORDS_A_CALL_MAX

    def __init__(self, options: AwsOptions, *, clock: Clock, policy: RetryPolicy) -> None:
        if not options.product_code:
            raise RequestError(
                "is not set", where="METERING_AWS_PRODUCT_CODE", fix="Set it to the product code of the listing"
            )
        if not options.dimensions:
            raise RequestError(
                "no meter is mapped to a dimension of the listing",
                where="--map",
                fix="Give --map METER=NAME",
            )
        if options.rounding not in (REFUSE, *ROUNDINGS):
            raise RequestError(
                f"{options.rounding!r} is no way to round",
                where="--aws-rounding",
                fix=f"Use {', '.join((REFUSE, *ROUNDINGS))}",
            )
        self._options = options
        self._clock = clock
        self._policy = policy
        self._client, self._errors = _client(options, policy)

    @property
    def name(self) -> str:
        return self._options.name

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        """One for each customer and dimension, in the order of their first lines, which come by customer."""
        wanted = (
            item
            for item in items
            if item.kind is LineKind.USAGE and item.meter is not None and item.meter in self._options.dimensions
        )
        for _, of_customer in groupby(wanted, key=lambda item: item.customer):
            by_dimension: dict[str, list[LineItem]] = {}
            for item in of_customer:
                by_dimension.setdefault(self._options.dimensions[item.meter or ""], []).append(item)
            for dimension, found in by_dimension.items():
                quantity = _sum(found)
                if quantity:
                    key = hashlib.sha256("".join((dimension, *(item.id for item in found))).encode()).hexdigest()
                    yield Delivery(key=key, items=tuple(found), refusal=self._refusal(found[0], quantity))

    def preview(self, delivery: Delivery) -> dict[str, object]:
        return self._record(delivery, self._clock.now())

    def mark(self) -> str:
        return ""

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        """All in one call, and then those alone that AWS did not get to; one by one when it refuses the whole call."""
        if not sendings:
            return
        left = list(sendings)
        answered: dict[str, Answer] = {}

        def call() -> Answer:
            answer, now_answered = self._call(left)
            answered.update(now_answered)
            if answer is not None:
                return answer
            left[:] = [one for one in left if one.delivery.key not in answered]
            if left:
                raise NotNowError(f"AWS left {len(left)} records unprocessed")
            return Answer(outcome=Outcome.ACCEPTED, status="Success")

        away: UnavailableError | None = None
        whole = None
        try:
            whole = with_retries(call, self._policy, where="AWS Marketplace")
        except UnavailableError as error:
            away = error
        for sending in sendings:
            if sending.delivery.key in answered:
                yield sending, answered[sending.delivery.key]
        if away is not None:
            raise away
        if whole is not None and whole.outcome is Outcome.FAILED:
            yield from self._refused(left, whole)

    def close(self) -> None:
        self._client.close()

    def _refused(self, sendings: Sequence[Sending], whole: Answer) -> Iterator[tuple[Sending, Answer]]:
        """AWS names no record when one of a call is wrong, so each is tried alone."""
        if len(sendings) == 1 or whole.stop:
            for sending in sendings[:1] if whole.stop else sendings:
                yield sending, whole
            return
        for sending in sendings:
            yield from self.send([sending])

    def _call(self, sendings: Sequence[Sending]) -> tuple[Answer | None, dict[str, Answer]]:
        """An answer for the whole call where AWS refused it, and those of single records where it did not."""
        records = [self._record(one.delivery, one.first_at) for one in sendings]
        try:
            response = self._client.batch_meter_usage(ProductCode=self._options.product_code, UsageRecords=records)
        except self._errors.ClientError as error:
            return self._client_error(error), {}
        except self._errors.BotoCoreError as error:
            raise NotNowError(f"no answer ({type(error).__name__})") from error
        keys = {_identity(record): one.delivery.key for record, one in zip(records, sendings, strict=True)}
        found = {}
        for result in response.get("Results", []):
            status = result.get("Status", "")
            outcome = Outcome.ACCEPTED if status == "Success" else Outcome.FAILED
            found[keys[_identity(result["UsageRecord"])]] = Answer(
                outcome=outcome,
                status=status,
                foreign_id=result.get("MeteringRecordId", ""),
                text=_MEANINGS.get(status, ""),
            )
        return None, found

    def _client_error(self, error: Any) -> Answer:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _NOT_NOW or status >= 500 or status == 429:
            raise NotNowError(f"answered {code or status}") from error
        text = shortened(str(error), self._options.secret_access_key)
        stop = f"AWS refuses the call: {text}" if code in _OF_EVERYTHING else ""
        return Answer(outcome=Outcome.FAILED, status=code or str(status), text=text, stop=stop)

    def _record(self, delivery: Delivery, at: datetime) -> dict[str, object]:
        first = delivery.items[0]
        return {
            # AWS takes usage of the last six hours only, so a record is of the hour in which it is sent first.
            "Timestamp": at.replace(minute=0, second=0, microsecond=0),
            "CustomerIdentifier": first.external_ids.get(EXTERNAL_ID, ""),
            "Dimension": self._options.dimensions[first.meter or ""],
            "Quantity": int(self._rounded(_sum(delivery.items))),
        }

    def _rounded(self, quantity: Decimal) -> Decimal:
        rounding = ROUNDINGS.get(self._options.rounding, ROUND_HALF_UP)
        return quantity.quantize(Decimal(1), context=Context(prec=100, rounding=rounding))

    def _refusal(self, item: LineItem, quantity: Decimal) -> str:
        if not item.external_ids.get(EXTERNAL_ID):
            return f"customer {item.customer} has no external id {EXTERNAL_ID!r} in the catalog"
        if quantity < 0:
            return f"a quantity of {quantity} takes usage back, which AWS Marketplace does not: credit it there by hand"
        if self._options.rounding == REFUSE and quantity != quantity.to_integral_value():
            return f"a quantity of {quantity} is no whole number; --aws-rounding says how to make it one"
        if quantity > QUANTITY_MAX:
            return f"a quantity of {quantity} is more than the {QUANTITY_MAX} that AWS takes"
        return ""


_MEANINGS: Final = {
    "CustomerNotSubscribed": "AWS says that this customer does not subscribe to the product",
    "DuplicateRecord": "AWS has another quantity for this customer, dimension and hour",
}


def _sum(items: Iterable[LineItem]) -> Decimal:
    total = ZERO
    for item in items:
        total = add(total, Decimal(item.quantity))
    return total


def _identity(record: Mapping[str, Any]) -> tuple[str, str]:
    """What tells the records of one call apart; a call has one for each customer and dimension."""
    return record["CustomerIdentifier"], record["Dimension"]


def _client(options: AwsOptions, policy: RetryPolicy) -> tuple[Any, Any]:
    try:
        import boto3
        import botocore.exceptions
        from botocore.config import Config
    except ImportError as error:
        raise RequestError(
            "the library `boto3` is not installed", where="--to aws-marketplace", fix="Install usage-metering[aws]"
        ) from error
    keys = {}
    if options.access_key_id:
        keys = {"aws_access_key_id": options.access_key_id, "aws_secret_access_key": options.secret_access_key}
    config = Config(connect_timeout=policy.timeout_s, read_timeout=policy.timeout_s, retries={"total_max_attempts": 1})
    client = boto3.client(
        "meteringmarketplace", region_name=options.region, endpoint_url=options.url or None, config=config, **keys
    )
    return client, botocore.exceptions
