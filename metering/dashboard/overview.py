"""The first page: how the pipeline does, and what the running periods come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.response import Redirect

from billing_export.cut import ledger_cut
from billing_export.log_wait import unfolded
from billing_export.running import RunningTotal, running_totals
from billing_export.usage_reader import RollupReader
from metering.dashboard.charts import Series, bar_chart
from metering.dashboard.pages import address
from metering.dashboard.site import Site
from metering.kafka import log_ends, log_epoch
from metering.keys import Scope, needs
from metering.pipeline_state import (
    RATE_MINUTES,
    DeadLetterCount,
    Freshness,
    MinuteOfWork,
    dead_letter_counts,
    freshness,
    work_by_minute,
)
from metering.principal import principal_of
from schemas.topics import USAGE_EVENTS

MINUTES_SHOWN: Final = 60
_TENTH: Final = Decimal("0.1")


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """What ClickHouse knows of the pipeline."""

    minutes: tuple[MinuteOfWork, ...]
    partitions: tuple[Freshness, ...]
    letters: tuple[DeadLetterCount, ...]


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """Records that Kafka has and the ledger does not, by partition; partitions without any are left out."""

    behind: dict[int, int]

    @property
    def total(self) -> int:
        return sum(self.behind.values())


def overview_routes(site: Site) -> list[Any]:
    """`GET /`."""

    def count_pipeline() -> Pipeline:
        with site.database.own_client() as client:
            return Pipeline(
                minutes=tuple(work_by_minute(client, now=site.clock.now(), minutes=MINUTES_SHOWN)),
                partitions=tuple(freshness(client)),
                letters=tuple(dead_letter_counts(client)),
            )

    def count_lag() -> Lag:
        epoch, ends = log_epoch(site.settings, USAGE_EVENTS), log_ends(site.settings, USAGE_EVENTS)
        with site.database.own_client() as client:
            return Lag(behind=unfolded(ledger_cut(client), epoch, ends))

    def count_revenue() -> Sequence[RunningTotal]:
        with site.database.own_client() as client:
            return running_totals(client, RollupReader(client), now=site.clock.now())

    pipeline = site.held("pipeline", count_pipeline)
    lag = site.held("lag", count_lag)
    revenue = site.held("revenue", count_revenue)

    @get("/", opt=needs(Scope.QUERY), sync_to_thread=True)
    def overview(request: Request[Any, Any, Any]) -> Response[str] | Redirect:
        principal = principal_of(request)
        if principal.customer:
            return Redirect(address("/customer", id=principal.customer))
        for one in (pipeline, lag, revenue):
            one.begin()
        held = pipeline.get()
        return site.pages.page(
            request,
            "overview.html",
            principal=principal,
            pipeline=held,
            figures=None if held.value is None else figures_of(held.value),
            chart=None if held.value is None else _chart(held.value.minutes),
            lag=lag.get(),
            revenue=revenue.get(),
            now=site.clock.now(),
        )

    return [overview]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The large numbers of the page. `behind` is how far the slowest partition's ledger is behind its newest event."""

    events_per_s: Decimal
    events_accepted: int
    letters_open: int
    letters: int
    behind: timedelta | None
    folded_until: Any
    tens: tuple[MinuteOfWork, ...]


def figures_of(found: Pipeline) -> Figures:
    """Sums of what was read. Pure."""
    lately = found.minutes[-RATE_MINUTES:]
    accepted = sum(one.accepted for one in lately)
    ages = [one.newest_at - one.folded_to_at for one in found.partitions if one.folded_to_at is not None]
    folded = [one.folded_to_at for one in found.partitions if one.folded_to_at is not None]
    return Figures(
        events_per_s=(Decimal(accepted) / (RATE_MINUTES * 60)).quantize(_TENTH),
        events_accepted=sum(one.accepted for one in found.partitions),
        letters_open=sum(one.open for one in found.letters),
        letters=sum(one.letters for one in found.letters),
        behind=max(ages, default=None),
        folded_until=max(folded, default=None),
        tens=_by_ten(found.minutes),
    )


def _by_ten(minutes: Sequence[MinuteOfWork]) -> tuple[MinuteOfWork, ...]:
    """Ten minutes in a row as one, for a table that can be read."""
    return tuple(
        MinuteOfWork(
            start=part[0].start,
            accepted=sum(one.accepted for one in part),
            duplicate=sum(one.duplicate for one in part),
            rejected=sum(one.rejected for one in part),
        )
        for part in (minutes[place : place + 10] for place in range(0, len(minutes), 10))
    )


def _chart(minutes: Sequence[MinuteOfWork]) -> Any:
    labels = [f"{one.start:%H:%M}" for one in minutes]
    return bar_chart(
        "Records a minute over the last hour: accepted, repeats and rejected",
        labels,
        [
            Series(name="accepted", values=tuple(Decimal(one.accepted) for one in minutes)),
            Series(name="repeats", values=tuple(Decimal(one.duplicate) for one in minutes)),
            Series(name="rejected", values=tuple(Decimal(one.rejected) for one in minutes)),
        ],
    )
