"""ClickHouse folds plain events to the rows that Python folds them to, and leaves everything else to Python."""

# ruff: noqa: S608 - statements are made of constants
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregators import rebuild_plain
from aggregators.rebuild import Rebuild, Rebuilt
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from schemas.catalog import AppliedCatalog, Catalog, applied
from schemas.errors import EventRejectedError
from schemas.meter import Aggregation, Filter, Meter, MeterVersion
from schemas.usage_event import UsageEvent, decode_event, event_digest
from tests.support.corrected_log import CATALOG as CORRECTED
from tests.support.corrected_log import corrected_log
from tests.support.pipeline_rig import NOW, life
from tests.support.plain_log import CATALOG as PLAIN

TABLES = ("rollups", "members", "group_overflows")
START = datetime(2026, 3, 1, tzinfo=UTC)
CHANGED_AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
MIDDLE = 90
"""From this offset on the meters of the second catalog version are folded live."""

METERS = (
    Meter(name="calls", event_type="used", aggregation=Aggregation.COUNT, group_by={"region": "region"}),
    Meter(name="filled", event_type="used", aggregation=Aggregation.COUNT, value="deep.app"),
    Meter(
        name="total",
        event_type="used",
        aggregation=Aggregation.SUM,
        value="n",
        group_by={"region": "region", "app": "deep.app"},
    ),
    Meter(name="lowest", event_type="used", aggregation=Aggregation.MIN, value="n"),
    Meter(name="highest", event_type="used", aggregation=Aggregation.MAX, value="deep.m"),
    Meter(name="mean", event_type="used", aggregation=Aggregation.AVG, value="n", group_by={"n": "n", "kind": "type"}),
    Meter(name="newest", event_type="used", aggregation=Aggregation.LATEST, value="n"),
    Meter(
        name="users",
        event_type="used",
        aggregation=Aggregation.UNIQUE_COUNT,
        value="user",
        filters=(Filter(field="region", none_of=("us", "")),),
        group_by={"id": "id"},
    ),
    Meter(name="seats", event_type="used", aggregation=Aggregation.TIME_WEIGHTED, value="n", group_by={"who": "user"}),
    Meter(
        name="crowded",
        event_type="used",
        aggregation=Aggregation.COUNT,
        group_by={"user": "user", "region": "region"},
        group_values_max=4,
    ),
    Meter(name="others", event_type="other", aggregation=Aggregation.SUM, value="n", group_by={"a-b": "a-b"}),
)


def versions_of(meters: Sequence[Meter]) -> tuple[MeterVersion, ...]:
    """Each meter; the second catalog version brings `calls`, and a change of `total` and `users`."""
    found: list[MeterVersion] = []
    for one in meters:
        is_changed = one.name in {"total", "users"}
        found.append(
            MeterVersion(
                meter=one,
                version=1,
                introduced_in=2 if one.name == "calls" else 1,
                start=None,
                end=CHANGED_AT if is_changed else None,
            )
        )
        if is_changed:
            changed = msgspec.structs.replace(one, filters=(Filter(field="region", any_of=("eu", "\u00fc", "12")),))
            found.append(MeterVersion(meter=changed, version=2, introduced_in=2, start=CHANGED_AT, end=None))
    return tuple(found)


CATALOG = applied(2, Catalog(meters=METERS), versions_of(METERS))

PLAIN_NUMBERS = ("0", "1", "-2.5", "1.0", "1.00", "-0", "0.000000000001", '"3.25"', "null", "7")
ODD_NUMBERS = (
    "999999999999999999.999999999999", "1234567890123456789", "0.1234567890123", "1e3", "1E-2", "-0.0", '"-0.0"',
    '" 3"', '"1e2"', '"\\u0031"', '"abc"', '""', "true", "[1]", "{}", '{"n":2}', "9007199254740993",
    "123456789012345678.5",
)  # fmt: skip
PLAIN_TEXTS = ('"eu"', '"us"', '""', '"u1"', '"u2"', "12", "null", "true")
ODD_TEXTS = (
    "1.0", "1.00", "1e5", "-0", "false", "[1]", '["eu"]', "{}", '{"region":"eu"}', '"\u00fc"', '"\\u00fc"', '"a\\"b"',
    '"%s"' % ("x" * 1024), '"%s"' % ("x" * 1025), '"%s"' % ("\u00e9" * 512), '"%s"' % ("\u00e9" * 513), '"data"',
    '"region"', '"n"', '"}"', '"{"', '",\\n"', '"\x7f"', '"\u0085"', '"other"', '"null"', '"\U0001f600"', '"a:b,c"',
    "12345678901234567890123", '"metering.event.voided"', "1.7976931348623157e400", '"\u2028"', '"\'"', '"%"', '"a\tb"',
)  # fmt: skip


class Nasty:
    """Makes records up; `oddness` is how often a part of one is odd."""

    def __init__(self, seed: int, oddness: float) -> None:
        self._chance = random.Random(seed)
        self._oddness = oddness

    def _is_odd(self) -> bool:
        return self._chance.random() < self._oddness

    def _blank(self) -> str:
        return self._chance.choice(["", "", " ", "\n\t "]) if self._is_odd() else ""

    def _value(self, plain: Sequence[str], odd: Sequence[str]) -> str:
        return self._chance.choice(odd if self._is_odd() else plain)

    def _object(self, members: list[tuple[str, str]]) -> str:
        if self._is_odd():
            self._chance.shuffle(members)
        if members and self._is_odd():  # a key twice: the last counts
            members.insert(0, (members[-1][0], self._value(PLAIN_NUMBERS + PLAIN_TEXTS, ODD_NUMBERS + ODD_TEXTS)))
        if members and self._is_odd():
            members.pop(self._chance.randrange(len(members)))
        texts = [f"{self._key(name)}{self._blank()}:{self._blank()}{text}" for name, text in members]
        return "{" + self._blank() + f"{self._blank()},{self._blank()}".join(texts) + self._blank() + "}"

    def _key(self, name: str) -> str:
        if self._chance.random() < self._oddness / 4:
            return f'"\\u{ord(name[0]):04x}{name[1:]}"'
        return f'"{name}"'

    def _data(self) -> str:
        number = partial(self._value, PLAIN_NUMBERS, ODD_NUMBERS)
        text = partial(self._value, PLAIN_TEXTS, ODD_TEXTS)
        deep = [("app", text()), ("m", number())] if not self._is_odd() else [("n", number()), ("app", text())]
        members = [("region", text()), ("n", number()), ("user", text()), ("deep", self._object(deep))]
        for name, value in (("id", text()), ("type", text()), ("a-b", text()), ("a_b", text()), ("data", "1")):
            if self._is_odd():
                members.append((name, value))
        if self._is_odd():
            members[3] = ("deep", self._chance.choice(["null", "1", "[]", '[{"n":1}]', '"deep"']))
        if self._is_odd():
            members.insert(
                0,
                (
                    "note",
                    self._chance.choice(
                        ['"x"', '{"n":1}', '{"app":"z"}', '{"m":9}', '{"note":"}","x":[{"deep":{}}]}', '"n"']
                    ),
                ),
            )
        if self._is_odd():
            return self._chance.choice(["[]", "null", "1", '"data"', "{}", '[{"n":1}]', self._object(members)])
        return self._object(members)

    def record(self, number: int) -> bytes:
        """One record, which may be refused."""
        time = START + timedelta(
            days=self._chance.randrange(6),
            minutes=self._chance.choice([0, 14, 15, 720]),
            microseconds=self._chance.choice([0, 0, 1, 999_999]),
        )
        members = [
            ("specversion", '"1.0"'),
            ("id", f'"e{number}"'),
            ("source", '"/app"'),
            ("type", '"other"' if self._chance.random() < 0.1 else '"used"'),
            ("subject", f'"s\u00fc{self._chance.randrange(12)}"'),
            ("time", f'"{time.isoformat()}"'),
            ("data", self._data()),
        ]
        if self._is_odd():
            members.insert(self._chance.randrange(6), (self._chance.choice(["n", "ext", "region"]), '"extra"'))
        if self._is_odd():
            members.insert(0, members.pop())
        if self._is_odd():
            members.append(("data", self._data()))
        texts = [f"{self._key(name)}:{text}" for name, text in members]
        return ("{" + ",".join(texts) + "}").encode()


def decoded(records: Sequence[bytes]) -> list[tuple[UsageEvent, bytes]]:
    found: list[tuple[UsageEvent, bytes]] = []
    for raw in records:
        try:
            found.append((decode_event(raw), raw))
        except EventRejectedError:
            continue
    return found


def store_log(client: Client, records: Sequence[bytes], *, again: Sequence[int] = ()) -> int:
    """Put records into `events` and the ledger, some of them twice; returns how many were accepted."""
    for table in (*TABLES, "events", "positions"):
        client.command(f"TRUNCATE TABLE {table}")
    events = decoded(records)
    rows = [
        (one.subject, one.source, one.id, one.type, one.time, "log", 0, offset, NOW, event_digest(raw), raw)
        for offset, (one, raw) in enumerate(events)
    ]
    names = ("subject", "source", "id", "type", "time", "epoch", "partition", "offset", "logged_at", "digest", "raw")
    unless = {"insert_deduplicate": 0}
    client.insert("events", rows, column_names=names, settings=unless, column_type_names=[
        "String", "String", "String", "String", "DateTime64(6, 'UTC')", "String", "UInt32", "UInt64",
        "DateTime64(3, 'UTC')", "UInt128", "String",
    ])  # fmt: skip
    if again:
        client.insert("events", [rows[at] for at in again if at < len(rows)], column_names=names, settings=unless)
    ledger = ("epoch", "topic", "partition", "first", "last", "catalog_version")
    batches = [("log", "t", 0, 0, MIDDLE - 1, 1), ("log", "t", 0, MIDDLE, max(MIDDLE, len(rows) - 1), 2)]
    client.insert("positions", batches, column_names=ledger, settings=unless)
    return len(rows)


@pytest.fixture
def client(changing_settings: Settings) -> Iterator[Client]:
    one = connect(changing_settings)
    yield one
    one.close()


def folded(
    settings_: Settings, client: Client, catalog: AppliedCatalog, *, use_plain: bool
) -> tuple[Rebuilt, dict[str, list[tuple[Any, ...]]]]:
    """What a rebuild says, and every row that it wrote into empty tables."""
    for table in TABLES:
        client.command(f"TRUNCATE TABLE {table}")
    done = Rebuild(
        lambda database: connect(settings_, database=database), catalog, list(catalog.meters), use_plain=use_plain
    ).run(write=True)
    return done, {
        table: [tuple(row) for row in client.query(f"SELECT * FROM {table} FINAL ORDER BY ALL").result_rows]
        for table in TABLES
    }


def check_both_ways(settings_: Settings, client: Client, catalog: AppliedCatalog) -> Rebuilt:
    """Assert that the rows are the same both ways; returns what the one with ClickHouse said."""
    alone, wanted = folded(settings_, client, catalog, use_plain=False)
    done, found = folded(settings_, client, catalog, use_plain=True)
    for table in TABLES:
        assert found[table] == wanted[table], table
    assert alone.events_plain == 0
    assert (done.events_read, done.unreadable) == (alone.events_read, alone.unreadable)
    assert wanted["rollups"]
    return done


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), oddness=st.sampled_from([0.001, 0.004, 0.01, 0.05, 0.3]))
def test_nasty_events_have_the_same_rows_whoever_folds_them(
    changing_settings: Settings, client: Client, seed: int, oddness: float
) -> None:
    made = Nasty(seed, oddness)
    store_log(client, [made.record(number) for number in range(240)], again=range(seed % 7, 240, 97))

    check_both_ways(changing_settings, client, CATALOG)


def event(number: int, data: str, *, subject: str = "s1", day: int = 1) -> bytes:
    """A record as most producers write it."""
    return (
        f'{{"specversion":"1.0","id":"e{number}","source":"/app","type":"used","subject":"{subject}",'
        f'"time":"2026-03-0{day}T10:00:00Z","data":{data}}}'
    ).encode()


def plain_event(number: int) -> bytes:
    """One of five subjects and four days."""
    data = f'{{"region":"eu","n":{number}.5,"user":"u{number % 3}","deep":{{"app":"a","m":-{number}}}}}'
    return event(number, data, subject=f"s{number % 5}", day=1 + number // 5 % 4)


def test_a_plain_log_is_folded_by_clickhouse_alone(changing_settings: Settings, client: Client) -> None:
    accepted = store_log(client, [plain_event(number) for number in range(100)])

    done = check_both_ways(changing_settings, client, CATALOG)

    assert accepted == 100
    assert (done.events_read, done.events_plain) == (100, 100)


def test_many_statements_come_to_the_same(
    changing_settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many ranges of offsets, many shards, and states that do not fit into memory."""
    monkeypatch.setattr(rebuild_plain, "OFFSETS_A_STATEMENT", 33)
    monkeypatch.setattr(rebuild_plain, "EVENTS_A_SHARD", 25)
    monkeypatch.setitem(rebuild_plain._SETTINGS, "max_bytes_before_external_group_by", 1)
    store_log(client, [*[plain_event(number) for number in range(100)], event(100, '{"n":1e1}')])

    done = check_both_ways(changing_settings, client, CATALOG)

    assert (done.events_read, done.events_plain) == (101, 95)


def test_with_too_many_odd_days_python_folds_everything(
    changing_settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_plain, "ODD_DAYS_MAX", 1)
    odd = [event(100 + day, '{"n":1e1}', day=day) for day in (1, 2)]
    store_log(client, [*[plain_event(number) for number in range(100)], *odd])

    assert check_both_ways(changing_settings, client, CATALOG).events_plain == 0


ODD = (
    '{"n":1,"n":2}',
    '{"deep":{"app":"a"},"n":1,"deep":{"app":"b"}}',
    '{"n":1e2}',
    '{"n":"1.50","region":"\\u0065u"}',
    '{"\\u006e":5}',
    '{"n":123456789012345678901}',
    '{"n":0.1234567890123}',
    '{"n":true}',
    '{"n":3,"region":["eu"]}',
    f'{{"n":3,"region":"{"x" * 1_025}"}}',
    '{"n":3,"region":"n"}',
    '{"n":3,"note":{"n":4}}',
    '{"n":3,"note":"data","data":{"n":5}}',
)
UNUSUAL = (
    '{"n" : -0 , "region" : "us" }',
    '{"n":"12.50","region":"}"}',
    '{"note":{"a":[{"b":"}"}]},"n":1.00,"region":true}',
    '{"note":{"a":"}"},"deep":{"app":1.0,"m":"2"},"n":null}',
    f'{{"n":999999999999999999.999999999999,"region":"{512 * chr(233)}"}}',
    '{"id":"i","type":"k","n":9007199254740993}',
    '{"deep":{"app":null}}',
    '{"x":{"app":"a"},"deep":{"m":1}}',
    '{"x":{"m":7},"n":2,"deep":{"app":"b"}}',
    '{"deep":null,"n":0.000000000001,"region":1e40}',
    "{}",
    "null",
    "[1,2]",
)


def test_an_odd_event_sends_its_own_day_to_python_and_no_other(changing_settings: Settings, client: Client) -> None:
    """Each on a day of its own, with another event of the same day and one of the next."""
    log = [
        event(number * 3 + at, text, subject=f"s{number}", day=day)
        for number, data in enumerate(ODD)
        for at, (text, day) in enumerate([(data, 1), ('{"n":1}', 1), ('{"n":1}', 2)])
    ]
    accepted = store_log(client, log)

    done = check_both_ways(changing_settings, client, CATALOG)

    assert accepted == 3 * len(ODD)
    assert (done.events_read, done.events_plain) == (3 * len(ODD), len(ODD))


def test_unusual_but_plain_events_are_folded_by_clickhouse(changing_settings: Settings, client: Client) -> None:
    accepted = store_log(client, [event(number, data, subject=f"s{number}") for number, data in enumerate(UNUSUAL)])

    done = check_both_ways(changing_settings, client, CATALOG)

    assert accepted == len(UNUSUAL)
    assert (done.events_read, done.events_plain) == (len(UNUSUAL), len(UNUSUAL))


def test_a_row_that_stands_twice_counts_once(changing_settings: Settings, client: Client) -> None:
    """As a worker that died leaves it: the same record in two blocks, until they are merged."""
    client.command("SYSTEM STOP MERGES events")
    store_log(client, [plain_event(number) for number in range(100)], again=[7])

    done = check_both_ways(changing_settings, client, CATALOG)

    assert (done.events_read, done.events_plain) == (100, 95)


def test_a_day_with_more_values_than_a_meter_takes_is_left_to_python(
    changing_settings: Settings, client: Client
) -> None:
    many = [event(100 + number, f'{{"user":"v{number}"}}', subject="s1", day=2) for number in range(4)]
    store_log(client, [*[plain_event(number) for number in range(100)], *many])

    done = check_both_ways(changing_settings, client, CATALOG)

    assert (done.events_read, done.events_plain) == (104, 95)
    assert client.query("SELECT count() FROM group_overflows").result_rows == [(1,)]


def test_days_with_corrections_are_left_to_python(changing_settings: Settings, client: Client, epoch: str) -> None:
    both = msgspec.structs.replace(CORRECTED, meters=(*PLAIN.meters, *CORRECTED.meters))
    catalog_store.apply(client, both, clock=FixedClock(NOW), applied_by="test")
    with life(changing_settings, epoch) as worker:
        worker.run(corrected_log(5, 300, prefix=epoch, epoch=epoch))
    catalog = catalog_store.latest(client)
    assert catalog is not None

    done = check_both_ways(changing_settings, client, catalog)

    assert client.query("SELECT count() > 5 FROM corrections").result_rows == [(True,)]
    assert done.events_plain < done.events_read
