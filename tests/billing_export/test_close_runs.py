"""Closing a period: the right lines, once, whoever closes, however often, and wherever it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import msgspec
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from billing_export import runs
from billing_export.close import STEPS
from billing_export.explain import explain
from billing_export.line_store import read_lines, rows_of, write_rows
from billing_export.run import Run, RunState
from billing_export.usage_reader import RollupReader
from metering import audit_log, catalog_store
from metering.audit_log import Action
from metering.catalog_file import parse_catalog
from metering.clock import FixedClock
from schemas.errors import InvariantViolationError, PeriodNotOverError, RequestError, RunError
from schemas.line_item import LineItem, decode_line_item
from schemas.usage_query import Cut, Position
from tests.support.made_billing import CATALOG, CLOCK, GRACE_S, LINES, at, close, closer, fold, other_connection
from tests.support.made_usage import MadeEvent, UsageTables


def documents(world: UsageTables, label: str = "2013-01") -> list[str]:
    run = runs.find(world.client, label)
    return [] if run is None else [line.document for line in read_lines(world.client, run)]


def lines(world: UsageTables, label: str = "2013-01") -> list[LineItem]:
    return [decode_line_item(text) for text in documents(world, label)]


def shown(items: list[LineItem]) -> list[tuple[str, str, str, str, str, str]]:
    return [
        (one.customer, one.charge, "/".join(one.dimensions.values()), one.quantity, one.amount_unrounded, one.amount)
        for one in items
    ]


def test_every_line_is_what_a_count_by_hand_gives(world: UsageTables) -> None:
    done = close(world.client)

    assert shown(lines(world)) == LINES
    assert (done.changed, done.run.state, done.run.lines_count) == (True, RunState.CLOSED, len(LINES))
    assert done.run.cut == Cut(positions=(Position(epoch="log-1", partition=0, offset=9),))


def test_a_line_says_what_an_invoice_and_a_proof_need(world: UsageTables) -> None:
    close(world.client)
    calls = lines(world)[1]

    assert (calls.run, calls.revision, calls.corrects, calls.catalog_version) == ("2013-01.1", 0, None, 1)
    assert (calls.period, calls.timezone, calls.period_start, calls.period_end) == (
        "2013-01", "America/New_York", at("2013-01-01T05:00"), at("2013-02-01T05:00"),
    )  # fmt: skip
    assert (calls.customer_name, calls.subscription, calls.plan, calls.model) == (
        "=Acme",
        "acme-1",
        "standard",
        "graduated",
    )
    assert (calls.description, calls.meter, calls.unit, calls.currency) == ("Calls", "count", "calls", "USD")
    assert [(one.quantity, one.flat_amount, one.amount) for one in calls.tiers] == [("2", "0", "2.01"), ("2", "3", "4")]
    assert calls.events_count == 4


def test_usage_counts_only_while_the_subscription_lasts(world: UsageTables) -> None:
    close(world.client)
    bolt = lines(world)[4]

    assert (bolt.period_start, bolt.service_start, bolt.service_end) == (
        at("2013-01-01T00:00"), at("2013-01-10T00:00"), at("2013-02-01T00:00"),
    )  # fmt: skip


def test_closing_again_changes_nothing_and_says_so(world: UsageTables) -> None:
    first = close(world.client)
    before = documents(world)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5")])

    again = close(world.client)

    assert (again.changed, again.run) == (False, first.run)
    assert documents(world) == before


def test_a_charge_without_usage_has_a_line_unless_it_is_grouped(world: UsageTables) -> None:
    close(world.client, "2012-12")

    assert shown(lines(world, "2012-12")) == [
        ("acme", "fee", "", "1", "49.9", "49.90"),
        ("acme", "calls", "", "1", "1.005", "1.01"),
        ("acme", "traffic", "eu", "1000", "333", "333.00"),
    ]
    close(world.client, "2012-11")
    assert shown(lines(world, "2012-11")) == [
        ("acme", "fee", "", "1", "49.9", "49.90"),
        ("acme", "calls", "", "0", "0", "0.00"),
    ]


def test_a_period_is_not_closed_before_its_grace_time_is_over_for_the_last_customer(world: UsageTables) -> None:
    # acme's January ends at 05:00 UTC on 1 February.
    over = at("2013-02-01T05:00") + timedelta(seconds=GRACE_S)

    with pytest.raises(PeriodNotOverError, match="over at 2013-02-02 05:00:00 UTC"):
        close(world.client, clock=FixedClock(over - timedelta(microseconds=1)))
    assert runs.find(world.client, "2013-01") is None
    assert close(world.client, clock=FixedClock(over)).run.forced is False


def test_a_forced_close_is_recorded_as_forced(world: UsageTables) -> None:
    assert close(world.client, clock=FixedClock(at("2013-01-20T00:00")), force=True).run.forced is True


def test_force_is_not_recorded_where_it_was_not_needed(world: UsageTables) -> None:
    assert close(world.client, force=True).run.forced is False


def test_an_export_does_not_change_when_a_run_was_closed(world: UsageTables) -> None:
    run = close(world.client).run
    exported = runs.mark_exported(world.client, run, run.at + timedelta(days=1))

    assert exported.at == run.at + timedelta(days=1)
    assert runs.closed_at(world.client, exported) == runs.closed_at(world.client, run) == run.at
    assert explain(world.client, lines(world)[0].id, RollupReader(world.client)).run.at == run.at


def test_the_audit_log_says_once_who_froze_a_run_however_many_closed_it(world: UsageTables) -> None:
    class DiedError(Exception):
        pass

    def die(step: str) -> None:
        if step == "freezing":
            raise DiedError

    with pytest.raises(DiedError):
        close(world.client, on_step=die)
    assert audit_log.entries(world.client, action=Action.RUN_CLOSED) == []

    begun = runs.by_id(world.client, "2013-01.1")
    for _ in range(2):  # the second froze what the first one froze in the meantime
        closer(world.client, closed_by="bo@engine").finish(begun)
    run = close(world.client).run

    (entry,) = audit_log.entries(world.client, action=Action.RUN_CLOSED)
    assert (entry.at, entry.by, entry.object) == (run.at, "bo@engine", "2013-01.1")
    assert entry.detail == {
        "kind": "bill",
        "customers": "all",
        "forced": False,
        "claimed_by": "ada@engine",
        "catalog_version": 1,
        "lines": len(LINES),
        "lines_digest": run.lines_digest,
    }


def test_a_dry_run_shows_the_lines_and_writes_nothing(world: UsageTables) -> None:
    items = closer(world.client).preview("2013-01")

    assert shown(items) == LINES
    assert runs.find(world.client, "2013-01") is None
    assert world.client.query("SELECT count() FROM line_items").result_rows == [(0,)]
    assert audit_log.entries(world.client) == []


def test_a_month_nobody_is_subscribed_in_cannot_be_closed(world: UsageTables) -> None:
    with pytest.raises(RunError, match="no subscription has any time in 2012-05"):
        close(world.client, "2012-05")


def test_a_label_that_is_no_month_cannot_be_closed(world: UsageTables) -> None:
    with pytest.raises(RequestError, match="'2013-13' is no period"):
        close(world.client, "2013-13")


def test_without_a_catalog_nothing_can_be_closed(world: UsageTables) -> None:
    world.clear()

    with pytest.raises(RunError, match="no catalog was applied"):
        close(world.client)


def test_nothing_is_billed_on_a_ledger_with_a_gap(world: UsageTables) -> None:
    fold(world, [MadeEvent(offset=12, time=at("2013-01-20T00:00"))])

    with pytest.raises(InvariantViolationError, match="does not account for the offsets before 12"):
        close(world.client)
    assert runs.find(world.client, "2013-01") is None


def test_a_close_goes_on_with_the_cut_and_the_catalog_it_was_claimed_with(world: UsageTables) -> None:
    class DiedError(Exception):
        pass

    def die(step: str) -> None:
        if step == "lines_read":
            raise DiedError

    with pytest.raises(DiedError):
        close(world.client, on_step=die)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5")])
    dearer = parse_catalog(CATALOG.replace("49.90", "99.90"))
    catalog_store.apply(world.client, dearer, clock=CLOCK, applied_by="test")

    done = close(world.client)

    assert (done.run.catalog_version, done.run.cut.positions[0].offset) == (1, 9)
    assert shown(lines(world)) == LINES


def test_of_two_claims_the_first_holds_whatever_the_second_says(world: UsageTables) -> None:
    def prepared(by: str) -> Run:
        wanted = closer(world.client, closed_by=by).prepared("2013-01")
        assert wanted is not None
        return wanted

    first = prepared("ada")
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5")])
    second = prepared("bob")
    assert first.cut != second.cut

    assert runs.claim(world.client, first) == first
    assert runs.claim(world.client, second) == first


def test_lines_of_another_making_stop_the_run_before_it_is_frozen(world: UsageTables) -> None:
    wanted = closer(world.client).prepared("2013-01")
    assert wanted is not None
    claimed = runs.claim(world.client, wanted)
    stray = closer(world.client).preview("2013-01")[0]
    write_rows(world.client, rows_of(claimed, [msgspec.structs.replace(stray, run=claimed.id)]), 99)

    with pytest.raises(InvariantViolationError, match="has 10 lines but 11 are stored"):
        close(world.client)
    with pytest.raises(RunError, match="is being closed; its lines are not frozen yet"):
        runs.closed(world.client, "2013-01")


def test_two_closers_at_once_freeze_one_set_of_lines(world: UsageTables) -> None:
    together = Barrier(3)

    def race(number: int) -> tuple[bool, str]:
        client = other_connection(world.settings)
        clock = FixedClock(datetime(2013, 2, 3, 0, 0, number, tzinfo=UTC))

        def meet(step: str) -> None:
            if step in ("claimed", "freezing"):
                together.wait(timeout=60)

        try:
            done = close(client, clock=clock, closed_by=f"closer {number}", on_step=meet)
        finally:
            client.close()
        return done.changed, done.run.lines_digest

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(race, range(3)))

    assert len({digest for _, digest in ends}) == 1
    assert shown(lines(world)) == LINES
    states = world.client.query("SELECT state, count() FROM runs GROUP BY state ORDER BY state").result_rows
    assert states == [("closed", 1), ("closing", 1)]


CLOSER = """
import os, signal, sys
from metering.clickhouse import connect
from metering.config import load_settings
from tests.support.made_billing import close

fatal = sys.argv[1]

def die(step):
    if step == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

client = connect(load_settings())
done = close(client, on_step=die)
print(done.changed, done.run.lines_digest)
client.close()
"""


def process_that_closes(world: UsageTables, fatal: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "METERING_CLICKHOUSE_URL": world.settings.clickhouse_url,
        "METERING_CLICKHOUSE_USERNAME": world.settings.clickhouse_username,
        "METERING_CLICKHOUSE_PASSWORD": world.settings.clickhouse_password,
        "METERING_CLICKHOUSE_DATABASE": world.settings.clickhouse_database,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.Popen(
        [sys.executable, "-c", CLOSER, fatal],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("fatal", STEPS)
def test_a_closer_killed_at_any_step_leaves_the_same_lines_to_the_next(world: UsageTables, fatal: str) -> None:
    """F22. A closer killed at any step leaves the same lines to the next one."""
    process = process_that_closes(world, fatal)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, complaint

    done = close(world.client)

    assert done.changed is (fatal != "frozen")
    assert shown(lines(world)) == LINES


def test_runs_have_one_order_and_each_is_claimed_once(world: UsageTables) -> None:
    for label in ("2012-11", "2013-01", "2012-12"):
        close(world.client, label)

    assert [(one.sequence, one.id) for one in runs.listed(world.client)] == [
        (1, "2012-11.1"),
        (2, "2013-01.1"),
        (3, "2012-12.1"),
    ]


def test_an_unfinished_run_is_finished_before_another_period_is_closed(world: UsageTables) -> None:
    wanted = closer(world.client).prepared("2013-01")
    assert wanted is not None
    runs.claim(world.client, wanted)

    close(world.client, "2012-12")

    assert [(one.id, one.state) for one in runs.listed(world.client)] == [
        ("2013-01.1", RunState.CLOSED),
        ("2012-12.1", RunState.CLOSED),
    ]
    assert shown(lines(world)) == LINES


def test_two_periods_that_are_closed_at_once_take_their_places_one_after_the_other(world: UsageTables) -> None:
    def race(label: str) -> str:
        client = other_connection(world.settings)
        try:
            return close(client, label).run.id
        finally:
            client.close()

    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(race, ("2012-11", "2012-12", "2013-01")))

    assert ended == ["2012-11.1", "2012-12.1", "2013-01.1"]
    assert [one.sequence for one in runs.listed(world.client)] == [1, 2, 3]
    assert all(one.state is RunState.CLOSED for one in runs.listed(world.client))


def test_a_delivered_run_is_marked_once(world: UsageTables) -> None:
    run = close(world.client).run

    first = runs.mark_exported(world.client, run, at("2013-02-04T00:00"))
    second = runs.mark_exported(world.client, run, at("2013-02-05T00:00"))

    assert (first.state, first.at, second) == (RunState.EXPORTED, at("2013-02-04T00:00"), first)
    assert first.lines_digest == run.lines_digest
    assert close(world.client).run == first


def test_a_cut_before_that_of_an_earlier_run_is_refused(world: UsageTables) -> None:
    close(world.client)
    world.client.command("TRUNCATE TABLE positions")

    with pytest.raises(RunError, match=r"run 2013-01\.1 to 9"):
        close(world.client, "2012-12")


def test_several_processes_make_the_lines_that_one_makes(world: UsageTables, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = closer(world.client).preview("2013-01")
    monkeypatch.setattr("billing_export.assemble.CUSTOMERS_AT_A_TIME", 1)
    monkeypatch.setattr("billing_export.close.CUSTOMERS_AT_A_TIME", 1)
    monkeypatch.setattr("billing_export.parallel.os.cpu_count", lambda: 2)
    done: list[tuple[int, int]] = []

    close(
        world.client,
        connect_again=lambda: other_connection(world.settings),
        on_progress=lambda count, total: done.append((count, total)),
    )

    assert lines(world) == alone
    assert done == [(1, 2), (2, 2)]


def test_what_fails_in_a_process_is_told_by_the_closer(world: UsageTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing_export.assemble.CUSTOMERS_AT_A_TIME", 1)
    monkeypatch.setattr("billing_export.close.CUSTOMERS_AT_A_TIME", 1)
    monkeypatch.setattr("billing_export.parallel.os.cpu_count", lambda: 2)
    world.client.command("RENAME TABLE rollups TO rollups_away")

    try:
        with pytest.raises(DatabaseError, match="rollups"):
            close(world.client, connect_again=lambda: other_connection(world.settings))
    finally:
        world.client.command("RENAME TABLE rollups_away TO rollups")
    close(world.client)
    assert shown(lines(world)) == LINES


def test_two_processes_that_close_at_once_agree(world: UsageTables) -> None:
    """F22. Two processes that close a period at once freeze one set of lines."""
    processes = [process_that_closes(world, "never") for _ in range(2)]
    outcomes = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert len({output.split()[1] for output, _ in outcomes}) == 1
    assert shown(lines(world)) == LINES
