"""Deciding by columns: what holds for the columns of a batch and not for its events one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aggregators import decode
from aggregators.decide import Decider, Decision
from aggregators.dedupe import Identity, KeyFilter, Standing
from schemas.admission import Admission
from schemas.meter import MeterVersion
from tests.support.pipeline_rig import LIMITS, batch_of
from tests.support.plain_log import CATALOG, Made

ADMISSION = Admission(
    [MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in CATALOG.meters],
    CATALOG.event_types,
)


def made(*ids: str, first: int = 0) -> list[Made]:
    return [Made(offset=first + index, id=one) for index, one in enumerate(ids)]


def nothing_stored(_identities: Sequence[Identity]) -> dict[Identity, Sequence[Standing]]:
    return {}


def decide(decider: Decider, records: Sequence[Made]) -> Decision:
    return decider.decide(decider.decode(batch_of(records, 1)), records[0].offset, ADMISSION, nothing_stored)


def accepted(decision: Decision) -> list[tuple[int, str, bytes]]:
    return [(one.offset, one.event.id, one.raw) for one in decision.accepted]


def test_accepted_rows_say_each_event_as_it_came() -> None:
    records = [Made(offset=0, id="\u00fc"), Made(offset=1, id="2", subject="t"), Made(offset=2, id="3", n="7.5")]

    found = list(decide(Decider("log", LIMITS, KeyFilter()), records).accepted)

    assert [(one.offset, one.raw, one.digest, one.logged_at_ms, one.is_stored) for one in found] == [
        (one.offset, one.raw, one.digest, one.logged_at_ms, False) for one in records
    ]
    assert [(one.event.subject, one.event.source, one.event.id) for one in found] == [one.identity for one in records]


def test_an_event_that_becomes_durable_while_its_repeat_is_decided_is_looked_up() -> None:
    """Taking up a new catalog, between decoding a batch and deciding it, may find that a flush has ended."""
    first, again = Made(), Made(offset=1)
    decider = Decider("log", LIMITS, KeyFilter())
    kept = decide(decider, [first])
    standing = Standing("log", first.partition, first.offset, first.digest)

    decoded = decider.decode(batch_of([again], 1))
    decider.flushed(kept.accepted)
    found = decider.decide(decoded, 1, ADMISSION, lambda asked: {one: [standing] for one in asked})

    assert (accepted(found), found.duplicate) == ([], 1)


def test_identities_that_share_their_key_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bits name an identity nearly always; whoever finds two with the same must not lose an event to it."""
    monkeypatch.setattr(decode, "identity_keys", lambda subjects, _sources, _ids: [7] * len(subjects))
    decider = Decider("log", LIMITS, KeyFilter())

    one = decide(decider, made("a", "b", "b", "c"))
    two = decide(decider, made("b", "d", "a", "c", "e", first=4))

    assert [event.id for event in (row.event for row in one.accepted)] == ["a", "b", "c"]
    assert one.duplicate == 1
    assert [event.id for event in (row.event for row in two.accepted)] == ["d", "e"]
    assert two.duplicate == 3


def test_the_digest_of_a_batch_is_that_of_its_accepted_events() -> None:
    records = [*made("a", "b"), Made(offset=2, id="b"), Made(offset=3, id="c", n='"x"', reason="x", bad=b"{}")]

    found = decide(Decider("log", LIMITS, KeyFilter()), records)

    assert (len(found.accepted), found.duplicate, len(found.rejected)) == (2, 1, 1)
    assert not isinstance(found.accepted, list)
    assert found.accepted.digest == (records[0].digest + records[1].digest) % 2**128  # type: ignore[union-attr]
