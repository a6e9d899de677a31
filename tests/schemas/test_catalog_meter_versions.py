"""Which version of a meter is in force when, as the catalog changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from schemas.catalog import Catalog, applied, document, from_document
from schemas.meter import Aggregation, Filter, Meter, MeterVersion
from schemas.meter_versions import next_meter_versions

FIRST = Meter(name="bytes", event_type="request", aggregation=Aggregation.SUM, value="bytes")
MARCH = datetime(2013, 3, 1, tzinfo=UTC)
APRIL = datetime(2013, 4, 1, tzinfo=UTC)


def versions(*catalogs: tuple[Meter, ...]) -> tuple[MeterVersion, ...]:
    """The meter versions after applying each list of meters in turn, which must all be fine."""
    held: tuple[MeterVersion, ...] = ()
    for number, meters in enumerate(catalogs, 1):
        held, problems = next_meter_versions(held, meters, number)
        assert problems == []
    return held


def spans(held: tuple[MeterVersion, ...]) -> list[tuple[int, int, datetime | None, datetime | None]]:
    return [(one.version, one.introduced_in, one.start, one.end) for one in held]


def changed(**changes: Any) -> Meter:
    return msgspec.structs.replace(FIRST, **changes)


def test_a_first_version_is_in_force_always() -> None:
    assert spans(versions((FIRST,))) == [(1, 1, None, None)]


def test_a_first_version_with_a_beginning_is_in_force_from_then_on() -> None:
    assert spans(versions((changed(effective_from=MARCH),))) == [(1, 1, MARCH, None)]


@pytest.mark.parametrize(
    "change",
    [
        {"event_type": "call"},
        {"aggregation": Aggregation.MAX},
        {"value": "size"},
        {"filters": (Filter(field="kind", any_of=("a",)),)},
        {"group_by": {"region": "region"}},
    ],
)
def test_a_meter_that_measures_something_else_takes_over_where_it_begins(change: dict[str, Any]) -> None:
    second = changed(**change, effective_from=MARCH)

    assert spans(versions((FIRST,), (second,))) == [(1, 1, None, MARCH), (2, 2, MARCH, None)]


def test_a_third_version_ends_the_second_and_leaves_the_first_alone() -> None:
    second, third = changed(value="size", effective_from=MARCH), changed(value="total", effective_from=APRIL)

    held = versions((FIRST,), (second,), (second,), (third,))

    assert spans(held) == [(1, 1, None, MARCH), (2, 2, MARCH, APRIL), (3, 4, APRIL, None)]


def test_another_unit_or_description_is_no_new_version() -> None:
    held = versions((FIRST,), (changed(unit="MB", description="Traffic"),))

    assert spans(held) == [(1, 1, None, None)]
    assert held[0].meter.unit == "MB"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ((FIRST,), (changed(value="size"),), "measures something else than version 1, expected effective_from"),
        ((FIRST,), (changed(effective_from=MARCH),), "expected it to stay (always)"),
        ((changed(effective_from=MARCH),), (FIRST,), "expected it to stay (2013-03-01T00:00:00+00:00)"),
        (
            (changed(effective_from=MARCH),),
            (changed(value="size", effective_from=MARCH),),
            "expected a time after 2013-03-01T00:00:00+00:00, where version 1 of meter 'bytes' begins",
        ),
        ((FIRST,), (), "meter 'bytes' was applied before and is missing"),
    ],
)
def test_what_would_change_numbers_on_record_is_refused(
    before: tuple[Meter, ...], after: tuple[Meter, ...], problem: str
) -> None:
    _, problems = next_meter_versions(versions(before), after, 2)

    assert [problem in one.what for one in problems] == [True]


def test_a_stored_catalog_reads_back_as_it_was_applied() -> None:
    catalog = Catalog(event_types=("ping",), meters=(FIRST,))
    one = applied(3, catalog, versions((FIRST,)))

    read = from_document(3, document(one.catalog, one.meter_versions))

    assert read == one
    assert read.known_types == {"ping", "request"}
    assert [version.version for version in read.versions_of("bytes")] == [1]
    assert read.versions_of("absent") == ()
    assert read.customer_of("absent") is None
