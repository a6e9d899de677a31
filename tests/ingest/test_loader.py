"""A load places every event once, through a gateway that fails, and says what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from litestar import Request, Response, post

from ingest.files.events import FileEvent, RowProblem
from ingest.files.reading import FileReader
from ingest.load_record import Load
from ingest.loader import StrictLoadError, load
from ingest.settlement import settle, wait_until_folded
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from schemas.errors import GatewayUnavailableError, RequestError, UnavailableError


def rows_of(*members: dict[str, Any]) -> Iterator[FileEvent | RowProblem]:
    for line, one in enumerate(members, start=1):
        yield FileEvent(json.dumps(one).encode(), "made.jsonl", line)


def test_every_event_of_a_file_gets_a_position_of_its_own(gateway: Any, event: Any, log: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event(id=f"e{n}", subject=f"s{n % 7}")) + "\n" for n in range(500)))

    loaded = load(FileReader(None).read(path), gateway_url=gateway.url, batch_events=30)

    assert (loaded.read, loaded.acknowledged, loaded.refused) == (500, 500, 0)
    written = {(partition, offset): json.loads(value)["id"] for partition, offset, _, value in log.records()}
    placed = {
        (partition, offset): f"e{loaded.place_of(row)[1] - 1}"
        for partition in loaded.offsets
        for offset, row in zip(loaded.offsets[partition], loaded.rows[partition], strict=True)
    }
    assert placed == written
    assert loaded.epoch == gateway.get("/readyz").json()["epoch"]


def test_bad_rows_are_named_by_file_and_line_and_the_rest_loads(gateway: Any, event: Any) -> None:
    rows = [
        *rows_of(event(), event(id=""), event()),
        RowProblem("made.csv", 9, "unreadable_row", "", "has 3 cells"),
        FileEvent(json.dumps(event(type="fligth")).encode(), "made.csv", 10),
    ]

    loaded = load(rows, gateway_url=gateway.url, batch_events=2)

    assert (loaded.read, loaded.acknowledged, loaded.refused) == (4, 2, 3)
    assert sorted((one.file, one.line, one.reason) for one in loaded.problems) == [
        ("made.csv", 9, "unreadable_row"),
        ("made.csv", 10, "unknown_type"),
        ("made.jsonl", 2, "invalid_text"),
    ]
    assert loaded.reasons == {"invalid_text": 1, "unreadable_row": 1, "unknown_type": 1}


def test_a_strict_load_stops_at_the_first_bad_row_and_sends_nothing_of_its_batch(
    gateway: Any, event: Any, log: Any
) -> None:
    with pytest.raises(StrictLoadError, match=r"made\.jsonl:2"):
        load(rows_of(event(), event(id="")), gateway_url=gateway.url, strict=True)

    assert log.records() == []


def test_a_batch_over_the_gateways_limits_is_sent_in_parts(gateway: Any, event: Any) -> None:
    rows = rows_of(*[event() for _ in range(150)], event(data={"x": "y" * 70_000}))

    loaded = load(rows, gateway_url=gateway.url, batch_events=1_000)

    assert (loaded.acknowledged, loaded.refused) == (150, 1)
    assert [(one.line, one.reason) for one in loaded.problems] == [(151, "too_large")]


def test_a_gateway_that_fails_is_asked_again(served_app: Any, event: Any) -> None:
    statuses = iter([503, 429, 502])
    bodies: list[bytes] = []

    @post("/v1/events")
    async def events(request: Request[Any, Any, Any]) -> Response[Any]:
        bodies.append(await request.body())
        status = next(statuses, 200)
        if status != 200:
            return Response({"detail": "away"}, status_code=status, headers={"Retry-After": "0"})
        return Response({"accepted": 1, "epoch": "a/b", "positions": [[0, 5]]}, status_code=200)

    with served_app(events) as url:
        loaded = load(rows_of(event()), gateway_url=url)

    assert (loaded.acknowledged, loaded.retries) == (1, 3)
    assert len(set(bodies)) == 1


def test_a_gateway_that_never_comes_is_an_error_that_says_what_to_do(event: Any) -> None:
    with pytest.raises(GatewayUnavailableError, match="metering up"):
        load(rows_of(event()), gateway_url="http://127.0.0.1:9", retry_timeout_s=0.2)


def test_something_that_is_no_gateway_is_an_error(served_app: Any, event: Any) -> None:
    @post("/v1/events", sync_to_thread=False)
    def events() -> Response[Any]:
        return Response({"welcome": "home"}, status_code=200)

    with served_app(events) as url, pytest.raises(RequestError, match="no positions"):
        load(rows_of(event()), gateway_url=url)


def test_a_log_that_was_replaced_during_a_load_is_noticed(served_app: Any, event: Any) -> None:
    epochs = iter(["a/1", "a/2"])

    @post("/v1/events", sync_to_thread=False)
    def events() -> Response[Any]:
        return Response({"accepted": 1, "epoch": next(epochs), "positions": [[0, 0]]}, status_code=200)

    with served_app(events) as url, pytest.raises(RequestError, match="replaced"):
        load(rows_of(event(), event()), gateway_url=url, batch_events=1, in_flight=1)


AT = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(service_settings: Settings) -> Client:
    client = connect(service_settings)
    migrate(client)
    return client


def write_ledger(client: Client, partition: int, first: int, last: int, *, epoch: str = "a/b") -> None:
    client.insert(
        "positions",
        [[epoch, "usage.events.v1", partition, first, last, AT, AT]],
        column_names=["epoch", "topic", "partition", "first", "last", "logged_at_last", "flushed_at"],
    )


def made_load(*placed: tuple[int, int]) -> Load:
    """A load whose n-th event, of line n + 1, stands at the n-th (partition, offset)."""
    made = Load(epoch="a/b")
    for line, (partition, offset) in enumerate(placed, start=1):
        made.add_position(made.add_event(FileEvent(b"{}", "f.csv", line)), partition, offset)
    return made


def test_an_event_is_accepted_rejected_or_else_a_duplicate(client: Client) -> None:
    made = made_load((0, 10), (0, 11), (1, 5), (1, 7))
    stored = [["a/b", 0, 10], ["a/b", 0, 10], ["a/b", 0, 12], ["a/b", 1, 6], ["other", 0, 11]]
    client.insert(
        "events",
        [["s", "src", str(at), "t", AT, epoch, partition, at, AT, 0, "{}"] for epoch, partition, at in stored],
        column_names=[
            "subject", "source", "id", "type", "time", "epoch", "partition", "offset", "logged_at", "digest", "raw"
        ],
    )  # fmt: skip
    dead = [(1, 5, "invalid_number"), (1, 6, "not_json")]
    client.insert(
        "dead_letters",
        [
            ["a/b", "usage.events.v1", partition, offset, reason, "data.x", "bad", AT]
            for partition, offset, reason in dead
        ],
        column_names=["epoch", "topic", "partition", "offset", "reason", "field", "detail", "logged_at"],
    )

    settled = settle(client, made)

    assert (settled.accepted, settled.duplicate, settled.rejected) == (1, 2, 1)
    assert settled.rejections == [RowProblem("f.csv", 3, "invalid_number", "data.x", "bad")]
    assert settled.reasons == {"invalid_number": 1}


def test_waiting_ends_once_the_ledger_has_every_offset(client: Client) -> None:
    made = made_load((0, 10), (0, 12), (1, 5))
    steps = iter([(0, 0, 11), (1, 0, 5), (0, 12, 20)])
    told: list[tuple[int, int]] = []

    wait_until_folded(
        client,
        made,
        clock=FixedClock(AT),
        sleep=lambda _: write_ledger(client, *next(steps)),
        idle_s_max=60,
        on_progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(0, 4), (2, 4), (3, 4), (4, 4)]


def test_a_ledger_that_stands_still_is_an_error_and_not_an_endless_wait(client: Client) -> None:
    clock = FixedClock(AT)
    write_ledger(client, 0, 0, 100, epoch="another/log")

    def sleep(_: float) -> None:
        clock.move_to(datetime.fromtimestamp(clock.now().timestamp() + 20, UTC))

    with pytest.raises(UnavailableError, match="metering worker"):
        wait_until_folded(client, made_load((0, 10)), clock=clock, sleep=sleep, idle_s_max=60)


def test_a_load_of_nothing_is_settled_at_once(client: Client) -> None:
    made = load(iter([]), gateway_url="http://127.0.0.1:9")

    wait_until_folded(client, made, clock=FixedClock(AT), sleep=lambda _: None, idle_s_max=1)

    assert settle(client, made).accepted == 0
