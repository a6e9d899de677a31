"""What every delivery target offers, and what goes to it and comes back.

A target turns line items into deliveries, in the same order with the same keys every time, and sends them. Whoever
calls it writes down `sent` before and the answer after, so a target may be asked to send again what it has sent before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec

from schemas.line_item import LineItem

ANSWER_CHARACTERS_MAX: Final = 2_000


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to send: a line, or lines that go as one. `refusal` says why it cannot be sent at all."""

    key: str
    items: tuple[LineItem, ...]
    refusal: str = ""


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery on its way. `unresolved`: it was sent at `first_at` before, and nobody knows whether it arrived."""

    delivery: Delivery
    attempt: int
    first_at: datetime
    unresolved: bool = False
    mark: str = ""


class Outcome(enum.Enum):
    """What came of a sending."""

    ACCEPTED = "accepted"
    FAILED = "failed"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a target said. `stop` is the reason why it would say the same to everything, such as a wrong key."""

    outcome: Outcome
    status: str
    text: str = ""
    foreign_id: str = ""
    stop: str = ""


class Target(Protocol):
    """Where lines can be delivered to."""

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        ...

    @property
    def group_max(self) -> int:
        """How many deliveries may be on their way before their answers are written down."""
        ...

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        """What is to be sent, in a fixed order; lines that are of no use to the target are in none."""
        ...

    def preview(self, delivery: Delivery) -> dict[str, object]:
        """What would be sent, as JSON values, for a dry run. No secret is in it."""
        ...

    def mark(self) -> str:
        """Where the target stands now, for targets that can be read back; else empty."""
        ...

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        """Send, and give each answer as soon as it is known.

        Raises UnavailableError when the target does not answer: what has no answer yet is sent again next time.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def shortened(text: str, *secrets: str) -> str:
    """An answer as it may be kept: without secrets, and not longer than the ledger takes."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    return text if len(text) <= ANSWER_CHARACTERS_MAX else text[: ANSWER_CHARACTERS_MAX - 1] + "…"
