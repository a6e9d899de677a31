"""`GET /v1/customers/{id}/entitlements/{meter}`: whether usage is allowed now, for the gateway to mount."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.params import PathParameter

from metering.entitlements.service import EntitlementService
from metering.keys import NotFoundError, Scope, needs
from metering.principal import principal_of
from schemas.quota import Entitlement

_FRESH: Final = {"Cache-Control": "no-store"}
_encode = msgspec.json.Encoder().encode


def entitlement_routes(service: EntitlementService) -> list[Any]:
    """The route handlers, for an application that renders MeteringError (`ingest.problems.EXCEPTION_HANDLERS`)."""

    @get(
        "/v1/customers/{customer:str}/entitlements/{meter:str}",
        operation_id="getEntitlement",
        summary="Ask whether a customer may use a meter now",
        tags=["entitlements"],
        opt=needs(Scope.QUERY),
        security=[{"key": []}],
        media_type=MediaType.JSON,
    )
    async def get_entitlement(
        request: Request[Any, Any, Any],
        customer: Annotated[str, PathParameter(description="The customer's id.")],
        meter: Annotated[str, PathParameter(description="Name of the meter.")],
    ) -> Response[Entitlement]:
        bound = principal_of(request).customer
        if bound and bound != customer:
            raise NotFoundError
        await service.fresh()
        return Response(service.answer(customer, meter), headers=_FRESH)

    return [get_entitlement]
