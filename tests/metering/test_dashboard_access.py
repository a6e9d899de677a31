"""Who gets which page of the dashboard: scopes, customers, sessions, and forms that come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from ingest.access import http_routes
from metering.clock import FixedClock
from metering.config import Settings
from metering.dashboard.app import create_dashboard
from metering.dashboard.guard import page_after, sign_in_address
from metering.dashboard.sessions import COOKIE, Signer
from metering.keys import PUBLIC, ApiKey, Scope, declared_scope, fingerprint, hmac_of, new_key
from metering.testing import ClickHouseUnderTest
from schemas.errors import SettingError
from tests.support.made_billing import CLOCK, close, store_world
from tests.support.made_usage import UsageTables, usage_tables

PEPPER = "p" * 32
NOW = CLOCK.now()
WAIT_S = 120
HOST = "metering.example"
AT = f"http://{HOST}"


def made_key(*scopes: Scope, customer: str = "", **more: Any) -> tuple[ApiKey, str]:
    name, text = new_key()
    one = ApiKey(
        key=name, name="test", hmac=hmac_of(PEPPER, text), pepper=fingerprint(PEPPER), scopes=frozenset(scopes),
        customer=customer, at=NOW, by="test", **more,
    )  # fmt: skip
    return one, text


KEYS = {
    "everything": made_key(Scope.QUERY, Scope.EXPORT, Scope.ADMIN),
    "query": made_key(Scope.QUERY),
    "ingest": made_key(Scope.INGEST),
    "acme": made_key(Scope.QUERY, Scope.EXPORT, customer="acme"),
    "gone": made_key(Scope.QUERY, customer="gone"),
    "revoked": made_key(Scope.QUERY, ends_at=NOW - timedelta(hours=1), ended="revoked"),
}


class Keys:
    """A source of keys that a test changes."""

    def __init__(self) -> None:
        self.keys = [one for one, _ in KEYS.values()]

    def load(self) -> list[ApiKey]:
        return self.keys

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        pass


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        store_world(made)
        close(made.client)
        yield made


@pytest.fixture(scope="module")
def http(tables: UsageTables) -> Iterator[TestClient[Litestar]]:
    """A dashboard on an address that others can reach."""
    settings = msgspec.structs.replace(tables.settings, dashboard_host="0.0.0.0", key_pepper=PEPPER)
    with TestClient(
        create_dashboard(settings, clock=CLOCK, key_source=Keys(), patience_s=WAIT_S), base_url=AT
    ) as client:
        yield client


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name][1]}"}


def session_of(http: TestClient[Litestar], name: str, after: str = "/customers") -> str:
    """The cookie's value that somebody gets who signs in."""
    answer = http.post("/login", data={"key": KEYS[name][1], "after": after}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, after)
    found = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    http.cookies.clear()
    return found.value


def with_session(value: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={value}"}


def test_every_route_declares_its_scope() -> None:
    app = create_dashboard(Settings())

    declared = {
        f"{method} {path}": declared_scope(handler.opt)
        for method, path, handler in http_routes(app)
        if method != "OPTIONS"
    }

    assert declared == {
        "GET /login": PUBLIC,
        "POST /login": PUBLIC,
        "POST /logout": PUBLIC,
        "GET /static/{name:str}": PUBLIC,
        "GET /healthz": PUBLIC,
        "GET /": Scope.QUERY,
        "GET /usage": Scope.QUERY,
        "GET /usage.csv": Scope.QUERY,
        "GET /customers": Scope.QUERY,
        "GET /customer": Scope.QUERY,
        "GET /runs": Scope.QUERY,
        "GET /run": Scope.QUERY,
        "POST /run/verify": Scope.EXPORT,
        "GET /line": Scope.QUERY,
        "GET /dead-letters": Scope.ADMIN,
        "GET /dead-letter": Scope.ADMIN,
        "POST /dead-letters/replay": Scope.ADMIN,
        "GET /kpis": Scope.QUERY,
    }


def test_a_dashboard_that_others_reach_does_not_start_without_a_pepper() -> None:
    with pytest.raises(SettingError, match=r"a dashboard on 0\.0\.0\.0 asks for API keys"):
        create_dashboard(Settings(dashboard_host="0.0.0.0"))


def test_on_this_machine_nobody_is_asked_even_where_there_are_keys(tables: UsageTables) -> None:
    settings = msgspec.structs.replace(tables.settings, key_pepper=PEPPER)
    with TestClient(create_dashboard(settings, clock=CLOCK), base_url="http://127.0.0.1:18082") as client:
        found = {address: client.get(address).status_code for address in ("/customers", "/runs")}

    assert found == {"/customers": 200, "/runs": 200}


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:18082", 200), ("localhost:18082", 200), ("[::1]:18082", 200), ("evil.example", 421), ("", 421),
     ("127.0.0.1.evil.example", 421)],
)  # fmt: skip
def test_where_nobody_is_asked_only_names_of_this_machine_are_answered(
    tables: UsageTables, host: str, status: int
) -> None:
    with TestClient(create_dashboard(tables.settings, clock=CLOCK), base_url="http://127.0.0.1:18082") as client:
        assert client.get("/runs", headers={"host": host}).status_code == status


PAGES = (
    "/",
    "/usage",
    "/usage.csv?meter=sum",
    "/customers",
    "/customer?id=acme",
    "/runs",
    "/run?id=2013-01.1",
    "/line?id=x",
)


@pytest.mark.parametrize("address", PAGES)
def test_elsewhere_every_page_asks_for_a_key(http: TestClient[Litestar], address: str) -> None:
    found = http.get(address, follow_redirects=False)

    assert found.status_code == 302
    assert found.headers["location"] == sign_in_address(address)


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize(("name", "status"), [("ingest", 403), ("revoked", 401)])
def test_a_key_without_the_scope_and_one_that_ended_open_no_page(
    http: TestClient[Litestar], address: str, name: str, status: int
) -> None:
    assert http.get(address, headers=bearer(name)).status_code == status


def test_a_key_opens_a_session_that_scripts_cannot_read_and_other_sites_cannot_use(http: TestClient[Litestar]) -> None:
    answer = http.post("/login", data={"key": KEYS["query"][1], "after": "/runs"}, follow_redirects=False)
    http.cookies.clear()

    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert cookie["max-age"] == "28800"
    assert KEYS["query"][1] not in answer.headers["set-cookie"]
    assert http.get("/runs", headers=with_session(cookie.value)).status_code == 200


@pytest.mark.parametrize("presented", ["", "mk_0000000000000000_x", "x" * 5_000, "mk_é"])
def test_a_key_that_is_not_known_opens_nothing_and_the_page_says_so(http: TestClient[Litestar], presented: str) -> None:
    answer = http.post("/login", data={"key": presented}, follow_redirects=False)

    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert "not known here" in answer.text


@given(place=st.integers(0, 200), letter=st.characters(codec="ascii"))
def test_a_session_that_was_changed_anywhere_is_none(place: int, letter: str) -> None:
    signer = Signer(PEPPER)
    session = signer.session("0123456789abcdef", NOW + timedelta(hours=1))
    changed = session[: place % len(session)] + letter + session[place % len(session) + 1 :]

    assert signer.key_of(session, NOW) == "0123456789abcdef"
    assert signer.key_of(changed, NOW) == ("0123456789abcdef" if changed == session else "")


def test_a_session_ends_with_its_time_with_its_key_and_with_the_pepper() -> None:
    ends_at = NOW + timedelta(hours=8)
    session = Signer(PEPPER).session("0123456789abcdef", ends_at)

    assert Signer(PEPPER).key_of(session, ends_at - timedelta(seconds=1)) == "0123456789abcdef"
    assert Signer(PEPPER).key_of(session, ends_at) == ""
    assert Signer("q" * 32).key_of(session, NOW) == ""


def test_a_session_of_a_key_that_was_revoked_meanwhile_opens_nothing(tables: UsageTables) -> None:
    settings = msgspec.structs.replace(tables.settings, dashboard_host="0.0.0.0", key_pepper=PEPPER)
    session = Signer(PEPPER).session(KEYS["revoked"][0].key, NOW + timedelta(hours=8))
    with TestClient(
        create_dashboard(settings, clock=CLOCK, key_source=Keys(), patience_s=WAIT_S), base_url=AT
    ) as client:
        found = client.get("/runs", headers=with_session(session), follow_redirects=False)

    assert (found.status_code, found.headers["location"]) == (302, "/login?after=%2Fruns")


@pytest.mark.parametrize(
    ("wanted", "after"),
    [("/runs?page=2", "/runs?page=2"), ("//evil.example/", "/"), ("https://evil.example/", "/"),
     ("/\\evil.example", "/"), ("runs", "/"), ("", "/"), ("/a\r\nSet-Cookie: x=1", "/"), ("javascript:alert(1)", "/")],
)  # fmt: skip
def test_signing_in_never_leads_to_another_site(wanted: str, after: str) -> None:
    assert page_after(wanted) == after


FOREIGN = [
    ({"origin": "https://evil.example"}, True),
    ({"origin": "null"}, True),
    ({"origin": f"http://{HOST}.evil.example"}, True),
    ({"sec-fetch-site": "cross-site"}, True),
    ({"sec-fetch-site": "same-site"}, True),
    ({}, False),
    ({"origin": AT}, False),
]


@pytest.mark.parametrize(("headers", "has_token"), FOREIGN)
def test_a_form_that_no_page_of_ours_made_does_nothing(
    http: TestClient[Litestar], headers: dict[str, str], *, has_token: bool
) -> None:
    key, _ = KEYS["everything"]
    token = Signer(PEPPER).form_token(key.key if has_token else "another key")
    session = with_session(session_of(http, "everything"))

    answer = http.post("/run/verify", data={"id": "2013-01.1", "form_token": token}, headers={**session, **headers})

    assert answer.status_code == 403
    assert "does not come from a page of this dashboard" in answer.text
    assert "verdict" not in http.get("/run?id=2013-01.1", headers=session).text


def test_without_a_scope_there_is_no_button_and_no_verifying(http: TestClient[Litestar]) -> None:
    session = with_session(session_of(http, "query"))
    token = Signer(PEPPER).form_token(KEYS["query"][0].key)

    assert "Verify this run" not in http.get("/run?id=2013-01.1", headers=session).text
    answer = http.post("/run/verify", data={"id": "2013-01.1", "form_token": token}, headers=session)
    assert answer.status_code == 403


def test_every_answer_forbids_foreign_scripts_and_frames(http: TestClient[Litestar]) -> None:
    session = with_session(session_of(http, "query"))

    for address in ("/customers", "/login", "/nowhere", "/static/dashboard.css", "/customer?id=nobody"):
        found = http.get(address, headers=session)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert found.headers["x-content-type-options"] == "nosniff"


OTHERS = ("bolt", "s3", "yen")
"""What stands on pages about the other customer, and on none about acme."""


@pytest.mark.parametrize(
    "address",
    ["/usage?meter=sum&from=2013-01-01", "/usage?meter=sum&from=2013-01-01&by=subject", "/customers",
     "/customers?search=b", "/customer?id=acme", "/runs", "/run?id=2013-01.1", "/run?id=2013-01.1&customer=acme",
     "/usage.csv?meter=sum&from=2013-01-01&by=everything"],
)  # fmt: skip
def test_a_customers_key_sees_that_customer_alone(http: TestClient[Litestar], address: str) -> None:
    found = http.get(address, headers=bearer("acme"))

    shown = found.text.partition("<main")[2] or found.text
    assert found.status_code == 200
    assert [word for word in OTHERS if word in shown] == []


def test_what_is_thought_of_a_customer_is_not_shown_to_it(http: TestClient[Litestar]) -> None:
    of_ours, of_its_own = (http.get("/customer?id=acme", headers=bearer(name)).text for name in ("query", "acme"))

    assert 'id="h-health"' in of_ours
    assert "health" not in of_its_own.partition("<main")[2].lower()


def test_what_is_anothers_and_what_is_nobodys_get_the_same_answer(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    [(of_bolt,)] = tables.client.query("SELECT toString(any(id)) FROM line_items WHERE customer = 'bolt'").result_rows
    answers = [
        http.get(address, headers=bearer("acme"))
        for address in (
            "/customer?id=bolt",
            "/customer?id=nobody",
            f"/line?id={of_bolt}",
            "/line?id=00000000-0000-5000-8000-000000000000",
            "/run?id=2013-01.1&customer=bolt",
            "/run?id=2013-01.9",
            "/usage?meter=sum&customer=bolt",
            "/usage.csv?meter=sum&customer=nobody",
        )
    ]

    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    gone = http.get("/run?id=2013-01.1", headers=bearer("gone"))
    assert (gone.status_code, gone.text) == (404, answers[0].text)


def test_the_first_page_of_a_customers_key_is_that_customer(http: TestClient[Litestar]) -> None:
    found = http.get("/", headers=bearer("acme"), follow_redirects=False)

    assert (found.status_code, found.headers["location"]) == (302, "/customer?id=acme")
    token = Signer(PEPPER).form_token(KEYS["acme"][0].key)
    verify = http.post("/run/verify", data={"id": "2013-01.1", "form_token": token}, headers=bearer("acme"))
    assert verify.status_code == 404


def test_signing_out_takes_the_session_out_of_the_browser(http: TestClient[Litestar]) -> None:
    answer = http.post("/logout", headers=with_session(session_of(http, "query")), follow_redirects=False)

    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (answer.headers["location"], cookie.value, cookie["max-age"]) == ("/login", "", "0")


def test_keys_that_cannot_be_read_open_nothing() -> None:
    class Away(Keys):
        def load(self) -> list[ApiKey]:
            raise OSError("away")

    settings = Settings(dashboard_host="0.0.0.0", key_pepper=PEPPER)
    with TestClient(
        create_dashboard(settings, clock=FixedClock(datetime(2013, 2, 3, tzinfo=UTC)), key_source=Away()), base_url=AT
    ) as client:
        found = client.get("/runs", headers=bearer("query"))

    assert found.status_code == 503
    assert "API keys cannot be read" in found.text
