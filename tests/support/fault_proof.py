"""What every fault run ends with: the invariants, all of them told at once."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.fault_stack import FaultStack, read_log
from tests.support.invariants import accounting, exact_totals, no_gap, no_loss, replayed_alike
from tests.support.plain_log import Made


def prove(
    stack: FaultStack, known: Sequence[Made], accepted: Sequence[Made] | None = None, *, overlaps: bool = False
) -> None:
    """Everything sent is accounted for once. `known` is all that was ever sent, `accepted` what was answered 2xx.

    Where two workers shared a partition for a while the ledger may have rows that overlap (`overlaps`): a row then
    counts events of another row as well.
    """
    log = read_log(stack.settings, known)
    wrong = no_gap(stack.client, stack.settings, stack.epoch)
    wrong += replayed_alike(stack.settings, stack.client, stack.epoch, log)
    if not overlaps:
        wrong += accounting(stack.client, stack.epoch)
    if accepted is not None:
        wrong += no_loss(stack.client, accepted)
        wrong += exact_totals(stack.client, accepted)
    assert not wrong, "\n".join(wrong)
