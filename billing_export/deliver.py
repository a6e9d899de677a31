"""Delivers a frozen run to a target: what was accepted is not sent again, and what failed does not hold up the rest.

Safe to kill at any point. `sent` is written before anything leaves, the answer after it came; what has `sent` and no
answer is sent again with the same key, and the target, which is told so, makes one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.delivery import Answer, Delivery, Outcome, Sending, Target
from billing_export.delivery_claims import Claim, Exporter
from billing_export.delivery_ledger import KeyState, Known, Ledger
from billing_export.export_lines import require_frozen
from billing_export.run import Run
from metering.clock import Clock
from schemas.errors import RunError
from schemas.line_item import LineItem

STEPS: Final = ("claimed", "sent_written", "answered", "answers_written")
"""What `on_step` hears: the first once, the others for every group of deliveries, `answered` for every answer."""

REFUSED: Final = "refused"
FAILURES_SHOWN_MAX: Final = 20


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that failed: its key, its first line's customer, and what the target, or the check before it, said."""

    key: str
    customer: str
    status: str
    answer: str


class Delivered(msgspec.Struct, kw_only=True):
    """What came of it, in deliveries; `lines_left_out` are lines that are of no use to the target."""

    run: str
    target: str
    accepted: int = 0
    accepted_before: int = 0
    failed: int = 0
    failed_before: int = 0
    lines_count: int = 0
    lines_left_out: int = 0
    failures: list[Failure] = msgspec.field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether the target has everything that is meant for it."""
        return not self.failed and not self.failed_before


def deliver(
    client: Client,
    run: Run,
    items: Iterable[LineItem],
    target: Target,
    *,
    clock: Clock,
    exporter: Exporter,
    lease_s: float,
    retry_failed: bool = False,
    on_lines: Callable[[int], None] = lambda _: None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Delivered:
    """Send what the target does not have yet, and mark the run exported once it has everything.

    Failed deliveries are sent again only with `retry_failed`. Raises RunError for a run that is not frozen, while
    another exporter delivers it, or when the target refuses everything; UnavailableError when it does not answer.
    """
    require_frozen(run)
    ledger = Ledger(client, target=target.name, run=run.id, clock=clock, exporter=str(exporter))
    done = Delivered(run=run.id, target=target.name)
    with Claim(client, target=target.name, run=run.id, exporter=exporter, clock=clock, lease_s=lease_s) as claim:
        on_step("claimed")
        groups = _Groups(target, ledger, claim, done, clock=clock, retry_failed=retry_failed, on_step=on_step)
        is_new = ledger.is_empty()
        delivered_lines = 0
        source = target.deliveries(_counted(items, done))
        while group := tuple(islice(source, target.group_max)):
            claim.renew()
            groups.deliver(group, {} if is_new else ledger.states([one.key for one in group]))
            lines = sum(len(one.items) for one in group)
            delivered_lines += lines
            on_lines(lines)
        done.lines_left_out = done.lines_count - delivered_lines
    if done.is_complete:
        runs.mark_exported(client, run, clock.now())
    return done


class _Groups:
    """Delivers groups one after the other, and keeps the ledger and the count."""

    def __init__(
        self,
        target: Target,
        ledger: Ledger,
        claim: Claim,
        done: Delivered,
        *,
        clock: Clock,
        retry_failed: bool,
        on_step: Callable[[str], None],
    ) -> None:
        self._target = target
        self._ledger = ledger
        self._claim = claim
        self._done = done
        self._clock = clock
        self._retry_failed = retry_failed
        self._on_step = on_step

    def deliver(self, group: Sequence[Delivery], known: Mapping[str, Known]) -> None:
        open_ones = [one for one in group if self._is_open(known.get(one.key))]
        to_send = [one for one in open_ones if not one.refusal]
        mark = self._target.mark() if to_send else ""
        sendings = [_sending(one, known.get(one.key), self._clock, mark) for one in to_send]
        refused = [_sending(one, known.get(one.key), self._clock, "") for one in open_ones if one.refusal]
        self._ledger.write_sent(one for one in sendings if not one.unresolved)
        self._on_step("sent_written")
        answered = [(one, Answer(outcome=Outcome.FAILED, status=REFUSED, text=one.delivery.refusal)) for one in refused]
        stop = ""
        try:
            for sending, answer in self._target.send(sendings) if sendings else ():
                answered.append((sending, answer))
                self._on_step("answered")
                stop = answer.stop
                if stop:
                    break
                self._claim.renew()
        finally:
            self._ledger.write_answers(answered)
            _count(answered, self._done)
        self._on_step("answers_written")
        if stop:
            raise RunError(
                stop, where=f"run {self._done.run} to {self._target.name}", fix="Mend that, then use --retry-failed"
            )

    def _is_open(self, before: Known | None) -> bool:
        """Whether a delivery is to be sent; counts it when it is not."""
        if before is not None and before.state is KeyState.ACCEPTED:
            self._done.accepted_before += 1
            return False
        if before is not None and before.state is KeyState.FAILED and not self._retry_failed:
            self._done.failed_before += 1
            return False
        return True


def _sending(delivery: Delivery, before: Known | None, clock: Clock, mark: str) -> Sending:
    if before is not None and before.state is KeyState.SENT:
        return Sending(
            delivery=delivery, attempt=before.attempt, first_at=before.first_at, unresolved=True, mark=before.mark
        )
    attempt = 1 if before is None else before.attempt + 1
    return Sending(delivery=delivery, attempt=attempt, first_at=clock.now(), mark=mark)


def _count(answered: Iterable[tuple[Sending, Answer]], done: Delivered) -> None:
    for sending, answer in answered:
        if answer.outcome is Outcome.ACCEPTED:
            done.accepted += 1
            continue
        done.failed += 1
        if len(done.failures) < FAILURES_SHOWN_MAX:
            delivery = sending.delivery
            done.failures.append(
                Failure(key=delivery.key, customer=delivery.items[0].customer, status=answer.status, answer=answer.text)
            )


def _counted(items: Iterable[LineItem], done: Delivered) -> Iterator[LineItem]:
    for item in items:
        done.lines_count += 1
        yield item
