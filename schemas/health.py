"""Customer health: how figures become scores, and what each weighs in the blend."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from schemas.problem import Path, Problem

WEIGHT_MAX: Final = 1_000


class HealthPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure of `zero_at` scores 0, one of `full_at` 100, between them evenly; beyond them there is nothing to win.

    Which of the two is the greater one says whether more is better. A part of weight 0 is shown and counts for nothing.
    """

    weight: Decimal
    zero_at: Decimal
    full_at: Decimal


class Trend(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events a day, in percent of those of the month before."""

    weight: Decimal = Decimal(20)
    zero_at: Decimal = Decimal(50)
    full_at: Decimal = Decimal(100)


class Breadth(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Meters used, in percent of the catalog's."""

    weight: Decimal = Decimal(10)
    zero_at: Decimal = Decimal(0)
    full_at: Decimal = Decimal(50)


class Recency(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Days since the last event."""

    weight: Decimal = Decimal(20)
    zero_at: Decimal = Decimal(30)
    full_at: Decimal = Decimal(2)


class LimitsHit(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quotas that were used up."""

    weight: Decimal = Decimal(10)
    zero_at: Decimal = Decimal(3)
    full_at: Decimal = Decimal(0)


class Engagement(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Days with usage, in percent of all days."""

    weight: Decimal = Decimal(20)
    zero_at: Decimal = Decimal(0)
    full_at: Decimal = Decimal(60)


class Feedback(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mean score that the customer's people gave within a year."""

    weight: Decimal = Decimal(10)
    zero_at: Decimal = Decimal(0)
    full_at: Decimal = Decimal(10)


class Contacts(HealthPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times that support was asked."""

    weight: Decimal = Decimal(10)
    zero_at: Decimal = Decimal(5)
    full_at: Decimal = Decimal(0)


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What customer health is blended of. Parts that are not mentioned are as they stand here."""

    trend: Trend = Trend()
    breadth: Breadth = Breadth()
    recency: Recency = Recency()
    limits: LimitsHit = LimitsHit()
    engagement: Engagement = Engagement()
    nps: Feedback = Feedback()
    contacts: Contacts = Contacts()

    def parts(self) -> dict[str, HealthPart]:
        """Each part by its name."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


USUAL: Final[dict[type[Any], HealthPart]] = {type(one): one for one in Health().parts().values()}
"""Each part as it is where nothing is said about it."""


def part_problems(path: Path, part: HealthPart) -> Iterator[Problem]:
    """A weight that is none, and bounds between which nothing lies or that turn bad into good."""
    if not 0 <= part.weight <= WEIGHT_MAX:
        yield Problem(path=(*path, "weight"), what=f"found {part.weight}, expected 0 to {WEIGHT_MAX}")
    usual = USUAL[type(part)]
    is_less_better = usual.full_at < usual.zero_at
    if part.full_at == part.zero_at or (part.full_at < part.zero_at) != is_less_better:
        better = "less" if is_less_better else "more"
        what = f"found {part.full_at}, expected {better} than zero_at ({part.zero_at}): {better} of it is better"
        yield Problem(path=(*path, "full_at"), what=what)


def health_problems(path: Path, health: Health) -> Iterator[Problem]:
    """A blend of nothing."""
    if not any(part.weight > 0 for part in health.parts().values()):
        yield Problem(path=path, what="every weight is 0, expected a part that counts")
