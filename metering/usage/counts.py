"""What is known of the groups of an answer while it is made, and the rows that it comes to. Pure."""

from __future__ import annotations

from metering.usage.balance import Balances, balance_rows
from metering.usage.bounds import RowsBound
from metering.usage.question import Question
from metering.usage.tally import Group, row_of
from schemas.meter import Aggregation
from schemas.quantity import ZERO, add
from schemas.rollup import EMPTY, RollupState, merge
from schemas.usage_query import UsageRow


class Counts:
    """States and members by group; of the window before the range only the balances."""

    def __init__(self, question: Question, bound: RowsBound) -> None:
        self._question = question
        self._bound = bound
        self.states: dict[Group, RollupState] = {}
        self.members: dict[Group, int] = {}
        self.opening: Balances = {}

    def add(self, group: Group, state: RollupState) -> None:
        """Count more of a group. Raises RequestError for more groups than an answer may have rows."""
        if self._question.is_opening(group.window):
            key = group.who, group.asked
            self.opening[key] = add(self.opening.get(key, ZERO), state.value_sum)
            return
        self.states[group] = merge(self.states.get(group, EMPTY), state)
        self._bound.check(len(self.states))

    def rows(self) -> list[UsageRow]:
        """The answer, by window, then who, then dimensions."""
        if self._question.has(Aggregation.TIME_WEIGHTED):
            rows = balance_rows(self._question, self.states, self.members, self.opening, self._bound)
        else:
            rows = [
                row_of(self._question, group, state, self.members.get(group, 0)) for group, state in self.states.items()
            ]
        return sorted(rows, key=lambda row: (row.window_start, row.who, tuple(row.dimensions.values())))
