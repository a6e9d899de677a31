"""Every command, request and query in docs/usage.md gives the output that stands below it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from typer.testing import CliRunner

from ingest.problems import EXCEPTION_HANDLERS
from metering.cli import build_app
from metering.clock import FixedClock
from metering.principal import open_to_anybody
from metering.testing import ClickHouseUnderTest
from metering.usage.http import usage_routes
from tests.support.flight_usage import load_flights
from tests.support.made_usage import UsageTables, usage_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "usage.md"
GATEWAY = "http://127.0.0.1:18080"
CONSOLE = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
QUERY = re.compile(r"^```sql\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        load_flights(made)
        yield made


def run(tables: UsageTables, command: str) -> str:
    words = shlex.split(command)
    if words[0] == "curl":
        app = Litestar(
            usage_routes(tables.settings, clock=FixedClock(datetime(2013, 4, 1, tzinfo=UTC))),
            exception_handlers=EXCEPTION_HANDLERS,
            guards=[open_to_anybody],
            logging_config=None,
        )
        with TestClient(app) as http:
            return f"{http.get(words[-1].removeprefix(GATEWAY)).text}\n"
    settings = {
        "METERING_CLICKHOUSE_URL": tables.settings.clickhouse_url,
        "METERING_CLICKHOUSE_USERNAME": tables.settings.clickhouse_username,
        "METERING_CLICKHOUSE_PASSWORD": tables.settings.clickhouse_password,
        "METERING_CLICKHOUSE_DATABASE": tables.settings.clickhouse_database,
    }
    result = CliRunner().invoke(build_app(["usage"]), words[1:], env=settings)
    return f"error: {result.exception}\n" if result.exception else result.stdout.replace("\r\n", "\n")


def test_every_output_in_the_document_is_what_comes_out(tables: UsageTables, tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    def console(found: re.Match[str]) -> str:
        commands = [line for line in found.group(1).splitlines() if line.startswith("$ ")]
        return "".join(f"{command}\n{_trimmed(run(tables, command[2:]))}" for command in commands)

    def query(found: re.Match[str]) -> str:
        output = tables.client.raw_query(found.group(1), fmt="PrettySpaceNoEscapes").decode()
        return f"```sql\n{found.group(1)}```\n\n```text\n{_trimmed(output)}```\n"

    expected = QUERY.sub(query, CONSOLE.sub(console, text))
    (tmp_path / "usage.md").write_text(expected, encoding="utf-8")

    assert len(CONSOLE.findall(text)) >= 7
    assert len(QUERY.findall(text)) >= 3
    assert text == expected, f"copy {tmp_path / 'usage.md'} to docs/usage.md once it is right"


def _trimmed(output: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines() if line.strip())
