"""`make demo`: a year of real flights through Kafka, a Faust worker and ClickHouse, to verified line items."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from billing_export.close import Closer
from billing_export.export import ExportFormat, export_runs
from billing_export.run import Run
from billing_export.totals import CustomerTotal, run_totals
from examples.flights.flights import MONTHS, TIMEZONE, flight_events, flights_file
from examples.flights.proof import prover
from examples.flights.tables import MonthlyUsage, invoice_table, usage_table, write_usage
from ingest.load_record import Load
from ingest.load_record import Progress as LoadProgress
from ingest.loader import load
from ingest.settlement import settle, wait_until_folded
from metering import catalog_store
from metering.catalog_file import read_catalog
from metering.cli.close import usage_reader
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.embedded.supervisor import Supervisor
from metering.log import configure_logging
from metering.prepare import prepare_services
from metering.stack import children
from metering.usage.answer import answer
from metering.version import CODE_VERSION
from schemas.catalog import AppliedCatalog
from schemas.errors import MeteringError
from schemas.period import month
from schemas.quantity import format_quantity
from schemas.usage_query import By, UsageQuery, UsageRow, Window

CATALOG: Final = Path(__file__).parent / "catalog.yaml"
FOLD_IDLE_S_MAX: Final = 60.0


def main() -> None:
    """Run the demo; ends with 1 and a clear message when anything is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m examples.flights", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the files go (%(default)s)")
    parser.add_argument("--twice", action="store_true", help="send every event a second time; no number may change")
    options = parser.parse_args()
    try:
        Demo(options.out).run(twice=options.twice)
    except MeteringError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


class Demo:
    """The main job, step by step. The stack lives in a folder of its own, made anew each time."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._console = Console(highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = SystemClock()
        kafka, clickhouse, gateway, worker = free_ports(4)
        self._settings = Settings(
            data_dir=out / "stack",
            kafka_port=kafka,
            clickhouse_port=clickhouse,
            gateway_port=gateway,
            worker_metrics_port=worker,
            flush_interval_s=2.0,
        )

    def run(self, *, twice: bool) -> None:
        """From an empty folder to files and tables."""
        started_s = time.monotonic()
        configure_logging(self._settings)
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        stack = Supervisor(
            self._settings,
            [one for one in children(self._settings, python=sys.executable) if one.name in ("gateway", "worker")],
            prepare=_prepare,
            console=self._errors,
            clock=self._clock,
        )
        with stack:
            client = connect(self._settings)
            catalog = catalog_store.apply(
                client, read_catalog(CATALOG), clock=self._clock, applied_by="examples.flights"
            )
            self._load(client)
            usage = self._usage(client, catalog)
            runs = self._bill(client)
            if twice:
                self._load(client)
                if self._usage(client, catalog) != usage:
                    sys.exit("error: sending every event a second time changed a number")
                self._console.print("Sent a second time: no number changed.")
            self._show(client, catalog, usage, runs)
            client.close()
        self._console.print(f"\nDone in {time.monotonic() - started_s:.0f} s.")

    def _load(self, client: Client) -> None:
        with Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._errors,
        ) as bar:
            sending = bar.add_task("sending", total=None)
            folding = bar.add_task("folding", total=None)

            def sent(progress: LoadProgress) -> None:
                bar.update(sending, completed=progress.acknowledged)

            loaded = load(flight_events(flights_file()), gateway_url=self._settings.gateway_address, on_progress=sent)
            bar.update(sending, completed=loaded.acknowledged, total=loaded.acknowledged)
            wait_until_folded(
                client,
                loaded,
                clock=self._clock,
                sleep=time.sleep,
                idle_s_max=FOLD_IDLE_S_MAX,
                on_progress=lambda done, total: bar.update(folding, completed=done, total=total),
            )
        self._say_settled(client, loaded)

    def _say_settled(self, client: Client, loaded: Load) -> None:
        settled = settle(client, loaded)
        self._console.print(
            f"{loaded.read:,} flights read, {loaded.acknowledged:,} acknowledged by Kafka: "
            f"{settled.accepted:,} accepted, {settled.duplicate:,} duplicate, "
            f"{loaded.refused + settled.rejected:,} rejected"
        )

    def _usage(self, client: Client, catalog: AppliedCatalog) -> list[MonthlyUsage]:
        """usage_monthly.csv: every meter by customer, origin and month."""
        rows = [
            MonthlyUsage(
                meter=meter,
                customer=row.who,
                origin=row.dimensions["origin"],
                month=_month_of(row),
                value=format_quantity(row.quantity),
            )
            for meter in catalog.meters
            for row in self._ask(client, catalog, meter, By.CUSTOMER, Window.MONTH, group_by=("origin",))
        ]
        return sorted(rows, key=lambda row: (row.meter, row.customer, row.origin, row.month))

    def _summary(
        self, client: Client, catalog: AppliedCatalog, by: By, window: Window
    ) -> list[tuple[str, Sequence[str]]]:
        """(month or customer, a value for each meter)."""
        values: dict[str, dict[str, str]] = {}
        for meter in catalog.meters:
            for row in self._ask(client, catalog, meter, by, window):
                name = row.who or _month_of(row)
                values.setdefault(name, {})[meter] = format_quantity(row.quantity)
        return [(name, [values[name].get(meter, "0") for meter in catalog.meters]) for name in sorted(values)]

    def _ask(
        self,
        client: Client,
        catalog: AppliedCatalog,
        meter: str,
        by: By,
        window: Window,
        *,
        group_by: tuple[str, ...] = (),
    ) -> list[UsageRow]:
        query = UsageQuery(
            meter=meter,
            start=month(MONTHS[0], TIMEZONE).start,
            end=month(MONTHS[-1], TIMEZONE).end,
            window=window,
            timezone=TIMEZONE,
            by=by,
            group_by=group_by,
        )
        return answer(client, catalog, query)

    def _bill(self, client: Client) -> list[tuple[Run, list[CustomerTotal]]]:
        """Close the twelve months; each that is closed is proved from its events, by a process beside this one."""
        closer = Closer(
            client=client,
            read_usage=usage_reader(client),
            clock=self._clock,
            grace_s=self._settings.grace_s,
            closed_by="examples.flights",
            code_version=CODE_VERSION,
        )
        with prover(self._settings) as prove:
            proofs = [prove(closer.close(label).run) for label in MONTHS]
            runs: list[Run] = []
            for proof in proofs:
                verified = proof.result()
                verified.raise_for_differences()
                (run,) = verified.runs
                self._console.print(
                    f"{run.period}: run {run.id} closed with {run.lines_count} line items, "
                    f"verified from {verified.events_count:,} events"
                )
                runs.append(run)
        return [(run, run_totals(client, run)) for run in runs]

    def _show(
        self,
        client: Client,
        catalog: AppliedCatalog,
        usage: list[MonthlyUsage],
        runs: list[tuple[Run, list[CustomerTotal]]],
    ) -> None:
        files = [self._out / "usage_monthly.csv"]
        write_usage(files[0], usage)
        for export_format in (ExportFormat.CSV, ExportFormat.JSONL):
            files.append(self._out / f"line_items.{export_format.value}")
            export_runs(client, [run for run, _ in runs], export_format, files[-1])
        meters = list(catalog.meters)
        by_month = self._summary(client, catalog, By.EVERYTHING, Window.MONTH)
        by_customer = self._summary(client, catalog, By.CUSTOMER, Window.TOTAL)
        self._console.print()
        self._console.print(usage_table("Usage by month, in New York time", "month", meters, by_month))
        self._console.print()
        self._console.print(usage_table("Usage of the year by customer", "customer", meters, by_customer))
        self._console.print()
        self._console.print(invoice_table([(run.period, totals) for run, totals in runs]))
        self._console.print("\nFiles:")
        for file in files:
            self._console.print(f"  {file}")
        self._console.print(
            f"\nTo look around in it, dashboard and all: METERING_DATA_DIR={self._settings.data_dir} metering up"
        )


def _month_of(row: UsageRow) -> str:
    return f"{row.window_start.astimezone(ZoneInfo(TIMEZONE)):%Y-%m}"


def _prepare(settings: Settings) -> None:
    prepare_services(settings)


if __name__ == "__main__":
    main()
