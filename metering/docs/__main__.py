"""`python -m metering.docs` writes every generated page of docs/ anew; run it where the repository is.

The tables are described by an embedded ClickHouse that was just migrated, so nothing needs to be running.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from metering.clickhouse import connect, ensure_database
from metering.config import Settings
from metering.docs.cli import cli_markdown
from metering.docs.metrics import metrics_markdown
from metering.docs.settings import settings_markdown
from metering.docs.tables import described_tables, tables_markdown
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.migrate import migrate


def main() -> None:
    """Write the pages and name those that changed."""
    parser = argparse.ArgumentParser(prog="python -m metering.docs", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pages (%(default)s)")
    folder: Path = parser.parse_args().out
    for name, text in pages().items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file}")  # noqa: T201 - what a maintainer wants to know


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {
        "cli.md": cli_markdown(),
        "metrics.md": metrics_markdown(),
        "settings.md": settings_markdown(),
        "tables.md": _tables(),
    }


def _tables() -> str:
    with tempfile.TemporaryDirectory() as folder, EmbeddedClickHouse(Path(folder)) as engine:
        settings = Settings(clickhouse_url=engine.url)
        ensure_database(settings)
        client = connect(settings)
        try:
            migrate(client)
            return tables_markdown(described_tables(client))
        finally:
            client.close()


if __name__ == "__main__":
    main()
