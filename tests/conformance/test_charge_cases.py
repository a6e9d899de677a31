"""Published pricing cases of other billing systems, through the function that prices every line item."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing_export.rate import rate
from schemas.charges import Charge, GraduatedCharge, PerUnitCharge, Tier

FOLDER = Path(__file__).parent
OWN_CASES = FOLDER / "charge_cases.json"
CASES: list[dict[str, Any]] = json.loads(
    Path(os.environ.get("METERING_CHARGE_CASES") or OWN_CASES).read_text(encoding="utf-8")
)
STATES = dict(
    re.findall(
        r"^\| `([^`]+)` \| (implemented|planned)", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
)


def charge_of(case: dict[str, Any]) -> Charge:
    """The charge that a case's properties describe. Publishers write tiers in two ways."""
    properties = case["properties"]
    if case["model"] == "standard":
        return PerUnitCharge(id="case", meter="case", unit_amount=Decimal(properties["amount"]))
    tiers = properties.get("tiers") or [
        {"up_to": one["to_value"], "unit_amount": one["per_unit_amount"], "flat_amount": one["flat_amount"]}
        for one in properties["graduated_ranges"]
    ]
    return GraduatedCharge(
        id="case",
        meter="case",
        tiers=tuple(
            Tier(
                up_to=None if one["up_to"] is None else Decimal(one["up_to"]),
                unit_amount=Decimal(one.get("unit_amount", "0")),
                flat_amount=Decimal(one.get("flat_amount", "0")),
            )
            for one in tiers
        ),
    )


IMPLEMENTED = [case for case in CASES if STATES.get(case["model"]) == "implemented"]


@pytest.mark.parametrize("case", IMPLEMENTED, ids=lambda case: f"{case['id']}-{case['model']}")
def test_a_published_case_costs_what_its_publisher_says(case: dict[str, Any]) -> None:
    rated = rate(charge_of(case), Decimal(case["units"]))

    assert case["amount_unit"] == "major"
    assert rated.amount_unrounded == Decimal(case["expected_amount"]), case["note"]


def test_every_model_of_the_cases_is_in_the_table() -> None:
    assert sorted({case["model"] for case in CASES} - set(STATES)) == []


def test_the_own_cases_are_counted_so_that_none_passes_unrun() -> None:
    own = Counter(STATES[case["model"]] for case in json.loads(OWN_CASES.read_text(encoding="utf-8")))

    assert own == {"implemented": 17, "planned": 94}
