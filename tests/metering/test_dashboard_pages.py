"""The dashboard's pages over HTTP, on a real ClickHouse: what stands there is what the queries and the lines say."""

from __future__ import annotations

import csv
import html as escapes
import io
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from billing_export import runs
from billing_export.line_store import documents
from billing_export.preview import preview
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.config import Settings
from metering.dashboard.app import create_dashboard
from metering.kafka import ensure_topics, log_ends
from metering.read_query import read_query
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from schemas.line_item import decode_line_item
from schemas.quantity import format_quantity
from schemas.topics import USAGE_EVENTS
from schemas.usage_query import Window
from tests.support.made_billing import CATALOG, CLOCK, LINES, close, store_world
from tests.support.made_usage import UsageTables, usage_tables
from tests.support.read_page import ReadPage

AT = "http://127.0.0.1:18082"
WAIT_S = 120
HOSTILE = CATALOG.replace("name: Bolt", 'name: "<script>alert(1)</script>"')


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        store_world(made, catalog=HOSTILE)
        close(made.client)
        yield made


def application(settings: Settings, kafka: KafkaUnderTest) -> TestClient[Litestar]:
    here = msgspec.structs.replace(settings, kafka_servers=kafka.bootstrap)
    ensure_topics(here)
    return TestClient(create_dashboard(here, clock=CLOCK, patience_s=WAIT_S), base_url=AT)


@pytest.fixture(scope="module")
def http(tables: UsageTables, kafka: KafkaUnderTest) -> Iterator[TestClient[Litestar]]:
    with application(tables.settings, kafka) as client:
        yield client


def page(http: TestClient[Litestar], address: str) -> ReadPage:
    found = http.get(address)
    assert found.status_code == 200, found.text
    return ReadPage(found.text)


def usage_of(tables: UsageTables, window: Window, **more: Any) -> list[list[str]]:
    """What the usage query says, as rows of the page."""
    catalog = catalog_store.latest(tables.client)
    assert catalog is not None
    query = query_of(UsageParameters(window=window, **more), catalog, CLOCK.now())
    rows = answer(tables.client, catalog, query)
    shown = [f"{one.window_start:%Y-%m-%d}" for one in rows]
    return [
        [*([day] if window is Window.DAY else []), one.who, *one.dimensions.values(), format_quantity(one.quantity),
         str(one.events_count)]
        for day, one in zip(shown, rows, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("meter", ["count", "sum", "min", "max", "avg", "latest", "unique_count"])
def test_the_rows_of_the_usage_page_are_those_of_the_usage_query(
    http: TestClient[Litestar], tables: UsageTables, meter: str
) -> None:
    found = page(http, f"/usage?meter={meter}&from=2013-01-01&window=day&group_by=region")

    rows = [row for row in found.tables["usage"][1:] if row[0] != "All rows"]
    expected = usage_of(tables, Window.DAY, meter=meter, start="2013-01-01", group_by=("region",))
    assert rows == expected
    assert len(rows) > 3


def test_rows_that_add_up_have_their_sum_below_them(http: TestClient[Litestar]) -> None:
    found = page(http, "/usage?meter=sum&from=2013-01-01&window=total&by=everything")

    assert found.tables["usage"][1:] == [["12348694.423456789012", "9"], ["All rows", "12348694.423456789012", "9"]]


def test_the_csv_of_a_page_has_its_rows(http: TestClient[Litestar]) -> None:
    question = "meter=sum&from=2013-01-01&window=day&customer=acme&group_by=region&group_by=kind"
    found = page(http, f"/usage?{question}").tables["usage"][1:-1]

    address = re.search(r'id="csv" href="([^"]+)"', http.get(f"/usage?{question}").text)
    assert address is not None
    answered = http.get(address.group(1).replace("&amp;", "&"))
    lines = list(csv.DictReader(io.StringIO(answered.text)))
    assert answered.headers["content-type"].startswith("text/csv")
    assert [
        [one["window_start"][:10], one["customer"], one["region"], one["kind"], one["quantity"]] for one in lines
    ] == [row[:5] for row in found]


def test_the_sql_behind_a_page_runs_elsewhere_and_gives_its_numbers(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    question = "/usage?meter=sum&from=2013-01-01&to=2013-02-01&window=total&customer=acme&timezone=America/New_York"
    text = http.get(question).text
    statement = re.search(r'<pre id="sql-1"[^>]*>(.*?)</pre>', text, re.DOTALL)
    assert statement is not None

    found = read_query(tables.client, escapes.unescape(statement.group(1)))

    shown = ReadPage(text).tables["usage"][1]
    assert [(row[found.columns.index("who")], row[found.columns.index("total")]) for row in found.rows] == [
        ("acme", shown[1])
    ]


def test_a_question_that_cannot_be_answered_says_why_beside_the_form(http: TestClient[Litestar]) -> None:
    found = http.get("/usage?meter=sum&from=2013-02-01&to=2013-01-01")

    assert found.status_code == 200
    assert 'role="alert"' in found.text
    assert "the range is empty" in found.text


def test_a_customers_page_has_usage_running_bill_plan_and_what_was_billed(
    http: TestClient[Litestar], tables: UsageTables
) -> None:
    found = page(http, "/customer?id=acme")

    [bill] = preview(tables.client, "acme", RollupReader(tables.client), now=CLOCK.now())
    assert found.figures["so-far-2013-02-USD"] == f"{bill.totals[0].so_far} USD"
    assert found.figures["projected-2013-02-USD"] == f"{bill.totals[0].projected} USD"
    used = {row[0]: row[1] for row in found.tables["used"][1:]}
    assert used == {
        row["meter"]: row["quantity"]
        for row in (
            {"meter": meter, "quantity": usage[0][1] if usage else "0"}
            for meter in used
            for usage in [usage_of(tables, Window.TOTAL, meter=meter, customers=("acme",))]
        )
    }
    assert found.tables["plan"][1][:2] == ["acme-1", "standard version 1"]
    assert [row[:3] for row in found.tables["changes"][1:]] == [["2012-06-01", "acme-1", "subscription started"]]
    assert found.tables["billed"][1:] == [["2013-01.1", "4", "4111166.83", "USD"]]


def test_customers_are_found_by_id_name_and_subject(http: TestClient[Litestar]) -> None:
    found = {text: [row[0] for row in page(http, f"/customers?search={text}").tables["customers"][1:]] for text in (
        "acme", "SCRIPT", "s3", "s",
    )}  # fmt: skip

    assert found == {"acme": ["acme"], "SCRIPT": ["bolt"], "s3": ["bolt"], "s": ["acme", "bolt"]}
    assert "There is none with that text" in http.get("/customers?search=zzz").text


def test_the_lines_of_a_runs_page_are_the_frozen_ones(http: TestClient[Litestar]) -> None:
    found = page(http, "/run?id=2013-01.1")

    amounts = [(row[1], row[3].removeprefix("region="), row[4], row[6]) for row in found.tables["lines"][1:]]
    assert amounts == [(customer, region, quantity, amount) for customer, _, region, quantity, _, amount in LINES]
    assert (found.figures["total-USD"], found.figures["total-JPY"]) == ("4111166.83 USD", "37 JPY")
    runs = page(http, "/runs").tables["runs"]
    assert runs[1][:3] == ["2013-01.1", "2013-01", "bill"]
    assert runs[1][-1] == "37 JPY4111166.83 USD"


def test_lines_can_be_chosen_by_customer_and_by_being_corrections(http: TestClient[Litestar]) -> None:
    of_bolt = page(http, "/run?id=2013-01.1&customer=bolt").tables["lines"][1:]

    assert {row[1] for row in of_bolt} == {"bolt"}
    assert len(of_bolt) == 6
    assert "nothing earlier was corrected" in http.get("/run?id=2013-01.1&which=adjustments").text


@pytest.mark.parametrize("charge", ["fee", "traffic", "peak"])
def test_a_line_is_explained_down_to_events_that_add_up_to_it(
    http: TestClient[Litestar], tables: UsageTables, charge: str
) -> None:
    lines = [decode_line_item(text) for text in documents(tables.client, [runs.by_id(tables.client, "2013-01.1")])]
    line = next(one for one in lines if one.charge == charge)

    text = http.get(f"/line?id={line.id}&events=1").text

    found = ReadPage(text)
    assert "equal to the frozen line in every field" in text
    assert found.figures["amount"] == f"{line.amount} {line.currency}"
    assert ("event-list" in found.tables) == bool(line.meter)
    if line.meter:
        events = found.tables["event-list"]
        assert len(events) - 2 == line.events_count
        assert sum(Decimal(row[5]) for row in events[1:-1]) == Decimal(line.quantity) == Decimal(events[-1][1])


def test_a_run_is_verified_by_a_button_and_says_what_was_found(http: TestClient[Litestar], tables: UsageTables) -> None:
    token = page(http, "/run?id=2013-01.1").hidden["form_token"]

    sent = http.post("/run/verify", data={"id": "2013-01.1", "form_token": token}, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/run?id=2013-01.1#proof")
    assert "10 lines are what their events say; 8 events read" in verdict(http)

    tables.client.command(
        "ALTER TABLE line_items UPDATE amount = amount + 1 WHERE charge = 'fee' SETTINGS mutations_sync = 2"
    )
    try:
        http.post("/run/verify", data={"id": "2013-01.1", "form_token": token})
        assert "differences" in verdict(http)
    finally:
        tables.client.command(
            "ALTER TABLE line_items UPDATE amount = amount - 1 WHERE charge = 'fee' SETTINGS mutations_sync = 2"
        )


def verdict(http: TestClient[Litestar]) -> str:
    """What the page says once the proof is over, without markup."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        found = re.search(r'id="verdict">(.*?)</(?:p|div)>', http.get("/run?id=2013-01.1").text, re.DOTALL)
        if found:
            return re.sub(r"<[^>]+>", "", found.group(1))
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_the_overview_has_what_the_views_and_the_previews_say(
    http: TestClient[Litestar], tables: UsageTables, kafka: KafkaUnderTest
) -> None:
    found = page(http, "/")

    [bill] = preview(tables.client, "acme", RollupReader(tables.client), now=CLOCK.now())
    assert found.tables["revenue"][1:] == [["2013-02", "USD", "1", bill.totals[0].so_far]]
    assert (found.figures["events-accepted"], found.figures["dead-letters-open"]) == ("10", "0")
    assert found.figures["events-per-second"] == "0"
    # The ledger of these tables is of another log, so nothing of this one is folded.
    ends = log_ends(msgspec.structs.replace(tables.settings, kafka_servers=kafka.bootstrap), USAGE_EVENTS)
    assert found.figures["lag"] == str(sum(end - first for first, end in ends.values()))


def test_what_stands_in_the_data_is_never_markup(http: TestClient[Litestar]) -> None:
    pages = [
        http.get(address).text
        for address in (
            "/customers",
            "/customer?id=bolt",
            "/run?id=2013-01.1",
            "/usage?meter=%3Cscript%3Ealert(1)%3C/script%3E",
            "/customers?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        )
    ]

    assert all("<script>alert(1)" not in text for text in pages)
    assert sum("&lt;script&gt;alert(1)" in text for text in pages) >= 3


@pytest.mark.parametrize(
    "address", ["/customer?id=nobody", "/run?id=nothing", "/line?id=x", "/line?id=00000000-0000-5000-8000-000000000000",
                "/nowhere", "/static/none.css", "/static/..%2Fapp.py"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(http: TestClient[Litestar], address: str) -> None:
    found = http.get(address)

    assert found.status_code == 404
    assert "There is nothing here" in found.text


def test_a_page_without_a_database_says_what_to_do(tables: UsageTables, kafka: KafkaUnderTest) -> None:
    away = msgspec.structs.replace(tables.settings, clickhouse_url="http://127.0.0.1:1")
    with application(away, kafka) as client:
        found = client.get("/customers")

    assert found.status_code == 503
    assert "ClickHouse does not answer" in found.text
    assert "metering up" in found.text


def test_a_database_without_a_catalog_says_what_to_do(clickhouse: ClickHouseUnderTest, kafka: KafkaUnderTest) -> None:
    with usage_tables(clickhouse) as empty, application(empty.settings, kafka) as client:
        found = {address: client.get(address) for address in ("/", "/usage", "/customers", "/runs")}

    assert {address: one.status_code for address, one in found.items()} == {
        "/": 200, "/usage": 400, "/customers": 400, "/runs": 200,
    }  # fmt: skip
    assert "metering apply" in found["/usage"].text
