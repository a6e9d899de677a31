"""Seeded lives of bills: late events, corrections, closes that die, exports; every event is billed once."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from billing_export import runs
from billing_export.close import STEPS
from billing_export.export import ExportFormat
from billing_export.export_lines import Documents
from billing_export.line_store import read_lines
from billing_export.manifest import export_folder
from billing_export.verify import verify_period
from metering.clock import FixedClock
from metering.testing import ClickHouseUnderTest
from schemas.line_item import LineItem, decode_line_item
from tests.support.made_billing import METERS, close, fold, store_world
from tests.support.made_corrections import taken_out
from tests.support.made_usage import MadeEvent, UsageTables, total_of, usage_tables

LIVES = max(2, int(os.environ.get("SIMULATE_SEEDS", "0")) // 300)
FIRST_SEED = int(os.environ.get("SIMULATE_SEED", "0"))
STEPS_COUNT = 16
MONTHS = ["2013-01", "2013-02", "2013-03", "2013-04", "2013-05"]
LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))
BILLED = """
customers: [{id: acme, subjects: [s1, s2]}]
plans:
  - id: plain
    charges:
      - {id: calls, model: per_unit, meter: count, unit_amount: 0.01}
      - {id: traffic, model: per_unit, meter: sum, unit_amount: 0.333}
subscriptions: [{id: acme-1, customer: acme, plan: plain, start: 2013-01-01}]
"""


class CrashError(Exception):
    """A closer is gone in the middle of a close."""


class Life:
    """A log that grows, and what is billed of it. `chance` decides everything."""

    def __init__(self, world: UsageTables, chance: random.Random, folder: Path) -> None:
        self._world = world
        self._client = world.client
        self._chance = chance
        self._folder = folder
        self._frozen: dict[str, list[str]] = {}
        self._exported: dict[str, bytes] = {}
        self._closed = 0
        self._begun_at: int | None = None
        self.history: list[str] = []
        self.log = [MadeEvent(offset=0, time=datetime(2013, 1, 1, tzinfo=UTC), value="0.1")]
        store_world(world, self.log, METERS + BILLED)

    def send(self) -> None:
        """Some events of any month, so that many are late."""
        self._append(*(self._event(number) for number in range(self._chance.randint(1, 4))))

    def void(self) -> None:
        """Take an event back, which may be a correction or taken back already."""
        self._correct(voids=True)

    def replace(self) -> None:
        """Put another in an event's place, of any month and value."""
        self._correct(voids=False)

    def close(self) -> None:
        """Bill the next month; what somebody began is finished first, with the cut it was begun with."""
        close(self._client, MONTHS[self._closed], clock=LATER)
        cut = len(self.log) if self._begun_at is None else self._begun_at
        self._closed, self._begun_at = self._closed + 1, None
        self._check_billed(self.log[:cut])

    def close_again(self) -> None:
        """Bill what was billed: nothing changes."""
        if self._closed and self._begun_at is None:
            assert not close(self._client, self._chance.choice(MONTHS[: self._closed]), clock=LATER).changed

    def crash(self) -> None:
        """A closer dies at a step, before the run is frozen."""
        fatal = self._chance.choice(STEPS[:-1])

        def die(step: str) -> None:
            if step == fatal:
                raise CrashError

        with pytest.raises(CrashError):
            close(self._client, MONTHS[self._closed], clock=LATER, on_step=die)
        if self._begun_at is None:
            self._begun_at = len(self.log)

    def export(self) -> None:
        """Write a frozen run to files: the same bytes each time."""
        if self._frozen:
            run = runs.by_id(self._client, self._chance.choice(sorted(self._frozen)))
            export_folder(Documents(self._client, run), run, [ExportFormat.CSV], self._folder / run.id)
            written = (self._folder / run.id / "line_items.csv").read_bytes()
            assert self._exported.setdefault(run.id, written) == written, f"I5: {run.id} is exported otherwise"

    ACTS = ((send, 5), (void, 3), (replace, 3), (close, 2), (close_again, 1), (crash, 2), (export, 2))

    def step(self) -> None:
        """One thing happens. The last month is left for `heal`."""
        acts = [one for one in self.ACTS if self._closed < len(MONTHS) - 1 or one[0] not in (Life.close, Life.crash)]
        (act,) = self._chance.choices([one for one, _ in acts], [weight for _, weight in acts])
        self.history.append(act.__name__)
        act(self)
        self._check_frozen()

    def heal(self) -> None:
        """Every month is closed in peace, and the last run corrects whatever came too late for those before."""
        while self._closed < len(MONTHS):
            self.close()
        self._check_frozen()
        for month in MONTHS:
            assert verify_period(self._client, month).differences == (), month

    def _check_frozen(self) -> None:
        """I5: no line of a frozen run is ever another."""
        for run in runs.listed(self._client):
            if run.is_frozen:
                documents = [one.document for one in read_lines(self._client, run)]
                assert self._frozen.setdefault(run.id, documents) == documents, f"I5: {run.id} has other lines"

    def _check_billed(self, log: list[MadeEvent]) -> None:
        """I3, I4: the lines of each closed month, corrections included, add up to the events that hold now."""
        out = {one.name for one in taken_out(log)}
        holds = [one for one in log if not one.voids and one.name not in out]
        lines = list(self._lines())
        for month in MONTHS[: self._closed]:
            mine = [one for one in holds if f"{one.time:%Y-%m}" == month]
            valued = [one for one in mine if one.value is not None]
            wanted = {
                "calls": (Decimal(len(mine)), len(mine)),
                "traffic": (total_of(Decimal(one.value or "0") for one in valued), len(valued)),
            }
            for charge, (quantity, count) in wanted.items():
                found = [one for one in lines if (one.period, one.charge) == (month, charge)]
                assert total_of(Decimal(one.quantity) for one in found) == quantity, f"I4: {month} {charge}"
                assert found[-1].events_count == count, f"I4: {month} {charge}"

    def _lines(self) -> Iterator[LineItem]:
        for run in runs.listed(self._client):
            yield from (decode_line_item(one.document) for one in read_lines(self._client, run))

    def _event(self, number: int = 0, subject: str = "") -> MadeEvent:
        month = datetime.fromisoformat(f"{self._chance.choice(MONTHS)}-01").replace(tzinfo=UTC)
        edge = timedelta(microseconds=self._chance.choice([0, 1]), days=self._chance.choice([0, 14, 27]))
        # No sum of these is zero: whatever changes a count changes a quantity, which is what a correction is about.
        return MadeEvent(
            offset=len(self.log) + number,
            subject=subject or self._chance.choice(["s1", "s2"]),
            time=month + edge,
            value=self._chance.choice([None, "1", "-2.123456789012", "0.000000000001", "123456789.000000000001"]),
        )

    def _correct(self, *, voids: bool) -> None:
        chosen = self._chance.choice(self.log)
        event = self._event(subject=chosen.subject)
        fields = {"time": event.time, "value": event.value, "offset": event.offset, "subject": event.subject}
        self._append(MadeEvent(**fields, corrects=chosen.name, voids=voids))  # type: ignore[arg-type]

    def _append(self, *events: MadeEvent) -> None:
        fold(self._world, events, self.log)
        self.log += events


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as tables:
        yield tables


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LIVES))
def test_seeded_lives_of_bills_bill_every_event_once(world: UsageTables, tmp_path: Path, seed: int) -> None:
    """L1. Whatever comes late, is taken back or dies: frozen lines stay, and all lines add up to what holds."""
    life = Life(world, random.Random(seed), tmp_path)
    try:
        for _ in range(STEPS_COUNT):
            life.step()
        life.heal()
    except BaseException as error:
        error.add_note(f"steps: {' '.join(life.history)}")
        error.add_note(f"replay: SIMULATE_SEED={seed} pytest {__file__}")
        raise
