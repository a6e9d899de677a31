"""The parts of a statement that say whose usage is asked for, and who an answer's row stands for. Pure.

The statement has the parameters `subjects`, `customers`, `catalog_version`, and `owned` and `owners`, which are the two
sides of what `owners` gives.
"""

# ruff: noqa: S608 - made of constants
from __future__ import annotations

from typing import Final

from metering.usage.question import Question, name_bytes
from schemas.usage_query import By

_OWNED: Final = """(
    SELECT JSONExtractString(customer_json, 'id') AS customer,
        arrayJoin(JSONExtract(customer_json, 'subjects', 'Array(String)')) AS subject
    FROM (
        SELECT arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'customers')) AS customer_json
        FROM (SELECT document FROM catalog_versions WHERE version = {catalog_version:UInt32} LIMIT 1)
    )
)"""
"""Which customer owns which subject, by the very catalog version that is asked with: old ones keep answering."""

OWNED_BYTES_MAX: Final = 100_000
"""Most characters of subjects and their owners that a statement is given; with more it looks them up in the catalog."""


def who(question: Question) -> str:
    """What a row stands for, of a table that is named `one`."""
    by = question.query.by
    if by is By.CUSTOMER:
        named = "transform(one.subject, {owned:Array(String)}, {owners:Array(String)}, '')"
        return "owned.customer" if owners(question) is None else named
    return "one.subject" if by is By.SUBJECT else "''"


def join_owners(question: Question) -> str:
    """The join with the owners, where they are not named; subjects that no customer owns fall away."""
    if question.query.by is not By.CUSTOMER or owners(question) is not None:
        return ""
    return f"\nINNER JOIN {_OWNED} AS owned USING (subject)"


def whose(question: Question, first: str = "AND") -> str:
    """The condition that leaves only the subjects and customers that are asked about; it starts with `first`."""
    conditions = [] if question.query.subjects is None else ["one.subject IN {subjects:Array(String)}"]
    if question.query.customers is not None and owners(question) is not None:
        conditions.append("one.subject IN {owned:Array(String)}")
    elif question.query.customers is not None:
        conditions.append(
            f"one.subject IN (SELECT subject FROM {_OWNED} WHERE customer IN {{customers:Array(String)}})"
        )
    return f"\n    {first} " + "\n    AND ".join(conditions) if conditions else ""


def owners(question: Question) -> dict[str, str] | None:
    """The owner of each subject of the customers that are asked about; None where they are too many to name, or all."""
    if question.query.customers is None:
        return None
    known = question.catalog.customers
    found = {subject: name for name in question.query.customers for subject in known[name].subjects}
    return found if sum(name_bytes(one) for pair in found.items() for one in pair) <= OWNED_BYTES_MAX else None
