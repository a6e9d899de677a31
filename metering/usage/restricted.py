"""Keeps a question to one customer: what a key that is bound to a customer may ask. Pure."""

from __future__ import annotations

import msgspec

from metering.keys import NotFoundError
from metering.usage.parameters import UsageParameters
from schemas.catalog import AppliedCatalog
from schemas.usage_query import By


def restricted(parameters: UsageParameters, customer: str, catalog: AppliedCatalog) -> UsageParameters:
    """The same question about this customer alone; subjects of others have no usage in its answer.

    Raises NotFoundError for another customer, whether there is one of that name or not.
    """
    if customer not in catalog.customers or any(asked != customer for asked in parameters.customers):
        raise NotFoundError
    by = By.SUBJECT if parameters.subjects and not parameters.customers else By.CUSTOMER
    return msgspec.structs.replace(parameters, customers=(customer,), by=parameters.by or by)
