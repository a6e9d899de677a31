"""Erasing a customer: no name can be found anywhere, and every number, line and proof is as it was."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.audit import audit
from aggregators.erase import STEPS, Found
from aggregators.rebuild import Rebuild
from billing_export import runs
from billing_export.explain import Explainer
from billing_export.line_store import read_lines
from billing_export.usage_reader import RollupReader
from billing_export.verify import verify_period
from metering import audit_log, catalog_store, erasure_store
from metering.audit_log import Action
from metering.clickhouse import connect, ensure_database
from metering.config import Settings
from metering.erasure_store import ErasureState
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.catalog import AppliedCatalog
from schemas.errors import ErasureUnderWayError, RequestError, RunError
from schemas.line_item import decode_line_item
from tests.support.erasable import (
    ANNA,
    BERT,
    CANARY,
    ERASED_AT,
    Person,
    at,
    erasable_catalog,
    erasing,
    follow,
    personal_log,
    tables_with,
    totals,
)
from tests.support.made_billing import close
from tests.support.pipeline_rig import CrashError, Life, crash_in, life

EPOCH = "log-erase"
PLANTED = {"catalog_versions", "corrections", "dead_letters", "events", "members", "rollups", "subjects"}


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A database in which January is closed, and what it says."""

    settings: Settings
    client: Client
    totals: list[tuple[Any, ...]]
    lines: list[str]
    found: Found | None = None

    @property
    def catalog(self) -> AppliedCatalog:
        newest = catalog_store.latest(self.client)
        assert newest is not None
        return newest

    def check(self) -> None:
        """No name is left, and every number is as it was, by every way of counting it."""
        assert tables_with(self.client) == []
        assert totals(self.client, self.catalog) == self.totals
        assert documents(self.client) == self.lines
        assert verify_period(self.client, "2013-01").differences == ()
        rebuilt = Rebuild(lambda name: connect(self.settings, database=name), self.catalog, list(self.catalog.meters))
        assert rebuilt.run(write=False).is_same
        assert audit(self.client, self.catalog, days=100).differences == []


def documents(client: Client) -> list[str]:
    return [one.document for one in read_lines(client, runs.closed(client, "2013-01"))]


@pytest.fixture
def erasable(changing_settings: Settings) -> World:
    return closed_world(changing_settings)


@pytest.fixture(scope="module")
def erased(clickhouse: ClickHouseUnderTest) -> Iterator[World]:
    """A world whose customer acme was erased, after a look; for tests that change nothing."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=f"test_{uuid.uuid4().hex[:12]}",
    )
    ensure_database(settings)
    migrate(connect(settings))
    world = closed_world(settings)
    before = tables_with(world.client)
    looked = erasing(settings).look("acme")
    assert before == tables_with(world.client) == sorted(PLANTED)
    done = erasing(settings).erase("acme")
    assert done == looked
    yield msgspec.structs.replace(world, found=done)
    world.client.command("DROP DATABASE {name:Identifier} SYNC", parameters={"name": settings.clickhouse_database})
    world.client.close()


def closed_world(settings: Settings) -> World:
    client = connect(settings)
    catalog = catalog_store.apply(client, erasable_catalog(), clock=ERASED_AT, applied_by="test")
    with life(settings, EPOCH) as worker:
        worker.run(personal_log())
    close(client, clock=ERASED_AT)
    assert verify_period(client, "2013-01").differences == ()
    return World(settings=settings, client=client, totals=totals(client, catalog), lines=documents(client))


def test_nothing_personal_is_left_and_every_number_is_as_it_was(erased: World) -> None:
    """F20. After an erasure no table has a planted name, and every total, line and proof is as it was."""
    assert len(erased.totals) > 10

    erased.check()

    found = erased.found
    assert found is not None
    assert (found.subjects, found.dead_letters, found.open_letters) == (2, 3, 3)
    assert (found.rows["events"], found.catalog_versions) == (20, 1)
    [entry] = audit_log.entries(erased.client, action=Action.CUSTOMER_ERASED)
    assert (entry.object, entry.by, entry.detail["rows"]["events"]) == ("acme", "ada@engine", 20)


def test_erasing_again_finds_nothing_and_makes_no_entry(erased: World) -> None:
    again = erasing(erased.settings).erase("acme")

    assert again.is_nothing
    assert len(erasure_store.listed(erased.client)) == 1
    assert len(audit_log.entries(erased.client, action=Action.CUSTOMER_ERASED)) == 1


def test_an_erasure_killed_at_every_step_keeps_others_out_and_ends_like_one_that_was_not(erasable: World) -> None:
    """F20. An erasure killed at every step keeps others out and ends like one that was not killed."""
    died: list[str] = []
    for wanted in STEPS[:-1]:

        def reached(step: str, wanted: str = wanted) -> None:
            if step == wanted:
                died.append(step)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            erasing(erasable.settings, reached=reached).erase("acme")
        assert totals(erasable.client, erasable.catalog) == erasable.totals
        with pytest.raises(ErasureUnderWayError):
            verify_period(erasable.client, "2013-01")
    with pytest.raises(RequestError, match="customer acme is being erased; one at a time"):
        erasing(erasable.settings).erase("bolt")
    worker = Life(erasable.settings, EPOCH)
    with pytest.raises(CrashError):
        worker.take_over(0)
    worker.stop()
    assert [type(one) for one in worker.fatal] == [ErasureUnderWayError]

    erasing(erasable.settings).erase("acme")

    assert died == list(STEPS[:-1])
    erasable.check()


def test_explain_shows_pseudonyms(erased: World) -> None:
    line = next(
        one.id for one in map(decode_line_item, erased.lines) if (one.customer, one.charge) == ("acme", "total")
    )
    explainer = Explainer(erased.client, line, RollupReader(erased.client))

    found, events = explainer.explain(), explainer.events(page=1, page_size=100)

    assert found.recomputed.differences == ()
    text = msgspec.json.encode([found, events]).decode()
    assert CANARY not in text
    assert text.count('"subject":"erased:') == 17


def test_late_events_repeats_and_a_log_that_is_read_again_bring_no_name_back(erasable: World) -> None:
    erasing(erasable.settings).erase("acme")
    log = personal_log()
    late = Person(subject=ANNA, id="CANARY-late", source="/CANARY-source", time=at("2013-02-05T12:00"), n="7", user="x")
    twice = msgspec.structs.replace(late, n="8")

    # The same log, late events behind it, and then all of it once more as another log.
    more = follow([*log[-8:], late, late, twice], first=len(log))
    with life(erasable.settings, EPOCH) as worker:
        worker.run(more)
    with life(erasable.settings, "log-again") as worker:
        worker.run([*log, *more])

    assert tables_with(erasable.client) == []
    accepted = erasable.client.query("SELECT epoch, sum(accepted) FROM positions FINAL GROUP BY epoch ORDER BY epoch")
    assert accepted.result_rows == [("log-again", 0), (EPOCH, 30)]
    february = [one for one in totals(erasable.client, erasable.catalog) if one not in erasable.totals]
    assert {(one[0], one[1], one[4]) for one in february if one[0] == "calls"} == {("calls", "acme", 18)}
    assert verify_period(erasable.client, "2013-01").differences == ()
    assert documents(erasable.client) == erasable.lines


def test_events_ahead_of_the_ledger_when_it_is_erased_count_once(changing_settings: Settings) -> None:
    client = connect(changing_settings)
    catalog = catalog_store.apply(client, erasable_catalog(), clock=ERASED_AT, applied_by="test")
    log = personal_log()

    crash_in(changing_settings, EPOCH, "events", 1, lambda one: one.run(log))
    assert client.query("SELECT count() FROM positions").result_rows == [(0,)]
    erasing(changing_settings).erase("acme")
    with life(changing_settings, EPOCH) as worker:
        worker.run(log)
    newest = catalog_store.latest(client)
    assert newest is not None
    erased = totals(client, newest)

    assert tables_with(client) == []
    assert sum(one[4] for one in erased if one[:2] == ("calls", "acme")) == 17
    assert sum(one[4] for one in erased if one[:2] == ("calls", "bolt")) == 9
    assert catalog.version + 1 == newest.version


def test_a_close_that_was_begun_keeps_an_erasure_out_and_the_other_way_round(erasable: World) -> None:
    class DiedError(Exception):
        pass

    def die(step: str) -> None:
        if step == "lines_read":
            raise DiedError

    with pytest.raises(DiedError):
        close(erasable.client, "2013-02", on_step=die, clock=ERASED_AT)
    with pytest.raises(RunError, match="begun and is not frozen"):
        erasing(erasable.settings).erase("acme")
    assert [one.state for one in erasure_store.listed(erasable.client)] == [ErasureState.ABANDONED]
    close(erasable.client, "2013-02", clock=ERASED_AT)

    def stop(step: str) -> None:
        if step == "members":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erasing(erasable.settings, reached=stop).erase("acme")
    with pytest.raises(ErasureUnderWayError):
        close(erasable.client, "2013-03", force=True, clock=ERASED_AT)
    erasing(erasable.settings).erase("acme")

    assert close(erasable.client, "2013-03", force=True, clock=ERASED_AT).changed
    assert [verify_period(erasable.client, one).differences for one in ("2013-01", "2013-02", "2013-03")] == [()] * 3


def test_a_catalog_that_still_names_them_is_stored_under_pseudonyms(erasable: World) -> None:
    erasing(erasable.settings).erase("acme")
    version = erasable.catalog.version

    same = catalog_store.apply(erasable.client, erasable_catalog(), clock=ERASED_AT, applied_by="test")
    more = catalog_store.apply(
        erasable.client, erasable_catalog(ANNA, BERT, "new-one"), clock=ERASED_AT, applied_by="test"
    )

    assert (same.version, more.version) == (version, version + 1)
    assert tables_with(erasable.client) == []
    assert "new-one" in more.customers["acme"].subjects
    erasable.check()


def test_a_receipt_that_was_changed_is_named(erasable: World) -> None:
    erasing(erasable.settings).erase("acme")

    # Of two events one says more and one less, so that no total tells.
    for number, other in ((b"1", b"2"), (b"1000", b"999")):
        erasable.client.command(
            "ALTER TABLE events UPDATE raw = replace(raw, {one:String}, {other:String}) "
            "WHERE startsWith(subject, 'erased:') AND position(raw, {one:String}) > 0",
            {"one": f'"n":{number.decode()},', "other": f'"n":{other.decode()},'},
            settings={"mutations_sync": 2},
        )

    found = verify_period(erasable.client, "2013-01").differences
    assert sum("its stored digest is not that of its bytes" in one for one in found) > 1


def test_a_customer_of_no_catalog_is_refused(erased: World) -> None:
    with pytest.raises(RequestError, match="no catalog has ever had a customer 'nobody'"):
        erasing(erased.settings).erase("nobody")
