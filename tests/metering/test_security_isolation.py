"""A customer's key gets answers about that customer alone, whatever it asks; and no question takes more than it may."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from ingest.problems import EXCEPTION_HANDLERS
from metering.clock import FixedClock
from metering.config import Settings
from metering.keys import Principal, Scope
from metering.principal import give_principal
from metering.testing import ClickHouseUnderTest
from metering.usage.http import usage_routes
from schemas.catalog import Customer
from schemas.meter import Aggregation
from tests.support.made_usage import MadeEvent, UsageTables, made_catalog, usage_tables

NOW = datetime(2013, 1, 20, tzinfo=UTC)
CUSTOMERS = (
    Customer(id="acme", subjects=("s1", "s2"), timezone="America/New_York"),
    Customer(id="bolt", subjects=("t1",)),
)
OTHERS = ("bolt", "t1", "u1-of-bolt", "only-bolt", "77712345678", "1398822222204")
"""What stands in the events of others, and nowhere else."""


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        made.store(made_catalog(CUSTOMERS))
        of_bolt: dict[str, Any] = {"value": "77712345678", "kind": "only-bolt", "user": "u1-of-bolt"}
        at = [datetime(2013, 1, day, 3, 7, tzinfo=UTC) for day in range(1, 19)]
        numbers = itertools.count()
        made.fold(
            [MadeEvent(subject="s1", time=time, value="1", user="a", offset=next(numbers)) for time in at]
            + [MadeEvent(subject="s2", time=time, value="2", kind="b", offset=next(numbers)) for time in at[::3]]
            + [MadeEvent(subject="t1", time=time, **of_bolt, offset=next(numbers)) for time in at]
            + [MadeEvent(subject="nobody's", time=at[0], **of_bolt, offset=next(numbers))]
        )
        yield made


def application(tables: UsageTables, customer: str, **changes: Any) -> TestClient[Litestar]:
    async def guard(connection: Any, _: Any) -> None:
        give_principal(connection, Principal(key="k", scopes=frozenset({Scope.QUERY}), customer=customer))

    routes = usage_routes(msgspec.structs.replace(tables.settings, **changes), clock=FixedClock(NOW))
    return TestClient(
        Litestar(routes, exception_handlers=EXCEPTION_HANDLERS, guards=[guard], logging_config=None),
        raise_server_exceptions=False,
    )


@pytest.fixture(scope="module")
def bound(tables: UsageTables) -> Iterator[TestClient[Litestar]]:
    with application(tables, "acme") as client:
        yield client


@pytest.fixture(scope="module")
def free(tables: UsageTables) -> Iterator[TestClient[Litestar]]:
    with application(tables, "") as client:
        yield client


METERS = [one.value for one in Aggregation if one.value != "time_weighted"]
NAMES = st.lists(st.sampled_from(["acme", "bolt", "nobody", "ACME", "acme' OR 1=1 --", ""]), max_size=2)
SUBJECTS = st.lists(st.sampled_from(["s1", "t1", "nobody's", "x"]), max_size=3)
MOMENTS = st.sampled_from(["2013-01", "2013-01-02", "2013-01-05T03:10:00Z", "2013-01-09T03:00:00Z", ""])


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    meter=st.sampled_from(METERS),
    customer=NAMES,
    subject=SUBJECTS,
    start=MOMENTS,
    by=st.sampled_from(["", "customer", "subject", "everything"]),
    group_by=st.lists(st.sampled_from(["kind", "region"]), max_size=2, unique=True),
    window=st.sampled_from(["total", "day", "hour", "month"]),
    output=st.sampled_from(["json", "csv"]),
)
def test_a_customers_key_never_gets_anything_of_another(
    *, bound: TestClient[Litestar], free: TestClient[Litestar], customer: list[str], subject: list[str], by: str,
    start: str, output: str, **asked: Any,
) -> None:  # fmt: skip
    common = {"subject": subject, "format": output, **({"by": by} if by else {}), **({"from": start} if start else {})}

    answer = bound.get("/v1/usage", params={**asked, **common, "customer": customer})

    # A subject or a customer that is asked for may be named again; nothing else of others may be in an answer.
    leaked = [word for word in OTHERS if word in answer.text and word not in (*subject, *customer)]
    assert leaked == []
    assert answer.status_code in (200, 404)
    if set(customer) <= {"acme"}:
        asked_by = by or ("subject" if subject and not customer else "customer")
        same = free.get("/v1/usage", params={**asked, **common, "customer": ["acme"], "by": asked_by})
        assert (answer.status_code, answer.text) == (200, same.text)
    else:
        assert answer.status_code == 404


def test_another_customer_and_none_at_all_get_the_same_answer(bound: TestClient[Litestar]) -> None:
    answers = [bound.get("/v1/usage", params={"meter": "sum", "customer": name}) for name in ("bolt", "nobody", "bol")]

    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert answers[0].json()["code"] == "not_found"


def test_a_subject_of_another_customer_and_none_at_all_get_the_same_answer(bound: TestClient[Litestar]) -> None:
    rows = [
        bound.get("/v1/usage", params={"meter": "sum", "subject": name, "from": "2013-01"}).json()["rows"]
        for name in ("t1", "nobody's", "never seen")
    ]

    assert rows == [[], [], []]


def test_a_key_of_a_customer_that_the_catalog_does_not_have_gets_nothing(tables: UsageTables) -> None:
    with application(tables, "gone") as client:
        answers = [
            client.get("/v1/usage", params={"meter": "sum", **more})
            for more in ({}, {"customer": "gone"}, {"by": "everything"})
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


@pytest.mark.parametrize(
    ("changes", "parameters", "says"),
    [
        ({"query_rows_max": 3}, {"window": "day"}, "more than 3 rows"),
        ({"query_read_rows_max": 1}, {}, "reads more than 1 rows"),
        ({"query_memory_bytes_max": 50_000}, {"window": "hour", "group_by": "kind"}, "more than 50000 bytes of memory"),
    ],
)
def test_a_question_that_is_too_large_is_told_which_setting_it_met(
    tables: UsageTables, changes: dict[str, int], parameters: dict[str, str], says: str
) -> None:
    with application(tables, "", **changes) as client:
        refused = client.get("/v1/usage", params={"meter": "sum", "from": "2013-01", **parameters})
    with application(tables, "") as client:
        answered = client.get("/v1/usage", params={"meter": "sum", "from": "2013-01", **parameters})

    assert answered.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (400, "question_too_large")
    assert refused.json()["setting"] == next(iter(changes))
    assert says in refused.json()["detail"]


def test_a_question_that_takes_too_long_is_ended(tables: UsageTables) -> None:
    from metering.clickhouse import connect
    from metering.query_limits import query_limits, within_limits
    from schemas.errors import LimitError

    hurried = msgspec.structs.replace(tables.settings, query_time_s_max=1, query_read_rows_max=0)
    client = connect(hurried, limits=query_limits(hurried))
    with pytest.raises(LimitError) as caught, within_limits(hurried):
        client.query("SELECT sum(sipHash64(number)) FROM numbers(100000000000)")
    client.close()

    assert (caught.value.setting, caught.value.exit_code) == ("query_time_s_max", 2)


def test_without_limits_nothing_is_limited() -> None:
    from metering.query_limits import query_limits

    nothing = Settings(query_read_rows_max=0, query_time_s_max=0, query_memory_bytes_max=0)

    assert set(query_limits(nothing).values()) == {0}
