"""Makes pages of templates: everything escaped, one frame around each, links for what the reader may open."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
import msgspec
from litestar import MediaType, Request, Response

from metering.dashboard import words
from metering.dashboard.guard import TOKEN_FIELD, Guard
from metering.keys import Principal, Scope
from metering.version import CODE_VERSION

TEMPLATES: Final = Path(__file__).parent / "templates"
ROWS_PER_PAGE: Final = 50


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A page that the navigation leads to. `everybody` is for whoever sees all customers."""

    address: str
    name: str
    scope: Scope
    everybody: bool = False


LINKS: Final = (
    Link(address="/", name="Overview", scope=Scope.QUERY, everybody=True),
    Link(address="/usage", name="Usage", scope=Scope.QUERY),
    Link(address="/customers", name="Customers", scope=Scope.QUERY),
    Link(address="/runs", name="Billing runs", scope=Scope.QUERY),
    Link(address="/dead-letters", name="Dead letters", scope=Scope.ADMIN, everybody=True),
    Link(address="/kpis", name="KPIs", scope=Scope.QUERY, everybody=True),
)


class PagePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a long list a page shows: rows from `first` on, at most `size`, of `total`; pages count from 1."""

    number: int
    total: int
    size: int = ROWS_PER_PAGE

    @property
    def first(self) -> int:
        return (self.number - 1) * self.size

    @property
    def last(self) -> int:
        return min(self.total, self.first + self.size)

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // self.size))


def page_place(number: int, total: int, size: int = ROWS_PER_PAGE) -> PagePlace:
    """The place of a page that is asked for; the nearest one that there is."""
    pages = max(1, -(-total // size))
    return PagePlace(number=min(max(1, number), pages), total=total, size=size)


class Pages:
    """The templates, and the frame around what they make."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._templates = environment(TEMPLATES)
        self._templates.globals |= {"token_field": TOKEN_FIELD}

    def page(
        self,
        request: Request[Any, Any, Any],
        template: str,
        *,
        principal: Principal | None,
        status: HTTPStatus = HTTPStatus.OK,
        **values: Any,
    ) -> Response[str]:
        """A page, for `principal` (None: nobody has signed in)."""
        path = request.url.path
        links = [one for one in LINKS if principal is not None and may_open(principal, one)]
        text = self._templates.get_template(template).render(
            links=links,
            here=max((one.address for one in links if _is_part(path, one.address)), key=len, default=""),
            principal=principal,
            signed_in=principal is not None and bool(principal.key),
            form_token="" if principal is None else self._guard.form_token(principal),
            **values,
        )
        return Response(text, media_type=MediaType.HTML, status_code=status)


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of some folders, the first that has one, which escape everything and know our words for values."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "number": words.number,
        "grouped": words.grouped,
        "money": words.money,
        "moment": words.moment,
        "span": words.span,
        "plain": words.plain,
        "pairs": words.pairs,
        "printable": words.printable,
        "currency_name": words.currency_name,
    }
    made.globals |= {"address": address, "version": CODE_VERSION}
    return made


def may_open(principal: Principal, link: Link) -> bool:
    """Whether a page is for this principal."""
    return link.scope in principal.scopes and not (link.everybody and principal.customer)


def address(path: str, parameters: Mapping[str, Any] | None = None, /, **more: Any) -> str:
    """A page's address with its parameters; those that are empty are left out."""
    given = {**(parameters or {}), **more}
    query = urlencode({name: value for name, value in given.items() if value not in ("", None, [], ())}, doseq=True)
    return f"{path}?{query}" if query else path


_PARENTS: Final = {"/customer": "/customers", "/run": "/runs", "/line": "/runs", "/dead-letter": "/dead-letters"}


def _is_part(path: str, link: str) -> bool:
    return _PARENTS.get(path, path) == link
