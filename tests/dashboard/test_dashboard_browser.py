"""The dashboard and the portal in a real Chromium: by clicking, by keyboard alone, in light, dark and on a phone.

Screenshots are left in build/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from billing_export.preview import preview
from billing_export.running import running_totals
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from schemas.quantity import format_quantity
from schemas.usage_query import By, Window
from tests.support.chromium import MISSING, chromium_path
from tests.support.dashboard_world import CLOCK, Served, served_dashboard

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
WAIT_MS = 120_000
WIDE: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
USAGE = "/usage?meter=sum&from=2013-01-15&to=2013-02-18&window=day&by=customer&group_by=region"
PAGES = {
    "overview": "/",
    "usage": USAGE,
    "customers": "/customers",
    "customer": "/customer?id=acme",
    "runs": "/runs",
    "run": "/run?id=2013-01.1",
    "dead-letters": "/dead-letters",
    "dead-letter": "/dead-letter?partition=0&offset=900&epoch=log-1",
    "kpis": "/kpis",
    "portal": "/portal",
    "portal-usage": "/portal/usage?meter=sum&from=2013-01-15&to=2013-02-18&group_by=region",
    "portal-bills": "/portal/bills",
    "portal-bill": "/portal/bill?run=2013-01.1",
    "portal-absent": "/portal/nowhere",
}


@pytest.fixture(scope="module")
def served(clickhouse: ClickHouseUnderTest, kafka: KafkaUnderTest) -> Iterator[Served]:
    with served_dashboard(clickhouse, kafka) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not chromium_path():
        pytest.fail(MISSING)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=WAIT_MS
        )
        yield chromium
        chromium.close()


class Seen:
    """A page, and what it did besides: messages of the console, and requests for anything of another host."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.address = address
        self.messages: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def _note(self, url: str) -> None:
        if not url.startswith((self.address, "data:")):
            self.elsewhere.append(url)


def seen(browser: Browser, served: Served, *, bypass_csp: bool = False) -> Seen:
    # axe is put into the page as a script, which the dashboard's own policy forbids, as it should.
    context = browser.new_context(viewport=WIDE, color_scheme="light", bypass_csp=bypass_csp)
    context.set_default_timeout(WAIT_MS)
    return Seen(context, served.address)


def numbers(page: Page, css: str) -> list[str]:
    """The exact numbers behind what is shown."""
    return [str(one) for one in page.eval_on_selector_all(f"{css} data", "all => all.map(one => one.value)")]


def test_every_page_is_reached_by_clicking_and_has_the_numbers_of_the_queries(browser: Browser, served: Served) -> None:
    client, now = served.tables.client, CLOCK.now()
    catalog = catalog_store.latest(client)
    assert catalog is not None
    looked = seen(browser, served)
    page = looked.open("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    totals = running_totals(client, RollupReader(client), now=now)
    assert numbers(page, "#revenue td.strong") == [one.amount for one in totals]
    # 81, 82, 83 and 84 records in four of the last five whole minutes, and none in the newest.
    assert numbers(page, "#events-per-second") == ["1.1"]

    page.get_by_role("link", name="Usage", exact=True).click()
    page.get_by_label("Meter").select_option("sum")
    page.get_by_label("From").fill("2013-01-01")
    page.get_by_label("To (not included)").fill("2013-02-01")
    page.get_by_label("Window").select_option("total")
    page.get_by_label("region").check()
    page.get_by_role("button", name="Show").click()
    query = query_of(
        UsageParameters(meter="sum", start="2013-01-01", end="2013-02-01", window=Window.TOTAL, group_by=("region",)),
        catalog,
        now,
    )
    rows = answer(client, catalog, query)
    assert numbers(page, "#usage tbody td.n:nth-last-child(2)") == [format_quantity(one.quantity) for one in rows]
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV of these rows").click()
    assert download.value.path().read_text().count("\n") == len(rows) + 1

    page.get_by_role("link", name="Customers", exact=True).click()
    page.get_by_label("Id, name or subject").fill("s2")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("rowheader", name="acme").get_by_role("link").click()
    [bill] = preview(client, "acme", RollupReader(client), now=now)
    assert numbers(page, "#so-far-2013-02-USD") == [bill.totals[0].so_far]
    assert numbers(page, "#projected-2013-02-USD") == [bill.totals[0].projected]

    page.get_by_role("link", name="Billing runs", exact=True).click()
    page.get_by_role("link", name="2013-01.1").click()
    stored = client.query("SELECT toString(amount) FROM line_items FINAL WHERE run = '2013-01.1' ORDER BY line_number")
    assert [Decimal(one) for one in numbers(page, "#lines td.strong")] == [
        Decimal(row[0]) for row in stored.result_rows
    ]
    page.get_by_role("button", name="Verify this run").click()
    expect(page.locator("#verdict")).to_contain_text("lines are what their events say", timeout=WAIT_MS)
    page.get_by_role("link", name="Calls").first.click()
    expect(page.locator("#verdict")).to_contain_text("equal to the frozen line in every field", timeout=WAIT_MS)
    page.screenshot(path=SCREENSHOTS / "line-light.png", full_page=True)
    page.get_by_role("link", name="List the events behind this line").click()
    expect(page.locator("#event-list")).to_be_visible(timeout=WAIT_MS)
    assert numbers(page, "#page-sum") == [str(len(numbers(page, "#event-list tbody")))]

    assert (looked.messages, looked.elsewhere) == ([], [])
    page.context.close()


def test_dead_letters_and_kpis_are_reached_by_clicking_too(browser: Browser, served: Served) -> None:
    looked = seen(browser, served)
    page = looked.open("/")
    page.get_by_role("link", name="Dead letters", exact=True).click()
    page.get_by_role("link", name="0/900").click()
    expect(page.locator("#record")).to_contain_text('"type":"refund"')
    page.get_by_role("button", name="Only say what would happen").click()
    expect(page.locator("#sent")).to_contain_text("1 would be rejected once more")

    page.get_by_role("link", name="KPIs", exact=True).click()
    expect(page.locator("#goals")).to_contain_text("at risk")
    values = served.tables.client.query(
        "SELECT toString(value) FROM kpi_values WHERE kpi = 'mrr' AND currency = 'USD' AND month <= '2013-02-01' "
        "AND month >= '2012-03-01' ORDER BY month"
    ).result_rows
    assert numbers(page, "#mrr-USD") == [row[0] for row in values]
    assert (looked.messages, looked.elsewhere) == ([], [])
    page.context.close()


def test_a_customer_follows_a_link_and_finds_the_numbers_of_the_queries(browser: Browser, served: Served) -> None:
    client, now = served.tables.client, CLOCK.now()
    catalog = catalog_store.latest(client)
    assert catalog is not None
    [bill] = preview(client, "acme", RollupReader(client), now=now)
    looked = seen(browser, served)
    page = looked.page
    page.goto(served.portal_link)
    # What the link holds has left the address, and scripts cannot read the session it gave.
    assert page.url == f"{served.address}/portal"
    assert page.evaluate("document.cookie") == ""
    assert numbers(page, "#so-far-2013-02-USD") == [bill.totals[0].so_far]
    assert numbers(page, "#lines-1 td.strong") == [one.amount_so_far for one in bill.lines]
    page.locator("summary", has_text="Calls").click()
    expect(page.get_by_role("table", name="Tiers").first).to_be_visible()

    page.get_by_role("link", name="Usage", exact=True).click()
    page.get_by_label("Of what").select_option("sum")
    page.get_by_role("button", name="Show").click()
    page.get_by_label("From").fill("2013-01-01")
    page.get_by_label("To (not included)").fill("2013-02-01")
    page.get_by_label("region").check()
    page.get_by_role("button", name="Show").click()
    asked = UsageParameters(
        meter="sum", customers=("acme",), start="2013-01-01", end="2013-02-01", window=Window.DAY, by=By.EVERYTHING,
        group_by=("region",),
    )  # fmt: skip
    rows = answer(client, catalog, query_of(asked, catalog, now))
    assert numbers(page, "#usage tbody td.n:nth-last-child(2)") == [format_quantity(one.quantity) for one in rows][:100]
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV of these rows").click()
    assert download.value.path().read_text().count("\n") == len(rows) + 1

    page.get_by_role("link", name="Bills", exact=True).click()
    page.get_by_role("link", name="2013-01.1").click()
    stored = client.query(
        "SELECT toString(amount) FROM line_items FINAL WHERE run = '2013-01.1' AND customer = 'acme' "
        "ORDER BY line_number"
    )
    assert [Decimal(one) for one in numbers(page, "#lines td.strong")] == [
        Decimal(row[0]) for row in stored.result_rows
    ]
    page.get_by_role("link", name="Calls").click()
    expect(page.locator("#rounded")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("link", name="List the events behind this line").click()
    expect(page.locator("#event-list")).to_be_visible(timeout=WAIT_MS)
    assert numbers(page, "#page-sum") == [str(len(numbers(page, "#event-list tbody")))]

    assert (looked.messages, looked.elsewhere) == ([], [])
    page.context.close()


def test_no_page_breaks_a_rule_of_accessibility_in_light_or_dark_or_is_wider_than_a_phone(
    browser: Browser, served: Served
) -> None:
    looked = seen(browser, served, bypass_csp=True)
    looked.page.goto(served.portal_link)
    broken: dict[str, list[str]] = {}
    widths: dict[str, int] = {}

    for name, path in PAGES.items():
        page = looked.open(path)
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        page.screenshot(path=SCREENSHOTS / f"{name}-light.png", full_page=True)
        broken[name] = violations(page, {})
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        page.screenshot(path=SCREENSHOTS / f"{name}-dark.png", full_page=True)
        broken[name] += violations(page, {"runOnly": ["color-contrast"]})
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        widths[name] = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=SCREENSHOTS / f"{name}-phone.png", full_page=True)
        page.set_viewport_size(WIDE)

    assert broken == {name: [] for name in PAGES}
    assert widths == dict.fromkeys(PAGES, PHONE["width"])
    looked.page.context.close()


def violations(page: Page, options: dict[str, object]) -> list[str]:
    """What breaks axe's rules, with the first places."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{one['id']}: {one['help']} ({', '.join(str(node['target']) for node in one['nodes'][:3])})" for one in found
    ]


def test_a_question_is_asked_with_the_keyboard_alone(browser: Browser, served: Served) -> None:
    page = seen(browser, served).open("/")

    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()

    page.reload()
    tab_to(page, "Usage")
    outline = page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "solid3px"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Usage")
    tab_to(page, "Meter")
    page.keyboard.type("latest")
    tab_to(page, "A row for each")
    page.keyboard.type("everything")
    tab_to(page, "Show")
    page.keyboard.press("Enter")
    expect(page.locator("#h-answer")).to_contain_text("latest")
    assert "by=everything" in page.url
    page.context.close()


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has this name has the focus; everything that can be used must come within 60."""
    said = "(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(said) == name:
            return
    pytest.fail(f"{name} is not reached by Tab")
