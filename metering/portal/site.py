"""What every page of the portal is made with: settings, clock, database, templates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from litestar import MediaType, Request, Response

from metering.clock import Clock
from metering.config import Settings
from metering.dashboard.database import Database
from metering.dashboard.held import PATIENCE_S, Held, HeldByName
from metering.dashboard.pages import TEMPLATES as SHARED
from metering.dashboard.pages import environment
from metering.keys import NotFoundError
from metering.portal.links import PREFIX
from metering.principal import principal_of
from schemas.catalog import AppliedCatalog, Customer

TEMPLATES: Final = Path(__file__).parent / "templates"
LINKS: Final = ((PREFIX, "Running bill"), (f"{PREFIX}/usage", "Usage"), (f"{PREFIX}/bills", "Bills"))
_PARENTS: Final = {f"{PREFIX}/bill": f"{PREFIX}/bills", f"{PREFIX}/line": f"{PREFIX}/bills"}

T = TypeVar("T")


class PortalSite:
    """The portal's own. `patience_s` is that of `Held`."""

    def __init__(self, settings: Settings, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self.settings = settings
        self.clock = clock
        self.database = Database(settings)
        self._patience_s = patience_s
        self._templates = environment(TEMPLATES, SHARED)
        self._templates.globals |= {"prefix": PREFIX}

    def held_by_name(self, kind: str, *, fresh_s: float = 0.0) -> HeldByName[Any]:
        """Numbers of one kind that are counted beside the pages; the customer must be part of every name."""
        return HeldByName(partial(self._held, fresh_s=fresh_s), kind)

    def _held(self, name: str, count: Callable[[], T], *, fresh_s: float) -> Held[T]:
        fresh_s = fresh_s or self.settings.dashboard_fresh_s
        return Held(name, count, self.clock, fresh_s=fresh_s, patience_s=self._patience_s)

    def page(
        self,
        request: Request[Any, Any, Any],
        template: str,
        *,
        customer: Customer | None,
        status: HTTPStatus = HTTPStatus.OK,
        **values: Any,
    ) -> Response[str]:
        """A page for a customer; without one, a page that says the same to everybody."""
        path = request.url.path.rstrip("/")
        text = self._templates.get_template(template).render(
            customer=customer,
            links=() if customer is None else LINKS,
            here="" if customer is None else _PARENTS.get(path, path),
            **values,
        )
        return Response(text, media_type=MediaType.HTML, status_code=status)


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the newest catalog has the customer, and that catalog."""

    customer: Customer
    catalog: AppliedCatalog


def who_asks(site: PortalSite, request: Request[Any, Any, Any]) -> Asking:
    """The customer of the session. Raises NotFoundError for one that the catalog does not have any more."""
    name = principal_of(request).customer
    with site.database.client() as client:
        catalog = site.database.catalog(client)
    customer = catalog.customers.get(name)
    if customer is None:
        raise NotFoundError
    return Asking(customer=customer, catalog=catalog)
