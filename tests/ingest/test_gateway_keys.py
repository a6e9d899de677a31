"""Who may do what at the gateway: keys, scopes, customers, rates, and what is said to those who may not."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from litestar import Request, get

from ingest.access import Access, check_settings, http_routes, is_local, undeclared_routes
from ingest.content import BATCH, EVENT
from ingest.gateway import create_gateway
from ingest.key_watch import NOTE_INTERVAL_S, POLL_INTERVAL_S
from ingest.rates import BURST_S, Rates
from metering.clock import FixedClock
from metering.config import Settings
from metering.keys import PUBLIC, ApiKey, Scope, declared_scope, fingerprint, hmac_of, needs, new_key
from metering.principal import principal_of
from metering.usage.http import usage_routes
from schemas.catalog import Catalog, Customer, applied
from schemas.errors import ClickHouseUnavailableError, InvariantViolationError, SettingError
from schemas.meter import Aggregation, Meter, MeterVersion

PEPPER = "p" * 32
NOW = datetime.fromisoformat("2013-06-01T12:00:00+00:00")
WAIT_S = 30.0


def made_key(*scopes: Scope, **more: Any) -> tuple[ApiKey, str]:
    name, text = new_key()
    one = ApiKey(
        key=name,
        name="test",
        hmac=hmac_of(PEPPER, text),
        pepper=fingerprint(PEPPER),
        scopes=frozenset(scopes),
        at=NOW,
        by="test",
    )
    return msgspec.structs.replace(one, **more), text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def catalog_with_customers() -> Any:
    miles = Meter(name="miles", event_type="flight", aggregation=Aggregation.SUM, value="distance")
    customers = (Customer(id="united", subjects=("UA", "UB")), Customer(id="delta", subjects=("DL",)))
    version = MeterVersion(meter=miles, version=1, introduced_in=1, start=None, end=None)
    return applied(1, Catalog(meters=(miles,), customers=customers), (version,))


@get("/v1/who", opt=needs(Scope.QUERY), sync_to_thread=False)
def who(request: Request[Any, Any, Any]) -> dict[str, str]:
    principal = principal_of(request)
    return {"key": principal.key, "customer": principal.customer}


@pytest.fixture
def keyed(kafka_settings: Settings) -> Settings:
    return msgspec.structs.replace(kafka_settings, key_pepper=PEPPER)


def wait_for(found: Any) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_every_route_of_the_gateway_declares_its_scope() -> None:
    settings = Settings()
    app = create_gateway(settings, route_handlers=usage_routes(settings, clock=FixedClock(NOW)))

    declared = {
        f"{method} {path}": declared_scope(handler.opt)
        for method, path, handler in http_routes(app)
        if method != "OPTIONS"
    }

    assert declared == {
        "POST /v1/events": Scope.INGEST,
        "GET /v1/usage": Scope.QUERY,
        "GET /metrics": Scope.QUERY,
        "GET /healthz": PUBLIC,
        "GET /readyz": PUBLIC,
        "GET /openapi.json": PUBLIC,
        "GET /openapi.json/openapi.json": PUBLIC,
        "GET /openapi.json/{path:str}": PUBLIC,
    }
    assert undeclared_routes(app) == []


def test_a_route_that_declares_no_scope_is_not_served() -> None:
    @get("/v1/secret", sync_to_thread=False)
    def secret() -> str:
        return "secret"

    with pytest.raises(InvariantViolationError, match="GET /v1/secret"):
        create_gateway(Settings(), route_handlers=[secret])


@pytest.mark.parametrize("opt", [{}, {"scope": "everything"}, {"scope": None}])
def test_the_guard_itself_lets_nothing_undeclared_pass(opt: dict[str, Any]) -> None:
    import asyncio
    from types import SimpleNamespace

    access = Access(Settings(), SimpleNamespace(ring=[]), FixedClock(NOW))  # type: ignore[arg-type]
    connection = SimpleNamespace(scope={"method": "GET", "state": {}}, headers={})

    with pytest.raises(InvariantViolationError):
        asyncio.run(access.guard(connection, SimpleNamespace(opt=opt, handler_name="x")))  # type: ignore[arg-type]


def test_on_this_machine_no_key_is_needed_until_there_is_one(kafka_settings: Settings, running_gateway_of: Any) -> None:
    one, text = made_key(Scope.QUERY)

    with running_gateway_of(kafka_settings, route_handlers=[who]) as gateway:
        assert gateway.get("/v1/who").json() == {"key": "", "customer": ""}
        gateway.keys.keys.append(one)
        wait_for(lambda: gateway.get("/v1/who").status_code != 200)
        refused, unchecked = gateway.get("/v1/who"), gateway.get("/v1/who", headers=bearer(text))

    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
    assert (unchecked.status_code, unchecked.json()["code"]) == (503, "keys_unavailable")
    assert "METERING_KEY_PEPPER" in unchecked.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "is_required"),
    [
        ({}, False),
        ({"key_pepper": PEPPER}, True),
        ({"keys_required": "always", "key_pepper": PEPPER}, True),
        ({"keys_required": "never", "key_pepper": PEPPER, "gateway_host": "0.0.0.0"}, False),
        ({"gateway_host": "0.0.0.0", "key_pepper": PEPPER}, True),
        ({"gateway_host": "::1"}, False),
        ({"gateway_host": "127.8.8.8"}, False),
        ({"gateway_host": "gateway.internal", "key_pepper": PEPPER}, True),
    ],
)
def test_when_a_key_is_required(changes: dict[str, Any], is_required: bool) -> None:
    from types import SimpleNamespace

    settings = msgspec.structs.replace(Settings(), **changes)
    check_settings(settings)

    assert Access(settings, SimpleNamespace(ring=[]), FixedClock(NOW)).is_required is is_required  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"gateway_host": "0.0.0.0"}, {"gateway_host": "::"}, {"keys_required": "always"}])
def test_a_gateway_that_would_need_keys_and_has_no_pepper_does_not_start(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        create_gateway(msgspec.structs.replace(Settings(), **changes))

    assert caught.value.where == "METERING_KEY_PEPPER"
    assert not is_local(changes.get("gateway_host", "example.org"))


def test_a_key_does_what_its_scopes_say_and_nothing_else(
    keyed: Settings, running_gateway_of: Any, event: Any, log: Any
) -> None:
    sender, sender_text = made_key(Scope.INGEST)
    asker, asker_text = made_key(Scope.QUERY)
    body = json.dumps(event()).encode()

    with running_gateway_of(keyed, catalog=catalog_with_customers(), route_handlers=[who]) as gateway:
        gateway.keys.keys += [sender, asker]
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(asker_text)).status_code == 200)
        refused = gateway.post(body, EVENT, headers=bearer(asker_text))
        answers = {
            "sender sends": gateway.post(body, EVENT, headers=bearer(sender_text)).status_code,
            "sender asks": gateway.get("/v1/who", headers=bearer(sender_text)).status_code,
            "asker sends": refused.status_code,
            "asker asks": gateway.get("/v1/who", headers=bearer(asker_text)).status_code,
            "asker watches": gateway.get("/metrics", headers=bearer(asker_text)).status_code,
            "sender watches": gateway.get("/metrics", headers=bearer(sender_text)).status_code,
            "nobody sends": gateway.post(body, EVENT).status_code,
            "nobody watches": gateway.get("/metrics").status_code,
            "nobody looks whether it lives": gateway.get("/healthz").status_code,
            "nobody looks whether it is ready": gateway.get("/readyz").status_code,
            "nobody reads the document": gateway.get("/openapi.json").status_code,
        }

    assert answers == {
        "sender sends": 200,
        "sender asks": 403,
        "asker sends": 403,
        "asker asks": 200,
        "asker watches": 200,
        "sender watches": 403,
        "nobody sends": 401,
        "nobody watches": 401,
        "nobody looks whether it lives": 200,
        "nobody looks whether it is ready": 200,
        "nobody reads the document": 200,
    }
    assert refused.json()["code"] == "missing_scope"
    assert len(log.records()) == 1


def test_what_is_no_key_is_refused_alike(keyed: Settings, running_gateway_of: Any) -> None:
    one, text = made_key(Scope.QUERY)
    wrong = [
        bearer(text[:-1]),
        bearer(text + "x"),
        bearer(text.replace(one.key, "0" * 16)),
        bearer(f"mk_{one.key}_"),
        bearer("mk_" + "9" * 100_0),
        bearer("~"),
        bearer(one.hmac),
        {"Authorization": f"Basic {text}"},
        {"Authorization": text},
        {"Authorization": "Bearer"},
        {"X-Api-Key": text},
    ]

    with running_gateway_of(keyed, route_handlers=[who]) as gateway:
        gateway.keys.keys.append(one)
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        answers = [gateway.get("/v1/who", headers=headers) for headers in wrong]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers[:7]} == {"unknown_key"}
    assert {answer.json()["code"] for answer in answers[7:]} == {"key_missing"}
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="metering"'}
    assert not any(one.hmac in answer.text or text in answer.text for answer in answers)


def test_a_key_that_is_over_is_refused_and_says_so(keyed: Settings, running_gateway_of: Any) -> None:
    expired, expired_text = made_key(Scope.QUERY, expires_at=NOW)
    later, later_text = made_key(Scope.QUERY, expires_at=NOW + timedelta(seconds=1))

    with running_gateway_of(keyed, route_handlers=[who]) as gateway:
        gateway.keys.keys += [expired, later]
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(later_text)).status_code == 200)
        refused = gateway.get("/v1/who", headers=bearer(expired_text))

    assert (refused.status_code, refused.json()["code"]) == (401, "key_ended")
    assert refused.json()["detail"] == f"the API key {expired.key} is expired"


def test_of_a_rotated_key_both_are_taken_until_the_old_one_ends(keyed: Settings, running_gateway_of: Any) -> None:
    clock = FixedClock(NOW)
    old, old_text = made_key(Scope.QUERY, ends_at=NOW + timedelta(hours=1), ended="rotated")
    new, new_text = made_key(Scope.QUERY, replaces=old.key)

    with running_gateway_of(keyed, route_handlers=[who], clock=clock) as gateway:
        gateway.keys.keys += [old, new]
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(new_text)).status_code == 200)
        both = [gateway.get("/v1/who", headers=bearer(text)).status_code for text in (old_text, new_text)]
        clock.move_to(NOW + timedelta(minutes=59, seconds=59))
        still = gateway.get("/v1/who", headers=bearer(old_text)).status_code
        clock.move_to(NOW + timedelta(hours=1))
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(new_text)).status_code == 200)
        after = [gateway.get("/v1/who", headers=bearer(text)).status_code for text in (old_text, new_text)]

    assert (both, still, after) == ([200, 200], 200, [401, 200])


def test_a_revocation_reaches_every_gateway_within_one_poll(keyed: Settings, running_gateway_of: Any) -> None:
    one, text = made_key(Scope.QUERY)

    with (
        running_gateway_of(keyed, route_handlers=[who]) as first,
        running_gateway_of(keyed, route_handlers=[who], keys=first.keys) as second,
    ):
        first.keys.keys.append(one)
        for gateway in (first, second):
            wait_for(lambda gateway=gateway: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        first.keys.keys[:] = [msgspec.structs.replace(one, ends_at=NOW, ended="revoked")]
        for gateway in (first, second):
            wait_for(lambda gateway=gateway: gateway.get("/v1/who", headers=bearer(text)).status_code == 401)

    assert POLL_INTERVAL_S <= 2.5


def test_without_clickhouse_known_keys_are_taken_for_as_long_as_the_setting_says(
    keyed: Settings, running_gateway_of: Any
) -> None:
    clock = FixedClock(NOW)
    one, text = made_key(Scope.QUERY)
    settings = msgspec.structs.replace(keyed, keys_stale_s_max=600.0)

    with running_gateway_of(settings, route_handlers=[who], clock=clock) as gateway:
        gateway.keys.keys.append(one)
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        gateway.keys.error = ClickHouseUnavailableError("away")
        clock.move_to(NOW + timedelta(seconds=599))
        before = gateway.get("/v1/who", headers=bearer(text))
        clock.move_to(NOW + timedelta(seconds=1_300))
        after = gateway.get("/v1/who", headers=bearer(text))
        gateway.keys.error = None
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)

    assert before.status_code == 200
    assert (after.status_code, after.json()["code"]) == (503, "keys_unavailable")
    assert after.headers["retry-after"]


def test_a_gateway_that_never_read_the_keys_takes_none(
    keyed: Settings, running_gateway_of: Any, event: Any, keys: Any
) -> None:
    _, text = made_key(Scope.INGEST)
    keys.error = ClickHouseUnavailableError("away")
    with running_gateway_of(keyed, keys=keys) as gateway:
        answers = [gateway.post(json.dumps(event()).encode(), EVENT, headers=headers) for headers in (bearer(text), {})]

    assert [answer.status_code for answer in answers] == [503, 401]


def test_last_uses_are_stored_in_bulk_and_kept_while_that_fails(keyed: Settings, running_gateway_of: Any) -> None:
    clock = FixedClock(NOW)
    one, text = made_key(Scope.QUERY)

    with running_gateway_of(keyed, route_handlers=[who], clock=clock) as gateway:
        gateway.keys.keys.append(one)
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        uses_at_first = dict(gateway.keys.uses)
        gateway.keys.error = ClickHouseUnavailableError("away")
        clock.move_to(NOW + timedelta(seconds=NOTE_INTERVAL_S))
        gateway.get("/v1/who", headers=bearer(text))
        gateway.keys.error = None
        keys = gateway.keys

    assert uses_at_first == {}
    assert keys.uses == {one.key: NOW + timedelta(seconds=NOTE_INTERVAL_S)}


def test_a_customers_key_sends_that_customers_subjects_alone(
    keyed: Settings, running_gateway_of: Any, event: Any, log: Any
) -> None:
    bound, text = made_key(Scope.INGEST, customer="united")
    batch = [event(subject="UA"), event(subject="DL"), event(subject="UB"), event(subject="nobody's")]

    with running_gateway_of(keyed, catalog=catalog_with_customers()) as gateway:
        gateway.keys.keys.append(bound)
        one = json.dumps(event(subject="UA")).encode()
        wait_for(lambda: gateway.post(one, EVENT, headers=bearer(text)).status_code == 200)
        whole = gateway.post(json.dumps(batch).encode(), BATCH, headers=bearer(text))
        part = gateway.post(json.dumps(batch).encode(), BATCH, headers=bearer(text), params={"partial": "true"})

    foreign = {"reason": "foreign_subject", "field": "subject", "detail": "the API key may not send this subject"}
    assert (whole.status_code, whole.json()["errors"]) == (422, [{"index": 1, **foreign}, {"index": 3, **foreign}])
    assert (part.status_code, part.json()["accepted"]) == (207, 2)
    assert part.json()["errors"] == whole.json()["errors"]
    assert {key for _, _, key, _ in log.records()} == {b"UA", b"UB"}


def test_a_subject_that_was_just_given_to_the_customer_is_taken(
    keyed: Settings, running_gateway_of: Any, event: Any
) -> None:
    bound, text = made_key(Scope.INGEST, customer="delta")
    catalog = catalog_with_customers()
    customers = (Customer(id="delta", subjects=("DL", "NEW")),)
    newer = applied(2, Catalog(meters=catalog.catalog.meters, customers=customers), catalog.meter_versions)

    with running_gateway_of(keyed, catalog=catalog) as gateway:
        gateway.keys.keys.append(bound)
        known = json.dumps(event(subject="DL")).encode()
        wait_for(lambda: gateway.post(known, EVENT, headers=bearer(text)).status_code == 200)
        gateway.use_catalog(newer)
        answer = gateway.post(json.dumps(event(subject="NEW")).encode(), EVENT, headers=bearer(text))

    assert answer.status_code == 200


def test_without_a_catalog_a_customers_key_cannot_send(keyed: Settings, running_gateway_of: Any, event: Any) -> None:
    bound, text = made_key(Scope.INGEST, customer="united")
    body = json.dumps(event()).encode()

    with running_gateway_of(keyed) as gateway:
        gateway.keys.keys.append(bound)
        wait_for(lambda: gateway.post(body, EVENT, headers=bearer(text)).status_code != 401)
        answer = gateway.post(body, EVENT, headers=bearer(text))

    assert (answer.status_code, answer.json()["code"]) == (503, "catalog_unavailable")


def test_a_customers_key_does_not_see_what_all_customers_do(keyed: Settings, running_gateway_of: Any) -> None:
    bound, text = made_key(Scope.QUERY, customer="united")

    with running_gateway_of(keyed, route_handlers=[who]) as gateway:
        gateway.keys.keys.append(bound)
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        answer = gateway.get("/metrics", headers=bearer(text))

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_key_that_goes_too_fast_is_told_when_to_come_back(
    keyed: Settings, running_gateway_of: Any, event: Any, log: Any
) -> None:
    clock = FixedClock(NOW)
    settings = msgspec.structs.replace(keyed, key_events_per_s_max=5.0, key_requests_per_s_max=1_000.0)
    fast, fast_text = made_key(Scope.INGEST)
    calm, calm_text = made_key(Scope.INGEST)
    batch = json.dumps([event() for _ in range(20)]).encode()
    one = json.dumps([event()]).encode()

    with running_gateway_of(settings, catalog=catalog_with_customers(), clock=clock) as gateway:
        gateway.keys.keys += [fast, calm]
        wait_for(lambda: gateway.post(one, BATCH, headers=bearer(calm_text)).status_code == 200)
        statuses = [gateway.post(batch, BATCH, headers=bearer(fast_text)).status_code]
        refused = gateway.post(one, BATCH, headers=bearer(fast_text))
        others = gateway.post(one, BATCH, headers=bearer(calm_text)).status_code
        clock.move_to(NOW + timedelta(seconds=int(refused.headers["retry-after"]) + 1))
        statuses.append(gateway.post(one, BATCH, headers=bearer(fast_text)).status_code)

    assert (refused.status_code, refused.json()["code"], refused.json()["setting"]) == (
        429,
        "too_fast",
        "key_events_per_s_max",
    )
    assert refused.headers["retry-after"] == "2"  # 20 sent, 10 were there: 10 events at 5 a second
    assert (statuses, others) == ([200, 200], 200)
    assert len(log.records()) == 23


def test_requests_have_a_rate_of_their_own(keyed: Settings, running_gateway_of: Any) -> None:
    one, text = made_key(Scope.QUERY)
    settings = msgspec.structs.replace(keyed, key_requests_per_s_max=2.0)

    with running_gateway_of(settings, route_handlers=[who]) as gateway:
        gateway.keys.keys.append(one)
        wait_for(lambda: gateway.get("/v1/who", headers=bearer(text)).status_code == 200)
        answers = [gateway.get("/v1/who", headers=bearer(text)) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["setting"] == "key_requests_per_s_max"


def test_a_rate_is_kept_on_average_whatever_the_pauses() -> None:
    rates, now_s, sent = Rates(10.0), 0.0, 0
    while now_s < 1_000:
        pause_s = rates.take("key", 7, now_s)
        sent += 0 if pause_s else 7
        now_s += pause_s or 0.1

    assert 9_900 <= sent <= 10 * 1_000 + 10 * BURST_S + 7


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0.0)

    assert [rates.take("key", 10**9, 0.0) for _ in range(3)] == [0, 0, 0]


def test_a_mounted_route_cannot_forget_the_guard(served_app: Any) -> None:
    import httpx

    with served_app(who) as url:
        answer = httpx.get(f"{url}/v1/who")

    assert answer.status_code == 500
