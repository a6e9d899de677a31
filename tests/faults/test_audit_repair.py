"""An audit finds what was damaged, says nothing of what was not, and a repair mends it from the events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.audit import audit
from aggregators.repair import repair
from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import SystemClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from tests.support.pipeline_rig import life, stored
from tests.support.plain_log import CATALOG, Made, expected, made_log

EPOCH = "cluster/log"


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    client: Client
    catalog: AppliedCatalog

    def checks(self) -> set[str]:
        return {one.check for one in audit(self.client, self.catalog, days=10_000).differences}

    def repair(self, *, workers: int = 0) -> list[str]:
        found = audit(self.client, self.catalog, days=10_000)
        done = repair(lambda database: connect(self.settings, database=database), self.catalog, found, workers=workers)
        return done.left


@pytest.fixture(scope="module")
def migrated(clickhouse: ClickHouseUnderTest) -> Iterator[Audited]:
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=f"test_{uuid.uuid4().hex[:12]}",
    )
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    catalog = catalog_store.apply(client, CATALOG, clock=SystemClock(), applied_by="test")
    yield Audited(settings=settings, client=client, catalog=catalog)
    client.command("DROP DATABASE {name:Identifier} SYNC", {"name": settings.clickhouse_database})
    client.close()


@pytest.fixture
def audited(migrated: Audited) -> Audited:
    for table in ("events", "rollups", "members", "dead_letters", "positions"):
        migrated.client.command("TRUNCATE TABLE {table:Identifier}", {"table": table})
    return migrated


def fold(audited: Audited, log: list[Made]) -> None:
    with life(audited.settings, EPOCH) as one:
        one.run(log)


def test_an_audit_of_what_is_right_finds_nothing(audited: Audited) -> None:
    log = made_log(21, 400, prefix="right", days=1)
    fold(audited, log)

    found = audit(audited.client, audited.catalog, days=10_000)

    assert found.differences == []
    assert (found.partitions, found.offsets, found.events) == (2, 400, len(expected(log).accepted))
    assert found.days_sampled == len({(one.subject, one.time.date()) for one in log if not one.reason})


def again(table: str, change: str, where: str) -> str:
    """A statement that writes one row of a table again, changed."""
    return f"INSERT INTO {table} SELECT * REPLACE ({change}) FROM {table} FINAL WHERE {where} LIMIT 1"  # noqa: S608 - constants


SECOND_ROW = "(SELECT arraySort(groupArray(first))[2] FROM positions WHERE partition = 0)"
DAMAGES = [
    ("ledger", f"DELETE FROM positions WHERE partition = 0 AND first = {SECOND_ROW}"),  # noqa: S608 - constants
    (
        "accounting",
        "DELETE FROM events WHERE partition = 1 AND offset >= (SELECT max(offset) FROM events WHERE partition = 1)",
    ),
    ("accounting", "DELETE FROM dead_letters WHERE partition = 1"),
    ("accounting", again("events", "digest + 1 AS digest", "partition = 0")),
    ("rollups", again("rollups", "value_sum + 1 AS value_sum", "meter = 'total'")),
    ("rollups", again("rollups", "events_count + 1 AS events_count", "meter = 'calls'")),
    ("rollups", "DELETE FROM rollups WHERE meter = 'newest' AND partition = 0"),
    ("rollups", "DELETE FROM rollups WHERE subject = (SELECT min(subject) FROM rollups)"),
    ("rollups", "DELETE FROM members WHERE partition = 0"),
    ("series", again("rollups", "3 AS position_first", "meter = 'calls'")),
    ("identity", again("events", "7 AS partition", "1")),
]


@pytest.mark.parametrize(("check", "damage"), DAMAGES, ids=[f"{one}-{at}" for at, (one, _) in enumerate(DAMAGES)])
def test_each_damage_is_named_by_its_check(audited: Audited, check: str, damage: str) -> None:
    fold(audited, made_log(22, 300, prefix="harm", days=1))
    assert audited.checks() == set()

    audited.client.command(damage, settings={"insert_deduplicate": 0})

    assert check in audited.checks()


def test_a_repair_mends_rollups_and_the_audit_is_clean_again(audited: Audited) -> None:
    log = made_log(23, 300, prefix="mend", days=1)
    fold(audited, log)
    for check, damage in DAMAGES:
        if check in {"rollups", "series"}:
            audited.client.command(damage, settings={"insert_deduplicate": 0})
    assert audited.checks() == {"rollups", "series"}

    assert audited.repair() == []

    assert audited.checks() == set()
    assert stored(audited.client, EPOCH).rollups == expected(log).rollups
    assert stored(audited.client, EPOCH).members == expected(log).members


def test_a_repair_names_what_no_event_can_mend(audited: Audited) -> None:
    fold(audited, made_log(24, 300, prefix="hole", days=1))
    audited.client.command(DAMAGES[0][1])

    assert audited.repair() == ["ledger"]


def test_an_event_that_two_workers_accepted_at_once_counts_once_after_a_repair(audited: Audited) -> None:
    """F17. The same event on two partitions, unflushed in two workers, is accepted by both; repair counts it once."""
    both = [Made(partition=number, offset=0, subject="s", id="both", n="2") for number in (0, 1)]
    own = [Made(partition=number, offset=1, subject="s", id=f"own{number}", n="5") for number in (0, 1)]
    with life(audited.settings, EPOCH) as one, life(audited.settings, EPOCH, name="other") as other:
        one.take_over(0)
        other.take_over(1)
        one.put([both[0], own[0]])
        other.put([both[1], own[1]])
        one.drain()
        other.drain()
    assert audited.checks() == {"identity"}
    with pytest.raises(RequestError, match="Stop the workers"):
        audited.repair(workers=2)

    assert audited.repair() == []

    assert audited.checks() == set()
    wanted = expected([*both, *own])
    found = stored(audited.client, EPOCH)
    assert found.accepted == wanted.accepted
    assert found.rollups == wanted.rollups
    ledger = {row[0]: row[3:6] for row in found.ledger}
    assert ledger == {0: (2, 0, 0), 1: (1, 1, 0)}
