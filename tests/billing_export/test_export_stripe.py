"""Stripe: the official client against stripe-mock, and a double that keeps keys and items as Stripe does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from billing_export.delivery import Answer, Delivery, Outcome, Sending
from billing_export.delivery_meter_events import StripeMeterEvents, meter_event
from billing_export.delivery_retry import RetryPolicy
from billing_export.delivery_stripe import StripeInvoiceItems, StripeOptions, invoice_item, stripe_amount
from metering.clock import FixedClock
from schemas.errors import RequestError, UnavailableError
from schemas.line_item import LineItem
from tests.support.checkers import stripe_mock
from tests.support.deliver_process import run_process
from tests.support.made_lines import CARRIED, CORRECTION, CREDIT, EVERY_KIND, FLAT, YEN, line, many_lines, store_run
from tests.support.made_usage import UsageTables
from tests.support.receiver import Reply, Request, receiving

KEY = "sk_test_123456789"
NOW = datetime(2013, 2, 4, tzinfo=UTC)
QUICK = RetryPolicy(timeout_s=5.0, attempts_max=2, pause_s=0.01)
USAGE = [one for one in EVERY_KIND if one.meter is not None]


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    with stripe_mock() as url:
        yield url


def invoice_items(url: str, now: datetime = NOW) -> StripeInvoiceItems:
    return StripeInvoiceItems(StripeOptions(api_key=KEY, url=url), clock=FixedClock(now), policy=QUICK)


def meter_events(url: str, now: datetime = NOW) -> StripeMeterEvents:
    options = StripeOptions(api_key=KEY, url=url, name="stripe-meter-events")
    return StripeMeterEvents(options, event_names={"calls": "api_calls"}, clock=FixedClock(now), policy=QUICK)


def sending(item: LineItem, **changes: Any) -> Sending:
    arguments: dict[str, Any] = {"delivery": Delivery(key=item.id, items=(item,)), "attempt": 1, "first_at": NOW}
    return Sending(**(arguments | changes))


def answers(target: StripeInvoiceItems | StripeMeterEvents, *sendings: Sending) -> list[Answer]:
    return [answer for _, answer in target.send(sendings)]


class Double:
    """Keeps invoice items by idempotency key, as Stripe does, and lists them."""

    def __init__(self) -> None:
        self.created: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}

    def __call__(self, request: Request) -> Reply:
        if request.method == "GET":
            return Reply(
                200, json.dumps({"object": "list", "data": list(self.created.values()), "has_more": False}).encode()
            )
        key = request.headers["idempotency-key"]
        if key not in self.keys:
            fields = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
            found = f"ii_{len(self.created) + 1}"
            metadata = {"line_item": fields["metadata[line_item]"]}
            self.created[found] = {"id": found, "object": "invoiceitem", "metadata": metadata, "fields": fields}
            self.keys[key] = found
        return Reply(200, json.dumps(self.created[self.keys[key]]).encode())


def error(status: int, message: str) -> Callable[[Request], Reply]:
    body = json.dumps({"error": {"type": "invalid_request_error", "message": message}}).encode()
    return lambda _: Reply(status, body)


# Against stripe-mock, which holds every request against Stripe's published OpenAPI description.


@pytest.mark.parametrize("item", EVERY_KIND, ids=lambda one: f"{one.kind.value}-{one.charge}-{one.currency}")
def test_stripe_mock_takes_an_invoice_item_of_every_kind_of_line(mock_url: str, item: LineItem) -> None:
    (answer,) = answers(invoice_items(mock_url), sending(item))

    assert (answer.outcome, answer.status) == (Outcome.ACCEPTED, "200")
    assert answer.foreign_id.startswith("ii_")


@pytest.mark.parametrize("item", USAGE, ids=lambda one: f"{one.charge}-{one.quantity}")
def test_stripe_mock_takes_a_meter_event_of_every_line_of_usage(mock_url: str, item: LineItem) -> None:
    (answer,) = answers(meter_events(mock_url), sending(item))

    assert (answer.outcome, answer.foreign_id) == (Outcome.ACCEPTED, item.id)


def test_stripe_mock_refuses_what_stripe_does_not_know(mock_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above prove something: a parameter that is none fails the line with Stripe's words."""
    monkeypatch.setattr(
        "billing_export.delivery_stripe.invoice_item", lambda item: {**invoice_item(item), "rounding": "up"}
    )

    (answer,) = answers(invoice_items(mock_url), sending(FLAT))

    assert (answer.outcome, answer.status) == (Outcome.FAILED, "400")
    assert "additional properties are not allowed" in answer.text


# What goes out.


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("49.90", "USD", 4990),
        ("-6.25", "USD", -625),
        ("0.00", "EUR", 0),
        ("37", "JPY", 37),
        ("-37", "KRW", -37),
        ("5000", "VND", 5000),
        ("1.230", "KWD", 1230),
        ("-0.010", "BHD", -10),
        ("5", "UGX", 500),
        ("5", "ISK", 500),
        ("5", "HUF", 500),
        ("999999.99", "USD", 99_999_999),
    ],
)
def test_an_amount_becomes_the_minor_units_that_stripe_takes(amount: str, currency: str, minor: int) -> None:
    assert stripe_amount(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        ("1.005", "USD", "nothing is rounded"),
        ("37.5", "JPY", "nothing is rounded"),
        ("1.234", "KWD", "steps of 0.010"),
        ("0.0001", "CLF", "nothing is rounded"),
        ("1000000.00", "USD", "eight digits"),
    ],
)
def test_an_amount_that_stripe_cannot_hold_exactly_is_refused(amount: str, currency: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stripe_amount(amount, currency)


def test_an_invoice_item_says_what_it_is_for() -> None:
    assert invoice_item(FLAT) == {
        "customer": "cus_acme",
        "amount": 4990,
        "currency": "usd",
        "description": "Base fee",
        "period": {"start": 1_357_016_400, "end": 1_359_694_800},
        "metadata": {
            "line_item": FLAT.id,
            "run": "2013-01.1",
            "kind": "flat",
            "subscription": "acme-1",
            "charge": "fee",
            "quantity": "1",
            "tax_code": "txcd_10000000",
        },
        "tax_code": "txcd_10000000",
    }


def test_credits_and_corrections_are_negative_amounts() -> None:
    amounts = [invoice_item(item)["amount"] for item in (CREDIT, CORRECTION, CARRIED, YEN)]

    assert amounts == [-5000, -625, 5, 37]


def test_every_amount_of_a_bill_arrives() -> None:
    """The invoice items of acme add up to its bill of 15.16 USD."""
    sent = [invoice_item(item)["amount"] for item in EVERY_KIND if item.currency == "USD"]

    assert sum(int(str(one)) for one in sent) == 1516


def test_a_meter_event_is_in_the_last_second_of_what_it_counts() -> None:
    assert meter_event(line(), {"calls": "api_calls"}) == {
        "event_name": "api_calls",
        "identifier": line().id,
        "timestamp": 1_359_694_799,
        "payload": {"stripe_customer_id": "cus_acme", "value": "1500"},
    }


def test_meter_events_are_of_usage_alone() -> None:
    unused = line(charge="idle", quantity="0", amount="0.00", amount_unrounded="0")

    found = [one.items[0] for one in meter_events("http://127.0.0.1:9").deliveries([*EVERY_KIND, unused])]

    assert found == USAGE


@pytest.mark.parametrize("make", [invoice_items, meter_events])
def test_a_customer_whom_stripe_does_not_know_is_refused_before_anything_is_sent(
    make: Callable[[str], StripeInvoiceItems | StripeMeterEvents],
) -> None:
    (delivery,) = make("http://127.0.0.1:9").deliveries([line(external_ids={})])

    assert delivery.refusal == "customer acme has no external id 'stripe' in the catalog"


# What comes back.


def test_the_line_id_is_the_idempotency_key_and_another_attempt_has_another() -> None:
    with receiving(Double()) as stripe:
        target = invoice_items(stripe.url)
        answers(target, sending(FLAT), sending(FLAT, unresolved=True), sending(FLAT, attempt=2))

    assert stripe.keys() == [FLAT.id, FLAT.id, f"{FLAT.id}-2"]


@pytest.mark.parametrize("status", [400, 402, 404])
def test_a_4xx_fails_the_line_with_the_words_of_stripe(status: int) -> None:
    with receiving(error(status, "No such customer: 'cus_acme'")) as stripe:
        (answer,) = answers(invoice_items(stripe.url), sending(FLAT))

    assert (answer.outcome, answer.status, answer.stop) == (Outcome.FAILED, str(status), "")
    assert "No such customer: 'cus_acme'" in answer.text


def test_a_wrong_key_stops_everything_and_is_not_repeated_in_the_answer() -> None:
    with receiving(error(401, f"Invalid API Key provided: {KEY}")) as stripe:
        (answer,) = answers(invoice_items(stripe.url), sending(FLAT))

    assert "Stripe refuses the API key" in answer.stop
    assert KEY not in answer.text + answer.stop


@pytest.mark.parametrize("status", [409, 429, 500, 503, 0])
def test_a_stripe_that_cannot_now_is_tried_again_and_then_given_up(status: int) -> None:
    with (
        receiving(error(status, "later")) as stripe,
        pytest.raises(UnavailableError, match="2 times in a row"),
    ):
        answers(invoice_items(stripe.url), sending(FLAT))

    assert stripe.keys() == [FLAT.id, FLAT.id]


def test_what_was_sent_too_long_ago_is_looked_up_and_not_created_again() -> None:
    """Stripe forgets keys after a day. The first line did arrive then, the second did not."""
    double = Double()
    with receiving(double) as stripe:
        answers(invoice_items(stripe.url), sending(FLAT))
        double.keys.clear()
        later = invoice_items(stripe.url, NOW + timedelta(days=3))
        found, created = answers(later, sending(FLAT, unresolved=True), sending(CREDIT, unresolved=True))

    assert (found.status, found.foreign_id) == ("found", "ii_1")
    assert (created.status, created.foreign_id) == ("200", "ii_2")


def test_a_meter_event_that_may_have_arrived_days_ago_is_left_to_a_person() -> None:
    with receiving(Double()) as stripe:
        target = meter_events(stripe.url, NOW + timedelta(days=3))
        (answer,) = answers(target, sending(line(), unresolved=True))

    assert (answer.outcome, answer.status, stripe.requests) == (Outcome.FAILED, "unknown", [])


def test_a_key_that_is_not_set_is_named() -> None:
    with pytest.raises(RequestError, match="METERING_STRIPE_API_KEY: is not set"):
        StripeInvoiceItems(StripeOptions(api_key=""), clock=FixedClock(NOW), policy=QUICK)


@pytest.mark.parametrize(("step", "occurrence"), [("sent_written", 1), ("answered", 4), ("answers_written", 1)])
def test_an_exporter_that_is_killed_leaves_one_invoice_item_for_each_line(
    module_world: UsageTables, step: str, occurrence: int
) -> None:
    client: Client = module_world.client
    for table in ("runs", "line_items", "deliveries", "delivery_claims"):
        client.command(f"TRUNCATE TABLE {table}")
    items = tuple(many_lines(8))
    run = store_run(client, items)
    double = Double()

    with receiving(double) as stripe:
        settings = msgspec.structs.replace(module_world.settings, stripe_api_key=KEY, stripe_url=stripe.url)
        killed = run_process(settings, run.id, "stripe", group_max=5, die_at=step, die_after=occurrence)
        resumed = run_process(settings, run.id, "stripe", group_max=5)

    assert (killed.returncode, resumed.returncode) == (-9, 0), resumed.stderr
    lines = [one["metadata"]["line_item"] for one in double.created.values()]
    assert lines == [item.id for item in items]
    rows = client.query("SELECT key, foreign_id FROM deliveries WHERE state = 'accepted'").result_rows
    assert sorted(tuple(row) for row in rows) == sorted(
        (one["metadata"]["line_item"], one["id"]) for one in double.created.values()
    )
