"""Catalog versions, a few at hand: re-rating asks for the same old ones again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from clickhouse_connect.driver.client import Client

from metering import catalog_store
from schemas.catalog import AppliedCatalog, Customer
from schemas.errors import RequestError

KEPT_MAX: Final = 4
"""A catalog of 100,000 customers takes some hundred megabytes."""


class Catalogs:
    """Loads catalog versions and keeps the last few that were asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: dict[int, AppliedCatalog] = {}

    def reconnect(self, client: Client) -> None:
        """Use another connection from now on."""
        self._client = client

    def load(self, version: int) -> AppliedCatalog:
        """One catalog version. Raises as `catalog_store.load` does."""
        found = self._kept.pop(version, None)
        if found is None:
            found = catalog_store.load(self._client, version)
            while len(self._kept) >= KEPT_MAX:
                self._kept.pop(next(iter(self._kept)))
        self._kept[version] = found
        return found

    def customer(self, name: str, versions: Iterable[int]) -> Customer:
        """A customer as the first of some catalog versions has it that does. Raises RequestError when none does."""
        return self.load(self.version_having(name, versions)).customers[name]

    def version_having(self, name: str, versions: Iterable[int]) -> int:
        """The first of some catalog versions that has a customer. Raises RequestError when none does."""
        for version in dict.fromkeys(versions):
            if name in self.load(version).customers:
                return version
        raise RequestError(
            f"there is no customer {name!r}", where="catalog", fix="Use an id of the catalog's customers"
        )
