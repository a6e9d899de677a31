"""`metering migrate`: bring the tables and topics up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from metering.config import load_settings
from metering.migrate import printed
from metering.prepare import prepare_services


def migrate(
    *,
    only_print: Annotated[
        bool, typer.Option("--print", help="Write the statements of all tables and views out, and run none.")
    ] = False,
) -> None:
    """Create or update the ClickHouse tables and views, and create the Kafka topics that are absent.

    Safe to run again at any time, and by several machines at once. [bold]metering up[/] does it by itself.

    Examples:
        metering migrate

        METERING_CLICKHOUSE_URL=http://db:8123 METERING_KAFKA_SERVERS=broker:9092 metering migrate

        METERING_CLICKHOUSE_CLUSTER=metering metering migrate --print
    """
    settings = load_settings()
    if only_print:
        typer.echo(printed(cluster=settings.clickhouse_cluster, database=settings.clickhouse_database), nl=False)
        return
    done = prepare_services(settings)
    for name in done:
        typer.echo(f"created {name}")
    if not done:
        typer.echo("nothing to do: tables and topics are up to date")
