"""`metering export`: write frozen line items to files, or deliver them to the system that invoices."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from billing_export import runs
from billing_export.deliver import Delivered, deliver
from billing_export.delivery_claims import this_process
from billing_export.delivery_files import record_files
from billing_export.delivery_targets import TARGETS, TargetOptions, open_target
from billing_export.export import ExportFormat
from billing_export.export_focus import FocusOptions, check_options
from billing_export.export_lines import Documents
from billing_export.manifest import ExportFolder, export_folder
from billing_export.run import Run
from metering import audit_log
from metering.audit_log import Action
from metering.cli.connection import database_client, whoami
from metering.cli.export_said import say_done, say_preview
from metering.clock import SystemClock
from metering.config import Settings, load_settings
from schemas.errors import RequestError

PREVIEWED_MAX = 20


class ExportTarget(enum.Enum):
    """Everything that `--to` takes: the formats of files, then the systems that lines are delivered to."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    FOCUS = "focus"
    FOCUS_PARQUET = "focus-parquet"
    STRIPE = "stripe"
    STRIPE_METER_EVENTS = "stripe-meter-events"
    AWS_MARKETPLACE = "aws-marketplace"
    KAFKA = "kafka"
    WEBHOOK = "webhook"


FOCUS_FORMATS = frozenset({ExportFormat.FOCUS, ExportFormat.FOCUS_PARQUET})


def export(
    *,
    to: Annotated[
        list[ExportTarget],
        typer.Option("--to", help="A kind of file, or a system to deliver to; may be repeated."),
    ],
    period: Annotated[
        list[str] | None,
        typer.Option("--period", help="All runs of a period, such as 2013-01; may be repeated."),
    ] = None,
    run: Annotated[list[str] | None, typer.Option("--run", help="One run, such as 2013-01.2; may be repeated.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for files; each run gets a folder of its own in it.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="METER=NAME: what AWS (dimension) or Stripe (event name) calls a meter; may be repeated."
        ),
    ] = None,
    aws_rounding: Annotated[
        str, typer.Option("--aws-rounding", help="What to do with a fraction: refuse, half-up, down or up.")
    ] = "refuse",
    lines_per_request: Annotated[
        int, typer.Option("--lines-per-request", min=1, max=1000, help="Lines in one request of a webhook.")
    ] = 1,
    focus_provider: Annotated[
        str, typer.Option("--focus-provider", help="Who sells, as FOCUS names it; else METERING_FOCUS_PROVIDER.")
    ] = "",
    customer_totals: Annotated[
        bool, typer.Option("--customer-totals", help="Write a total of each customer into the manifest too.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="Tells several receivers of one kind apart in the ledger: webhook:NAME.")
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send again what the target refused before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Write the line items of closed periods to files, or deliver them: Stripe, AWS Marketplace, Kafka, a webhook.

    Files come in a folder for each run, with a manifest that `metering check-export` holds them against; exporting
    again gives the same bytes. A delivery sends every line once: it can be killed and run again, and it sends what is
    missing. What the target refuses is written down with its answer, the rest goes on, and the exit code is 1.

    Examples:
        metering export --period 2013-01 --to csv --out build

        metering export --period 2013-01 --to jsonl --to parquet --to focus --focus-provider Example --out build

        metering export --run 2013-01.2 --to stripe --dry-run

        metering export --period 2013-01 --to aws-marketplace --map traffic=GB --aws-rounding half-up

        metering export --period 2013-01 --to webhook --lines-per-request 100 --retry-failed
    """
    settings = load_settings()
    formats = [ExportFormat(one.value) for one in to if one.value not in TARGETS]
    kinds: list[str] = [one.value for one in to if one.value in TARGETS]
    if not period and not run:
        raise RequestError("says of no run", where="metering export", fix="Give --period 2013-01 or --run 2013-01.1")
    if formats and out is None and not dry_run:
        raise RequestError("needs a folder", where=f"--to {formats[0].value}", fix="Give --out FOLDER")
    focus = FocusOptions(
        provider=focus_provider or settings.focus_provider, service_category=settings.focus_service_category
    )
    if FOCUS_FORMATS & set(formats):
        check_options(focus)
    options = TargetOptions(
        name=name, mapping=_mapping(mapping or []), aws_rounding=aws_rounding, lines_per_request=lines_per_request
    )
    with database_client(settings) as client:
        chosen = [one for label in period or [] for one in runs.frozen(client, label)]
        chosen += [runs.by_id(client, one) for one in run or []]
        if dry_run:
            say_preview(_preview(client, chosen, formats, kinds, settings, options=options), json=json)
            return
        folders: list[ExportFolder] = []
        deliveries: list[Delivered] = []
        for one in chosen:
            if formats and out is not None:
                folders.append(_files(client, one, formats, out / one.id, focus, by_customer=customer_totals))
            deliveries += [_deliver(client, one, kind, settings, options, retry_failed=retry_failed) for kind in kinds]
    say_done(folders, deliveries, json=json)
    if not all(one.is_complete for one in deliveries):
        raise typer.Exit(1)


def _files(
    client: Client, run: Run, formats: list[ExportFormat], folder: Path, focus: FocusOptions, *, by_customer: bool
) -> ExportFolder:
    with _bar(run, f"{run.id}: files") as advance:
        written = export_folder(
            Documents(client, run, read_ahead=True),
            run,
            formats,
            folder,
            focus=focus,
            by_customer=by_customer,
            on_lines=advance,
        )
    record_files(client, run, written, clock=SystemClock(), exporter=this_process(whoami()))
    files = {file.name: file.sha256 for file in written.manifest.files}
    _note(client, run, {"to": [one.value for one in formats], "lines": run.lines_count, "files": files})
    return written


def _deliver(
    client: Client, run: Run, kind: str, settings: Settings, options: TargetOptions, *, retry_failed: bool
) -> Delivered:
    clock = SystemClock()
    target = open_target(kind, run, settings, options, clock=clock)
    try:
        with _bar(run, f"{run.id}: {target.name}") as advance:
            done = deliver(
                client,
                run,
                Documents(client, run).items(),
                target,
                clock=clock,
                exporter=this_process(whoami()),
                lease_s=settings.delivery_lease_s,
                retry_failed=retry_failed,
                on_lines=advance,
            )
    finally:
        target.close()
    counts = {
        "accepted": done.accepted,
        "accepted_before": done.accepted_before,
        "failed": done.failed + done.failed_before,
    }
    _note(client, run, {"to": [target.name], "complete": done.is_complete, **counts})
    return done


def _note(client: Client, run: Run, detail: dict[str, Any]) -> None:
    """Write into the audit log that the run went out, each time: every copy is one that somebody has."""
    audit_log.record(client, Action.RUN_EXPORTED, run.id, detail, clock=SystemClock(), by=whoami())


def _preview(
    client: Client,
    chosen: list[Run],
    formats: list[ExportFormat],
    kinds: list[str],
    settings: Settings,
    *,
    options: TargetOptions,
) -> list[dict[str, Any]]:
    """What would be sent: of each run and target the first deliveries, how many there are, and what would fail."""
    found: list[dict[str, Any]] = []
    for run in chosen:
        found += [{"run": run.id, "to": one.value, "lines_count": run.lines_count} for one in formats]
        for kind in kinds:
            target = open_target(kind, run, settings, options, clock=SystemClock())
            would_send: list[dict[str, object]] = []
            refused: list[dict[str, str]] = []
            count = 0
            for delivery in target.deliveries(Documents(client, run).items()):
                count += 1
                if delivery.refusal:
                    refused.append({"key": delivery.key, "reason": delivery.refusal})
                elif len(would_send) < PREVIEWED_MAX:
                    would_send.append(target.preview(delivery))
            target.close()
            found.append(
                {
                    "run": run.id,
                    "to": target.name,
                    "lines_count": run.lines_count,
                    "deliveries_count": count,
                    "refused": refused,
                    "first": would_send,
                }
            )
    return found


def _mapping(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        meter, equals, name = text.partition("=")
        if not meter or not equals or not name:
            raise RequestError(f"{text!r} is not METER=NAME", where="--map", fix="Write it as --map traffic=GB")
        found[meter] = name
    return found


class _bar:  # noqa: N801 - used as a function
    """A progress bar on standard error where that is a terminal; gives what to call with a number of lines."""

    def __init__(self, run: Run, title: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        screen = Console(stderr=True, quiet=not sys.stderr.isatty())
        self._progress = Progress(*columns, console=screen, transient=True, disable=not sys.stderr.isatty())
        self._task = self._progress.add_task(title, total=run.lines_count)

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda lines: self._progress.advance(self._task, lines)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
