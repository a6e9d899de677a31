"""The main job: a year of flights through the whole pipeline, compared with a count made by plain Python."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from examples.flights.flights import flights_file

TIMEOUT_S = 600
Group = tuple[str, str, str]
"""(carrier, origin, month)"""

ABSENT = ("", "NA")
"""How the file writes a missing value."""

FLAT_FEE = Decimal("1250.00")
FREE_FLIGHTS, FLIGHTS_TIER_END = 100, 1000
FIRST_PAID_FLIGHT_FEE = Decimal("75.00")
FLIGHT_PRICE, FLIGHT_PRICE_ABOVE = Decimal("12.50"), Decimal("9.875")
MILE_PRICE = Decimal("0.00415")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, printed text) of one run of the main job that sends every event twice."""
    out = tmp_path_factory.mktemp("flights")
    done = subprocess.run(
        [sys.executable, "-m", "examples.flights", "--out", str(out), "--twice"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out, done.stdout


@pytest.fixture(scope="module")
def flights() -> list[dict[str, str]]:
    """The rows of the same file, read without any code of the pipeline."""
    with zipfile.ZipFile(flights_file()) as archive, archive.open("flights.csv") as file:
        return list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))


@pytest.mark.timeout(TIMEOUT_S)
def test_every_monthly_quantity_equals_a_plain_count(job: tuple[Path, str], flights: list[dict[str, str]]) -> None:
    expected: dict[tuple[str, str, str, str], Decimal] = {}
    groups: dict[Group, list[dict[str, str]]] = defaultdict(list)
    for row in flights:
        # The scheduled departure is local to New York, so the file's own month is the month of the bill.
        groups[row["carrier"], row["origin"], f"2013-{int(row['month']):02}"].append(row)
    for (carrier, origin, month), rows in groups.items():
        air_times = [Decimal(row["air_time"]) for row in rows if row["air_time"] not in ABSENT]
        delays = [Decimal(row["dep_delay"]) for row in rows if row["dep_delay"] not in ABSENT]
        tails = {row["tailnum"] for row in rows if row["tailnum"] not in ABSENT}
        expected["flights", carrier, origin, month] = Decimal(len(rows))
        expected["miles", carrier, origin, month] = sum((Decimal(row["distance"]) for row in rows), Decimal(0))
        if air_times:
            expected["air_minutes", carrier, origin, month] = sum(air_times, Decimal(0))
        if delays:
            expected["worst_delay", carrier, origin, month] = max(delays)
        if tails:
            expected["aircraft", carrier, origin, month] = Decimal(len(tails))

    with (job[0] / "usage_monthly.csv").open(encoding="utf-8", newline="") as file:
        found = {
            (row["meter"], row["customer"], row["origin"], row["month"]): Decimal(row["value"])
            for row in csv.DictReader(file)
        }

    assert found == expected


@pytest.mark.timeout(TIMEOUT_S)
def test_every_line_item_equals_a_plain_calculation(job: tuple[Path, str], flights: list[dict[str, str]]) -> None:
    expected: dict[tuple[str, str, str, str], tuple[Decimal, Decimal]] = {}
    departures: dict[tuple[str, str], int] = defaultdict(int)
    miles: dict[Group, int] = defaultdict(int)
    for row in flights:
        month = f"2013-{int(row['month']):02}"
        departures[row["carrier"], month] += 1
        miles[row["carrier"], row["origin"], month] += int(row["distance"])
    for carrier in {row["carrier"] for row in flights}:
        for number in range(1, 13):
            month = f"2013-{number:02}"
            count = departures[carrier, month]
            expected[month, carrier, "access", ""] = (Decimal(1), FLAT_FEE)
            expected[month, carrier, "flights", ""] = (Decimal(count), _cents(_flights_price(count)))
    for (carrier, origin, month), distance in miles.items():
        expected[month, carrier, "miles", origin] = (Decimal(distance), _cents(distance * MILE_PRICE))

    lines = [json.loads(text) for text in (job[0] / "line_items.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {
        (line["period"], line["customer"], line["charge"], line["dimensions"].get("origin", "")): (
            Decimal(line["quantity"]),
            Decimal(line["amount"]),
        )
        for line in lines
    }

    assert len(lines) == len(found)
    assert found == expected


@pytest.mark.timeout(TIMEOUT_S)
def test_the_csv_and_the_json_lines_say_the_same(job: tuple[Path, str]) -> None:
    with (job[0] / "line_items.csv").open(encoding="utf-8", newline="") as file:
        table = [(row["id"], row["quantity"], row["amount"], row["digest"]) for row in csv.DictReader(file)]
    lines = [json.loads(text) for text in (job[0] / "line_items.jsonl").read_text(encoding="utf-8").splitlines()]

    assert table == [(line["id"], line["quantity"], line["amount"], line["digest"]) for line in lines]


@pytest.mark.timeout(TIMEOUT_S)
def test_sending_every_event_a_second_time_changes_no_number(job: tuple[Path, str]) -> None:
    assert "336,776 accepted, 0 duplicate, 0 rejected" in job[1]
    assert "0 accepted, 336,776 duplicate, 0 rejected" in job[1]
    assert "no number changed" in job[1]


def _flights_price(count: int) -> Decimal:
    """Graduated: 100 free, then 12.50 each with a fee of 75.00 up to the thousandth, then 9.875 each."""
    price = Decimal(0)
    if count > FREE_FLIGHTS:
        price += FIRST_PAID_FLIGHT_FEE + (min(count, FLIGHTS_TIER_END) - FREE_FLIGHTS) * FLIGHT_PRICE
    if count > FLIGHTS_TIER_END:
        price += (count - FLIGHTS_TIER_END) * FLIGHT_PRICE_ABOVE
    return price


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)
