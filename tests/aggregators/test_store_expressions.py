"""What Python computes and what ClickHouse computes for the same bytes is the same, whatever the bytes."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from clickhouse_connect.driver.client import Client

from aggregators import store
from aggregators.columns import events_table, rollups_table
from aggregators.decide import Accepted, Decision
from aggregators.dedupe import Standing, identity_key
from aggregators.state import DayKey, Series, State, StateKey
from schemas.meter import Aggregation, Meter, MeterVersion
from schemas.usage_event import UsageEvent, event_digest

LOGGED_AT = datetime(2013, 3, 1, tzinfo=UTC)
PIECES = ["a", "1", ":", "'", '"', "\\", "\\'", "\\n", "{", "}", "(", ")", ",", "%s", "?", "\u00fc", "\u20ac",
          "\U0001f600", "\u202e", " ", "--", ";", "NULL", "`", "/", "\u00a0", "e\u0301"]  # fmt: skip


def nasty(chance: random.Random, prefix: str = "") -> str:
    return prefix + "".join(chance.choices(PIECES, k=chance.randint(1, 12)))


def decision(epoch: str, identities: list[tuple[str, str, str]]) -> Decision:
    accepted = []
    for offset, (subject, source, id_) in enumerate(identities):
        raw = f"{subject}|{source}|{id_}".encode() + bytes([offset % 256, 0, 255])
        event = UsageEvent(id_, source, "used", subject, LOGGED_AT, b"")  # type: ignore[arg-type]
        accepted.append(Accepted(event, offset, int(LOGGED_AT.timestamp() * 1000), event_digest(raw), raw, False, []))
    return Decision(
        epoch=epoch,
        topic="t",
        partition=7,
        first=0,
        last=len(identities) - 1,
        logged_at_last_ms=0,
        accepted=accepted,
        duplicate=0,
        rejected=[],
        absent=0,
    )


@pytest.mark.parametrize("seed", [1])
def test_identities_and_digests_are_the_same_in_clickhouse(folded: Client, epoch: str, seed: int) -> None:
    chance = random.Random(seed)
    identities = sorted({(nasty(chance, epoch), nasty(chance), nasty(chance)) for _ in range(300)})
    identities += [
        (f"{epoch}a", "b", "c"),
        (f"{epoch}", "ab", "c"),
        (f"{epoch}a", "bc", ""),
        (f"{epoch}" + "\U0001f600" * 100, "\u20ac" * 170, "x" * 512),
    ]
    decided = decision(epoch, identities)

    store.insert(folded, "events", events_table(decided))

    keys = set(store.identity_keys(folded, LOGGED_AT))
    assert {identity_key(one) for one in identities} <= keys
    same = folded.query(
        "SELECT count(), countIf(reinterpretAsUInt128(substring(SHA256(raw), 1, 16)) = digest) FROM events FINAL "
        "WHERE epoch = {epoch:String}",
        {"epoch": epoch},
    ).result_rows
    assert same == [(len(identities), len(identities))]
    standings = store.standings(folded, [*identities, (epoch, "never", "seen")])
    assert standings == {
        identity: [Standing(epoch, 7, one.offset, one.digest)]
        for identity, one in zip(identities, decided.accepted, strict=True)
    }


def test_thousands_of_long_identities_are_asked_for_in_bounded_questions(folded: Client, epoch: str) -> None:
    """Each is 1,500 bytes of three-byte characters, which a form field carries three times as long."""
    identities = [(f"{epoch}{number:04}" + "\u20ac" * 160, "\u20ac" * 170, "\u20ac" * 170) for number in range(400)]
    store.insert(folded, "events", events_table(decision(epoch, identities)))

    assert len(store.standings(folded, identities)) == 400


NUMBERS = [
    "0",
    "-0.000000000001",
    "999999999999999999.999999999999",
    "-999999999999999999.999999999999",
    "1E+17",
    "1.5E+3",
    "1E-12",
    "123456789012345678.1",
]


def test_states_come_back_from_clickhouse_as_they_were(folded: Client, epoch: str) -> None:
    """Sums as large as a Decimal(76, 12) holds, dimensions with any text, and the whole 128 bits of a digest."""
    meter = Meter(name="kept", event_type="t", aggregation=Aggregation.SUM, value="n", group_by={"a": "a", "b": "b"})
    version = MeterVersion(meter=meter, version=3, introduced_in=1, start=None, end=None)
    chance = random.Random(2)
    day: DayKey = (nasty(chance, epoch), 15_706)
    wanted: dict[StateKey, State] = {}
    for index, number in enumerate(NUMBERS):
        state = State()
        state.position = 2**63 + index
        state.events_count = index
        state.value_sum = Decimal("9" * 64) if index == 2 else Decimal(number)
        state.value_min = state.value_max = state.value_latest = Decimal(number)
        state.latest_time_us = 15_706 * 86_400_000_000 + index
        state.latest_offset = index
        state.digest = 2**128 - 1 - index
        wanted["kept", 3, 15_706 * 86_400 + 900 * index, (nasty(chance), nasty(chance))] = state
    series = {("kept", 3): Series(version, 5)}

    rows = rollups_table(epoch, 2, {("kept", 3): [(day, key, state) for key, state in wanted.items()]}, series)
    store.insert(folded, "rollups", rows)
    found = store.states(folded, epoch, 2, [day, (epoch, 1)], {("kept", 3): 5})

    assert found.keys() == {day, (epoch, 1)}
    assert found[epoch, 1] == {}
    assert found[day].keys() == wanted.keys()
    for key, state in wanted.items():
        assert _fields(found[day][key]) == _fields(state)
    assert store.states(folded, epoch, 2, [day], {("kept", 3): 6})[day] == {}
    assert store.states(folded, epoch, 3, [day], {("kept", 3): 5})[day] == {}


def _fields(state: State) -> list[object]:
    return [getattr(state, name) for name in State.__struct_fields__ if name != "is_dirty"]
