"""Dead letters: listed with their reason, shown whole, sent again once what kept them out is mended, counted once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from ingest.dead_letters import LetterFilter, LetterState, find, letters
from ingest.replay import replay
from metering import audit_log, catalog_store
from metering.cli import build_app
from metering.clock import SystemClock
from metering.config import Settings, variable_of
from metering.kafka import client_config
from schemas.errors import MeteringError, RequestError
from schemas.topics import USAGE_EVENTS
from tests.support.plain_log import CATALOG
from tests.support.worker_process import Stack, stack_of

NEW_TYPE = "just.invented"


def event(id_: str, **changes: Any) -> dict[str, Any]:
    base = {
        "specversion": "1.0",
        "id": id_,
        "source": "/letters",
        "type": "used",
        "subject": "acme",
        "time": "2013-01-10T00:00:00Z",
        "data": {"n": 5, "region": "eu", "user": "u1"},
    }
    return {**base, **changes}


class Letters:
    """A running worker, and what a test sends to it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.worker = stack.start()
        self.sent = 0

    def send(self, *records: tuple[bytes, bytes]) -> None:
        """Write (key, value) to partition 0 and wait until the worker has decided them."""
        producer = Producer({**client_config(self.stack.settings), "enable.idempotence": True})
        for key, value in records:
            producer.produce(USAGE_EVENTS, value=value, key=key, partition=0)
        assert producer.flush(30) == 0
        self.settled(len(records))

    def settled(self, more: int) -> None:
        """Wait until the worker has decided this many records more."""
        self.sent += more
        self.stack.wait_folded(self.sent, self.worker)

    def replay(self, **which: Any) -> Any:
        return replay(
            self.stack.client, self.stack.settings, LetterFilter(**which), clock=SystemClock(), by="ada@engine"
        )

    def used(self, source: str) -> list[tuple[str, int]]:
        """(id, how often) of every accepted event of a source."""
        return self.stack.client.query(
            "SELECT id, count() FROM events FINAL WHERE source = {source:String} GROUP BY id ORDER BY id",
            {"source": source},
        ).result_rows  # type: ignore[return-value]

    def run(self, *words: str) -> Any:
        names = ("kafka_servers", "clickhouse_url", "clickhouse_username", "clickhouse_password", "clickhouse_database")
        settings = {variable_of(name): str(getattr(self.stack.settings, name)) for name in names}
        return CliRunner().invoke(build_app(["dead-letters"]), ["dead-letters", *words], env=settings)


@pytest.fixture
def source() -> str:
    return f"/letters/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def stage(service_settings: Settings) -> Iterator[Letters]:
    with stack_of(service_settings) as stack:
        yield Letters(stack)


def test_a_letter_is_replayed_once_its_type_is_known_and_counts_once_however_often(stage: Letters, source: str) -> None:
    """F13. A dead letter that is replayed after the fix counts once, however often it is replayed."""
    client = stage.stack.client
    good = json.dumps(event("1", source=source, type=NEW_TYPE)).encode()
    stage.send((b"acme", good), (b"acme", b"no json"), (b"other", json.dumps(event("2", source=source)).encode()))

    before = stage.replay()
    wider = msgspec.structs.replace(CATALOG, event_types=(*CATALOG.event_types, NEW_TYPE))
    catalog_store.apply(client, wider, clock=SystemClock(), applied_by="test")
    dry = stage.run("replay", "--all", "--dry-run")
    mended = stage.replay(reasons=["unknown_type"])
    stage.settled(1)
    again = stage.replay(reasons=["unknown_type"])

    # The one with a wrong key needed no new catalog: its bytes are sent with the key of their subject.
    assert (before.sent, before.kept_reasons) == (1, {"unknown_type": 1, "not_json": 1})
    assert "1 letters would be sent again." in dry.stdout
    assert (mended.sent, mended.kept) == (1, [])
    assert again.sent == 0
    stage.settled(1)
    assert stage.used(source) == [("1", 1), ("2", 1)]
    states = {one.reason: one.state for one in letters(client, LetterFilter(state=None))}
    assert states == {
        "unknown_type": LetterState.REPLAYED,
        "not_json": LetterState.OPEN,
        "key_not_subject": LetterState.REPLAYED,
    }
    assert [(one.action, one.by, one.detail["letters"]) for one in audit_log.entries(client)] == [
        ("dead_letters.replayed", "ada@engine", 1),
        ("dead_letters.replayed", "ada@engine", 1),
    ]


def test_a_replay_that_dies_before_its_note_is_done_again_and_counts_once(stage: Letters, source: str) -> None:
    """F13. A replay that dies is done again, and its events count once."""

    class PowerCutError(Exception):
        pass

    def cut() -> None:
        raise PowerCutError

    client = stage.stack.client
    stage.send(*[(b"wrong key", json.dumps(event(str(number), source=source)).encode()) for number in range(3)])

    with pytest.raises(PowerCutError):
        replay(client, stage.stack.settings, LetterFilter(), clock=SystemClock(), by="ada@engine", after_send=cut)
    still_open = letters(client, LetterFilter())
    done = stage.replay()
    stage.settled(6)

    assert len(still_open) == 3
    assert done.sent == 3
    assert stage.used(source) == [("0", 1), ("1", 1), ("2", 1)]
    assert letters(client, LetterFilter()) == []
    ((accepted, duplicate, rejected),) = client.query(
        "SELECT sum(accepted), sum(duplicate), sum(rejected) FROM positions FINAL WHERE epoch = {epoch:String}",
        {"epoch": stage.stack.epoch},
    ).result_rows
    assert (accepted, duplicate, rejected) == (3, 3, 3)


def test_a_letter_in_conflict_is_for_a_person_to_decide(stage: Letters, source: str) -> None:
    first, other = event("1", source=source), event("1", source=source, data={"n": 6})
    stage.send(*[(b"acme", json.dumps(one).encode()) for one in (first, other)])

    done = stage.replay()

    assert (done.sent, done.kept_reasons) == (0, {"identity_conflict": 1})
    assert stage.used(source) == [("1", 1)]


def test_letters_are_listed_shown_and_discarded(stage: Letters, source: str) -> None:
    not_text = b'{"specversion": "1.0", "id": "\xff\x00", \x1b[31m'
    stage.send((b"\xfe", not_text), (b"acme", json.dumps(event("1", source=source, type="x" * 90)).encode()))

    listed = json.loads(stage.run("list", "--json").stdout)
    table, summary = stage.run("list", "--reason", "unknown_type").stdout, stage.run("list", "--summary").stdout
    shown = stage.run("show", "0/0")
    raw = stage.run("show", "0/0", "--raw")
    nothing = stage.run("show", "0/99")
    unsaid = stage.run("discard", "--why", "made up")
    discarded = stage.run("discard", "0/0", "--why", "made up")
    left = json.loads(stage.run("list", "--json").stdout)
    aside = json.loads(stage.run("list", "--state", "discarded", "--json").stdout)
    replayed = stage.run("replay", "0/0")

    assert [(one["letter"], one["reason"], one["state"], one["bytes"]) for one in listed] == [
        ("0/0", "not_json", "open", len(not_text)),
        ("0/1", "unknown_type", "open", len(json.dumps(event("1", source=source, type="x" * 90)))),
    ]
    assert "0/1" in table
    assert "0/0" not in table
    assert "not_json" in summary
    assert "unknown_type" in summary
    assert "\\xff" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert raw.stdout_bytes == not_text
    assert isinstance(nothing.exception, RequestError)
    assert isinstance(unsaid.exception, RequestError)
    assert "1 letters are discarded." in discarded.stdout
    assert [one["letter"] for one in left] == ["0/1"]
    assert [(one["letter"], one["why"]) for one in aside] == [("0/0", "made up")]
    assert aside[0]["state_by"]
    assert "0 letters were sent again." in replayed.stdout
    assert find(stage.stack.client, 0, 0).raw == not_text


def test_letters_of_two_logs_at_one_place_are_told_apart(service_settings: Settings) -> None:
    with stack_of(service_settings) as stack:
        columns = "epoch, topic, partition, offset, reason, field, detail, key, raw, logged_at, catalog_version"
        for epoch in ("old/log", "new/log"):
            stack.client.command(
                f"INSERT INTO dead_letters ({columns}) VALUES "  # noqa: S608
                f"('{epoch}', '{USAGE_EVENTS}', 3, 7, 'not_json', '', '', 'k', 'raw of {epoch}', now64(3), 1)"
            )

        with pytest.raises(MeteringError, match="2 logs have one there: new/log, old/log"):
            find(stack.client, 3, 7)

        assert find(stack.client, 3, 7, epoch="old/log").raw == b"raw of old/log"
        pages = [letters(stack.client, LetterFilter(), limit=1)]
        while pages[-1]:
            pages.append(letters(stack.client, LetterFilter(), limit=1, after=pages[-1][0].id))
        assert [one.id.epoch for page in pages for one in page] == ["new/log", "old/log"]


@pytest.mark.parametrize("place", ["", "3", "3/", "/7", "3/7/1", "-1/7", "3/\u0667", "a/b", "3/" + "9" * 19])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    from metering.cli.dead_letters import _place

    with pytest.raises(RequestError):
        _place(place)
