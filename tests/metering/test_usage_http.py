"""`GET /v1/usage` in an application that renders errors as the gateway does, on a real ClickHouse."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from litestar import Litestar
from litestar.testing import TestClient

from ingest.problems import EXCEPTION_HANDLERS
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.principal import open_to_anybody
from metering.testing import ClickHouseUnderTest
from metering.usage.http import usage_routes
from schemas.catalog import Customer
from tests.support.made_usage import MadeEvent, UsageTables, made_catalog, usage_tables

NOW = datetime(2013, 1, 20, tzinfo=UTC)
CUSTOMERS = (Customer(id="acme", subjects=("s1",), timezone="America/New_York"), Customer(id="bolt", subjects=("s2",)))


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        made.store(made_catalog(CUSTOMERS))
        made.fold(
            [
                MadeEvent(subject="s1", time=datetime(2013, 1, 10, 3, tzinfo=UTC), value="0.10", offset=0),
                MadeEvent(subject="s1", time=datetime(2013, 1, 10, 6, tzinfo=UTC), value="5", kind="b", offset=1),
                MadeEvent(subject="s2", time=datetime(2013, 1, 10, 6, tzinfo=UTC), value="7", offset=2),
                MadeEvent(subject="s2", time=datetime(2012, 12, 31, 6, tzinfo=UTC), value="1000", offset=3),
            ]
        )
        yield made


def application(settings: Settings, **more: Any) -> TestClient[Litestar]:
    routes = usage_routes(settings, clock=FixedClock(NOW), **more)
    return TestClient(
        Litestar(routes, exception_handlers=EXCEPTION_HANDLERS, guards=[open_to_anybody], logging_config=None)
    )


@pytest.fixture
def http(tables: UsageTables) -> Iterator[TestClient[Litestar]]:
    with application(tables.settings) as client:
        yield client


def test_usage_of_this_month_until_now_is_answered_in_json(http: TestClient[Litestar]) -> None:
    found = http.get("/v1/usage?meter=sum")

    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    body = found.json()
    assert (body["from"], body["to"]) == ("2013-01-01T00:00:00+00:00", "2013-01-20T00:00:00+00:00")
    assert [(row["customer"], row["quantity"]) for row in body["rows"]] == [("acme", "5.1"), ("bolt", "7")]


def test_a_balance_over_time_is_answered_with_its_exact_integral(http: TestClient[Litestar]) -> None:
    """One thousand since the last day of the year, seven more for the last of three days less six hours."""
    found = http.get("/v1/usage?meter=time_weighted&customer=bolt&from=2013-01-08&to=2013-01-11&window=day")

    assert [(row["quantity"], row["integral"], row["events_count"]) for row in found.json()["rows"]] == [
        ("24000", "86400000", 0),
        ("24000", "86400000", 0),
        ("24126", "86853600", 1),
    ]


def test_every_parameter_is_taken(http: TestClient[Litestar]) -> None:
    found = http.get(
        "/v1/usage",
        params={
            "meter": "count",
            "customer": ["acme", "bolt"],
            "subject": ["s1"],
            "from": "2013-01-09",
            "to": "2013-01-11T00:00:00+01:00",
            "window": "day",
            "timezone": "America/New_York",
            "by": "subject",
            "group_by": ["kind"],
            "format": "json",
        },
    )

    assert [tuple(row.values())[:-1] for row in found.json()["rows"]] == [
        ("s1", "2013-01-09T00:00:00-05:00", "2013-01-10T00:00:00-05:00", {"kind": "a"}, "1", 1),
        ("s1", "2013-01-10T00:00:00-05:00", "2013-01-10T18:00:00-05:00", {"kind": "b"}, "1", 1),
    ]


def test_the_days_of_one_customer_are_those_of_its_zone(http: TestClient[Litestar]) -> None:
    rows = http.get("/v1/usage?meter=count&customer=acme&window=day").json()["rows"]

    assert [row["window_start"] for row in rows] == ["2013-01-09T00:00:00-05:00", "2013-01-10T00:00:00-05:00"]


@pytest.mark.parametrize(
    ("address", "accept"),
    [
        ("/v1/usage?meter=sum&format=csv", "*/*"),
        ("/v1/usage?meter=sum", "text/csv"),
        ("/v1/usage?meter=sum&format=csv", "application/json"),
    ],
)
def test_csv_comes_when_asked_for(http: TestClient[Litestar], address: str, accept: str) -> None:
    found = http.get(address, headers={"accept": accept})

    assert found.headers["content-type"] == "text/csv; charset=utf-8"
    assert found.headers["content-disposition"] == 'attachment; filename="usage-sum.csv"'
    rows = list(csv.DictReader(io.StringIO(found.text)))
    assert [(row["customer"], row["quantity"]) for row in rows] == [("acme", "5.1"), ("bolt", "7")]


@pytest.mark.parametrize(
    ("address", "detail", "fix"),
    [
        ("meter=smu", "unknown meter 'smu'", "Did you mean 'sum'?"),
        ("meter=sum&windows=day", "unknown parameter 'windows'", "Did you mean 'window'?"),
        ("meter=sum&window=week", "window", ""),
        ("meter=sum&from=2013-02", "the range is empty", "half-open"),
        ("meter=sum&to=2013-01-11T00:00:00+01:00", "is no RFC 3339 time", "write + as %2B"),
        ("meter=sum&timezone=Mars", "'Mars' is no IANA time zone", ""),
        ("meter=sum&timezone=../../etc/passwd", "is no IANA time zone", ""),
        ("meter=sum&group_by=knd", "unknown dimension 'knd'", "Did you mean 'kind'?"),
        ("meter=sum&format=xml", "format", ""),
        ("", "meter", ""),
    ],
)
def test_a_wrong_question_is_a_problem_document(
    http: TestClient[Litestar], address: str, detail: str, fix: str
) -> None:
    found = http.get(f"/v1/usage?{address}")

    assert found.status_code == 400
    assert found.headers["content-type"] == "application/problem+json"
    assert detail in found.json()["detail"]
    assert fix in found.json().get("fix", "")


def test_without_clickhouse_it_is_503_and_when_to_come_back(tables: UsageTables) -> None:
    away = msgspec.structs.replace(tables.settings, clickhouse_url="http://127.0.0.1:1")
    with application(away) as http:
        found = http.get("/v1/usage?meter=sum")

    assert found.status_code == 503
    assert found.json()["code"] == "unavailable"
    assert int(found.headers["retry-after"]) > 0


def test_a_database_without_tables_is_503_and_says_how_to_make_them(tables: UsageTables) -> None:
    empty = msgspec.structs.replace(tables.settings, clickhouse_database="never_made")
    with application(empty) as http:
        found = http.get("/v1/usage?meter=sum")

    assert found.status_code == 503
    assert "metering migrate" in found.json()["fix"]


def test_after_clickhouse_came_back_questions_are_answered_again(tables: UsageTables) -> None:
    tried: list[str] = []

    def connect_at_the_second_try() -> Client:
        tried.append("")
        away = msgspec.structs.replace(tables.settings, clickhouse_url="http://127.0.0.1:1")
        return connect(away if len(tried) == 1 else tables.settings)

    with application(tables.settings, connect=connect_at_the_second_try) as http:
        assert [http.get("/v1/usage?meter=sum").status_code for _ in range(2)] == [503, 200]


def test_many_at_once_get_the_same_answer(http: TestClient[Litestar]) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: http.get("/v1/usage?meter=avg&group_by=kind").text, range(40)))

    assert len(set(answers)) == 1
    assert '"quantity":"0.1"' in answers[0]


def test_a_catalog_applied_meanwhile_is_used_at_once(tables: UsageTables) -> None:
    with application(tables.settings) as http:
        before = http.get("/v1/usage?meter=count&by=customer").json()
        tables.store(made_catalog([Customer(id="cove", subjects=("s1", "s2"))], version=before["catalog_version"] + 1))
        after = http.get("/v1/usage?meter=count&by=customer").json()

    assert [row["customer"] for row in before["rows"]] == ["acme", "bolt"]
    assert [row["customer"] for row in after["rows"]] == ["cove"]
