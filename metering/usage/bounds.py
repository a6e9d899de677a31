"""How large an answer may grow."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.errors import LimitError

ROWS_MAX: Final = 100_000
"""Rows of an answer, unless the caller says otherwise."""


class RowsBound(msgspec.Struct, frozen=True):
    """The most rows an answer may have."""

    rows_max: int

    def check(self, rows_count: int) -> None:
        """Raise LimitError when the answer has grown beyond the bound."""
        if rows_count > self.rows_max:
            raise LimitError(
                f"the answer has more than {self.rows_max} rows",
                where="window",
                setting="query_rows_max",
                fix="Ask for fewer subjects or dimensions, a shorter range or longer windows",
            )
