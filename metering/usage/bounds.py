"""How large an answer may grow."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.errors import RequestError

ROWS_MAX: Final = 100_000
"""Rows of an answer, unless the caller says otherwise."""


class RowsBound(msgspec.Struct, frozen=True):
    """The most rows an answer may have."""

    rows_max: int

    def check(self, rows_count: int) -> None:
        """Raise RequestError when the answer has grown beyond the bound."""
        if rows_count > self.rows_max:
            raise RequestError(
                f"the answer has more than {self.rows_max} rows",
                where="window",
                fix="Ask for fewer subjects or dimensions, a shorter range or longer windows",
            )
