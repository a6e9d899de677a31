"""`metering apply`: put a catalog file into force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from metering import catalog_store, erasure_store
from metering.audit_log import Action, record
from metering.catalog_diff import Change, EntryChange, catalog_changes
from metering.catalog_file import read_catalog_text
from metering.cli.billing_tables import console
from metering.cli.connection import database_client, whoami
from metering.clock import SystemClock
from metering.config import load_settings

SHOWN_MAX: Final = 50
"""How many changes of one kind in one section are printed."""

_SIGNS = {Change.ADDED: ("+", "green"), Change.CHANGED: ("~", "yellow"), Change.REMOVED: ("-", "red")}


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply did: what `--json` prints. `rebuild` names meters to fill from history."""

    version: int
    digest: str
    changed: bool
    dry_run: bool
    changes: list[EntryChange]
    rebuild: list[str]


def apply(
    file: Annotated[Path, typer.Argument(help="The catalog: YAML or JSON, as docs/catalog.md describes.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show the difference; change nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Check a catalog file, show what it changes, and put it into force as the next catalog version.

    Versions are only ever added. An unchanged catalog adds none. Of two applies at the same moment one wins.

    Examples:
        metering apply catalog.yaml --dry-run

        metering apply catalog.yaml
    """
    read, clock = read_catalog_text(file), SystemClock()
    with database_client(load_settings()) as client:
        before = catalog_store.latest(client)
        catalog = erasure_store.without_erased(client, read.catalog)
        after = catalog_store.plan_apply(before, catalog, located=read.located, is_checked=True)
        changed = before is None or before.version != after.version
        if not dry_run:
            after = catalog_store.apply(client, catalog, clock=clock, applied_by=whoami(), is_checked=True)
            if changed:
                detail = {"digest": after.digest}
                record(client, Action.CATALOG_APPLIED, str(after.version), detail, clock=clock, by=whoami())
        done = Applied(
            version=after.version,
            digest=after.digest,
            changed=changed,
            dry_run=dry_run,
            changes=catalog_changes(
                before.catalog if before else None, catalog, detailed_max=None if json else SHOWN_MAX
            ),
            rebuild=catalog_store.unfilled_meters(client, after) if changed else [],
        )
    if json:
        typer.echo(msgspec.json.encode(done))
    else:
        _show(console(), done)


def _show(out: Console, done: Applied) -> None:
    _show_changes(out, done.changes)
    if not done.changed:
        out.print(f"Unchanged: catalog version {done.version} stays in force.")
    elif done.dry_run:
        out.print(f"This would become catalog version {done.version}. Nothing was changed.")
    else:
        out.print(f"Catalog version {done.version} is in force.")
    for name in done.rebuild:
        out.print(f"Events are there that meter {name} has not seen: run `metering rebuild {name}`.")


def _show_changes(out: Console, changes: Sequence[EntryChange]) -> None:
    """Every change, but of many of one kind only the first: nobody reads a hundred thousand new customers."""
    seen: Counter[tuple[str, Change]] = Counter()
    for entry in changes:
        seen[entry.section, entry.change] += 1
        if seen[entry.section, entry.change] > SHOWN_MAX:
            continue
        sign, colour = _SIGNS[entry.change]
        out.print(Text(f"{sign} {entry.section} {entry.name}", style=f"bold {colour}"))
        for field in entry.fields:
            if field.before is not None:
                out.print(Text(f"    - {field.field}: {field.before}", style="red"))
            if field.after is not None:
                out.print(Text(f"    + {field.field}: {field.after}", style="green"))
    for (section, change), count in seen.items():
        if count > SHOWN_MAX:
            sign, colour = _SIGNS[change]
            more = f"{sign} {count - SHOWN_MAX:,} more {section} {change.value}: --json names them all"
            out.print(Text(more, style=f"bold {colour}"))
