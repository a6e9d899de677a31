"""Published pricing cases of other billing systems, through the functions that make every bill."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.conformance.outcomes import UnknownModelError, agrees, outcome
from tests.conformance.published import Case

FOLDER: Final = Path(__file__).parent
OWN_CASES: Final = FOLDER / "charge_cases.json"


class Deviation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where this project means to differ: one case by its id, or every case of a model, and why."""

    reason: str
    id: str | None = None
    model: str | None = None

    def covers(self, case: Case) -> bool:
        return case.id == self.id or case.model == self.model


def cases_of(path: Path) -> list[Case]:
    return msgspec.json.decode(path.read_bytes(), type=list[Case])


CASES: Final = cases_of(Path(os.environ.get("METERING_CHARGE_CASES") or OWN_CASES))
FURTHER_CASES: Final = cases_of(FOLDER / "further_cases.json")
DEVIATIONS: Final = msgspec.json.decode((FOLDER / "deviations.json").read_bytes(), type=list[Deviation])


def verdict(case: Case) -> str:
    """Empty where a case is as it should be; what is wrong with it otherwise."""
    listed = any(one.covers(case) for one in DEVIATIONS)
    try:
        found = outcome(case)
    except UnknownModelError:
        return f"no rule for the model {case.model!r}"
    if agrees(case, found):
        return "passes, and stands in deviations.json" if listed else ""
    texts = ",".join(f"{one:f}" for one in found)
    return "" if listed else f"expected {case.expected_amount} {case.amount_unit}, found {texts} ({case.note})"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.model}")
def test_a_published_case_costs_what_its_publisher_says(case: Case) -> None:
    assert verdict(case) == ""


@pytest.mark.parametrize("case", FURTHER_CASES, ids=lambda case: f"{case.id}-{case.model}")
def test_a_published_case_beside_those_given_costs_what_its_publisher_says(case: Case) -> None:
    assert verdict(case) == ""


def test_every_own_case_is_run_and_few_deviate() -> None:
    own = Counter(any(one.covers(case) for one in DEVIATIONS) for case in cases_of(OWN_CASES))

    assert own == {False: 109, True: 2}


def test_a_deviation_names_a_case_that_exists_and_a_reason() -> None:
    for one in DEVIATIONS:
        assert (one.id is None) != (one.model is None)
        assert len(one.reason) > 40
        assert any(one.covers(case) for case in cases_of(OWN_CASES))


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        (
            Case(
                id="X1",
                model="standard",
                properties={"amount": "2"},
                units="3",
                expected_amount="7",
                amount_unit="major",
            ),
            "expected 7 major, found 6",
        ),
        (Case(id="X2", model="auction", expected_amount="1", amount_unit="major"), "no rule for the model 'auction'"),
        (
            Case(
                id="X3",
                model="invoice_total",
                properties={"subtotal": "5", "tax_rate": "0"},
                expected_amount="5",
                amount_unit="major",
            ),
            "passes, and stands in deviations.json",
        ),
    ],
)
def test_a_wrong_amount_an_unknown_model_and_a_needless_deviation_are_failures(case: Case, wrong: str) -> None:
    assert verdict(case).startswith(wrong)
