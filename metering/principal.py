"""Carries who asks from the guard to the route that answers."""

from __future__ import annotations

from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from metering.keys import ANYBODY, Principal
from schemas.errors import InvariantViolationError

_STATE: Final = "principal"


def give_principal(connection: ASGIConnection[Any, Any, Any, Any], principal: Principal) -> None:
    """Note who asks."""
    connection.scope["state"][_STATE] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Who asks. Raises InvariantViolationError where no guard has looked: nobody is not anybody."""
    found = connection.scope["state"].get(_STATE)
    if not isinstance(found, Principal):
        raise InvariantViolationError(
            "a route was mounted without a guard", where=connection.url.path, fix="Mount it in the gateway"
        )
    return found


async def open_to_anybody(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard that lets everybody do everything, for an application that another guard stands before."""
    give_principal(connection, ANYBODY)
