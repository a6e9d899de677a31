"""The commands export and check-export, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from metering import audit_log
from metering.audit_log import Action
from metering.cli.connection import whoami
from metering.cli.export import ExportTarget
from metering.config import Settings
from tests.support.made_lines import EVERY_KIND, store_run
from tests.support.made_usage import UsageTables
from tests.support.receiver import Reply, Request, receiving, scripted

SECRET = "a secret of the receiver"
PERIOD = ("--period", "2013-01")


@pytest.fixture
def settings(module_world: UsageTables) -> Settings:
    for table in ("runs", "line_items", "deliveries", "delivery_claims", "audit_log"):
        module_world.client.command(f"TRUNCATE TABLE {table}")
    store_run(module_world.client, EVERY_KIND)
    return module_world.settings


def metering(settings: Settings | None, *arguments: str, status: int = 0, **variables: str) -> str:
    """What the command prints, its errors after its results."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if settings is not None:
        environment |= {
            "METERING_CLICKHOUSE_URL": settings.clickhouse_url,
            "METERING_CLICKHOUSE_USERNAME": settings.clickhouse_username,
            "METERING_CLICKHOUSE_PASSWORD": settings.clickhouse_password,
            "METERING_CLICKHOUSE_DATABASE": settings.clickhouse_database,
            "METERING_DELIVERY_PAUSE_S": "0.01",
        }
    environment |= {f"METERING_{name.upper()}": value for name, value in variables.items()}
    command = [sys.executable, "-c", "from metering.cli import main; main()", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_files_are_written_and_check_out_without_any_service(settings: Settings, tmp_path: Path) -> None:
    said = metering(settings, "export", *PERIOD, "--to", "csv", "--to", "parquet", "--out", str(tmp_path))
    folder = tmp_path / "2013-01.1"
    checked = metering(None, "check-export", str(folder))
    (folder / "line_items.csv").write_text("other")
    refused = metering(None, "check-export", str(folder), "--json", status=1)

    assert said == (
        f"{folder}/line_items.csv: 8 lines of run 2013-01.1\n{folder}/line_items.parquet: 8 lines of run 2013-01.1\n"
    )
    assert checked == f"{folder}: 8 lines of run 2013-01.1, 37 JPY, 15.16 USD: as the manifest says.\n"
    assert any(one.startswith("line_items.csv: its SHA-256 is") for one in json.loads(refused)["differences"])


def test_written_files_stand_in_the_delivery_ledger_once(
    settings: Settings, module_world: UsageTables, tmp_path: Path
) -> None:
    for _ in range(2):
        metering(settings, "export", *PERIOD, "--to", "jsonl", "--out", str(tmp_path))

    rows = module_world.client.query("SELECT target, state, foreign_id FROM deliveries").result_rows
    assert [tuple(row) for row in rows] == [("jsonl", "accepted", f"{tmp_path}/2013-01.1/line_items.jsonl")]


def test_a_delivery_says_what_failed_and_ends_with_1(settings: Settings) -> None:
    def answer(request: Request) -> Reply:
        refused = EVERY_KIND[3].id in request.body.decode().split('"reduces"')[0]
        return Reply(422, b"no such product") if refused else Reply(200)

    with receiving(answer) as receiver:
        given: Any = {"webhook_url": receiver.url, "webhook_secret": SECRET}
        first = metering(settings, "export", *PERIOD, "--to", "webhook", status=1, **given)
        second = metering(settings, "export", *PERIOD, "--to", "webhook", status=1, **given)
        receiver.answer = scripted()
        third = metering(
            settings, "export", "--run", "2013-01.1", "--to", "webhook", "--retry-failed", "--json", **given
        )

    assert first == (
        f"Run 2013-01.1 to webhook: 7 accepted, 1 failed.\n  acme {EVERY_KIND[3].id}: 422: no such product\n"
    )
    assert second == (
        "Run 2013-01.1 to webhook: 0 accepted, 7 had been before, 1 failed before (--retry-failed sends them again).\n"
    )
    (done,) = json.loads(third)["deliveries"]
    assert (done["accepted"], done["accepted_before"], done["complete"]) == (1, 7, True)
    assert SECRET not in first + second + third


def test_a_receiver_that_is_away_ends_with_3(settings: Settings) -> None:
    said = metering(
        settings, "export", *PERIOD, "--to", "webhook", status=3,
        webhook_url="http://127.0.0.1:9/token-in-the-path", webhook_secret=SECRET, delivery_attempts_max="2",
    )  # fmt: skip

    assert "no answer (ConnectError), 2 times in a row" in said
    assert "token-in-the-path" not in said


def test_every_export_stands_in_the_audit_log_and_a_dry_run_does_not(
    settings: Settings, module_world: UsageTables, tmp_path: Path
) -> None:
    metering(settings, "export", *PERIOD, "--to", "csv", "--out", str(tmp_path), "--dry-run")
    assert audit_log.entries(module_world.client) == []

    metering(settings, "export", *PERIOD, "--to", "csv", "--to", "jsonl", "--out", str(tmp_path))
    with receiving(scripted(422)) as receiver:
        given: Any = {"webhook_url": receiver.url, "webhook_secret": SECRET}
        metering(settings, "export", *PERIOD, "--to", "webhook", status=1, **given)
        metering(settings, "export", *PERIOD, "--to", "webhook", "--retry-failed", **given)

    written = {name: sha256((tmp_path / "2013-01.1" / name).read_bytes()).hexdigest()
               for name in ("line_items.csv", "line_items.jsonl")}  # fmt: skip
    found = audit_log.entries(module_world.client, action=Action.RUN_EXPORTED)
    assert {(one.object, one.by) for one in found} == {("2013-01.1", whoami())}
    assert [one.detail for one in found] == [
        {"to": ["webhook"], "complete": True, "accepted": 1, "accepted_before": 7, "failed": 0},
        {"to": ["webhook"], "complete": False, "accepted": 7, "accepted_before": 0, "failed": 1},
        {"to": ["csv", "jsonl"], "lines": 8, "files": written},
    ]


def test_two_receivers_of_one_kind_have_names(settings: Settings, module_world: UsageTables) -> None:
    with receiving(scripted()) as receiver:
        given: Any = {"webhook_url": receiver.url, "webhook_secret": SECRET}
        for name in ("crm", "erp"):
            metering(settings, "export", *PERIOD, "--to", "webhook", "--name", name, **given)

    rows = module_world.client.query("SELECT target, count() FROM deliveries GROUP BY 1 ORDER BY 1").result_rows
    assert [tuple(row) for row in rows] == [("webhook:crm", 16), ("webhook:erp", 16)]
    assert len(receiver.requests) == 16


def test_a_dry_run_shows_what_would_go_and_sends_nothing(settings: Settings, module_world: UsageTables) -> None:
    said = metering(
        settings, "export", *PERIOD, "--to", "stripe", "--to", "aws-marketplace", "--map", "calls=api_calls",
        "--dry-run", stripe_api_key="sk_test_1", aws_product_code="p", stripe_url="http://127.0.0.1:9",
    )  # fmt: skip

    assert "Run 2013-01.1 to stripe: 8 deliveries of 8 lines would go." in said
    assert '"amount":-5000' in said
    assert "would fail" in said
    assert "is no whole number; --aws-rounding says how" in said
    assert said.endswith("Nothing was sent.\n")
    assert "sk_test_1" not in said
    assert module_world.client.query("SELECT count() FROM deliveries").result_rows == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--to", "csv", "--out", "x"), "Give --period 2013-01 or --run 2013-01.1"),
        ((*PERIOD, "--to", "csv"), "Give --out FOLDER"),
        ((*PERIOD, "--to", "focus", "--out", "x"), "METERING_FOCUS_PROVIDER"),
        ((*PERIOD, "--to", "stripe"), "METERING_STRIPE_API_KEY"),
        ((*PERIOD, "--to", "webhook"), "METERING_WEBHOOK_URL"),
        ((*PERIOD, "--to", "aws-marketplace"), "METERING_AWS_PRODUCT_CODE"),
        ((*PERIOD, "--to", "aws-marketplace", "--map", "calls"), "'calls' is not METER=NAME"),
    ],
)
def test_what_is_missing_is_named(settings: Settings, arguments: tuple[str, ...], named: str) -> None:
    assert named in metering(settings, "export", *arguments, status=2)


def test_every_target_can_be_chosen() -> None:
    from billing_export.delivery_targets import TARGETS
    from billing_export.export import ExportFormat

    assert [one.value for one in ExportTarget] == [*(one.value for one in ExportFormat), *TARGETS]
