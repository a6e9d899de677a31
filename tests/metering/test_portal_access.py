"""Whose numbers the portal shows: those of the link's customer, whatever is in the address, a token or a header."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from http.cookies import SimpleCookie
from itertools import product
from typing import Any

import msgspec
import pytest
from httpx import Response
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from ingest.access import http_routes
from metering.clock import FixedClock
from metering.config import Settings
from metering.dashboard.app import create_dashboard
from metering.dashboard.sessions import COOKIE as DASHBOARD_COOKIE
from metering.dashboard.sessions import Signer
from metering.keys import PUBLIC, declared_scope, fingerprint, new_key
from metering.portal.app import beside, create_portal
from metering.portal.guard import COOKIE
from metering.portal.links import make_link
from metering.portal.tokens import Claim, Purpose, Tokens
from metering.testing import ClickHouseUnderTest
from schemas.errors import SettingError
from tests.support.made_billing import CLOCK, close, store_world
from tests.support.made_usage import UsageTables, usage_tables

SECRET, BEFORE, ELSE = "s" * 40, "b" * 40, "e" * 40
NOW = CLOCK.now()
WEEK = timedelta(days=7)
WAIT_S = 120
TOKENS = Tokens((SECRET, BEFORE))
OTHERS = ("bolt", "Bolt", "s3", "JPY", "peak")
"""What stands on pages about the other customer, and on none about acme."""


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        store_world(made)
        close(made.client)
        yield with_secrets(made)


def with_secrets(made: UsageTables) -> UsageTables:
    settings = msgspec.structs.replace(
        made.settings, portal_secret=SECRET, portal_secret_before=BEFORE, portal_url="https://usage.example"
    )
    return UsageTables(made.client, settings)


@pytest.fixture(scope="module")
def http(tables: UsageTables) -> Iterator[TestClient[Litestar]]:
    app = create_portal(tables.settings, clock=CLOCK, patience_s=WAIT_S)
    with TestClient(app, base_url="https://usage.example") as client:
        yield client


def session(customer: str = "acme", *, ends_in: timedelta = WEEK, tokens: Tokens = TOKENS) -> str:
    return tokens.sign(Claim(customer=customer, ends_at=NOW + ends_in), Purpose.SESSION)


def link(customer: str = "acme", *, ends_in: timedelta = WEEK, tokens: Tokens = TOKENS) -> str:
    return tokens.sign(Claim(customer=customer, ends_at=NOW + ends_in), Purpose.LINK)


def look(http: TestClient[Any], address: str, cookie: str = "", **headers: str) -> Response:
    http.cookies.clear()
    given = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
    return http.get(address, headers={**given, **headers}, follow_redirects=False)


def lines_of(tables: UsageTables, customer: str) -> list[str]:
    rows = tables.client.query(
        "SELECT toString(id) FROM line_items FINAL WHERE customer = {customer:String} ORDER BY id",
        {"customer": customer},
    ).result_rows
    return [row[0] for row in rows]


def pages(line: str) -> list[str]:
    """Every address that shows something of a customer."""
    return [
        "/portal",
        "/portal/usage?meter=sum&from=2013-01-01&to=2013-02-03&group_by=region",
        "/portal/usage.csv?meter=sum&from=2013-01-01&to=2013-02-03",
        "/portal/bills",
        "/portal/bill?run=2013-01.1",
        "/portal/bill.csv?run=2013-01.1",
        f"/portal/line?id={line}",
        f"/portal/line?id={line}&events=1",
    ]


def test_the_addresses_that_are_tried_are_all_that_there_are(tables: UsageTables) -> None:
    routes = {
        (path, declared_scope(handler.opt))
        for method, path, handler in http_routes(create_portal(tables.settings))
        if method == "GET"
    }

    tried = {(address.partition("?")[0], None) for address in pages("x")}
    open_to_all = {
        ("/portal/enter/{token:str}", PUBLIC),
        ("/portal/static/{name:str}", PUBLIC),
        ("/portal/healthz", PUBLIC),
    }
    assert routes == tried | open_to_all


def test_a_link_opens_the_customers_pages_and_leaves_the_address(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    made = make_link(tables.settings, "acme", expires_in=WEEK, now=NOW)
    answer = look(http, made.url)

    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal")
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"], cookie["path"]) == (True, "lax", True, "/portal")
    assert (cookie["max-age"], cookie.value == made.url.rpartition("/")[2]) == (str(7 * 86_400), False)
    for address in pages(lines_of(tables, "acme")[0]):
        found = look(http, address, cookie.value)
        assert (found.status_code, [word for word in OTHERS if word in found.text]) == (200, [])


def test_every_page_of_the_other_customer_shows_the_other_customer(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    # So that what is looked for in the tests below would be found if it were shown.
    shown = "".join(look(http, address, session("bolt")).text for address in pages(lines_of(tables, "bolt")[0]))

    assert [word for word in OTHERS if word not in shown] == []


def wrong_sessions() -> dict[str, str]:
    """Sessions that are none."""
    good, claim = session(), Claim(customer="acme", ends_at=NOW + WEEK)
    said, _, signature = good.rpartition(".")
    version, key, customer, end = said.split(".")
    other = link("bolt").split(".")[2]
    return {
        "none": "",
        "rubbish": "x",
        "over": session(ends_in=timedelta(0)),
        "long over": session(ends_in=-WEEK),
        "a link": link(),
        "another secret": session(tokens=Tokens((ELSE,))),
        "another secret under our key": f"{version}.{fingerprint(SECRET)}."
        + Tokens((ELSE,)).sign(claim, Purpose.SESSION).split(".", 2)[2],
        "a key that is not known": f"{version}.00000000.{customer}.{end}.{signature}",
        "another customer": f"{version}.{key}.{other}.{end}.{signature}",
        "a later end": f"{version}.{key}.{customer}.{int(end) + 1}.{signature}",
        "another version": f"v2.{key}.{customer}.{end}.{signature}",
        "without its signature": said,
        "with an empty signature": f"{said}.",
        "cut": good[:-1],
        "longer": f"{good}0",
        "in capitals": good.upper(),
        "padded": f"{version}.{key}.{customer}=.{end}.{signature}",
        "twice": f"{good}.{signature}",
        "of nobody": session(""),
        "of a customer that is none": session("nobody"),
        "an API key": new_key()[1],
        "a session of the dashboard": Signer(SECRET).session("0123456789abcdef", NOW + WEEK),
        "very long": f"{said}.{'0' * 9_000}",
    }


def test_whatever_is_wrong_with_a_session_every_page_gives_the_same_answer(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    addresses = pages(lines_of(tables, "acme")[0])
    answers = {
        (name, address): look(http, address, cookie)
        for (name, cookie), address in product(wrong_sessions().items(), addresses)
    }

    absent = look(http, "/portal/nowhere", session())
    assert {key: one.status_code for key, one in answers.items() if one.status_code != 404} == {}
    assert {one.content for one in answers.values()} == {absent.content}
    assert {tuple(sorted(one.headers.items())) for one in answers.values()} == {tuple(sorted(absent.headers.items()))}


def test_whatever_is_wrong_with_a_link_the_answer_is_the_same_and_opens_nothing(http: TestClient[Litestar]) -> None:
    links = [*(one for one in wrong_sessions().values() if one != link()), session(), link(ends_in=timedelta(0)), "a/b"]

    answers = [look(http, f"/portal/enter/{one}") for one in links]
    absent = look(http, "/portal/nowhere", session())
    assert {(one.status_code, one.content, one.headers.get("set-cookie")) for one in answers} == {
        (404, absent.content, None)
    }


def elsewhere(line: str) -> list[str]:
    """Addresses that name the other customer, or what is the other customer's, in every way there is."""
    return [
        f"/portal/line?id={line}",
        f"/portal/line?id={line}&events=1",
        f"/portal/line?id={line.upper()}",
        f"/portal/line?id={line[:8]}",
        f"/portal/line?id={line}&customer=bolt",
        "/portal/line?id=00000000-0000-5000-8000-000000000000",
        "/portal/line?id=%27%20OR%201=1--",
        "/portal/line",
        "/portal/bill?run=2013-02.1",
        "/portal/bill?run=%25",
        "/portal/bill?run=2013-01.1%27%20OR%20%271",
        "/portal/bill.csv?run=2012-12.1",
        "/portal/bill",
        "/portal/usage?meter=unique_count",
        "/portal/usage.csv?meter=unique_count",
        "/portal/usage.csv?meter=nothing",
        "/portal/usage.csv?meter=sum&from=yesterday",
        "/portal/bills?page=x",
        "/portal/../customers",
        "/portal/customer?id=bolt",
        "/portal/bolt",
        "/customer?id=bolt",
        "/",
    ]


def test_what_is_anothers_and_what_is_nobodys_give_the_same_answer(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    found = {
        address: look(http, address, session()) for line in lines_of(tables, "bolt") for address in elsewhere(line)
    }

    absent = look(http, "/portal/nowhere", session())
    assert {address: one.status_code for address, one in found.items() if one.status_code != 404} == {}
    assert {one.content for one in found.values()} == {absent.content}


ADDED = (
    "customer=bolt&customers=bolt&customer_id=bolt&subject=s3&subjects=s3&principal=bolt&token=bolt",
    "id=bolt",
    "customer=acme&customer=bolt&by=customer&window=total&timezone=UTC&group_by=customer",
    "by=subject&group_by=subject&run=2013-01.1",
)


@pytest.mark.parametrize("added", ADDED)
def test_nothing_that_is_added_to_an_address_shows_another_customer(
    http: TestClient[Litestar], tables: UsageTables, added: str
) -> None:
    for address in pages(lines_of(tables, "acme")[0]):
        found = look(http, f"{address}{'&' if '?' in address else '?'}{added}", session())
        assert [word for word in OTHERS if word in found.text] == [], address


def headers_of_others() -> list[dict[str, str]]:
    """Headers by which other programs say who asks, or which address is meant."""
    theirs = session("bolt")
    named = dict.fromkeys(
        ("X-Customer", "X-Customer-Id", "X-User", "X-Forwarded-User", "X-Remote-User", "Remote-User", "From",
         "Customer", "Principal", "X-Tenant", "X-Subject"),
        "bolt",
    )  # fmt: skip
    signed_in = Signer(SECRET).session("0123456789abcdef", NOW + WEEK)
    moved = dict.fromkeys(
        ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Path"), "/customer?id=bolt"
    )
    return [
        {**named, **moved, "X-HTTP-Method-Override": "POST", "X-Forwarded-Host": "bolt.example"},
        {"Authorization": f"Bearer {theirs}"},
        {"Authorization": f"Bearer {new_key()[1]}"},
        {"Host": "bolt.example"},
        {"Referer": f"https://usage.example/portal/enter/{link('bolt')}"},
        {"Cookie": f"{COOKIE}={session()}; {DASHBOARD_COOKIE}={signed_in}"},
        {"Cookie": f"{COOKIE}={session()}; customer=bolt"},
        {"Cookie": f"{COOKIE.upper()}={theirs}; {COOKIE}={session()}"},
    ]


def test_no_header_changes_what_is_shown(http: TestClient[Litestar], tables: UsageTables) -> None:
    for address in pages(lines_of(tables, "acme")[0]):
        plain = look(http, address, session())
        for headers in headers_of_others():
            found = look(http, address, session(), **headers)
            assert (found.status_code, found.content) == (plain.status_code, plain.content), (address, headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"])
def test_there_is_nothing_to_send_to_the_portal(http: TestClient[Litestar], tables: UsageTables, method: str) -> None:
    absent = look(http, "/portal/nowhere", session())
    for address in pages(lines_of(tables, "acme")[0]):
        found = http.request(method, address, headers={"Cookie": f"{COOKIE}={session()}"}, follow_redirects=False)
        assert (found.status_code, found.content) == (404, b"" if method == "HEAD" else absent.content)


@given(place=st.integers(0, 400), letter=st.characters(codec="ascii"))
def test_a_token_that_was_changed_anywhere_says_nothing(place: int, letter: str) -> None:
    for purpose in Purpose:
        token = TOKENS.sign(Claim(customer="acme", ends_at=NOW + WEEK), purpose)
        at = place % len(token)
        changed = token[:at] + letter + token[at + 1 :]
        if changed != token:
            assert TOKENS.claim(changed, purpose, NOW) is None


@given(text=st.text(max_size=700))
def test_text_of_anybodys_says_nothing(text: str) -> None:
    assert [TOKENS.claim(text, purpose, NOW) for purpose in Purpose] == [None, None]


@pytest.mark.parametrize("customer", ["acme", "a.b.c", "A:/@-_", "x" * 128])
def test_a_token_says_whom_it_is_for_until_it_ends(customer: str) -> None:
    token = TOKENS.sign(Claim(customer=customer, ends_at=NOW + WEEK), Purpose.LINK)

    claim = Claim(customer=customer, ends_at=NOW + WEEK, key=fingerprint(SECRET))
    assert TOKENS.claim(token, Purpose.LINK, NOW + WEEK - timedelta(microseconds=1)) == claim
    assert TOKENS.claim(token, Purpose.LINK, NOW + WEEK) is None
    assert TOKENS.claim(token, Purpose.SESSION, NOW) is None


def test_while_a_secret_is_replaced_links_of_both_are_taken_and_afterwards_neither_link_nor_session_of_the_old(
    tables: UsageTables,
) -> None:
    old = link(tokens=Tokens((BEFORE,)))
    both = create_portal(tables.settings, clock=CLOCK, patience_s=WAIT_S)
    after = create_portal(
        msgspec.structs.replace(tables.settings, portal_secret_before=""), clock=CLOCK, patience_s=WAIT_S
    )
    with TestClient(both, base_url="https://usage.example") as client:
        opened = look(client, f"/portal/enter/{old}")
        cookie = SimpleCookie(opened.headers["set-cookie"])[COOKIE].value
        assert look(client, "/portal/bills", cookie).status_code == 200
    with TestClient(after, base_url="https://usage.example") as client:
        assert look(client, f"/portal/enter/{old}").status_code == 404
        assert look(client, "/portal/bills", cookie).status_code == 404
        assert look(client, f"/portal/enter/{link()}").status_code == 303


def test_a_session_ends_with_its_link(tables: UsageTables) -> None:
    cookie = session()
    later = create_portal(tables.settings, clock=FixedClock(NOW + WEEK), patience_s=WAIT_S)
    with TestClient(later, base_url="https://usage.example") as client:
        assert look(client, "/portal/bills", cookie).status_code == 404


def test_no_answer_is_kept_by_anybody_or_named_to_other_sites(http: TestClient[Litestar], tables: UsageTables) -> None:
    for address in [*pages(lines_of(tables, "acme")[0]), f"/portal/enter/{link()}", "/portal/nowhere"]:
        found = look(http, address, session())
        assert found.headers["cache-control"] == "no-store", address
        assert found.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"


def test_beside_the_dashboard_neither_opens_anything_of_the_other(tables: UsageTables) -> None:
    pepper = "p" * 32
    settings = msgspec.structs.replace(
        tables.settings, dashboard_host="0.0.0.0", key_pepper=pepper, keys_required="always"
    )

    class NoKeys:
        def load(self) -> list[object]:
            return []

        def note_uses(self, uses: object) -> None:
            pass

    dashboard = create_dashboard(settings, clock=CLOCK, key_source=NoKeys())  # type: ignore[arg-type] # no keys at all
    app = beside(dashboard, create_portal(settings, clock=CLOCK, patience_s=WAIT_S))
    with TestClient(app, base_url="https://usage.example") as client:
        assert look(client, "/portal/bills", session()).status_code == 200
        assert look(client, "/portal/bills").status_code == 404
        for address in ("/", "/customers", "/customer?id=acme", "/usage", "/runs", "/portalx"):
            found = look(client, address, session())
            assert found.status_code in (302, 404), address
            assert "acme" not in found.text
        assert "set-cookie" not in look(client, f"/portal/enter/{link()}x").headers


def test_without_a_secret_there_is_no_portal_and_no_link() -> None:
    with pytest.raises(SettingError, match="METERING_PORTAL_SECRET"):
        create_portal(Settings())
    with pytest.raises(SettingError, match="METERING_PORTAL_SECRET"):
        make_link(Settings(), "acme", expires_in=WEEK, now=NOW)
