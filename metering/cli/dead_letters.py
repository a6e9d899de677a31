"""`metering dead-letters`: look at rejected records, send them again, or set them aside."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from ingest import dead_letters as store
from ingest.dead_letters import DeadLetter, LetterFilter, LetterState
from ingest.replay import Replay
from ingest.replay import replay as send_again
from metering import audit_log, partition_pauses
from metering.audit_log import Action
from metering.cli.connection import database_client, whoami
from metering.cli.paused_partitions import resume, say_paused
from metering.cli.wide_console import wide_console
from metering.clock import SystemClock
from metering.config import load_settings
from metering.log import configure_logging
from metering.usage.parameters import moment_of
from schemas.errors import RequestError
from schemas.zone import zone_of

SHOWN_CHARACTERS_MAX: Final = 100

dead_letters = typer.Typer(
    no_args_is_help=True, help="Look at records that could not be billed on, send them again, or set them aside."
)
dead_letters.command()(resume)

_Places = Annotated[
    list[str] | None, typer.Argument(help="PARTITION/OFFSET, as the list shows them.", show_default=False)
]
_Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only with this reason; may be repeated.")]
_Since = Annotated[str, typer.Option(help="Only those logged from this day or time on, UTC.")]
_Until = Annotated[str, typer.Option(help="Only those logged before this day or time, UTC.")]
_Epoch = Annotated[str, typer.Option(help="Only those of this log: cluster id/topic id.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
_Every = Annotated[bool, typer.Option("--all", help="All that are open, whatever their reason.")]


@dead_letters.command("list")
def list_(
    *,
    reason: _Reasons = None,
    since: _Since = "",
    until: _Until = "",
    epoch: _Epoch = "",
    state: Annotated[LetterState, typer.Option(help="Which to list.")] = LetterState.OPEN,
    summary: Annotated[bool, typer.Option("--summary", help="Only count them, by reason.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most letters to list.")] = 100,
    json: _Json = False,
) -> None:
    """List dead letters with the reason for each, in the order of the log; says so when a partition is paused.

    Examples:
        metering dead-letters list --summary

        metering dead-letters list --reason unknown_type --since 2013-01-31 --json
    """
    which = _filter(None, reason, since, until, epoch, state=state)
    with database_client(load_settings()) as client:
        found: Any = store.counts(client, which) if summary else store.letters(client, which, limit=limit)
        paused_now = partition_pauses.paused(client, epoch)
    say_paused(paused_now)
    if json:
        typer.echo(msgspec.json.encode(found if summary else [_fields(one) for one in found]))
        return
    if not found:
        typer.echo(f"There is no dead letter that is {state.value}.")
        return
    if summary:
        table = Table("reason", "letters", "first", "last", "one of them says", box=None)
        for one in found:
            table.add_row(
                one.reason, f"{one.letters:,}", _minute(one.first_at), _minute(one.last_at), _plain(one.example)
            )
    else:
        table = Table("letter", "logged", "reason", "field", "what was found", box=None)
        for one in found:
            where = f"{one.id.partition}/{one.id.offset}"
            table.add_row(where, _minute(one.logged_at), one.reason, _plain(one.field), _plain(one.detail))
    wide_console().print(table)


@dead_letters.command()
def show(
    letter: Annotated[str, typer.Argument(help="PARTITION/OFFSET, as the list shows it.")],
    *,
    epoch: _Epoch = "",
    raw: Annotated[bool, typer.Option("--raw", help="Print the record's bytes and nothing else.")] = False,
    json: _Json = False,
) -> None:
    """Show one dead letter: why it was rejected, what became of it, and the record itself.

    Examples:
        metering dead-letters show 3/1042

        metering dead-letters show 3/1042 --raw
    """
    partition, offset = _place(letter)
    with database_client(load_settings()) as client:
        found = store.find(client, partition, offset, epoch=epoch)
    if raw:
        typer.echo(found.raw, nl=False)
        return
    fields = {**_fields(found), "key": _readable(found.key), "record": _readable(found.raw)}
    if json:
        typer.echo(msgspec.json.encode(fields))
        return
    table = Table(box=None, show_header=False)
    for name, value in fields.items():
        if value not in (None, ""):
            table.add_row(name.replace("_", " "), Text(_printable(str(value))))
    wide_console().print(table)


@dead_letters.command()
def replay(
    letters: _Places = None,
    *,
    reason: _Reasons = None,
    since: _Since = "",
    until: _Until = "",
    epoch: _Epoch = "",
    every: _Every = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")] = False,
    json: _Json = False,
) -> None:
    """Send open letters to the log again, once what kept them out is mended; each counts once however often.

    A letter that would be rejected again today is kept, with the reason, and the exit code is 1.

    Examples:
        metering dead-letters replay --reason unknown_type --dry-run

        metering dead-letters replay --reason unknown_type

        metering dead-letters replay 3/1042 3/1043
    """
    which = _chosen(letters, reason, since, until, epoch, every=every)
    settings = load_settings()
    configure_logging(settings)
    with database_client(settings) as client:
        done = send_again(client, settings, which, clock=SystemClock(), by=whoami(), dry_run=dry_run)
    if json:
        document = {"dry_run": dry_run, "sent": done.sent, "kept": dict(done.kept_reasons), "letters_kept": done.kept}
        typer.echo(msgspec.json.encode(document))
    else:
        _say(done, dry_run=dry_run)
    if done.kept_reasons:
        raise typer.Exit(1)


@dead_letters.command()
def discard(
    letters: _Places = None,
    *,
    why: Annotated[str, typer.Option(help="Why they are of no use; it is kept.")],
    reason: _Reasons = None,
    since: _Since = "",
    until: _Until = "",
    epoch: _Epoch = "",
    every: _Every = False,
) -> None:
    """Set open letters aside, with who did it and why. Nothing is deleted: `list --state discarded` has them.

    Examples:
        metering dead-letters discard 3/1042 --why "a test of the shop's developers"

        metering dead-letters discard --reason not_json --until 2013-02 --why "the old exporter, shut down"
    """
    if not why.strip():
        raise RequestError("say why", where="--why", fix="It is what somebody reads who looks for these records")
    clock, by = SystemClock(), whoami()
    which = _chosen(letters, reason, since, until, epoch, every=every)
    which = msgspec.structs.replace(which, until=which.until or clock.now())
    discarded = 0
    with database_client(load_settings()) as client:
        while page := store.letters(client, which):
            ids = [(one.id, None) for one in page]
            store.note(client, LetterState.DISCARDED, ids, why=why, clock=clock, by=by)
            discarded += len(page)
        if discarded:
            detail = {"letters": discarded, "reasons": list(which.reasons), "why": why}
            audit_log.record(client, Action.DEAD_LETTERS_DISCARDED, "dead_letters", detail, clock=clock, by=by)
    typer.echo(f"{discarded:,} letters are discarded.")


def _chosen(
    places: list[str] | None, reasons: list[str] | None, since: str, until: str, epoch: str, *, every: bool
) -> LetterFilter:
    """The open letters that were named. Raises RequestError for a command that names none: all is to be said."""
    if not (places or reasons or since or until or epoch or every):
        raise RequestError("say which letters", where="dead-letters", fix="Name them, or a --reason, or --all")
    return _filter(places, reasons, since, until, epoch, state=LetterState.OPEN)


def _filter(
    places: list[str] | None, reasons: list[str] | None, since: str, until: str, epoch: str, *, state: LetterState
) -> LetterFilter:
    utc = zone_of("UTC")
    return LetterFilter(
        state=state,
        reasons=reasons or (),
        epoch=epoch,
        places=[_place(place) for place in places] if places else None,
        since=moment_of(since, utc, "--since") if since else None,
        until=moment_of(until, utc, "--until") if until else None,
    )


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition("/")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (partition, offset)):
        raise RequestError(f"{text[:60]!r} is no letter", where="LETTER", fix="Write PARTITION/OFFSET, such as 3/1042")
    return int(partition), int(offset)


def _fields(one: DeadLetter) -> dict[str, Any]:
    return {
        "letter": f"{one.id.partition}/{one.id.offset}",
        "epoch": one.id.epoch,
        "topic": one.id.topic,
        "logged_at": one.logged_at,
        "reason": one.reason,
        "field": one.field,
        "detail": one.detail,
        "catalog_version": one.catalog_version,
        "bytes": one.bytes_count,
        "state": one.state.value,
        "state_at": one.state_at,
        "state_by": one.state_by,
        "why": one.why,
        "sent_to": f"{one.sent.partition}/{one.sent.offset}" if one.sent else None,
    }


def _say(done: Replay, *, dry_run: bool) -> None:
    typer.echo(f"{done.sent:,} letters {'would be' if dry_run else 'were'} sent again.")
    for reason, count in done.kept_reasons.most_common():
        example = next(one for one in done.kept if one.reason == reason)
        where = f"{example.id.partition}/{example.id.offset}"
        typer.echo(
            f"{count:,} kept, because they would be rejected again: {reason} ({where}: {_printable(example.detail)})",
            err=True,
        )


def _readable(record: bytes) -> str:
    """The record as text; what is no UTF-8 is shown byte by byte."""
    return record.decode("utf-8", "backslashreplace")


def _plain(text: str) -> Text:
    return Text(_printable(text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"))


def _printable(text: str) -> str:
    """Nothing that would steer a terminal: records come from anybody."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"
