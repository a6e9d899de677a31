"""What must hold of the whole log up to a cut before a run of that cut can be proved; looked at once for each cut."""

from __future__ import annotations

from collections.abc import Iterator

from clickhouse_connect.driver.client import Client

from billing_export.correction_check import CorrectionCheck
from billing_export.event_store import event_sums, has_repeats, ledger_sums
from schemas.usage_query import Cut


class LogCheck:
    """The log up to one cut: its corrections, whether an identity may stand twice, and what is not as it must be."""

    def __init__(self, client: Client, cut: Cut) -> None:
        self.cut = cut
        self.corrections = CorrectionCheck(client, cut)
        self.may_repeat = has_repeats(client, cut)
        self.differences = (*self.corrections.differences(), *_ledger_differences(client, cut))


def _ledger_differences(client: Client, cut: Cut) -> Iterator[str]:
    """The events up to the cut must be those that the workers accepted, by count and by digest."""
    held = event_sums(client, cut)
    for (epoch, partition), accepted in ledger_sums(client, cut).items():
        stored = held.get((epoch, partition))
        count, digest = (0, 0) if stored is None else (stored.events_count, stored.digest)
        if (count, digest) != (accepted.events_count, accepted.digest):
            yield (
                f"log {epoch}, partition {partition}: {count} events with digest {digest:032x} are stored up to the "
                f"cut, the ledger accepted {accepted.events_count} with digest {accepted.digest:032x}"
            )
