"""Verify proves frozen lines from their events, and names whatever was tampered with."""

from __future__ import annotations

import pytest

from billing_export import runs
from billing_export.line_store import read_lines
from billing_export.verify import Verified, together, verify_period, verify_runs
from metering import catalog_store
from metering.catalog_file import parse_catalog
from schemas.errors import RunError, VerificationError
from schemas.line_item import decode_line_item
from tests.support.made_billing import CATALOG, CLOCK, JANUARY, LINES, at, close, fold, other_connection, store_world
from tests.support.made_usage import MadeEvent, UsageTables


def line_id(world: UsageTables, customer: str, charge: str, region: str = "") -> str:
    for line in read_lines(world.client, runs.closed(world.client, "2013-01")):
        item = decode_line_item(line.document)
        if (item.customer, item.charge, item.dimensions.get("region", "")) == (customer, charge, region):
            return item.id
    raise LookupError(charge)


def verified(world: UsageTables) -> Verified:
    return verify_period(world.client, "2013-01")


def change(world: UsageTables, statement: str) -> None:
    world.client.command(f"{statement} SETTINGS mutations_sync = 2")


def named(done: Verified) -> set[str]:
    """The ids of the lines that the differences name."""
    return {text.split()[1].rstrip(":") for text in done.differences if text.startswith("line ")}


def test_a_frozen_run_is_what_its_events_say(world: UsageTables) -> None:
    close(world.client)

    done = verified(world)

    assert done.differences == ()
    assert (done.lines_count, done.events_count) == (len(LINES), 8)
    done.raise_for_differences()


def test_events_after_the_cut_and_a_newer_catalog_do_not_touch_a_frozen_run(world: UsageTables) -> None:
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5")])
    dearer = parse_catalog(CATALOG.replace("49.90", "99.90"))
    catalog_store.apply(world.client, dearer, clock=CLOCK, applied_by="test")

    assert verified(world).differences == ()


def test_verify_does_not_read_rollups(world: UsageTables) -> None:
    close(world.client)
    for table in ("rollups", "members"):
        world.client.command(f"TRUNCATE TABLE {table}")

    assert verified(world).differences == ()


def test_a_rollup_that_was_tampered_with_before_the_close_is_found(world: UsageTables) -> None:
    change(world, "ALTER TABLE rollups UPDATE value_sum = value_sum + 1 WHERE meter = 'sum' AND subject = 's2'")
    close(world.client)

    done = verified(world)

    assert named(done) == {line_id(world, "acme", "traffic", "us")}
    assert "quantity is 1.2, expected 0.2; amount_unrounded is 0.3996, expected 0.0666" in done.differences[0]


def test_an_event_whose_bytes_were_changed_is_named_with_its_lines(world: UsageTables) -> None:
    close(world.client)
    change(world, 'ALTER TABLE events UPDATE raw = replace(raw, \'"n": "0.2"\', \'"n": "0.9"\') WHERE offset = 2')

    done = verified(world)

    name = "event s2 / /made / log-1-0-2 (log log-1, partition 0, offset 2)"
    assert f"{name}: its stored digest is not that of its bytes" in done.differences
    assert named(done) == {line_id(world, "acme", "traffic", "us"), line_id(world, "acme", "calls")}


def test_an_event_that_was_taken_away_is_missed_by_its_lines_and_by_the_ledger(world: UsageTables) -> None:
    close(world.client)
    change(world, "ALTER TABLE events DELETE WHERE offset = 8")

    done = verified(world)

    bolt = ("calls", "users", "peak", "level", "mean", "low")
    assert named(done) == {line_id(world, "bolt", charge) for charge in bolt}
    assert any(text.startswith("log log-1, partition 0: 9 events with digest") for text in done.differences)


def test_an_event_that_was_slipped_in_is_found_even_where_no_line_counts_it(world: UsageTables) -> None:
    close(world.client)
    stranger = MadeEvent(offset=3, time=at("2013-01-15T12:01"), value=None, subject="nobody")
    world._insert_events([stranger])

    assert [text.split(":")[0] for text in verified(world).differences] == ["log log-1, partition 0"]


def test_an_event_whose_time_was_moved_in_the_table_is_found(world: UsageTables) -> None:
    close(world.client)
    change(world, "ALTER TABLE events UPDATE time = '2013-01-16 00:00:00' WHERE offset = 2")

    differences = verified(world).differences

    assert len(differences) == 1
    assert "time is 2013-01-16 00:00:00+00:00 in the table but 2013-01-15 12:00:00+00:00 in its bytes" in differences[0]


def test_an_identity_that_stands_twice_is_reported_and_counted_once(
    world: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run that was closed before a close looked for such events."""
    monkeypatch.setattr("billing_export.close.obstacles", lambda *_: [])
    store_world(world, JANUARY)
    world.client.command("INSERT INTO events SELECT * REPLACE (10 AS offset) FROM events FINAL WHERE events.offset = 2")
    world.client.command(
        "INSERT INTO rollups SELECT * REPLACE (10 AS position, 10 AS position_first) FROM rollups FINAL "
        "WHERE subject = 's2'"
    )
    world.client.insert(
        "positions",
        [("log-1", "usage.events.v1", 0, 10, 10, 1, JANUARY[2].digest, 1)],
        column_names=["epoch", "topic", "partition", "first", "last", "accepted", "digest", "catalog_version"],
    )
    close(world.client)

    done = verified(world)

    assert done.differences[0] == (
        "event s2 / /made / log-1-0-2 stands 2 times, expected once: "
        "log log-1, partition 0, offset 2, log log-1, partition 0, offset 10"
    )
    assert named(done) == {line_id(world, "acme", "traffic", "us"), line_id(world, "acme", "calls")}


def test_a_line_whose_document_was_changed_is_named(world: UsageTables) -> None:
    close(world.client)
    wanted = line_id(world, "acme", "fee")
    change(
        world,
        'ALTER TABLE line_items UPDATE document = replace(document, \'"amount":"49.90"\', \'"amount":"9.90"\') '
        "WHERE charge = 'fee'",
    )

    done = verified(world)

    assert named(done) == {wanted}
    assert done.differences[0] == f"line {wanted} (acme / acme-1 / fee): amount is 9.90, expected 49.90"
    assert "were frozen" in done.differences[1]


def test_a_line_whose_columns_were_changed_is_named(world: UsageTables) -> None:
    close(world.client)
    change(world, "ALTER TABLE line_items UPDATE amount = 9.9, dimensions = map('region', 'xx') WHERE charge = 'fee'")

    assert verified(world).differences == (
        (
            f"line {line_id(world, 'acme', 'fee')} (acme / acme-1 / fee): in its columns "
            'dimensions is {"region":"xx"}, expected {}; amount is 9.9000, expected 49.9000'
        ),
    )


def test_a_line_that_was_taken_away_or_added_is_named(world: UsageTables) -> None:
    close(world.client)
    wanted = line_id(world, "acme", "fee")
    change(world, "ALTER TABLE line_items DELETE WHERE charge = 'fee'")
    world.client.command(
        "INSERT INTO line_items SELECT * REPLACE (10 AS line_number, generateUUIDv4() AS id) FROM line_items FINAL "
        "WHERE charge = 'peak'"
    )

    differences = verified(world).differences

    assert f"line {wanted} (acme / acme-1 / fee): missing, its events say quantity 1, amount 49.90" in differences
    assert any("nothing in the events calls for it" in text for text in differences)


def test_differences_end_verification_with_an_error_that_lists_them(world: UsageTables) -> None:
    close(world.client)
    change(world, "ALTER TABLE line_items UPDATE amount = 9.9 WHERE charge = 'fee'")

    with pytest.raises(VerificationError, match="acme / acme-1 / fee") as caught:
        verified(world).raise_for_differences()
    assert caught.value.exit_code == 1


def test_an_open_period_cannot_be_verified(world: UsageTables) -> None:
    with pytest.raises(RunError, match="period 2013-01 was never closed"):
        verified(world)


def test_several_processes_prove_what_one_proves(world: UsageTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing_export.parallel.os.cpu_count", lambda: 2)
    for label in ("2012-12", "2013-01"):
        close(world.client, label)
    change(world, "ALTER TABLE line_items UPDATE amount = 9.9 WHERE charge = 'fee' AND period = '2013-01'")
    frozen = runs.listed(world.client)

    alone = list(verify_runs(world.client, frozen))
    shared = list(verify_runs(world.client, frozen, connect_again=lambda: other_connection(world.settings)))

    assert [one.runs[0].id for one in alone] == ["2012-12.1", "2013-01.1"]
    assert [bool(one.differences) for one in alone] == [False, True]
    assert shared == alone


def test_what_is_wrong_with_the_log_is_said_once_for_all_runs_that_stand_on_it(world: UsageTables) -> None:
    for label in ("2012-12", "2013-01"):
        close(world.client, label)
    stranger = MadeEvent(offset=3, time=at("2013-01-15T12:01"), value=None, subject="nobody")
    world._insert_events([stranger])

    done = list(verify_runs(world.client, runs.listed(world.client)))

    assert [len(one.differences) for one in done] == [1, 1]
    assert [text.split(":")[0] for text in together(done).differences] == ["log log-1, partition 0"]
