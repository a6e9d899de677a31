"""The portal's pages: what they show is what the usage query, the running bill and the frozen lines say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from billing_export import runs
from billing_export.preview import preview
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.cli import build_app
from metering.config import Settings
from metering.portal.app import create_portal
from metering.portal.guard import COOKIE
from metering.portal.links import length_of
from metering.portal.tokens import Claim, Purpose, Tokens
from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from schemas.errors import RequestError
from schemas.quantity import format_quantity
from schemas.usage_query import By, Window
from tests.support.made_billing import CLOCK, METERS, at, close, closer, store_world
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables
from tests.support.read_page import ReadPage

SECRET = "s" * 40
NOW = CLOCK.now()
WAIT_S = 120
CATALOG = (
    METERS
    + """
  - {name: margin, event_type: used, aggregation: sum, value: n}
customers:
  - {id: acme, name: "=Acme <b>", subjects: [s1], timezone: America/New_York}
  - {id: idle, subjects: [s9]}
plans:
  - id: one
    charges:
      - {id: fee, model: flat, amount: 50, description: Base fee}
      - {id: calls, model: graduated, meter: count, description: Calls,
         tiers: [{up_to: 2, unit_amount: 0}, {unit_amount: 1.005}]}
      - {id: traffic, model: per_unit, meter: sum, unit_amount: 0.333, group_by: [region], free_quantity: 1,
         description: Traffic}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""
)
EVENTS = [
    MadeEvent(offset=0, time=at("2013-01-05T12:00"), value="1.5"),
    MadeEvent(offset=1, time=at("2013-01-05T12:00"), value="2", region="us"),
    MadeEvent(offset=2, time=at("2013-01-06T03:00"), value="0.25"),
    MadeEvent(offset=3, time=at("2013-01-09T12:00"), value="4"),
    MadeEvent(offset=4, time=at("2013-02-01T12:00"), value="0.75"),
    MadeEvent(offset=5, time=at("2013-02-02T12:00"), value="3", region="us"),
    MadeEvent(offset=6, time=at("2013-02-02T13:00"), value="7", subject="s7"),
]


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        store_world(made, EVENTS, CATALOG)
        close(made.client)
        yield made


@pytest.fixture(scope="module")
def settings(tables: UsageTables) -> Settings:
    return msgspec.structs.replace(tables.settings, portal_secret=SECRET)


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient[Litestar]]:
    with TestClient(create_portal(settings, clock=CLOCK, patience_s=WAIT_S)) as client:
        client.cookies.set(COOKIE, session("acme"))
        yield client


def session(customer: str) -> str:
    return Tokens((SECRET,)).sign(Claim(customer=customer, ends_at=NOW + timedelta(days=1)), Purpose.SESSION)


def page(http: TestClient[Litestar], address: str) -> ReadPage:
    found = http.get(address)
    assert found.status_code == 200, found.text
    read = ReadPage(found.text)
    assert read.open == []
    return read


def test_the_running_bill_is_the_preview_with_what_is_included_left_and_each_tier(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    [bill] = preview(tables.client, "acme", RollupReader(tables.client), now=NOW)
    text = http.get("/portal").text
    found = ReadPage(text)

    assert found.figures["so-far-2013-02-USD"] == f"{bill.totals[0].so_far} USD"
    assert found.figures["projected-2013-02-USD"] == f"{bill.totals[0].projected} USD"
    assert "<h1>Running bill</h1>" in text
    assert [(row[0], row[1], *row[2:5]) for row in found.tables["allowances-1"][1:]] == [
        ("Calls", "", "2", "2", "0"),
        ("Traffic", "region=eu", "1", "0.75", "0.25"),
        ("Traffic", "region=us", "1", "1", "0"),
    ]
    assert [(row[0], row[4]) for row in found.tables["lines-1"][1:]] == [
        (one.description, one.amount_so_far) for one in bill.lines
    ]
    assert '<th scope="row">0 to 2</th>' in text
    assert "A close would refuse" not in text
    assert "=Acme &lt;b&gt;" in text


def test_usage_by_day_and_dimension_is_that_of_the_query_on_the_customers_days(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    catalog = catalog_store.latest(tables.client)
    assert catalog is not None
    asked = UsageParameters(
        meter="sum", customers=("acme",), start="2013-01-01", end="2013-02-03", window=Window.DAY, by=By.EVERYTHING,
        group_by=("region",),
    )  # fmt: skip
    rows = answer(tables.client, catalog, query_of(asked, catalog, NOW))

    parameters = "meter=sum&from=2013-01-01&to=2013-02-03&group_by=region"
    found = page(http, f"/portal/usage?{parameters}").tables["usage"]
    assert [(row[1], row[2]) for row in found[1:-1]] == [
        (one.dimensions["region"], format_quantity(one.quantity)) for one in rows
    ]
    # In New York 03:00 UTC on the 6th is still the 5th.
    assert found[1:3] == [["2013-01-05", "eu", "1.75", "2"], ["2013-01-05", "us", "2", "1"]]
    assert found[-1][1:] == ["11.5", "6"]
    listed = list(csv.DictReader(io.StringIO(http.get(f"/portal/usage.csv?{parameters}").text)))
    assert [one["quantity"] for one in listed] == [format_quantity(one.quantity) for one in rows]
    assert "customer" not in listed[0]


def test_only_meters_that_the_customer_is_charged_by_are_offered(http: TestClient[Litestar]) -> None:
    text = http.get("/portal/usage").text

    assert '<option value="count" selected>' in text
    assert "margin" not in text
    assert http.get("/portal/usage?meter=margin").status_code == 404


@pytest.mark.parametrize("asked", ["from=2013-13-45", "from=2013-02-02&to=2013-01-01", "from=0001-01-01"])
def test_days_that_cannot_be_answered_about_are_refused_in_words(http: TestClient[Litestar], asked: str) -> None:
    assert "This cannot be shown. Write days as" in http.get(f"/portal/usage?meter=sum&{asked}").text


def test_past_bills_are_the_frozen_lines_and_each_is_explained_down_to_its_events(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    stored = tables.client.query(
        "SELECT toString(id), charge, dimensions['region'], toString(amount) FROM line_items FINAL "
        "WHERE customer = 'acme' ORDER BY line_number"
    ).result_rows
    bills = page(http, "/portal/bills").tables["bills"]
    lines = page(http, "/portal/bill?run=2013-01.1").tables["lines"]

    # 50, two calls of four beyond the free ones at 1.005, and 0.333 for each GB beyond one of a region.
    assert [row[1:] for row in bills[1:]] == [["2013-01", "bill", "4", "53.92 USD"]]
    assert [(row[0], row[2], row[3], row[5]) for row in lines[1:]] == [
        ("Base fee", "", "1", "50.00"),
        ("Calls", "", "4", "2.01"),
        ("Traffic", "region=eu", "5.75", "1.58"),
        ("Traffic", "region=us", "2", "0.33"),
    ]
    traffic = next(row[0] for row in stored if row[1:3] == ("traffic", "eu"))
    text = http.get(f"/portal/line?id={traffic}&events=1").text
    explained = ReadPage(text)
    assert explained.figures["amount"] == "1.58 USD"
    assert [row[1] for row in explained.tables["meter"][1:-1]] == ["1.75", "4"]
    assert [row[-1] for row in explained.tables["event-list"][1:-1]] == ["1.5", "0.25", "4"]
    assert 'id="rounded">Rounded to <data value="1.58">' in text
    # Where in the log an event stands, and in which file of whose disk, is no business of a customer's.
    assert "log-1" not in text.replace("log-1-0-", "")


def test_a_bill_as_csv_has_every_line_and_runs_nothing_in_a_spreadsheet(http: TestClient[Litestar]) -> None:
    answered = http.get("/portal/bill.csv?run=2013-01.1")

    rows = list(csv.DictReader(io.StringIO(answered.text)))
    assert answered.headers["content-disposition"] == 'attachment; filename="bill-2013-01.1.csv"'
    assert [(one["charge"], one["quantity"], one["amount"]) for one in rows] == [
        ("fee", "1", "50.00"), ("calls", "4", "2.01"), ("traffic", "5.75", "1.58"), ("traffic", "2", "0.33"),
    ]  # fmt: skip
    assert rows[2]["dimensions"] == "region=eu"


def test_a_customer_without_a_subscription_is_told_so(http: TestClient[Litestar]) -> None:
    http.cookies.clear()
    http.cookies.set(COOKIE, session("idle"))

    assert "Nothing is running that a bill will be made for" in http.get("/portal").text
    assert "Nothing of what you have is priced by use" in http.get("/portal/usage").text
    assert "Nothing was billed yet" in http.get("/portal/bills").text


def test_while_a_run_is_being_closed_its_lines_are_not_shown_and_the_running_bill_waits(
    settings: Settings, clickhouse: ClickHouseUnderTest
) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(RollupReader):
        def usage(self, *_: object) -> NoReturn:
            raise StoppedError

    with usage_tables(clickhouse) as tables:
        store_world(tables, EVENTS, CATALOG)
        with pytest.raises(StoppedError):
            closer(tables.client, read_usage=Stopping(tables.client)).close("2013-01")
        assert [one.id for one in runs.unfinished(tables.client)] == ["2013-01.1"]
        mine = msgspec.structs.replace(settings, clickhouse_database=tables.settings.clickhouse_database)
        with TestClient(create_portal(mine, clock=CLOCK, patience_s=WAIT_S)) as http:
            http.cookies.set(COOKIE, session("acme"))
            assert "Bills are being made right now" in http.get("/portal").text
            assert "Nothing was billed yet" in http.get("/portal/bills").text
            assert http.get("/portal/bill?run=2013-01.1").status_code == 404


def test_without_clickhouse_a_page_says_so_and_neither_it_nor_the_log_says_more() -> None:
    away = Settings(clickhouse_url="http://127.0.0.1:1", portal_secret=SECRET)
    token = Tokens((SECRET,)).sign(Claim(customer="acme", ends_at=NOW + timedelta(days=1)), Purpose.LINK)
    with TestClient(create_portal(away, clock=CLOCK)) as http, capture_logs() as said:
        assert http.get(f"/portal/enter/{token}", follow_redirects=False).status_code == 303
        found = http.get("/portal")

    assert (found.status_code, "Not at the moment" in found.text, "127.0.0.1" in found.text) == (503, True, False)
    assert [one["event"] for one in said] == ["portal_unavailable"]
    assert token not in str(said)


def test_the_command_prints_a_link_that_opens_the_customers_pages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_CLICKHOUSE_URL", settings.clickhouse_url)
    monkeypatch.setenv("METERING_CLICKHOUSE_USERNAME", settings.clickhouse_username)
    monkeypatch.setenv("METERING_CLICKHOUSE_PASSWORD", settings.clickhouse_password)
    monkeypatch.setenv("METERING_CLICKHOUSE_DATABASE", settings.clickhouse_database)
    monkeypatch.setenv("METERING_PORTAL_SECRET", SECRET)
    monkeypatch.setenv("METERING_PORTAL_URL", "https://usage.example/")
    app = build_app(("portal", "usage"))

    made = json.loads(CliRunner().invoke(app, ["portal", "link", "acme", "--expires-in", "12h", "--json"]).stdout)
    plain = CliRunner().invoke(app, ["portal", "link", "acme"])
    assert made["url"].startswith("https://usage.example/portal/enter/v1.")
    assert plain.stdout.startswith("https://usage.example/portal/enter/v1.")
    assert plain.stdout.count("\n") == 1
    # The link was made by the machine's own clock, long after the world of this test.
    claim = Tokens((SECRET,)).claim(made["url"].rpartition("/")[2], Purpose.LINK, NOW)
    assert claim is not None
    assert (claim.customer, made["customer"]) == ("acme", "acme")
    unknown = CliRunner().invoke(app, ["portal", "link", "nobody"])
    assert isinstance(unknown.exception, RequestError)


@pytest.mark.parametrize(
    ("text", "length"),
    [("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("7d", timedelta(days=7)), ("366d", timedelta(366))],
)
def test_a_length_of_time_is_read(text: str, length: timedelta) -> None:
    assert length_of(text) == length


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "7w", "367d", "1.5h", "٣d", "999999d", "7d "])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="no length of time"):
        length_of(text)
