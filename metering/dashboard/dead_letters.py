"""Dead letters: which there are and why, the record itself, and sending them again."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromQuery, QueryParameter

from ingest import dead_letters as store
from ingest.dead_letters import LetterFilter, LetterState
from ingest.replay import replay
from metering.dashboard.pages import address
from metering.dashboard.site import Site, who_sees_everybody
from metering.keys import NotFoundError, Principal, Scope, needs
from metering.pipeline_state import dead_letter_counts
from schemas.errors import RequestError

LETTERS_SHOWN: Final = 100
BYTES_SHOWN: Final = 64 * 1024
_DIGITS_MAX: Final = 18


def dead_letter_routes(site: Site) -> list[Any]:
    """`GET /dead-letters`, `GET /dead-letter` and `POST /dead-letters/replay`."""
    counts = site.held("dead letters", lambda: _counted(site))

    @get("/dead-letters", opt=needs(Scope.ADMIN), sync_to_thread=True)
    def dead_letters(
        request: Request[Any, Any, Any],
        which_state: Annotated[LetterState, QueryParameter(name="state")] = LetterState.OPEN,
        reason: FromQuery[str] = "",
    ) -> Response[str]:
        principal = who_sees_everybody(request)
        which = LetterFilter(state=which_state, reasons=[reason] if reason else ())
        with site.database.client() as client:
            letters = store.letters(client, which, limit=LETTERS_SHOWN + 1)
        return site.pages.page(
            request,
            "dead_letters.html",
            principal=principal,
            counts=counts.get(),
            letters=letters[:LETTERS_SHOWN],
            more=len(letters) > LETTERS_SHOWN,
            shown_max=LETTERS_SHOWN,
            state=which_state,
            states=list(LetterState),
            reason=reason,
        )

    @get("/dead-letter", opt=needs(Scope.ADMIN), sync_to_thread=True)
    def dead_letter(
        request: Request[Any, Any, Any], partition: FromQuery[int], offset: FromQuery[int], epoch: FromQuery[str] = ""
    ) -> Response[str]:
        principal = who_sees_everybody(request)
        if partition < 0 or offset < 0:
            raise NotFoundError
        with site.database.client() as client:
            try:
                letter = store.find(client, partition, offset, epoch=epoch)
            except RequestError as error:
                raise NotFoundError from error
        return site.pages.page(
            request,
            "dead_letter.html",
            principal=principal,
            letter=letter,
            key=letter.key.decode("utf-8", "backslashreplace"),
            record=letter.raw[:BYTES_SHOWN].decode("utf-8", "backslashreplace"),
            is_cut=len(letter.raw) > BYTES_SHOWN,
        )

    @post("/dead-letters/replay", opt=needs(Scope.ADMIN), status_code=200)
    async def send_again(request: Request[Any, Any, Any]) -> Response[str]:
        principal = who_sees_everybody(request)
        form = await site.guard.checked_form(request)
        which = chosen(form)
        is_rehearsal = form.get("rehearse") == "yes"
        by = f"dashboard, key {principal.key}" if principal.key else "dashboard"

        def send() -> Any:
            with site.database.own_client() as client:
                return replay(client, site.settings, which, clock=site.clock, by=by, dry_run=is_rehearsal)

        done = await site.in_thread(send)
        return _result(site, request, principal, form, done, is_rehearsal=is_rehearsal)

    return [dead_letters, dead_letter, send_again]


def chosen(form: dict[str, str]) -> LetterFilter:
    """The open letters that a form names: one place, a reason, or all. Raises RequestError for one that names none."""
    reason, place, epoch = form.get("reason", ""), form.get("place", ""), form.get("epoch", "")
    if place:
        partition, _, offset = place.partition("/")
        if not all(one.isascii() and one.isdigit() and len(one) <= _DIGITS_MAX for one in (partition, offset)):
            raise RequestError(f"{place[:60]!r} is no letter", where="place", fix="Send it from the letter's page")
        return LetterFilter(places=[(int(partition), int(offset))], epoch=epoch)
    if not reason and form.get("every") != "yes":
        raise RequestError("no letter is named", where="replay", fix="Choose one, a reason, or all")
    return LetterFilter(reasons=[reason] if reason else ())


def _counted(site: Site) -> Any:
    with site.database.own_client() as client:
        return dead_letter_counts(client)


def _result(
    site: Site, request: Request[Any, Any, Any], principal: Principal, form: dict[str, str], done: Any, *,
    is_rehearsal: bool,
) -> Response[str]:  # fmt: skip
    named = {name: form[name] for name in ("reason", "place", "epoch", "every") if form.get(name)}
    back = address("/dead-letters", reason=form.get("reason", ""))
    return site.pages.page(
        request, "replayed.html", principal=principal, done=done, named=named, back=back, is_rehearsal=is_rehearsal
    )
