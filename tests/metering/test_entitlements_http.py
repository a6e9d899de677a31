"""`GET /v1/customers/{id}/entitlements/{meter}` on a real ClickHouse: from memory, brought up to date by readings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from ingest.gateway import create_gateway
from ingest.problems import EXCEPTION_HANDLERS
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.entitlements.http import entitlement_routes
from metering.entitlements.reader import HeldReader
from metering.entitlements.service import IDLE_S_MAX, EntitlementService
from metering.keys import Principal, Scope
from metering.principal import give_principal
from metering.testing import ClickHouseUnderTest
from schemas.errors import ClickHouseUnavailableError, LimitError
from tests.support.made_limits import DAY, NOW, catalog_with, fold
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables


@pytest.fixture(scope="module")
def kept(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(kept: UsageTables) -> UsageTables:
    kept.clear()
    kept.client.command("TRUNCATE TABLE positions")
    kept.client.command("TRUNCATE TABLE meter_fills")
    kept.store(catalog_with(sum=100))
    return kept


def application(service: EntitlementService, customer: str = "") -> TestClient[Litestar]:
    async def guard(connection: Any, _: Any) -> None:
        give_principal(connection, Principal(key="k", scopes=frozenset({Scope.QUERY}), customer=customer))

    return TestClient(
        Litestar(
            entitlement_routes(service), exception_handlers=EXCEPTION_HANDLERS, guards=[guard], logging_config=None
        )
    )


def test_the_answer_says_what_is_allowed_used_and_left_and_when_it_begins_again(tables: UsageTables) -> None:
    fold(tables, [MadeEvent(time=DAY, value="59.5", offset=0), MadeEvent(subject="s2", time=DAY, value="1", offset=1)])
    service = EntitlementService(tables.settings, FixedClock(NOW))
    service.read()

    with application(service) as client:
        found = client.get("/v1/customers/acme/entitlements/sum")
        other = client.get("/v1/customers/bolt/entitlements/sum").json()

    assert found.status_code == 200
    assert found.headers["cache-control"] == "no-store"
    assert found.json() == {
        "customer": "acme",
        "meter": "sum",
        "unit": "things",
        "allowed": True,
        "reason": "within_quota",
        "limit": "100",
        "limit_kind": "quota",
        "limit_id": "sum-quota",
        "used": "60.5",
        "left": "39.5",
        "period_start": "2013-01-01T00:00:00Z",
        "resets_at": "2013-02-01T00:00:00Z",
        "as_of": "2013-01-20T00:00:00Z",
        "catalog_version": 1,
    }
    assert (other["used"], other["left"]) == ("0", "100")


def test_a_reading_brings_in_what_was_folded_since_and_what_was_taken_back(tables: UsageTables) -> None:
    events = [MadeEvent(time=DAY, value="99", offset=0)]
    fold(tables, events)
    service = EntitlementService(tables.settings, FixedClock(NOW))
    service.read()
    before = service.answer("acme", "sum")

    events.append(MadeEvent(subject="s2", time=DAY, value="1", offset=1))
    fold(tables, events)
    service.read()
    full = service.answer("acme", "sum")

    # The correction comes through another partition, so that nothing in the rollup's own positions tells of it.
    events.append(MadeEvent(time=DAY, offset=5, partition=1, corrects=events[0].name, voids=True))
    fold(tables, events)
    service.read()
    after = service.answer("acme", "sum")

    assert [(one.allowed, one.used) for one in (before, full, after)] == [(True, "99"), (False, "100"), (True, "1")]


def test_a_new_catalog_and_a_new_period_are_taken_up(tables: UsageTables) -> None:
    fold(tables, [MadeEvent(time=DAY, value="7", offset=0)])
    clock = FixedClock(NOW)
    service = EntitlementService(tables.settings, clock)
    service.read()
    first = service.answer("acme", "sum")

    tables.store(catalog_with(2, sum=5))
    service.read()
    second = service.answer("acme", "sum")
    clock.move_to(datetime(2013, 2, 1, tzinfo=UTC))
    service.read()
    third = service.answer("acme", "sum")

    assert [(one.catalog_version, one.allowed, one.used) for one in (first, second, third)] == [
        (1, True, "7"),
        (2, False, "7"),
        (2, True, "0"),
    ]


def test_what_is_older_than_allowed_is_not_told(tables: UsageTables) -> None:
    clock = FixedClock(NOW)
    service = EntitlementService(tables.settings, clock)
    with application(service) as client:
        unread = client.get("/v1/customers/acme/entitlements/sum")
        service.read()
        clock.move_to(NOW + timedelta(seconds=5))
        fresh = client.get("/v1/customers/acme/entitlements/sum")
        clock.move_to(NOW + timedelta(seconds=5, microseconds=1))
        stale = client.get("/v1/customers/acme/entitlements/sum")

    assert [one.status_code for one in (unread, fresh, stale)] == [503, 200, 503]
    assert [one.headers.get("retry-after") for one in (unread, fresh, stale)] == ["2", None, "2"]
    assert fresh.json()["as_of"] == "2013-01-20T00:00:00Z"


def test_a_customers_key_gets_the_same_answer_for_another_customer_and_for_none(tables: UsageTables) -> None:
    service = EntitlementService(tables.settings, FixedClock(NOW))
    service.read()

    with application(service, "acme") as bound, application(service) as free:
        own = bound.get("/v1/customers/acme/entitlements/sum")
        others = [
            bound.get(f"/v1/customers/{name}/entitlements/{meter}")
            for name, meter in (("bolt", "sum"), ("nobody", "sum"), ("bolt", "smu"), ("acme", "smu"), ("ACME", "sum"))
        ]
        others.append(free.get("/v1/customers/nobody/entitlements/sum"))

    assert own.status_code == 200
    assert {(one.status_code, one.text) for one in others} == {(404, others[0].text)}


def test_a_meter_that_no_plan_of_the_customer_has_is_not_allowed_and_a_balance_is_refused(tables: UsageTables) -> None:
    service = EntitlementService(tables.settings, FixedClock(NOW))
    service.read()

    with application(service) as client:
        absent = client.get("/v1/customers/acme/entitlements/max").json()
        balance = client.get("/v1/customers/acme/entitlements/time_weighted")

    assert (absent["allowed"], absent["reason"], absent["used"], absent["resets_at"]) == (
        False,
        "not_in_plan",
        None,
        None,
    )
    assert balance.status_code == 400
    assert "balance over time" in balance.json()["detail"]


def test_more_than_may_be_held_is_refused_whole(tables: UsageTables) -> None:
    small = msgspec.structs.replace(tables.settings, entitlements_max=11)

    with pytest.raises(LimitError, match="12 customers and meters have something to say"):
        HeldReader(small, FixedClock(NOW)).read()


def test_a_database_without_a_catalog_has_no_customers(tables: UsageTables) -> None:
    tables.client.command("TRUNCATE TABLE catalog_versions")
    service = EntitlementService(tables.settings, FixedClock(NOW))
    service.read()

    with application(service) as client:
        assert client.get("/v1/customers/acme/entitlements/sum").status_code == 404


def test_the_gateway_reads_by_itself_and_describes_the_route_and_the_metrics(tables: UsageTables) -> None:
    fold(tables, [MadeEvent(time=DAY, value="7", offset=0)])
    quick = msgspec.structs.replace(tables.settings, entitlements_interval_s=0.05, keys_required="never")
    service = EntitlementService(quick, FixedClock(NOW))
    app = create_gateway(quick, route_handlers=entitlement_routes(service), background=[service])

    with TestClient(app) as client:
        found = eventually_answered(client)
        document = client.get("/openapi.json").json()
        metrics = client.get("/metrics").text

    assert found["used"] == "7"
    operation = document["paths"]["/v1/customers/{customer}/entitlements/{meter}"]["get"]
    assert operation["operationId"] == "getEntitlement"
    assert {one["name"] for one in operation["parameters"]} == {"customer", "meter"}
    assert "Entitlement" in operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert "metering_entitlements_read_seconds_count" in metrics


def test_a_gateway_reads_nothing_until_it_is_asked_and_the_first_question_waits_for_a_reading(
    tables: UsageTables,
) -> None:
    fold(tables, [MadeEvent(time=DAY, value="7", offset=0)])
    held = msgspec.structs.replace(tables.settings, entitlements_interval_s=0.05, keys_required="never")
    clock, connects = FixedClock(NOW), 0

    def connect_counted() -> Client:
        nonlocal connects
        connects += 1
        return connect(held)

    service = EntitlementService(held, clock, connect_counted)
    app = create_gateway(held, route_handlers=entitlement_routes(service), background=[service])

    with TestClient(app) as client:
        client.get("/healthz")
        unasked = connects
        first = client.get("/v1/customers/acme/entitlements/sum")
        clock.move_to(NOW + timedelta(seconds=IDLE_S_MAX + 1))
        after_a_pause = client.get("/v1/customers/acme/entitlements/sum")

    assert unasked == 0
    assert [one.status_code for one in (first, after_a_pause)] == [200, 200]
    assert [one.json()["as_of"] for one in (first, after_a_pause)] == ["2013-01-20T00:00:00Z", "2013-01-20T00:01:01Z"]


def test_a_question_does_not_wait_for_a_clickhouse_that_is_away(tables: UsageTables) -> None:
    held = msgspec.structs.replace(
        tables.settings, entitlements_interval_s=60.0, entitlements_stale_s_max=600.0, keys_required="never"
    )

    def refuse() -> Client:
        raise ClickHouseUnavailableError("refused", where="clickhouse", fix="start it")

    service = EntitlementService(held, FixedClock(NOW), refuse)
    app = create_gateway(held, route_handlers=entitlement_routes(service), background=[service])

    with TestClient(app) as client:
        answers = [client.get("/v1/customers/acme/entitlements/sum").status_code for _ in range(3)]

    assert answers == [503, 503, 503]


def eventually_answered(client: TestClient[Litestar]) -> dict[str, Any]:
    for _ in range(100_000):
        found = client.get("/v1/customers/acme/entitlements/sum")
        if found.status_code == 200:
            answer: dict[str, Any] = found.json()
            return answer
    raise AssertionError(found.text)


STEPS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["s1", "s2", "t1", "nobody"]),
            st.sampled_from([DAY, DAY + timedelta(days=3), NOW, datetime(2012, 12, 31, tzinfo=UTC)]),
            st.integers(-5, 50).map(str),
            st.integers(0, 1),
            st.sampled_from(["u1", "u2"]),
        ),
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_readings_of_what_has_moved_come_to_what_one_reading_of_everything_does(
    *, tables: UsageTables, steps: list[list[tuple[str, datetime, str, int, str]]]
) -> None:
    for table in ("events", "rollups", "members", "positions"):
        tables.client.command(f"TRUNCATE TABLE {table}")
    reader = HeldReader(tables.settings, FixedClock(NOW))
    events: list[MadeEvent] = []
    for step in steps:
        for subject, time, value, partition, user in step:
            place: dict[str, Any] = {"partition": partition, "offset": len(events)}
            events.append(MadeEvent(subject=subject, time=time, value=value, user=user, **place))
        fold(tables, events)

        found, whole = reader.read(), HeldReader(tables.settings, FixedClock(NOW)).read()

        assert plain(found.used) == plain(whole.used)


def plain(used: Any) -> dict[Any, Any]:
    """Without customers who used nothing: one reading names them, the other does not."""
    return {span: {who: quantity for who, quantity in held.items() if quantity} for span, held in used.items()}
