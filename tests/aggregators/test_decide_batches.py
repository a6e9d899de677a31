"""Deciding: each record once, by the log alone, however it was cut into batches and whatever was stored already."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregators.decide import Decider, Decision, Limits, merge
from aggregators.dedupe import Identity, KeyFilter, Standing, identity_key, is_repeat
from schemas.admission import Admission
from schemas.meter import MeterVersion
from tests.support.pipeline_rig import LIMITS, batch_of
from tests.support.plain_log import CATALOG, Made, expected, made_log

VERSIONS = [MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in CATALOG.meters]
ADMISSION = Admission(VERSIONS, CATALOG.event_types)


class Shelf:
    """Stored events, as `events` in ClickHouse would answer for them."""

    def __init__(self) -> None:
        self.standings: dict[Identity, list[Standing]] = {}
        self.asked: list[Identity] = []

    def keep(self, decision: Decision) -> None:
        for one in decision.accepted:
            identity = (one.event.subject, one.event.source, one.event.id)
            mine = Standing(decision.epoch, decision.partition, one.offset, one.digest)
            if mine not in self.standings.setdefault(identity, []):
                self.standings[identity].append(mine)

    def look_up(self, identities: Sequence[Identity]) -> Mapping[Identity, Sequence[Standing]]:
        self.asked += identities
        return {one: self.standings[one] for one in identities if one in self.standings}

    def decider(self, epoch: str = "log", limits: Limits = LIMITS) -> Decider:
        """A decider as a new life has it: it knows every stored identity."""
        known = KeyFilter(1000)
        known.update(identity_key(one) for one in self.standings)
        return Decider(epoch, limits, known)


def decide(decider: Decider, shelf: Shelf, records: Sequence[Made], admission: Admission = ADMISSION) -> Decision:
    batch = batch_of(records, 1)
    return decider.decide(decider.decode(batch), records[0].offset, admission, shelf.look_up)


def fates(*decisions: Decision) -> tuple[list[int], int, list[tuple[int, str]]]:
    """(accepted offsets, duplicates, rejected offsets with their reasons)."""
    one = merge(decisions)
    return [each.offset for each in one.accepted], one.duplicate, [(each.offset, each.reason) for each in one.rejected]


def once(**changes: object) -> Made:
    return msgspec.structs.replace(Made(), **changes)


def test_the_second_of_two_in_one_batch_is_the_repeat() -> None:
    shelf = Shelf()

    assert fates(decide(shelf.decider(), shelf, [once(), once(offset=1)])) == ([0], 1, [])


def test_a_repeat_of_what_is_not_flushed_yet_is_known_without_asking() -> None:
    shelf = Shelf()
    decider = shelf.decider()

    found = [decide(decider, shelf, [once(offset=offset)]) for offset in (0, 1)]

    assert fates(*found) == ([0], 1, [])
    assert shelf.asked == []


def test_a_repeat_of_what_is_stored_is_asked_for() -> None:
    shelf = Shelf()
    decider = shelf.decider()
    first = decide(decider, shelf, [once()])
    shelf.keep(first)
    decider.flushed(first.accepted)

    assert fates(decide(decider, shelf, [once(offset=1), once(offset=2, id="other")])) == ([2], 1, [])
    assert shelf.asked == [once().identity]


@pytest.mark.parametrize("state", ["same batch", "unflushed", "stored"])
def test_one_identity_with_two_bodies_is_a_conflict_and_the_first_stays(state: str) -> None:
    shelf = Shelf()
    decider = shelf.decider()
    other = once(offset=1, n="2")
    if state == "same batch":
        found = [decide(decider, shelf, [once(), other])]
    else:
        found = [decide(decider, shelf, [once()])]
        if state == "stored":
            shelf.keep(found[0])
            decider.flushed(found[0].accepted)
        found.append(decide(decider, shelf, [other]))

    assert fates(*found) == ([0], 0, [(1, "identity_conflict")])
    assert "partition 0, offset 0" in found[-1].rejected[0].detail


def test_a_corrected_event_is_accepted_after_its_rejected_first_try() -> None:
    shelf = Shelf()
    bad = once(n='"12 apples"')

    found = decide(shelf.decider(), shelf, [bad, once(offset=1), once(offset=2)])

    assert fates(found) == ([1], 1, [(0, "invalid_number")])


def test_what_was_stored_at_this_very_offset_is_no_repeat_of_itself() -> None:
    shelf = Shelf()
    shelf.keep(decide(shelf.decider(), shelf, [once(), once(id="other", offset=1)]))

    again = decide(shelf.decider(), shelf, [once(), once(id="other", offset=1), once(offset=2)])

    assert fates(again) == ([0, 1], 1, [])
    assert [one.is_stored for one in again.accepted] == [True, True]


@pytest.mark.parametrize(
    ("other", "repeats"),
    [
        (Standing("log", 0, 4, 1), True),
        (Standing("log", 0, 5, 1), False),
        (Standing("log", 0, 6, 1), False),
        (Standing("log", 1, 9, 1), True),
        (Standing("another log", 0, 5, 1), True),
        (Standing("another log", 0, 9, 1), True),
    ],
)
def test_only_what_stood_elsewhere_or_earlier_makes_a_repeat(other: Standing, repeats: bool) -> None:
    assert (is_repeat(Standing("log", 0, 5, 1), [other]) is not None) == repeats


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
def test_however_a_log_is_cut_and_wherever_it_is_taken_up_again_it_is_decided_alike(
    seed: int, batch_max: int, crash_at: int
) -> None:
    """What was stored before the crash, ledger or not, is there for the second life, which cuts other batches."""
    chance = random.Random(seed)
    log = made_log(seed, 60, partitions=1)
    wanted = expected(log)
    shelf = Shelf()
    decider = shelf.decider()
    at = 0
    while at < crash_at:
        size = chance.randint(1, batch_max)
        found = decide(decider, shelf, log[at : at + size])
        if chance.random() < 0.7:
            shelf.keep(found)
            decider.flushed(found.accepted)
        at += size

    decider, at, second = shelf.decider(), 0, []
    while at < len(log):
        size = chance.randint(1, batch_max)
        second.append(decide(decider, shelf, log[at : at + size]))
        if chance.random() < 0.5:
            shelf.keep(second[-1])
            decider.flushed(second[-1].accepted)
        at += size

    accepted, duplicate, rejected = fates(*second)
    assert accepted == [offset for _, offset in wanted.accepted]
    assert duplicate == wanted.duplicates.get(0, 0)
    assert dict(rejected) == {offset: reason for (_, offset), reason in wanted.rejected.items()}


@pytest.mark.parametrize(
    ("record", "limits", "reason"),
    [
        (once(), {"event_bytes_max": 100}, "too_large"),
        (once(reason="x", bad=b"[" * 300), {"event_bytes_max": 300}, "too_deep"),
        (once(reason="x", bad=b"[" * 301), {"event_bytes_max": 300}, "too_large"),
        (once(reason="x", bad=None), {}, "empty_record"),
        (once(reason="x", bad=once(subject="other").raw), {}, "key_not_subject"),
        (once(logged_at_ms=0), {}, "time_ahead"),
        (once(), {"age_s_max": 1}, "time_too_old"),
        (once(type="unheard"), {}, "unknown_type"),
        (once(region="x" * 1025), {}, "invalid_dimension"),
    ],
)
def test_what_the_worker_alone_can_tell_is_rejected_with_its_reason(
    record: Made, limits: dict[str, int], reason: str
) -> None:
    shelf = Shelf()
    decider = shelf.decider(limits=msgspec.structs.replace(LIMITS, **limits))

    found = decide(decider, shelf, [record])

    assert [(one.reason, one.raw, one.key) for one in found.rejected] == [(reason, record.raw or b"", b"s")]


def test_a_record_without_a_key_is_rejected() -> None:
    shelf = Shelf()
    decider = shelf.decider()
    batch = msgspec.structs.replace(batch_of([once()], 1), keys=[None])

    found = decider.decide(decider.decode(batch), 0, ADMISSION, shelf.look_up)

    assert fates(found) == ([], 0, [(0, "key_not_subject")])


def test_every_offset_is_accounted_for_also_where_kafka_has_none() -> None:
    shelf = Shelf()
    records = [once(offset=offset, id=str(offset)) for offset in (3, 4, 9)]
    batch = batch_of(records, 1)
    decider = shelf.decider()

    found = decider.decide(decider.decode(batch), 2, ADMISSION, shelf.look_up)

    assert (found.first, found.last, found.absent) == (2, 9, 5)
    assert len(found.accepted) + found.duplicate + len(found.rejected) + found.absent == 8


@given(st.sets(st.integers(0, 2**64 - 1), max_size=300))
def test_a_filter_never_denies_a_key_it_was_given(keys: set[int]) -> None:
    known = KeyFilter(16)  # so small that it grows several times
    known.update(keys)

    assert all(key in known for key in keys)
