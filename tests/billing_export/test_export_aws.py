"""AWS Marketplace: boto3 against moto's server, and against one that leaves records unprocessed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from moto.server import ThreadedMotoServer

from billing_export.delivery import Answer, Delivery, Outcome, Sending
from billing_export.delivery_aws import AwsMarketplace, AwsOptions
from billing_export.delivery_retry import RetryPolicy
from metering.clock import FixedClock
from schemas.errors import RequestError, UnavailableError
from schemas.line_item import LineItem
from tests.support.deliver_process import run_process
from tests.support.made_lines import EVERY_KIND, line, many_lines, store_run
from tests.support.made_usage import UsageTables
from tests.support.receiver import Reply, Request, receiving

PRODUCT = "product-1"
NOW = datetime(2013, 2, 4, 10, 20, 30, tzinfo=UTC)
HOUR = datetime(2013, 2, 4, 10, tzinfo=UTC)
QUICK = RetryPolicy(timeout_s=5.0, attempts_max=3, pause_s=0.01)
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def subscribe(customers: list[str]) -> None:
    """Moto takes records only of customers of the product; it has no call that makes one."""
    from moto.meteringmarketplace.models import meteringmarketplace_backends

    known = meteringmarketplace_backends["123456789012"]["us-east-1"].customers_by_product[PRODUCT]
    known.extend(customers)


@pytest.fixture
def empty_moto(moto: str) -> str:
    httpx.post(f"{moto}/moto-api/reset", timeout=10)
    return moto


class Marketplace:
    """Keeps records as AWS does, which moto does not: one for each customer, dimension and hour."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, float], int] = {}

    def __call__(self, request: Request) -> Reply:
        found = []
        for one in asked(request):
            identity = (one["CustomerIdentifier"], one["Dimension"], one["Timestamp"])
            same = self.kept.setdefault(identity, one["Quantity"]) == one["Quantity"]
            status = "Success" if same else "DuplicateRecord"
            found.append({"UsageRecord": one, "MeteringRecordId": f"id-{one['Quantity']}", "Status": status})
        return Reply(200, json.dumps({"Results": found, "UnprocessedRecords": []}).encode())


def marketplace(url: str, now: datetime = NOW, **changes: Any) -> AwsMarketplace:
    options: dict[str, Any] = {
        "product_code": PRODUCT,
        "region": "us-east-1",
        "dimensions": {"calls": "api_calls"},
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": "a secret of AWS",
        "url": url,
    }
    return AwsMarketplace(AwsOptions(**(options | changes)), clock=FixedClock(now), policy=QUICK)


def sendings(deliveries: list[Delivery], **changes: Any) -> list[Sending]:
    fields: dict[str, Any] = {"attempt": 1, "first_at": NOW}
    return [Sending(delivery=one, **(fields | changes)) for one in deliveries]


def send(target: AwsMarketplace, items: list[LineItem], **changes: Any) -> list[Answer]:
    deliveries = list(target.deliveries(items))
    assert [one.refusal for one in deliveries] == [""] * len(deliveries)
    return [answer for _, answer in target.send(sendings(deliveries, **changes))]


def customers(count: int) -> list[LineItem]:
    return [
        line(customer=f"c{number:03}", external_ids={"aws": f"aws-{number:03}"}, quantity=str(number + 1))
        for number in range(count)
    ]


def test_moto_takes_a_record(empty_moto: str) -> None:
    subscribe(["aws-acme"])

    (answer,) = send(marketplace(empty_moto), [line()])

    assert (answer.outcome, answer.status) == (Outcome.ACCEPTED, "Success")
    assert len(answer.foreign_id) > 10


def test_moto_takes_a_call_of_25_and_no_call_has_more(empty_moto: str) -> None:
    subscribe([f"aws-{number:03}" for number in range(25)])
    target = marketplace(empty_moto)

    answers = send(target, customers(25))

    assert target.group_max == 25
    assert [answer.status for answer in answers] == ["Success"] * 25


def test_a_record_is_of_the_hour_and_in_whole_units() -> None:
    with receiving(Marketplace()) as aws:
        send(marketplace(aws.url), [line()])

    (record,) = asked(aws.requests[0])
    assert record == {
        "Timestamp": HOUR.timestamp(),
        "CustomerIdentifier": "aws-acme",
        "Dimension": "api_calls",
        "Quantity": 1500,
    }


def test_a_customer_who_does_not_subscribe_fails_alone(empty_moto: str) -> None:
    subscribe(["aws-000", "aws-002"])

    answers = send(marketplace(empty_moto), customers(3))

    assert [answer.status for answer in answers] == ["Success", "CustomerNotSubscribed", "Success"]
    assert answers[1].outcome is Outcome.FAILED
    assert "does not subscribe to the product" in answers[1].text


def test_the_same_record_again_is_taken_and_another_quantity_in_that_hour_is_not() -> None:
    with receiving(Marketplace()) as aws:
        target = marketplace(aws.url)
        first = send(target, [line()])
        again = send(target, [line()], unresolved=True)
        other = send(target, [line(quantity="7")])

    assert [one[0].status for one in (first, again, other)] == ["Success", "Success", "DuplicateRecord"]
    assert other[0].outcome is Outcome.FAILED


def test_moto_calls_another_quantity_for_the_same_hour_a_duplicate(empty_moto: str) -> None:
    from moto.meteringmarketplace.models import Result, meteringmarketplace_backends

    subscribe(["aws-acme"])
    backend = meteringmarketplace_backends["123456789012"]["us-east-1"]
    before = {"Timestamp": HOUR.timestamp(), "CustomerIdentifier": "aws-acme", "Dimension": "api_calls", "Quantity": 7}
    backend.records_by_product[PRODUCT].append(Result(**before))

    (answer,) = send(marketplace(empty_moto), [line()])

    assert (answer.outcome, answer.status) == (Outcome.FAILED, "DuplicateRecord")


def test_a_record_that_was_sent_before_keeps_its_hour() -> None:
    with receiving(Marketplace()) as aws:
        send(marketplace(aws.url, NOW + timedelta(hours=2)), [line()], unresolved=True)

    assert asked(aws.requests[0])[0]["Timestamp"] == HOUR.timestamp()


def test_lines_of_one_customer_and_dimension_go_as_one_record() -> None:
    items = [
        line(quantity="1.5"),
        line(quantity="2.5", dimensions={"region": "eu"}),
        line(meter="traffic", quantity="3"),
        line(customer="bolt", external_ids={"aws": "aws-bolt"}, quantity="4"),
    ]
    target = marketplace(NOBODY, dimensions={"calls": "api_calls", "traffic": "GB"})

    found = list(target.deliveries(items))

    previews = [target.preview(one) for one in found]
    assert [(one["CustomerIdentifier"], one["Dimension"], one["Quantity"]) for one in previews] == [
        ("aws-acme", "api_calls", 4),
        ("aws-acme", "GB", 3),
        ("aws-bolt", "api_calls", 4),
    ]
    assert [len(one.items) for one in found] == [2, 1, 1]
    assert [one.key for one in found] == [one.key for one in target.deliveries(items)]


def test_only_usage_of_mapped_meters_goes() -> None:
    found = list(marketplace(NOBODY, dimensions={"other": "x"}).deliveries(EVERY_KIND))

    assert found == []


@pytest.mark.parametrize(
    ("rounding", "quantity", "sent"),
    [("half-up", "2.5", 3), ("half-up", "2.4", 2), ("down", "2.9", 2), ("up", "2.1", 3), ("refuse", "2", 2)],
)
def test_a_fraction_is_rounded_as_was_said(rounding: str, quantity: str, sent: int) -> None:
    target = marketplace(NOBODY, rounding=rounding)
    (delivery,) = target.deliveries([line(quantity=quantity)])

    assert (delivery.refusal, target.preview(delivery)["Quantity"]) == ("", sent)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (line(quantity="2.5"), "a quantity of 2.5 is no whole number; --aws-rounding says how to make it one"),
        (line(quantity="-3"), "a quantity of -3 takes usage back"),
        (line(quantity="2147483648"), "is more than the 2147483647 that AWS takes"),
        (line(external_ids={}), "customer acme has no external id 'aws' in the catalog"),
    ],
)
def test_what_aws_cannot_take_is_refused_before_anything_is_sent(item: LineItem, reason: str) -> None:
    (delivery,) = marketplace(NOBODY).deliveries([item])

    assert reason in delivery.refusal


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"product_code": ""}, "METERING_AWS_PRODUCT_CODE"),
        ({"dimensions": {}}, "Give --map METER=NAME"),
        ({"rounding": "sideways"}, "--aws-rounding"),
    ],
)
def test_options_that_nothing_can_be_sent_with_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        marketplace(NOBODY, **changes)


def asked(request: Request) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(request.body)["UsageRecords"]
    return found


def results(taken: list[dict[str, Any]], left: list[dict[str, Any]]) -> Reply:
    done = [{"UsageRecord": one, "MeteringRecordId": f"id-{one['Quantity']}", "Status": "Success"} for one in taken]
    return Reply(200, json.dumps({"Results": done, "UnprocessedRecords": left}).encode())


def refused(code: str) -> Reply:
    return Reply(400, json.dumps({"__type": code, "message": f"{code} was said"}).encode())


def test_unprocessed_records_and_they_alone_are_sent_again() -> None:
    def two_at_a_time(request: Request) -> Reply:
        return results(asked(request)[:2], asked(request)[2:])

    with receiving(two_at_a_time) as aws:
        answers = send(marketplace(aws.url), customers(5))

    assert [[one["Quantity"] for one in asked(request)] for request in aws.requests] == [
        [1, 2, 3, 4, 5],
        [3, 4, 5],
        [5],
    ]
    assert [answer.foreign_id for answer in answers] == ["id-1", "id-2", "id-3", "id-4", "id-5"]


def test_records_that_stay_unprocessed_stop_the_delivery_after_the_answers_that_came() -> None:
    with receiving(lambda request: results(asked(request)[:1], asked(request)[1:])) as aws:
        target = marketplace(aws.url)
        source = target.send(sendings(list(target.deliveries(customers(5)))))
        came = [next(source)[1].foreign_id for _ in range(3)]
        with pytest.raises(UnavailableError, match="left 2 records unprocessed, 3 times in a row"):
            next(source)

    assert came == ["id-1", "id-2", "id-3"]


def test_a_record_that_makes_aws_refuse_the_whole_call_fails_alone() -> None:
    """AWS does not say which record it was, so each is tried by itself."""

    def answer(request: Request) -> Reply:
        if any(one["CustomerIdentifier"] == "aws-001" for one in asked(request)):
            return refused("InvalidCustomerIdentifierException")
        return results(asked(request), [])

    with receiving(answer) as aws:
        answers = send(marketplace(aws.url), customers(3))

    assert [one.status for one in answers] == ["Success", "InvalidCustomerIdentifierException", "Success"]


def test_a_wrong_product_code_stops_the_delivery() -> None:
    with receiving(lambda _: refused("InvalidProductCodeException")) as aws:
        (answer,) = send(marketplace(aws.url), customers(3))

    assert "AWS refuses the call" in answer.stop
    assert len(aws.requests) == 1


@pytest.mark.parametrize("reply", [refused("ThrottlingException"), Reply(500), Reply(0)])
def test_an_aws_that_cannot_now_is_tried_again_and_then_given_up(reply: Reply) -> None:
    with receiving(lambda _: reply) as aws, pytest.raises(UnavailableError, match="3 times in a row"):
        send(marketplace(aws.url), customers(2))

    assert len(aws.requests) == 3


@pytest.mark.parametrize("step", ["sent_written", "answered", "answers_written"])
def test_an_exporter_that_is_killed_leaves_no_usage_out_and_none_twice(module_world: UsageTables, step: str) -> None:
    for table in ("runs", "line_items", "deliveries", "delivery_claims"):
        module_world.client.command(f"TRUNCATE TABLE {table}")
    items = [one for one in many_lines(150) if one.charge == "charge-1"]
    run = store_run(module_world.client, items)
    kept = Marketplace()
    options = {"mapping": {"calls": "api_calls"}}

    with receiving(kept) as aws:
        settings = msgspec.structs.replace(
            module_world.settings,
            aws_url=aws.url,
            aws_product_code=PRODUCT,
            aws_access_key_id="AKIAEXAMPLE",
            aws_secret_access_key="a secret of AWS",
        )
        killed = run_process(settings, run.id, "aws-marketplace", options=options, die_at=step)
        resumed = run_process(settings, run.id, "aws-marketplace", options=options)

    assert (killed.returncode, resumed.returncode) == (-9, 0), resumed.stderr
    assert {customer: quantity for (customer, _, __), quantity in kept.kept.items()} == {
        item.external_ids["aws"]: int(item.quantity) for item in items if item.quantity != "0"
    }
    assert len(kept.kept) == sum(item.quantity != "0" for item in items)
