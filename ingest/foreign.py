"""Keeps a key that is bound to a customer to that customer's subjects. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from ingest.problems import RETRY_AFTER_S, EventError, ProblemError
from ingest.validate import Verdict
from schemas.catalog import AppliedCatalog

FOREIGN_SUBJECT: Final = "foreign_subject"


def refuse_foreign(verdict: Verdict, customer: str, catalog: AppliedCatalog | None) -> Verdict:
    """The verdict, with an error for each good event whose subject is not the customer's.

    The error is the same for another customer's subject and for one that nobody has. Without a catalog nobody knows
    whose a subject is: raises ProblemError (503).
    """
    if catalog is None:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "catalog_unavailable",
            "the catalog, which says whose a subject is, cannot be read; nothing was accepted",
            fix="Send the same request again after the pause that Retry-After names",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    records, errors = dict(verdict.records), list(verdict.errors)
    for index, record in verdict.records.items():
        owner = catalog.customer_of(record.key.decode())
        if owner is None or owner.id != customer:
            del records[index]
            errors.append(
                EventError(
                    index=index,
                    reason=FOREIGN_SUBJECT,
                    field="subject",
                    detail="the API key may not send this subject",
                )
            )
    return Verdict(records, sorted(errors, key=lambda error: error.index))
