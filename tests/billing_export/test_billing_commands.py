"""The commands apply, close, export and verify, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from metering.audit_log import Action, entries
from metering.config import Settings
from tests.support.made_billing import CATALOG, at, fold
from tests.support.made_usage import MadeEvent, UsageTables


def metering(settings: Settings, *arguments: str, status: int = 0) -> str:
    """What the command prints; its errors where `status` says that it must fail."""
    environment = {
        **os.environ,
        "METERING_CLICKHOUSE_URL": settings.clickhouse_url,
        "METERING_CLICKHOUSE_USERNAME": settings.clickhouse_username,
        "METERING_CLICKHOUSE_PASSWORD": settings.clickhouse_password,
        "METERING_CLICKHOUSE_DATABASE": settings.clickhouse_database,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-c", "from metering.cli import main; main()", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def test_a_month_is_closed_exported_and_verified(world: UsageTables, tmp_path: Path) -> None:
    closed = json.loads(metering(world.settings, "close", "--period", "2013-01", "--no-wait", "--json"))
    again = metering(world.settings, "close", "--period", "2013-01")
    exported = metering(world.settings, "export", "--period", "2013-01", "--to", "csv", "--out", str(tmp_path))
    verified = metering(world.settings, "verify", "--period", "2013-01")

    assert (closed["changed"], closed["run"], closed["lines_count"]) == (True, "2013-01.1", 10)
    assert [(one["customer"], one["amount"], one["currency"]) for one in closed["totals"]] == [
        ("acme", "4111166.83", "USD"),
        ("bolt", "37", "JPY"),
    ]
    assert "Nothing changed: run 2013-01.1 was closed at" in again
    assert exported == f"{tmp_path}/2013-01.1/line_items.csv: 10 lines of run 2013-01.1\n"
    assert len((tmp_path / "2013-01.1" / "line_items.csv").read_text().splitlines()) == 11
    assert verified == "Run 2013-01.1: 10 lines are what their events say (8 events read).\n"


def test_a_dry_run_shows_lines_and_leaves_the_period_open(world: UsageTables, tmp_path: Path) -> None:
    shown = metering(world.settings, "close", "--period", "2013-01", "--no-wait", "--dry-run")
    refused = metering(world.settings, "export", "--period", "2013-01", "--to", "csv", "--out", str(tmp_path), status=1)

    assert "12345678.223456789012" in shown
    assert shown.endswith("Nothing was frozen.\n")
    assert "period 2013-01 was never closed" in refused


def test_due_periods_are_closed_in_their_order_and_then_nothing_is_due(world: UsageTables) -> None:
    closed = json.loads(metering(world.settings, "close", "--due", "--customer", "bolt", "--no-wait", "--json"))
    again = metering(world.settings, "close", "--due", "--customer", "bolt", "--no-wait")

    assert [(one["run"], one["customers"], one["lines_count"]) for one in closed["runs"]] == [
        ("2013-01.1", ["bolt"], 6)
    ]
    assert again == "Nothing is due.\n"


def test_corrections_that_the_next_bill_carries_are_made_now_only_for_who_is_named(
    world: UsageTables,
) -> None:
    metering(world.settings, "close", "--period", "2013-01", "--no-wait")
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5", region="us")])

    waiting = metering(world.settings, "close", "--period", "2013-01", "--adjust", "--no-wait")
    made = metering(world.settings, "close", "--period", "2013-01", "--adjust", "--customer", "acme", "--no-wait")

    assert waiting.startswith("Nothing changed: there is nothing to correct now. Who will be billed again")
    assert "Run 2013-01.2 is closed with 2 lines." in made


def test_contradicting_options_are_refused(world: UsageTables) -> None:
    assert "one of --period and --due is needed" in metering(world.settings, "close", status=2)
    assert "--due takes neither" in metering(world.settings, "close", "--due", "--force", status=2)


def test_verify_fails_by_exit_code_and_names_the_line(world: UsageTables) -> None:
    metering(world.settings, "close", "--period", "2013-01", "--no-wait")
    world.client.command("ALTER TABLE line_items UPDATE amount = 9.9 WHERE charge = 'fee' SETTINGS mutations_sync = 2")

    complaint = metering(world.settings, "verify", "--period", "2013-01", status=1)

    assert "(acme / acme-1 / fee): in its columns amount is 9.9000, expected 49.9000" in complaint


def test_verify_proves_every_frozen_run_when_asked_for_all(world: UsageTables) -> None:
    nothing = metering(world.settings, "verify", "--all", status=1)
    for label in ("2012-12", "2013-01"):
        metering(world.settings, "close", "--period", label, "--no-wait")

    every = metering(world.settings, "verify", "--all")
    named = json.loads(metering(world.settings, "verify", "--period", "2013-01", "--period", "2012-12", "--json"))

    assert "no period was closed yet" in nothing
    assert every.startswith("Runs 2012-12.1, 2013-01.1: ")
    assert [one["run"] for one in named["runs"]] == ["2013-01.1", "2012-12.1"]
    assert named["differences"] == []
    assert "one of --period and --all is needed" in metering(world.settings, "verify", status=2)


def test_apply_shows_the_difference_and_what_to_rebuild(world: UsageTables, tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    new_meter = "  - {name: calls_long, event_type: used, aggregation: count}\ncustomers:"
    file.write_text(CATALOG.replace("49.90", "59.90").replace("customers:", new_meter))

    tried = metering(world.settings, "apply", str(file), "--dry-run")
    done = json.loads(metering(world.settings, "apply", str(file), "--json"))
    again = metering(world.settings, "apply", str(file))

    assert tried == (
        "+ meters calls_long\n"
        "    + event_type: used\n"
        "    + aggregation: count\n"
        "~ plans standard\n"
        "    - charges[fee].amount: 49.90\n"
        "    + charges[fee].amount: 59.90\n"
        "This would become catalog version 2. Nothing was changed.\n"
        "Events are there that meter calls_long has not seen: run `metering rebuild calls_long`.\n"
    )
    assert (done["version"], done["changed"], done["rebuild"]) == (2, True, ["calls_long"])
    assert again == "Unchanged: catalog version 2 stays in force.\n"
    (entry,) = entries(world.client, action=Action.CATALOG_APPLIED)
    assert (entry.object, entry.detail) == ("2", {"digest": done["digest"]})


def test_apply_names_the_line_of_what_contradicts_the_applied_catalog(world: UsageTables, tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(CATALOG.replace("aggregation: max, value: n", "aggregation: max, value: m"))

    complaint = metering(world.settings, "apply", str(file), status=2)

    assert f"{file}:6: meters[3].effective_from: meter 'max' measures something else than version 1" in complaint


def test_a_database_without_tables_says_what_to_run(world: UsageTables, database: str) -> None:
    empty = msgspec.structs.replace(world.settings, clickhouse_database=database)

    assert "Run `metering migrate`" in metering(empty, "verify", "--period", "2013-01", status=2)
