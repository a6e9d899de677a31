"""The gateway knows the newest catalog, and goes on with the last one when it cannot ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.catalog_watch import StoredCatalog
from ingest.content import EVENT
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.migrate import migrate
from schemas.catalog import AppliedCatalog, Catalog, applied
from schemas.errors import ClickHouseUnavailableError
from schemas.meter import Aggregation, Meter


def catalog_of(version: int, *event_types: str) -> AppliedCatalog:
    return applied(version, Catalog(event_types=event_types), ())


def test_without_a_catalog_any_type_is_left_to_the_worker(
    kafka_settings: Any, event: Any, running_gateway_of: Any
) -> None:
    with running_gateway_of(kafka_settings) as gateway:
        assert gateway.post(json.dumps(event(type="anything")).encode(), EVENT).status_code == 200


def test_a_type_that_was_just_added_is_looked_up_before_it_is_refused(
    kafka_settings: Any, event: Any, running_gateway_of: Any
) -> None:
    with running_gateway_of(kafka_settings, catalog=catalog_of(1, "ping")) as gateway:
        gateway.use_catalog(catalog_of(2, "ping", "pong"))

        assert gateway.post(json.dumps(event(type="pong")).encode(), EVENT).status_code == 200
        refused = gateway.post(json.dumps([event(type="pang"), event(type="pong")]).encode(), "application/json")
        assert [error["index"] for error in refused.json()["errors"]] == [0]
        assert gateway.get("/readyz").json()["catalog_version"] == 2


def test_a_source_that_fails_leaves_the_last_catalog_in_use(
    kafka_settings: Any, event: Any, running_gateway_of: Any
) -> None:
    with running_gateway_of(kafka_settings, catalog=catalog_of(1, "ping")) as gateway:
        gateway.fail_catalog(ClickHouseUnavailableError("ClickHouse does not answer"))

        assert gateway.post(json.dumps(event(type="pong")).encode(), EVENT).status_code == 422
        assert gateway.post(json.dumps(event(type="ping")).encode(), EVENT).status_code == 200
        assert "metering_gateway_catalog_failures_total 0.0" not in gateway.get("/metrics").text


def test_the_stored_catalog_is_the_newest_that_was_applied(service_settings: Any) -> None:
    client = connect(service_settings)
    migrate(client)
    stored = StoredCatalog(service_settings)
    assert stored() is None
    meter = Meter(name="calls", event_type="call", aggregation=Aggregation.COUNT)

    catalog_store.apply(
        client, Catalog(meters=(meter,)), clock=FixedClock(datetime(2013, 1, 1, tzinfo=UTC)), applied_by="test"
    )

    found = stored()
    assert found is not None
    assert (found.version, found.known_types) == (1, frozenset({"call"}))
    assert stored() is found


@pytest.mark.parametrize(("age_s_max", "status"), [(0, 200), (60, 422)])
def test_how_old_an_event_may_be_is_a_setting(
    kafka_settings: Any, event: Any, running_gateway_of: Any, age_s_max: int, status: int
) -> None:
    import msgspec

    settings = msgspec.structs.replace(kafka_settings, event_age_s_max=age_s_max)
    clock = FixedClock(datetime(2013, 6, 1, 11, 0, tzinfo=UTC) + timedelta(seconds=61))
    with running_gateway_of(settings, clock=clock) as gateway:
        answer = gateway.post(json.dumps(event()).encode(), EVENT)

    assert answer.status_code == status
