"""The commands explain, preview and simulate, as they are typed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from billing_export.explain import Explainer
from billing_export.line_store import read_lines
from billing_export.runs import by_id
from billing_export.usage_reader import RollupReader
from metering.config import Settings
from schemas.line_item import LineItem, decode_line_item
from tests.support.made_billing import JANUARY, at, close, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables


def metering(settings: Settings, *arguments: str, status: int = 0) -> str:
    """What the command prints, errors after the rest."""
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
    return done.stdout + done.stderr


def line_of(world: UsageTables, customer: str, charge: str, run: str = "2013-01.1") -> LineItem:
    items = (decode_line_item(one.document) for one in read_lines(world.client, by_id(world.client, run)))
    return next(one for one in items if (one.customer, one.charge) == (customer, charge))


def test_explain_prints_the_way_to_the_amount_and_a_page_of_events(world: UsageTables) -> None:
    close(world.client)
    line = line_of(world, "acme", "calls")

    shown = metering(world.settings, "explain", line.id[:13], "--events", "--page", "2", "--page-size", "3")
    lines = [" ".join(one.split()) for one in shown.splitlines()]

    assert lines[0] == "Calls: 6.01 USD"
    assert "Meter count, in calls" in lines
    assert "Version 1: count over events of type used" in lines
    assert "2013-01-15T00:00:00-05:00 2 2" in lines
    assert "from 0 up to 2 at 1.005 each 2 2.01" in lines
    assert "2013-02-01 04:59:59.999999 /made log-1-0-4 1 1 0:4" in lines
    assert f"This page adds 1; all 4 events on 2 pages add up to 4 calls, digest {line.digest}." in lines
    assert lines[-1] == "Computed again it is 6.01 USD: equal to the frozen line in every field."


def test_explain_as_json_has_everything(world: UsageTables) -> None:
    close(world.client)
    line = line_of(world, "bolt", "users")

    found = json.loads(metering(world.settings, "explain", line.id, "--json", "--events", "--window", "hour"))

    assert found["line"]["id"] == line.id
    assert [one["quantity"] for one in found["meter"]["windows"]] == ["1", "2"]
    assert [one["adds"] for one in found["events"]["events"]] == ["1", "1", "0"]
    assert (found["recomputed"]["amount"], found["is_equal"]) == ("14", True)


def test_explain_ends_with_exit_code_1_when_the_frozen_line_is_not_what_it_was_made_from(world: UsageTables) -> None:
    close(world.client)
    line = line_of(world, "acme", "calls")
    forged = 'replaceAll(document, \'"amount":"6.01"\', \'"amount":"9.01"\')'
    world.client.command(
        f"ALTER TABLE line_items UPDATE document = {forged} WHERE charge = 'calls' SETTINGS mutations_sync = 2"
    )

    shown = metering(world.settings, "explain", line.id, status=1)

    assert "Computed again it is NOT the frozen line of 9.01 USD:" in shown
    assert "amount is frozen as 9.01, computed again it is 6.01" in shown


def test_explain_answers_an_unknown_id_with_exit_code_2(world: UsageTables) -> None:
    close(world.client)

    assert "The newest lines of 'bolt' are" in metering(world.settings, "explain", "bolt", status=2)


def test_events_that_were_taken_back_are_left_out_and_a_replacement_names_what_it_replaces(world: UsageTables) -> None:
    replaced = MadeEvent(
        offset=10, time=at("2013-01-15T12:00"), value="0.7", region="us", subject="s2", corrects="log-1-0-2"
    )
    voided = MadeEvent(offset=11, time=at("2013-01-15T12:01"), corrects="log-1-0-3", voids=True)
    store_world(world)
    fold(world, [replaced, voided], JANUARY)
    close(world.client)
    reader = RollupReader(world.client)

    traffic = Explainer(world.client, line_of(world, "acme", "calls").id, reader).events(page=1, page_size=10)

    # Of acme's four calls one was taken back, and one was replaced.
    assert [(one.id, one.corrects) for one in traffic.events] == [
        ("log-1-0-1", ""),
        ("log-1-0-10", "/made log-1-0-2"),
        ("log-1-0-4", ""),
    ]
    assert traffic.quantity == line_of(world, "acme", "calls").quantity == "3"


def test_preview_prints_both_columns_and_a_total(world: UsageTables) -> None:
    shown = metering(world.settings, "preview", "bolt", "--period", "2013-01")
    found = json.loads(metering(world.settings, "preview", "bolt", "--period", "2013-01", "--json"))
    lines = [" ".join(one.split()) for one in shown.splitlines()]

    assert "peak 2013-01 7 7 7 7 JPY" in lines
    assert lines[-1] == "total 37 37 JPY"
    assert found["previews"][0]["totals"] == [{"currency": "JPY", "so_far": "37", "projected": "37"}]


def test_simulate_prints_a_table_csv_and_json(world: UsageTables, tmp_path: Path) -> None:
    plans, out = tmp_path / "new.yaml", tmp_path / "out.csv"
    plans.write_text("plans: [{id: standard, charges: [{id: fee, model: flat, amount: 40}]}]")
    asked = ("simulate", "--plan", str(plans), "--period", "2013-01")

    shown = [" ".join(one.split()) for one in metering(world.settings, *asked).splitlines()]
    printed = metering(world.settings, *asked, "--out", "csv")
    written = metering(world.settings, *asked, "--out", str(out))
    found = json.loads(metering(world.settings, *asked, "--json"))

    assert "acme =Acme 4111166.83 40.00 -4111126.83 USD" in shown
    assert shown[-1] == "2013-01 under standard, as of now."
    # A name that a spreadsheet would run as a formula is kept from it.
    assert list(csv.reader(printed.splitlines())) == [
        ["customer", "customer_name", "currency", "present", "simulated", "difference"],
        ["bolt", "Bolt", "JPY", "37", "37", "0"],
        ["acme", "'=Acme", "USD", "4111166.83", "40.00", "-4111126.83"],
    ]
    assert written == f"{out}: 2 customers\n"
    assert out.read_text() == printed
    assert [one["difference"] for one in found["totals"]] == ["0", "-4111126.83"]


def test_simulate_names_the_line_of_a_mistake_in_the_file(world: UsageTables, tmp_path: Path) -> None:
    plans = tmp_path / "new.yaml"
    plans.write_text("plans:\n  - {id: standard, charges: [{id: fee, model: flit, amount: 40}]}\n")

    complaint = metering(world.settings, "simulate", "--plan", str(plans), "--period", "2013-01", status=2)

    assert "new.yaml:2: plans[0].charges[0].model: found 'flit'" in complaint
    assert "did you mean 'flat'?" in complaint
    complaint = metering(world.settings, "simulate", "--plan", "x", "--period", "2013-01", "--map", "a", status=2)
    assert "'a' is no pair of plans" in complaint
