"""The command `metering`: each command is a module of this package with a function, or a group, of the same name."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable
from typing import Annotated, Final

import typer

from metering.version import CODE_VERSION
from schemas.errors import MeteringError

COMMANDS: Final = (
    "up",
    "apply",
    "ingest",
    "usage",
    "sql",
    "close",
    "export",
    "check-export",
    "verify",
    "explain",
    "preview",
    "simulate",
    "rebuild",
    "audit",
    "repair",
    "erase",
    "dead-letters",
    "keys",
    "gateway",
    "dashboard",
    "portal",
    "worker",
    "alerts",
    "migrate",
)
"""Every command, in the order in which `--help` lists them."""


def build_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands; only their modules are imported."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_metering)
    for name in commands:
        attribute = name.replace("-", "_")
        command = getattr(importlib.import_module(f"{__name__}.{attribute}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> None:
    """Run the command line. A MeteringError becomes one clear message and its exit code."""
    # What the driver logs about a service that is away, the command's own error says better.
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
    # `metering usage` need not wait until Faust is imported, so only the command that is asked for is.
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        build_app((asked,) if asked in COMMANDS else COMMANDS)(prog_name="metering")
    except MeteringError as error:
        typer.secho(f"error: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - the shape typer calls back with
    if asked:
        typer.echo(f"metering {CODE_VERSION}")
        raise typer.Exit


def _metering(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Usage events in, exact line items out: every number on an invoice can be proved from the log.

    Start here: [bold]metering up[/], then [bold]metering apply catalog.yaml[/] and [bold]metering ingest FILE[/].
    Settings are METERING_… variables; docs/settings.md lists them.
    """
