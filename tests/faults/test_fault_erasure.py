"""A customer erased while it goes on using meters, while workers fold and while its closed period is exported."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_export import runs
from billing_export.export import ExportFormat
from billing_export.export_lines import Documents
from billing_export.line_store import read_lines
from billing_export.manifest import export_folder
from billing_export.verify import verify_period
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock, SystemClock
from metering.config import Settings, variable_of
from tests.support.erasable import ANNA, BERT, CANARY, Person, at, erasable_catalog, files_with, tables_with, totals
from tests.support.fault_numbers import EVENTS, seeds
from tests.support.fault_stack import FaultStack, Sender
from tests.support.made_billing import close
from tests.support.plain_log import Made
from tests.support.worker_process import ROOT, WAIT_S

EXPORT_EVERY_S = 0.5
MAKING_WAY = 3
"""How a worker ends that makes way for an erasure, for whoever started it to start it again."""


def used(chance: random.Random, number: int, start: datetime) -> Made:
    """An event of one of two people to erase, or of somebody else."""
    subject = chance.choice([ANNA, BERT, "other"])
    kind, whose = (Made, "plain") if subject == "other" else (Person, CANARY)
    return kind(
        subject=subject,
        id=f"{whose}-{number}",
        source=f"/{whose}-source",
        time=start + timedelta(seconds=chance.randrange(27 * 86_400)),
        n=chance.choice(["1", "-2.5", "0.000000000001", '"3.25"']),
        region=chance.choice(["eu", "us", "test"]),
        user=f"{whose}-user-{chance.randrange(9)}",
    )


def expected(log: Sequence[Made]) -> dict[tuple[str, str], tuple[int, Decimal, int]]:
    """(events, sum, digest) of `calls` and `total` for each customer, in plain Python; every event has a number."""
    found: dict[tuple[str, str], tuple[int, Decimal, int]] = {}
    for one in {made.identity: made for made in log}.values():
        who = "bolt" if one.subject == "other" else "acme"
        for meter, value in (("calls", Decimal(1)), ("total", Decimal((one.n or "").strip('"')))):
            count, total, digest = found.get((meter, who), (0, Decimal(0), 0))
            found[meter, who] = (count + 1, total + value, (digest + one.digest) % (1 << 128))
    return found


def counted(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str], tuple[int, Decimal, int]]:
    """The same from usage answers."""
    return {
        (meter, who): (count, Decimal(quantity), int(digest, 16) if isinstance(digest, str) else digest)
        for meter, who, _, quantity, count, digest in rows
        if meter in {"calls", "total"}
    }


def erase_by_command(settings: Settings) -> subprocess.CompletedProcess[bytes]:
    """`metering erase acme` as its own process; readers are given a second to ask their last question."""
    plain = Settings()
    given = {
        variable_of(name): str(getattr(settings, name))
        for name in Settings.__struct_fields__
        if getattr(settings, name) != getattr(plain, name)
    }
    return subprocess.run(
        [sys.executable, "-m", "metering", "erase", "acme", "--json"],
        env={**os.environ, **given, variable_of("query_time_s_max"): "1"},
        cwd=ROOT,
        capture_output=True,
        timeout=500,
        check=False,
    )


class Exports:
    """Exports January again and again in the background, each time to a folder of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._client = connect(settings)
        self._folder = folder
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.wait(EXPORT_EVERY_S):
                self.once()
        except BaseException as error:  # noqa: BLE001 - told to whoever joins
            self._failure = error

    def once(self) -> None:
        run = runs.closed(self._client, "2013-01")
        formats = [ExportFormat.CSV, ExportFormat.JSONL, ExportFormat.PARQUET]
        export_folder(Documents(self._client, run), run, formats, self._folder / str(self.count))
        self.count += 1

    def join(self) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        if self._failure:
            raise self._failure

    def lines(self) -> set[bytes]:
        """What the files have in them; one element when all are the same."""
        return {one.read_bytes() for one in self._folder.rglob("*.jsonl")}


@pytest.mark.parametrize("seed", seeds())
def test_f20_a_customer_erased_during_ingest_and_export(faulty: FaultStack, tmp_path: Path, seed: int) -> None:
    """F20. A customer erased under load and during exports: totals and lines stay, no planted name is left anywhere."""
    chance = random.Random(seed)
    january = [used(chance, number, at("2013-01-02")) for number in range(EVENTS // 3)]
    february = [used(chance, EVENTS + number, at("2013-02-02")) for number in range(EVENTS // 3)]
    late = [used(chance, 2 * EVENTS + number, at("2013-01-02")) for number in range(EVENTS // 6)]
    again = chance.sample(january, k=len(january) // 3)
    poison = [
        Made(subject=ANNA, reason="not_json", bad=b"CANARY rubbish"),
        Made(subject=BERT, partition=1, reason="missing_field", bad=b'{"specversion":"1.0","subject":"CANARY"}'),
    ]
    catalog_store.apply(faulty.client, erasable_catalog(), clock=SystemClock(), applied_by="test")
    faulty.gateway()
    workers = [faulty.worker()]
    first, second = Sender(faulty), Sender(faulty)
    first.send(january)
    faulty.produce(poison)
    faulty.settle(workers[0])
    close(faulty.client, "2013-01", clock=FixedClock(datetime(2013, 2, 3, tzinfo=UTC)))
    lines = [one.document for one in read_lines(faulty.client, runs.closed(faulty.client, "2013-01"))]
    assert set(tables_with(faulty.client)) >= {"events", "rollups", "members", "dead_letters", "catalog_versions"}

    exports = Exports(faulty.settings, tmp_path)
    second.start([*february, *again, *late])

    # What a supervisor does: a worker that made way is started again, and waits until the erasure is done.
    def restart() -> None:
        workers[0].process.wait(WAIT_S)
        workers.append(faulty.worker())

    restarted = threading.Thread(target=restart)
    restarted.start()
    erased = erase_by_command(faulty.settings)
    restarted.join()
    second.join()
    faulty.produce(poison)
    faulty.settle(workers[1])
    exports.join()
    exports.once()

    newest = catalog_store.latest(faulty.client)
    assert newest is not None
    assert erased.returncode == 0, erased.stderr.decode()
    assert msgspec.json.decode(erased.stdout)["verified"] == ["2013-01"]
    assert workers[0].returncode == MAKING_WAY, workers[0].said
    assert workers[1].terminate() == 0
    assert tables_with(faulty.client) == []
    assert files_with(tmp_path) == []
    assert exports.lines() == {("\n".join(lines) + "\n").encode()}
    assert [one.document for one in read_lines(faulty.client, runs.closed(faulty.client, "2013-01"))] == lines
    assert verify_period(faulty.client, "2013-01").differences == ()
    rows = totals(faulty.client, newest)
    by_who: dict[tuple[str, str], tuple[int, Decimal, int]] = counted(rows)
    assert by_who == expected([*first.accepted, *second.accepted])
