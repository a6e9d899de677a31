"""Enters written files into the delivery ledger: a file that is there whole has been delivered."""

from __future__ import annotations

from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.delivery import Answer, Delivery, Outcome, Sending
from billing_export.delivery_claims import Exporter
from billing_export.delivery_ledger import KeyState, Ledger
from billing_export.manifest import ExportFolder
from billing_export.run import Run
from metering.clock import Clock


def record_files(client: Client, run: Run, folder: ExportFolder, *, clock: Clock, exporter: Exporter) -> None:
    """Write down the files of a folder, by format and SHA-256, and mark the run exported. Again changes nothing."""
    for file in folder.manifest.files:
        ledger = Ledger(client, target=file.format.value, run=run.id, clock=clock, exporter=str(exporter))
        known = ledger.states([file.sha256]).get(file.sha256)
        if known is not None and known.state is KeyState.ACCEPTED:
            continue
        sending = Sending(delivery=Delivery(key=file.sha256, items=()), attempt=1, first_at=clock.now())
        place = str(folder.path.resolve() / file.name)
        text = f"{file.size_bytes} bytes, {folder.manifest.lines_count} lines"
        ledger.write_answers(
            [(sending, Answer(outcome=Outcome.ACCEPTED, status="written", text=text, foreign_id=place))]
        )
    runs.mark_exported(client, run, clock.now())
