"""`metering ingest`: load files of usage events."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ingest.files.events import UNREADABLE_ROW, FileEvent, RowProblem
from ingest.files.mapping import Mapping
from ingest.files.reading import FileReader
from ingest.load_record import Load
from ingest.loader import BATCH_EVENTS, load
from ingest.settlement import Settlement, settle, wait_until_folded
from metering.cli.connection import database_client
from metering.clock import SystemClock
from metering.config import Settings, load_settings
from metering.log import configure_logging
from metering.tls import client_context
from schemas.errors import RequestError
from schemas.usage_event import REASONS

DRY_RUN_EVENTS = 5
PROBLEMS_SHOWN_MAX = 20


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a load did. `accepted` and `duplicate` are None without --wait; `rejected` counts rows and events."""

    read: int
    acknowledged: int
    accepted: int | None
    duplicate: int | None
    rejected: int
    reasons: dict[str, int]
    problems: list[RowProblem]
    times_ambiguous: int
    times_skipped: int


def ingest(
    files: Annotated[list[Path], typer.Argument(help="JSON lines, CSV or Parquet; .gz, .zst and .zip are inflated.")],
    *,
    format_: Annotated[str, typer.Option("--format", help="csv, jsonl or parquet; the suffix says it otherwise.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Event type of every row.")] = "",
    source: Annotated[str, typer.Option(help="Event source of every row: who gave the ids.")] = "",
    subject_column: Annotated[str, typer.Option(help="Column that says who used it.")] = "",
    time_: Annotated[
        str,
        typer.Option("--time", "--time-column", help="Column, or template: '{year:04}-{month:02}-{day:02}T{at:hhmm}'."),
    ] = "",
    time_zone: Annotated[str, typer.Option(help="IANA zone of times that name none.")] = "",
    time_format: Annotated[str, typer.Option(help="epoch_s, epoch_ms or a strptime pattern; ISO 8601 otherwise.")] = "",
    id_columns: Annotated[
        str, typer.Option("--id-columns", "--id-column", help="Columns that make a row unique: a,b,c.")
    ] = "",
    id_separator: Annotated[str, typer.Option(help="Character between the id's parts; no part may hold it.")] = "|",
    data_columns: Annotated[str, typer.Option(help="Columns that go into data: a,b,c. All the rest otherwise.")] = "",
    number_columns: Annotated[str, typer.Option(help="Columns whose digits are copied as JSON numbers: a,b,c.")] = "",
    absent: Annotated[
        list[str] | None, typer.Option(help="Cell text that means no value, besides empty; repeatable.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Between cells; a comma, or a tab in .tsv, otherwise.")] = "",
    gateway: Annotated[str, typer.Option(help="Address of the gateway; the settings say it otherwise.")] = "",
    batch_events: Annotated[int, typer.Option(min=1, help="Events in a request.")] = BATCH_EVENTS,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be taken.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the worker has folded every event.")
    ] = True,
    wait_timeout_s: Annotated[float, typer.Option(min=1, help="How long the ledger may stand still.")] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the first events and send nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Load files of usage events through the gateway, and say what was accepted, duplicate and rejected.

    Loading a file again is safe: every event keeps its id and counts once. Rows that cannot be taken are listed by
    file and line, the rest still loads, and the exit code is 1.

    Examples:
        metering ingest events.jsonl

        metering ingest calls.csv.gz --type call --source urn:pbx --subject-column account --time started_at
        --time-zone Europe/Berlin --id-columns call_id --number-columns seconds

        metering ingest usage.parquet --type request --source urn:api --subject-column tenant --time at --id-columns
        request_id --dry-run
    """
    mapping = _mapping(
        type_=type_,
        source=source,
        subject_column=subject_column,
        time=time_,
        id_columns=_names(id_columns),
        time_zone=time_zone,
        time_format=time_format,
        id_separator=id_separator,
        data_columns=_names(data_columns) or None,
        number_columns=_names(number_columns),
        absent=("", *(absent or ())),
    )
    reader = FileReader(mapping, format_=format_, delimiter=delimiter)
    if dry_run:
        _print_first(reader, files)
        return
    settings = load_settings()
    configure_logging(settings)
    with _progress(files) as advance:
        rows = chain.from_iterable(reader.read(path, advance) for path in files)
        loaded = load(
            rows,
            gateway_url=gateway or settings.gateway_address,
            api_key=settings.api_key,
            trusted=client_context(settings, "gateway_ca_file") if settings.gateway_ca_file else None,
            strict=strict,
            batch_events=batch_events,
        )
    settled = _settlement(settings, loaded, wait_timeout_s) if wait else None
    summary = _summary(reader, loaded, settled)
    _print_summary(summary, as_json=json_)
    if summary.rejected:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _mapping(*, type_: str, **options: Any) -> Mapping | None:
    """The mapping, or None for files of CloudEvents. Raises RequestError when it is only half given."""
    required = {
        "--type": type_,
        "--source": options["source"],
        "--subject-column": options["subject_column"],
        "--time": options["time"],
        "--id-columns": options["id_columns"],
    }
    missing = [name for name, value in required.items() if not value]
    if len(missing) == len(required):
        return None
    if missing:
        raise RequestError(
            f"{', '.join(missing)} must be given too",
            where="ingest",
            fix="Or give none of them for CloudEvents in JSON lines",
        )
    return Mapping(event_type=type_, **options)


def _print_first(reader: FileReader, files: list[Path]) -> None:
    for row in islice(chain.from_iterable(reader.read(path) for path in files), DRY_RUN_EVENTS):
        if isinstance(row, FileEvent):
            typer.echo(row.event.decode())
        else:
            typer.echo(f"{row.file}:{row.line}: {row.detail}", err=True)


@contextmanager
def _progress(files: list[Path]) -> Iterator[Any]:
    """A bar on stderr over the files' bytes; nothing when stderr is no terminal."""
    console = Console(stderr=True)
    size_bytes = sum(path.stat().st_size for path in files if path.is_file())
    with Progress(
        TextColumn("loading"), BarColumn(), DownloadColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("loading", total=size_bytes)
        yield lambda read_bytes: bar.advance(task, read_bytes)


def _settlement(settings: Settings, loaded: Load, idle_s_max: float) -> Settlement:
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    with database_client(settings) as client:
        with console.status("waiting for the worker"):
            wait_until_folded(client, loaded, clock=SystemClock(), sleep=time.sleep, idle_s_max=idle_s_max)
        return settle(client, loaded)


def _summary(reader: FileReader, loaded: Load, settled: Settlement | None) -> Summary:
    reasons = loaded.reasons + settled.reasons if settled else loaded.reasons
    return Summary(
        read=loaded.read + loaded.reasons[UNREADABLE_ROW],
        acknowledged=loaded.acknowledged,
        accepted=settled.accepted if settled else None,
        duplicate=settled.duplicate if settled else None,
        rejected=loaded.refused + (settled.rejected if settled else 0),
        reasons=dict(reasons.most_common()),
        problems=[*loaded.problems, *(settled.rejections if settled else [])],
        times_ambiguous=reader.times_ambiguous,
        times_skipped=reader.times_skipped,
    )


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(summary))
        return
    console = Console()
    table = Table("rows", "events", box=None)
    counts = {
        "acknowledged by Kafka": summary.acknowledged,
        "accepted": summary.accepted,
        "duplicate": summary.duplicate,
        "rejected": summary.rejected,
        "local times that happened twice": summary.times_ambiguous or None,
        "local times that never happened": summary.times_skipped or None,
    }
    for name, count in counts.items():
        if count is not None:
            table.add_row(name, f"{count:,}")
    console.print(table)
    if summary.reasons:
        reasons = Table("reason", "rows", "meaning", box=None)
        for reason, count in summary.reasons.items():
            reasons.add_row(reason, f"{count:,}", REASONS.get(reason, "the row makes no event"))
        console.print(reasons)
    for problem in summary.problems[:PROBLEMS_SHOWN_MAX]:
        about = " ".join(filter(None, (problem.reason, problem.field)))
        typer.echo(f"{problem.file}:{problem.line}: {about}: {problem.detail}", err=True)
    if summary.rejected > PROBLEMS_SHOWN_MAX:
        typer.echo(f"and {summary.rejected - PROBLEMS_SHOWN_MAX} more; --json lists the first 1000", err=True)
