"""Deliveries: the ledger, claims, crashes at every step, and a webhook's receiver that misbehaves."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.deliver import STEPS, Delivered, deliver
from billing_export.delivery import shortened
from billing_export.delivery_claims import Claim, Exporter, this_process
from billing_export.delivery_retry import RetryPolicy
from billing_export.delivery_webhook import Webhook, WebhookOptions, signature
from billing_export.run import Run, RunState
from metering.clock import FixedClock, SystemClock
from metering.config import Settings
from schemas.errors import RequestError, RunError, UnavailableError
from schemas.line_item import LineItem, encode_line_item
from tests.support.deliver_process import run_process
from tests.support.made_lines import EVERY_KIND, made_run, many_lines, store_run
from tests.support.made_usage import UsageTables
from tests.support.receiver import Receiver, Reply, Request, receiving, scripted

SECRET = "a secret of the receiver"
NOW = datetime(2013, 2, 4, tzinfo=UTC)
QUICK = RetryPolicy(timeout_s=5.0, attempts_max=3, pause_s=0.01)
DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"


@pytest.fixture
def client(module_world: UsageTables) -> Client:
    for table in ("runs", "line_items", "deliveries", "delivery_claims"):
        module_world.client.command(f"TRUNCATE TABLE {table}")
    return module_world.client


@pytest.fixture
def settings(module_world: UsageTables, client: Client) -> Settings:
    del client
    return msgspec.structs.replace(module_world.settings, webhook_secret=SECRET, delivery_pause_s=0.01)


def webhook(url: str, lines_max: int = 1, policy: RetryPolicy = QUICK) -> Webhook:
    options = WebhookOptions(url=url, secret=SECRET, lines_max=lines_max)
    return Webhook(options, clock=FixedClock(NOW), policy=policy)


def send(client: Client, run: Run, items: tuple[LineItem, ...], url: str, **changes: Any) -> Delivered:
    target = webhook(url, changes.pop("lines_max", 1), changes.pop("policy", QUICK))
    arguments: dict[str, Any] = {
        "clock": SystemClock(),
        "exporter": this_process("ada"),
        "lease_s": 60.0,
    }
    try:
        return deliver(client, run, items, target, **(arguments | changes))
    finally:
        target.close()


def ledger(client: Client) -> list[tuple[str, int, str, str]]:
    """(key, attempt, state, status) of every row, as they were written."""
    query = "SELECT key, attempt, state, status FROM deliveries ORDER BY at, state = 'sent' DESC, key"
    return [tuple(row) for row in client.query(query).result_rows]


def lines_of(receiver: Receiver) -> list[str]:
    """The ids of lines that came in, in their order."""
    return [line["id"] for request in receiver.requests for line in json.loads(request.body)["lines"]]


def test_every_line_is_posted_once_as_its_canonical_document(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted()) as receiver:
        done = send(client, run, EVERY_KIND, receiver.url)
        again = send(client, run, EVERY_KIND, receiver.url)

    assert (done.accepted, done.failed, again.accepted, again.accepted_before) == (8, 0, 0, 8)
    assert [request.body for request in receiver.requests] == [
        b'{"key":"%s","run":"2013-01.1","lines":[%s]}' % (item.id.encode(), encode_line_item(item))
        for item in EVERY_KIND
    ]
    assert receiver.keys() == [item.id for item in EVERY_KIND]


def test_a_complete_delivery_marks_the_run_exported(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted()) as receiver:
        send(client, run, EVERY_KIND, receiver.url)

    assert runs.by_id(client, run.id).state is RunState.EXPORTED


def test_lines_go_many_at_a_time_with_a_key_for_the_request(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted()) as receiver:
        done = send(client, run, EVERY_KIND, receiver.url, lines_max=3)
        keys = receiver.keys()
        send(client, run, EVERY_KIND, receiver.url, lines_max=3)

    assert (done.accepted, len(keys), len(set(keys)), len(receiver.requests)) == (3, 3, 3, 3)
    assert lines_of(receiver) == [item.id for item in EVERY_KIND]


def test_a_signature_is_what_the_documented_snippet_accepts(client: Client) -> None:
    """The snippet is read from the page, so it cannot go stale."""
    run = store_run(client, EVERY_KIND)
    snippet = re.search(r"```python\n(import hashlib.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert snippet is not None
    names: dict[str, Any] = {}
    exec(snippet[1], names)  # noqa: S102 - our own page
    verify: Callable[..., bool] = names["is_genuine"]

    with receiving(scripted()) as receiver:
        send(client, run, EVERY_KIND[:1], receiver.url)

    (request,) = receiver.requests
    header = request.headers["metering-signature"]
    sent_at = NOW.timestamp()
    assert verify(SECRET, header, request.body, now=sent_at)
    assert not verify(SECRET, header, request.body + b" ", now=sent_at)
    assert not verify("another secret", header, request.body, now=sent_at)
    assert not verify(SECRET, header, request.body, now=sent_at + 301)
    assert not verify(SECRET, "t=1,v1=", request.body, now=sent_at)


def test_a_signature_is_hmac_sha256_over_timestamp_dot_body() -> None:
    digest = hmac.new(b"key", b'1359936000.{"a":1}', hashlib.sha256).hexdigest()

    assert signature("key", 1_359_936_000, b'{"a":1}') == f"t=1359936000,v1={digest}"


def test_a_4xx_fails_that_line_and_the_rest_go_on(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted(200, 422)) as receiver:
        done = send(client, run, EVERY_KIND, receiver.url)

    assert (done.accepted, done.failed, done.is_complete) == (7, 1, False)
    assert [(one.key, one.status) for one in done.failures] == [(EVERY_KIND[1].id, "422")]
    assert runs.by_id(client, run.id).state is RunState.CLOSED


def test_what_failed_is_sent_again_only_when_asked(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted(422)) as receiver:
        send(client, run, EVERY_KIND, receiver.url)
        unasked = send(client, run, EVERY_KIND, receiver.url)
        asked = send(client, run, EVERY_KIND, receiver.url, retry_failed=True)

    assert (unasked.accepted, unasked.failed_before, unasked.is_complete) == (0, 1, False)
    assert (asked.accepted, asked.accepted_before, asked.is_complete) == (1, 7, True)
    first = EVERY_KIND[0].id
    assert [row for row in ledger(client) if row[0] == first] == [
        (first, 1, "sent", ""),
        (first, 1, "failed", "422"),
        (first, 2, "sent", ""),
        (first, 2, "accepted", "200"),
    ]


def test_a_receiver_that_fails_and_hangs_up_is_tried_again_with_the_same_key(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted(503, 0, 200, 429)) as receiver:
        done = send(client, run, EVERY_KIND[:2], receiver.url)

    first, second = EVERY_KIND[0].id, EVERY_KIND[1].id
    assert receiver.keys() == [first, first, first, second, second]
    assert done.accepted == 2


def test_a_receiver_that_does_not_answer_in_time_is_tried_again(client: Client) -> None:
    run = store_run(client, EVERY_KIND)
    held, replies = threading.Event(), [True]
    impatient = RetryPolicy(timeout_s=0.2, attempts_max=3, pause_s=0.01)

    def answer(_: Request) -> Reply:
        return Reply(200, wait=held) if replies and replies.pop() else Reply(200)

    with receiving(answer) as receiver:
        done = send(client, run, EVERY_KIND[:1], receiver.url, policy=impatient)
        held.set()

    assert (done.accepted, receiver.keys()) == (1, [EVERY_KIND[0].id] * 2)


def test_a_receiver_that_stays_away_stops_the_delivery_and_loses_nothing(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted(200, 500, 500, 500)) as receiver:
        with pytest.raises(UnavailableError, match="answered 500, 3 times in a row"):
            send(client, run, EVERY_KIND, receiver.url)
        done = send(client, run, EVERY_KIND, receiver.url)

    assert (done.accepted, done.accepted_before) == (7, 1)
    assert Counter(lines_of(receiver))[EVERY_KIND[1].id] == 4
    assert Counter(lines_of(receiver))[EVERY_KIND[7].id] == 1


def test_a_receiver_that_refuses_the_signature_stops_the_delivery_at_once(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(scripted(401)) as receiver:
        with pytest.raises(RunError, match="does not take our signature"):
            send(client, run, EVERY_KIND, receiver.url)
        asked = send(client, run, EVERY_KIND, receiver.url, retry_failed=True)

    assert (len(receiver.requests), asked.accepted) == (9, 8)


def test_no_secret_stands_in_the_ledger(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(lambda _: Reply(422, f"bad secret {SECRET}".encode())) as receiver:
        send(client, run, EVERY_KIND[:1], receiver.url)

    assert client.query("SELECT answer FROM deliveries WHERE state = 'failed'").result_rows == [("bad secret …",)]


def test_an_answer_is_kept_short() -> None:
    assert shortened("x" * 3000) == "x" * 1999 + "…"


@pytest.mark.parametrize(
    ("url", "secret", "named"),
    [
        ("", SECRET, "METERING_WEBHOOK_URL"),
        ("ftp://x", SECRET, "METERING_WEBHOOK_URL"),
        ("http://x", "short", "METERING_WEBHOOK_SECRET"),
    ],
)
def test_settings_that_nothing_can_be_sent_with_are_named(url: str, secret: str, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        Webhook(WebhookOptions(url=url, secret=secret), clock=FixedClock(NOW), policy=QUICK)


def test_a_run_that_is_not_frozen_is_not_delivered(client: Client) -> None:
    with receiving(scripted()) as receiver:
        with pytest.raises(RunError, match="is not frozen"):
            send(client, made_run(state=RunState.CLOSING), EVERY_KIND, receiver.url)
        assert receiver.requests == []


def test_the_ledger_keeps_the_id_that_the_receiver_gave(client: Client) -> None:
    run = store_run(client, EVERY_KIND)

    with receiving(lambda _: Reply(201, b'{"id":"inv_7"}')) as receiver:
        send(client, run, EVERY_KIND[:1], receiver.url)

    rows = client.query("SELECT foreign_id, lines FROM deliveries WHERE state = 'accepted'").result_rows
    assert [(foreign_id, [str(one) for one in lines]) for foreign_id, lines in rows] == [("inv_7", [EVERY_KIND[0].id])]


# Crashes: a process that kills itself at each step, and one that comes after it.


@pytest.mark.parametrize(
    ("step", "occurrence"),
    [("claimed", 1), *((step, occurrence) for step in STEPS[1:] for occurrence in (1, 2))],
)
def test_a_process_killed_at_any_step_is_taken_up_and_every_line_counts_once(
    client: Client, settings: Settings, step: str, occurrence: int
) -> None:
    """F19. A delivery killed at any step, answers included, is taken up; the receiver has every line once."""
    items = tuple(many_lines(7))
    run = store_run(client, items)
    accepted: dict[str, int] = {}

    def once_each(request: Request) -> Reply:
        """A receiver that keeps what it has by the idempotency key, as the page asks it to."""
        key = request.headers["idempotency-key"]
        accepted[key] = accepted.get(key, 0) + 1
        return Reply(200)

    with receiving(once_each) as receiver:
        to = msgspec.structs.replace(settings, webhook_url=receiver.url)
        killed = run_process(to, run.id, "webhook", group_max=3, die_at=step, die_after=occurrence)
        resumed = run_process(to, run.id, "webhook", group_max=3)

    assert killed.returncode == -9, killed.stderr
    assert resumed.returncode == 0, resumed.stderr
    done = msgspec.json.decode(resumed.stdout, type=Delivered)
    assert done.accepted + done.accepted_before == 7
    assert set(accepted) == {item.id for item in items}
    # What had no answer in the ledger goes again, and no more than the group that was on its way.
    assert sum(accepted.values()) <= 7 + 3
    states = client.query(
        "SELECT uniqExact(key), countIf(state = 'accepted'), uniqExactIf(key, state = 'accepted') FROM deliveries"
    ).result_rows
    assert states == [(7, 7, 7)]


def exporter(token: str, process: int = 1, machine: str = "elsewhere") -> Exporter:
    return Exporter(user="ada", machine=machine, process=process, token=token)


def claim(client: Client, one: Exporter, clock: FixedClock) -> Claim:
    return Claim(client, target="webhook", run="2013-01.1", exporter=one, clock=clock, lease_s=60.0)


def test_a_second_exporter_is_told_who_is_at_it(client: Client) -> None:
    clock = FixedClock(NOW)

    with (
        claim(client, exporter("first"), clock),
        pytest.raises(RunError, match=r"ada@elsewhere process 1 \(first\) is delivering it"),
    ):
        claim(client, exporter("second"), clock).__enter__()


def test_a_claim_that_was_released_can_be_taken(client: Client) -> None:
    clock = FixedClock(NOW)
    with claim(client, exporter("first"), clock):
        pass

    with claim(client, exporter("second"), clock) as held:
        held.renew()


def test_a_claim_that_ran_out_can_be_taken_and_its_holder_notices(client: Client) -> None:
    clock = FixedClock(NOW)
    first = claim(client, exporter("first"), clock).__enter__()
    clock.move_to(NOW + timedelta(seconds=61))

    with claim(client, exporter("second"), clock), pytest.raises(RunError, match=r"\(second\) is delivering it"):
        first.renew()


def test_a_claim_that_is_renewed_holds_on(client: Client) -> None:
    clock = FixedClock(NOW)
    first = claim(client, exporter("first"), clock).__enter__()
    clock.move_to(NOW + timedelta(seconds=50))
    first.renew()
    clock.move_to(NOW + timedelta(seconds=100))

    with pytest.raises(RunError, match=r"\(first\) is delivering it"):
        claim(client, exporter("second"), clock).__enter__()


def test_a_dead_process_of_this_machine_does_not_stand_in_the_way(client: Client) -> None:
    clock = FixedClock(NOW)
    here = this_process("ada")
    dead = exporter("first", process=2**22 - 1, machine=here.machine)
    claim(client, dead, clock).__enter__()

    with claim(client, here, clock) as held:
        held.renew()


def test_of_two_exporters_that_start_at_once_one_delivers_and_nothing_goes_twice(
    client: Client, module_world: UsageTables
) -> None:
    from metering.clickhouse import connect

    items = tuple(many_lines(20))
    run = store_run(client, items)
    begun = threading.Barrier(2)
    outcomes: list[Delivered | RunError] = []

    def work(receiver: Receiver) -> None:
        mine = connect(module_world.settings)
        begun.wait(30)
        try:
            outcomes.append(send(mine, run, items, receiver.url))
        except RunError as error:
            outcomes.append(error)
        mine.close()

    with receiving(scripted()) as receiver:
        threads = [threading.Thread(target=work, args=(receiver,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(outcomes) == 2
    assert Counter(receiver.keys()) == Counter(item.id for item in items)
